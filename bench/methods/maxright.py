"""MAXRIGHT: descend the objective that is farther from its optimum (Algorithms 3 and 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bench.methods import Choice, Objective, Probe, Setup


class MaxrightOptions(BaseModel):
    """Set how often both objectives are evaluated: every `max_eval_every` steps; 1 is Algorithm 3."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_eval_every: int = Field(default=1, ge=1)


class Maxright:
    """Descend the objective with the larger weighted gap, λ (f_DPO − f*_DPO) or (1 − λ) (f_SFT − f*_SFT).

    Both gaps are probed at step 1 and at every multiple of k (Algorithm 4, line 6); in between, the gap of the objective
    just descended is overwritten with its loss before the update (Eq. 19) and the choice is made on stale gaps (Eq. 18).
    A tie goes to DPO (Algorithm 3, line 5). At λ = 0 or 1 one weight is 0 and nothing is probed: the other objective is
    descended, where the rule as written would pick the weight-0 objective on any batch below its optimum.
    """

    Options = MaxrightOptions
    needs_optima = True

    def __init__(self, setup: Setup, options: MaxrightOptions) -> None:
        self._weights = {Objective.DPO: setup.lambda_dpo, Objective.SFT: 1 - setup.lambda_dpo}
        self._optimum = setup.optimum
        self._every = options.max_eval_every
        self._gaps: dict[Objective, float] = {}

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: MaxrightOptions) -> dict[Objective, float]:
        return {Objective.DPO: lambda_dpo, Objective.SFT: 1 - lambda_dpo}

    def choose(self, step: int, probe: Probe) -> Choice:
        for objective, weight in self._weights.items():
            if weight == 1:
                return Choice({objective: 1.0})
        if step == 1 or step % self._every == 0:
            self._gaps = {objective: self._gap(objective, probe(objective)) for objective in self._weights}
        dpo, sft = self._gaps[Objective.DPO], self._gaps[Objective.SFT]
        return Choice({Objective.DPO if dpo >= sft else Objective.SFT: 1.0})

    def observe(self, losses: Mapping[Objective, float]) -> None:
        for objective, loss in losses.items():
            self._gaps[objective] = self._gap(objective, loss)

    def state(self) -> dict[str, Any]:
        return {"gaps": {str(objective): gap for objective, gap in self._gaps.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._gaps = {Objective(name): gap for name, gap in state["gaps"].items()}

    def _gap(self, objective: Objective, loss: float) -> float:
        """Weigh a batch's loss against the optimum (Eq. 16, 17); negative on a batch easier than the optimum's average."""
        return self._weights[objective] * (loss - self._optimum[objective])
