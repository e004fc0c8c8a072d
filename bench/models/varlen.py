"""All stretches of a row in one variable-length flash-attention call a layer, on a GPU that has the kernel.

A piece is a prompt with its first answer, or a further answer. Each piece's queries lie where they lay in the row; what it sees
is gathered behind one another: a further answer gets the prompt's keys and its own. Causal masks of unequal lengths
are aligned at the bottom right, so that its tokens see the whole prompt and what of their own answer is not after them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.bfloat16, torch.float16)
# The kernel takes the longest lengths as bounds. Rounded up, they are few, and what is compiled for one is used again.
LEAST_BOUND = 128

# query, key, value [tokens, heads, size], offsets of queries and of keys, longest query, longest key, scale.
Operator = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int, float | None], Tensor]


@dataclass(frozen=True)
class Plan:
    """Say where the pieces of a row lie; made once a batch, used by every layer.

    Attributes:
        queries: where each piece's queries begin, and where the last one's end; int32, shape [pieces + 1].
        keys: the same of the gathered keys.
        seen: which token's key and value stands at each gathered place, shape [gathered]; None where it is the row itself.
        longest_query, longest_key: bounds of the pieces' lengths.
    """

    queries: Tensor
    keys: Tensor
    seen: Tensor | None
    longest_query: int
    longest_key: int


def plan(examples: Sequence[tuple[int, Sequence[int]]], device: torch.device) -> Plan:
    """Return the plan of examples that lie in one row: (prompt's length, answers' lengths)."""
    queries: list[int] = []
    keys: list[int] = []
    seen: list[int] = []
    start = 0
    for prompt, answers in examples:
        after = start + prompt
        for number, answer in enumerate(answers):
            queries.append(answer if number else prompt + answer)
            keys.append(prompt + answer)
            seen += [*range(start, start + prompt), *range(after, after + answer)]
            after += answer
        start = after
    gathered = torch.tensor(seen, device=device) if len(seen) > start else None
    return Plan(_offsets(queries, device), _offsets(keys, device), gathered, _bound(max(queries)), _bound(max(keys)))


def _offsets(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


def _bound(length: int) -> int:
    """Return the least power of two that is no smaller, and at least 128."""
    return max(LEAST_BOUND, 1 << (length - 1).bit_length())


def attend(query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float | None) -> Tensor:
    """Attend piece by piece in one call.

    Shapes: query [1, heads, length, size]; key and value [1, groups, length, size]; returns [1, length, heads, size].
    """
    query, key, value = (one[0].transpose(0, 1) for one in (query, key, value))
    if plan.seen is not None:
        key, value = key.index_select(0, plan.seen), value.index_select(0, plan.seen)
    bounds = (plan.longest_query, plan.longest_key)
    return operator()(query, key, value, plan.queries, plan.keys, *bounds, scale).unsqueeze(0)


def operator() -> Operator:
    """Return the kernel: PyTorch's own function where this version's can do all that is needed, else the operator below it."""
    return _operator()


@functools.cache
def _operator() -> Operator:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return _by_aten
    known = inspect.signature(varlen_attn).parameters
    return _by_torch if {"scale", "window_size", "enable_gqa"} <= known.keys() else _by_aten


def _by_torch(
    query: Tensor, key: Tensor, value: Tensor, queries: Tensor, keys: Tensor, most: int, seen: int, scale: float | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    grouped = query.shape[1] != key.shape[1]
    mixed: Any = varlen_attn(
        query, key, value, queries, keys, most, seen, scale=scale, window_size=(-1, 0), enable_gqa=grouped
    )
    return mixed  # type: ignore[no-any-return]


def _by_aten(
    query: Tensor, key: Tensor, value: Tensor, queries: Tensor, keys: Tensor, most: int, seen: int, scale: float | None
) -> Tensor:
    called: Any = torch.ops.aten._flash_attention_forward
    # No dropout, causal, no mask for debugging.
    mixed: Tensor = called(query, key, value, queries, keys, most, seen, 0.0, True, False, scale=scale)[0]
    return mixed


def reason_against(model: Any, device: torch.device) -> str | None:
    """Say why a model's attention cannot go this way, as far as its settings tell; None: it is worth trying."""
    config = model.config.get_text_config()
    if device.type != "cuda":
        return "not on a GPU"
    if model.dtype not in DTYPES:
        return f"the kernel does not take {str(model.dtype).removeprefix('torch.')}"
    if getattr(config, "attn_logit_softcapping", None):
        return "the model caps its scores"
    if getattr(config, "attention_dropout", 0.0):
        return "the model drops attention weights"
    return None
