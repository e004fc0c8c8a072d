"""Ways to generate answers on a GPU: the adapter merged into the weights, and as many prompts at once as fit.

- *continuous batching*: transformers' own, in which a new prompt takes the place of one that has ended. Only of greedy answers,
  as it draws from one stream for all prompts, and only with FlashAttention installed: without, it computes a score between every
  two tokens of all prompts and is slower than a batch.
- *static cache*: `generate` with a key-value cache that is laid out once; decoding is compiled where there are steps enough.
- *dynamic cache*: `generate` as it comes.

A way is used once it has been seen on some of the prompts that its greedy tokens are those of the plain model, its adapter
beside the weights, but for rounding. Where none is, answers come from a dynamic cache with nothing merged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from bench.errors import one_line
from bench.evaluators.draws import Draws
from bench.models import grouped_attention, memory, probe
from bench.models.merging import merged
from bench.models.policy import Policy

Rows = list[list[int]]
# Compiling takes a minute or so, and saves perhaps a hundredth of a second a step.
STEPS_WORTH_COMPILING = 4096
# On how many prompts, and for how many tokens, a way is tried.
TRIED_PROMPTS, TRIED_TOKENS = 4, 12
# Of the free memory, for the cache: the rest is for a pass's own tensors.
CACHE_SHARE = 0.6


@dataclass(frozen=True)
class Asked:
    """What is to be generated.

    Attributes:
        prompts: token ids, the longest first.
        places: which random numbers are each prompt's.
        new_tokens: of an answer, at most.
        ends: ids that end an answer; `padding` fills a row.
        stops: makes the criterion that ends rows of a batch early, from the length of its prompts; None: only `ends` do.
        draws: chooses the tokens; None: greedy.
        at_once: prompts in a batch; None: as many as fit.
        halving: whether a batch that does not fit is halved.
        compiled: whether a static cache's steps are compiled.
    """

    prompts: Sequence[Sequence[int]]
    places: Sequence[int]
    new_tokens: int
    ends: list[int]
    padding: int
    stops: Callable[[int], Any] | None = None
    draws: Draws | None = None
    at_once: int | None = None
    halving: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class Done:
    """What was generated, and how.

    Attributes:
        rows: the ids after each prompt, in the prompts' order; what follows an end is padding.
        facts: for the record.
    """

    rows: Rows
    facts: dict[str, Any] = field(default_factory=dict)


class Unusable(Exception):
    """Say why a way cannot be used here."""


# ---- the choice ------------------------------------------------------------------------------------------------------


def generate(policy: Policy, asked: Asked, tell: Callable[[str], None]) -> Done:
    """Generate with the first way that is seen to work.

    Raises:
        torch.OutOfMemoryError: not one prompt fits, or not as many as were asked for.
    """
    notes: list[str] = []
    causal = policy.model_alone()
    asked = settled(causal, asked)
    try:
        for way in ways(asked):
            try:
                try_out(policy, way, asked)
                with merged(policy.model) as model, grouped_attention.installed(model):
                    done = way(model, asked, tell)
                adapter = "none" if policy.model is causal else "merged"
                return replace(done, facts=done.facts | {"adapter": adapter, "notes": notes})
            except (
                Exception
            ) as error:  # whatever a model's or a library's own code raises, memory that ran out among it
                words = one_line((str(error).strip().splitlines() or ["no message"])[0], 200)
                notes.append(f"{way.__name__.replace('_', ' ')}: {type(error).__name__}: {words}")
            memory.release(policy.device)
    finally:
        _forget(causal)
    done = dynamic_cache(policy.model, asked, tell)
    return replace(done, facts=done.facts | {"adapter": "beside the weights", "notes": notes})


def settled(model: Any, asked: Asked) -> Asked:
    """Decide how many prompts a batch begins with, and whether there are steps enough to compile one."""
    if asked.at_once is None:
        batches = -(-len(asked.prompts) // first_try(model, asked))
        # Of about equal size: a small one at the end would take as many steps.
        asked = replace(asked, at_once=-(-len(asked.prompts) // batches), halving=True)
    steps = -(-len(asked.prompts) // (asked.at_once or 1)) * asked.new_tokens
    return replace(asked, compiled=model.device.type == "cuda" and steps >= STEPS_WORTH_COMPILING)


def _forget(model: Any) -> None:
    """Take off a model what `generate` leaves on it: it holds memory, and lengthens every later cache."""
    for name in ("_compiled_call", "_last_compile_config", "_previous_max_cache_length", "_cache"):
        if name in vars(model):
            delattr(model, name)


Way = Callable[[Any, Asked, Callable[[str], None]], Done]


def ways(asked: Asked) -> list[Way]:
    """List what may be used, the fastest first."""
    continuous = asked.draws is None and asked.halving and flash_attention() is not None
    return [*([continuous_batching] if continuous else []), static_cache, dynamic_cache]


def try_out(policy: Policy, way: Way, asked: Asked) -> None:
    """Let a way answer a few of the prompts greedily, and hold its tokens against the plain model's.

    Raises:
        Unusable: they are others, by more than rounding.
    """
    few = range(0, len(asked.prompts), max(1, len(asked.prompts) // TRIED_PROMPTS))[:TRIED_PROMPTS]
    trial = replace(
        asked,
        prompts=[asked.prompts[place] for place in few],
        places=[asked.places[place] for place in few],
        # Compiled steps are tried at the size that they are then used at.
        new_tokens=asked.new_tokens if asked.compiled else min(TRIED_TOKENS, asked.new_tokens),
        stops=None,
        draws=None,
    )
    with merged(policy.model) as model, grouped_attention.installed(model):
        said = way(model, trial, lambda text: None).rows
    for prompt, row in zip(trial.prompts, said, strict=True):
        if not is_greedy(policy, prompt, until_end(row, asked.ends)):
            raise Unusable("its tokens are not those of the plain model")


@torch.no_grad()
def is_greedy(policy: Policy, prompt: Sequence[int], said: Sequence[int]) -> bool:
    """Say whether each token is the plain model's most likely one after those before it, but for rounding."""
    ids = torch.tensor([[*prompt, *said]], device=policy.device)
    logits = policy.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    logps = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    chosen = logps.gather(1, ids[0, len(prompt) :, None])[:, 0]
    return probe.agree(chosen, logps.amax(-1), policy.model.dtype)


