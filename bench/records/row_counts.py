"""What a job's data.json says of the rows of a set: summed over its splits, in words, and what makes figures doubtful."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SETS = {"preference": "dpo", "instruction": "sft"}


def splits(facts: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return what is on record about the training and held-out rows of a set; nothing of a record without."""
    found = [facts.get(f"{SETS[name]}/{split}") for split in ("train", "held_out")]
    return [one for one in found if isinstance(one, Mapping) and "duplicates" in one]


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
        (total["rows"], "row", ""),
        (total["cut_prompts"], "prompt", " cut at the left end"),
        (total["cut_answers"], "answer", " cut at the right end, end of turn included"),
        (total["refused"], "row", f" left out ({refused})"),
        (total["duplicates"], "row", " seen before"),
        (total["equal"], "pair", " of equal answers"),
        (total["equal_after_cut"] - total["equal"], "pair", " made equal by the cut"),
        (total["overlap_folded"], "held-out row", " trained on, too"),
        (total["control_tokens_as_text"], "row", " with a control token as text"),
    ]
    said = [f"{_counted(count, what)}{more}" for count, what, more in parts if count > 0]
    return ", ".join(said + [f"{_counted(count, 'row')} with {what}" for what, count in total["mended"].items()])


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def warnings(train: Mapping[str, Any], held_out: Mapping[str, Any]) -> list[str]:
    """Say what makes figures doubtful: rows both trained on and held out, and pairs that prefer nothing."""
    total = totals([train, held_out])
    made = []
    if total["overlap_folded"]:
        exact = f", {total['overlap']} of them to the letter" if total["overlap"] != total["overlap_folded"] else ""
        made.append(
            f"{total['overlap_folded']} of {_counted(held_out['rows'], 'held-out row')} trained on, too{exact}: "
            "held-out figures say little about new rows"
        )
    equal = max(total["equal"], total["equal_after_cut"])
    if equal:
        cut = " once cut" if total["equal"] < equal else ""
        made.append(f"{equal} of {_counted(total['rows'], 'pair')} with equal answers{cut}, which teach nothing")
    return made
