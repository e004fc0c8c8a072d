"""Say what became of a suite's jobs, and whether their files are as they were written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.records import record, seal
from bench.records.archive import RecordPath
from bench.records.suite_record import SuiteRecord, find_suites

BROKEN, UNDONE = "broken", "not complete"


@dataclass(frozen=True)
class Looked:
    """What a look at a suite found.

    Attributes:
        jobs: outcome -> ids of the plan's jobs.
        messages: a failed or broken job's id -> why.
        broken: every broken job, also those that the present plan has no more.
        verified: how many complete jobs were compared with their sha256; None: nobody asked.
        unsealed: how many of them have none on record.
    """

    suite: SuiteRecord
    jobs: dict[str, list[str]]
    messages: dict[str, str]
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
        return Looked(suite, *_outcomes(suite, suite.jobs, suite.broken), broken=suite.broken)
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
    outcomes = _outcomes(suite, jobs, broken)
    return Looked(suite, *outcomes, broken | checkpoints, len(complete) - unsealed, unsealed)


def _folders(suite: SuiteRecord) -> Iterator[RecordPath]:
    jobs = suite.path / "jobs"
    found: list[RecordPath] = list(jobs.iterdir()) if jobs.is_dir() else []
    yield from (one for one in sorted(found, key=lambda path: path.name) if seal.is_begun(one))


def _outcomes(
    suite: SuiteRecord, jobs: dict[str, record.Job], broken: dict[str, str]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    outcomes: dict[str, list[str]] = {}
    messages = {}
    for job_id in suite.info["jobs"]:
        job = jobs.get(job_id)
        outcome = BROKEN if job_id in broken else (job.status["outcome"] if job else None) or UNDONE
        outcomes.setdefault(outcome, []).append(job_id)
        if job is not None and outcome == record.FAILED:
            messages[job_id] = str(job.status.get("message", ""))
    return outcomes, messages


def as_dict(found: Iterable[Looked]) -> list[dict[str, Any]]:
    """Return it as JSON values."""
    made = []
    for one in found:
        checked = {} if one.verified is None else {"verified": one.verified, "without_sha256": one.unsealed}
        made.append(
            {"suite": one.suite.name, "folder": str(one.suite.path), "jobs": one.jobs, "broken": one.broken, **checked}
        )
    return made


def as_text(found: Iterable[Looked]) -> str:
    """Return it as lines."""
    return "\n".join(line for one in found for line in _lines(one))


def _lines(one: Looked) -> Iterator[str]:
    counts = ", ".join(f"{len(ids)} {name}" for name, ids in one.jobs.items())
    yield f"{one.suite.path}: {len(one.suite.info['jobs'])} jobs: {counts}"
    if one.suite.note:
        yield f"  {one.suite.note}"
    yield from (f"  failed: {job}: {message}" for job, message in one.messages.items())
    yield from (f"  broken: {job}: {what}" for job, what in one.broken.items())
    if one.verified is not None:
        without = f"; {one.unsealed} have none on record: of an older version" if one.unsealed else ""
        yield f"  verified: {one.verified} complete jobs are as they were written, by their sha256{without}"
