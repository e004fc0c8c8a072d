"""What each kind of work costs: the main path's own steps, timed in random order on a machine that does nothing else.

A round holds a block of every kind; in each round the order is another. So what drifts (clocks, heat, memory that an
earlier kind left behind) meets all kinds alike. The first round, and the first steps of each block, are warm-up.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psutil

from bench.collectors import COLLECTORS, Combine, collect, summarize
from bench.errors import Interrupted
from bench.methods import Choice, Objective, Phase, Probe
from bench.models import memory
from bench.records import record
from bench.records.metrics import Metric
from bench.records.spec import RunLabels
from bench.records.work import Work
from bench.train.loop import Trainer, TrainingRun, refuse_out_of_memory
from bench.train.model_flops import MATRIX_RATE, matrix_rate
from bench.train.run_log import TOKEN_COUNTS

_BOTH = {Objective.DPO: 0.5, Objective.SFT: 0.5}
CHOICES = {
    Work.DPO: Choice({Objective.DPO: 1.0}),
    Work.SFT: Choice({Objective.SFT: 1.0}),
    Work.JOINT: Choice(_BOTH, joint_backward=True),
    Work.ACCUMULATE: Choice(_BOTH),
    Work.DPO_WITH_CHOSEN: Choice({Objective.DPO: 0.5}, chosen_sft=0.5),
    Work.ON_GRADIENTS: Choice(_BOTH),
}
LABELS = RunLabels("cost", "sequential", None, 0, "sft_dpo", {"sft": 1, "dpo": 0})

SECONDS = Metric(
    "step_seconds",
    "Step",
    "s",
    "lower",
    "cost",
    "median seconds of one step or look of a kind, alone on the machine",
    low=0.0,
    tolerance=0.05,
    relative=True,
)
TOKENS = Metric("step_tokens", "Tokens of a step", "tokens", None, "count", "mean non-padding tokens of its batches")
OTHERS = Metric(
    "other_cores_busy",
    "Other processes",
    "cores",
    None,
    "count",
    "cores that other processes kept busy meanwhile, on average",
    low=0.0,
)
# As much of a core is what an idle machine's own services take; a training process beside this one takes a whole one.
BUSY_CORES = 0.25


FLOPS = Metric(
    "step_model_flops", "Model FLOPs of a step", "FLOP", None, "count", "mean of what its mathematics needs", low=0.0
)


def metrics() -> list[Metric]:
    """Describe every figure; the collectors' are of one step where they add up."""
    return [SECONDS, TOKENS, FLOPS, OTHERS, MATRIX_RATE, *(kind.metric for kind in COLLECTORS.values())]


@dataclass
class _Seen:
    """What was seen of one kind of work: each counted step, and the collectors' rows of its blocks."""

    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    model_flops: list[int | None] = field(default_factory=list)
    usage: list[dict[str, Any]] = field(default_factory=list)


class _Told:
    """Stand in for a run's method: choose what it is told."""

    def __init__(self) -> None:
        self.work = Work.SFT

    def choose(self, step: int, probe: Probe) -> Choice:
        return CHOICES[self.work]

    def observe(self, losses: Mapping[Objective, float]) -> None:
        """Learn nothing."""


def measure(run: TrainingRun) -> None:
    """Measure the kinds of work that the job's settings name and write what was seen to the job's folder.

    A reference of zeros stands in for π_ref's log-probabilities: a step looks them up, whatever they are. The learning rate
    is 0, so that an optimizer step does all its work and the weights stay where they are.

    Raises:
        Interrupted: the user stopped it; it is measured anew.
        OutOfMemory: a kind of step does not fit.
    """
    pairs = len(run.datasets.train[Objective.DPO].examples)
    training = run.suite.training.model_copy(update={"learning_rate": 0.0})
    run = replace(
        run,
        job=replace(run.job, labels=LABELS, steps=1),
        suite=run.suite.model_copy(update={"training": training}),
        reference={"train": {answer: [0.0] * pairs for answer in ("chosen", "rejected")}},
    )
    bench = _Bench(run)
    before = core_seconds(_own_seconds(bench.trainer))
    try:
        with collect(str(run.policy.device)) as bench.trainer.collecting:
            seen = bench.measure([Work(name) for name in run.job.settings["work"]])
    except (MemoryError, RuntimeError) as error:
        trainer = bench.trainer
        refuse_out_of_memory(error, run, trainer.step, trainer.micro_batches, trainer.joint_backward)
        raise
    after = core_seconds(_own_seconds(bench.trainer))
    if not bench.trainer.processes.main:
        return
    others = _others(before, after)
    figures = _measurements(seen, others) | {OTHERS.name: others} | matrix_rate(run.policy)
    record.write_json(run.folder / "measurements.json", figures)
    record.write_metrics(run.folder, metrics())
    record.write_json(run.folder / "data.json", run.datasets.facts())


