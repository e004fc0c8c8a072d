"""Every way to generate, on a CPU: the tokens of the plain way, and only of ways that were seen to give them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch._dynamo.utils
import transformers

from bench.evaluators import engines, generation
from bench.evaluators.draws import Draws
from bench.evaluators.engines import Asked, Done
from bench.evaluators.options import Generation
from bench.models import grouped_attention
from bench.models import policy as policies
from bench.models.policy import Policy
from bench.settings import Lora, Model

# The world's tokens; lengths 9, 7, 7, 5, 2
PROMPTS = [
    [5, 9, 31, 4, 77, 8, 60, 21, 3],
    [4, 4, 8, 90, 12, 6, 2],
    [61, 2, 9, 33, 7, 5, 11],
    [8, 70, 13, 40, 9],
    [6, 15],
]
ON_CPU = {"num_blocks": 32, "max_batch_tokens": 128, "auto_switch_to_flash": False, "use_cuda_graph": False}


def quiet(text: str) -> None:
    """Say nothing."""


@pytest.fixture(params=["llama", "gpt_neox"])
def policy(request: pytest.FixtureRequest) -> Iterator[Policy]:
    """A random model, its weights large enough that its greedy words differ, with an adapter that changes them."""
    made = policies.load(Model(source="random", architecture=request.param), torch.device("cpu"))
    torch.manual_seed(5)
    with torch.no_grad():
        for value in made.model.parameters():
            if value.dim() > 1:
                value.normal_(0, 0.3)
        made.attach(Lora(rank=2, alpha=4), seed=0)
        for value in made.trainable().values():
            value.normal_(0, 0.1)
    made.model.eval()
    with generation._without_own_settings(made.model):
        yield made


def asked(**changes: Any) -> Asked:
    plain = Asked(PROMPTS, range(5), new_tokens=10, ends=[], padding=0, at_once=2)
    return replace(plain, **changes)


def greedy_by_hand(policy: Policy, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(policy.logits(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.fixture
def expected(policy: Policy) -> list[list[int]]:
    rows = [greedy_by_hand(policy, prompt, 10) for prompt in PROMPTS]
    assert len({tuple(row) for row in rows}) == 5
    return rows


ON_PAGES = partial(engines.continuous_batching, attention="sdpa", **ON_CPU)


@pytest.mark.parametrize(
    "way", [engines.static_cache, engines.dynamic_cache, ON_PAGES], ids=["static", "dynamic", "pages"]
)
def test_each_way_gives_the_plain_models_tokens(policy: Policy, expected: list[list[int]], way: Any) -> None:
    attention = policy.model.config._attn_implementation
    with engines.merged(policy.model) as model:
        done = way(model, asked(), quiet)
        # the end of the third row's fourth token; what follows is padding, or nothing
        end = expected[2][3]
        ended = way(model, asked(ends=[end]), quiet)
    assert done.rows == expected
    for row, whole in zip(ended.rows, expected, strict=True):
        assert engines.until_end(row, [end]) == engines.until_end(whole, [end])
    assert policy.model.config._attn_implementation == attention


def test_batches_of_one_shape_give_the_same_tokens(policy: Policy, expected: list[list[int]]) -> None:
    """As steps are compiled: 5 prompts, 2 at once; the last batch holds one of them and is filled up."""
    with engines.merged(policy.model) as model:
        shapes: list[tuple[int, ...]] = []
        real = model.generate
        model.generate = lambda **given: (shapes.append(tuple(given["input_ids"].shape)), real(**given))[1]
        done = engines.static_cache(model, asked(compiled=True), quiet)
        del model.generate
    assert shapes == 3 * [(2, 9)]
    assert done.rows == expected
    assert done.facts == {"engine": "static cache, compiled", "prompts_at_once": 2}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own compiler
def test_compiled_steps_give_the_same_tokens_and_are_compiled_once(
    policy: Policy, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, with the compiler's CPU code: three batches of one shape, none of which has its steps compiled anew."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler for what torch.compile writes")
    compile_config = transformers.CompileConfig(mode="default")
    compile_config._compile_all_devices = True
    settings = {"cache_implementation": "static", "disable_compile": False, "compile_config": compile_config}
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    seen = []
    real = engines._batch

    def batch(*given: Any) -> Any:
        rows = real(*given)
        seen.append(torch._dynamo.utils.counters["stats"]["unique_graphs"] - before)
        return rows

    monkeypatch.setattr(engines, "_batch", batch)
    with engines.merged(policy.model) as model, grouped_attention.installed(model):
        done = engines._in_batches(model, asked(compiled=True), quiet, settings)
        engines._forget(model)
    assert done.rows == expected
    assert seen[0] > 0 and len(set(seen)) == 1
    assert not hasattr(policy.model_alone(), "_compiled_call")


def test_a_batch_that_does_not_fit_is_halved(
    policy: Policy, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for 1: of 5, 2, then 1 at once. A number that was asked for stays, and is an error."""
    real = engines._batch
    told: list[str] = []

    def batch(model: Any, asked: Asked, which: range, *others: Any) -> Any:
        if len(which) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, asked, which, *others)

    monkeypatch.setattr(engines, "_batch", batch)
    done = engines.dynamic_cache(policy.model, asked(at_once=5, halving=True), told.append)
    assert done.rows == expected and done.facts["prompts_at_once"] == 1
    assert [text for text in told if "memory" in text] == [
        f"out of memory: going on with {count} prompts at once" for count in (2, 1)
    ]
    with pytest.raises(torch.OutOfMemoryError):
        engines.generate(policy, asked(at_once=5), quiet)


