"""`bench run`: one suite, or several one after another that share what they have in common."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.loading import located, planned, warn
from bench.errors import BenchError, DiskFull, InputError, Interrupted, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from bench.plan.plan import Plan
    from bench.run.execute import Summary
    from bench.run.pool import Pool
    from bench.run.standing import Standing
    from bench.suite.suite import Experiment
    from bench.trackers.tracking import Tracking


@dataclass(frozen=True)
class Asked:
    """What was asked for besides the suites, as the options of `bench run` say."""

    results: Path
    mirror: Path | None
    overrides: list[str] | None
    only: str | None
    workers: int | None
    threads: int | None
    engine: str
    smoke: bool
    as_json: bool


@dataclass
class _Part:
    """One suite of a call.

    Attributes:
        name: as the user gave it.
        taken: jobs that were taken over from other suites, and whose they are.
        found: what stood in its folder when that was last looked at.
        ended: what became of it, or the error that ended it; None: not begun.
    """

    name: str
    plan: Plan
    folder: Path
    selected: set[str]
    pool: Pool
    taken: dict[str, str] = field(default_factory=dict)
    found: Standing | None = None
    ended: Summary | BenchError | None = None

    def code(self) -> int:
        """Return its exit code."""
        from bench.run import execute

        if isinstance(self.ended, BenchError):
            return self.ended.exit_code
        return 0 if self.ended is None else execute.exit_code(self.ended)


def run(suites: list[str], asked: Asked) -> int:
    """Run suites one after another; return the worst of their exit codes.

    All are planned and checked before the first one trains anything. What one of them makes is taken over by those after it.

    Raises:
        BenchError: what was asked for cannot be done; of a single suite also whatever ended it.
        Interrupted, DiskFull: what ends one suite ends them all.
    """
    from rich.console import Console

    console = Console(stderr=asked.as_json)
    parts = _parts(suites, asked, console)
    _check(parts, asked, console)
    try:
        for place, part in enumerate(parts, 1):
            which = f" of suite {place} of {len(parts)}" if len(parts) > 1 else ""
            _run(part, console, look=place > 1, which=which)
            if isinstance(part.ended, BenchError) and (len(parts) == 1 or _ends_all(part.ended)):
                raise part.ended
    finally:
        _tell(parts, asked, console)
    return max(part.code() for part in parts)


def _ends_all(error: BenchError) -> bool:
    return isinstance(error, Interrupted | DiskFull)


def _parts(suites: list[str], asked: Asked, console: Console) -> list[_Part]:
    """Plan every suite.

    Raises:
        InputError: two are the same, or --only matches no job of any.
    """
    from bench import trackers
    from bench.run import pools, standing

    plans: dict[str, Plan] = {}
    named: dict[str, str] = {}
    for one in suites:
        plan = planned(one, asked.overrides, asked.mirror, asked.smoke)
        if plan.suite.tracker is not None:
            trackers.check(plan.suite.tracker)
        if plan.suite.name in plans:
            raise InputError(
                f"{one}: its name is {plan.suite.name}, as that of {named[plan.suite.name]}, and their results would go to "
                "one folder; give each suite once, and each file a name of its own"
            )
        plans[plan.suite.name], named[plan.suite.name] = plan, one
    parts, nothing = [], None
    for name, plan in plans.items():
        folder = asked.results / name
        try:
            selected = standing.select(plan, asked.only)
        except InputError as error:
            nothing = error
            continue
        pool = pools.make(
            asked.engine, plan.suite, folder, asked.mirror, asked.workers, asked.threads, tell=partial(_show, console)
        )
        parts.append(_Part(named[name], plan, folder, selected, pool))
    if nothing and not parts:
        raise nothing
    return parts


def _check(parts: list[_Part], asked: Asked, console: Console) -> None:
    """Refuse before anything is trained what is known to fail later; what an earlier suite will have made is not asked for."""
    from bench.run import execute, preflight, space, standing

    coming: set[str] = set()
    others = 0
    for part in parts:
        found, pending = _look(part, console)
        for job_id, what in found.damaged.items():
            _show(console, f"{job_id}: found damaged: {what}")
        own = pending - coming
        if pending:
            part.pool.check([part.plan.jobs[job_id] for job_id in pending])
        others += space.check(part.plan, part.folder, own, part.pool.size, others)
        with located(part.name, asked.overrides, asked.smoke):
            preflight.check(part.plan.suite)
            before = {one.plan.suite.name: one.plan for one in parts[: parts.index(part)]}
            _preflight(part, own, before, asked.mirror, console)
        coming |= pending
    for part in parts if len(parts) > 1 else ():  # `bench status` then knows what is still to come
        with standing.held(part.folder):
            execute.write_suite(part.plan, part.folder, part.pool.threads)


def _look(part: _Part, console: Console) -> tuple[Standing, set[str]]:
    """Take over what others have made by now; return what stands in the suite's folder, and what is to be done."""
    from bench.run import sharing, standing

    found = standing.look(part.plan, part.folder)
    pending = standing.to_do(part.plan, part.folder, part.selected, found.states)
    taken = sharing.take_over(part.plan, part.folder, pending, part.pool.threads)
    for note in taken.notes:
        _show(console, f"{part.plan.suite.name}: {note}")
    if taken.jobs:
        part.taken |= taken.jobs
        found = standing.look(part.plan, part.folder, found)
        pending = standing.to_do(part.plan, part.folder, part.selected, found.states)
    part.found = found
    return found, pending