def _own_seconds(trainer: Trainer) -> float:
    """Return the seconds that the processes which are measured used of all cores."""
    return math.fsum(trainer.processes.gathered(time.process_time()))


class _Bench:
    """Take the main path's steps and looks one by one, and keep what each took."""

    def __init__(self, run: TrainingRun) -> None:
        self.run, self.trainer, self.told = run, Trainer(run), _Told()
        self.trainer.method = self.told  # type: ignore[assignment]  # all that a step asks of a method
        self.trainer.phases = (Phase(1),)  # whatever is chosen is of it
        self.repeats = run.job.settings["repeats"]

    def measure(self, kinds: Sequence[Work]) -> dict[Work, _Seen]:
        """Measure so many rounds after one of warm-up."""
        if self.trainer.processes.main:
            record.clear_rows(self.run.folder)
        self.trainer.collecting.pause()
        rounds, chance = self.repeats["rounds"], random.Random("cost")
        absent = [row for row in self.trainer.used() if row["value"] is None]
        seen = {work: _Seen(usage=list(absent)) for work in kinds}
        for number in range(rounds + 1):
            for work in chance.sample(kinds, len(kinds)):
                self.run.tell({"text": f"{work}, {f'round {number} of {rounds}' if number else 'warm-up'}"})
                block = self._block(work)
                if number:
                    self._keep(number, work, block, seen[work])
        return seen

    def _block(self, work: Work) -> _Seen:
        """Repeat one kind of work for a round's share of the steps and of the seconds that are wanted of it."""
        block, repeats = _Seen(), self.repeats
        self.trainer.forget_what_fits()  # what fits of one kind says nothing of another; warm-up finds it anew
        memory.release(self.run.policy.device)  # nor does what torch keeps of its memory
        for _ in range(repeats["warm_up_steps"]):
            self._once(work)
        self.trainer.collecting.drain()
        steps, seconds = (repeats[name] / repeats["rounds"] for name in ("steps", "seconds"))
        # Of several processes the slowest decides, for all of them.
        while self.trainer.processes.any(len(block.seconds) < steps or math.fsum(block.seconds) < seconds):
            if self.trainer.told_to_stop():
                raise Interrupted("stopped while costs were measured; they are measured anew")
            took, tokens = self._once(work)
            block.seconds.append(took)
            block.tokens.append(tokens)
            block.model_flops.append(self.trainer.row["model_flops"])
        block.usage = self.trainer.used()
        return block

    def _keep(self, number: int, work: Work, block: _Seen, seen: _Seen) -> None:
        """Add a block to what was seen of its kind, and write its rows down."""
        rows = [
            {"round": number, "work": str(work), "seconds": seconds, "tokens": tokens}
            for seconds, tokens in zip(block.seconds, block.tokens, strict=True)
        ]
        usage = [{"round": number, "work": str(work), **row} for row in block.usage]
        if self.trainer.processes.main:
            record.append_jsonl(self.run.folder / "steps.jsonl", rows)
            record.append_jsonl(self.run.folder / "usage.jsonl", usage)
        seen.seconds += block.seconds
        seen.tokens += block.tokens
        seen.model_flops += block.model_flops
        seen.usage += block.usage

    def _once(self, work: Work) -> tuple[float, int]:
        """Do the work once; return its seconds and its tokens."""
        trainer = self.trainer
        if work in CHOICES:
            self.told.work = work
            if work is Work.ON_GRADIENTS:
                self._begin()
                trainer.gradients()
            trainer.take_step()
            return trainer.row["seconds"], trainer.row["tokens"]
        self._begin()
        trainer.collecting.resume()
        if work is Work.GRADIENTS:
            trainer.gradients()
        else:
            trainer.probe(Objective.DPO if work is Work.PROBE_DPO else Objective.SFT)
        trainer.collecting.pause()
        own = trainer.row["probe_tokens"] + sum(one.tokens for one in trainer.taken.values())
        tokens = trainer.processes.sum_counts({"tokens": own})["tokens"]
        trainer.taken = {}
        trainer.row["model_flops"] = trainer.model_flops.of_step(trainer.row, trainer.batches.last)
        trainer.batches.end_step()
        return trainer.row["probe_seconds"] or trainer.row["gradients"]["seconds"], tokens

    def _begin(self) -> None:
        """Begin a row, as a step does."""
        self.trainer.row = {"probe_seconds": 0.0, **dict.fromkeys(TOKEN_COUNTS, 0)}


