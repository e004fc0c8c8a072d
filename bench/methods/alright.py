"""ALRIGHT: alternate at random, in proportion to λ (Algorithm 2)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from bench.methods import Choice, Method, NoOptions, Objective, Probe, Setup
from bench.records.work import Work


class Alright(Method):
    """Draw i_t ~ Bernoulli(λ) and descend DPO if it is 1 (Eq. 12), SFT otherwise (Eq. 13).

    The ends of its runs are the reference front.
    """

    makes_front: ClassVar[bool] = True

    def __init__(self, setup: Setup, options: NoOptions) -> None:
        self._lambda_dpo = setup.lambda_dpo
        self._random = random.Random(f"alright {setup.seed}")

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: NoOptions) -> dict[Objective, float]:
        return {Objective.DPO: lambda_dpo, Objective.SFT: 1 - lambda_dpo}

    @staticmethod
    def work(lambda_dpo: float, options: NoOptions) -> frozenset[Work]:
        return frozenset({Work.DPO, Work.SFT})

    def choose(self, step: int, probe: Probe) -> Choice:
        # random() lies in [0, 1), so λ = 0 never draws DPO and λ = 1 always does.
        drawn = self._random.random() < self._lambda_dpo
        return Choice({Objective.DPO if drawn else Objective.SFT: 1.0})

    def state(self) -> dict[str, Any]:
        version, internal, gauss = self._random.getstate()
        return {"random": [version, list(internal), gauss]}

    def restore(self, state: Mapping[str, Any]) -> None:
        version, internal, gauss = state["random"]
        self._random.setstate((version, tuple(internal), gauss))
