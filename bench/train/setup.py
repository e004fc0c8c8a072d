"""What a run's method is told, from the labels of its job: the same while planning and while training. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.methods import Objective, Setup
from bench.records.spec import RunLabels


def setup_of(
    labels: RunLabels,
    steps: int,
    optimum: Mapping[Objective, float] | None = None,
    batch_optimum: Callable[[Objective], float] | None = None,
) -> Setup:
    """Return the setup of a run of so many steps; the optima are known once it trains."""
    first, second = (Objective(name) for name in labels.order.split("_"))
    phase_steps = {Objective(name): count for name, count in (labels.phase_steps or {}).items()}
    # An optimum has no λ; Sequential, which trains it, does not look.
    return Setup(
        labels.lambda_dpo or 0.0, steps, labels.seed, phase_steps, (first, second), optimum or {}, batch_optimum
    )
