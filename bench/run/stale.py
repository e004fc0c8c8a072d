"""What an upgrade made stale: complete jobs of a folder in whose place the plan has others, and what differs."""

from __future__ import annotations

import json
import re
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
    by_slug: dict[str, list[JobSpec]] = {}
    for job_id, planned in plan.jobs.items():
        if job_id not in complete:
            by_slug.setdefault(_slug(job_id), []).append(planned)
    latest: dict[str, record.Job] = {}
    for job in complete.values():
        if job.id not in plan.jobs and (follows := _in_its_place(job, by_slug.get(_slug(job.id), []))):
            latest[follows] = max(job, latest.get(follows, job), key=lambda one: str(one.status.get("finished", "")))
    keys = _Keys(plan.suite)
    reasons: dict[str, str] = {}
    for job_id, planned in plan.jobs.items():  # an input stands before what it goes into
        if job_id in latest:
            reasons[job_id] = _reason(latest[job_id].spec, planned, reasons, keys)
    grouped: dict[str, list[str]] = {}
    for job_id, reason in reasons.items():
        grouped.setdefault(reason, []).append(latest[job_id].id)
    return [Stale(reason, tuple(jobs)) for reason, jobs in grouped.items()]


def _in_its_place(job: record.Job, planned: list[JobSpec]) -> str:
    """Return which of the planned jobs of a name is there instead of a complete one; "" where there is none.

    The judgings of a policy by several judges share a name: it is the same judge's, else the first.
    """
    same = (one.id for one in planned if one.labels and one.labels.as_dict().get("judge") == job.labels.get("judge"))
    return next(same, planned[0].id if planned else "")


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
        self._of_stage = {
            (stage.kind, stage.shown_name): (name, stage) for name, one in chosen.items() for stage in one.stages()
        }
        dumped = {name: one.options.model_dump(mode="json") for name, one in chosen.items()}
        self._options = {name: record.flat(_by_place(options)) for name, options in dumped.items()}

    def of(self, which: tuple[str, str], setting: str) -> str:
        """Name a setting as the suite does: those of an evaluator's stage stand somewhere below its own key."""
        name, stage = self._of_stage.get(which, ("", None))
        if stage is None or setting.split(".")[0] not in stage.settings:
            return setting
        own, options = setting.removeprefix(f"{name}."), self._options[name]
        found = [key for key in options if key == own or key.endswith(f".{own}")]
        if len(found) > 1:  # of several judges the one that is meant, or all of them
            value = record.flat(stage.settings).get(setting)
            found = [key for key in found if options[key] == value]
            found = found if len(found) == 1 else list({re.sub(r"\[\d+\]", "", key) for key in found})
        return f"evaluation.{name}.{found[0] if len(found) == 1 else own}"


def _by_place(options: Mapping[str, Any]) -> dict[str, Any]:
    """Put the entries of a list of mappings under the list's name and their places, `judge[1]`."""
    made: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            made |= {f"{name}[{place}]": one for place, one in enumerate(value)}
        else:
            made[name] = value
    return made


def _reason(spec: Mapping[str, Any], job: JobSpec, reasons: Mapping[str, str], keys: _Keys) -> str:
    """Say what differs between a job on record and the planned one of the same name."""
    found = [
        *_plugins(spec.get("plugins", ()), job.plugins),
        *([f"semantics {spec.get('semantics')} → {SEMANTICS}"] if spec.get("semantics") != SEMANTICS else []),
        *(_moved(name, spec["data"].get(name), one) for name, one in job.data.items() if spec["data"].get(name) != one),
        *_settings(spec["settings"], json.loads(json.dumps(job.settings)), partial(keys.of, (job.kind, job.stage))),
    ]
    if found:
        return ", ".join(found)
    changed = (one for name, one in job.inputs.as_dict().items() if spec["inputs"].get(name) != one)
    return next((reasons[one] for one in changed if one in reasons), "a job that goes into them is another one")


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
