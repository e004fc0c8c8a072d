"""Is what a server says what the policy would say? Its greedy answers to a few prompts, held against the policy's own logits.

A server that loads an adapter and then ignores it answers like any other, and so does one that was started with another model.
Both models that can be meant, base and policy, are here: each says by how much a token of an answer falls short of the token
that it would have said itself, in nats. A greedy answer of the same model falls short by rounding alone. A server that gives no
token ids has its text made tokens anew, which for some tokenizers are others: such a gap is on record, and refuses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bench.errors import JobError
from bench.evaluators.engine.server import Said
from bench.models.policy import Policy

TRIED_PROMPTS, TRIED_TOKENS = 8, 24
# A mean beyond it is not rounding, nor what weights of 4 bits do to greedy answers
MOST_MEAN_GAP = 0.25
# A token that the base says, and that the policy says so much less readily, tells the two apart
TELLING_GAP = 0.5

Prompts = Mapping[int, Sequence[int]]
Answers = Mapping[int, Said]


def tried(count: int) -> range:
    """Choose the places of the prompts that are tried."""
    return range(0, count, max(1, count // TRIED_PROMPTS))[:TRIED_PROMPTS]


def base(policy: Policy, prompts: Prompts, said: Answers, host: str) -> dict[str, Any]:
    """See that a server's answers are those of the base model.

    Returns:
        Facts for the record.

    Raises:
        JobError: they are not: it serves another model, or changes what the model says.
    """
    with policy.as_base():
        gap = _mean(_all_gaps(policy, prompts, said))
    if gap is not None and gap > MOST_MEAN_GAP and _with_ids(said):
        raise JobError(
            f"{host}: its greedy answers are not those of the suite's model: their tokens fall short of the model's own by "
            f"{gap:.2f} nats on the mean (rounding: {MOST_MEAN_GAP} at most); see that it serves this model and revision, and "
            "adds no sampling settings of its own (vLLM: --generation-config vllm)"
        )
    tokens = "the server's" if _with_ids(said) else "made anew of its text"
    return {"prompts": len(prompts), "tokens": tokens, "base_gap_nats": gap}


def adapter(
    policy: Policy, prompts: Prompts, of_base: Answers, said: Answers, host: str, advice: str
) -> dict[str, Any]:
    """See that a server's answers are those of the policy, and not the base's.

    Args:
        policy: with its adapter.
        prompts: token ids by place.
        of_base: the server's greedy answers without the adapter.
        said: with it.
        host: the server's, for messages.
        advice: what to do where it was ignored.

    Returns:
        Facts for the record.

    Raises:
        JobError: the adapter was ignored, or it is another one.
    """
    own, own_of_base = _all_gaps(policy, prompts, said), _all_gaps(policy, prompts, of_base)
    with policy.as_base():
        bases, bases_of_base = _all_gaps(policy, prompts, said), _all_gaps(policy, prompts, of_base)
    telling = [place for place in prompts if _tells(own_of_base[place], bases_of_base[place])]
    gap = _mean(own)
    facts: dict[str, Any] = {"policy_gap_nats": gap, "telling_prompts": len(telling)}
    if not telling:
        facts["reason"] = (
            "greedy decoding of the policy says what the base says on these prompts, so an adapter that is"
        )
        facts["reason"] += " ignored could not be told from one that is not"
    elif all(said[place].text == of_base[place].text for place in telling) or (
        sum(sum(own[place]) for place in telling) >= sum(sum(bases[place]) for place in telling)
    ):
        raise JobError(
            f"{host} ignores what makes the policy and answers as the base, without an error: on {len(telling)} prompts where "
            f"greedy decoding of the policy says something else it says what the base says; {advice}"
        )
    if gap is not None and gap > MOST_MEAN_GAP and _with_ids(said):
        raise JobError(
            f"{host}: its greedy answers with the adapter are not the policy's: their tokens fall short of the policy's own by "
            f"{gap:.2f} nats on the mean (rounding: {MOST_MEAN_GAP} at most); is it another adapter's cache, or another rank?"
        )
    return facts


def _tells(own: Sequence[float], bases: Sequence[float]) -> bool:
    """Whether the policy would have said something else than the base, beyond rounding; gaps of the base's answer."""
    return any(one - other > TELLING_GAP for one, other in zip(own, bases, strict=True))


def _all_gaps(policy: Policy, prompts: Prompts, said: Answers) -> dict[int, list[float]]:
    return {place: gaps(policy, prompts[place], said[place]) for place in prompts}


@torch.no_grad()
def gaps(policy: Policy, prompt: Sequence[int], said: Said) -> list[float]:
    """Return by how many nats each token of an answer falls short of the likeliest one; of its end, too, where it ended."""
    ends = policy.end_of_turn_ids()
    made = said.ids if said.ids is not None else policy.tokenizer(said.text, add_special_tokens=False)["input_ids"]
    ids = list(made[:-1] if said.ended and made and made[-1] in ends else made)
    if not ids and not (said.ended and ends):
        return []
    policy.model.eval()
    row = torch.tensor([[*prompt, *ids]], device=policy.device)
    logits = policy.model(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 :].float()
    best = logits.amax(-1)
    found: list[float] = []
    if ids:
        found = (best[:-1] - logits[:-1].gather(1, row[0, len(prompt) :, None])[:, 0]).tolist()
    if said.ended and ends:
        found.append(float(best[-1] - logits[-1, ends].amax()))
    return found


def _with_ids(said: Answers) -> bool:
    return all(one.ids is not None for one in said.values())


def _mean(found: Mapping[int, Sequence[float]]) -> float | None:
    values = [gap for gaps in found.values() for gap in gaps]
    return sum(values) / len(values) if values else None
