"""Sequential: one objective after the other (Algorithm 1)."""

from __future__ import annotations

from typing import ClassVar

from bench.methods import Choice, Method, NoOptions, Objective, Phase, Probe, Setup, Target
from bench.records.work import Work


class Sequential(Method):
    """Descend the first objective for its phase, then the second (Eq. 7, 8).

    The second phase goes on with the same weights and a new optimizer. An optimum is a Sequential run whose second
    phase is empty. What others are held against, it is not itself: it takes all its steps.
    """

    stops_at: ClassVar[frozenset[Target]] = frozenset()

    def __init__(self, setup: Setup, options: NoOptions) -> None:
        self._first, self._second = setup.order
        self._first_steps = setup.phase_steps[self._first]

    @staticmethod
    def phases(setup: Setup, options: NoOptions) -> tuple[Phase, ...]:
        return tuple(Phase(setup.phase_steps[objective], objective) for objective in setup.order)

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: NoOptions) -> dict[Objective, float]:
        return {Objective.DPO: lambda_dpo, Objective.SFT: 1 - lambda_dpo}

    @staticmethod
    def work(lambda_dpo: float, options: NoOptions) -> frozenset[Work]:
        return frozenset({Work.DPO, Work.SFT})

    def choose(self, step: int, probe: Probe) -> Choice:
        if step <= self._first_steps:
            return Choice({self._first: 1.0}, phase=0)
        return Choice({self._second: 1.0}, phase=1)
