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

from bench import products

# Logits in memory at once. On a CPU 24 MiB: what is larger than 32 MiB glibc hands back to the system at once, and every
# page of the next chunk is a fault; smaller chunks read the weights more often.
CHUNK_LOGITS = {"cpu": 3 << 21}
CHUNK_LOGITS_ELSEWHERE = 1 << 24


def token_logps(head: Any, hidden: Tensor, targets: Tensor, cap: float | None = None) -> Tensor:
    """Return log softmax(head(hidden)) of each target, in nats and float32.

    Args:
        head: the output embeddings.
        hidden: shape [tokens, hidden size].
        targets: shape [tokens].
        cap: logits are softly held within ±cap, as Gemma 2 does; None: they are not.
    """
    logits = CHUNK_LOGITS.get(hidden.device.type, CHUNK_LOGITS_ELSEWHERE)
    size = max(1, logits // getattr(head, "out_features", 1))
    if len(targets) <= size:
        return _plain(head, hidden, targets, cap)
    count = -(-len(targets) // size)
    pieces = list(zip(hidden.tensor_split(count), targets.tensor_split(count), strict=True))
    frozen: Any = _FrozenHead
    if cap is None and type(head) is torch.nn.Linear and not any(one.requires_grad for one in head.parameters()):
        return torch.cat([frozen.apply(*piece, head) for piece in pieces])
    if not torch.is_grad_enabled():
        return torch.cat([_plain(head, *piece, cap) for piece in pieces])
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
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: torch.nn.Linear) -> Tensor:
        logits = head(hidden).float()
        chosen = logits.gather(1, targets[:, None])
        largest = logits.amax(-1, keepdim=True)
        # In place, and divided by their sum only after the product with W: few passes over what is large.
        exponentials = logits.sub_(largest).exp_()
        total = exponentials.sum(-1, keepdim=True)
        if ctx.needs_input_grad[0]:
            rows = torch.arange(len(targets), device=targets.device)
            exponentials[rows, targets] -= total[:, 0]
            weight = products.weight_of(head)
            ctx.save_for_backward((exponentials.to(weight.dtype) @ weight).div_(-total).to(hidden.dtype))
        logps: Tensor = (chosen - largest - total.log())[:, 0]
        return logps

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * above[0][:, None]).to(gradient.dtype), None, None
