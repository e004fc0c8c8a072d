"""AlpacaEval's annotation files: a judge's raw replies in all the forms that versions of alpaca_eval have stored them in.

Each row has an instruction, output_1 (the reference's) and output_2, and of what the judge said the raw reply, the preference
that was read from it, or both. Which output the judge saw first was drawn at random; where a row tells, that is taken.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError
from bench.judges import alpaca

if TYPE_CHECKING:
    from bench.judges.configurations import Configuration

_NEEDED = ("instruction", "output_1", "output_2")
_RAW = "raw_completion"
# What a reply of an endpoint has; a mapping with none of them is what a function was called with
_OF_A_CHOICE = ("text", "message", "logprobs", "choices")
_SAME = 1e-6
Shown = tuple[str, str, str]


def is_one(path: Path) -> bool:
    """Tell annotations, one JSON array, from a journal."""
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip()[:1] == b"["
    except OSError:
        return False


def rows(path: Path) -> list[dict[str, Any]]:
    """Read an annotation file.

    Raises:
        InputError: it is none, or empty.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as annotations ({error})") from None
    if not read:
        raise InputError(f"{path}: holds no annotation")
    for place, row in enumerate(read, 1):
        missing = [name for name in _NEEDED if not isinstance(row, dict) or not isinstance(row.get(name), str)]
        if not missing and not {_RAW, "preference"} & row.keys():
            missing = [_RAW]
        if missing:
            raise InputError(
                f"{path}: annotation {place} has no {missing[0]!r}; AlpacaEval writes instruction, output_1 (the "
                "reference's), output_2 and the judge's raw_completion or preference"
            )
    return list(read)


def annotators(path: Path) -> list[str]:
    """Name the configurations that a file's rows were annotated by, in the order of the rows."""
    return list(dict.fromkeys(row["annotator"] for row in rows(path) if isinstance(row.get("annotator"), str)))


def shown(instruction: str, first: str, second: str) -> Shown:
    """Return what tells one comparison from another; white space around texts does not."""
    return instruction.strip(), first.strip(), second.strip()


@dataclass(frozen=True)
class Kept:
    """What a row says of its pair.

    Attributes:
        order: which answer the judge saw first: ours_first or theirs_first.
        reply: what it said.
        preference: for our answer, 0 to 1, where a row has no reply but what was once read from it.
    """

    order: str
    reply: dict[str, Any] | None
    preference: float | None


def read(path: Path, configuration: Configuration) -> dict[Shown, Kept]:
    """Index a file's rows by what was compared: instruction, our answer, theirs.

    Args:
        path: of the file.
        configuration: that replies are read by; of a file of several annotators its own rows are taken.

    Raises:
        InputError: it is no annotation file.
    """
    every = rows(path)
    own = [row for row in every if row.get("annotator") == configuration.name] or every
    reads = configuration.reader()
    replies = []
    for row in own:
        forms = list(_forms(row.get(_RAW)))
        replies.append(next((form for form in forms if reads(form) is not None), forms[0] if forms else None))
    orders = _orders(own, replies, configuration)
    return {
        shown(row["instruction"], row["output_2"], row["output_1"]): Kept(
            order, reply, _stored(row) if reply is None else None
        )
        for row, reply, order in zip(own, replies, orders, strict=True)
    }


def _orders(
    own: Sequence[Mapping[str, Any]], replies: Sequence[Mapping[str, Any] | None], configuration: Configuration
) -> list[str]:
    """Say which output was shown first.

    A row tells by what its names stand for, or by a stored preference that its raw reply means in one order alone;
    else it is alpaca_eval's seeded draw.
    """
    keys = [(row["instruction"], row["output_1"], row["output_2"]) for row in own]
    known = dict(zip(keys, replies, strict=True))
    said = configuration.annotate(
        [dict(zip(_NEEDED, key, strict=True)) for key in keys],
        lambda requests: [known[one.instruction, one.first, one.second] for one in requests],
    )
    return [_order(row, value) for row, value in zip(own, said, strict=True)]


def _order(row: Mapping[str, Any], said: float | None) -> str:
    """Say which output of a row was shown first; `said` is how far the reply prefers the second that was shown, 1 to 2."""
    drawn = alpaca.random_order(row["instruction"])
    names = row.get("referenced_models")
    if isinstance(names, Mapping) and names.get("m") in _NEEDED:  # m is the first that is shown
        return "theirs_first" if names["m"] == "output_1" else "ours_first"
    stored = _stored(row)
    if stored is None or said is None or abs(2 * said - 3) < _SAME:
        return drawn
    fits = {"theirs_first": abs(said - 1 - stored) < _SAME, "ours_first": abs(2 - said - stored) < _SAME}
    other = "ours_first" if drawn == "theirs_first" else "theirs_first"
    return other if fits[other] and not fits[drawn] else drawn


def _stored(row: Mapping[str, Any]) -> float | None:
    """Return the stored preference for output_2, ours, 0 to 1; older versions wrote draws as 0."""
    value = _number(row.get("preference"))
    value = 1.5 if value == 0 else value
    return value - 1 if value is not None and 1 <= value <= 2 else None


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def _forms(raw: Any) -> Iterator[dict[str, Any]]:
    """Yield the replies that a raw completion may stand for, the likeliest first.

    Stored were the text, an endpoint's choice or whole response, what a function was called with, a list of ranked models, and
    each of them as JSON.
    """
    if isinstance(raw, str):
        written = _written(raw)
        if isinstance(written, dict) and any(name in written for name in _OF_A_CHOICE):
            yield from _forms(written)
        yield {"text": raw}
        if isinstance(written, list):
            yield from _forms(written)
    elif isinstance(raw, Mapping):
        choices = raw.get("choices")
        if isinstance(choices, list) and choices:
            yield from _forms(choices[0])
        elif any(name in raw for name in _OF_A_CHOICE):
            yield {**raw, "text": _text(raw)}
        else:
            yield {"text": json.dumps(dict(raw))}
            yield from ({"text": json.dumps(value)} for value in raw.values() if isinstance(value, list))
    elif isinstance(raw, list) and raw:
        ranked = all(isinstance(one, Mapping) and "rank" in one for one in raw)
        if not ranked and len(raw) == 1:
            yield from _forms(raw[0])
        yield {"text": json.dumps(raw)}
        if ranked:
            yield {"text": json.dumps({"ordered_models": raw})}


def _written(text: str) -> Any:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _text(choice: Mapping[str, Any]) -> str:
    """Return what a choice says: its text, what it calls a function with, or its message."""
    if isinstance(choice.get("text"), str):
        return str(choice["text"])
    message = choice.get("message")
    if not isinstance(message, Mapping):
        return ""
    calls = message.get("tool_calls") or [{"function": message.get("function_call")}]
    function = calls[0].get("function") if isinstance(calls, list) and isinstance(calls[0], Mapping) else None
    if isinstance(function, Mapping):
        arguments = function.get("arguments")
        return arguments if isinstance(arguments, str) else json.dumps(arguments)
    content = message.get("content")
    return content if isinstance(content, str) else ""
