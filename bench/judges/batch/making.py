"""Make a batch at an endpoint once, whatever is killed and whatever answer is lost."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.errors import JudgeStopped
from bench.judges import Receive, Reply, Request, faults
from bench.judges.batch import notes as batch_notes
from bench.judges.batch.endpoint import BatchEndpoint, NoListing, line
from bench.judges.batch.ledger import BatchLedger
from bench.judges.requests import State

if TYPE_CHECKING:
    from openai.types import Batch

    from bench.judges.openai import OpenaiJudge

_CREATE_ATTEMPTS = 6


class OpenBatch:
    """A batch, and the requests that wait for it by name; of those that the journal has, not all need be asked for any more."""

    def __init__(self, noted: batch_notes.Noted, requests: dict[str, Request]) -> None:
        self.noted, self.requests = noted, requests
        self.key = noted.key
        self.doubtful = False  # whether a request for it may still be carried out a second time
        self.left_out = [name for name in noted.waiting if name not in requests]


class Making:
    """Make batches, and note what becomes of them.

    Args:
        judge: whose endpoint.
        endpoint: its files and batches.
        ledger: where they are noted.
        receive: takes what became of each request.
        tell: takes a line of progress.
    """

    def __init__(
        self,
        judge: OpenaiJudge,
        endpoint: BatchEndpoint,
        ledger: BatchLedger,
        receive: Receive,
        tell: Callable[[str], None],
    ) -> None:
        self._judge, self._endpoint, self._ledger, self._receive, self._tell = judge, endpoint, ledger, receive, tell
        self._told_of_listing = False

    def make(self, batch: OpenBatch, may_be_there: bool = False) -> None:
        """Make a batch at the endpoint, or find that it is made already.

        Args:
            batch: whose requests are noted.
            may_be_there: whether an earlier process may have made it.

        Raises:
            JudgeStopped: it cannot be made; that it was not is noted where that is sure.
        """
        try:
            there = self.find(batch)
            if may_be_there and there is None:
                self._ledger.note_again(batch.requests, batch.key)
            batch.doubtful = may_be_there and there is False
            if not there:
                self._leave_out(batch)
                self._create(batch)
        except JudgeStopped as stop:
            if batch.noted.step is None:
                self.settle(batch, "refused", str(stop), ran=False)
            raise

    def _leave_out(self, batch: OpenBatch) -> None:
        """Note that what an earlier process wanted, too, is not in the batch that is made now."""
        for name in batch.left_out:
            self._ledger.refuse(batch.noted, name, "it was not asked for any more when its batch was made")
        batch.left_out.clear()

    def _create(self, batch: OpenBatch) -> None:
        import openai

        body = b"".join(line(name, self.body(request)) for name, request in batch.requests.items())
        file = self._endpoint.upload(f"bench-{batch.key}.jsonl", body)
        batch.noted.parameters, batch.noted.system = dict(self._judge.sent), self._judge.takes_system
        self._write(batch, "creating", file=file, parameters=batch.noted.parameters, system=batch.noted.system)
        for attempt in range(_CREATE_ATTEMPTS):
            try:
                made = self._endpoint.create(batch.key, file)
            except openai.APIError as error:
                fault = faults.of_error(error)
            else:
                self._adopt(batch, made)
                return
            problem = self._judge.problem(fault)
            if not fault.passes:
                self.settle(batch, "refused", problem, ran=False)
                known = fault.status in (401, 402, 403, 429)
                raise JudgeStopped(self._judge.explain(fault) if known else self.refusal(problem))
            self._endpoint.pause(attempt, fault.wait)
            there = self.find(batch)
            if there:
                return
            if there is None and fault.state == "unanswered":
                self._ledger.note_again(batch.requests, batch.key)
        self.settle(batch, "refused", problem, ran=False)
        raise JudgeStopped(
            f"the judge {self._judge.model} at {self._judge.host} made no batch, tried again and again ({problem}); run again "
            "later: what was judged is kept"
        )

    def find(self, batch: OpenBatch) -> bool | None:
        """Look for a batch at the endpoint by our key; None: it does not list them."""
        try:
            found = self._endpoint.find(batch.key)
        except NoListing:
            if not self._told_of_listing:
                self._told_of_listing = True
                logging.getLogger("bench").warning(
                    f"{self._judge.host} does not list its batches: one that is made just as this process is killed may be "
                    "paid twice"
                )
            return None
        if not found:
            return False
        first = min(found, key=lambda one: (one.id != batch.noted.id, one.status in ("failed", "cancelled")))
        for other in found:  # made twice all the same, by an endpoint that was slow to list the first
            if other is not first:
                self._endpoint.cancel(other.id)
                self._ledger.note_again(batch.requests, batch.key)
        if batch.noted.id is None:
            self._adopt(batch, first)
        return True

    def _adopt(self, batch: OpenBatch, made: Batch) -> None:
        self._write(batch, "created", batch_id=made.id)
        batch.noted.id = made.id
        self._tell(f"batch {made.id} of {len(batch.requests)} comparisons is made")

    def _write(self, batch: OpenBatch, step: batch_notes.Step, **more: Any) -> None:
        self._ledger.write(batch.key, step, **more)
        batch.noted.step = step

    def body(self, request: Request) -> bytes:
        """Return a request as it stands in a file."""
        return json.dumps(self._judge.body(request)).encode()

    def refusal(self, words: str) -> str:
        """Say that the endpoint refuses a batch as a whole."""
        return (
            f"the judge {self._judge.model} at {self._judge.host} refuses the batch ({words}); set judge.batch: false, or change "
            "the judge's settings"
        )

    def settle(
        self, batch: OpenBatch, state: State, why: str, kind: str = batch_notes.NOT_SENT, ran: bool = True
    ) -> None:
        """Note what became of the requests that got no line, and that there is nothing more to be had from the batch.

        Args:
            batch: which.
            state: of those requests.
            why: they have no reply.
            kind: of what became of them, for counting.
            ran: whether it holds replies to requests that are not asked for any more; they may be one day.
        """
        for request in batch.requests.values():
            self._receive(request, Reply(None, why, None, 0.0, state, kind, batch.key))
        batch.requests.clear()
        for name in () if ran else batch.left_out:
            self._ledger.refuse(batch.noted, name, why)
        if not (ran and batch.left_out):
            self._write(batch, "ended")
