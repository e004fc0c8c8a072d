"""Mix: descend the weighted sum of both objectives at every step (the objective of Eq. 6)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel

from bench.methods import Choice, Method, Objective, Probe, Setup
from bench.records.work import Work
from bench.settings import Frozen


class MixOptions(Frozen):
    """Choose whether both graphs are alive at once."""

    backward: Literal["joint", "accumulate"] = "joint"
    """`joint`: both graphs in memory at once, as the paper's baseline; `accumulate`: one after the other."""


class Mix(Method):
    """Descend λ f_DPO + (1 − λ) f_SFT, one batch of each a step."""

    Options: ClassVar[type[BaseModel]] = MixOptions

    def __init__(self, setup: Setup, options: MixOptions) -> None:
        weights = {Objective.DPO: setup.lambda_dpo, Objective.SFT: 1 - setup.lambda_dpo}
        self._choice = Choice(
            {objective: weight for objective, weight in weights.items() if weight > 0},
            joint_backward=options.backward == "joint",
        )

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: MixOptions) -> dict[Objective, float]:
        return {Objective.DPO: float(lambda_dpo > 0), Objective.SFT: float(lambda_dpo < 1)}

    @staticmethod
    def work(lambda_dpo: float, options: MixOptions) -> frozenset[Work]:
        if not 0 < lambda_dpo < 1:
            return frozenset({Work.DPO, Work.SFT})
        return frozenset({Work.JOINT if options.backward == "joint" else Work.ACCUMULATE})

    def choose(self, step: int, probe: Probe) -> Choice:
        return self._choice
