"""What a batch asks and costs, in the journal and on the budget, before the endpoint is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import OverCeiling
from bench.judges import Request
from bench.judges.batch import notes as batch_notes
from bench.judges.cost import Budget, tokens_of

if TYPE_CHECKING:
    from bench.judges.journal import Journal
    from bench.judges.prices import Rate

# A reply that finds no room is still at the endpoint: less is set aside for it than for one that would be lost
REPLY_BYTES = 2**11


@dataclass
class BatchLedger:
    """Keep the requests of batches.

    Attributes:
        journal: of the judging.
        budget: of the suite.
        price: of a token, where it is known.
        longest_reply: returns its tokens.
        token_bytes: what each of them takes on the disk.
        notes: what a line says of each request.
        under_way: takes each request's name.
        now: tells the time, as lines have it.
    """

    journal: Journal
    budget: Budget
    price: Rate | None
    longest_reply: Callable[[], int]
    token_bytes: int
    notes: Mapping[Request, Mapping[str, Any]]
    under_way: dict[Request, str]
    now: Callable[[], str]

    @property
    def _reply_bytes(self) -> int:
        return REPLY_BYTES + self.longest_reply() * self.token_bytes

    def note(self, requests: Sequence[Request], batch: str) -> dict[str, Request]:
        """Set aside what requests may cost and the room for their replies, and note them: by name, as many as may be paid for.

        Raises:
            OverCeiling: not one of them may be.
            NoRoom: the disk is full.
        """
        allowed: list[Request] = []
        for request in requests:
            try:
                self.budget.reserve(request, batch=True)
            except OverCeiling:
                if not allowed:
                    raise
                break
            allowed.append(request)
        try:
            names = self.journal.send_all([self._note(one, batch) for one in allowed], self._reply_bytes)
        except BaseException:
            for request in allowed:
                self.budget.settle(request, 0.0)
            raise
        made = dict(zip(names, allowed, strict=True))
        self.under_way.update({request: name for name, request in made.items()})
        return made

    def note_again(self, waiting: Mapping[str, Request], batch: str) -> None:
        """Note that requests may be paid for once more."""
        self.journal.send_all([self._note(one, batch) for one in waiting.values()], 0)

    def waiting(self, requests: Sequence[Request]) -> list[tuple[batch_notes.Noted, dict[str, Request]]]:
        """Return the batches of earlier processes that have not ended, each with those of the requests that wait for it."""
        by_key = {self.notes[request]["key"]: request for request in requests}
        found = []
        for noted in batch_notes.under_way(self.journal.rows):
            mine = {name: by_key[key] for name, key in noted.waiting.items() if key in by_key}
            if mine:
                found.append((noted, mine))
        return found

    def resume(self, waiting: Mapping[str, Request]) -> None:
        """Expect the replies to requests that an earlier process has noted."""
        self.journal.make_room(len(waiting) * self._reply_bytes)
        for name, request in waiting.items():
            self.budget.resume(request, batch=True)
            self.under_way[request] = name

    def write(self, batch: str, step: batch_notes.Step, **more: Any) -> None:
        """Write a batch's own line."""
        self.journal.add(batch_notes.row(batch, step, **more, time=self.now()))

    def refuse(self, noted: batch_notes.Noted, name: str, why: str) -> None:
        """Note that a request that nobody asks for any more was not sent."""
        row = {"key": noted.waiting[name], "usable": False, "reply": None, "error": why, "time": self.now()}
        self.journal.add(row | {"request": name, "kind": batch_notes.NOT_SENT, "state": "refused", "batch": noted.key})

    def _note(self, request: Request, batch: str) -> dict[str, Any]:
        at_most = self.price.of(tokens_of(request), self.longest_reply(), True) if self.price else None
        return {**self.notes[request], "cost_usd_at_most": at_most, "time": self.now(), "batch": batch}
