"""What the steps of a run had to compute, in model FLOPs, and how fast its device multiplies matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bench.data.tokens import Datasets
from bench.methods import Objective
from bench.models import flops
from bench.models.policy import Policy
from bench.records import record
from bench.records.metrics import Metric

MODEL = Metric(
    "model_flops",
    "Model FLOPs",
    "FLOP",
    None,
    "count",
    "what the mathematics of the steps needs, probes included: real tokens once, no padding and no recomputation",
    low=0.0,
)
MATRIX_RATE = Metric(
    "matrix_flops_per_second",
    "Matrix rate",
    "FLOP/s",
    None,
    "cost",
    "of large square products on this device in the model's dtype, measured in the job outside its steps",
    low=0.0,
)


class ModelFlops:
    """Count each step's model FLOPs from the rows it was on; of several processes, those of all."""

    def __init__(self, policy: Policy, datasets: Datasets) -> None:
        self._examples = {objective: split.examples for objective, split in datasets.train.items()}
        self._sizes = flops.sizes_of(policy.model)

    def of_step(self, row: Mapping[str, Any], last: Mapping[Objective, Sequence[int]]) -> int | None:
        """Count a step, or what was looked at before one.

        Args:
            row: its row in steps.jsonl.
            last: the rows that each objective's last probe or step was on.

        Returns:
            The FLOPs; None for a model whose matrices are not known.
        """
        if self._sizes is None:
            return None
        total = sum(self._rows(objective, last, gradient=False) for objective in row.get("probes", {}))
        if "gradients" in row:
            total += sum(self._rows(objective, last, gradient=True) for objective in Objective)
        descended = () if row.get("on_gradients") else row.get("weights", {})
        return total + sum(self._rows(objective, last, gradient=True) for objective in descended)

    def _rows(self, objective: str, last: Mapping[Objective, Sequence[int]], gradient: bool) -> int:
        assert self._sizes is not None
        total, name = 0, Objective(objective)
        for row in last[name]:
            example = self._examples[name][row]
            answers = [len(ids) for ids in example.answers]
            learned = sum(len(example.learned(number)) for number in range(len(answers)))
            row_of = (self._sizes, len(example.prompt), answers, learned)
            total += flops.forward(*row_of) + (flops.backward(*row_of) if gradient else 0)
        return total


def matrix_rate(policy: Policy) -> dict[str, dict[str, Any]]:
    """Return the device's matrix rate as a measurement; to be called outside of what is timed."""
    return {MATRIX_RATE.name: _matrix_rate(policy)}


def _matrix_rate(policy: Policy) -> dict[str, Any]:
    if policy.device.type != "cuda":
        return record.not_measured(MATRIX_RATE.unit, "measured on a GPU only")
    try:
        return record.measured(flops.matrix_rate(policy.device, policy.model.dtype), MATRIX_RATE.unit)
    except torch.OutOfMemoryError:
        return record.not_measured(MATRIX_RATE.unit, "no memory was left for three matrices")
