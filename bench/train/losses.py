"""A run's losses on rows of its training data: micro-batch by micro-batch, and as the optimum had them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench.data.tokens import Datasets
from bench.methods import Objective
from bench.models import objectives
from bench.models.objectives import Batch
from bench.models.policy import Policy
from bench.records import record
from bench.settings import Objectives
from bench.train.batches import in_parts


@dataclass(frozen=True)
class Part:
    """A micro-batch with the divisors of the *whole* batch.

    So the micro-batches' (and processes') losses and gradients add up to those of the batch in one piece.

    Attributes:
        divisor: of the objective's sum: the batch's pairs, or what f_SFT divides by.
        chosen_divisor: of pairs, what f_SFT on their chosen answers divides by.
        idle: whether its loss counts nothing: it is passed through because others pass through theirs.
    """

    objective: Objective
    rows: tuple[int, ...]
    divisor: int
    chosen_divisor: int
    idle: bool = False


class Losses:
    """Compute both objectives on training rows.

    Args:
        policy: the model whose loss is wanted.
        datasets: the rows.
        settings: β and the reduction.
        micro_batch_sizes: rows in one forward pass, as they are when a batch is cut.
        reference: π_ref's log-probabilities by split; without them there is no f_DPO.
        row_optimum: log-probabilities of every row's answers under its objective's optimum, [rows][answers], in nats.
    """

    def __init__(
        self,
        policy: Policy,
        datasets: Datasets,
        settings: Objectives,
        micro_batch_sizes: Mapping[Objective, int],
        reference: Mapping[str, Any] | None,
        row_optimum: Mapping[Objective, Sequence[Sequence[float]]],
    ) -> None:
        self._policy, self._settings, self._sizes = policy, settings, micro_batch_sizes
        self._examples = {objective: split.examples for objective, split in datasets.train.items()}
        self._reference: Mapping[str, list[float]] = (reference or {}).get("train", {})
        self._row_optimum = row_optimum
        self._on_device = {name: torch.tensor(one, device=policy.device) for name, one in self._reference.items()}
        self.layout = policy.layout_of(self._examples[Objective.DPO])

    def parts(self, objective: Objective, rows: Sequence[int], own: Sequence[int]) -> list[Part]:
        """Cut a process's own share of a batch's rows into micro-batches."""
        of_answers = self._sft_divisor(objective, rows)
        divisor = of_answers if objective is Objective.SFT else len(rows)
        return [Part(objective, tuple(part), divisor, of_answers) for part in in_parts(own, self._sizes[objective])]

    def idle(self, objective: Objective, rows: Sequence[int]) -> Part:
        """Return a part that adds nothing to a batch."""
        return replace(self.parts(objective, rows, rows[:1])[0], idle=True)

    def of(self, part: Part) -> tuple[Tensor, Tensor | None, Batch]:
        """Return a part's share of its objective, of pairs also of f_SFT on their chosen answers, and what was forwarded."""
        examples = [self._examples[part.objective][row] for row in part.rows]
        batch = objectives.collate(examples, self.layout, self._policy.device)
        if part.idle:
            nothing = 0.0 * objectives.answer_token_logps(self._policy.model, batch).sum()
            return nothing, nothing if part.objective is Objective.DPO else None, replace(batch, tokens=0)
        if part.objective is Objective.SFT:
            return objectives.sft_sum(self._policy.model, batch) / part.divisor, None, batch
        reference = {name: values[list(part.rows)] for name, values in self._on_device.items()}
        dpo, chosen = objectives.dpo_and_chosen_sums(self._policy.model, batch, reference, self._settings.beta)
        return dpo / part.divisor, chosen / part.chosen_divisor, batch

    def of_optimum(self, objective: Objective, rows: Sequence[int]) -> float:
        """Return the loss that the objective's own optimum has on a batch, in nats."""
        logps = [self._row_optimum[objective][row] for row in rows]
        if objective is Objective.SFT:
            return -math.fsum(answers[0] for answers in logps) / self._sft_divisor(objective, rows)
        reference = {name: [values[row] for row in rows] for name, values in self._reference.items()}
        policy = {"chosen": [chosen for chosen, _ in logps], "rejected": [rejected for _, rejected in logps]}
        losses = record.dpo_losses(policy, reference, self._settings.beta)
        return math.fsum(losses) / len(losses)

    def _sft_divisor(self, objective: Objective, rows: Sequence[int]) -> int:
        """Count what f_SFT on these rows divides by; of preference pairs the chosen answers are meant."""
        examples = [self._examples[objective][row] for row in rows]
        return objectives.sft_divisor(examples, self._settings.reduction)
