"""The vocabulary projection: hidden states → log-probabilities of given tokens, with few logits in memory at once.

A batch's logits, tokens × vocabulary in float32, can outweigh the model. Above `CHUNK_LOGITS` they are made, used and
dropped chunk by chunk; a smaller batch is one plain cross-entropy and pays nothing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bench.models import bf16_matmul

# Logits in memory at once: on a CPU 24 MiB, which stay in its cache from one pass over them to the next.
CHUNK_LOGITS = {"cpu": 3 << 21}
CHUNK_LOGITS_ELSEWHERE = 1 << 24
# Tokens for which a part of a frozen vocabulary is read once.
BLOCK_TOKENS = {"cpu": 1 << 10}
BLOCK_TOKENS_ELSEWHERE = 1 << 12


def token_logps(head: Any, hidden: Tensor, targets: Tensor, cap: float | None = None) -> Tensor:
    """Return log softmax(head(hidden)) of each target, in nats and float32.

    Args:
        head: the output embeddings.
        hidden: shape [tokens, hidden size].
        targets: shape [tokens].
        cap: logits are softly held within ±cap, as Gemma 2 does; None: they are not.
    """
    device, vocabulary = hidden.device.type, getattr(head, "out_features", 1)
    chunk = CHUNK_LOGITS.get(device, CHUNK_LOGITS_ELSEWHERE)
    at_once = max(1, chunk // vocabulary)
    if len(targets) <= at_once:
        return _plain(head, hidden, targets, cap)
    frozen: Any = _FrozenHead
    if cap is None and type(head) is torch.nn.Linear and not any(one.requires_grad for one in head.parameters()):
        blocks = _pieces(hidden, targets, min(chunk, BLOCK_TOKENS.get(device, BLOCK_TOKENS_ELSEWHERE)))
        return torch.cat([frozen.apply(*block, head, chunk) for block in blocks])
    pieces = _pieces(hidden, targets, at_once)
    if not torch.is_grad_enabled():
        return torch.cat([_plain(head, *piece, cap) for piece in pieces])
    return torch.cat([checkpoint(_plain, head, *piece, cap, use_reentrant=False) for piece in pieces])


def float32_logits(head: torch.nn.Linear, hidden: Tensor) -> Tensor:
    """Return head(hidden) in float32 and not rounded to the weights' dtype, whose steps near the top make different logits equal.

    The vocabulary's weights are widened a part at a time. Shapes: hidden [..., hidden size]; logits [..., vocabulary].
    """
    weight = bf16_matmul.weight_of(head)
    wide = hidden.float()
    width = max(1, CHUNK_LOGITS.get(hidden.device.type, CHUNK_LOGITS_ELSEWHERE) // weight.shape[1])
    parts = torch.split(weight, width)
    logits = torch.cat([wide @ part.float().T for part in parts], dim=-1)
    return logits if head.bias is None else logits + head.bias.float()


def _pieces(hidden: Tensor, targets: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    count = -(-len(targets) // size)
    return list(zip(hidden.tensor_split(count), targets.tensor_split(count), strict=True))


def _plain(head: Any, hidden: Tensor, targets: Tensor, cap: float | None) -> Tensor:
    logits = head(hidden)
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    return -F.cross_entropy(logits.float(), targets, reduction="none")


class _FrozenHead(torch.autograd.Function):
    """Compute log-probabilities a part of the vocabulary at a time, and with them their gradient.

    ∂ log p(target) / ∂ hidden = (1 − p(target)) W[target] − Σ_{v ≠ target} p(v) W[v]. Its sum and log p's grow part by part,
    relative to the largest logit so far; once they are complete no logits are needed again, and what comes from above is a
    factor a token. Only this vector is kept, of the size of the hidden states.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: torch.nn.Linear, chunk: int) -> Tensor:
        weight, wanted = bf16_matmul.weight_of(head), ctx.needs_input_grad[0]
        width = min(len(weight), chunk // len(targets))
        # One piece of memory for all parts: memory that is new each time costs a page fault every 4 KiB.
        space = torch.empty(len(targets) * width, device=hidden.device)
        chosen = torch.zeros(len(targets), 1, device=hidden.device)
        largest, others = torch.full_like(chosen, -torch.inf), torch.zeros_like(chosen)
        mixed = torch.zeros(hidden.shape, device=hidden.device) if wanted else None
        for start in range(0, len(weight), width):
            part = weight[start : start + width]
            logits = space[: len(targets) * len(part)].view(len(targets), len(part))
            _product(hidden, part, None if head.bias is None else head.bias[start : start + width], logits)
            column = targets[:, None] - start
            inside = (column >= 0) & (column < len(part))
            column = column.clamp(0, len(part) - 1)
            chosen = torch.where(inside, logits.gather(1, column), chosen)
            before, largest = largest, torch.maximum(largest, logits.amax(-1, keepdim=True))
            exponentials = logits.sub_(largest).exp_()
            # Without the target, so that 1 − p(target) is exact where the target is all but certain.
            exponentials.scatter_(1, column, exponentials.gather(1, column).masked_fill_(inside, 0))
            shrunk = (before - largest).exp_()
            others.mul_(shrunk).add_(exponentials.sum(-1, keepdim=True))
            if mixed is not None:
                mixed.mul_(shrunk).add_(exponentials.to(part.dtype) @ part)
        total = others + (chosen - largest).exp_()
        if mixed is not None:
            ctx.save_for_backward((weight[targets] * others).sub_(mixed).div_(total).to(hidden.dtype))
        return (chosen - largest - total.log())[:, 0]

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * above[0][:, None]).to(gradient.dtype), None, None, None


def _product(hidden: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """Write hidden · weightᵀ + bias into float32 `out`, rounded as the model's own projection rounds it."""
    if weight.dtype is not torch.float32:
        out.copy_(F.linear(hidden, weight, bias))
        return
    torch.mm(hidden.float(), weight.T, out=out)
    if bias is not None:
        out.add_(bias)
    if hidden.dtype is not torch.float32:
        out.copy_(out.to(hidden.dtype))
