"""Which rows to forward for a list of log-likelihood requests, so that nothing two of them share is forwarded twice.

Requests about one context become one row, and rows that begin alike (the solved example before every question of a
subject) become a group whose beginning is forwarded once. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise
from typing import Any

# What one more forward pass costs beside its tokens, in tokens (starting kernels, reading weights): rough is enough.
PASS_TOKENS_CPU, PASS_TOKENS_GPU = 64, 256
_DEEPEST = 100

Request = tuple[Any, Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class Reply:
    """One request about a row's context: its place among the requests and its tokens.

    The last `inside` positions of the context predict its first tokens; the others are predicted by the `tail`, the
    continuation without its last token, which is laid behind the context.
    """

    place: int
    continuation: tuple[int, ...]
    inside: int

    @property
    def tail(self) -> tuple[int, ...]:
        return self.continuation[:-1] if self.inside < len(self.continuation) else ()


@dataclass
class Row:
    """A context and the requests about it."""

    context: tuple[int, ...]
    replies: list[Reply] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.context) + sum(len(reply.tail) for reply in self.replies)

    @property
    def sequences(self) -> int:
        """Count the rows that plain evaluation would need."""
        return max(1, sum(bool(reply.tail) for reply in self.replies))

    @property
    def shareable(self) -> int:
        """Count the tokens before the first position that predicts an answer's token."""
        return len(self.context) - max(reply.inside for reply in self.replies)


@dataclass(frozen=True)
class Group:
    """Rows whose first `shared` tokens are the same."""

    shared: int
    rows: list[Row]
    one_batch: bool = False  # one of a larger group's batches, to be forwarded as it would be there
    of_tails: bool = False  # whether that one has tails

    @property
    def has_tails(self) -> bool:
        """Say whether a continuation's tokens have to be laid behind a context."""
        return self.of_tails or any(reply.tail for row in self.rows for reply in row.replies)


def make_rows(requests: Sequence[Request], max_length: int, packed: bool) -> list[Row]:
    """Put requests about the same context into one row. What is too long loses tokens on the left, as in lm-eval.

    Args:
        requests: (anything, the context's tokens, the continuation's tokens).
        max_length: the most tokens the model may see at once.
        packed: lay continuations of several tokens behind their context; otherwise each has a row of its own.
    """
    rows: dict[tuple[int, ...], Row] = {}
    for place, (_, context, continuation) in enumerate(requests):
        inside = 1 if packed else len(continuation)
        seen = (*context, *continuation)[-(max_length + 1) :]
        kept = seen[: len(seen) - len(continuation) + inside - 1]
        rows.setdefault(kept, Row(kept)).replies.append(Reply(place, tuple(continuation), inside))
    return list(rows.values())


def share_beginnings(rows: Sequence[Row], pass_tokens: int = PASS_TOKENS_CPU) -> list[Group]:
    """Group rows that begin alike wherever that saves more tokens than the pass over their beginning costs.

    In the order of their tokens, rows that begin alike are neighbours. From the whole list down, a group is split where
    its neighbours share least, if its parts then save more than it does.

    Returns:
        Groups; the rows that share nothing come last, as one group.
    """
    ordered = sorted(rows, key=lambda row: row.context)
    alike = [
        min(_alike(one.context, other.context), one.shareable, other.shareable) for one, other in pairwise(ordered)
    ]

    def best(first: int, end: int, depth: int) -> tuple[int, list[tuple[int, int, int]]]:
        """Return the tokens saved among some neighbours, and the groups: (shared tokens, first row, end)."""
        if end - first < 2:
            return 0, []
        shared = min(alike[first : end - 1])
        whole = (end - first - 1) * shared - pass_tokens
        parts, saved = [], 0
        if depth < _DEEPEST:
            cuts = [place + 1 for place in range(first, end - 1) if alike[place] == shared]
            for start, stop in pairwise([first, *cuts, end]):
                of_part, groups = best(start, stop, depth + 1)
                saved += of_part
                parts += groups
        return (whole, [(shared, first, end)]) if whole > saved else (saved, parts)

    found = best(0, len(ordered), 0)[1]
    groups = [Group(shared, ordered[first:end]) for shared, first, end in found]
    grouped = {place for _, first, end in found for place in range(first, end)}
    rest = [row for place, row in enumerate(ordered) if place not in grouped]
    return [*groups, *([Group(0, rest)] if rest else [])]


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that two contexts begin with alike."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


