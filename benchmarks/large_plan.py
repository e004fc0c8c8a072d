"""A campaign of 5,000 jobs: how long its plan, its walk and its resumption take beside the jobs themselves."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.commands import run_command
from benchmarks.rows import Context, Row, at_most
from benchmarks.timing import alternate

JOBS = 5000
# Shorter than any job that trains or evaluates a model of use.
_JOB_SECONDS = 1.0


def rows(context: Context) -> Iterator[Row]:
    """Measure a plan by its command, a walk on workers that end every job at once, and a run that has nothing to do."""
    folder = context.folder("large_plan")
    times = 3 if context.quick else 7
    models, toys = folder / "large.json", folder / "toys.json"
    models.write_text(json.dumps(_models()), encoding="utf-8")
    toys.write_text(json.dumps(_toys()), encoding="utf-8")
    for name, work in (("", "as shipped"), ("authors", "each joint run naming its seed's front")):
        yield _walk(context, folder, name, work, times)
    context.say(f"bench plan of {JOBS:,} jobs, {times} times")
    planned = alternate(
        {"ours": lambda: run_command(["plan", str(models), "--results", str(folder / "none")])["seconds"]}, times
    )
    yield Row(f"`bench plan` of a suite of about {JOBS:,} jobs", "", planned["ours"], unit="s", goal=at_most(2.0))
    made = _make_records(context, toys, folder / "results")
    context.say(f"bench run of {made:,} jobs that are complete, {times} times")
    resumed = alternate(
        {"ours": lambda: run_command(["run", str(toys), "--results", str(folder / "results")])["seconds"]}, times
    )
    yield Row(
        f"`bench run` of {made:,} jobs, all complete: every record is read and compared with its sha256",
        "",
        resumed["ours"],
        unit="s",
        goal=at_most(5.0),
        notes=[
            "Records are those of a toy suite, six files a job; commands are clocked from start to end of their process."
        ],
    )


def _walk(context: Context, folder: Path, rule: str, work: str, times: int) -> Row:
    """Walk a plan on workers that end every job at once."""
    from bench.plan import planner
    from bench.suite import yaml_file

    file = folder / "walked.json"
    file.write_text(json.dumps(_models(rule)), encoding="utf-8")
    plan = planner.make(yaml_file.load(str(file)))
    context.say(f"walking {len(plan.jobs):,} jobs ({work}), {times} times")
    seconds = [_walked(plan, folder / "walk") for _ in range(times)]
    share = [one / (_JOB_SECONDS * len(plan.jobs)) for one in seconds]
    return Row(
        f"walking {len(plan.jobs):,} jobs, {work}: share of a run whose jobs take a second each, one after another",
        "",
        share,
        unit="%",
        goal=at_most(0.01),
        sides={"walk_seconds": seconds},
        facts={"milliseconds_a_job": [1000 * one / len(plan.jobs) for one in seconds]},
    )


def _walked(plan: Any, results: Path) -> float:
    from bench.run import execute

    shutil.rmtree(results, ignore_errors=True)
    began = time.perf_counter()
    execution = execute.Execution(plan, results / "large", _Listener(), _AtOnce())
    summary = execution.run(set(plan.jobs))
    assert len(summary.made) == len(plan.jobs), summary
    return time.perf_counter() - began


class _Listener:
    def started(self, job: Any) -> None: ...
    def progress(self, job: Any, message: dict[str, Any]) -> None: ...
    def retried(self, job: Any, status: dict[str, Any]) -> None: ...
    def ended(self, job: Any, status: dict[str, Any]) -> None: ...


class _AtOnce:
    """Two places in which a job has ended as soon as it is asked for."""

    size = largest = 2
    threads = 1

    def __init__(self) -> None:
        self.jobs: list[Any] = []

    def check(self, jobs: Sequence[Any]) -> None: ...

    def idle(self, job: Any) -> Any | None:
        return self if len(self.jobs) < self.size and not (job.alone and self.jobs) else None

    def give(self, place: Any, job: Any, attempts: Sequence[dict[str, Any]]) -> None:
        self.jobs.append(job)

    def events(self, wait: float | None, wake: int | None = None) -> list[Any]:
        from bench.run.pool import Event

        ended, self.jobs = self.jobs[:1], self.jobs[1:]
        return [Event(job, "done", {"outcome": "complete", "seconds": _JOB_SECONDS}) for job in ended]

    def stop(self) -> None: ...

    def close(self) -> None: ...


def _make_records(context: Context, file: Path, results: Path) -> int:
    """Make every job of a suite in this process; return how many they are. What is there already stays."""
    from bench.plan import planner
    from bench.run import execute, handlers, standing
    from bench.run.context import WorkerContext
    from bench.suite import yaml_file

    plan = planner.make(yaml_file.load(str(file)))
    folder = results / plan.suite.name
    environment = {"workers": 1, "threads": 1}
    worker = WorkerContext(plan.suite, folder, None, "cpu", environment, lambda message: None, lambda: False)
    left = [one for one, state in standing.look(plan, folder).states.items() if state != "complete"]
    context.say(f"making {len(left):,} records")
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    for job_id in left:
        handlers.run(plan.jobs[job_id], worker)
    execute.write_suite(plan, folder, 1)
    return len(plan.jobs)


def _grid(count: int) -> list[float]:
    return [round((place + 1) / (count + 1), 4) for place in range(count)]


def _models(rule: str = "") -> dict[str, Any]:
    """Return a suite of four methods × 50 λ × 12 seeds, each run with an evaluation."""
    source = {"source": "world", "rows": 8, "evaluation_rows": 2}
    training: dict[str, Any] = {
        "steps": 6,
        "batch_size": {"dpo": 2, "sft": 2},
        "learning_rate": 0.01,
        "evaluate_every": 3,
    }
    return {
        "name": "large",
        "model": {"source": "random"},
        "lora": {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]},
        "data": {"preference": source, "instruction": source},
        "training": training | ({"stopping": {"rule": rule}} if rule else {}),
        "methods": ["sequential", "mix", "alright", "maxright"],
        "lambdas": _grid(50),
        "seeds": list(range(12)),
        "evaluation": {"base_kl": {}},
    }


def _toys() -> dict[str, Any]:
    """Return a toy suite of two methods × 50 λ × 50 lengths, of a few steps each."""
    import yaml

    from bench.suite import yaml_file

    toy: dict[str, Any] = yaml.safe_load(yaml_file.find("toy").read_text(encoding="utf-8"))
    horizons: Iterable[int] = range(10, 60)
    toy["training"] |= {"horizons": [{"steps": one, "seeds": 1} for one in horizons], "points": 5}
    toy["problem"]["reference"]["steps"] = 5
    return toy | {"name": "toys", "lambdas": _grid(50), "methods": ["mix", "maxright"]}
