"""scaled_dpo: λ times the DPO optimum's update of the weights, without training."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from bench.recipes import Making
from bench.registry import NoOptions


class ScaledDpo:
    """Take λ of the DPO optimum: ΔW = λ B A, with its LoRA scale."""

    Options: ClassVar[type[BaseModel]] = NoOptions
    needs: ClassVar[tuple[str, ...]] = ("optimum_dpo",)
    untrained: ClassVar[str | None] = "no training of its own: the DPO optimum's update is scaled"
    reductions: ClassVar[tuple[str, ...]] = ("token_mean", "sequence_sum")

    def __init__(self, options: NoOptions) -> None:
        """Keep nothing."""

    def produce(self, making: Making) -> None:
        making.policy.attach_sum({"optimum_dpo": (making.adapters["optimum_dpo"], making.lambda_dpo)})
