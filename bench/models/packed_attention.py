"""Attention over examples that lie one after another in one row, each computed as if it stood alone.

Nothing is padded, no mask of the whole row is made, and no score is computed that a mask would throw away: an example's
prompt and first answer are one causal stretch, and each further answer looks at the prompt and at itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.models import bf16_matmul, varlen

NAME = "bench_stretches"


@dataclass(frozen=True)
class Stretch:
    """Say where an example lies: a prompt and its answers, in this order.

    Attributes:
        prompt: its length in tokens.
        answers: their lengths in tokens.
        masks: what is added to the scores of answers 2, 3, ...; shapes [answer, prompt + answer]: an answer's token sees
            the prompt and what of its own answer is not after it.
    """

    prompt: int
    answers: tuple[int, ...]
    masks: tuple[Tensor, ...]

    @property
    def pieces(self) -> list[int]:
        """Lengths of what is computed apart: the prompt with the first answer, then each further answer."""
        return [self.prompt + self.answers[0], *self.answers[1:]]


def stretch(prompt: int, answers: Sequence[int], dtype: torch.dtype, device: torch.device) -> Stretch:
    """Return an example's stretch with masks for scores of this type."""
    masks = (_mask(prompt, answer, dtype, device) for answer in answers[1:])
    return Stretch(prompt, tuple(answers), tuple(masks))


def _mask(prompt: int, answer: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return added(torch.ones(answer, prompt + answer, dtype=torch.bool, device=device).tril(prompt), dtype)


def added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn what may be seen into numbers added to scores, which every kernel takes."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)


@dataclass(frozen=True)
class Loop:
    """Hold the stretches of a row that are computed one after another."""

    stretches: tuple[Stretch, ...]


def arguments(
    examples: Sequence[tuple[int, Sequence[int]]], dtype: torch.dtype, device: torch.device, in_one_call: bool = False
) -> dict[str, Any]:
    """Return what a model's forward pass takes beside the ids of examples: (prompt's length, answers' lengths).

    Positions restart with each example and, after its prompt, with each answer. The mask of one element keeps transformers
    from making one of the whole row. Stretches do not look at it; attention that does not know them comes out as NaN and
    not as something plausible.

    Args:
        in_one_call: whether all stretches go to one variable-length call a layer (`varlen`) and not one after another.
    """
    positions: list[int] = []
    for prompt, answers in examples:
        positions += range(prompt)
        for answer in answers:
            positions += range(prompt, prompt + answer)
    return {
        "position_ids": torch.tensor([positions], device=device),
        "stretches": (
            varlen.plan(examples, device)
            if in_one_call
            else Loop(tuple(stretch(*one, dtype, device) for one in examples))
        ),
        "attention_mask": torch.full((1, 1, 1, 1), torch.nan, dtype=dtype, device=device),
    }


def installed(model: Any) -> bool:
    """Say whether a model's attention takes stretches."""
    return bool(getattr(model.config.get_text_config(), "_attn_implementation", None) == NAME)


def install(model: Any) -> bool:
    """Let a model's attention take stretches; everything else it computes as before.

    Returns:
        False where that is not known to be safe: the model does not choose its attention by name, or computes it in a way
        of its own.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    now = getattr(model.config.get_text_config(), "_attn_implementation", None)
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    if not (now == "sdpa" or (now == "eager" and capped)):
        return False
    AttentionInterface.register(NAME, forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return True


def forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    stretches: Loop | varlen.Plan | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute attention as transformers calls it. Shapes: query [rows, heads, length, head size]; key and value may have
    fewer heads; returns [rows, length, heads, head size].

    Raises:
        ValueError: the model wants something of its attention that stretches do not know.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    # On a CPU PyTorch's attention is slow backward in bfloat16, with a unit for it, too.
    if bf16_matmul.worth_widening(query, query.shape[0] * query.shape[2]):
        wide = (query.float(), key.float(), value.float(), _as_scores(attention_mask, torch.float32))
        mixed, _ = forward(module, *wide, dropout, scaling, stretches, softcap, **others)
        return mixed.to(query.dtype), None
    if stretches is None and softcap is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return plain
    if stretches is not None:
        _refuse_unknown(others)
    if isinstance(stretches, varlen.Plan):
        if softcap is not None or dropout:
            raise ValueError("one call for all stretches knows neither capped scores nor dropout")
        return varlen.attend(query, key, value, stretches, scaling), None
    key, value = (_for_all_heads(one, query.shape[1]) for one in (key, value))
    settings: dict[str, Any] = {"dropout_p": dropout, "scale": scaling, "softcap": softcap}
    if stretches is None:
        causal = attention_mask is None and query.shape[2] > 1
        return _attend(query, key, value, attention_mask, causal, **settings).transpose(1, 2).contiguous(), None
    return _by_stretch(query, key, value, stretches, settings), None


def _refuse_unknown(others: dict[str, Any]) -> None:
    unknown = [name for name in ("position_bias", "s_aux") if others.get(name) is not None]
    if unknown:
        raise ValueError(f"attention with {unknown[0]} cannot take stretches")


def leave_loop_to_python() -> None:
    """Have compilers step over the loop over stretches, whose lengths are others in every batch."""
    global _by_stretch
    if not hasattr(_by_stretch, "_torchdynamo_disable"):
        disable: Any = torch.compiler.disable
        _by_stretch = disable(_by_stretch)


def _by_stretch(query: Tensor, key: Tensor, value: Tensor, row: Loop, settings: dict[str, Any]) -> Tensor:
    lengths = [length for one in row.stretches for length in one.pieces]
    # Split once: what a slice of the whole row hands back is a gradient of the whole row's size.
    queries, keys, values = (iter(torch.split(whole, lengths, dim=2)) for whole in (query, key, value))
    mixed = []
    for one in row.stretches:
        first_key, first_value = next(keys), next(values)
        mixed.append(_attend(next(queries), first_key, first_value, None, True, **settings))
        for mask in one.masks:
            seen_key = torch.cat([first_key[:, :, : one.prompt], next(keys)], dim=2)
            seen_value = torch.cat([first_value[:, :, : one.prompt], next(values)], dim=2)
            mixed.append(_attend(next(queries), seen_key, seen_value, mask, False, **settings))
    return torch.cat([piece.transpose(1, 2) for piece in mixed], dim=1)


def _for_all_heads(tensor: Tensor, heads: int) -> Tensor:
    """Give each head its key or value: heads of a group share one."""
    rows, groups, length, size = tensor.shape
    if groups == heads:
        return tensor
    return tensor[:, :, None].expand(rows, groups, heads // groups, length, size).reshape(rows, heads, length, size)


def _as_scores(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return mask if mask is None or mask.dtype is torch.bool else mask.to(dtype)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    *,
    dropout_p: float,
    scale: float | None,
    softcap: float | None,
) -> Tensor:
    mask = _as_scores(mask, query.dtype)
    if softcap is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout_p, is_causal=causal, scale=scale
        )
    scores = query @ key.transpose(2, 3) * (scale if scale is not None else query.shape[-1] ** -0.5)
    scores = torch.tanh(scores / softcap) * softcap
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype is torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    weights = F.dropout(scores.softmax(-1, dtype=torch.float32).to(query.dtype), dropout_p)
    return weights @ value
