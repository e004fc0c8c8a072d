"""Both objectives' gradients on one step's batches: how they lie to each other, and their weighted sum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import JobError
from bench.methods import Gradients, Objective
from bench.models.processes import whole


@dataclass(frozen=True)
class Taken:
    """One objective's gradient on a batch, a tensor a parameter, with its loss and how many tokens that took."""

    gradient: Sequence[Tensor]
    loss: float
    tokens: int


def take_over(parameters: Sequence[torch.nn.Parameter]) -> list[Tensor]:
    """Take the gradients off the parameters; one that got none has a gradient of zeros."""
    found = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
    for one in parameters:
        one.grad = None
    return found


def clip(parameters: Sequence[torch.nn.Parameter], longest: float) -> None:
    """Scale the gradient down to a norm, if it is longer; that of weights in parts is of all parts together."""
    found = [one.grad for one in parameters if one.grad is not None]
    norm = whole(torch.nn.utils.get_total_norm(found))
    torch.nn.utils.clip_grads_with_norm_(parameters, longest, norm)


def compared(taken: Mapping[Objective, Taken]) -> Gradients:
    """Return inner product and norms, added up in double precision.

    Raises:
        JobError: they are not finite.
    """
    dpo, sft = (taken[objective].gradient for objective in (Objective.DPO, Objective.SFT))
    dot, of_dpo, of_sft = (_inner(one, other) for one, other in ((dpo, sft), (dpo, dpo), (sft, sft)))
    if not math.isfinite(dot + of_dpo + of_sft):
        raise JobError("a gradient is not finite; lower training.learning_rate")
    norms = {Objective.DPO: math.sqrt(of_dpo), Objective.SFT: math.sqrt(of_sft)}
    return Gradients(dot, norms, {objective: one.loss for objective, one in taken.items()})


def _inner(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    products = (torch.sum(a.double() * b.double()) for a, b in zip(one, other, strict=True))
    return float(torch.stack([whole(product) for product in products]).sum())


def put_back(
    parameters: Sequence[torch.nn.Parameter], taken: Mapping[Objective, Taken], weights: Mapping[Objective, float]
) -> None:
    """Leave the weighted sum of the gradients on the parameters."""
    for place, parameter in enumerate(parameters):
        parts = [weight * taken[objective].gradient[place] for objective, weight in weights.items()]
        parameter.grad = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
