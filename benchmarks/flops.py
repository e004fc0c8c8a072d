"""Count the model FLOPs of a DPO step on an adapter: what the mathematics needs, not what a kernel spends.

With one row of T tokens (prompt P, answers of A₁ and A₂ tokens, the prompt once), per layer:

- forward: 2 N T for the weights' multiplications (N: parameters of q, k, v, o, gate, up, down), and 4 h S for scores and
  mixing, with h the width of all heads and S the pairs of a token and one it may look at;
- backward: as much again for the weights (the activations' gradient; the frozen weights have none) and twice the forward's
  for attention. The lowest layer needs no gradient of its input, so its q, k and v, its adapter's first matrices and the
  scores' gradient to its keys have none to compute;
- the adapter: 2 r (in + out) T a module forward, twice that backward (its weights have gradients, too);

and 2 V d (A₁ + A₂) for the vocabulary's projection, forward and again backward. Padding, recomputation, normalization,
softmax and the optimizer are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    def adapter(self) -> int:
        """Parameters of one layer's adapter."""
        return self.rank * (2 * self.hidden + self.queries + self.keys)


def dpo_step(model: Shape, batch: Sequence[dict[str, Any]]) -> float:
    """Count one step on pairs {"prompt": ids, "answers": [chosen ids, rejected ids]}."""
    return float(sum(_pair(model, len(one["prompt"]), *map(len, one["answers"])) for one in batch))


def _pair(model: Shape, prompt: int, chosen: int, rejected: int) -> int:
    tokens = prompt + chosen + rejected
    seen = _triangle(prompt) + sum(answer * prompt + _triangle(answer) for answer in (chosen, rejected))
    weights = 2 * 2 * model.layers * model.layer * tokens - 2 * model.into_attention * tokens
    attention = 3 * model.layers * 4 * model.queries * seen - 2 * model.queries * seen
    adapter = 3 * model.layers * 2 * model.adapter * tokens - 2 * model.rank * 2 * model.hidden * tokens
    vocabulary = 2 * 2 * model.vocabulary * model.hidden * (chosen + rejected)
    return weights + attention + adapter + vocabulary


def _triangle(length: int) -> int:
    """Count the pairs of a token and one at or before it."""
    return length * (length + 1) // 2
