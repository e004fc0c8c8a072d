"""Ask in batches: what is missing goes to the endpoint as files, and its answers are taken when they are there.

A batch is paid for once, wherever this process is killed. Its requests are in the journal under a key of ours before the
endpoint is told of them; the endpoint's batches are paged through for that key before one is made; and it is made with the key
in its metadata. The next process reads in the journal which batches have not ended, finds each at the endpoint, and takes
what came.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bench.errors import JudgeStopped, NoRoom
from bench.judges import Receive, Reply, Request, batch_notes, faults
from bench.judges.batch_endpoint import ENDED, BatchEndpoint, NoListing, counts, line, problems
from bench.judges.batch_ledger import BatchLedger
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
_CREATE_ATTEMPTS = 6
# Batches that the endpoint refuses as a whole, each made smaller or of other fields than the one before
_REFUSED_BATCHES = 12
_NAME = "0" * 32
# The kind of a reply that changed what is sent
_ADAPTED = "adapted"


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


class _Open:
    """A batch, and the requests that wait for it by name; of those that the journal has, not all need be asked for any more."""

    def __init__(self, noted: batch_notes.Noted, requests: dict[str, Request]) -> None:
        self.noted, self.requests = noted, requests
        self.key = noted.key
        self.doubtful = False  # whether a request for it may still be carried out a second time
        self.left_out = [name for name in noted.waiting if name not in requests]


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
        self._told_of_listing = False

    def resume(self, requests: Sequence[Request]) -> list[Request]:
        """Take what an earlier process has asked for in batches; return what is still missing.

        Raises:
            JudgeStopped: it must not be asked further; what came is kept.
            Interrupted: the user stopped; the batches go on.
        """
        found: list[_Open] = []
        for noted, waiting in self._ledger.waiting(requests):
            batch = _Open(noted, waiting)
            self._ledger.resume(waiting)
            if noted.step is None:  # the endpoint was never told to make it
                self._settle(batch, "refused", "its batch was not made", ran=False)
                continue
            self._judge.adopt(noted.parameters, noted.system)
            if noted.id is None and self._wanted:
                self._make(batch, may_be_there=True)
            elif noted.id is None and not (there := self._find(batch)):
                state: State = "unanswered" if there is None else "refused"
                self._settle(batch, state, "its batch is not among the endpoint's", "batch lost", ran=False)
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

    def _submit(self, requests: Sequence[Request]) -> tuple[list[_Open], JudgeStopped | None]:
        """Make batches of as many requests as may be paid for; return them, and what else stands in the way of further ones."""
        made: list[_Open] = []
        for chunk in self._chunks(requests):
            try:
                key = uuid.uuid4().hex
                batch = _Open(batch_notes.Noted(key), self._ledger.note(chunk, key))
            except NoRoom as stop:
                return made, stop
            except JudgeStopped as ceiling:  # what those that are made cost less than thought makes room for more
                return made, None if made else ceiling
            try:
                self._make(batch)
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
            added = len(line(_NAME, self._body(request)))
            if chunk and (len(chunk) >= self._most_requests or size + added > MOST_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append(request)
            size += added
        if chunk:
            yield chunk

    def _body(self, request: Request) -> bytes:
        return json.dumps(self._judge.body(request)).encode()

    def _make(self, batch: _Open, may_be_there: bool = False) -> None:
        """Make a batch at the endpoint, or find that it is made already.

        Args:
            batch: whose requests are noted.
            may_be_there: whether an earlier process may have made it.

        Raises:
            JudgeStopped: it cannot be made; that it was not is noted where that is sure.
        """
        try:
            there = self._find(batch)
            if may_be_there and there is None:
                self._ledger.note_again(batch.requests, batch.key)
            batch.doubtful = may_be_there and there is False
            if not there:
                self._create(batch)
        except JudgeStopped as stop:
            if batch.noted.step is None:
                self._settle(batch, "refused", str(stop), ran=False)
            raise

    def _create(self, batch: _Open) -> None:
        import openai

        body = b"".join(line(name, self._body(request)) for name, request in batch.requests.items())
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
                self._settle(batch, "refused", problem, ran=False)
                known = fault.status in (401, 402, 403, 429)
                raise JudgeStopped(self._judge.explain(fault) if known else self._refusal(problem))
            self._endpoint.pause(attempt, fault.wait)
            there = self._find(batch)
            if there:
                return
            if there is None and fault.state == "unanswered":
                self._ledger.note_again(batch.requests, batch.key)
        self._settle(batch, "refused", problem, ran=False)
        raise JudgeStopped(
            f"the judge {self._judge.model} at {self._judge.host} made no batch, tried again and again ({problem}); run again "
            "later: what was judged is kept"
        )

    def _find(self, batch: _Open) -> bool | None:
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

    def _adopt(self, batch: _Open, made: Batch) -> None:
        self._write(batch, "created", batch_id=made.id)
        batch.noted.id = made.id
        self._tell(f"batch {made.id} of {len(batch.requests)} comparisons is made")

    def _write(self, batch: _Open, step: batch_notes.Step, **more: Any) -> None:
        self._ledger.write(batch.key, step, **more)
        batch.noted.step = step

    # ---- waiting, and taking what came ---------------------------------------------------------------------------------

    def _wait(self, batches: Sequence[_Open]) -> None:
        """Wait until every batch has ended, and take its results."""
        left, looks = list(batches), 0
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
                    self._settle(batch, "unanswered", why, "batch lost")
                    continue
                if found.status in ENDED:
                    left.remove(batch)
                    try:
                        self._take(batch, found)
                    except JudgeStopped as error:
                        stop = stop or error  # the other batches are paid for, too
                else:
                    said.append("{}: {} of {} done, {}".format(found.id, *counts(found), found.status))
            if left:
                self._tell(f"waiting for batch {'; '.join(said)}")
                self._endpoint.pause(looks)
                looks += 1
        if stop:
            raise stop

    def _take(self, batch: _Open, found: Batch) -> None:
        """Take the results of a batch that has ended: replies, refusals, and what it never came to.

        Raises:
            JudgeStopped: what came shows that more would be paid for nothing.
        """
        if batch.doubtful:
            self._find(batch)
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
            reply, fault = self._reply(one, batch)
            answered = answered or reply.completion is not None
            refused += [fault] if fault and not fault.passes else []
            try:
                self._hand_over(request, reply, fault, batch)
            except JudgeStopped as unusable:
                stop = stop or unusable  # all of this batch is paid for: take the rest of it first
        of_all = [fault for fault in refused if not fault.concerns_one_prompt]
        if of_all and not answered:
            stop = stop or JudgeStopped(self._judge.explain(of_all[0]))
        self._settle(batch, missing, why, f"batch {found.status}")
        if stop:
            raise stop

    def _hand_over(self, request: Request, reply: Reply, fault: Fault | None, batch: _Open) -> None:
        """Hand a reply over, and note whether the request is to be asked again.

        Raises:
            JudgeStopped: so many in a row could not be used.
        """
        if reply.kind == _ADAPTED:  # it is asked with other fields the next time, and those are tried but so often
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

    def _refuse(self, batch: _Open, found: Batch) -> None:
        """Make something of a batch that the endpoint refused as a whole, unpaid.

        Raises:
            JudgeStopped: it would refuse the next one, too.
        """
        said, asked = problems(found), len(batch.requests)
        words = "; ".join(str(one.get("message") or one.get("code")) for one in said[:3]) or "no reason is given"
        self._settle(batch, "refused", self._judge.clean(words), ran=False)
        self._refused += 1
        if self._refused < _REFUSED_BATCHES:
            if asked > 1 and any("token_limit" in str(one.get("code")) for one in said):
                self._most_requests = asked // 2  # as much as may wait there at a time is a matter of the account
                return
            noted = batch.noted
            if any(self._judge.learn(noted.parameters, noted.system, _fault(400, {"error": one})) for one in said):
                return
        raise JudgeStopped(self._judge.clean(self._refusal(words)))

    def _refusal(self, words: str) -> str:
        return (
            f"the judge {self._judge.model} at {self._judge.host} refuses the batch ({words}); set judge.batch: false, or change "
            "the judge's settings"
        )

    def _settle(self, batch: _Open, state: State, why: str, kind: str = batch_notes.NOT_SENT, ran: bool = True) -> None:
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

    def _reply(self, one: Mapping[str, Any], batch: _Open) -> tuple[Reply, Fault | None]:
        """Read a line of results: a reply, and the fault as a single request would have met it, if nothing was learned of it."""
        response = one.get("response")
        if not isinstance(response, Mapping):  # such as one that the batch did not come to in its time
            fault = _fault(503, {"error": one.get("error")})
        elif response.get("status_code") == 200:
            try:
                reply = self._judge.read(json.dumps(response.get("body")))
                return replace(reply, batch=batch.key, sent=batch.noted.parameters), None
            except Fault as inside:
                fault = inside
        else:
            status = response.get("status_code")
            fault = _fault(status if isinstance(status, int) else 500, response.get("body"))
        noted, words = batch.noted, self._judge.problem(fault)
        learned = self._judge.learn(noted.parameters, noted.system, fault)
        kind = _ADAPTED if learned else fault.kind
        reply = Reply(
            None, words, None, 0.0, "refused", kind, batch.key, noted.parameters
        )  # a failed line is not billed
        return reply, None if learned else fault


def _fault(status: int, body: Any) -> Fault:
    """Read what stands in a file as the same answer to a single request is read."""
    answer: Any = SimpleNamespace(status_code=status, headers={}, text=json.dumps(body))
    made: Any = SimpleNamespace(response=answer, message="")
    return faults.of_error(made)