def _preflight(part: _Part, pending: set[str], before: dict[str, Plan], mirror: Path | None, console: Console) -> None:
    """Find out before anything is trained what would fail hours later."""
    from bench.run import inputs, preflight

    plan = part.plan
    warn(plan.suite)
    if not pending:
        return
    for job in (plan.jobs[job_id] for job_id in pending):
        if job.kind == "adopt":
            suite, _, adopted = job.run_labels.method.partition("/")
            if suite not in before or adopted not in before[suite].jobs:
                inputs.adopted(job, part.folder)
    preflight.check_hub(plan.suite, mirror)
    for line in preflight.check_data(plan.suite, mirror):
        print(f"bench: warning: {one_line(line)}", file=sys.stderr)
    kinds = {name for job_id in pending for name in (plan.jobs[job_id].kind, plan.jobs[job_id].stage) if name}
    for line in preflight.try_out(plan.suite, kinds, part.folder, mirror):
        console.print(line, highlight=False)


def _run(part: _Part, console: Console, *, look: bool, which: str) -> None:
    """Run one suite.

    Args:
        look: whether to look again before, as much may have been made since all were looked at.
        which: of several suites, for the time left, which is this one's.
    """
    from bench.cli.progress import Progress
    from bench.run import execute, listeners, standing
    from bench.run.estimates import past
    from bench.run.estimates.time_left import TimeLeft

    try:
        if look:
            _look(part, console)
        assert part.found is not None
        pending = standing.to_do(part.plan, part.folder, part.selected, part.found.states)
        taken = f", {len(part.taken)} of them taken over from {_named(part.taken.values())}" if part.taken else ""
        console.print(
            f"{part.plan.suite.name}: {len(part.selected)} jobs, {len(part.selected) - len(pending)} complete{taken}, "
            f"{len(pending)} to do on {part.pool.size} {'worker' if part.pool.size == 1 else 'workers'}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        with _tracking(part.plan.suite, part.folder, console) as tracking:
            earlier = (
                past.read(part.folder.parent, past.this_machine(part.pool.threads), part.plan)
                if pending
                else past.Past()
            )
            time_left = TimeLeft(part.plan, pending, part.pool.size, earlier.took)
            with Progress(len(pending), time_left, console, which) as progress:
                both = listeners.Listeners(progress, *([tracking] if tracking else []))
                execution = execute.Execution(part.plan, part.folder, both, part.pool, part.taken, part.found)
                part.ended = summary = execution.run(part.selected)
            if tracking and summary.made:
                _send_report(tracking, part.folder)
    except BenchError as error:
        part.ended = error


def _tracking(suite: Experiment, folder: Path, console: Console) -> AbstractContextManager[Tracking | None]:
    """Return what tells the suite's tracker of a run; None without one."""
    from bench.trackers.tracking import Tracking

    if suite.tracker is None:
        return nullcontext()
    return Tracking(suite.tracker, suite.name, folder, lambda line: _show(console, f"warning: {line}"))


def _send_report(tracking: Tracking, folder: Path) -> None:
    """Write the report as it stands for the tracker, which keeps it as an artifact."""
    from report import build

    if tracking.keeps_reports:
        with tracking.sending() as made:
            build.build(folder, made)


def _tell(parts: list[_Part], asked: Asked, console: Console) -> None:
    """Print one last line a suite; an error that ends the command is told at its end."""
    from bench.run import execute

    ended = [part for part in parts if isinstance(part.ended, execute.Summary)]
    if asked.as_json and ended:
        found = [_as_json(part) for part in parts if part.ended is not None]
        print(json.dumps(found if len(parts) > 1 else found[0], indent=1))
    for part in parts:
        if isinstance(part.ended, execute.Summary):
            line = _last_line(part.ended, part.folder, asked.results)
        elif len(parts) == 1 or (part.ended is not None and _ends_all(part.ended)):
            continue
        else:
            line = f"{part.folder}: {one_line(str(part.ended)) if part.ended else 'not begun'}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show(console: Console, line: str) -> None:
    console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)


def _named(suites: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(suites))


def _last_line(summary: Summary, folder: Path, results: Path) -> str:
    parts = [f"{len(summary.made)} made", f"{len(summary.skipped)} already complete"]
    if summary.taken_over:
        parts.append(f"{len(summary.taken_over)} taken over from {_named(summary.taken_over.values())}")
    if summary.failed:
        parts.append(f"{len(summary.failed)} FAILED ({', '.join(list(summary.failed)[:3])})")
    if summary.blocked:
        parts.append(f"{len(summary.blocked)} not run because a job they need failed")
    if summary.retried:
        parts.append(f"{len(summary.retried)} tried again")
    lines = [f"{folder}: {', '.join(parts)}. Next: bench report {results}"]
    if summary.damaged:
        named = "; ".join(f"{job} ({what[0]})" for job, what in list(summary.damaged.items())[:3])
        more = f"; and {len(summary.damaged) - 3} more" if len(summary.damaged) > 3 else ""
        lines.insert(0, f"Found damaged, and made up for: {named}{more}.")
    return "\n".join(lines)


def _as_json(part: _Part) -> dict[str, Any]:
    made: dict[str, Any] = {"schema": 1, "folder": str(part.folder)}
    if isinstance(part.ended, BenchError):
        return made | {"error": str(part.ended), "exit_code": part.ended.exit_code}
    return made | vars(part.ended)
