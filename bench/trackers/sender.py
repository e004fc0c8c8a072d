"""The process beside a run that reads jobs' files as they grow and sends what is new to a tracker."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.errors import InputError, one_line
from bench.records import record, safe_files
from bench.trackers import TRACKERS, Run, Tracker

LOOK_SECONDS = 1.0  # between two looks at the files
RETRY_SECONDS = 60.0  # before what failed is tried again
LAST_LOOKS = 3  # when the run is over, at what fails
STATE, LOG = "tracker.json", "tracker.log"
ROWS = {"trajectory": "eval", "steps": "train"}  # file -> what its figures are called
FIGURES = {"scores": "scores", "measurements": "measurements"}


@dataclass
class Reached:
    """Say how far a job was sent, so that the next `bench run` goes on there.

    Attributes:
        run: the tracker's own id of it.
        steps: the last step sent, by file.
    """

    run: str | None = None
    steps: dict[str, int] = field(default_factory=dict)


@dataclass
class _Followed:
    job: str
    reached: Reached
    tracker: Tracker | None = None
    outcome: str | None = None
    offsets: dict[str, int] = field(default_factory=dict)
    due: float = 0.0


class Sender:
    """Follow jobs that are at work.

    Args:
        name: the tracker's.
        suite: the suite's name.
        folder: its results.
    """

    def __init__(self, name: str, suite: str, folder: Path) -> None:
        self.name, self.suite, self.folder = name, suite, folder
        self.kind = TRACKERS[name]
        self.failures: list[str] = []
        self._followed: dict[str, _Followed] = {}
        self._kept = self._read_state()
        self._written = ""

    @property
    def idle(self) -> bool:
        """Whether all that there is was sent."""
        return not self._followed

    def begin(self, job: str) -> None:
        """Follow a job from now on."""
        known = self._kept.setdefault(job, Reached())
        self._followed.setdefault(job, _Followed(job, known)).outcome = None

    def end(self, job: str, outcome: str) -> None:
        """Send the rest of a job, and its figures, at the next look."""
        if job in self._followed:
            self._followed[job].outcome = outcome

    def end_all(self) -> None:
        """Take what is still at work for stopped: the run is over."""
        for one in self._followed.values():
            one.outcome = one.outcome or record.STOPPED

    def report(self, folder: Path) -> None:
        """Keep a report as an artifact of a run of its own."""
        tracker = self.kind(Run(self.suite, "report", "report", {}, self.folder))
        tracker.artifact(folder)
        tracker.finish(True)

    def look(self, *, hurry: bool = False) -> None:
        """Send what is new; what fails is kept, and tried again in a minute, or at the next look in a hurry."""
        for one in list(self._followed.values()):
            if one.due <= time.monotonic() or hurry:
                try:
                    self._send(one)
                except Exception as error:
                    traceback.print_exc()
                    self.failures.append(f"{type(error).__name__}: {one_line(str(error), 300)}")
                    one.due = time.monotonic() + RETRY_SECONDS
        self._write_state()

    def _send(self, one: _Followed) -> None:
        folder = self.folder / "jobs" / one.job
        if one.tracker is None:
            spec = self._spec(folder)
            if spec is None:
                if one.outcome is not None:
                    self._forget(one)
                return
            one.tracker = self.kind(self._run(one, spec))
            if one.tracker.id != one.reached.run:
                one.reached.run, one.reached.steps = one.tracker.id, {}
        for name, called in ROWS.items():
            for row, offset in _rows(folder / f"{name}.jsonl", one.offsets.get(name, 0)):
                step = row["step"]
                if step > one.reached.steps.get(name, -1):
                    one.tracker.log(step, numbers(row, called))
                    one.reached.steps[name] = step
                one.offsets[name] = offset
        if one.outcome is not None:
            complete = one.outcome == record.COMPLETE
            figures = self._figures(folder) if complete else {}
            if figures:
                one.tracker.log(max(one.reached.steps.values(), default=0), figures)
            one.tracker.finish(complete)
            self._forget(one)

    def _run(self, one: _Followed, spec: Mapping[str, Any]) -> Run:
        config = record.flat({"labels": spec.get("labels") or {}, "settings": spec.get("settings") or {}})
        return Run(self.suite, one.job, str(spec["kind"]), config, self.folder, one.reached.run or None)

    def _forget(self, one: _Followed) -> None:
        del self._followed[one.job]
        if one.outcome == record.COMPLETE or not one.reached.run:
            self._kept.pop(one.job, None)

    def _spec(self, folder: Path) -> Any:
        """Read what a job is; None while its worker has not written it, or writes it anew."""
        try:
            return record.read_json(folder / "spec.json")
        except InputError:
            return None

    def _figures(self, folder: Path) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, called in FIGURES.items():
            path = folder / f"{name}.json"
            for figure, entry in (record.read_json(path) if path.exists() else {}).items():
                found |= numbers({figure: entry["value"]}, called)
        return found

    def _read_state(self) -> dict[str, Reached]:
        """Read how far an earlier run of this folder got with this tracker; a file that is not ours is written anew."""
        try:
            found = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            return {job: Reached(**one) for job, one in found["jobs"].items()} if found["tracker"] == self.name else {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _write_state(self) -> None:
        jobs = {job: asdict(one) for job, one in self._kept.items() if one.run}
        text = json.dumps({"tracker": self.name, "jobs": jobs}, indent=1)
        if text != self._written:
            safe_files.write_text(self.folder / STATE, text + "\n")
            self._written = text


def numbers(row: Mapping[str, Any], called: str) -> dict[str, float]:
    """Return a row's numbers by name: {"losses": {"dpo": 0.7}} is train/losses/dpo; what says where it stands is left out."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if name in ("step", "phase"):
            continue
        if isinstance(value, Mapping):
            found |= numbers(value, f"{called}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{called}/{name}"] = value
    return found