def until_end(row: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Cut a row after the first token that ends it."""
    end = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
    return list(row[:end])


# ---- batches ---------------------------------------------------------------------------------------------------------


def static_cache(model: Any, asked: Asked, tell: Callable[[str], None]) -> Done:
    """Generate with a cache of a fixed size, which no step copies to make it longer."""
    settings = {"cache_implementation": "static", "disable_compile": not asked.compiled}
    done = _in_batches(model, asked, tell, settings)
    return replace(done, facts=done.facts | {"engine": f"static cache{', compiled' if asked.compiled else ''}"})


def dynamic_cache(model: Any, asked: Asked, tell: Callable[[str], None]) -> Done:
    """Generate with a cache that grows."""
    done = _in_batches(model, replace(asked, compiled=False), tell, {})
    return replace(done, facts=done.facts | {"engine": "dynamic cache"})


def first_try(model: Any, asked: Asked) -> int:
    """Say how many prompts to begin with: as many as there may be room for."""
    if model.device.type != "cuda":
        return len(asked.prompts)
    free, _ = torch.cuda.mem_get_info(model.device)
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    longest = max(map(len, asked.prompts)) + asked.new_tokens
    return max(1, min(len(asked.prompts), int(CACHE_SHARE * free / (longest * cache_bytes(model)))))


def cache_bytes(model: Any) -> int:
    """Return the bytes of one token's keys and values."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * int(config.num_hidden_layers) * int(heads) * int(width) * int(model.dtype.itemsize)


def _in_batches(model: Any, asked: Asked, tell: Callable[[str], None], settings: dict[str, Any]) -> Done:
    """Generate batch by batch; where memory runs out, go on with half as many at once if that is open."""
    rows: Rows = []
    count = len(asked.prompts)
    at_once = (asked.at_once or 1) if asked.compiled else min(asked.at_once or 1, count)
    while len(rows) < count:
        which = range(len(rows), min(len(rows) + at_once, count))
        tell(f"answering prompts {which.start + 1} to {which.stop} of {count}")
        try:
            rows += _batch(model, asked, which, at_once, settings)
            continue
        except torch.OutOfMemoryError:
            if not asked.halving or at_once == 1:
                raise
        at_once //= 2
        tell(f"out of memory: going on with {at_once} prompts at once")
        memory.release(model.device)
    return Done(rows, {"prompts_at_once": at_once})


@torch.no_grad()
def _batch(model: Any, asked: Asked, which: range, at_once: int, settings: dict[str, Any]) -> Rows:
    """Generate after some of the prompts. Compiled steps have one shape: every batch is as long and as wide as the largest."""
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    length = max(len(asked.prompts[place]) for place in (range(len(asked.prompts)) if asked.compiled else which))
    places = [*which, *([which[0]] * (at_once - len(which) if asked.compiled else 0))]
    prompts = [asked.prompts[place] for place in places]
    ids = torch.tensor([[asked.padding] * (length - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    config = GenerationConfig(
        max_new_tokens=asked.new_tokens,
        do_sample=False,
        eos_token_id=asked.ends,
        pad_token_id=asked.padding,
        use_cache=True,
        **settings,
    )
    draws = [] if asked.draws is None else [asked.draws.of([asked.places[one] for one in places], length, model.device)]
    stops = [] if asked.stops is None else [asked.stops(length)]
    output: Tensor = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=config,
        logits_processor=LogitsProcessorList(draws),
        stopping_criteria=StoppingCriteriaList(stops),
    )
    made: Rows = output[: len(which), length:].tolist()
    return made


# ---- continuous batching ---------------------------------------------------------------------------------------------


def flash_attention() -> str | None:
    """Name the FlashAttention that is installed, as transformers does; None where there is none."""
    from transformers.utils import import_utils

    for version in (3, 2):
        installed: Callable[[], bool] | None = getattr(import_utils, f"is_flash_attn_{version}_available", None)
        if installed is not None and installed():
            return f"flash_attention_{version}"
    return None


def continuous_batching(
    model: Any, asked: Asked, tell: Callable[[str], None], attention: str | None = None, **settings: Any
) -> Done:
    """Generate with transformers' continuous batching, greedily. Stop strings do not end a row early there.

    Args:
        model: the causal model.
        asked: what is wanted.
        tell: takes a line of progress.
        attention: the name of attention that knows a paged cache; None: the FlashAttention that is installed.
        settings: of transformers' ContinuousBatchingConfig.

    Raises:
        Unusable: some prompts came back without an answer.
    """
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    tell(f"answering {len(asked.prompts)} prompts")
    config = GenerationConfig(
        max_new_tokens=asked.new_tokens,
        do_sample=False,
        eos_token_id=asked.ends or [-1],
        pad_token_id=asked.padding,
    )
    before = model.config.get_text_config()._attn_implementation
    model.set_attn_implementation(attention or flash_attention())
    try:
        found = model.generate_batch(
            [list(prompt) for prompt in asked.prompts],
            generation_config=config,
            continuous_batching_config=ContinuousBatchingConfig(**{"max_memory_percent": CACHE_SHARE} | settings),
        )
    finally:
        model.set_attn_implementation(before)
    failed = [one.error for one in found.values() if one.error is not None]
    if failed or len(found) < len(asked.prompts):
        raise Unusable(failed[0] if failed else f"only {len(found)} of {len(asked.prompts)} prompts were answered")
    # By their prompts, as some versions sort them; equal prompts have equal greedy answers.
    said = {tuple(one.prompt_ids): list(one.generated_tokens) for one in found.values()}
    rows = [said[tuple(prompt)] for prompt in asked.prompts]
    return Done(rows, {"engine": "continuous batching", "prompts_at_once": len(rows)})
