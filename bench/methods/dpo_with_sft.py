"""DPO with an SFT term on the chosen answers: the mix that TRL offers within one data set (its loss types sigmoid and sft)."""

from __future__ import annotations

from bench.methods import Choice, Method, Need, NoOptions, Objective, Probe, Setup
from bench.records.work import Work


class DpoWithSft(Method):
    """Descend λ f_DPO + (1 − λ) f_SFT, the second on the chosen answers of the same pairs; instruction rows are not used.

    Both come from one forward pass (Pang et al. 2024, arXiv 2404.19733, Eq. 1, up to the weights).
    """

    def __init__(self, setup: Setup, options: NoOptions) -> None:
        self._choice = Choice({Objective.DPO: setup.lambda_dpo}, chosen_sft=1 - setup.lambda_dpo)

    @staticmethod
    def needs(options: NoOptions) -> frozenset[Need]:
        return frozenset({Need.CHOSEN_ANSWERS})

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: NoOptions) -> dict[Objective, float]:
        return {Objective.DPO: 1.0, Objective.SFT: 0.0}

    @staticmethod
    def work(lambda_dpo: float, options: NoOptions) -> frozenset[Work]:
        return frozenset({Work.DPO_WITH_CHOSEN})

    def choose(self, step: int, probe: Probe) -> Choice:
        return self._choice