def batches(group: Group, batch_size: int, pass_tokens: int = PASS_TOKENS_CPU) -> list[list[Row]]:
    """Cut a group into batches so that padding and passes together cost the least; the longest rows come first.

    No batch holds more than `batch_size` rows of plain evaluation, except a row that alone stands for more.
    """
    ordered = sorted(group.rows, key=lambda row: -row.length)
    least, cut = [0], [0]  # for the first 0, 1, ... rows: the tokens they cost, and where their last batch starts
    for end in range(1, len(ordered) + 1):
        choices, sequences = [], 0
        for first in range(end - 1, -1, -1):
            sequences += ordered[first].sequences
            if sequences > batch_size and first < end - 1:
                break
            choices.append((least[first] + (end - first) * (ordered[first].length - group.shared) + pass_tokens, first))
        tokens, first = min(choices)
        least.append(tokens)
        cut.append(first)
    made, end = [], len(ordered)
    while end:
        made.append(ordered[cut[end] : end])
        end = cut[end]
    return made[::-1]


def share_of(
    groups: Sequence[Group], rank: int, count: int, cut: Callable[[Group], list[list[Row]]] | None
) -> list[Group]:
    """Return one process's share of some groups: neighbours, so that beginnings stay together, of about equal tokens.

    Args:
        groups: all of them.
        rank, count: which of how many processes.
        cut: cuts a group into batches, which are then shared out whole; None: rows are.
    """
    pieces = [
        (number, rows) for number, one in enumerate(groups) for rows in (cut(one) if cut else [[r] for r in one.rows])
    ]
    sizes = [sum(row.length - groups[number].shared for row in rows) for number, rows in pieces]
    middles = [2 * end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
    total = max(1, 2 * sum(sizes))
    own = [piece for piece, middle in zip(pieces, middles, strict=True) if middle * count // total == rank]
    if cut:
        return [Group(groups[at].shared, rows, one_batch=True, of_tails=groups[at].has_tails) for at, rows in own]
    by_group = groupby(own, key=lambda piece: piece[0])
    return [Group(groups[number].shared, [row for _, rows in found for row in rows]) for number, found in by_group]


def one_row_batches(group: Group, batch_size: int) -> list[list[Row]]:
    """Cut a group into batches of about equal length, each its beginning once and then its rows.

    No batch holds more tokens than `batch_size` of the group's longest row, which plain evaluation would forward at once.
    """
    room = batch_size * max(row.length for row in group.rows) - group.shared
    own = [row.length - group.shared for row in group.rows]
    share = sum(own) / -(-sum(own) // room)
    made: list[list[Row]] = [[]]
    used = 0
    for row, length in zip(group.rows, own, strict=True):
        if made[-1] and (used >= share or used + length > room):
            made.append([])
            used = 0
        made[-1].append(row)
        used += length
    return made


def in_one_row(groups: Sequence[Group], batch_size: int, most_tokens: int) -> Sequence[Group]:
    """Return the first of some groups that can be forwarded in one row, at least one.

    Together they hold no more tokens than `most_tokens`, nor than `batch_size` of their longest row. A group whose continuations
    have to be laid behind its contexts, or that is cut into batches of its own, stands alone.
    """
    taken, longest = 0, 0
    for number, group in enumerate(groups):
        longest = max(longest, *(row.length for row in group.rows))
        taken += group.shared + sum(row.length - group.shared for row in group.rows)
        if group.has_tails or taken > min(most_tokens, batch_size * longest):
            return groups[: max(1, number)]
    return groups
