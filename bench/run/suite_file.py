"""suite.json: what a folder of results is of. Records go by the suite's present labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.plan.plan import Plan
from bench.records import record


def write_suite(
    plan: Plan, folder: Path, threads: int | None = None, labels: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write suite.json: the resolved suite, the jobs of its plan and their kinds, and the threads that each is computed with.

    Args:
        plan: the suite's.
        folder: its results.
        threads: of a job.
        labels: those of records, as far as they are known; the others are read.
    """
    from bench import __version__
    from bench.run import environment, shipped

    produced = {
        "version": __version__,
        "commit": environment.commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    value = {
        "schema": record.SCHEMA,
        "name": plan.suite.name,
        "smoke": plan.suite.smoke,
        "suite": plan.suite.model_dump(mode="json"),
        "changes_of_shipped": shipped.changes(plan.suite),
        "jobs": list(plan.jobs),
        "kinds": {job.id: job.kind for job in plan.jobs.values()},
        "produced": produced,
        **({"threads": threads} if threads else {}),
    }
    record.write_json(folder / "suite.json", value)
    _relabel(plan, folder, labels or {})


def _relabel(plan: Plan, folder: Path, known: Mapping[str, Mapping[str, Any]]) -> None:
    """Have jobs on record go by the suite's present labels, which are no part of what makes them."""
    for job in plan.jobs.values():
        path = folder / "jobs" / job.id / "spec.json"
        if job.labels is None or _same(known.get(job.id), job.labels.as_dict()):
            continue
        if path.exists():
            try:
                spec = record.read_json(path)
            except InputError:  # found damaged in a moment, and made again
                continue
            labels = json.loads(json.dumps(job.labels.as_dict()))
            if spec.get("labels") != labels:
                record.write_json(path, spec | {"labels": labels})


def _same(known: Mapping[str, Any] | None, labels: Mapping[str, Any]) -> bool:
    """Compare labels of a record with a plan's, as JSON has them."""
    return known is not None and known == json.loads(json.dumps(labels))
