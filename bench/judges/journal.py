"""Every reply of a judge, one line each, on the disk before it is used: what was paid for is never asked again."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.errors import JudgeError
from bench.judges import Judge, Request


def key(judge: Judge, template: str, request: Request) -> str:
    """Hash everything that decides a reply: judge, endpoint, template, parameters, and both texts in their order."""
    content = [
        judge.model,
        judge.host,
        template,
        dict(judge.parameters),
        request.instruction,
        request.first,
        request.second,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Journal:
    """Append replies to a file; use it in a with statement, which locks it against other processes.

    A last line that was cut off (a crash, a full disk) is dropped when the journal is opened.
    """

    def __init__(self, path: Path) -> None:
        from filelock import FileLock

        self._path = path
        self._lock = FileLock(f"{path}.lock")
        self._writing = threading.Lock()
        self._usable: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Journal:
        self._lock.acquire()
        self._usable = {row["key"]: row for row in self._read() if row["usable"]}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def find(self, reply_key: str) -> dict[str, Any] | None:
        """Return the usable reply that is already here."""
        return self._usable.get(reply_key)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one reply through to the disk. Threads take turns.

        Raises:
            JudgeError: the disk refuses; the journal is left as it was before this row.
        """
        line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
        with self._writing:
            whole = self._path.stat().st_size if self._path.exists() else 0
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                if self._path.exists():
                    os.truncate(self._path, whole)
                raise JudgeError(
                    f"{self._path}: a judge's reply cannot be written ({error.strerror}); free the disk and run again"
                ) from error
            if row["usable"]:
                self._usable[row["key"]] = dict(row)

    def _read(self) -> Iterable[dict[str, Any]]:
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._path, whole)
        for line in content[:whole].splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # a line that a broken disk spoiled: its reply is asked for again
                continue
            yield row