def _rows(path: Path, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield whole rows from an offset, each with the offset after it; a file that was cut back is read from its begin."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(max(0, offset - 1))
        if offset and file.read(1) != b"\n":
            offset = 0
            file.seek(0)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield json.loads(line), offset


def main(events: Any, news: Connection, name: str, suite: str, folder: Path) -> None:
    """Send until told that the run is over, or the run is gone. Prints go to tracker.log."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):  # the run takes them, and tells
        signal.signal(one, signal.SIG_IGN)
    parent = os.getppid()
    with open(folder / LOG, "w", encoding="utf-8", opener=safe_files.opener) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            _serve(Sender(name, suite, folder), events, news, parent)
        except Exception as error:
            traceback.print_exc()
            _tell(news, f"{type(error).__name__}: {one_line(str(error), 300)}")
        sys.stdout.flush()
        os._exit(0)  # what a library does at the end may hang


def _serve(sender: Sender, events: Any, news: Connection, parent: int) -> None:
    while not _hear(sender, events) and os.getppid() == parent:
        sender.look()
        _pass_on(sender, news)
    sender.end_all()
    for attempt in range(LAST_LOOKS):
        if attempt:
            time.sleep(LOOK_SECONDS)
        sender.look(hurry=True)
        _pass_on(sender, news)
        if sender.idle:
            break
    sender.kind.close()


def _pass_on(sender: Sender, news: Connection) -> None:
    for failure in sender.failures:
        _tell(news, failure)
    sender.failures.clear()


def _hear(sender: Sender, events: Any) -> bool:
    """Take in what was told, for one look's time; say whether the run is over."""
    until = time.monotonic() + LOOK_SECONDS
    while (left := until - time.monotonic()) > 0:
        try:
            what, *rest = events.get(timeout=left)
        except queue.Empty:
            break
        if what == "over":
            return True
        try:
            getattr(sender, what)(*rest)
        except Exception as error:
            traceback.print_exc()
            sender.failures.append(f"{type(error).__name__}: {one_line(str(error), 300)}")
    return False


def _tell(news: Connection, line: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        news.send(line)
