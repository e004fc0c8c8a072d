"""MAXRIGHT: descend the objective that is farther from its optimum (Algorithms 3 and 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from bench.methods import Choice, Method, Need, Objective, Probe, Setup
from bench.records.work import Work
from bench.settings import Frozen


class OptimumByNumber(Frozen):
    """Give f* of both objectives."""

    dpo: float
    """f*_DPO in nats."""
    sft: float
    """f*_SFT in nats."""


class MaxrightOptions(Frozen):
    """Set how often both objectives are evaluated, and what a batch's loss is compared with."""

    max_eval_every: int = Field(default=1, ge=1)
    """Steps between two looks at both objectives; 1 is Algorithm 3."""
    gaps: Literal["paired"] | None = None
    """`paired` compares a batch's loss with the optimum's on the same rows; `null`: with f*, its mean over a sample of
    training rows."""
    optimum: OptimumByNumber | None = None
    """f* by number instead of the optima's; not with `gaps: paired`."""

    @model_validator(mode="after")
    def _one_optimum(self) -> MaxrightOptions:
        if self.gaps == "paired" and self.optimum is not None:
            raise ValueError("optimum: f* by number is the same for every batch, so it does not go with gaps: paired")
        return self


class Maxright(Method):
    """Descend the objective with the larger weighted gap, λ (f_DPO − f*_DPO) or (1 − λ) (f_SFT − f*_SFT).

    Both gaps are probed at step 1 and at every multiple of k (Algorithm 4, line 6); in between, the gap of the objective
    just descended is overwritten with its loss before the update (Eq. 19) and the choice is made on stale gaps (Eq. 18).
    A tie goes to DPO (Algorithm 3, line 5). At λ = 0 or 1 one weight is 0 and nothing is probed: the other objective is
    descended, where the rule as written would pick the weight-0 objective on any batch below its optimum.
    """

    Options: ClassVar[type[BaseModel]] = MaxrightOptions

    def __init__(self, setup: Setup, options: MaxrightOptions) -> None:
        self._weights = {Objective.DPO: setup.lambda_dpo, Objective.SFT: 1 - setup.lambda_dpo}
        self._optimum = setup.optimum
        if options.optimum is not None:
            self._optimum = {objective: getattr(options.optimum, objective) for objective in Objective}
        self._batch_optimum = setup.batch_optimum if options.gaps == "paired" else None
        self._every = options.max_eval_every
        self._gaps: dict[Objective, float] = {}

    @staticmethod
    def needs(options: MaxrightOptions) -> frozenset[Need]:
        if options.gaps == "paired":
            return frozenset({Need.ROW_OPTIMUM})
        return frozenset() if options.optimum else frozenset({Need.OPTIMUM})

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: MaxrightOptions) -> dict[Objective, float]:
        return {Objective.DPO: lambda_dpo, Objective.SFT: 1 - lambda_dpo}

    @staticmethod
    def work(lambda_dpo: float, options: MaxrightOptions) -> frozenset[Work]:
        return frozenset({Work.DPO, Work.SFT, Work.PROBE_DPO, Work.PROBE_SFT})

    def choose(self, step: int, probe: Probe) -> Choice:
        for objective, weight in self._weights.items():
            if weight == 1:
                return Choice({objective: 1.0})
        if step == 1 or step % self._every == 0:
            self._gaps = {objective: self._gap(objective, probe(objective)) for objective in self._weights}
        dpo, sft = self._gaps[Objective.DPO], self._gaps[Objective.SFT]
        return Choice({Objective.DPO if dpo >= sft else Objective.SFT: 1.0}, gaps=dict(self._gaps))

    def observe(self, losses: Mapping[Objective, float]) -> None:
        for objective, loss in losses.items():
            self._gaps[objective] = self._gap(objective, loss)

    def state(self) -> dict[str, Any]:
        return {"gaps": {str(objective): gap for objective, gap in self._gaps.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._gaps = {Objective(name): gap for name, gap in state["gaps"].items()}

    def _gap(self, objective: Objective, loss: float) -> float:
        """Weigh a batch's loss against the optimum (Eq. 16, 17); negative where the optimum's own loss is larger.

        Against f*, an average, every batch that is easier than the average is; against the same rows, only a better fit.
        """
        optimum = self._batch_optimum(objective) if self._batch_optimum else self._optimum[objective]
        return self._weights[objective] * (loss - optimum)
