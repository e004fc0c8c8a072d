"""Take over what other suites of the same results folder made already: jobs of equal id are the same job.

Weights and checkpoints are linked where the file system can, so that they lie on the disk once; records are copied, since each
suite goes on with its own. What is taken over is compared with its sha256, and spec.json says whose it was.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.plan.plan import Plan
from bench.records import record, safe_files, seal
from bench.records.spec import JobSpec
from bench.run import standing, thread_counts

_LINKED = ("adapter", "model", "checkpoints")  # written under new names only, so that no suite changes another's
_OWN = ("spec.json", "log.txt")  # written anew, or appended to
_PAID = "journal.jsonl"
_Take = Callable[[JobSpec, Plan, Path, Path], bool]


@dataclass
class Taken:
    """What was taken over.

    Attributes:
        jobs: a job's id -> the suite it is from.
        notes: what could have been and was not, and why.
    """

    jobs: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def take_over(plan: Plan, folder: Path, wanted: Iterable[str], threads: int) -> Taken:
    """Take over the wanted jobs that a suite beside this one has made.

    Args:
        plan: the suite's.
        folder: the suite's results; others lie beside it.
        wanted: jobs that are to be done.
        threads: of this folder's jobs; another number computes other last digits, and such jobs are left where they are.

    Raises:
        InputError: another run holds this folder.
    """
    if not _others(folder, wanted := set(wanted)):
        return Taken()
    with standing.held(folder):
        return _from_others(plan, folder, wanted, threads, _take)


def would_take(plan: Plan, folder: Path, wanted: Iterable[str], threads: int) -> Taken:
    """Say what `take_over` would take over by now; nothing is written, and no folder held."""
    return _from_others(plan, folder, set(wanted), threads, _would_take)


def _from_others(plan: Plan, folder: Path, left: set[str], threads: int, take: _Take) -> Taken:
    """Go through the suites beside a folder, and `take` from each what is left of the wanted jobs."""
    taken = Taken()
    for other in _others(folder, left):
        found = [one for one in plan.jobs if one in left & _names(other)]
        kept = thread_counts.kept(other)
        differs = kept is not None and kept != threads
        computed = [one for one in found if differs and _computes(plan.jobs[one])]
        if computed:
            taken.notes.append(
                f"{other.name} has {_jobs(len(computed))} of this suite, made with {kept} "
                f"{'thread' if kept == 1 else 'threads'} a job: made again with {threads} (--threads {kept} takes them over)"
            )
        for job_id in found:
            if job_id not in computed and take(plan.jobs[job_id], plan, folder, other):
                taken.jobs[job_id] = other.name
                left.discard(job_id)
    return taken


def _others(folder: Path, wanted: set[str]) -> list[Path]:
    """Return the folders of the suites beside this one that have a folder of a wanted job."""
    return [one for one in _beside(folder) if wanted & _names(one)] if wanted else []


def _jobs(count: int) -> str:
    return f"{count} job{'s' if count != 1 else ''}"


def _computes(job: JobSpec) -> bool:
    """Say whether a job's last digits hang on its threads."""
    return not (job.kind == "toy" or job.resources.network_only)


def _beside(folder: Path) -> Iterator[Path]:
    """Yield the folders of the other suites."""
    for path in sorted(folder.absolute().parent.glob("*/jobs")):
        if path.is_dir() and not path.is_symlink() and path.parent.name != folder.name:
            yield path.parent


def _names(suite: Path) -> set[str]:
    with os.scandir(suite / "jobs") as entries:
        return {one.name for one in entries}


