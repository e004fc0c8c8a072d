"""Choose, when a model is loaded, whether its attention takes all stretches of a row in one call (`varlen`)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from bench.errors import one_line
from bench.models import packed_attention, probe, varlen
from bench.models.objectives import Batch, sequence_logps

# Stretches on which the kernel is tried: unequal lengths, a further answer longer and one shorter than its prompt.
_EXAMPLES = ((5, (3, 9)), (7, (2, 4)), (3, (6,)))
# Of what the loop gives, by its norm; a mask aligned elsewhere or a wrong gradient is off by tens of percent.
_SHARE = {torch.float32: 1e-3}
_SHARE_ELSEWHERE = 0.03


def choose(policy: Any, batch: Batch, expected: Tensor) -> None:
    """Take one call for all stretches where it gives what the loop gives, forward and backward; say why where it does not.

    Args:
        batch: a row of packed examples.
        expected: its answers' log-probabilities.
    """
    model = policy.model_alone()
    model.bench_one_call = False
    reason = varlen.reason_against(model, policy.device)
    if reason is None:
        reason = _tried(policy, batch, expected)
    elif policy.device.type != "cuda":
        return
    model.bench_one_call = reason is None
    if reason is not None:
        policy.note(f"attention goes example by example and not in one call: {reason}")


def _tried(policy: Any, batch: Batch, expected: Tensor) -> str | None:
    """Return None where the kernel agrees on random numbers and on a row of tokens; else why not."""
    model = policy.model_alone()
    try:
        same = _agrees(model.config.get_text_config(), model.dtype, policy.device)
        if same:
            model.bench_one_call = True
            with torch.no_grad():
                same = probe.agree(sequence_logps(policy.model, batch), expected, model.dtype)
    except Exception as error:  # whatever a kernel fails with, the loop goes on
        return one_line((str(error).strip().splitlines() or [type(error).__name__])[0], 200)
    return None if same else "it does not agree with the loop over stretches"


@torch.enable_grad()
def _agrees(config: Any, dtype: torch.dtype, device: torch.device) -> bool:
    """Compare output and gradients on numbers of the model's head sizes."""
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    length = sum(prompt + sum(answers) for prompt, answers in _EXAMPLES)
    chance = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(1, count, length, size, generator=chance).to(device, dtype).requires_grad_()
        for count in (heads, groups, groups)
    ]
    above = torch.randn(1, length, heads, size, generator=chance).to(device, dtype)
    loop, fast = (_outcome(inputs, above, dtype, in_one_call) for in_one_call in (False, True))
    allowed = _SHARE.get(dtype, _SHARE_ELSEWHERE)
    return all(
        float((one - other).norm()) <= allowed * float(other.norm()) for one, other in zip(fast, loop, strict=True)
    )


def _outcome(inputs: list[Tensor], above: Tensor, dtype: torch.dtype, in_one_call: bool) -> list[Tensor]:
    rows = packed_attention.arguments(_EXAMPLES, dtype, above.device, in_one_call)["stretches"]
    query, key, value = inputs
    mixed, _ = packed_attention.forward(SimpleNamespace(), query, key, value, None, stretches=rows)
    return [one.detach().float() for one in (mixed, *torch.autograd.grad(mixed, inputs, above))]
