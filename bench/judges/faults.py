"""What went wrong with a request, in the endpoint's own words: errors by status, inside a 200, as lists, text or HTML."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bench.errors import one_line
from bench.judges.requests import State

if TYPE_CHECKING:
    import openai

_LONGEST_WORDS = 300
NO_ANSWER = ("no answer in time", "no connection")
_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_credits", "credit_balance_too_low")
_ONE_PROMPT = ("context_length_exceeded", "content_filter", "content_policy_violation", "string_above_max_length")
# What servers without such codes say of a prompt that is too long, or that a filter took
_ONE_PROMPT_WORDS = re.compile(
    r"(maximum|max|model'?s|exceeds?\b.{0,40}|available) context (length|window|size)|context (length|window|size) (is )?exceeded"
    r"|exceeds? the (available )?context|prompt is too long|prompt too long|input is too long|too many (input |prompt )?tokens"
    r"|content (management policy|filter)|safety (filter|system)",
    re.IGNORECASE,
)
# A gateway gave up waiting, or lost what it waited for: behind it the request may be answered and billed all the same
_GIVEN_UP = (408, 499, 502, 504, 520, 524)
# What the HTTP library calls it when nothing was sent
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "LocalProtocolError")
_BUSY = re.compile(
    r"rate.?limit|too many requests|resource.?exhausted|quota.{0,20}per (minute|second)|throttl", re.IGNORECASE
)
_DOWN = re.compile(
    r"overload|unavailable|internal|time.?d? ?out|try again|server.?error|no healthy|loading", re.IGNORECASE
)
_WAIT = re.compile(
    r"(?:try|retry) again in (\d+(?:\.\d+)?) ?(ms|s\b|sec)|retry(?:ing)? (?:after|in) (\d+(?:\.\d+)?) ?s", re.IGNORECASE
)
_TAGS = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)


@dataclass(eq=False)
class Fault(Exception):
    """Say what went wrong with one request.

    Attributes:
        status: HTTP's, or the one that the body of a 200 speaks of; None without an answer.
        words: the endpoint's own, on one line.
        code: what it calls it, if it does.
        field: the request's field that it is about, if it says so.
        wait: seconds after which it may be asked again, if it says so.
        state: whether it may be paid for.
        target: where a redirect leads.
    """

    status: int | None
    words: str
    code: str = ""
    field: str | None = None
    wait: float | None = None
    state: State = "refused"
    target: str = ""

    @property
    def passes(self) -> bool:
        """Tell whether the same request may succeed later."""
        if self.status is None:
            return True
        return not self.is_quota and (self.status in (408, 409, 425, 429) or self.status >= 500)

    @property
    def is_quota(self) -> bool:
        """Tell whether nothing more is answered until something is paid."""
        return self.status == 402 or self.code in _QUOTA

    @property
    def concerns_one_prompt(self) -> bool:
        """Tell whether another prompt may be answered: this one is too long, or a filter took it."""
        if self.status not in (400, 413, 422):
            return False
        return self.code in _ONE_PROMPT or self.status == 413 or bool(_ONE_PROMPT_WORDS.search(self.words))

    @property
    def kind(self) -> str:
        """Name the kind of fault, for counting."""
        if self.status is None:
            return NO_ANSWER[0] if self.state == "unanswered" else NO_ANSWER[1]
        if self.concerns_one_prompt:
            return "prompt refused"
        return f"error {self.status}"

    def __str__(self) -> str:
        return f"{self.status}: {self.words}" if self.status else self.words


def of_error(error: openai.APIError) -> Fault:
    """Read what OpenAI's SDK raises."""
    response = getattr(error, "response", None)
    if response is None:
        sent = type(error.__cause__).__name__ not in _NOT_SENT
        return Fault(None, one_line(str(error.message)), state="unanswered" if sent else "refused")
    text = response.text
    body = _json(text)
    status = int(response.status_code)
    return Fault(
        status,
        _words(body, text) or one_line(str(error.message)),
        _code(body),
        _field(body),
        _first(_retry_after(response.headers.get("retry-after", "")), _wait(body, text)),
        "unanswered" if status in _GIVEN_UP else "refused",
        _target(response.headers.get("location", "")),
    )


