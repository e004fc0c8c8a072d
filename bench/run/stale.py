"""What an upgrade made stale: complete jobs of a folder in whose place the plan has others, and what differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.plan.identity import SEMANTICS
from bench.plan.plan import Plan
from bench.records import record
from bench.records.spec import JobSpec
from bench.suite.suite import Experiment, Suite

_SHOWN = 3  # settings named in a reason


@dataclass(frozen=True)
class Stale:
    """Complete jobs that count no longer, for one reason."""

    reason: str
    jobs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.jobs)} complete {'job is' if len(self.jobs) == 1 else 'jobs are'} stale: {self.reason}"


def find(plan: Plan, folder: Path) -> list[Stale]:
    """Compare a folder's complete jobs with the planned ones of the same name.

    A planned job that is complete replaces its forerunners; what the plan has nothing of is not wanted, and not stale. Of
    a job that differs in its inputs alone the reason is that of the input.
    """
    complete = {job.id: job for job in _complete(folder)}
    by_slug = {_slug(job_id): job for job_id, job in plan.jobs.items() if job_id not in complete}
    latest: dict[str, record.Job] = {}
    for job in complete.values():
        slug = _slug(job.id)
        if job.id not in plan.jobs and slug in by_slug:
            latest[slug] = max(job, latest.get(slug, job), key=lambda one: str(one.status.get("finished", "")))
    keys = _Keys(plan.suite)
    reasons: dict[str, str] = {}
    for slug, planned in by_slug.items():  # in the plan's order: an input stands before what it goes into
        if slug in latest:
            reasons[slug] = _reason(latest[slug].spec, planned, reasons, keys)
    grouped: dict[str, list[str]] = {}
    for slug, reason in reasons.items():
        grouped.setdefault(reason, []).append(latest[slug].id)
    return [Stale(reason, tuple(jobs)) for reason, jobs in grouped.items()]


def _complete(folder: Path) -> Iterator[record.Job]:
    for path in sorted((folder / "jobs").glob("*/spec.json")):
        try:
            job = record.read_job(path.parent)
            if job.complete:
                yield job
        except InputError:  # not a record that this version reads
            continue


def _slug(job_id: str) -> str:
    return job_id.rpartition("-")[0]


class _Keys:
    """Say which of a suite's keys a setting of a job is."""

    def __init__(self, suite: Experiment) -> None:
        chosen = suite.evaluation.chosen if isinstance(suite, Suite) else {}
        self._of_kind = {stage.kind: (name, stage) for name, one in chosen.items() for stage in one.stages()}
        dumped = {name: one.options.model_dump(mode="json") for name, one in chosen.items()}
        self._options = {name: list(record.flat(options)) for name, options in dumped.items()}

    def of(self, kind: str, setting: str) -> str:
        """Name a setting as the suite does: those of an evaluator's stage stand somewhere below its own key."""
        name, stage = self._of_kind.get(kind, ("", None))
        if stage is None or setting.split(".")[0] not in stage.settings:
            return setting
        own = setting.removeprefix(f"{name}.")
        found = [key for key in self._options[name] if key == own or key.endswith(f".{own}")]
        return f"evaluation.{name}.{found[0] if len(found) == 1 else own}"


def _reason(spec: Mapping[str, Any], job: JobSpec, reasons: Mapping[str, str], keys: _Keys) -> str:
    """Say what differs between a job on record and the planned one of the same name."""
    found = [
        *_plugins(spec.get("plugins", ()), job.plugins),
        *([f"semantics {spec.get('semantics')} → {SEMANTICS}"] if spec.get("semantics") != SEMANTICS else []),
        *(_moved(name, spec["data"].get(name), one) for name, one in job.data.items() if spec["data"].get(name) != one),
        *_settings(spec["settings"], json.loads(json.dumps(job.settings)), partial(keys.of, job.kind)),
    ]
    if found:
        return ", ".join(found)
    changed = (_slug(one) for name, one in job.inputs.as_dict().items() if spec["inputs"].get(name) != one)
    return next((reasons[slug] for slug in changed if slug in reasons), "a job that goes into them is another one")


def _moved(name: str, old: str | None, new: str) -> str:
    """Say that data are others: of the hub, from which commit to which."""
    if old is not None and old.startswith("hub:") and new.startswith("hub:"):
        return f"data.{name} {old} → {new}"
    return f"data.{name} has changed"


def _plugins(old: Any, new: Any) -> Iterator[str]:
    before, after = ({one["distribution"]: one for one in every} for every in (old, new))
    for name in dict.fromkeys([*before, *after]):
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            yield f"{name} {'no longer makes' if other is None else 'now makes'} their numbers"
        elif one["version"] != other["version"]:
            yield f"{name} {one['version']} → {other['version']}"
        elif one["source"] != other["source"]:
            yield f"{name} {one['version']}: its source has changed"


def _settings(old: Mapping[str, Any], new: Mapping[str, Any], key: Callable[[str], str]) -> list[str]:
    before, after = (record.flat(one) for one in (old, new))
    nothing = object()
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name, nothing) != after.get(name, nothing)]
    shown = [f"{key(name)} {_value(before, name)} → {_value(after, name)}" for name in names[:_SHOWN]]
    return shown + ([f"{len(names) - _SHOWN} more settings"] if len(names) > _SHOWN else [])


def _value(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False) if name in settings else "nothing"
