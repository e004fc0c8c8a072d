"""The objective values of a policy on fixed rows: f_DPO (Eq. 1) and f_SFT (Eq. 4), with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.data.tokens import Datasets, Example
from bench.methods import Objective
from bench.models import memory, objectives
from bench.models.policy import Policy
from bench.records import optimum, record
from bench.records.metrics import Metric
from bench.settings import Objectives

METRICS = tuple(
    Metric(
        f"f_{objective}/{split}",
        f"f_{objective.upper()} {words}",
        "nats",
        "lower",
        "objective",
        f"the {objective.upper()} objective ({equation}) on {rows}",
        low=0.0,
        gate=True,
        tolerance=0.01,
        relative=True,
    )
    for objective, equation in ((Objective.DPO, "Eq. 1"), (Objective.SFT, "Eq. 4"))
    for split, words, rows in (
        ("held_out", "held-out", "held-out rows"),
        ("train", "train", "a fixed sample of training rows"),
    )
)

OfSplits = dict[str, dict[Objective, Tensor]]


@torch.no_grad()
def answer_logps(policy: Policy, examples: Sequence[Example], batch_size: int) -> Tensor:
    """Return log π_θ(y | x) summed over each answer's tokens, in nats, float32 on the CPU. Shape: [examples, answers].

    Rows of similar length share a batch; the result stands in the order of `examples`. Several processes share the rows out,
    and each returns all of it. Where memory runs out, this and later passes of such rows take fewer at once.
    """
    was_training = policy.model.training
    policy.model.eval()
    order = sorted(range(len(examples)), key=lambda row: examples[row].length)
    layout = policy.layout_of(examples)
    answers = len(examples[0].answers)
    result = torch.zeros(len(examples), answers)
    processes, own = policy.processes, len(order)
    if processes is not None:
        most, order = processes.most(len(order)), list(processes.own(order))
        own = len(order)
        if policy.sharded:  # weights are put together for each pass, by all processes: every one makes as many
            order += [0] * (most - own)
    at_once = min(batch_size, policy.most_rows.get(answers, batch_size))
    start = 0
    while start < len(order):
        rows = order[start : start + at_once]
        try:
            batch = objectives.collate([examples[row] for row in rows], layout, policy.device)
            found = objectives.sequence_logps(policy.model, batch).view(len(rows), -1).cpu()
            kept = min(len(rows), own - start)
            result[rows[:kept]] = found[:kept]
        except torch.OutOfMemoryError:
            if at_once == 1 or policy.sharded:
                raise
        else:
            start += len(rows)
            continue
        at_once = policy.most_rows[answers] = memory.fewer(at_once)
        policy.note(
            f"out of memory: going on with {at_once} rows of {answers} answers at once where nothing is trained"
        )
        memory.release(policy.device)
    policy.model.train(was_training)
    return result if processes is None else processes.sum(result.to(policy.device)).cpu()


def both_scores(
    policy: Policy,
    datasets: Datasets,
    split: str,
    settings: Objectives,
    sizes: Mapping[Objective, int],
    reference: Mapping[str, Any] | None,
) -> tuple[dict[str, dict[str, Any]], Tensor]:
    """Evaluate both objectives on one split.

    Args:
        policy: the model with its adapter.
        datasets: where the split's evaluation rows are.
        split: held_out or train.
        settings: β and the reduction.
        sizes: rows in one forward pass, per objective.
        reference: π_ref's log-probabilities by split; without them f_DPO has no value.

    Returns:
        The scores by metric name, and the pairs' log-probabilities, shape [pairs, 2].
    """
    logps = split_logps(policy, datasets, split, sizes)
    return scores_of(logps, datasets, split, settings, reference), logps[Objective.DPO]


def split_logps(
    policy: Policy, datasets: Datasets, split: str, sizes: Mapping[Objective, int]
) -> dict[Objective, Tensor]:
    """Return the log-probabilities of a split's answers, shapes [pairs, 2] and [rows, 1]."""
    return {
        objective: answer_logps(policy, datasets.sample(split, objective), sizes[objective]) for objective in Objective
    }


def scores_of(
    logps: Mapping[Objective, Tensor],
    datasets: Datasets,
    split: str,
    settings: Objectives,
    reference: Mapping[str, Any] | None,
) -> dict[str, dict[str, Any]]:
    """Return both objectives' scores by metric name, from the log-probabilities of a split's answers."""
    if reference is None:
        dpo = {"value": None, "reason": "trained before the reference's log-probabilities existed; see trajectory"}
    else:
        dpo = dpo_score(logps[Objective.DPO], reference[split], settings.beta)
    sft = sft_score(logps[Objective.SFT], datasets.sample(split, Objective.SFT), settings.reduction)
    return {f"f_dpo/{split}": dpo, f"f_sft/{split}": sft}


def dpo_score(logps: Tensor, reference: Mapping[str, Sequence[float]], beta: float) -> dict[str, Any]:
    """Return f_DPO, its number of pairs and standard error, from log-probabilities of shape [pairs, 2]."""
    chosen, rejected = logps.T.tolist()
    of_rows = {name: list(values[: len(chosen)]) for name, values in reference.items()}
    losses = record.dpo_losses({"chosen": chosen, "rejected": rejected}, of_rows, beta)
    value = math.fsum(losses) / len(losses)
    made = _score(value, [loss - value for loss in losses], len(losses))
    return made | _halves(losses, [1.0] * len(losses))


def sft_score(logps: Tensor, examples: Sequence[Example], reduction: str) -> dict[str, Any]:
    """Return f_SFT, its number of rows and standard error, from log-probabilities of shape [rows, 1].

    `token_mean` is a ratio of sums; its error comes from each row's departure from the mean of its own tokens.
    """
    sums = -logps[:, 0].double()
    sizes = torch.tensor(
        [len(one.learned()) if reduction == "token_mean" else 1 for one in examples], dtype=torch.double
    )
    value = float(sums.sum() / sizes.sum())
    made = _score(value, ((sums - value * sizes) / sizes.mean()).tolist(), len(examples))
    return made | _halves(sums.tolist(), sizes.tolist())


def _halves(sums: Sequence[float], sizes: Sequence[float]) -> dict[str, Any]:
    """Return an objective's values on two halves of its rows, by which an optimum is found."""
    found = optimum.halves(sums, sizes)
    return {} if found is None else {optimum.HALVES: list(found)}


def _score(value: float, departures: Sequence[float], count: int) -> dict[str, Any]:
    if count < 2:
        return {"value": value, "n": count, "standard_error": None, "reason": "one row has no spread"}
    variance = math.fsum(one * one for one in departures) / (count - 1)
    return {"value": value, "n": count, "standard_error": math.sqrt(variance / count)}
