"""Between a configuration and a judge: give what the journal has, ask for the rest, keep what comes and what it costs."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import JudgeStopped, NoRoom, SuiteError, one_line
from bench.judges import CONNECTION_ATTEMPTS, JudgeSettings, Receive, Reply, Request, Setup
from bench.judges.batch.notes import NOT_SENT
from bench.judges.cost import Budget, bill, tokens_of
from bench.judges.dialects import for_model, longest_reply
from bench.judges.journal import JOURNAL as JOURNAL
from bench.judges.journal import NOTE_BYTES, Journal, key
from bench.judges.prices import KEY, rate
from bench.settings import Model

if TYPE_CHECKING:
    from bench.judges.batch.batches import Batches
    from bench.judges.configurations import Configuration, Unusable
    from bench.models.policy import Policy

_TELL_EVERY_SECONDS = 2.0
_LONGEST_REASON = 300
_ADAPTED = "adapted"
# A reply on the disk: what goes with it, and each of its tokens with one log-probability beside others
_REPLY_BYTES, _TOKEN_BYTES = 2**14, 192
UNUSABLE_IN_A_ROW = 10
Whose = Callable[[Request], tuple[int, str]]


class Asking:
    """Ask a judge; use it in a with statement, which holds the journal.

    Args:
        settings: the suite's judge.
        configuration: whose template and parser it works under.
        journal: where replies are kept and found again.
        others: lists the journals of the same suite's other judgings.
        load_local: loads a local judge's model.
        tell: takes a line of progress.
        attempts: how often a request is tried that meets a passing fault.
        first_of_all: is called before the first request, where anything is missing.
        stopping: asked whether the user wants to stop, while a batch is waited for.

    Raises:
        SuiteError: a ceiling of cost without a price.
        JudgeError: the judge cannot be asked at all.
    """

    def __init__(
        self,
        settings: JudgeSettings,
        configuration: Configuration,
        journal: Path,
        others: Callable[[], Iterable[Path]],
        load_local: Callable[[Model], Policy],
        tell: Callable[[str], None],
        attempts: int = CONNECTION_ATTEMPTS,
        first_of_all: Callable[[], object] | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        model = settings.asked_model
        self._price, self._no_price = rate(settings, model)
        if settings.judge.endpoint and settings.max_cost_usd is not None and self._price is None:
            raise SuiteError(f"{KEY}.max_cost_usd: {self._no_price}")
        self._at_first = longest_reply(for_model(configuration.parameters, model, settings.parameters))
        self._budget = Budget(self._price, settings.max_cost_usd, lambda: self._longest_reply)
        self.judging = settings.judge(Setup(settings, configuration, load_local, self._send, attempts))
        alternatives = int(configuration.parameters.get("top_logprobs") or 0)
        self._token_bytes = _TOKEN_BYTES * (1 + alternatives)
        self._concurrency, self._first_of_all = settings.concurrency, first_of_all
        self._first_pause, self._stopping = settings.first_pause_seconds, stopping
        self._in_batches = settings.batch
        self._template, self._tell = configuration.template, tell
        self._read, self._configuration = configuration.reader(), configuration
        self._useful, self._unusable_in_a_row = False, 0
        self._unkept: list[Mapping[str, Any]] = []  # what came to nothing at a judge without a journal
        self._journal = Journal(journal, others, tell) if self.judging.journaled else None
        self._counting = threading.Lock()
        self._asked: set[str] = set()
        self._noted: dict[Request, dict[str, Any]] = {}  # what a line says of a request, whatever became of it
        self._under_way: dict[Request, str] = {}
        self.stopped: JudgeStopped | None = None

    def __enter__(self) -> Asking:
        self._held: Any = self._journal or nullcontext()
        self._held.__enter__()
        if self._journal:
            self._budget.elsewhere = self._journal.spent_by_others
            self._budget.spend(self._journal.spent)
        return self

    def __exit__(self, *error: Any) -> None:
        self._held.__exit__(*error)

    @property
    def _longest_reply(self) -> int:
        """The tokens that a reply may have; a judge that found its replies cut off allows more."""
        return max(self._at_first, longest_reply(self.judging.sent))

    @property
    def _reply_bytes(self) -> int:
        return _REPLY_BYTES + self._longest_reply * self._token_bytes

    def complete(self, requests: Sequence[Request], whose: Whose) -> list[Mapping[str, Any] | None]:
        """Return a usable completion per request, or None; `stopped` says why a judge was not asked for all of them.

        Args:
            requests: what to ask.
            whose: gives the number of a request's pair, and its order.

        Raises:
            NoRoom: the replies could not be kept; nothing more is asked.
            JudgeError: a reply could not be kept.
        """
        keys = {request: key(self.judging, self._template, request) for request in requests}
        self._asked.update(keys.values())
        known: dict[Request, Mapping[str, Any]] = {}
        for request in requests:
            row = self._kept(keys[request], request, whose)
            if row:
                known[request] = self._read(row["reply"]) or row["reply"]
        # pair by pair, so that judging that is stopped leaves whole pairs
        missing = sorted((request for request in keys if request not in known), key=whose)
        self._announce(missing, len(known))
        told = time.monotonic()

        def receive(request: Request, reply: Reply) -> bool:
            nonlocal told
            form = None if reply.completion is None else self._read(reply.completion)
            usable = form is not None
            unusable = None if usable or reply.completion is None else self._why_unusable(reply.completion)
            cost = self._cost(reply)
            self._budget.settle(request, 0.0 if reply.state == "refused" else cost)
            if self._journal:
                self._journal.add(self._row(request, reply, usable, cost) | _why(reply, unusable))
            elif not usable:
                self._unkept.append(_why(reply, unusable) | {"error": reply.error})
            if form is not None:
                with self._counting:
                    known[request] = form
                    if time.monotonic() - told > _TELL_EVERY_SECONDS:
                        told = time.monotonic()
                        self._tell(f"{len(known)} of {len(requests)} comparisons judged")
            self._count_unusable(usable, unusable.reason if unusable else "")
            return usable

        who = {"model": self.judging.model, "host": self.judging.host, "configuration": self._configuration.name}
        for request in missing:
            pair, order = whose(request)
            self._noted[request] = {"key": keys[request], "pair": pair, "order": order, **who}
        # before a batch is made a request of its own shows which fields the endpoint takes
        self._useful = self._useful or (bool(known) and not self._in_batches)
        self._ask(missing, receive)
        return [known.get(request) for request in requests]

    def _announce(self, missing: Sequence[Request], known: int) -> None:
        if not missing:
            return
        kept = f", {known} replies are in the journal" if known else ""
        self._tell(f"asking {self.judging.model} for {len(missing)} comparisons{self._about(missing)}{kept}")

    def _ask(self, missing: Sequence[Request], receive: Receive) -> None:
        """Ask for what is missing, with room for what is under way at once."""
        try:
            with self._batches(missing, receive) as batches:
                left = batches.resume(missing) if batches else list(missing)
                if left and self._first_of_all and self.judging.endpoint:
                    self._first_of_all()
                if left and self._journal and self.judging.endpoint:
                    at_once = min(self._concurrency, len(left))
                    self._journal.make_room(at_once * (self._reply_bytes + NOTE_BYTES))
                while left and self.judging.endpoint and not self._useful:  # one by one until a reply can be used
                    self.judging.ask(left[:1], receive)
                    left = left[1:]
                if left and batches and self._in_batches:
                    batches.ask(left)
                elif left:
                    self.judging.ask(left, receive)
        except NoRoom:
            raise
        except JudgeStopped as stop:
            self.stopped = stop

    @contextmanager
    def _batches(self, missing: Sequence[Request], receive: Receive) -> Iterator[Batches | None]:
        """Give what asks in batches, where that is wanted or an earlier process has done so; else None.

        Raises:
            InputError: the endpoint has no batches.
        """
        from bench.judges.openai import OpenaiJudge

        if not missing or not self._journal or not isinstance(self.judging, OpenaiJudge):
            yield None
            return
        from bench.judges.batch.batches import opened
        from bench.judges.batch.ledger import BatchLedger

        ledger = BatchLedger(
            self._journal,
            self._budget,
            self._price,
            lambda: self._longest_reply,
            self._token_bytes,
            self._noted,
            self._under_way,
            _now,
        )
        if not self._in_batches and not ledger.waiting(missing):
            yield None
            return
        how = (self._tell, self._first_pause, self._stopping, self._in_batches)
        with opened(self.judging, ledger, receive, *how) as batches:
            yield batches

    def _why_unusable(self, completion: Mapping[str, Any]) -> Unusable:
        why = self._configuration.why_unusable(completion)
        return why._replace(reason=one_line(why.reason, _LONGEST_REASON))

    def _count_unusable(self, usable: bool, unusable: str) -> None:
        """Stop where so many replies in a row came to nothing: the next ones would be paid for nothing, too.

        Raises:
            JudgeStopped: says why they cannot be used.
        """
        with self._counting:
            self._useful = self._useful or usable
            self._unusable_in_a_row = 0 if usable else self._unusable_in_a_row + bool(unusable)
            stop = unusable and self._unusable_in_a_row >= UNUSABLE_IN_A_ROW
        if stop:
            where = f"the judge {self.judging.model} at {self.judging.host}"
            raise JudgeStopped(f"{where}: {UNUSABLE_IN_A_ROW} replies in a row could not be used: {unusable}")

    def _send(self, request: Request) -> str:
        """Set aside what a request may cost and the room for its reply, and note it; return what it is known by.

        Raises:
            JudgeStopped: it may pass the ceiling of cost.
            NoRoom: the disk is full.
        """
        self._budget.reserve(request)
        if not self._journal:
            return ""
        at_most = self._price.of(tokens_of(request), self._longest_reply) if self._price else None
        note = {**self._noted[request], "cost_usd_at_most": at_most, "time": _now()}
        try:
            name = self._journal.send(note, self._reply_bytes)
        except BaseException:
            self._budget.settle(request, 0.0)
            raise
        self._under_way[request] = name
        return name

    def _about(self, requests: Sequence[Request]) -> str:
        """Return what requests may cost, as text; empty where no price is known."""
        if self._price is None:
            return ""
        costs = (self._price.of(tokens_of(one), self._longest_reply, self._in_batches) for one in requests)
        return f" (about ${sum(costs):.2f})"

    @property
    def last_row(self) -> dict[str, Any] | None:
        """The latest reply in the journal."""
        rows = self._journal.rows if self._journal else []
        return rows[-1] if rows else None

    def facts(self) -> dict[str, Any]:
        """Return how was asked, and why replies could not be used: counted by kind, with an example of each."""
        rows = self._journal.rows if self._journal else []
        lost = [row for row in rows if row["key"] in self._asked and not row["usable"] and row.get("state") != "sent"]
        kinds: dict[str, dict[str, Any]] = {}
        for row in [*lost, *self._unkept]:
            kind = row.get("kind") or ("unusable" if row.get("unusable") else "error")
            if kind not in (_ADAPTED, NOT_SENT):
                example = str(row.get("unusable") or row.get("error") or "")
                kinds.setdefault(kind, {"kind": kind, "count": 0, "example": example})["count"] += 1
        made: dict[str, Any] = {
            "configuration": self._configuration.name,
            "of_alpaca_eval": self._configuration.of_alpaca_eval,
        }
        changes = list(self.judging.changes)
        return (
            made
            | ({"request_changes": changes} if changes else {})
            | ({"unusable_replies": sorted(kinds.values(), key=lambda one: -one["count"])} if kinds else {})
        )

    def bill(self) -> dict[str, Any]:
        """Return what the replies to what was asked cost, whenever they came; empty for a judge without a journal."""
        if not self._journal:
            return {}
        return bill((row for row in self._journal.rows if row["key"] in self._asked), self._price, self._no_price)

    def _kept(self, reply_key: str, request: Request, whose: Whose) -> dict[str, Any] | None:
        if not self._journal:
            return None
        return self._journal.find(reply_key) or self._journal.take_over(reply_key, *whose(request))

    def _cost(self, reply: Reply) -> float | None:
        """Return US dollars; None where the price or the tokens are not known."""
        if self._price is None or not reply.tokens:
            return None
        return self._price.bill(reply.tokens, bool(reply.batch))

    def _row(self, request: Request, reply: Reply, usable: bool, cost: float | None) -> dict[str, Any]:
        name = self._under_way.pop(request, None)
        return {
            **self._noted[request],
            "parameters": dict(self.judging.sent if reply.sent is None else reply.sent),
            "prompt_sha256": prompt_hash(request),
            "reply": reply.completion,
            "usable": usable,
            "error": reply.error,
            "tokens": dict(reply.tokens) if reply.tokens else None,
            "cost_usd": cost,
            "seconds": round(reply.seconds, 3),
            "time": _now(),
            **({"request": name, "state": reply.state} if name else {}),
            **({"batch": reply.batch} if reply.batch else {}),
        }


def _why(reply: Reply, unusable: Unusable | None) -> dict[str, str]:
    """Return what a line says of why a reply cannot be used."""
    if unusable:
        return {"kind": unusable.kind, "unusable": unusable.reason}
    return {"kind": reply.kind} if reply.kind else {}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def prompt_hash(request: Request) -> str:
    """Hash the whole prompt: template, instruction and both answers in their order."""
    prompt = "\n".join(f"{message.role}\n{message.content}" for message in request.messages)
    return hashlib.sha256(prompt.encode()).hexdigest()
