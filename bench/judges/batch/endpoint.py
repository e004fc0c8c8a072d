"""Files and batches as OpenAI's endpoint has them, with passing faults waited out: what is sent, and what comes back."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from bench.errors import InputError, Interrupted, JudgeStopped, one_line
from bench.judges import faults
from bench.judges.openai import LONGEST_RETRY_AFTER_SECONDS, OpenaiJudge
from bench.judges.prices import KEY

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch


# Under which name our key stands in a batch's metadata
METADATA = "bench_batch"
PATH: Literal["/v1/chat/completions"] = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
LONGEST_PAUSE_SECONDS = 60.0
_ATTEMPTS = 8
# About twenty minutes without an answer, in a wait of hours
_LOOKS = 30
_GROWTH = 1.5
_LOOK_SECONDS = 0.2
_PAGE = 100
# What an endpoint says of a path that it does not have
_MISSING = (404, 405, 501)

Made = TypeVar("Made")


class NoListing(Exception):
    """Say that an endpoint does not list its batches."""


class BatchEndpoint:
    """Talk of files and batches.

    Args:
        judge: whose endpoint, and whose words for its faults.
        client: connected to it.
        first_pause: seconds; each further one is longer.
        stopping: asked whether the user wants to stop.
    """

    def __init__(self, judge: OpenaiJudge, client: OpenAI, first_pause: float, stopping: Callable[[], bool]) -> None:
        self._judge, self._client, self._first_pause, self._stopping = judge, client, first_pause, stopping

    def check(self) -> None:
        """See that there are batches, without making one.

        Raises:
            InputError: there are none.
            JudgeStopped: the endpoint refuses all requests, or is down.
        """
        try:
            next(self._listed(1), None)
        except NoListing:
            made = self._status(lambda: self._client.post("/batches", body={}, cast_to=object))
            if made in (200, *_MISSING):  # what takes anything makes no batches either
                raise InputError(
                    f"{KEY}.batch: {self._judge.host} has no batches of OpenAI's form (/batches answers {made}); set it to "
                    "false, or base_url to an endpoint that has them"
                ) from None

    def upload(self, name: str, lines: bytes) -> str:
        """Upload requests, one a line; return the file's id."""
        try:
            made = self._there(lambda: self._client.files.create(file=(name, lines), purpose="batch"))
        except LookupError:
            raise JudgeStopped(f"{self._judge.host} takes no files for batches; set {KEY}.batch: false") from None
        return self._id(made, "file")

    def create(self, key: str, file: str) -> Batch:
        """Make a batch, once: a fault is raised as the SDK has it, since it may be made all the same."""
        made = self._client.batches.create(
            input_file_id=file,
            endpoint=PATH,
            completion_window="24h",
            metadata={METADATA: key},
            extra_headers={"Idempotency-Key": key},
        )
        self._id(made, "batch")
        return made

    def find(self, key: str) -> list[Batch]:
        """Page through the endpoint's batches for those with a key of ours; the oldest first.

        Raises:
            NoListing: it does not list them.
        """
        found = [one for one in self._listed(_PAGE) if (getattr(one, "metadata", None) or {}).get(METADATA) == key]
        return sorted(found, key=lambda one: getattr(one, "created_at", None) or 0)

    def get(self, name: str) -> Batch:
        """Return how far a batch has come.

        Raises:
            LookupError: the endpoint does not know it any more.
        """
        return self._there(lambda: self._client.batches.retrieve(name), attempts=_LOOKS)

    def cancel(self, name: str) -> None:
        """End a batch that is one too many, if that can still be."""
        self._status(lambda: self._client.batches.cancel(name))

    def lines(self, file: str | None) -> list[dict[str, Any]]:
        """Return the lines of a file, without our key in them; one that is spoiled is passed over if it stays so.

        Raises:
            LookupError: the endpoint does not have the file any more.
        """
        if not file:
            return []
        for last in (False, False, True):
            text = self._judge.without_key(self._there(lambda: self._client.files.content(file)).text)
            read = [_line(line) for line in text.split("\n") if line.strip()]
            found = [line for line in read if line is not None]
            if last or len(found) == len(read):
                break
            self.pause(1)
        return found

    def patiently(self, call: Callable[[], Made], attempts: int = _ATTEMPTS) -> Made:
        """Call, and again after a passing fault; what does not pass is raised as JudgeStopped."""
        import openai

        for attempt in range(attempts):
            try:
                return call()
            except openai.APIError as error:
                fault = faults.of_error(error)
                if not fault.passes:
                    raise JudgeStopped(self._judge.explain(fault)) from None  # its chain may quote the key
            self.pause(attempt, fault.wait)
        raise JudgeStopped(
            f"the judge {self._judge.model} at {self._judge.host} did not answer {attempts} times in a row "
            f"({self._judge.problem(fault)}); see that it is up, then run again: a batch that was made goes on there"
        )

    def pause(self, number: int, said: float | None = None) -> None:
        """Wait, the longer the more often it was, or as long as the endpoint has said; bounded.

        Raises:
            Interrupted: the user wants to stop.
        """
        seconds = min(LONGEST_PAUSE_SECONDS, max(self._first_pause, 0.01) * _GROWTH ** min(number, 40))
        seconds = seconds * random.uniform(0.8, 1) if said is None else min(said, LONGEST_RETRY_AFTER_SECONDS)
        until = time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                if self._stopping():
                    raise KeyboardInterrupt
                time.sleep(min(left, _LOOK_SECONDS))
        except KeyboardInterrupt:
            raise self.interrupted() from None

    def interrupted(self) -> Interrupted:
        """Say what becomes of batches when the user stops."""
        return Interrupted(
            f"interrupted; what was made as a batch goes on at {self._judge.host}, and the same command takes its results"
        )

    def _listed(self, limit: int) -> Iterator[Batch]:
        page: Any = self._there(lambda: self._client.batches.list(limit=limit), NoListing)
        seen: set[str] = set()
        while True:
            if not isinstance(getattr(page, "data", None), list):  # a web page, for example
                raise NoListing
            new = [one for one in page.data if one.id not in seen]
            yield from new
            seen.update(one.id for one in new)
            if not new or not page.has_next_page():
                return
            page = self.patiently(page.get_next_page)

    def _there(
        self, call: Callable[[], Made], problem: type[Exception] = LookupError, attempts: int = _ATTEMPTS
    ) -> Made:
        """Call; raise `problem` where the endpoint has no such thing."""
        import openai

        def attempt() -> Made | None:
            try:
                return call()
            except openai.APIStatusError as error:
                if error.status_code in _MISSING:
                    return None
                raise

        made = self.patiently(attempt, attempts)
        if made is None:
            raise problem
        return made

    def _status(self, call: Callable[[], Any]) -> int:
        """Call; return the status that the endpoint answers with."""
        import openai

        def attempt() -> int:
            try:
                call()
            except openai.APIStatusError as error:
                if error.status_code in (400, 409, 422, *_MISSING):
                    return error.status_code
                raise
            return 200

        return self.patiently(attempt)

    def _id(self, made: Any, what: str) -> str:
        name = getattr(made, "id", None)
        if not isinstance(name, str) or not name:
            raise JudgeStopped(
                f"{self._judge.host} gave no {what} where one was to be made: {one_line(str(made), 200)}"
            )
        return name


def line(name: str, body: bytes) -> bytes:
    """Make a request's line in a file."""
    head = json.dumps({"custom_id": name, "method": "POST", "url": PATH})
    return head[:-1].encode() + b', "body": ' + body + b"}\n"


def _line(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("custom_id"), str) else None


def counts(batch: Batch) -> tuple[int, int]:
    """Return how many requests of a batch are done, failed ones among them, and how many there are."""
    found = getattr(batch, "request_counts", None)
    done = [getattr(found, name, None) or 0 for name in ("completed", "failed", "total")]
    return done[0] + done[1], done[2]


def problems(batch: Batch) -> list[Mapping[str, Any]]:
    """Return what an endpoint says of a batch that it refused: code, message, param, line."""
    said = getattr(getattr(batch, "errors", None), "data", None) or ()
    return [one.model_dump() if hasattr(one, "model_dump") else dict(one) for one in said]
