"""The steps of a recipe that trains by itself: the clock around them, and the records that the shared loop keeps too."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, Self

import torch

from bench.collectors import collect
from bench.errors import JobError
from bench.methods import Objective
from bench.models import held_out
from bench.train.loop import OTHER_SPLIT, TrainingRun, refuse_out_of_memory
from bench.train.micro_batches import MicroBatches
from bench.train.model_flops import matrix_rate
from bench.train.run_log import RunLog


class Steps:
    """Time and record the steps that another library's loop takes. Use as a context manager around all of them.

    For each step: `start_clock`, then whatever a step is, then `stop_clock` and `note`. Evaluations on our own rows take
    place in `note`, while the clock stands.

    Attributes:
        run: what the job works with: suite, data, reference, policy.
        step: optimizer steps noted so far.
    """

    def __init__(self, run: TrainingRun) -> None:
        self.run, self.step, self._phase = run, 0, 0
        self._log = RunLog(run.folder, writes=True)
        self._collecting: Any = None
        self._rows = dict.fromkeys(Objective, 0)
        self._started, self._seconds = 0.0, 0.0
        self._micro_batches = MicroBatches(run.suite.training.micro_batch_size, run.batch_size)
        labels = run.job.run_labels
        self._phase_end = (labels.phase_steps or {}).get(labels.order.split("_")[0])

    def __enter__(self) -> Self:
        self._collecting = collect(str(self.run.policy.device)).__enter__()
        self._log.begin()  # what an interrupted attempt left behind
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._collecting.__exit__(kind, error, trace)
        if error is not None:
            refuse_out_of_memory(error, self.run, self.step, self._micro_batches)

    def start_clock(self) -> None:
        """Begin a step."""
        self._collecting.resume()
        self._started = self._now()

    def stop_clock(self) -> None:
        """End a step."""
        self._seconds = self._now() - self._started
        self._collecting.pause()

    def note(self, objective: Objective, phase: int, loss: float, learning_rate: float, tokens: int) -> None:
        """Write down the step just taken; evaluate where that is due.

        Raises:
            JobError: the loss is not finite.
        """
        self.step, self._phase = self.step + 1, phase
        if not math.isfinite(loss):
            raise JobError(f"the loss is not finite at step {self.step} ({loss}); lower training.learning_rate")
        self._rows[objective] += getattr(self.run.batch_size, objective)
        row: dict[str, Any] = {"step": self.step, "probe_seconds": 0.0, "probe_tokens": 0, "tokens": tokens}
        row |= {"phase": phase, "weights": {str(objective): 1.0}, "losses": {str(objective): loss}}
        row |= {"learning_rate": learning_rate, "seconds": self._seconds}
        self._log.step(row)
        self.run.tell({"step": self.step, "steps": self.run.job.steps, "losses": row["losses"]})
        due = self.step % self.run.suite.training.evaluate_every == 0 or self.step == self._phase_end
        if due and self.step < self.run.job.steps:
            self.evaluate(both_splits=False)

    def evaluate(self, both_splits: bool) -> dict[str, dict[str, Any]]:
        """Add the objective values on the evaluation rows to the trajectory; return them with their errors."""
        primary = self.run.suite.primary_split
        scores: dict[str, dict[str, Any]] = {}
        for split in (primary, OTHER_SPLIT[primary]) if both_splits else (primary,):
            scores |= self.scores(split)
        self._log.usage(self.step, self._collecting.drain())
        self._log.evaluation(self.step, self._phase, scores)
        return scores

    def scores(self, split: str) -> dict[str, dict[str, Any]]:
        """Evaluate both objectives on one split."""
        run = self.run
        sizes = {objective: 2 * size for objective, size in self._micro_batches.sizes.items()}
        return held_out.both_scores(run.policy, run.datasets, split, run.suite.objectives, sizes, run.reference)[0]

    def measurements(self) -> dict[str, dict[str, Any]]:
        """Return what the steps cost, once the last evaluation is made."""
        rows = {f"rows_drawn/{name}": count for name, count in self._rows.items()}
        return self._log.measurements(self.step, rows) | matrix_rate(self.run.policy)

    def _now(self) -> float:
        if self.run.policy.device.type == "cuda":
            torch.cuda.synchronize(self.run.policy.device)
        return self.run.clock()
