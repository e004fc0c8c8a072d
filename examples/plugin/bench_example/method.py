"""warm_mgda: SFT alone for a while, then the shortest vector between both gradients."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, Field

from bench.methods import Choice, Method, Objective, Phase, Probe, Setup
from bench.settings import Frozen


class WarmMgdaOptions(Frozen):
    """Set how long SFT goes alone."""

    warm_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of the steps that descend SFT alone."""


class WarmMgda(Method):
    """Descend SFT alone, then both by MGDA's closed form for two objectives (arXiv 1810.04650, Algorithm 1).

    The weight of DPO is (|g_S|² - g_D·g_S) / |g_D - g_S|², cut to [0, 1]; λ plays no part.
    """

    Options: ClassVar[type[BaseModel]] = WarmMgdaOptions

    def __init__(self, setup: Setup, options: WarmMgdaOptions) -> None:
        self._warm_steps = self.phases(setup, options)[0].steps

    @staticmethod
    def phases(setup: Setup, options: WarmMgdaOptions) -> tuple[Phase, ...]:
        warm = int(options.warm_share * setup.steps)
        return (Phase(warm, alone=Objective.SFT), Phase(setup.steps - warm))

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: WarmMgdaOptions) -> dict[Objective, float]:
        return {Objective.DPO: 1.0, Objective.SFT: 1.0}

    def choose(self, step: int, probe: Probe) -> Choice:
        if step <= self._warm_steps:
            return Choice({Objective.SFT: 1.0}, phase=0)
        found = probe.gradients()
        dpo, sft = (found.norms[objective] ** 2 for objective in (Objective.DPO, Objective.SFT))
        between = dpo + sft - 2 * found.dot  # |g_D - g_S|²: 0 where both gradients are one
        weight = min(1.0, max(0.0, (sft - found.dot) / between)) if between > 0 else 0.5
        return Choice({Objective.DPO: weight, Objective.SFT: 1 - weight}, phase=1)
