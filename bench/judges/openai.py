"""The paid judge: any OpenAI-compatible endpoint, many requests at a time, errors told apart.

========================================  =============================================================
409, 425, 5xx, no connection              tried again with growing pauses
429                                       the same, waiting as long as Retry-After says
time-out, cut connection, 408, 502, 504   may be paid for: tried again twice at most, under the same
                                          Idempotency-Key, by which an endpoint may know it; each is counted
many requests in a row that all failed    fatal: the endpoint is down
429 with an exhausted quota, 401 to 404   fatal: nothing more is asked, what came is kept
a redirect                                fatal: key and prompts go to no other address
400 for one prompt (too long, filtered)   that comparison stays unjudged
400, 422 that name a field of the request it is left out or renamed, once, and the request sent again
another 400, 422                          fatal: every prompt would be refused
an answer without a usable label          asked again a few times, then unjudged
========================================  =============================================================
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from bench.errors import JudgeError, JudgeStopped, one_line
from bench.judges import Judge, JudgeSettings, Receive, Reply, Request, Setup, dialects, usage
from bench.judges.requests import State

if TYPE_CHECKING:
    from openai import OpenAI

    from bench.judges.alpaca import Configuration

REPLY_ATTEMPTS = 3
# Each of them may be paid for
UNANSWERED_ATTEMPTS = 3
# So many comparisons in a row without an answer, each tried again and again, and the endpoint counts as down
FAILURES_IN_A_ROW = 8
LONGEST_PAUSE_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
LONGEST_CONNECT_SECONDS = 30.0
_SHORTEST_KEY = 8
_REFUSED_ALONE = ("context_length_exceeded", "content_filter", "content_policy_violation")
# A gateway gave up waiting, or lost what it waited for: behind it the request may be answered and billed all the same
_GIVEN_UP = (408, 499, 502, 504, 520, 524)
# What the HTTP library calls it when nothing was sent
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "LocalProtocolError")


class OpenaiJudge(Judge):
    """Ask an endpoint through OpenAI's SDK. The key is read from the environment and written nowhere."""

    endpoint: ClassVar[str] = "api.openai.com"
    batches: ClassVar[bool] = True
    journaled = True

    def __init__(self, setup: Setup) -> None:
        settings = setup.settings
        self.model = settings.model or setup.configuration.model
        self.parameters = dialects.for_model(setup.configuration.parameters, self.model, settings.parameters)
        needed = ("logprobs", "top_logprobs") if setup.configuration.reads_logprobs else ()
        self._dialect, self._learning = dialects.Dialect(dict(self.parameters), needed), threading.Lock()
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
        with self._connect() as client:
            self.host = str(client.base_url.host)

    @property
    def sent(self) -> Mapping[str, Any]:
        """What of the parameters the endpoint takes, as far as is known."""
        return self._dialect.sent

    def adopt(self, sent: Mapping[str, Any]) -> None:
        """Take over what an earlier process has learned of the fields that the endpoint takes."""
        self._dialect.sent = dict(sent or self._dialect.sent)

    def body(self, request: Request) -> dict[str, Any]:
        """Return a request as it is sent."""
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        return {"model": self.model, "messages": messages, **self.sent}

    def _connect(self) -> OpenAI:
        from openai import DefaultHttpxClient, OpenAI, Timeout

        return OpenAI(
            api_key=self._key,
            base_url=self._base_url,
            timeout=Timeout(self._patience, connect=min(self._patience, LONGEST_CONNECT_SECONDS)),
            max_retries=0,
            http_client=DefaultHttpxClient(follow_redirects=False),
        )

    @staticmethod
    def name(settings: JudgeSettings, configuration: Configuration) -> str:
        return (settings.model or configuration.model).replace("/", "-")

    def ask(self, requests: Sequence[Request], receive: Receive) -> None:
        """Answer every request.

        Raises:
            JudgeStopped: the endpoint refuses all requests, is down, or the ceiling of cost is reached.
            JudgeError: the journal cannot be written.
        """
        with self._connect() as client:
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
        import openai
        import tenacity

        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        unanswered = 0

        def attempt() -> bool:
            nonlocal unanswered
            if stop.is_set():  # it may have been set in a pause
                raise _Stopped
            name, started = self._reserve(request), time.monotonic()
            headers, sent = {"Idempotency-Key": name} if name else None, dict(self.sent)
            try:
                raw = create(model=self.model, messages=messages, extra_headers=headers, extra_body=sent)
            except openai.APIError as error:
                if self._learn(sent, error):
                    receive(request, Reply(None, self._problem(error), None, time.monotonic() - started, "refused"))
                    return attempt()
                state = _state(error)
                unanswered += state == "unanswered"
                receive(request, Reply(None, self._problem(error), None, time.monotonic() - started, state))
                raise
            completion, problem, tokens = _completion(self._without_key(raw.text))
            problem, seconds = self._clean(problem) if problem else None, time.monotonic() - started
            return receive(
                request, Reply(completion, problem, tokens, seconds, "answered" if completion else "unanswered")
            )

        attempts = tenacity.Retrying(
            stop=lambda state: (
                stop.is_set() or state.attempt_number >= self._attempts or unanswered >= UNANSWERED_ATTEMPTS
            ),
            wait=self._pause,
            retry=tenacity.retry_if_exception(_may_pass),
            sleep=tenacity.sleep_using_event(stop),
            reraise=True,
        )
        try:
            usable = attempts(attempt)
        except _Stopped:
            return False
        except openai.APIError as error:
            if not _may_pass(error) and not _concerns_one_prompt(error):
                raise JudgeStopped(self._explain(error)) from None  # its chain may quote the key
            self._count_failure(error, stop)
            return False
        self._failed_in_a_row = 0
        return not usable

    def _learn(self, sent: Mapping[str, Any], error: Any) -> bool:
        """Leave out, or rename, a field that the endpoint refuses by its name; say whether that gave another request."""
        if getattr(error, "status_code", None) not in (400, 422) or _concerns_one_prompt(error):
            return False
        said = json.dumps(error.body, ensure_ascii=False) if error.body else str(error.message)
        with self._learning:
            before = len(self._dialect.changes)
            learned = self._dialect.learn(sent, said, getattr(error, "param", None))
            for change in self._dialect.changes[before:]:
                logging.getLogger("bench").warning(self._clean(f"the judge {self.model}: {change}, as it refuses it"))
        return learned

    def _count_failure(self, error: Any, stop: threading.Event) -> None:
        """Give up where the endpoint answers nobody; a refused prompt is an answer."""
        if stop.is_set() or not _may_pass(error):
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            raise JudgeStopped(
                self._clean(
                    f"the judge {self.model} at {self.host} did not answer {self._failed_in_a_row} comparisons in a row, "
                    f"each tried again and again ({self._problem(error)}); see that it is up, then run again"
                )
            ) from None

    def _explain(self, error: Any) -> str:
        """Say what to change; 401's own text is left out, as endpoints quote part of the key in it."""
        status, where = getattr(error, "status_code", None), f"the judge {self.model} at {self.host}"
        if status is not None and 300 <= status < 400:
            return self._clean(
                f"{where} sends requests on to {_target(error)} ({status}); key and prompts are sent to no other address "
                "than judge.base_url: set it to the one that is meant"
            )
        if status == 401:
            return f"{where} does not accept the key in {self._key_variable}; set it to a valid key and run again"
        if status == 404:
            return (
                f"{where} was not found (404): the model is retired or unknown there; set judge.model or judge.base_url"
            )
        if status == 429 or status == 402:
            return (
                f"{where}: the quota is exhausted; add credit or set another {self._key_variable}, then run again: "
                "what was judged is kept"
            )
        return self._clean(f"{where} refuses the request ({self._problem(error)}); change the judge's settings")

    def _problem(self, error: Any) -> str:
        """Word an error; 401's own text is left out."""
        status = getattr(error, "status_code", None)
        return "401" if status == 401 else self._clean(f"{status}: {error.message}" if status else error.message)

    def _pause(self, state: Any) -> float:
        """Wait as long as the endpoint says, or about twice as long each time."""
        error = state.outcome.exception()
        response = getattr(error, "response", None)
        said = _retry_after(response.headers.get("retry-after", "")) if response is not None else None
        if said is not None:
            return min(LONGEST_RETRY_AFTER_SECONDS, said)
        growing: float = min(LONGEST_PAUSE_SECONDS, self._first_pause * 2 ** (state.attempt_number - 1))
        return growing * random.uniform(0.5, 1)  # apart from others that failed at the same time

    def _clean(self, text: str) -> str:
        """Make a text from outside one line without the key, and shorten it."""
        return " ".join(self._without_key(one_line(text)).split())[:300]

    def _without_key(self, text: str) -> str:
        # a short "key" is the any-value-will-do of an endpoint without keys; it may be a part of any word
        return text.replace(self._key, "[key]") if len(self._key) >= _SHORTEST_KEY else text


