"""The vocabulary projection: hidden states → log-probabilities of given tokens, in chunks on long batches.

A batch's logits, tokens × vocabulary in float32, can outweigh the model. Above `CHUNK_LOGITS` they are made, used and
dropped chunk by chunk; a smaller batch is one plain cross-entropy and pays nothing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_LOGITS = 1 << 24  # logits in memory at once, 64 MiB


def token_logps(head: Any, hidden: Tensor, targets: Tensor, cap: float | None = None) -> Tensor:
    """Return log softmax(head(hidden)) of each target, in nats and float32.

    Args:
        head: the output embeddings.
        hidden: shape [tokens, hidden size].
        targets: shape [tokens].
        cap: logits are softly held within ±cap, as Gemma 2 does; None: they are not.
    """
    size = max(1, CHUNK_LOGITS // getattr(head, "out_features", 1))
    if len(targets) <= size:
        return _plain(head, hidden, targets, cap)
    count = -(-len(targets) // size)
    pieces = list(zip(hidden.tensor_split(count), targets.tensor_split(count), strict=True))
    if not torch.is_grad_enabled():
        return torch.cat([_plain(head, *piece, cap) for piece in pieces])
    frozen: Any = _FrozenHead
    if cap is None and type(head) is torch.nn.Linear and not any(one.requires_grad for one in head.parameters()):
        return torch.cat([frozen.apply(*piece, head.weight, head.bias) for piece in pieces])
    return torch.cat([checkpoint(_plain, head, *piece, cap, use_reentrant=False) for piece in pieces])


def _plain(head: Any, hidden: Tensor, targets: Tensor, cap: float | None) -> Tensor:
    logits = head(hidden)
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    return -F.cross_entropy(logits.float(), targets, reduction="none")


class _FrozenHead(torch.autograd.Function):
    """Compute a chunk's log-probabilities, and with them their gradient, so that backward makes no logits again.

    ∂ log p(target) / ∂ hidden = W[target] − Σ_v p(v) W[v] is known as soon as the logits are; what comes from above is a
    factor a token. Only this vector is kept, of the size of the hidden states.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        logits = F.linear(hidden, weight, bias).float()
        logps = logits.sub_(logits.logsumexp(-1, keepdim=True))
        chosen = logps.gather(1, targets[:, None])
        if ctx.needs_input_grad[0]:
            probabilities = logps.exp_()
            rows = torch.arange(len(targets), device=targets.device)
            probabilities[rows, targets] -= 1
            ctx.save_for_backward(-(probabilities.to(weight.dtype) @ weight))
        return chosen[:, 0]

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * above[0][:, None]).to(gradient.dtype), None, None, None
