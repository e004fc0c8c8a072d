"""The tokens on which a model is tried when it is loaded, to see which fast ways it can take.

A sentence, because tokens without sense carry rounding far: in bfloat16 two layouts of them were seen three nats apart.
"""

from __future__ import annotations

from typing import Any

import torch

SENTENCE = (
    "The river that runs through the old town is long and wide, and there are boats on it all through the summer."
)


def tokens(tokenizer: Any, count: int, vocabulary: int) -> list[int]:
    """Return the sentence's first tokens, from its start again where it has fewer, within a model's vocabulary."""
    ids: list[int] = tokenizer.encode(SENTENCE, add_special_tokens=False)
    return [token % vocabulary for token in (ids * -(-count // len(ids)))[:count]]


def agree(logps: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    """Say whether log-probabilities of two layouts, computed in this type, are the same but for rounding.

    They are as exact as the logits they come from: half a nat of 27 was seen in bfloat16 between stock lm-eval's answers to
    requests alone and together. A wrong layout is off by whole nats.
    """
    least = 1e-3 if dtype is torch.float32 else 0.2
    return torch.allclose(logps, expected, atol=least, rtol=4 * torch.finfo(dtype).eps)
