"""What a training job writes down: its steps, its trajectory, what it used, and its results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.collectors import COLLECTORS, summarize
from bench.errors import JobError
from bench.methods import Objective
from bench.models import held_out
from bench.records import record
from bench.records.metrics import Metric
from bench.records.optimum import HALVES
from bench.train.model_flops import MATRIX_RATE
from bench.train.model_flops import MODEL as MODEL_FLOPS

if TYPE_CHECKING:
    from bench.data.tokens import Datasets
    from bench.models.policy import Policy

# What a training job measures itself; what the collectors measure stands beside them.
TRAINING = (
    Metric(
        "steps", "Length", "steps", None, "count", "optimizer steps taken; a stopping rule may end a joint run early"
    ),
    Metric(
        "training_seconds",
        "Training",
        "s",
        "lower",
        "cost",
        "seconds in optimizer steps, probes included; evaluation and saving excluded",
        low=0.0,
        tolerance=0.05,
        relative=True,
        choose="seconds",
    ),
    Metric(
        "first_step_seconds",
        "First step",
        "s",
        "lower",
        "cost",
        "seconds of the first step, in which kernels are chosen and memory is got; part of the training seconds",
        low=0.0,
        tolerance=0.05,
        relative=True,
    ),
    Metric(
        "probe_seconds",
        "Probes",
        "s",
        "lower",
        "cost",
        "seconds in forward passes made only to choose an objective",
        low=0.0,
        tolerance=0.05,
        relative=True,
    ),
    Metric("tokens", "Tokens", "tokens", None, "count", "non-padding tokens that took part in a gradient"),
    Metric("probe_tokens", "Probe tokens", "tokens", None, "count", "non-padding tokens forwarded for probes only"),
    Metric(
        "padding_share",
        "Padding",
        "share",
        None,
        "count",
        "padding among all tokens forwarded in training, probes included",
        low=0.0,
        high=1.0,
    ),
    MODEL_FLOPS,
    MATRIX_RATE,
)


# Of the methods that ask for gradients; for the others there is nothing to measure.
GRADIENTS = Metric(
    "gradient_seconds",
    "Gradients",
    "s",
    "lower",
    "cost",
    "seconds in gradients that were taken before an objective was chosen; a step on them goes back no further",
    low=0.0,
    tolerance=0.05,
    relative=True,
)

MICRO_BATCH_SIZE = Metric(
    "micro_batch_size",
    "Micro-batch",
    "rows",
    None,
    "count",
    "rows in memory at once at the run's end; fewer than a batch where the suite says so or memory ran out",
)

COMPILING = Metric(
    "compile_seconds",
    "Compiling",
    "s",
    "lower",
    "cost",
    "seconds in which layers were compiled, or read from disk, and tried; before the first step and no part of training",
    low=0.0,
    tolerance=0.05,
    relative=True,
)


def compile_seconds(seconds: float) -> dict[str, dict[str, Any]]:
    """Return what compiling took; nothing where nothing was compiled."""
    return {COMPILING.name: record.measured(seconds, COMPILING.unit)} if seconds else {}


def micro_batch_sizes(sizes: Mapping[Objective, int]) -> dict[str, dict[str, Any]]:
    """Return the rows in memory at once, by objective."""
    named = {f"{MICRO_BATCH_SIZE.name}/{objective}": size for objective, size in sizes.items()}
    return {name: record.measured(size, MICRO_BATCH_SIZE.unit) for name, size in named.items()}


def metrics() -> list[Metric]:
    """Describe every figure of a training job: what it cost, and the objective values it ended at."""
    return [
        *TRAINING,
        GRADIENTS,
        COMPILING,
        MICRO_BATCH_SIZE,
        *(kind.metric for kind in COLLECTORS.values()),
        *held_out.METRICS,
    ]


def own_names() -> set[str]:
    """Name the figures that every training job has, whatever collects beside it; parts of a figure go by its first word."""
    return {one.name.split("/")[0] for one in (*TRAINING, GRADIENTS, COMPILING, MICRO_BATCH_SIZE, *held_out.METRICS)}


def not_measured(reason: str) -> dict[str, dict[str, Any]]:
    """Return the training figures of a job that takes no steps of its own: null, and why."""
    of_training = (*TRAINING, *(kind.metric for kind in COLLECTORS.values()))
    return {one.name: record.not_measured(one.unit, reason) for one in of_training}


TOKEN_COUNTS = ("tokens", "probe_tokens", "padding_tokens")
ADDED_UP = ("seconds", "probe_seconds", *TOKEN_COUNTS, MODEL_FLOPS.name)


class RunLog:
    """Write a job's append-only files and add up its steps.

    Of several processes only the main one `writes`; all of them add up.
    """

    def __init__(self, folder: Path, writes: bool) -> None:
        self.folder, self.writes = folder, writes
        self.totals: dict[str, Any] = dict.fromkeys(ADDED_UP, 0)
        self.choices: Counter[str] = Counter()
        self.first_step_seconds = 0.0
        self.gradient_seconds: float | None = None

    def begin(self) -> None:
        """Begin before the first step."""
        if self.writes:
            record.clear_rows(self.folder)

    def resume(self, last_step: int, rows: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Go on after `last_step`: later rows are dropped, as they will be written again.

        Args:
            rows: how far each file reached then, where a checkpoint tells.
        """
        if self.writes and rows is not None:
            record.restore_rows(self.folder, rows)
        elif self.writes:
            record.cut_rows(self.folder, last_step=last_step)
        for row in record.read_jsonl(self.folder / "steps.jsonl"):
            if row["step"] <= last_step:
                self._count(row)

    def step(self, row: Mapping[str, Any]) -> None:
        """Write down a step."""
        self.append("steps", [row])
        self._count(row)

    def _count(self, row: Mapping[str, Any]) -> None:
        for name in ADDED_UP:
            # padding is not, in rows of older versions; model FLOPs are not, of some models
            known = self.totals[name] is not None and row.get(name) is not None
            self.totals[name] = self.totals[name] + row[name] if known else None
        if row["step"] == 1:
            self.first_step_seconds = row["seconds"]
        self.choices.update(f"steps_on/{objective}" for objective in row["weights"])
        if "gradients" in row:
            self.gradient_seconds = (self.gradient_seconds or 0.0) + row["gradients"]["seconds"]
        gaps = row.get("gaps", {})
        self.choices.update(f"gaps/{objective}" for objective in gaps)
        self.choices.update(f"negative_gaps/{objective}" for objective, gap in gaps.items() if gap < 0)

    def evaluation(self, step: int, phase: int, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Add a point to the trajectory.

        Raises:
            JobError: a value is not finite.
        """
        broken = next((name for name, one in scores.items() if not math.isfinite(one["value"] or 0.0)), None)
        if broken is not None:
            raise JobError(f"{broken} is not finite after step {step}; lower training.learning_rate")
        values = {name: score["value"] for name, score in scores.items() if score["value"] is not None}
        halves = {name: score[HALVES] for name, score in scores.items() if score.get(HALVES)}
        so_far = {"training_seconds": self.totals["seconds"], "tokens": self.totals["tokens"]}
        self.append("trajectory", [{"step": step, "phase": phase} | values | so_far | {HALVES: halves}])

    def usage(self, step: int, samples: Iterable[Mapping[str, Any]]) -> None:
        """Write down what the collectors saw."""
        self.append("usage", [{"step": step, **sample} for sample in samples])

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to a file of the job's folder.

        Raises:
            JobError: a figure is not finite.
        """
        if not self.writes:
            return
        try:
            record.append_jsonl(self.folder / f"{name}.jsonl", rows)
        except ValueError:  # JSON has no word for it
            raise JobError(f"a figure of {name} is not finite; lower training.learning_rate") from None

    def measurements(self, steps: int, rows: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        """Return what the run cost; `rows` counts rows by name."""
        return {
            "steps": record.measured(steps, "steps"),
            "training_seconds": record.measured(self.totals["seconds"], "s"),
            "first_step_seconds": record.measured(self.first_step_seconds, "s"),
            "probe_seconds": record.measured(self.totals["probe_seconds"], "s"),
            "tokens": record.measured(self.totals["tokens"], "tokens"),
            "probe_tokens": record.measured(self.totals["probe_tokens"], "tokens"),
            "padding_share": self._padding_share(),
            MODEL_FLOPS.name: self._model_flops(),
            **self._gradients(),
            **summarize(list(record.read_jsonl(self.folder / "usage.jsonl"))),
            **{name: record.measured(count, "rows") for name, count in rows.items()},
            **self._choices(),
        }

    def _gradients(self) -> dict[str, dict[str, Any]]:
        """Return the time in gradients taken before a step was chosen, of a method that asks for them."""
        if self.gradient_seconds is None:
            return {}
        return {GRADIENTS.name: record.measured(self.gradient_seconds, GRADIENTS.unit)}

    def _model_flops(self) -> dict[str, Any]:
        total = self.totals[MODEL_FLOPS.name]
        if total is None:
            reason = "not counted in all steps: of an older version or another library, or of a model of other matrices"
            return record.not_measured(MODEL_FLOPS.unit, reason)
        return record.measured(total, MODEL_FLOPS.unit)

    def _padding_share(self) -> dict[str, Any]:
        padding = self.totals["padding_tokens"]
        if padding is None:
            return record.not_measured("share", "some of its steps did not count padding")
        forwarded = padding + self.totals["tokens"] + self.totals["probe_tokens"]
        return record.measured(padding / forwarded, "share")

    def _choices(self) -> dict[str, dict[str, Any]]:
        """Count the steps that descended each objective, and of the gaps they were chosen on how many were negative."""
        names = [f"steps_on/{objective}" for objective in Objective]
        if any(name.startswith("gaps/") for name in self.choices):
            names += [f"{name}/{objective}" for name in ("gaps", "negative_gaps") for objective in Objective]
        return {name: record.measured(self.choices[name], "steps") for name in names}


def save_policy(policy: Policy, datasets: Datasets, folder: Path) -> float:
    """Save what was trained and reload it; return by how much its logits on a training row then differ.

    Raises:
        JobError: by more than rounding.
    """
    import torch

    policy.save(folder)
    example = datasets.train[Objective.SFT].examples[0]
    ids = torch.tensor([[*example.prompt, *example.answers[0]]], device=policy.device)
    return policy.check_reload(folder, ids)
