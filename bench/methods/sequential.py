"""Sequential: one objective after the other (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.methods import Choice, NoOptions, Objective, Probe, Setup, needs_nothing


class Sequential:
    """Descend the first objective for its phase, then the second (Eq. 7, 8).

    The second phase goes on with the same weights and a new optimizer. An optimum is a Sequential run whose second
    phase is empty.
    """

    Options = NoOptions
    needs = staticmethod(needs_nothing)

    def __init__(self, setup: Setup, options: NoOptions) -> None:
        self._first, self._second = setup.order
        self._first_steps = setup.phase_steps[self._first]

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: NoOptions) -> dict[Objective, float]:
        return {Objective.DPO: lambda_dpo, Objective.SFT: 1 - lambda_dpo}

    def choose(self, step: int, probe: Probe) -> Choice:
        if step <= self._first_steps:
            return Choice({self._first: 1.0}, phase=0)
        return Choice({self._second: 1.0}, phase=1)

    def observe(self, losses: Mapping[Objective, float]) -> None:
        """Learn nothing: the schedule is fixed."""

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on: the step number is the whole state."""
