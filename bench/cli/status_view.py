"""Say what became of a suite's jobs, and whether their files are as they were written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.records import record, seal
from bench.records.archive import RecordPath
from bench.records.suite_record import SuiteRecord, find_suites
from bench.run import live, states

_SHOWN = 8  # lines of a state
_UNKNOWN = "of a kind not on record"


@dataclass(frozen=True)
class Looked:
    """What a look at a suite found.

    Attributes:
        jobs: a job of the plan -> what has become of it.
        kinds: a job of the plan -> its kind.
        run: what is known of the run at work, in words; "" for none.
        broken: every broken job, also those that the present plan has no more.
        verified: how many complete jobs were compared with their sha256; None: nobody asked.
        unsealed: how many of them have none on record.
    """

    suite: SuiteRecord
    jobs: dict[str, states.State]
    kinds: dict[str, str]
    run: str
    broken: dict[str, str]
    verified: int | None = None
    unsealed: int = 0


def look(results: Path, *, verify: bool) -> list[Looked]:
    """Look at every suite of a results folder, or at an archive.

    Raises:
        InputError: there is none.
    """
    return [_look(suite, verify) for suite in find_suites(results)]


def _look(suite: SuiteRecord, verify: bool) -> Looked:
    if not verify:
        return Looked(suite, *_states(suite, suite.jobs, suite.broken), suite.broken)
    jobs: dict[str, record.Job] = {}
    broken: dict[str, str] = {}
    checkpoints: dict[str, str] = {}
    for folder in _folders(suite):
        found = seal.examine(folder, weights=True, remembered=False)
        if isinstance(found, record.Job):
            jobs[found.id] = found
            if isinstance(folder, Path) and (damaged := seal.damaged_checkpoints(folder, remembered=False)):
                checkpoints[found.id] = f"checkpoint {'; '.join(damaged.values())}; 'bench run' goes on without it"
        else:
            broken[found.job] = found.what
    complete = [job for job in jobs.values() if job.complete]
    unsealed = sum(not job.status.get("files") for job in complete)
    return Looked(suite, *_states(suite, jobs, broken), broken | checkpoints, len(complete) - unsealed, unsealed)


def _folders(suite: SuiteRecord) -> Iterator[RecordPath]:
    jobs = suite.path / "jobs"
    found: list[RecordPath] = list(jobs.iterdir()) if jobs.is_dir() else []
    yield from (one for one in sorted(found, key=lambda path: path.name) if seal.is_begun(one))


def _states(
    suite: SuiteRecord, jobs: dict[str, record.Job], broken: dict[str, str]
) -> tuple[dict[str, states.State], dict[str, str], str]:
    """Return what has become of every job, its kind, and what is known of the run at work."""
    now = live.read(suite.path) if isinstance(suite.path, Path) else live.Now()
    found, kinds = {}, {}
    planned = suite.info.get("kinds") or {}  # none in a record of an older version
    for job_id in suite.info["jobs"]:
        job = jobs.get(job_id)
        status = None if job_id in broken else job.status if job else {}
        state = states.of(job_id, status, now, begun=job is not None or job_id in broken)
        found[job_id] = states.State(state.name, broken[job_id]) if state.name == states.BROKEN else state
        kinds[job_id] = str(planned.get(job_id) or (job.kind if job else _UNKNOWN))
    return found, kinds, now.where


def _counts(one: Looked) -> dict[str, dict[str, int]]:
    """Return state -> kind -> how many jobs, in the order of states and of the plan."""
    counts = Counter((state.name, one.kinds[job]) for job, state in one.jobs.items())
    return {
        name: kinds
        for name in states.ORDER
        if (kinds := {kind: number for (state, kind), number in counts.items() if state == name})
    }


def as_dict(found: Iterable[Looked]) -> list[dict[str, Any]]:
    """Return it as JSON values."""
    made = []
    for one in found:
        checked = {} if one.verified is None else {"verified": one.verified, "without_sha256": one.unsealed}
        jobs: dict[str, list[str]] = {name: [] for name in _counts(one)}
        for job, state in one.jobs.items():
            jobs[state.name].append(job)
        made.append(
            {
                "suite": one.suite.name,
                "folder": str(one.suite.path),
                "run": one.run,
                "counts": _counts(one),
                "jobs": jobs,
                "details": {
                    job: state.detail
                    for job, state in one.jobs.items()
                    if state.name != record.COMPLETE and state.detail
                },
                "broken": one.broken,
                **checked,
            }
        )
    return made


def as_text(found: Iterable[Looked]) -> str:
    """Return it as lines, few for any number of jobs: counts, then what runs, was stopped, failed, is blocked or to do."""
    return "\n".join(line for one in found for line in _lines(one))


def _lines(one: Looked) -> Iterator[str]:
    yield f"{one.suite.path}: {states.counted(one.jobs)}" + (f" ({one.run})" if one.run else "")
    if one.suite.note:
        yield f"  {one.suite.note}"
    for name, kinds in _counts(one).items():
        yield f"  {name}: {', '.join(f'{number} {kind}' for kind, number in kinds.items())}"
    for name in states.ORDER[1:]:
        if name != states.BROKEN or one.verified is None:
            yield from _of_state(name, one)
    yield from (f"  broken: {job}: {what}" for job, what in one.broken.items() if not _is_told(one, job))
    if one.verified is not None:
        without = f"; {one.unsealed} have none on record: of an older version" if one.unsealed else ""
        yield f"  verified: {one.verified} complete jobs are as they were written, by their sha256{without}"


def _is_told(one: Looked, job: str) -> bool:
    """Say whether a broken job has been told of as one of the plan; who asks to verify is told of each by itself."""
    return one.verified is None and job in one.jobs and one.jobs[job].name == states.BROKEN


def _of_state(name: str, one: Looked) -> Iterator[str]:
    """Yield a line for all jobs of a state that have the same to say, such as the failed job that blocks them."""
    alike: dict[str, list[str]] = {}
    for job, state in one.jobs.items():
        if state.name == name:
            alike.setdefault(state.detail, []).append(job)
    groups = sorted(alike.items(), key=lambda one: -len(one[1]))
    for detail, jobs in groups[:_SHOWN]:
        more = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
        yield f"  {name}: {jobs[0]}{more}: {detail}"
    if len(groups) > _SHOWN:
        yield f"  {name}: and {sum(len(jobs) for _, jobs in groups[_SHOWN:])} more"
