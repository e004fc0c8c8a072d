"""Attention of a single new token over a key-value cache whose heads are shared, without copying it for each head.

With a mask PyTorch's attention wants keys and values for every head, so that transformers repeats them: of Llama-3-8B the whole
cache is written four times at each token. But the heads that share a key see the same positions; as one token has only one place,
they can stand where its neighbours would, as further queries of one head. The products are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from bench.models import packed_attention

NAME = "bench_grouped"


@contextmanager
def installed(model: Any) -> Iterator[None]:
    """Let a model's attention take shared heads together for a while, where it is PyTorch's own and without a soft cap."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    config = model.config.get_text_config()
    before = getattr(config, "_attn_implementation", None)
    if before not in ("sdpa", packed_attention.NAME) or getattr(config, "attn_logit_softcapping", None):
        yield
        return
    AttentionInterface.register(NAME, forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute attention as transformers calls it. Shapes: query [rows, heads, length, head size]; key and value may have
    fewer heads; returns [rows, length, heads, head size]. What is not a single token's goes transformers' way.
    """
    rows, heads, length, size = query.shape
    groups = key.shape[1]
    of_all_heads = attention_mask is None or (attention_mask.dim() == 4 and attention_mask.shape[1:3] == (1, 1))
    plain = not any(others.get(name) is not None for name in ("position_bias", "s_aux", "softcap"))
    if length > 1 or heads == groups or not of_all_heads or not plain:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        made: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return made
    together = query.reshape(rows, groups, heads // groups, size)
    mixed = F.scaled_dot_product_attention(
        together, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return mixed.reshape(rows, 1, heads, size), None
