"""Which fields of a request a model takes: by its family, by the suite, and by what it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# OpenAI's reasoning models, as documented in November 2026: another name for the longest reply; temperature, top_p and
# log-probabilities only without reasoning. The o-series cannot go without, and says so itself.
_WITHOUT_REASONING = re.compile(r"(?:.*/)?gpt-(?:[5-9]|[1-9]\d)(?:[.-].*)?")
_LONGEST = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_INSTEAD = re.compile(r"\buse [\W_]*([a-z][a-z_]*[a-z])\W* instead", re.IGNORECASE)
_ONLY_WITHOUT_REASONING = ("temperature", "top_p", "logprobs", "top_logprobs")
MOST_CHANGES = 8


def for_model(parameters: Mapping[str, Any], model: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is sent: a configuration's parameters as the model's family takes them, with the suite's own changes.

    Args:
        parameters: the configuration's.
        model: its name.
        own: the suite's; None takes a field out.
    """
    made = dict(parameters)
    if _WITHOUT_REASONING.fullmatch(model):
        made["reasoning_effort"] = "none"
        if "max_tokens" in made:
            made["max_completion_tokens"] = made.pop("max_tokens")
    return {name: value for name, value in {**made, **own}.items() if value is not None}


def longest_reply(parameters: Mapping[str, Any]) -> int:
    """Return the tokens that a reply may have, for estimates of cost; 1 where nothing bounds it."""
    return max((one for name in _LONGEST if type(one := parameters.get(name)) is int), default=1)


@dataclass
class Dialect:
    """What an endpoint takes, learned from its refusals.

    Attributes:
        sent: the fields of the next request.
        needed: fields without which a reply would be of no use.
        changes: what was changed, in words.
    """

    sent: dict[str, Any]
    needed: tuple[str, ...] = ()
    changes: list[str] = field(default_factory=list)
    _tried: set[str] = field(default_factory=set)

    def learn(self, tried: Mapping[str, Any], message: str, named: str | None) -> bool:
        """Change what a refusal names; say whether another request has a chance.

        Args:
            tried: the fields that were refused.
            message: the endpoint's words.
            named: the field that it says it is about, if it says so.
        """
        if self.sent != tried:  # another request has learned it meanwhile
            return True
        if len(self.changes) >= MOST_CHANGES:
            return False
        about = _about(tried, message, named)
        if about is None:
            return False
        instead = _INSTEAD.search(message)
        made = dict(tried)
        value = made.pop(about)
        if about in _ONLY_WITHOUT_REASONING and "reasoning_effort" not in made | dict.fromkeys(self._tried):
            made = dict(tried) | {"reasoning_effort": "none"}
            self.changes.append("reasoning_effort: none added")
        elif instead and instead[1] not in tried:
            made[instead[1]] = value
            self.changes.append(f"{about} sent as {instead[1]}")
        elif about in _LONGEST and _LONGEST[about] not in {*tried, *self._tried}:
            made[_LONGEST[about]] = value
            self.changes.append(f"{about} sent as {_LONGEST[about]}")
        elif about in self.needed:
            return False
        else:
            made = {name: one for name, one in made.items() if (about, name) != ("logprobs", "top_logprobs")}
            self.changes.append(f"{about} left out")
        self._tried |= tried.keys() | made.keys()
        self.sent = made
        return True


def _about(tried: Mapping[str, Any], message: str, named: str | None) -> str | None:
    """Return which of the fields a refusal is about; None where it is about none of them."""
    if named in tried:
        return named
    words = set(re.findall(r"[A-Za-z_]+", message))
    return next((name for name in tried if name in words), None)
