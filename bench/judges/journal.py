"""Every reply of a judge, one line each, on the disk before it is used: what was paid for is never asked again.

Before a request is sent, a line notes it, and the place of its reply is taken on the disk: a request whose reply could
not be kept is not sent, and one whose reply never came is on record as possibly paid.

A judging keeps its own journal and reads those of the same suite's other judgings: a comparison that one of them has
paid for is taken over, marked with where it is from, so that each journal is whole by itself.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.errors import JudgeError, NoRoom
from bench.judges import Judge, Request
from bench.judges.cost import Account

JOURNAL = "journal.jsonl"
_LOOK_EVERY_SECONDS = 1.0
# Taken beyond what is needed at once, so that the file is not lengthened for each reply
_AHEAD_BYTES = 2**16
# A line that notes a request
NOTE_BYTES = 512


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
            with self.path.open("rb", buffering=0) as file:
                file.seek(self._read_to)
                whole = file.readall().rfind(b"\n") + 1
                # Lines are written over blanks: once a line's end was seen, all of it is there, but only now
                file.seek(self._read_to)
                content = file.read(whole)
        except OSError:
            return []
        self._read_to += whole
        return rows(content)

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
    """Note requests and append replies to a file; use it in a with statement, which locks it against other processes.

    The file ends in blanks while it is open: room on the disk that is taken already. A last line that was cut off (a
    crash) and blanks are dropped when the journal is opened.

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
        self._account = Account()
        self._file: int | None = None
        self._held = False
        self._end = self._size = 0  # of the lines, and of the blanks behind them
        self._aside: dict[str, int] = {}  # a request under way: bytes for its reply
        self._others: dict[Path, tuple[Tail, Account]] = {}
        self._theirs: dict[str, dict[str, Any]] = {}
        self._look_again_at = 0.0

    def __enter__(self) -> Journal:
        from filelock import Timeout

        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._tell(f"waiting for another process that holds {self._path}")
            self._lock.acquire()
        self._held = True
        tail = Tail(self._path)
        for row in tail.new_rows():
            self._keep(row)
        self._end = self._size = tail.whole_bytes
        if self._path.exists() and self._path.stat().st_size > self._end:
            os.truncate(self._path, self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writing:
            self._held = False
            if self._file is not None:
                os.ftruncate(self._file, self._end)
                os.close(self._file)
                self._file = None
        self._lock.release()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every line of this journal: requests, replies, and what became of batches."""
        return list(self._rows)

    @property
    def spent(self) -> float:
        """US dollars that were spent on replies, and at most on requests without one."""
        return self._account.spent

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
        """Return the US dollars that the other journals have on record, what is under way among it."""
        self._read_others()
        return sum(account.spent for _, account in self._others.values())

    def make_room(self, size: int) -> None:
        """Take room on the disk for what is going to be asked at once.

        Raises:
            NoRoom: there is none.
        """
        with self._writing:
            self._take(size)

    def send(self, note: Mapping[str, Any], reply_bytes: int) -> str:
        """Note a request that is about to be sent, with room for its reply.

        Returns:
            Its name; the same as before where an earlier request to this comparison got no answer.

        Raises:
            NoRoom: neither has room on the disk; the request must not be sent.
        """
        (name,) = self.send_all([note], reply_bytes)
        return name

    def send_all(self, notes: Sequence[Mapping[str, Any]], reply_bytes: int) -> list[str]:
        """Note requests that are about to be sent together, as `send` does one.

        Args:
            notes: a request each.
            reply_bytes: what each reply needs.
        """
        with self._writing:
            unanswered = [self._account.unanswered_request(note["key"]) or uuid.uuid4().hex for note in notes]
            rows = [
                {**note, "usable": False, "request": name, "state": "sent"}
                for note, name in zip(notes, unanswered, strict=True)
            ]
            lines = b"".join(map(_line, rows))
            size = len(lines) + len(rows) * reply_bytes
            self._take(size)
            try:
                self._append(lines)
            except OSError as error:
                raise self._no_room(size, error) from error
            for row in rows:
                self._aside[row["request"]] = reply_bytes
                self._keep(row)
        return unanswered

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one reply through to the disk. Threads take turns.

        Raises:
            JudgeError: the disk refuses; the journal is left as it was before this row.
        """
        line = _line(row)
        with self._writing:
            self._aside.pop(row.get("request", ""), None)
            with suppress(NoRoom):  # longer than was thought: it may still fit into what was taken ahead
                self._take(len(line))
            try:
                self._append(line)
            except OSError as error:
                raise JudgeError(
                    f"{self._path}: a judge's reply cannot be written ({error.strerror}); free the disk and run again"
                ) from error
            self._keep(dict(row))

    def _keep(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._account.add(row)
        if row["usable"]:
            self._usable[row["key"]] = row

    def _take(self, size: int) -> None:
        """Lengthen the file by blanks until a line fits beside the replies under way."""
        needed = self._end + size + sum(self._aside.values())
        if needed <= self._size:
            return
        blanks = needed + _AHEAD_BYTES - self._size
        try:
            self._write(b" " * blanks, self._size)
        except OSError as error:
            if self._file is not None:
                os.ftruncate(self._file, self._size)
            raise self._no_room(blanks, error) from error
        self._size += blanks

    def _append(self, line: bytes) -> None:
        """Write a line over the blanks."""
        try:
            self._write(line, self._end)
        except OSError:
            if self._file is not None:  # blanks again, or half a line would spoil the next one
                os.ftruncate(self._file, self._size)
                with suppress(OSError):
                    os.pwrite(self._file, b" " * min(len(line), self._size - self._end), self._end)
            raise
        self._end += len(line)
        self._size = max(self._size, self._end)

    def _write(self, content: bytes, start: int) -> None:
        if not self._held:  # left while a reply was under way: the journal may be another process's by now
            raise OSError(errno.EBADF, "the journal is closed")
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        while content:
            written = os.pwrite(self._file, content, start)
            content, start = content[written:], start + written
        os.fsync(self._file)

    def _no_room(self, size: int, error: OSError) -> NoRoom:
        return NoRoom(
            f"{self._path.parent}: the disk has no room for a judge's replies: {size / 1024:,.0f} KiB more are needed "
            f"({error.strerror}); nothing further was asked; make room and run again: what was judged is kept"
        )

    def _read_others(self) -> None:
        with self._writing:
            now = time.monotonic()
            if now < self._look_again_at:
                return
            self._look_again_at = now + _LOOK_EVERY_SECONDS
            for path in self._list_others():
                if path == self._path:
                    continue
                tail, account = self._others.setdefault(path, (Tail(path), Account()))
                for row in tail.new_rows():
                    account.add(row)
                    if row["usable"]:
                        theirs = {name: value for name, value in row.items() if name not in ("request", "state")}
                        self._theirs[row["key"]] = {"from": path.parent.name, **theirs}


def _line(row: Mapping[str, Any]) -> bytes:
    # ASCII: a reply may hold half a surrogate pair, which no encoding takes
    return (json.dumps(row, allow_nan=False) + "\n").encode()
