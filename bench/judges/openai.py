"""The paid judge: any OpenAI-compatible endpoint, many requests at a time, errors told apart.

========================================  =============================================================
409, 425, 5xx, no connection              tried again with growing pauses
429                                       the same, waiting as long as the endpoint says
time-out, cut connection, 408, 502, 504   may be paid for: tried again twice at most, under the same
                                          Idempotency-Key, by which an endpoint may know it; each is counted
an error inside a 200                     as if it had come with the status that it stands for
many requests in a row that all failed    fatal: the endpoint is down
429 with an exhausted quota, 401 to 404   fatal: nothing more is asked, what came is kept
a redirect                                fatal: key and prompts go to no other address
400 for one prompt (too long, filtered)   that comparison stays unjudged
400, 403, 404, 422 that name a field      it is left out, renamed or given another value, and the request sent again
500 of a template that takes no system    its message is put at the head of the user's
another 400, 422                          fatal: every prompt would be refused
an answer cut off before it said anything longer replies are allowed, twice at most, and it is asked again
an answer without a usable label          asked again a few times, then unjudged
========================================  =============================================================
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from bench.errors import JudgeError, JudgeRefused, JudgeStopped, one_line
from bench.judges import AUTOMATIC, Judge, JudgeSettings, Receive, Reply, Request, Setup, dialects, faults, usage
from bench.judges.configurations import spoken
from bench.judges.faults import Fault

if TYPE_CHECKING:
    from openai import OpenAI

    from bench.judges.configurations import Configuration

REPLY_ATTEMPTS = 3
# Each of them may be paid for
UNANSWERED_ATTEMPTS = 3
# So many comparisons in a row without an answer, each tried again and again, and the endpoint counts as down
FAILURES_IN_A_ROW = 8
LONGEST_PAUSE_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
LONGEST_CONNECT_SECONDS = 30.0
_SHORTEST_KEY = 8


class OpenaiJudge(Judge):
    """Ask an endpoint through OpenAI's SDK. The key is read from the environment and written nowhere."""

    endpoint: ClassVar[str] = "api.openai.com"
    batches: ClassVar[bool] = True
    forms: ClassVar[tuple[str, ...]] = AUTOMATIC
    journaled = True

    def __init__(self, setup: Setup) -> None:
        settings = setup.settings
        self.model = settings.asked_model
        self.parameters = dialects.for_model(setup.configuration.parameters, self.model, settings.parameters)
        self._dialect = dialects.Dialect(dict(self.parameters), setup.configuration.needed)
        self._learning, self._first_token = threading.Lock(), setup.configuration.reads_logprobs
        self._key_variable, self._concurrency = settings.key_variable, settings.concurrency
        self._attempts, self._first_pause, self._reserve = setup.attempts, settings.first_pause_seconds, setup.reserve
        self._failed_in_a_row = 0
        self._key = os.environ.get(settings.key_variable, "").strip()
        if not self._key:
            raise JudgeError(
                f"the judge {self.model} needs a key: set the environment variable {settings.key_variable} "
                "(to any value where the endpoint asks for none)"
            )
        if not self._key.isascii() or not self._key.isprintable() or " " in self._key:
            raise JudgeError(  # the HTTP library would refuse it, quoting it
                f"{settings.key_variable} holds white space or letters that no key has; set it to the key alone"
            )
        self._base_url, self._patience = settings.base_url, settings.timeout_seconds
        with self.connect() as client:
            self.host = str(client.base_url.host)

    @property
    def sent(self) -> Mapping[str, Any]:
        """What of the parameters the endpoint takes, as far as is known."""
        return self._dialect.sent

    @property
    def changes(self) -> Sequence[str]:
        """What was changed in a request, as the endpoint refuses it otherwise."""
        return tuple(self._dialect.changes)

    @property
    def takes_system(self) -> bool:
        """Whether the endpoint takes system messages, as far as is known."""
        return self._dialect.system

    def adopt(self, sent: Mapping[str, Any], system: bool) -> None:
        """Take over what an earlier process has learned of what the endpoint takes."""
        with self._learning:
            self._dialect.sent, self._dialect.system = dict(sent), system

    def body(self, request: Request) -> dict[str, Any]:
        """Return a request as it is sent."""
        with self._learning:
            messages = [{"role": one.role, "content": one.content} for one in request.messages]
            return {"model": self.model, "messages": self._dialect.messages(messages), **self.sent}

    def connect(self) -> OpenAI:
        from openai import DefaultHttpxClient, OpenAI, Timeout

        return OpenAI(
            api_key=self._key,
            base_url=self._base_url,
            timeout=Timeout(self._patience, connect=min(self._patience, LONGEST_CONNECT_SECONDS)),
            max_retries=0,
            default_headers={"api-key": self._key} if _is_azures(self._base_url) else None,
            http_client=DefaultHttpxClient(follow_redirects=False),
        )

    def shutdown(self) -> date | None:
        """Return the day on which the endpoint stops serving the model, from its list of models; None where none stands there."""
        import openai

        try:
            with self.connect() as client:
                listed = json.loads(client.models.with_raw_response.list(timeout=LONGEST_CONNECT_SECONDS).text)
            return next((_day(one) for one in listed["data"] if one.get("id") == self.model), None)
        except (openai.OpenAIError, ValueError, KeyError, TypeError, AttributeError):
            return None  # not every endpoint lists its models, and what counts is whether it answers

    @staticmethod
    def name(settings: JudgeSettings, configuration: Configuration) -> str:
        return settings.asked_model.replace("/", "-")

    def ask(self, requests: Sequence[Request], receive: Receive) -> None:
        """Answer every request.

        Raises:
            JudgeStopped: the endpoint refuses all requests, is down, or the ceiling of cost is reached.
            JudgeError: the journal cannot be written.
        """
        with self.connect() as client:
            self._ask(requests, receive, client.chat.completions.with_raw_response.create)

    def _ask(self, requests: Sequence[Request], receive: Receive, create: Callable[..., Any]) -> None:
        stop = threading.Event()

        def work(request: Request) -> None:
            try:
                for _ in range(REPLY_ATTEMPTS):
                    if not self._reply(request, receive, create, stop):
                        return
            except BaseException:
                stop.set()
                raise

        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="judge")
        try:
            futures = [pool.submit(work, request) for request in requests]
            for future in as_completed(futures):
                future.result()
        finally:
            stop.set()
            # replies already on their way are paid for: wait for them, so that they reach the journal
            pool.shutdown(wait=True, cancel_futures=True)

    def _reply(self, request: Request, receive: Receive, create: Callable[..., Any], stop: threading.Event) -> bool:
        """Get one reply, trying again where that may help, and say whether asking once more may give a usable one."""
        import tenacity

        unanswered = 0

        def attempt() -> bool:
            nonlocal unanswered
            while True:
                if stop.is_set():  # it may have been set in a pause
                    raise _Stopped
                name, started = self._reserve(request), time.monotonic()
                with self._learning:
                    sent, system = dict(self.sent), self._dialect.system
                    messages = self._dialect.messages(
                        [{"role": one.role, "content": one.content} for one in request.messages]
                    )
                try:
                    reply = self._send(create, messages, sent, name)
                except Fault as fault:
                    learned = self.learn(sent, system, fault)
                    unanswered += fault.state == "unanswered"
                    kind = "adapted" if learned else fault.kind
                    receive(
                        request, Reply(None, self.problem(fault), None, time.monotonic() - started, fault.state, kind)
                    )
                    if learned:
                        continue
                    raise
                return self.received(request, receive, replace(reply, seconds=time.monotonic() - started), sent)

        attempts = tenacity.Retrying(
            stop=lambda state: (
                stop.is_set() or state.attempt_number >= self._attempts or unanswered >= UNANSWERED_ATTEMPTS
            ),
            wait=self._pause,
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, Fault) and error.passes),
            sleep=tenacity.sleep_using_event(stop),
            reraise=True,
        )
        try:
            usable = attempts(attempt)
        except _Stopped:
            return False
        except Fault as fault:
            if not fault.passes and not fault.concerns_one_prompt:
                fields = self._is_about_fields(fault, self.parameters)
                refused = (fields or fault.status in (405, 501)) and not self._unknown(fault)
                kind = JudgeRefused if refused else JudgeStopped
                raise kind(self.explain(fault)) from None  # its chain may quote the key
            self._count_failure(fault, stop)
            return False
        self._failed_in_a_row = 0
        return not usable

    def _send(
        self, create: Callable[..., Any], messages: Sequence[Mapping[str, str]], sent: Mapping[str, Any], name: str
    ) -> Reply:
        """Send one request.

        Raises:
            Fault: it met one, be it inside a 200.
        """
        import openai

        headers = {"Idempotency-Key": name} if name else None
        try:
            raw = create(model=self.model, messages=messages, extra_headers=headers, extra_body=sent)
        except openai.APIError as error:
            raise faults.of_error(error) from None
        return self.read(self.without_key(raw.text))

    def read(self, text: str) -> Reply:
        """Read a response's body: the choice in the form alpaca-eval stores, or the problem with it; and token counts.

        Raises:
            Fault: an error stands in it.
        """
        try:
            body = json.loads(text, parse_constant=_refuse)
        except ValueError:
            body = None
        fault = faults.inside(body, text)
        if fault:
            raise fault
        try:
            choice = dict(body["choices"][0])
            message = dict(choice["message"])
        except (KeyError, IndexError, TypeError, ValueError):
            problem = self.clean(f"not a chat completion: {text[:200]}")
            return Reply(None, problem, None, state="unanswered", kind="no chat completion")
        return Reply({**choice, "text": _text(message)}, None, usage.tokens(body.get("usage")))

    def received(self, request: Request, receive: Receive, reply: Reply, sent: Mapping[str, Any]) -> bool:
        """Hand a reply over; where it was cut off before it said anything, allow longer ones."""
        usable = receive(request, reply)
        cut_off = reply.completion is not None and reply.completion.get("finish_reason") == "length"
        if (
            not usable
            and reply.completion
            and cut_off
            and not self._first_token
            and not spoken(reply.completion["text"])
        ):
            with self._learning:
                before = len(self._dialect.changes)
                self._dialect.allow_longer(sent)
                self._tell_changes(before)
        return usable

    def learn(self, sent: Mapping[str, Any], system: bool, fault: Fault) -> bool:
        """Leave out, rename or change what the endpoint refuses by its name; say whether that gave another request."""
        if fault.concerns_one_prompt:
            return False
        with self._learning:
            before = len(self._dialect.changes)
            if fault.status == 500:
                learned = self._dialect.learn_no_system(fault.words, system)
            else:
                learned = self._is_about_fields(fault, sent) and self._dialect.learn(
                    sent, fault.words, fault.field, system
                )
            self._tell_changes(before)
        return learned

    def _is_about_fields(self, fault: Fault, sent: Mapping[str, Any]) -> bool:
        """Tell whether another form of the request may be taken: a 403 speaks of the key, unless it names a field."""
        if fault.status == 403:
            return self._dialect.names(sent, fault.words, fault.field)
        return fault.status in (400, 404, 422)

    def _tell_changes(self, before: int) -> None:
        for change in self._dialect.changes[before:]:
            logging.getLogger("bench").warning(self.clean(f"the judge {self.model}: {change}, as it refuses it"))

    def _count_failure(self, fault: Fault, stop: threading.Event) -> None:
        """Give up where the endpoint answers nobody; a refused prompt is an answer."""
        if stop.is_set() or not fault.passes:
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            raise JudgeStopped(
                self.clean(
                    f"the judge {self.model} at {self.host} did not answer {self._failed_in_a_row} comparisons in a row, "
                    f"each tried again and again ({self.problem(fault)}); see that it is up, then run again"
                )
            ) from None

    def _unknown(self, fault: Fault) -> bool:
        """Tell whether it is the model or the address that the endpoint does not know, whatever is asked of it."""
        if fault.code in ("model_not_found", "DeploymentNotFound", "invalid_model"):
            return True
        return fault.status == 404 and not re.search("support|parameter", fault.words)

    def explain(self, fault: Fault) -> str:
        """Say what to change; 401's own text is left out, as endpoints quote part of the key in it."""
        where = f"the judge {self.model} at {self.host}"
        if fault.status is not None and 300 <= fault.status < 400:
            return self.clean(
                f"{where} sends requests on to {fault.target} ({fault.status}); key and prompts are sent to no other address "
                "than judge.base_url: set it to the one that is meant"
            )
        if fault.status == 401:
            return f"{where} does not accept the key in {self._key_variable}; set it to a valid key and run again"
        said = f" ({fault.words})" if fault.words else ""
        if self._unknown(fault):
            return self.clean(
                f"{where} was not found ({fault.status}): the model is retired or unknown there; set judge.model or "
                f"judge.base_url{said}"
            )
        if fault.status in (402, 429):
            return self.clean(
                f"{where}: the quota is exhausted; add credit or set another {self._key_variable}, then run again: "
                f"what was judged is kept{said}"
            )
        return self.clean(f"{where} refuses the request ({self.problem(fault)}); change the judge's settings")

    def problem(self, fault: Fault) -> str:
        """Word a fault; 401's own text is left out."""
        return "401" if fault.status == 401 else self.clean(str(fault))

    def _pause(self, state: Any) -> float:
        """Wait as long as the endpoint says, or about twice as long each time."""
        said = getattr(state.outcome.exception(), "wait", None)
        if said is not None:
            return min(LONGEST_RETRY_AFTER_SECONDS, float(said))
        growing: float = min(LONGEST_PAUSE_SECONDS, self._first_pause * 2 ** (state.attempt_number - 1))
        return growing * random.uniform(0.5, 1)  # apart from others that failed at the same time

    def clean(self, text: str) -> str:
        """Make a text from outside one line without the key, and shorten it."""
        return " ".join(self.without_key(one_line(text)).split())[:300]

    def without_key(self, text: str) -> str:
        # a short "key" is the any-value-will-do of an endpoint without keys; it may be a part of any word
        return text.replace(self._key, "[key]") if len(self._key) >= _SHORTEST_KEY else text


def _is_azures(base_url: str | None) -> bool:
    """Tell Azure's form of an address, where a resource's key may be taken in a header of its own alone."""
    parts = urlsplit(base_url or "")
    return parts.path.rstrip("/").endswith("/openai/v1") or str(parts.hostname or "").endswith(".azure.com")


class _Stopped(Exception):
    """Leave a request unsent: another one has found that the judge must not be asked further."""


def _day(model: Mapping[str, Any]) -> date | None:
    """Return the date in a model's `shutdown_date`: as text, or as seconds since 1970."""
    said = model.get("shutdown_date")
    if isinstance(said, int | float):
        return datetime.fromtimestamp(said, UTC).date()
    return datetime.fromisoformat(said).date() if isinstance(said, str) and said else None


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _text(message: Any) -> str:
    """Return what was said; where a function was called, its arguments."""
    calls = message.get("tool_calls") or []
    called = (calls[0].get("function") or calls[0]) if calls else message.get("function_call")
    arguments = called.get("arguments") if called else None
    if arguments is None:
        content = message.get("content")
        if isinstance(content, list):  # as parts
            content = "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
        return str(content or "")
    return arguments if isinstance(arguments, str) else json.dumps(arguments)  # some servers give the object itself