def core_seconds(own: float | None = None) -> tuple[float, float]:
    """Return the seconds that other processes used of all cores together, and those that the cores have had, since some start.

    Args:
        own: seconds that those used which are measured; None: this process's.
    """
    times = psutil.cpu_times()._asdict()
    spent = {
        name: seconds for name, seconds in times.items() if not name.startswith("guest")
    }  # in user and nice already
    idle = spent["idle"] + spent.get("iowait", 0.0)
    total = math.fsum(spent.values())
    return total - idle - (time.process_time() if own is None else own), total


def _others(before: tuple[float, float], after: tuple[float, float]) -> dict[str, Any]:
    """Return how many cores other processes kept busy between two looks."""
    used, had = (later - earlier for earlier, later in zip(before, after, strict=True))
    if had <= 0:
        return record.not_measured(OTHERS.unit, "it was over before the machine's clock had moved")
    return record.measured(max(0.0, used / had * (psutil.cpu_count() or 1)), OTHERS.unit)


def _measurements(seen: Mapping[Work, _Seen], others: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the figures of each kind, `NAME/KIND`, each with how those of a run's steps come together.

    `sum`: times how often; `max`: of the largest; `mean`: weighted by seconds. Nobody can keep other programs off the
    machine: where some were at work, figures that they change are marked like those of runs that shared it.
    """
    shared = {"shared_machine": True} if (others["value"] or 0.0) > BUSY_CORES else {}
    made = {}
    for work, one in seen.items():
        quartiles = statistics.quantiles(one.seconds, n=4, method="inclusive")
        spread = {"quartiles": [quartiles[0], quartiles[2]], "steps": len(one.seconds), "together": "sum", **shared}
        made[f"{SECONDS.name}/{work}"] = record.measured(quartiles[1], SECONDS.unit, **spread)
        made[f"{TOKENS.name}/{work}"] = record.measured(statistics.fmean(one.tokens), TOKENS.unit, together="sum")
        made[f"{FLOPS.name}/{work}"] = _model_flops(one.model_flops)
        for name, figure in summarize(one.usage).items():
            together = _together(COLLECTORS[name].combine)
            if together == "sum" and figure["value"] is not None:
                figure["value"] /= len(one.seconds)
            marks = {} if COLLECTORS[name].metric.of_process else shared
            made[f"{name}/{work}"] = figure | {"together": together} | marks
    return made


def _model_flops(counted: Sequence[int | None]) -> dict[str, Any]:
    known = [one for one in counted if one is not None]
    if len(known) < len(counted):
        reason = "the model has matrices of a kind that is not counted"
        return record.not_measured(FLOPS.unit, reason) | {"together": "sum"}
    return record.measured(statistics.fmean(known), FLOPS.unit, together="sum")


def _together(combine: Combine) -> str:
    """Say how a collector's figures of several kinds of work give that of a run, from how its samples give one."""
    return "sum" if combine is math.fsum else "max" if combine is max else "mean"
