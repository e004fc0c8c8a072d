"""Weight interpolation of the two optima, or model averaging (Lin et al. 2023, arXiv 2309.06256): no training of its own."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from bench.methods import NoOptions
from bench.recipes import Making


class Interpolation:
    """Add up the optima's updates of the weights: ΔW = λ B_D A_D + (1 − λ) B_S A_S, each with its LoRA scale.

    The average is taken of the products, not of the factors, so the adapter has the rank of both together.
    """

    Options: ClassVar[type[BaseModel]] = NoOptions
    needs: ClassVar[tuple[str, ...]] = ("optimum_dpo", "optimum_sft")
    untrained: ClassVar[str | None] = "no training of its own: the two optima's weights are added up"
    reductions: ClassVar[tuple[str, ...]] = ("token_mean", "sequence_sum")

    def __init__(self, options: NoOptions) -> None:
        """Keep nothing."""

    def produce(self, making: Making) -> None:
        weights = {"optimum_dpo": making.lambda_dpo, "optimum_sft": 1 - making.lambda_dpo}
        making.policy.attach_sum({name: (making.adapters[name], weight) for name, weight in weights.items()})