class _Stopped(Exception):
    """Leave a request unsent: another one has found that the judge must not be asked further."""


def _may_pass(error: BaseException) -> bool:
    """Tell whether the same request may succeed later."""
    import openai

    if isinstance(error, openai.APIStatusError):
        quota = _code(error) in ("insufficient_quota", "billing_hard_limit_reached")
        return not quota and (error.status_code in (408, 409, 425, 429) or error.status_code >= 500)
    return isinstance(error, openai.APIConnectionError)


def _concerns_one_prompt(error: Any) -> bool:
    return getattr(error, "status_code", None) == 400 and _code(error) in _REFUSED_ALONE


def _code(error: Any) -> str:
    return str(getattr(error, "code", None) or getattr(error, "type", None) or "")


def _state(error: Any) -> State:
    """Say whether an error means that nothing is paid for, or that nobody knows."""
    status = getattr(error, "status_code", None)
    if status is not None:
        return "unanswered" if status in _GIVEN_UP else "refused"
    return "refused" if type(error.__cause__).__name__ in _NOT_SENT else "unanswered"


def _target(error: Any) -> str:
    """Name the host that a redirect leads to."""
    try:
        return urlsplit(error.response.headers.get("location", "")).hostname or "another path"
    except ValueError:
        return "another address"


def _retry_after(value: str) -> float | None:
    """Read a Retry-After header: seconds or a date."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _completion(text: str) -> tuple[dict[str, Any] | None, str | None, dict[str, int] | None]:
    """Read a response's body: the choice in the form alpaca-eval stores, or the problem with it; and token counts."""
    try:
        body = json.loads(text, parse_constant=_refuse)
        choice = dict(body["choices"][0])
        message = choice["message"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None, f"not a chat completion: {text[:200]}", None
    return {**choice, "text": _text(message)}, None, usage.tokens(body.get("usage"))


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _text(message: Any) -> str:
    """Return what was said; where a function was called, its arguments."""
    calls = message.get("tool_calls") or []
    called = calls[0]["function"] if calls else message.get("function_call")
    if not called:
        return str(message.get("content") or "")
    arguments = called.get("arguments") or ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments)  # some servers give the object itself
