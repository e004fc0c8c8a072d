"""`bench status --watch`: what has become of every job as it becomes it, until all are complete."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bench.errors import InputError, one_line
from bench.records import record, seal
from bench.records.suite_record import find_suites
from bench.run import live, states
from bench.run.states import BLOCKED, BROKEN, ORDER, RUNNING, TO_DO, State

SECONDS = 2.0
_STYLES = {RUNNING: "bold", record.FAILED: "red", BROKEN: "red", BLOCKED: "yellow", record.STOPPED: "yellow"}
_SHOWN = 8  # jobs of a kind on a terminal


@dataclass
class Seen:
    """A suite as it was at one moment.

    Attributes:
        run: what is known of the run at work, in words; "" for none.
    """

    path: Path
    jobs: dict[str, State]
    run: str = ""

    @property
    def complete(self) -> bool:
        return all(one.name == record.COMPLETE for one in self.jobs.values())

    def __str__(self) -> str:
        return f"{self.path}: {states.counted(self.jobs)}" + (f" ({self.run})" if self.run else "")


@dataclass
class Watcher:
    """Look at a results folder again and again; of a record only what has changed is read."""

    results: Path
    _statuses: dict[Path, tuple[tuple[int, int, int], dict[str, Any] | None]] = field(default_factory=dict)

    def look(self) -> list[Seen]:
        """Look at every suite.

        Raises:
            InputError: there is none in a folder.
        """
        found = [one for one in find_suites(self.results) if isinstance(one.path, Path)]
        if not found:
            raise InputError(f"{self.results}: holds archives only, in which nothing changes; leave --watch out")
        return [self._suite(one.path, one.info["jobs"]) for one in found if isinstance(one.path, Path)]

    def _suite(self, path: Path, jobs: list[str]) -> Seen:
        now = live.read(path)
        return Seen(path, {job: self._job(path / "jobs" / job, job, now) for job in jobs}, now.where)

    def _job(self, path: Path, job: str, now: live.Now) -> State:
        status = self._status(path / "status.json")
        return states.of(job, status, now, begun=bool(status) or seal.is_begun(path))

    def _status(self, path: Path) -> dict[str, Any] | None:
        """Read a status; {} where there is none, None where it cannot be read."""
        try:
            stat = path.stat()
        except OSError:
            return {}
        stamp = stat.st_mtime_ns, stat.st_size, stat.st_ino
        if path not in self._statuses or self._statuses[path][0] != stamp:
            try:
                value = json.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                return {}
            except (OSError, ValueError):
                value = None
            self._statuses[path] = stamp, value if isinstance(value, dict) else None
        return self._statuses[path][1]


def watch(results: Path, console: Console, seconds: float = SECONDS) -> None:
    """Show what becomes of the jobs until all are complete, or until Ctrl-C: drawn anew on a terminal, else a line an event.

    Raises:
        InputError: there is no suite in the folder.
    """
    watcher = Watcher(results)
    seen = watcher.look()
    try:
        if console.is_terminal:
            _draw(watcher, seen, console, seconds)
        else:
            _tell(watcher, seen, console, seconds)
    except KeyboardInterrupt:
        return


def _looks(watcher: Watcher, seen: list[Seen], seconds: float) -> Iterator[list[Seen]]:
    """Yield what is seen again and again, until all is complete."""
    while not all(one.complete for one in seen):
        time.sleep(seconds)
        try:
            seen = watcher.look()
        except InputError:  # moved, or being written: what was seen last stands
            continue
        yield seen


def _draw(watcher: Watcher, seen: list[Seen], console: Console, seconds: float) -> None:
    with Live(_shown(seen), console=console, auto_refresh=False) as drawn:
        for found in _looks(watcher, seen, seconds):
            drawn.update(_shown(found), refresh=True)


def _shown(seen: list[Seen]) -> Group:
    return Group(*(line for one in seen for line in _lines(one)))


def _lines(one: Seen) -> Iterator[Text]:
    yield Text(str(one), style="cyan", overflow="ellipsis", no_wrap=True)
    for name in ORDER[1:]:
        jobs = [(job, state) for job, state in one.jobs.items() if state.name == name]
        for job, state in jobs[:_SHOWN]:
            yield Text(
                f"  {name:<8} {job}  {state.detail}", _STYLES.get(name, "dim"), overflow="ellipsis", no_wrap=True
            )
        if len(jobs) > _SHOWN:
            yield Text(f"  {name:<8} and {len(jobs) - _SHOWN} more", "dim")


def _tell(watcher: Watcher, seen: list[Seen], console: Console, seconds: float) -> None:
    """Print how things stand, then a line whenever a job becomes something else."""
    for one in seen:
        _print(console, str(one))
        for job, state in one.jobs.items():
            if state.name not in (record.COMPLETE, TO_DO):
                _print(console, f"{one.path.name}: {job}: {state.name}: {state.detail}")
    known = {one.path: one for one in seen}
    for found in _looks(watcher, seen, seconds):
        for one in found:
            before = known.get(one.path)
            if before is None:
                _print(console, str(one))
            else:
                for line in _events(before, one):
                    _print(console, f"{datetime.now().astimezone():%H:%M:%S} {one.path.name}: {line}")
            if one.complete and not (before and before.complete):
                _print(console, str(one))
            known[one.path] = one


def _events(before: Seen, now: Seen) -> Iterator[str]:
    """Yield what jobs have become since; a step, or another job that is waited for, is no event."""
    nothing = State(TO_DO)
    for job, state in now.jobs.items():
        if state.name != before.jobs.get(job, nothing).name:
            again = " again" if state.name == TO_DO else ""
            shown = state.detail and f"{' ' if state.name == record.COMPLETE else ': '}{state.detail}"
            yield f"{job}: {state.name}{again}{shown}"


def _print(console: Console, line: str) -> None:
    console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)
