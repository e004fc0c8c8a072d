"""What is worth knowing about rows before anyone trains on them: equal, doubled, held out and trained on at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bench.data.rows import PreferenceRow

if TYPE_CHECKING:
    from bench.data.markup import ControlTokens
    from bench.data.rows import InstructionRow
    from bench.data.sources import Loaded

    Rows = Sequence[PreferenceRow | InstructionRow]


def of_rows(rows: Rows) -> dict[str, int]:
    """Count rows that occur before, and pairs that are equal."""
    made = {"duplicates": len(rows) - len({_texts(row) for row in rows})}
    if rows and isinstance(rows[0], PreferenceRow):
        made["equal"] = sum(row.chosen == row.rejected for row in rows if isinstance(row, PreferenceRow))
    return made


def of_tokens(rows: Rows, answers: Iterable[Sequence[tuple[int, ...]]], control: ControlTokens) -> dict[str, int]:
    """Count rows that spell a control token, and pairs that are equal as they will be trained on.

    Args:
        rows: as text.
        answers: of each row, the token ids of its answers after the cut.
        control: the tokenizer's control tokens.
    """
    made = {"control_tokens_as_text": sum(any(map(control.spelled, vars(row).values())) for row in rows)}
    if rows and isinstance(rows[0], PreferenceRow):
        made["equal_after_cut"] = sum(one[0] == one[1] for one in answers)
    return made


def of_reading(loaded: Loaded) -> dict[str, Any]:
    """Say in what shape rows came, what was refused and why, and what was put right."""
    refused = {kind: len(rows) for kind, rows in loaded.refused.items()}
    mended = dict(loaded.reader.mended.counts) if loaded.reader else {}
    read = loaded.reader.read if loaded.reader else set()
    return {
        "shape": loaded.shape,
        "columns_not_read": [name for name in loaded.columns if name not in read],
        "refused": refused,
        "mended": mended,
    }


def overlap(train: Rows, held_out: Rows) -> dict[str, int]:
    """Count held-out rows that are trained on, too: as they stand, and after white space and case are folded."""
    return {
        "also_in_training": _shared(map(_texts, train), map(_texts, held_out)),
        "also_in_training_folded": _shared(map(_folded, train), map(_folded, held_out)),
    }


def _shared(train: Iterable[tuple[str, ...]], held_out: Iterable[tuple[str, ...]]) -> int:
    known = set(train)
    return sum(row in known for row in held_out)


def _texts(row: PreferenceRow | InstructionRow) -> tuple[str, ...]:
    return tuple(map(str, vars(row).values()))


def _folded(row: PreferenceRow | InstructionRow) -> tuple[str, ...]:
    return tuple(" ".join(text.casefold().split()) for text in vars(row).values())
