"""Data sets whose rows are not pairs or conversations yet: rankings, one answer or many a row, and trees of messages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.data.conversations import RowError
from bench.settings import InstructionData, PreferenceColumns, PreferenceData

Row = Mapping[str, Any]
Numbered = tuple[int, Row | RowError]

TEXTS = ("answer", "response", "text", "content", "completion", "output", "value")
TREE = ("message_id", "parent_id", "role", "text")


def gather(rows: Sequence[Row], source: PreferenceData | InstructionData) -> Iterable[Numbered]:
    """Make one row of each pair or conversation, with the number of the row it begins at, or say why it cannot be one."""
    if rows and all(name in rows[0] for name in TREE):
        tree = _Tree(rows)
        return tree.pairs() if isinstance(source, PreferenceData) else tree.conversations()
    if isinstance(source, PreferenceData) and source.columns.answers is not None:
        return _ranked(rows, source.columns)
    return enumerate(rows)


def gathered_from(rows: Sequence[Row], source: PreferenceData | InstructionData) -> tuple[str, tuple[str, ...]] | None:
    """Say what rows were made one of, in words, and the columns that this read; None where each stands for itself."""
    if rows and all(name in rows[0] for name in TREE):
        return "trees of messages", (*TREE, "rank", "deleted")
    if isinstance(source, PreferenceData) and source.columns.answers is not None:
        answers, ranking = str(source.columns.answers), str(source.columns.ranking)
        return f"best and worst of {answers!r} by {ranking!r}", (answers, ranking)
    return None


# ---- rankings -------------------------------------------------------------------------------------------------------


def _ranked(rows: Sequence[Row], columns: PreferenceColumns) -> Iterable[Numbered]:
    """Pair the best answer to each prompt with the worst."""
    groups: dict[str, list[tuple[int, Row]]] = {}
    for number, row in enumerate(rows):
        alone = isinstance(row.get(str(columns.answers)), list)
        groups.setdefault(f"row {number}" if alone else repr(row.get(str(columns.prompt))), []).append((number, row))
    for group in groups.values():
        yield group[0][0], _pair(group, columns)


def _pair(group: Sequence[tuple[int, Row]], columns: PreferenceColumns) -> Row | RowError:
    first, answers = group[0][1], str(columns.answers)
    try:
        found = [one for _, row in group for one in _candidates(row, answers, str(columns.ranking))]
    except RowError as error:
        return error
    if len(found) < 2:
        return RowError("one answer", f"its prompt has one answer in column {answers!r}, and a pair needs two")
    lowest = columns.best == "lowest" if columns.best else "rank" in str(columns.ranking).lower()
    order = sorted(found, key=lambda one: one[0], reverse=not lowest)
    if order[0][0] == order[-1][0]:
        return RowError("tie", f"all answers to its prompt have the same {columns.ranking!r} ({order[0][0]:g})")
    kept = {name: value for name, value in first.items() if name not in (answers, columns.ranking)}
    return {**kept, columns.chosen: order[0][1], columns.rejected: order[-1][1]}


def _candidates(row: Row, answers: str, ranking: str) -> list[tuple[float, Any]]:
    """Return a row's answers with what they are ranked by."""
    if answers not in row:
        raise RowError("no column", f"no column {answers!r}; it has: {', '.join(row)}; map them under 'columns'")
    value = row[answers]
    if not isinstance(value, list):
        return [(_rank(row, ranking), value)]
    if ranking in row:
        ranks = row[ranking] if isinstance(row[ranking], list) else []
        if len(ranks) != len(value):
            raise RowError("no ranking", f"column {ranking!r} has not one number for each answer in {answers!r}")
        return [(_rank({ranking: rank}, ranking), one) for rank, one in zip(ranks, value, strict=True)]
    return [(_rank(one, ranking), _answer(one, answers)) for one in value]


def _rank(row: Any, ranking: str) -> float:
    if not isinstance(row, Mapping) or ranking not in row:
        has = f"; it has: {', '.join(row)}" if isinstance(row, Mapping) else ""
        raise RowError("no ranking", f"no {ranking!r} to rank an answer by{has}; name it as columns.ranking")
    try:
        rank = math.nan if isinstance(row[ranking], bool) else float(row[ranking])
    except (TypeError, ValueError):
        rank = math.nan
    if not math.isfinite(rank):
        raise RowError("no ranking", f"{ranking!r} is {row[ranking]!r}, not a number to rank an answer by")
    return rank


def _answer(candidate: Mapping[str, Any], answers: str) -> Any:
    name = next((name for name in TEXTS if name in candidate), None)
    if name is None:
        raise RowError(
            "no text", f"an answer in {answers!r} has none of {', '.join(TEXTS)}; it has: {', '.join(candidate)}"
        )
    return candidate[name]


# ---- trees of messages ----------------------------------------------------------------------------------------------


class _Tree:
    """Messages that name the one they reply to, with ranks among replies: 0 is best, null is unranked."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._replies: dict[Any, list[tuple[int, Row]]] = {}
        self._roots: list[tuple[int, Row]] = []
        known = {row.get("message_id") for row in rows}
        for number, row in enumerate(rows):
            if row.get("deleted") is True:
                continue
            if row.get("parent_id") is None or row["parent_id"] == "":
                self._roots.append((number, row))
            elif row["parent_id"] in known:
                self._replies.setdefault(row["parent_id"], []).append((number, row))

    def _best_first(self, message: Row) -> list[tuple[int, Row]]:
        replies = self._replies.get(message.get("message_id"), [])
        return sorted(replies, key=lambda one: (_place(one[1]), one[0]))

    def conversations(self) -> Iterable[Numbered]:
        """Follow the best reply from each beginning to the last answer."""
        for number, root in self._roots:
            path, now, seen = [root], root, {root.get("message_id")}
            while replies := [one for _, one in self._best_first(now) if one.get("message_id") not in seen]:
                now = replies[0]
                seen.add(now.get("message_id"))
                path.append(now)
            yield number, {"messages": [_message(one) for one in path]}

    def pairs(self) -> Iterable[Numbered]:
        """Pair the best reply with the worst wherever answers to the same message are ranked."""
        waiting: list[tuple[int, Row, list[Row]]] = [(number, root, []) for number, root in reversed(self._roots)]
        found: list[Numbered] = []
        seen: set[Any] = set()
        while waiting:
            number, message, before = waiting.pop()
            if message.get("message_id") in seen:
                continue
            seen.add(message.get("message_id"))
            path, replies = [*before, _message(message)], self._best_first(message)
            ranked = [reply for _, reply in replies if _place(reply) < math.inf and reply.get("role") == "assistant"]
            if len(ranked) > 1 and _place(ranked[0]) < _place(ranked[-1]):
                ends = {"chosen": [_message(ranked[0])], "rejected": [_message(ranked[-1])]}
                found.append((number, {"prompt": path, **ends}))
            waiting += [(place, reply, path) for place, reply in reversed(replies)]
        return sorted(found, key=lambda one: one[0])


def _place(message: Row) -> float:
    try:
        return float(message["rank"])
    except (KeyError, TypeError, ValueError):
        return math.inf


def _message(row: Row) -> dict[str, Any]:
    return {"role": row.get("role"), "content": row.get("text")}
