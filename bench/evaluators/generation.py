"""Sample answers from a policy: prompts of similar length together, left-padded, seeded; on a GPU by `engines`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.data.tokens import Tokenizing
from bench.errors import OutOfMemory
from bench.evaluators import engines
from bench.evaluators.draws import Draws
from bench.evaluators.options import Generation
from bench.models import sharding
from bench.models.policy import Policy

# A token of text is at least one byte, so this many last tokens hold any stop string together with what precedes it
_TAIL_MARGIN = 4

# Token ids of each answer, and how they were made.
Generated = tuple[list[list[int]], dict[str, Any]]


def answer(
    policy: Policy,
    prompts: Sequence[str],
    settings: Generation,
    stop: tuple[str, ...],
    max_prompt_tokens: int,
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Answer every prompt.

    Args:
        policy: the model, with or without an adapter.
        prompts: as text; over-long ones lose their left end, as in training.
        settings: how tokens are sampled; equal settings and prompts give equal answers, whatever ran before.
        stop: strings that end an answer (the next human turn); they are cut off.
        max_prompt_tokens: the length limit of a prompt.
        tell: takes a line of progress.

    Returns:
        One row per prompt, in order: id, answer (stripped), tokens generated, and whether the answer ended by itself.

    Raises:
        OutOfMemory: `batch_size` is too large, or one prompt is too much.
    """
    return answers_and_facts(policy, prompts, settings, stop, max_prompt_tokens, tell)[0]


