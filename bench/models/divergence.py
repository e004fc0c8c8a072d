"""KL(base ‖ π): how far a policy has moved from its base model, exact over the vocabulary at every token of given answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.data.tokens import Example
from bench.models import lm_head, memory, objectives, packed_attention, sharding
from bench.models.policy import Policy

# Positions whose logits over the whole vocabulary are held at once: 128,000 entries of float32 take 0.5 MiB each.
_POSITIONS = 128


@torch.no_grad()
def from_base(policy: Policy, examples: Sequence[Example], batch_size: int) -> list[tuple[float, int]]:
    """Return, for the first answer of each example, Σ_t KL(p_base(· | t) ‖ p_π(· | t)) in nats, and its tokens t.

    The base model is the policy's own with the adapter off, or with its weights as they were. Logits are made in float32:
    rounded to bfloat16 they alone would differ by more than a short training does. Where memory runs out, fewer rows are
    taken at once. Several processes share the batches out, and each returns all rows.
    """
    if policy.is_base:
        return [(0.0, len(one.learned())) for one in examples]
    policy.model.eval()
    order = sorted(range(len(examples)), key=lambda row: examples[row].length)
    layout, processes = policy.layout_of(examples), policy.processes
    own = len(order)
    if processes is not None:
        most = processes.most(math.ceil(own / batch_size)) * batch_size
        every, order = order, processes.own_batches(order, batch_size)
        own = len(order)
        if policy.sharded:  # a pass takes all processes: every one makes as many
            order += [every[0]] * (most - own)
    found: dict[int, tuple[float, int]] = {}
    at_once, start = batch_size, 0
    while start < len(order):
        rows = order[start : start + at_once]
        try:
            sums, tokens = _of_batch(policy, objectives.collate([examples[row] for row in rows], layout, policy.device))
        except torch.OutOfMemoryError:
            if at_once == 1 or policy.sharded:
                raise
        else:
            kept = list(zip(rows, sums, tokens, strict=True))[: max(0, own - start)]
            found |= {row: (one, count) for row, one, count in kept}
            start += len(rows)
            continue
        at_once = memory.fewer(at_once)
        memory.release(policy.device)
    if processes is not None:
        found = processes.joined(found)
    return [found[row] for row in range(len(examples))]


def _of_batch(policy: Policy, batch: objectives.Batch) -> tuple[list[float], list[int]]:
    if policy.sharded:
        return _sums(batch, _of_parts(policy, batch))
    causal = policy.model_alone()
    with policy.as_base():
        base = torch.split(states(causal, batch), _POSITIONS)
        if _has_own_projection(
            policy
        ):  # made while it is the base's; all at once they may be more than a GPU has room for
            base = tuple(logits(causal, one).cpu() for one in base)
    own = torch.split(states(causal, batch), _POSITIONS)
    of_tokens = [_kl(_base_logits(policy, one), logits(causal, other)) for one, other in zip(base, own, strict=True)]
    return _sums(batch, of_tokens)


def _of_parts(policy: Policy, batch: objectives.Batch) -> list[Tensor]:
    """Return KL token by token of weights that lie in parts: all of a pass happens in one call, while they are together."""
    causal = policy.model_alone()
    if not hasattr(causal, "bench_answer_logits"):
        sharding.add_pass(causal, "bench_answer_logits", lambda model, batch: logits(model, states(model, batch)))
    with policy.as_base():
        base = causal.bench_answer_logits(batch)
    own = causal.bench_answer_logits(batch)
    pieces = zip(torch.split(base, _POSITIONS), torch.split(own, _POSITIONS), strict=True)
    return [_kl(one, other) for one, other in pieces]


def _sums(batch: objectives.Batch, parts: Sequence[Tensor]) -> tuple[list[float], list[int]]:
    """Add KL up over the tokens of each answer; return the sums, and how many tokens each has."""
    of_tokens = torch.cat(list(parts))
    sums = of_tokens.new_zeros(batch.answers).index_add(0, batch.sequences, of_tokens)
    return sums.tolist(), torch.bincount(batch.sequences, minlength=batch.answers).tolist()


def _has_own_projection(policy: Policy) -> bool:
    """Say whether the policy's vocabulary projection is another than its base model's: trained, or with an adapter."""
    return bool(policy.kept) or type(policy.model_alone().get_output_embeddings()) is not torch.nn.Linear


def _base_logits(policy: Policy, one: Tensor) -> Tensor:
    return one.to(policy.device) if _has_own_projection(policy) else logits(policy.model_alone(), one)


def _kl(base: Tensor, own: Tensor) -> Tensor:
    """Return Σ_v p(v) (log p(v) − log q(v)) of each row of logits, in float64 sums. Shapes: [tokens, vocabulary] → [tokens]."""
    base, own = base.log_softmax(-1), own.log_softmax(-1)
    return (base.exp() * (base - own)).sum(-1, dtype=torch.float64).clamp_min(0)


def states(causal: Any, batch: objectives.Batch) -> Tensor:
    """Return what predicts each answer token: hidden states, or logits of a model that does more than project them."""
    arguments: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
    if batch.examples is not None:
        in_one_call = getattr(causal, "bench_one_call", False)
        arguments |= packed_attention.arguments(batch.examples, causal.dtype, batch.input_ids.device, in_one_call)
    if getattr(causal, "bench_full_logits", False):
        full: Tensor = causal(**arguments).logits
        return full.flatten(0, 1).index_select(0, batch.predictors)
    hidden: Tensor = causal.get_decoder()(**arguments).last_hidden_state
    return hidden.flatten(0, 1).index_select(0, batch.predictors)


def logits(causal: Any, states: Tensor) -> Tensor:
    """Return the logits, in float32, that `states` leads to. Shapes: [tokens, hidden size] → [tokens, vocabulary]."""
    if getattr(causal, "bench_full_logits", False):
        return states.float()
    head = causal.get_output_embeddings()
    plain = type(head) is torch.nn.Linear
    made: Tensor = lm_head.float32_logits(head, states) if plain else head(states).float()
    cap = getattr(causal, "bench_logit_cap", None)
    return made if cap is None else torch.tanh(made / cap) * cap
