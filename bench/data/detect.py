"""Look at rows nobody has described: are they preference pairs or instructions, and by which settings are they read?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.data.conversations import is_conversation
from bench.data.gather import TEXTS, TREE
from bench.data.rows import ANSWERS, ASSISTANT, CONVERSATIONS, HUMAN, PAIRS, PROMPTS

Row = Mapping[str, Any]

_LOOKED_AT = 200  # rows whose columns are looked at
_RANKINGS = (
    *(
        "overall_score",
        "score",
        "rating",
        "rank",
        "ranking",
        "reward",
        "helpfulness",
        "overall",
        "quality",
        "preference",
    ),
)
_TWO_ANSWERS = (
    *(("response_1", "response_2"), ("response_a", "response_b"), ("answer_1", "answer_2"), ("answer_a", "answer_b")),
    *(
        ("output_1", "output_2"),
        ("response_0", "response_1"),
        ("answer_0", "answer_1"),
        ("completion_a", "completion_b"),
    ),
    ("conversation_a", "conversation_b"),
)
_PREFERENCES = (
    "preference_strength",
    "preference",
    "preferred",
    "winner",
    "better",
    "overall_preference",
    "choice",
    "label",
)


@dataclass(frozen=True)
class Found:
    """Settings that rows are read by: the format, and the columns that have other names than usual."""

    format: str
    columns: Mapping[str, str | None] = field(default_factory=dict)


def pairs(rows: Sequence[Row], chat: bool) -> Found | None:
    """Say how rows are read as preference pairs; None if they are none.

    Args:
        rows: as they were read.
        chat: whether the model has a chat template.
    """
    seen = _columns(rows)
    if all(name in seen for name in TREE):
        return Found("messages") if any(row.get("rank") is not None for row in rows) else None
    both = next((pair for pair in PAIRS if pair[0] in seen and pair[1] in seen), None)
    if both is not None:
        return _of_two(rows, seen, both, {}, chat)
    ranked = _ranked(rows, seen)
    if ranked is not None:
        prompts = [row.get(str(ranked.get("prompt", "prompt"))) for row in rows[:_LOOKED_AT]]
        return Found("hh_dialogue" if _are_dialogues(prompts) else "messages" if chat else "plain", ranked)
    for first, second in _TWO_ANSWERS:
        says = next((name for name in _PREFERENCES if name in seen), None)
        if first in seen and second in seen and says:
            return _of_two(rows, seen, (first, second), {"chosen": first, "rejected": second, "preference": says}, chat)
    return None


def _of_two(
    rows: Sequence[Row], seen: Sequence[str], answers: tuple[str, str], named: dict[str, str | None], chat: bool
) -> Found:
    prompt = next((name for name in PROMPTS if name in seen), None)
    columns = {**named, **_named("prompt", prompt)}
    texts = [row[answers[0]] for row in rows[:_LOOKED_AT] if row.get(answers[0]) is not None]
    if any(map(is_conversation, texts)):
        return Found("messages", columns)
    before = texts if prompt is None else [row.get(prompt) for row in rows[:_LOOKED_AT]]
    if _are_dialogues(before):
        return Found("hh_dialogue", columns)
    return Found("messages" if chat and prompt is not None else "plain", columns)


def _are_dialogues(texts: Sequence[Any]) -> bool:
    return all(isinstance(text, str) and text.startswith(HUMAN) and ASSISTANT in text for text in texts)


def _named(key: str, column: str | None) -> dict[str, str | None]:
    return {} if column == key else {key: column}


def _ranked(rows: Sequence[Row], seen: Sequence[str]) -> dict[str, str | None] | None:
    """Find a column of ranked answers, many or one a row."""
    prompt = next((name for name in PROMPTS if name in seen), None)
    if prompt is None:
        return None
    for name in seen:
        candidates = [row[name] for row in rows[:_LOOKED_AT] if isinstance(row.get(name), list)]
        keys = set.intersection(*(set(_shared_keys(one)) for one in candidates)) if candidates else set()
        ranking = next((key for key in _RANKINGS if key in keys), None)
        if ranking and keys & set(TEXTS):
            return {**_named("prompt", prompt), "answers": name, "ranking": ranking}
    answer = next((name for name in (*ANSWERS, "text") if name in seen and name != prompt), None)
    ranking = next((name for name in _RANKINGS if name in seen and _numbers(rows, name)), None)
    asked = [repr(row.get(prompt)) for row in rows]
    if answer and ranking and len(set(asked)) <= 0.75 * len(asked):
        return {**_named("prompt", prompt), "answers": answer, "ranking": ranking}
    return None


def _shared_keys(candidates: Sequence[Any]) -> Iterator[str]:
    if candidates and all(isinstance(one, Mapping) for one in candidates):
        yield from set.intersection(*(set(one) for one in candidates))


def _numbers(rows: Sequence[Row], name: str) -> bool:
    try:
        [float(row[name]) for row in rows[:_LOOKED_AT] if row.get(name) is not None]
    except (TypeError, ValueError):
        return False
    return True


def instructions(rows: Sequence[Row], chat: bool) -> Found | None:
    """Say how rows are read as instructions with their answers; None if they are none."""
    seen = _columns(rows)
    if all(name in seen for name in TREE):
        return Found("messages")
    for name in CONVERSATIONS:
        if name in seen and any(is_conversation(row.get(name)) for row in rows[:_LOOKED_AT]):
            return Found("messages")
    asked = next((name for name in PROMPTS[: -len(CONVERSATIONS)] if name in seen), None)
    answer = next((name for name in ANSWERS if name in seen and name != asked), None)
    if asked is None or answer is None:
        return None
    columns: dict[str, str | None] = {}
    if (asked, answer) != ("prompt", "completion"):
        columns = {**_named("instruction", asked), **_named("output", answer)}
    if any(is_conversation(row.get(answer)) for row in rows[:_LOOKED_AT]) or chat:
        return Found("messages", columns)
    return Found("alpaca" if asked == "instruction" else "plain", columns)


def _columns(rows: Sequence[Row]) -> list[str]:
    """List the columns of the first rows, in their order."""
    return list(dict.fromkeys(name for row in rows[:_LOOKED_AT] for name in row))
