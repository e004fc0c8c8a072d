"""Every reply of a judge, one line each, on the disk before it is used: what was paid for is never asked again.

A judging keeps its own journal and reads those of the same suite's other judgings: a comparison that one of them has
paid for is taken over, marked with where it is from, so that each journal is whole by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.errors import JudgeError
from bench.judges import Judge, Request

_LOOK_EVERY_SECONDS = 1.0


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


class Tail:
    """Read the whole lines of a journal as they come; another process may be writing it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_to = 0

    def new_rows(self) -> list[dict[str, Any]]:
        """Return the rows since the last call. A line that a broken disk spoiled is passed over: it is asked again."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read_to)
                content = file.read()
        except OSError:
            return []
        whole = content.rfind(b"\n") + 1
        self._read_to += whole
        return rows(content[:whole])

    @property
    def whole_bytes(self) -> int:
        """Where the last whole line ended."""
        return self._read_to


def rows(content: bytes) -> list[dict[str, Any]]:
    """Return the rows of a journal; a line that a broken disk spoiled is passed over."""
    return [row for line in content.split(b"\n") if (row := _row(line)) is not None]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"key", "usable"} <= row.keys() else None


class Journal:
    """Append replies to a file; use it in a with statement, which locks it against other processes.

    A last line that was cut off (a crash, a full disk) is dropped when the journal is opened.

    Args:
        path: the journal.
        others: lists journals to take replies over from; they may grow meanwhile.
        tell: takes a line of progress while another process holds the journal.
    """

    def __init__(
        self,
        path: Path,
        others: Callable[[], Iterable[Path]] = lambda: (),
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        from filelock import FileLock

        self._path, self._list_others, self._tell = path, others, tell
        self._lock = FileLock(f"{path}.lock")
        self._writing = threading.Lock()
        self._rows: list[dict[str, Any]] = []
        self._usable: dict[str, dict[str, Any]] = {}
        self._others: dict[Path, Tail] = {}
        self._theirs: dict[str, dict[str, Any]] = {}
        self._spent_by_others = 0.0
        self._look_again_at = 0.0

    def __enter__(self) -> Journal:
        from filelock import Timeout

        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._tell(f"waiting for another process that holds {self._path}")
            self._lock.acquire()
        tail = Tail(self._path)
        self._rows = tail.new_rows()
        if self._path.exists() and self._path.stat().st_size > tail.whole_bytes:
            os.truncate(self._path, tail.whole_bytes)
        self._usable = {row["key"]: row for row in self._rows if row["usable"]}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every reply in this journal."""
        return list(self._rows)

    def find(self, reply_key: str) -> dict[str, Any] | None:
        """Return the usable reply that is already here."""
        return self._usable.get(reply_key)

    def take_over(self, reply_key: str, pair: int, order: str) -> dict[str, Any] | None:
        """Copy a usable reply from another journal into this one, under the number that the pair has here.

        Raises:
            JudgeError: the disk refuses.
        """
        self._read_others()
        there = self._theirs.get(reply_key)
        if there is not None:
            self.add({**there, "pair": pair, "order": order})
        return self.find(reply_key)

    def spent_by_others(self) -> float:
        """Return the US dollars that the other journals have on record."""
        self._read_others()
        return self._spent_by_others

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one reply through to the disk. Threads take turns.

        Raises:
            JudgeError: the disk refuses; the journal is left as it was before this row.
        """
        # ASCII: a reply may hold half a surrogate pair, which no encoding takes
        line = json.dumps(row, allow_nan=False) + "\n"
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
            self._rows.append(dict(row))
            if row["usable"]:
                self._usable[row["key"]] = dict(row)

    def _read_others(self) -> None:
        with self._writing:
            now = time.monotonic()
            if now < self._look_again_at:
                return
            self._look_again_at = now + _LOOK_EVERY_SECONDS
            for path in self._list_others():
                if path == self._path:
                    continue
                for row in self._others.setdefault(path, Tail(path)).new_rows():
                    if not row.get("from"):
                        self._spent_by_others += row.get("cost_usd") or 0.0
                    if row["usable"]:
                        self._theirs[row["key"]] = {"from": path.parent.name, **row}
