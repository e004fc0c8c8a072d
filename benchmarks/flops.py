"""Count the model FLOPs of a step on an adapter on q and v, from the sizes of a Llama-like model: see bench/models/flops.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.models import flops

SMOLLM2 = {"layers": 30, "hidden": 576, "heads": 9, "key_heads": 3, "head": 64, "inner": 1536, "vocabulary": 49152}


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama-like model and of the adapter on its q and v."""

    layers: int
    hidden: int
    heads: int
    key_heads: int
    head: int
    inner: int
    vocabulary: int
    rank: int

    @property
    def queries(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head

    @property
    def keys(self) -> int:
        """Width of all key heads together."""
        return self.key_heads * self.head

    @property
    def into_attention(self) -> int:
        """Parameters of q, k and v in one layer."""
        return self.hidden * (self.queries + 2 * self.keys)

    @property
    def layer(self) -> int:
        """Parameters of one layer's matrices."""
        return self.into_attention + self.queries * self.hidden + 3 * self.hidden * self.inner

    @property
    def sizes(self) -> flops.Sizes:
        """All layers' matrices together."""
        return flops.Sizes(
            weights=self.layers * self.layer,
            lowest=self.into_attention,
            adapter=self.layers * self.rank * (2 * self.hidden + self.queries + self.keys),
            adapter_lowest=self.rank * 2 * self.hidden,
            layers=self.layers,
            queries=self.queries,
            vocabulary=self.vocabulary * self.hidden,
        )


def dpo_step(model: Shape, batch: Sequence[dict[str, Any]]) -> float:
    """Count one step on pairs {"prompt": ids, "answers": [chosen ids, rejected ids]}."""
    total = 0
    for one in batch:
        lengths = len(one["prompt"]), [len(ids) for ids in one["answers"]]
        total += flops.forward(model.sizes, *lengths) + flops.backward(model.sizes, *lengths)
    return float(total)
