"""Requests to a server that makes answers, and what is tried again.

====================================  =====================================================================
no connection, time-out, 408, 409,    tried again with growing pauses, as long as Retry-After says where it
425, 429, 5xx, a body without text    does; given up after six attempts: the job fails, what came is kept
400, 422 that name a field of ours    the field is left out from then on, and on record; OpenAI's own are not
another 3xx or 4xx                    the job fails with the server's words
====================================  =====================================================================
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from bench.errors import JobError, one_line
from bench.evaluators.options import Endpoint
from bench.judges import faults
from bench.judges.faults import Fault

ATTEMPTS = 6
LONGEST_PAUSE_SECONDS = 60.0
LONGEST_CONNECT_SECONDS = 30.0
# For what is no answer: which models there are, loading an adapter of some hundred megabytes
CALL_SECONDS = 300.0


class Refused(JobError):
    """Say what a server refused, and its status."""

    def __init__(self, status: int, said: str, host: str) -> None:
        super().__init__(f"{host} refuses the request ({status}: {said})")
        self.status, self.said = status, said


class Requests:
    """Make requests by OpenAI's SDK; use it in a with statement.

    Args:
        settings: the suite's.
        attempts: how often a request is tried that meets a passing fault.

    Raises:
        JobError: the server needs a key that is not set.
    """

    def __init__(self, settings: Endpoint, attempts: int) -> None:
        import openai

        self.settings, self._attempts = settings, attempts
        key = os.environ.get(settings.key_variable or "", "").strip()
        if settings.key_variable and not key:
            raise JobError(f"the server needs a key: set the environment variable {settings.key_variable}")
        self._key = key
        patience = settings.timeout_seconds
        self._client = openai.OpenAI(
            api_key=key or "none",
            base_url=settings.base_url,
            timeout=openai.Timeout(patience, connect=min(patience, LONGEST_CONNECT_SECONDS)),
            max_retries=0,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )
        parts = urlsplit(settings.base_url)
        self._root, self.host = f"{parts.scheme}://{parts.netloc}", parts.netloc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _call(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Make a call that is no completion; return the JSON or the text of its answer.

        Raises:
            Refused: the server said no.
            JobError: it does not answer.
        """
        patience = min(CALL_SECONDS, self.settings.timeout_seconds)
        make = self._get if body is None else lambda path, patience: self._post(path, body, patience)
        return self._patiently(lambda: make(path, patience), threading.Event())

    def _get(self, path: str, patience: float) -> Any:
        import openai

        try:
            return self._client.get(path, cast_to=object, options={"timeout": patience})
        except openai.APIError as error:
            raise faults.of_error(error) from None

    def _post(self, path: str, body: Mapping[str, Any], patience: float) -> Any:
        import openai

        try:
            said = self._client.post(path, cast_to=object, body=body, options={"timeout": patience})
        except openai.APIError as error:
            raise faults.of_error(error) from None
        fault = faults.inside(said, str(said))
        if fault:
            raise fault
        return said

    def _patiently(self, attempt: Callable[[], Any], stop: threading.Event) -> Any:
        """Try again what may pass.

        Raises:
            Refused: what does not.
            JobError: it did not pass.
        """
        import tenacity

        attempts = tenacity.Retrying(
            stop=lambda state: stop.is_set() or state.attempt_number >= self._attempts,
            wait=self._pause,
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, Fault) and error.passes),
            sleep=tenacity.sleep_using_event(stop),
            reraise=True,
        )
        try:
            return attempts(attempt)
        except Fault as fault:
            if not fault.passes:
                raise Refused(fault.status or 0, self._clean(fault.words), self.host) from None
            tried = f"tried {self._attempts} times ({self._clean(str(fault))})"
            raise JobError(
                f"{self.host} did not answer, {tried}; see that the server is up, then run again: the answers that came are kept"
            ) from None

    def _pause(self, state: Any) -> float:
        """Wait as long as the server says, or about twice as long each time."""
        fault = state.outcome.exception()
        if fault.wait is not None:
            return min(LONGEST_PAUSE_SECONDS, float(fault.wait))
        growing: float = min(LONGEST_PAUSE_SECONDS, self.settings.first_pause_seconds * 2 ** (state.attempt_number - 1))
        return growing * random.uniform(0.5, 1)  # apart from others that failed at the same time

    def _clean(self, text: str) -> str:
        """Make the server's words one short line without the key."""
        return one_line(text.replace(self._key, "[key]") if self._key else text, 300)