def _take(job: JobSpec, plan: Plan, folder: Path, other: Path) -> bool:
    """Take one job over; say whether it was there, complete, sound and with its weights."""
    source, target = other / "jobs" / job.id, folder / "jobs" / job.id
    if not _may_be_taken(job, source, target):
        return False
    safe_files.own_folder(target.parent)
    with safe_files.temporary_folder(target) as temporary:
        made = temporary / job.id
        try:
            linked = _copy(source, made)
            record.write_json(
                made / "spec.json", _spec(record.read_json(source / "spec.json"), job, plan, other, linked)
            )
        except (OSError, InputError):  # changed in the meantime, or a full disk: it is made as if it had not been there
            return False
        if not _is_sound(made):
            return False
        for path in seal.damaged_checkpoints(made):
            seal.delete_checkpoint(path)
        if target.exists():
            shutil.rmtree(target)
        made.replace(target)
    safe_files.flush_folder(target.parent)
    return True


def _would_take(job: JobSpec, _: Plan, folder: Path, other: Path) -> bool:
    """Say whether `_take` would take a job over, as far as reading tells."""
    source = other / "jobs" / job.id
    return _may_be_taken(job, source, folder / "jobs" / job.id) and _is_sound(source)


def _may_be_taken(job: JobSpec, source: Path, target: Path) -> bool:
    """Say whether a job may be taken over: what was paid for here stays, and there it has to be complete."""
    return not (target / _PAID).exists() and _is_to_be_had(job, source)


def _is_sound(path: Path) -> bool:
    found = seal.examine(path, weights=True, thorough=False)
    return not isinstance(found, seal.Damage) and found.complete


def _is_to_be_had(job: JobSpec, source: Path) -> bool:
    """Say whether a folder claims to hold a job, complete, sealed and with the weights that it made."""
    try:
        if source.is_symlink() or not (source / "status.json").is_file():
            return False
        found = record.read_job(source)
        files = found.status.get("files") if found.complete else None
    except InputError:
        return False
    if not files or not _is_same(found.spec, job):
        return False
    weights = {name.split("/")[0] for name in files} & set(_LINKED)
    return weights <= set(seal.weights_in(source))


def _is_same(spec: dict[str, Any], job: JobSpec) -> bool:
    """Compare all that an id is made of: a folder's name alone proves nothing. An optimum is followed more closely than a run."""
    settings = json.loads(json.dumps(job.settings))
    same = (spec["kind"], spec["settings"], spec["inputs"], spec["data"])
    optima = {role for role in job.roles if role.startswith("optimum")}
    return same == (job.kind, settings, job.inputs.as_dict(), job.data) and optima <= set(spec["roles"])


def _copy(source: Path, target: Path) -> bool:
    """Copy a job's folder, without links in it and what its next writer begins anew; say whether weights could be linked."""
    linked = True
    target.mkdir()
    with os.scandir(source) as entries:
        every = [one for one in entries if not one.name.startswith(".") and one.name not in _OWN]
    for entry in every:
        path = Path(entry.path)
        if entry.is_file(follow_symlinks=False):
            shutil.copy2(path, target / path.name)
        elif entry.is_dir(follow_symlinks=False):
            for file in (one for one in path.rglob("*") if one.is_file() and not one.is_symlink()):
                into = target / file.relative_to(source)
                into.parent.mkdir(parents=True, exist_ok=True)
                linked = _link(file, into, may=path.name in _LINKED) and linked
    return linked


def _link(file: Path, into: Path, *, may: bool) -> bool:
    if may:
        try:
            os.link(file, into)
            return True
        except OSError:  # another disk, or a file system without links
            pass
    shutil.copy2(file, into)
    return not may


def _spec(spec: dict[str, Any], job: JobSpec, plan: Plan, other: Path, linked: bool) -> dict[str, Any]:
    """Return a record's spec as this suite's: who made it, where and when stays; what the job is called and for is ours."""
    return spec | {
        "suite": plan.suite.name,
        "roles": list(job.roles),
        "labels": job.labels.as_dict() if job.labels else {},
        "prefix": {"job": job.prefix.job, "step": job.prefix.step} if job.prefix else None,
        "taken_over": {
            # Of a record that was itself taken over, the suite that made it.
            "from": spec.get("taken_over", {}).get("from", other.name),
            "weights": "linked" if linked else "copied",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