def answers_and_facts(
    policy: Policy,
    prompts: Sequence[str],
    settings: Generation,
    stop: tuple[str, ...],
    max_prompt_tokens: int,
    tell: Callable[[str], None],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Answer every prompt as `answer` does, and say for the record how.

    Returns:
        The rows; engine, adapter, prompts_at_once, what random numbers belong to.
    """
    tokenizing = Tokenizing(policy.tokenizer, max_prompt_tokens, settings.max_new_tokens)
    ids = [tokenizing.prompt(prompt) for prompt in prompts]
    said, facts = sample_ids(policy, ids, settings, stop, tell)
    return [{"id": index, **_row(policy, one, stop)} for index, one in enumerate(said)], facts


def sample_ids(
    policy: Policy,
    prompts: Sequence[tuple[int, ...]],
    settings: Generation,
    stop: tuple[str, ...],
    tell: Callable[[str], None],
) -> Generated:
    """Answer prompts of token ids; return the token ids of each answer, in order, and how they were made.

    Raises:
        OutOfMemory: as `answer`.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    # Weights in parts cannot be merged with an adapter, nor a batch be halved that takes all processes.
    plainly = policy.device.type != "cuda" or policy.sharded
    processes = policy.processes
    if processes is not None:
        order = processes.own_batches(order, settings.batch_size if plainly else 1)
    policy.model.eval()
    # The model's own generation settings would fill in what is left out here, such as a repetition penalty
    with _without_own_settings(policy.model), sharding.passes_of_each(policy.model_alone(), processes):
        generate = _plainly if plainly else _on_gpu
        try:
            generated, facts = generate(policy, prompts, order, settings, stop, tell) if order else ([], {})
        except torch.OutOfMemoryError as error:
            lower = f"lower evaluation.win_rate.generation.batch_size ({settings.batch_size})"
            halved = not plainly and settings.finds_batch_size(policy.device.type)
            advice = "one prompt has no room" if halved else lower
            raise OutOfMemory(f"out of memory generating answers; {advice}") from error
    said = dict(zip(order, generated, strict=True))
    if processes is not None:
        said = processes.joined(said)
    return [said[index] for index in range(len(prompts))], facts


def _on_gpu(
    policy: Policy,
    ids: Sequence[tuple[int, ...]],
    order: Sequence[int],
    settings: Generation,
    stop: tuple[str, ...],
    tell: Callable[[str], None],
) -> Generated:
    """Generate with what a GPU is fastest at."""
    at_once = None if settings.finds_batch_size(policy.device.type) else settings.batch_size
    asked = _asked(policy, ids, order, settings, stop, at_once)
    done = engines.generate(policy, asked, tell)
    return done.rows, done.facts | _random_numbers(settings)


def _plainly(
    policy: Policy,
    ids: Sequence[tuple[int, ...]],
    order: Sequence[int],
    settings: Generation,
    stop: tuple[str, ...],
    tell: Callable[[str], None],
) -> Generated:
    """Generate batch by batch with a cache that grows."""
    done = engines.dynamic_cache(policy.model, _asked(policy, ids, order, settings, stop, settings.batch_size), tell)
    facts = {"adapter": "beside the weights", "prompts_at_once": settings.batch_size}
    return done.rows, done.facts | facts | _random_numbers(settings)


def _asked(
    policy: Policy,
    ids: Sequence[tuple[int, ...]],
    order: Sequence[int],
    settings: Generation,
    stop: tuple[str, ...],
    at_once: int | None,
) -> engines.Asked:
    """Say what is to be generated; an answer's tokens are drawn by its prompt's own random numbers."""
    return engines.Asked(
        prompts=[ids[index] for index in order],
        places=order,
        new_tokens=settings.max_new_tokens,
        ends=policy.end_of_turn_ids(),
        padding=_padding_id(policy),
        stops=partial(_stops, policy.tokenizer, stop) if stop else None,
        draws=Draws(settings, len(ids)) if settings.temperature > 0 else None,
        at_once=at_once,
    )


def _random_numbers(settings: Generation) -> dict[str, str]:
    return {"random_numbers": "of each prompt" if settings.temperature > 0 else "none"}


@contextmanager
def _without_own_settings(model: Any) -> Iterator[None]:
    """Take a model's own generation settings away for a while."""
    from transformers import GenerationConfig

    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = {holder: holder.generation_config for holder in {model, causal}}
    try:
        for holder in own:
            holder.generation_config = GenerationConfig()
        yield
    finally:
        for holder, settings in own.items():
            holder.generation_config = settings


def _padding_id(policy: Policy) -> int:
    known = (policy.tokenizer.pad_token_id, *policy.end_of_turn_ids())
    return next((token for token in known if token is not None), 0)


def _stops(tokenizer: Any, stop: tuple[str, ...], prompt_length: int) -> Callable[..., Tensor]:
    """Make a criterion that ends each row whose answer has just said a stop string."""
    tail = max(len(text.encode()) for text in stop) + _TAIL_MARGIN

    def said(input_ids: Tensor, *_: Any, **__: Any) -> Tensor:
        texts = tokenizer.batch_decode(input_ids[:, max(prompt_length, input_ids.shape[1] - tail) :].tolist())
        return torch.tensor([any(end in text for end in stop) for text in texts], device=input_ids.device)

    return said


def _row(policy: Policy, generated: list[int], stop: tuple[str, ...]) -> dict[str, Any]:
    """Cut one answer where it ended, and say how."""
    ends = set(policy.end_of_turn_ids())
    end = next((place for place, token in enumerate(generated) if token in ends), None)
    said = generated if end is None else generated[:end]
    tokens = len(generated) if end is None else end + 1
    text = policy.tokenizer.decode(said, skip_special_tokens=True)
    cuts = [text.index(string) for string in stop if string in text]
    if cuts:
        text = text[: min(cuts)]
        tokens = _tokens_until(policy, said, stop)
    return {"answer": text.strip(), "tokens": tokens, "ended": end is not None or bool(cuts)}


def _tokens_until(policy: Policy, said: list[int], stop: tuple[str, ...]) -> int:
    """Count the tokens up to the one that completed a stop string; what follows in the row is padding."""
    for count in range(1, len(said) + 1):
        if any(string in policy.tokenizer.decode(said[:count], skip_special_tokens=True) for string in stop):
            return count
    return len(said)
