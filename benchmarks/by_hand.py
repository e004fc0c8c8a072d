"""What one would write without this project: plain rows, full logits, a reference forwarded at each step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.sides import Turns

# A row: its token ids, and how many of them are the prompt.
Row = tuple[list[int], int]


def pair_rows(examples: Sequence[dict[str, Any]]) -> list[Row]:
    """Make the chosen rows, then the rejected ones, each with its own copy of the prompt."""
    return [(one["prompt"] + one["answers"][place], len(one["prompt"])) for place in (0, 1) for one in examples]


def answer_logps(model: Any, rows: Sequence[Row]) -> Tensor:
    """Return the summed log-probability of each row's answer from full logits, in float32. Shape: [rows]."""
    length = max(len(ids) for ids, _ in rows)
    input_ids = torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in rows])
    attention_mask = torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in rows])
    is_answer = torch.tensor(
        [[0] * prompt + [1] * (len(ids) - prompt) + [0] * (length - len(ids)) for ids, prompt in rows]
    )
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    logps = torch.log_softmax(logits[:, :-1].float(), dim=-1)
    of_tokens = logps.gather(2, input_ids[:, 1:].unsqueeze(2)).squeeze(2)
    return (of_tokens * is_answer[:, 1:]).sum(1)


def reference_logps(model: Any, rows: Sequence[Row]) -> Tensor:
    """Forward the reference: the base model, with the adapter off."""
    with torch.no_grad(), model.disable_adapter():
        return answer_logps(model, rows)


def dpo_loss(model: Any, examples: Sequence[dict[str, Any]], reference: Tensor | None = None) -> Tensor:
    """Return the mean DPO loss of a batch (β = 0.1); without log-probabilities of the reference, forward it."""
    rows = pair_rows(examples)
    ours = answer_logps(model, rows)
    theirs = reference_logps(model, rows) if reference is None else reference
    chosen, rejected = (ours - theirs).chunk(2)
    return -F.logsigmoid(0.1 * (chosen - rejected)).mean()


def sft_loss(model: Any, examples: Sequence[dict[str, Any]]) -> Tensor:
    """Return the mean loss a token over a batch's answers."""
    rows = [(one["prompt"] + one["answers"][0], len(one["prompt"])) for one in examples]
    return -answer_logps(model, rows).sum() / sum(len(ids) - prompt for ids, prompt in rows)


def with_adapter(source: dict[str, Any]) -> Any:
    """Load the base model and put a fresh adapter on it."""
    import peft

    from benchmarks import material
    from benchmarks.with_trl import lora

    model, _ = material.stock_model(source)
    torch.manual_seed(0)
    return peft.get_peft_model(model, lora()).train()


class Descent:
    """The optimizer of a plain loop, set as on the other sides."""

    def __init__(self, model: Any) -> None:
        self.parameters = [one for one in model.parameters() if one.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, loss: Tensor) -> None:
        """Descend a loss by one step."""
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def authors_way(turns: Turns, source: dict[str, Any], examples: Sequence[dict[str, Any]], batch_size: int) -> None:
    """Take one DPO step a turn as the paper's authors do: the reference is forwarded with every batch."""
    model = with_adapter(source)
    descent = Descent(model)
    turns.ready({})
    for start in range(0, len(examples), batch_size):
        turns.wait()
        started = time.perf_counter()
        loss = dpo_loss(model, examples[start : start + batch_size])
        descent.step(loss)
        turns.done({"seconds": time.perf_counter() - started, "losses": {"": float(loss.detach())}})
