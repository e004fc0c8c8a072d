"""What jobs took on this machine before, by the records of a results folder: seconds, and the memory that training took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.plan.plan import Plan
from bench.records import record
from bench.run import environment, gpus
from bench.run.estimates.durations import TRAINING, Took, Work, of_job, of_settings
from bench.toy import runs

_JOBS = 300  # of a suite that are read at most, evenly spaced by their names, of which every kind has its own


@dataclass(frozen=True)
class Machine:
    """What has to be equal for seconds to compare.

    Attributes:
        hardware: as `environment.hardware` says.
        device: cpu or cuda.
        threads: of a job on the CPU.
    """

    hardware: Mapping[str, Any]
    device: str
    threads: int

    def made(self, facts: Mapping[str, Any], *, computes: bool = True) -> bool:
        """Say whether the environment block of a record is of such a machine.

        Args:
            facts: the block.
            computes: whether the job does; one that only waits for a network has one thread and no device wherever it ran.
        """
        here, there = self.hardware, facts.get("hardware") or {}
        same = all(here.get(name) == there.get(name) for name in ("cpu", "cores", "gpus"))
        if not computes:
            return same
        device = str(facts.get("device", "")).partition(":")[0]
        return same and device == self.device and (device != "cpu" or facts.get("threads") == self.threads)

    def __str__(self) -> str:
        names = dict.fromkeys(self.hardware.get("gpus") or ())
        if self.device != "cpu":
            return ", ".join(names)
        return f"{self.hardware.get('cpu')} with {self.threads} {'thread' if self.threads == 1 else 'threads'} a job"


def this_machine(threads: int) -> Machine:
    """Describe the machine that this process runs on, as its workers would have it."""
    return Machine(environment.hardware(), "cuda" if gpus.visible() else "cpu", threads)


@dataclass
class Past:
    """What is known of earlier jobs.

    Attributes:
        took: what complete jobs took.
        memory: a kind of training -> the most bytes that it took at its peak.
        others: machines that records are of which do not count here.
    """

    took: list[Took] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    others: int = 0


def read(results: Path, machine: Machine, plan: Plan | None = None) -> Past:
    """Read what jobs took on a machine, in all suites of a results folder or in the folder of one; what is damaged is left out.

    Args:
        results: the folder.
        machine: which.
        plan: knows of its own jobs how much they had to do.
    """
    found = Past()
    if not results.is_dir():
        return found
    jobs = plan.jobs.values() if plan else ()
    waiting = {work.kind: work for work in (of_job(one) for one in jobs if one.resources.network_only)}
    for path in sorted({*results.glob("jobs"), *results.glob("*/jobs")}):
        names = sorted(one.name for one in path.iterdir() if (one / "status.json").is_file())
        for name in names[:: max(1, -(-len(names) // _JOBS))]:
            _read(path / name, machine, plan, waiting, found)
    return found


def _read(path: Path, machine: Machine, plan: Plan | None, waiting: Mapping[str, Work], found: Past) -> None:
    try:
        job = record.read_job(path)
        if not job.complete or job.spec.get("taken_over") or len(job.spec.get("environments", ())) > 1:
            return  # its seconds are of another folder's run, or of its last attempt only
        # By its settings: a record does not say that it only waited for a network, the plan does.
        waits = None if job.kind in (*TRAINING, "toy") else of_settings(job.kind, job.spec["settings"], 0, 0.0, 0.0)
        network = waiting.get(waits.kind) if waits else None
        if not machine.made(job.spec["environment"], computes=network is None):
            found.others += 1
            return
        work = network or (of_job(plan.jobs[job.id]) if plan and job.id in plan.jobs else _work(job))
        found.took.append(Took(work, float(job.status["seconds"]), bool(job.status.get("first_of_kind"))))
        peak = job.measurements.get("peak_memory_bytes", {}).get("value")
    except (InputError, KeyError, TypeError, ValueError):
        return
    if peak is not None:
        found.memory[work.kind] = max(found.memory.get(work.kind, 0), int(peak))


def _work(job: record.Job) -> Work:
    settings = job.spec["settings"]
    devices = job.spec["environment"].get("devices", 1)
    steps, tokens = 0.0, 0.0
    if job.kind == "pretrain":
        steps = float(settings["model"]["pretraining_steps"])
    elif job.kind == "toy":
        steps = float(runs.length(settings) * settings["seeds"])
    elif job.kind in TRAINING:
        steps, tokens = _of_training(job)
    return of_settings(job.kind, settings, devices, steps, tokens)


def _of_training(job: record.Job) -> tuple[float, float]:
    """Return the steps that a run took itself, and a bound of their tokens as a plan has it: rows at their full length."""
    taken = job.measurements.get("steps", {}).get("value")
    if not taken:
        return 0.0, 0.0
    limits = job.spec["settings"]["data"]
    prompt, answer = limits["max_prompt_tokens"], limits["max_answer_tokens"]
    rows = {one: job.measurements.get(f"rows_drawn/{one}", {}).get("value") or 0 for one in ("dpo", "sft")}
    tokens = rows["dpo"] * (prompt + 2 * answer) + rows["sft"] * (prompt + answer)
    own = taken - (job.spec.get("prefix") or {}).get("step", 0)
    return float(own), tokens * own / taken