def test_the_first_way_that_agrees_is_taken(
    policy: Policy, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is off by a token, one cannot be called; neither leaves the adapter merged. The reasons are on record."""

    def astray(model: Any, asked: Asked, tell: Any) -> Done:
        done = engines.dynamic_cache(model, asked, tell)
        return replace(done, rows=[[row[0], (row[1] + 1) % 90, *row[2:]] for row in done.rows])

    def broken(model: Any, asked: Asked, tell: Any) -> Done:
        raise TypeError("unexpected keyword argument 'wanted'\nand more")

    listed: list[Any] = [astray, broken, engines.static_cache]
    monkeypatch.setattr(engines, "ways", lambda asked: listed)
    before = policy.trained_state(), policy.logits(torch.tensor([PROMPTS[0]]))
    done = engines.generate(policy, asked(), quiet)
    assert done.rows == expected
    assert done.facts == {
        "engine": "static cache",
        "prompts_at_once": 2,
        "adapter": "merged",
        "notes": [
            "astray: Unusable: its tokens are not those of the plain model",
            "broken: TypeError: unexpected keyword argument 'wanted'",
        ],
    }
    del listed[2]
    plain = engines.generate(policy, asked(), quiet)
    assert plain.rows == expected
    assert (plain.facts["engine"], plain.facts["adapter"]) == ("dynamic cache", "beside the weights")
    assert torch.equal(policy.logits(torch.tensor([PROMPTS[0]])), before[1])


def test_which_ways_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Continuous batching draws from one stream, chooses itself how many prompts it takes, and needs FlashAttention."""
    batched = [engines.static_cache, engines.dynamic_cache]
    monkeypatch.setattr(engines, "flash_attention", lambda: None)
    assert engines.ways(asked(halving=True)) == batched
    monkeypatch.setattr(engines, "flash_attention", lambda: "flash_attention_2")
    assert engines.ways(asked(halving=True)) == [engines.continuous_batching, *batched]
    assert engines.ways(asked()) == batched
    drawing = Draws(Generation(max_new_tokens=10), 5)
    assert engines.ways(asked(halving=True, draws=drawing)) == batched


def test_batches_are_of_about_equal_size(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for 4 of 5 is two batches, so 3 and 2; a number that was asked for stays."""
    monkeypatch.setattr(engines, "first_try", lambda model, asked: 4)
    settled = engines.settled(policy.model_alone(), asked(at_once=None))
    assert (settled.at_once, settled.halving) == (3, True)
    given = engines.settled(policy.model_alone(), asked(at_once=4))
    assert (given.at_once, given.halving) == (4, False)


def test_the_caches_size_is_that_of_its_tensors(policy: Policy) -> None:
    """A forward pass over 7 tokens leaves 7 times the bytes of one."""
    cache = policy.model(input_ids=torch.tensor([PROMPTS[1]]), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert 7 * engines.cache_bytes(policy.model) == held


def test_answers_of_a_gpus_way_depend_on_seed_and_prompt_alone(policy: Policy) -> None:
    """As a GPU generates, here on a CPU: 5 prompts at once, one at once, or the last two of them left out of the batch."""

    def answers(batch_size: int, seed: int = 3) -> list[list[int]]:
        settings = Generation(max_new_tokens=10, seed=seed, batch_size=batch_size)
        ids = [tuple(prompt) for prompt in PROMPTS]
        rows, facts = generation._on_gpu(policy, ids, range(5), settings, (), quiet)
        assert facts["random_numbers"] == "of each prompt"
        ends = policy.end_of_turn_ids()
        return [engines.until_end(row, ends) for row in rows]

    assert answers(5) == answers(1) == answers(3)
    assert answers(5) != answers(5, seed=4)


# ---- on a GPU --------------------------------------------------------------------------------------------------------


def on_card(dtype: Any, architecture: Any) -> Policy:
    """Load a random model onto the card, with an adapter."""
    made = policies.load(Model(source="random", architecture=architecture, dtype=dtype), torch.device("cuda:0"))
    made.attach(Lora(rank=2, alpha=4), seed=0)
    with torch.no_grad():
        for value in made.trainable().values():
            value.normal_(0, 0.1)
    made.model.eval()
    return made


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # of libraries, which differ from card to card
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_a_gpus_answers_are_the_plain_models(architecture: Any, dtype: Any) -> None:
    """Whichever way is taken, it is merged, and its greedy tokens are the plain model's to rounding; sampled ones come again."""
    made = on_card(dtype, architecture)
    texts = [
        "Question: What is the colour of the town?\nAnswer:",
        "Name the region.",
        "The",
        "As for the tree, its use is",
    ]
    greedy = Generation(max_new_tokens=12, temperature=0.0)
    rows, facts = generation.answers_and_facts(made, texts, greedy, (), 96, quiet)
    assert (facts["adapter"], facts["prompts_at_once"]) == ("merged", 4), facts
    assert [row["id"] for row in rows] == [0, 1, 2, 3]
    for way in (engines.static_cache, engines.dynamic_cache):
        ids = [made.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        asked = Asked(sorted(ids, key=len, reverse=True), range(4), 12, made.end_of_turn_ids(), 0, at_once=3)
        engines.try_out(made, way, asked)
    sampled = Generation(max_new_tokens=12, seed=7)
    assert generation.answer(made, texts, sampled, (), 96, quiet) == generation.answer(
        made, texts, sampled, (), 96, quiet
    )


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # of libraries, which differ from card to card
def test_compiled_steps_give_the_plain_models_tokens() -> None:
    """In batches of one shape, the last one filled up."""
    made = on_card("float32", "llama")
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    trial = Asked(prompts, range(15), 10, made.end_of_turn_ids(), 0, at_once=4, compiled=True)
    engines.try_out(made, engines.static_cache, trial)
    engines._forget(made.model_alone())


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # of libraries, which differ from card to card
def test_continuous_batching_gives_the_plain_models_tokens() -> None:
    """With FlashAttention where it is installed; its pages on PyTorch's own attention otherwise."""
    made = on_card("bfloat16", "llama")
    attention = engines.flash_attention() or "sdpa"
    way = partial(engines.continuous_batching, attention=attention)
    engines.try_out(made, way, Asked(PROMPTS, range(5), 10, made.end_of_turn_ids(), 0))
