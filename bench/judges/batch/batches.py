"""Ask in batches: what is missing goes to the endpoint as files, and its answers are taken when they are there.

A batch is paid for once, wherever this process is killed. Its requests are in the journal under a key of ours before the
endpoint is told of them; the endpoint's batches are paged through for that key before one is made; and it is made with the key
in its metadata. The next process reads in the journal which batches have not ended, finds each at the endpoint, and takes
what came.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bench.errors import JudgeStopped, NoRoom, OverCeiling
from bench.judges import Receive, Reply, Request
from bench.judges.batch import notes as batch_notes
from bench.judges.batch.endpoint import ENDED, BatchEndpoint, counts, line, problems
from bench.judges.batch.ledger import BatchLedger
from bench.judges.batch.making import Making, OpenBatch
from bench.judges.batch.results import ADAPTED, fault_of, read
from bench.judges.faults import Fault
from bench.judges.requests import State

if TYPE_CHECKING:
    from openai.types import Batch

    from bench.judges.openai import OpenaiJudge

# OpenAI's limits for a file
MOST_REQUESTS = 50_000
MOST_BYTES = 200 * 10**6
# How often a comparison is sent in a batch that ends without a usable reply to it
ATTEMPTS = 3
# Batches that the endpoint refuses as a whole, each made smaller or of other fields than the one before
_REFUSED_BATCHES = 12
_NAME = "0" * 32
# An endpoint ends a batch within 24 hours, done or not
LONGEST_WAIT_SECONDS = 27 * 3600.0


@contextmanager
def opened(
    judge: OpenaiJudge,
    ledger: BatchLedger,
    receive: Receive,
    tell: Callable[[str], None],
    first_pause: float,
    stopping: Callable[[], bool],
    wanted: bool,
) -> Iterator[Batches]:
    """Give what asks in batches, connected to an endpoint that has them; not `wanted`: only to take what was asked before.

    Raises:
        InputError: it has none.
        JudgeStopped: it refuses all requests, or is down.
        Interrupted: the user stopped; the batches go on.
    """
    with judge.connect() as client:
        endpoint = BatchEndpoint(judge, client, first_pause, stopping)
        try:
            if wanted:
                endpoint.check()
            yield Batches(judge, endpoint, ledger, receive, tell, wanted)
        except KeyboardInterrupt:
            raise endpoint.interrupted() from None


class Batches:
    """Ask requests in batches.

    Args:
        judge: whose endpoint.
        endpoint: its files and batches.
        ledger: where they are noted.
        receive: takes each reply, and says whether it can be used.
        tell: takes a line of progress.
        wanted: whether batches may be made.
    """

    def __init__(
        self,
        judge: OpenaiJudge,
        endpoint: BatchEndpoint,
        ledger: BatchLedger,
        receive: Receive,
        tell: Callable[[str], None],
        wanted: bool = True,
    ) -> None:
        self._judge, self._endpoint, self._ledger, self._tell = judge, endpoint, ledger, tell
        self._receive, self._wanted = receive, wanted
        self._over: set[Request] = set()  # answered, or never to be
        self._tries: Counter[Request] = Counter()
        self._refused = 0
        self._most_requests = MOST_REQUESTS
        self._making = Making(judge, endpoint, ledger, receive, tell)

    def resume(self, requests: Sequence[Request]) -> list[Request]:
        """Take what an earlier process has asked for in batches; return what is still missing.

        Raises:
            JudgeStopped: it must not be asked further; what came is kept.
            Interrupted: the user stopped; the batches go on.
        """
        found: list[OpenBatch] = []
        for noted, waiting in self._ledger.waiting(requests):
            batch = OpenBatch(noted, waiting)
            self._ledger.resume(waiting)
            if noted.step is None:  # the endpoint was never told to make it
                self._making.settle(batch, "refused", "its batch was not made", ran=False)
                continue
            self._judge.adopt(noted.parameters, noted.system)
            if noted.id is None and self._wanted:
                self._making.make(batch, may_be_there=True)
            elif noted.id is None and not (there := self._making.find(batch)):
                state: State = "unanswered" if there is None else "refused"
                self._making.settle(batch, state, "its batch is not among the endpoint's", "batch lost", ran=False)
                continue
            found.append(batch)
        self._wait(found)
        return [request for request in requests if request not in self._over]

    def ask(self, requests: Sequence[Request]) -> None:
        """Ask until each request has a usable reply, or was asked often enough.

        Raises:
            JudgeStopped: it must not be asked further; what came is kept.
            Interrupted: the user stopped; the batches go on.
        """
        left = list(requests)
        while left:
            made, stop = self._submit(left)
            self._wait(made)  # what is made is paid for, whatever stops the next one
            if stop:
                raise stop
            left = [one for one in left if one not in self._over and self._tries[one] < ATTEMPTS]

    def _submit(self, requests: Sequence[Request]) -> tuple[list[OpenBatch], JudgeStopped | None]:
        """Make batches of as many requests as may be paid for; return them, and what else stands in the way of further ones."""
        made: list[OpenBatch] = []
        for chunk in self._chunks(requests):
            try:
                key = uuid.uuid4().hex
                batch = OpenBatch(batch_notes.Noted(key), self._ledger.note(chunk, key))
            except NoRoom as stop:
                return made, stop
            except OverCeiling as ceiling:  # what those that are made cost less than thought makes room for more
                return made, None if made else ceiling
            try:
                self._making.make(batch)
            except JudgeStopped as stop:
                return made, stop
            made.append(batch)
            if len(batch.requests) < len(chunk):
                break
        return made, None

    def _chunks(self, requests: Sequence[Request]) -> Iterator[list[Request]]:
        """Cut requests into files that the endpoint takes."""
        chunk: list[Request] = []
        size = 0
        for request in requests:
            added = len(line(_NAME, self._making.body(request)))
            if chunk and (len(chunk) >= self._most_requests or size + added > MOST_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append(request)
            size += added
        if chunk:
            yield chunk

    # ---- waiting, and taking what came ---------------------------------------------------------------------------------

    def _wait(self, batches: Sequence[OpenBatch]) -> None:
        """Wait until every batch has ended, and take its results.

        Raises:
            JudgeStopped: what came shows that more would be paid for nothing; or a batch does not end.
        """
        left, looks, until = list(batches), 0, time.monotonic() + LONGEST_WAIT_SECONDS
        stop: JudgeStopped | None = None
        while left:
            said = []
            for batch in tuple(left):
                assert batch.noted.id is not None
                try:
                    found = self._endpoint.get(batch.noted.id)
                except LookupError:
                    left.remove(batch)
                    why = f"the endpoint does not know its batch {batch.noted.id} any more"
                    self._making.settle(batch, "unanswered", why, "batch lost")
                    continue
                if found.status in ENDED:
                    left.remove(batch)
                    try:
                        self._take(batch, found)
                    except JudgeStopped as error:
                        stop = stop or error  # the other batches are paid for, too
                else:
                    said.append("{}: {} of {} done, {}".format(found.id, *counts(found), found.status))
            if left and time.monotonic() > until:
                raise JudgeStopped(
                    f"the judge {self._judge.model} at {self._judge.host} does not end its batch ({'; '.join(said)}); it goes on "
                    "there: run again to take its results, or cancel it there first"
                )
            if left:
                self._tell(f"waiting for batch {'; '.join(said)}")
                self._endpoint.pause(looks)
                looks += 1
        if stop:
            raise stop

    def _take(self, batch: OpenBatch, found: Batch) -> None:
        """Take the results of a batch that has ended: replies, refusals, and what it never came to.

        Raises:
            JudgeStopped: what came shows that more would be paid for nothing.
        """
        if batch.doubtful:
            self._making.find(batch)
        if found.status == "failed":
            self._refuse(batch, found)
            return
        self._tries.update(batch.requests.values())
        lines, missing, why = self._results(found)
        self._tell(f"batch {found.id} {found.status}: {len(lines)} results")
        stop: JudgeStopped | None = None
        refused: list[Fault] = []
        answered = False
        for one in lines:
            request = batch.requests.pop(one["custom_id"], None)
            if request is None:  # not asked for any more, or taken already
                continue
            reply, fault = read(self._judge, batch.noted, one)
            answered = answered or reply.completion is not None
            refused += [fault] if fault and not fault.passes else []
            try:
                self._hand_over(request, reply, fault, batch)
            except JudgeStopped as unusable:
                stop = stop or unusable  # all of this batch is paid for: take the rest of it first
        of_all = [fault for fault in refused if not fault.concerns_one_prompt]
        if of_all and not answered:
            stop = stop or JudgeStopped(self._judge.explain(of_all[0]))
        self._making.settle(batch, missing, why, f"batch {found.status}")
        if stop:
            raise stop

    def _hand_over(self, request: Request, reply: Reply, fault: Fault | None, batch: OpenBatch) -> None:
        """Hand a reply over, and note whether the request is to be asked again.

        Raises:
            JudgeStopped: so many in a row could not be used.
        """
        if reply.kind == ADAPTED:  # it is asked with other fields the next time, and those are tried but so often
            self._tries[request] -= 1
        elif fault is not None and not fault.passes:
            self._over.add(request)
        if self._judge.received(request, self._receive, reply, batch.noted.parameters):
            self._over.add(request)

    def _results(self, found: Batch) -> tuple[list[dict[str, Any]], State, str]:
        """Return a batch's results, and what became of the requests without any: their state, and why."""
        try:
            lines = [*self._endpoint.lines(found.output_file_id), *self._endpoint.lines(found.error_file_id)]
        except LookupError:
            return [], "unanswered", f"the endpoint does not have the results of its batch {found.id} any more"
        unpaid = found.status in ("expired", "cancelled")
        return lines, "refused" if unpaid else "unanswered", f"its batch {found.id} {found.status} without it"

    def _refuse(self, batch: OpenBatch, found: Batch) -> None:
        """Make something of a batch that the endpoint refused as a whole, unpaid.

        Raises:
            JudgeStopped: it would refuse the next one, too.
        """
        said, asked = problems(found), len(batch.requests)
        words = "; ".join(str(one.get("message") or one.get("code")) for one in said[:3]) or "no reason is given"
        self._making.settle(batch, "refused", self._judge.clean(words), ran=False)
        self._refused += 1
        if self._refused < _REFUSED_BATCHES:
            if asked > 1 and any("token_limit" in str(one.get("code")) for one in said):
                self._most_requests = asked // 2  # as much as may wait there at a time is a matter of the account
                return
            noted = batch.noted
            if any(self._judge.learn(noted.parameters, noted.system, fault_of(400, {"error": one})) for one in said):
                return
        raise JudgeStopped(self._judge.clean(self._making.refusal(words)))
