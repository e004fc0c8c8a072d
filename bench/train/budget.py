"""The suite key `training.budget: tokens`: how many tokens a joint run may train on, so that recipes compare at equal tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.data.tokens import Datasets
from bench.methods import Objective
from bench.models.objectives import Layout, tokens_of
from bench.settings import PerObjective


def tokens(datasets: Datasets, batch_size: PerObjective, layout: Layout, settings: Mapping[str, Any]) -> float | None:
    """Return the tokens of the matching Sequential run: its steps on each objective times the mean tokens of a batch.

    Tokens are those that take part in a gradient; probes do not count. None: the job's settings set no such budget.
    """
    budget = settings.get("budget")
    if budget is None:
        return None
    total = 0.0
    for name, steps in budget["tokens_of_phases"]:
        examples = datasets.train[Objective(name)].examples
        mean = sum(tokens_of(example, layout) for example in examples) / len(examples)
        total += steps * getattr(batch_size, name) * mean
    return total