def inside(body: Any, text: str) -> Fault | None:
    """Find an error in the body of a 200: in the place of an answer, or of a choice; None where there is none."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if not error and isinstance(body, Mapping):
        choices = body.get("choices")
        first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
        error = first.get("error")
        if not error and not choices and body.get("object") == "error":
            error = body
    if not error and isinstance(body, list) and body and isinstance(body[0], Mapping):
        error = body[0].get("error")
    if not error:
        return None
    words = _words(error, text)
    status = _status(error, words)
    state: State = "unanswered" if status in _GIVEN_UP else "refused"
    return Fault(status, words, _code(error), _field(error), _wait(error, words), state)


def _status(error: Any, words: str) -> int:
    """Return the HTTP status that an error inside a 200 stands for; what cannot be told counts as passing."""
    for each in _mappings(error):
        for name in ("code", "status", "status_code", "http_status"):
            value = each.get(name)
            if isinstance(value, str) and value.isdigit():
                value = int(value)
            if type(value) is int and 400 <= value < 600:
                return value
    said = f"{_code(error)} {words}"
    if _BUSY.search(said) or _code(error) in _QUOTA:
        return 429
    if re.search(
        r"invalid.?(request|argument|parameter|value)|unsupported|not supported|unknown (field|parameter)",
        said,
        re.IGNORECASE,
    ):
        return 400
    return 503 if _DOWN.search(said) else 500


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _mappings(body: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the mappings of a body from the outside in."""
    if isinstance(body, Mapping):
        yield body
        for value in body.values():
            yield from _mappings(value)
    elif isinstance(body, list):
        for value in body[:5]:
            yield from _mappings(value)


def _words(body: Any, text: str) -> str:
    """Return what a body says, on one line; of one in no known form, its text without markup."""
    return _shorten(_said(body) or _TAGS.sub(" ", text))


def _said(body: Any) -> str:
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, map(_said, body[:3])))
    if not isinstance(body, Mapping):
        return ""
    if "msg" in body and "loc" in body:  # FastAPI's
        place = ".".join(str(part) for part in body["loc"] if part != "body") if isinstance(body["loc"], list) else ""
        return f"{place}: {body['msg']}" if place else str(body["msg"])
    for name in ("error", "message", "detail", "errors", "msg", "error_message", "reason", "title"):
        if body.get(name):
            more = _said(body[name])
            if more:
                return more
    return ""


def _shorten(text: str) -> str:
    return " ".join(one_line(text).split())[:_LONGEST_WORDS]


def _code(body: Any) -> str:
    """Return the first name that a body gives its error."""
    for name in ("code", "type", "status"):
        for each in _mappings(body):
            value = each.get(name)
            if isinstance(value, str) and value and not value.isdigit() and value != "error":
                return value
    return ""


def _field(body: Any) -> str | None:
    """Return the request's field that a body names: `param`, or the place in FastAPI's form; without what is below it."""
    for each in _mappings(body):
        named = each.get("param")
        place = each.get("loc")
        if isinstance(place, list):
            named = next((part for part in place if isinstance(part, str) and part != "body"), None)
        if isinstance(named, str) and named:
            return re.split(r"[.\[]", named)[0]
    return None


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _wait(body: Any, text: str) -> float | None:
    """Return the seconds that a body asks to wait."""
    for each in _mappings(body):
        for name, value in each.items():
            if name.lower().replace("_", "-") in ("retry-after", "retrydelay", "retryafter"):
                found = _retry_after(str(value).removesuffix("s"))
                if found is not None:
                    return found
    match = _WAIT.search(_said(body) or text)
    if not match:
        return None
    seconds = float(match[1] or match[3])
    return seconds / 1000 if match[2] == "ms" else seconds


def _retry_after(value: str) -> float | None:
    """Read a Retry-After header: seconds or a date."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def _target(location: str) -> str:
    """Name the host that a redirect leads to."""
    try:
        return urlsplit(location).hostname or "another path"
    except ValueError:
        return "another address"
