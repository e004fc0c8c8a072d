"""What is worth knowing about rows before anyone trains on them: equal, doubled, held out and trained on at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.data.rows import PreferenceRow

if TYPE_CHECKING:
    from bench.data.markup import ControlTokens
    from bench.data.rows import InstructionRow
    from bench.data.sources import Loaded

    Rows = Sequence[PreferenceRow | InstructionRow]


def of_rows(rows: Rows, answers: Iterable[Sequence[tuple[int, ...]]], control: ControlTokens) -> dict[str, int]:
    """Count rows that occur before, pairs that are equal, and rows that spell a control token.

    Args:
        rows: as text.
        answers: of each row, the token ids of its answers after the cut.
        control: the tokenizer's control tokens.
    """
    made = {
        "duplicates": len(rows) - len({_texts(row) for row in rows}),
        "control_tokens_as_text": sum(any(map(control.spelled, vars(row).values())) for row in rows),
    }
    if rows and isinstance(rows[0], PreferenceRow):
        made["equal"] = sum(row.chosen == row.rejected for row in rows if isinstance(row, PreferenceRow))
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


# ---- sums over splits, in words ---------------------------------------------------------------------------------------


def totals(splits: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what is on record about the splits of a set."""
    made: dict[str, Any] = {"refused_by_reason": {}, "mended": {}}
    for facts in splits:
        for name in _NUMBERS:
            made[name] = made.get(name, 0) + facts.get(name, 0)
        for name, key in (("refused_by_reason", "refused"), ("mended", "mended")):
            for reason, count in facts.get(key, {}).items():
                made[name][reason] = made[name].get(reason, 0) + count
    made["cut"] = made["cut_prompts"] + made["cut_answers"]
    made["refused"] = sum(made["refused_by_reason"].values())
    made["empty"] = made["refused_by_reason"].get("empty", 0)
    made["overlap"], made["overlap_folded"] = made.pop("also_in_training"), made.pop("also_in_training_folded")
    return made


_NUMBERS = (
    "rows",
    "tokens",
    "cut_prompts",
    "cut_answers",
    "duplicates",
    "equal",
    "equal_after_cut",
    "control_tokens_as_text",
    "also_in_training",
    "also_in_training_folded",
)


def in_words(total: Mapping[str, Any]) -> str:
    """Say the sums in one line; what did not happen is left out."""
    refused = ", ".join(f"{count} {reason}" for reason, count in total["refused_by_reason"].items())
    parts = [
        (total["rows"], "rows"),
        (total["cut_prompts"], "prompts cut at their left end"),
        (total["cut_answers"], "answers cut, which so have no end"),
        (total["refused"], f"rows left out ({refused})"),
        (total["duplicates"], "rows that occur before"),
        (total["equal"], "pairs of equal answers"),
        (total["equal_after_cut"] - total["equal"], "more pairs that are equal once cut"),
        (total["overlap_folded"], "held-out rows that are training rows, too"),
        (total["control_tokens_as_text"], "rows that spell a control token, kept as text"),
    ]
    said = [f"{count:,} {what}" for count, what in parts if count > 0]
    return ", ".join(said + [f"{count:,} times {what}" for what, count in total["mended"].items()])


def warnings(train: Mapping[str, Any], held_out: Mapping[str, Any]) -> list[str]:
    """Say what makes figures doubtful: rows both trained on and held out, and pairs that prefer nothing."""
    total = totals([train, held_out])
    made = []
    if total["overlap_folded"]:
        exact = f", {total['overlap']} of them to the letter" if total["overlap"] != total["overlap_folded"] else ""
        made.append(
            f"{total['overlap_folded']} of {held_out['rows']} held-out rows are training rows, too{exact}: "
            "held-out figures say little about new rows"
        )
    if total["equal_after_cut"]:
        made.append(
            f"{total['equal_after_cut']} of {total['rows']} pairs have equal answers"
            f"{' once cut' if total['equal'] < total['equal_after_cut'] else ''}, which teach nothing"
        )
    return made
