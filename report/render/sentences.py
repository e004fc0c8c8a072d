"""Write names and numbers inside a sentence."""

from __future__ import annotations

from collections.abc import Sequence


def inside_sentence(title: str) -> str:
    """Write a title inside a sentence; an abbreviation stays as it is."""
    return title if title[:2].isupper() else title[0].lower() + title[1:]


def many(number: int, what: str) -> str:
    """Write a number of things: 1 seed, 3 seeds."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def enumerated(names: Sequence[str]) -> str:
    """Write all names: a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
