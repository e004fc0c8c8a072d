from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bench.data import world
from bench.evaluators import generation
from bench.evaluators.options import Generation
from bench.models import policy as policies
from bench.models.policy import Policy
from bench.settings import Model

GREEDY = {"temperature": 0.0, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def loaded() -> Policy:
    """A random model whose weights are large enough that its greedy words differ."""
    policy = policies.load(Model(source="random"), torch.device("cpu"))
    torch.manual_seed(5)
    with torch.no_grad():
        for value in policy.model.parameters():
            if value.dim() > 1:
                value.normal_(0, 0.3)
    return policy


@pytest.fixture
def policy(loaded: Policy) -> Iterator[Policy]:
    ends = loaded.model.config.eos_token_id
    yield loaded
    loaded.model.config.eos_token_id = ends


def prompts() -> list[str]:
    """Prompts of different lengths."""
    rows = world.preference_rows("test", 6)
    return [row.prompt if number % 2 else "The " + row.prompt * 2 for number, row in enumerate(rows)]


def answer(
    policy: Policy, texts: list[str], stop: tuple[str, ...] = (), limit: int = 96, **settings: Any
) -> list[dict[str, Any]]:
    return generation.answer(policy, texts, Generation.model_validate(settings), stop, limit, lambda text: None)


def greedy_by_hand(policy: Policy, text: str, count: int) -> list[int]:
    """Take the most likely token again and again, without cache, batch or padding."""
    ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    start = len(ids)
    for _ in range(count):
        with torch.no_grad():
            ids = [*ids, int(policy.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[start:]


def test_a_batch_answers_as_each_prompt_alone(policy: Policy) -> None:
    policy.model.config.eos_token_id = None
    rows = answer(policy, prompts(), batch_size=4, **GREEDY)
    assert [row["id"] for row in rows] == list(range(6))
    ends = set(policy.end_of_turn_ids())
    for text, row in zip(prompts(), rows, strict=True):
        said = greedy_by_hand(policy, text, 8)
        length = next((place for place, token in enumerate(said) if token in ends), 8)
        assert row["answer"] == policy.tokenizer.decode(said[:length], skip_special_tokens=True).strip()
        assert row["ended"] is (length < 8)
    assert len({row["answer"] for row in rows}) > 1


def test_sampling_depends_on_the_seed_alone(policy: Policy) -> None:
    torch.manual_seed(1)
    one = answer(policy, prompts(), max_new_tokens=8, seed=3)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert answer(policy, prompts(), max_new_tokens=8, seed=3) == one
    assert answer(policy, prompts(), max_new_tokens=8, seed=4) != one
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's stream is where it was


def test_an_answer_is_cut_at_the_stop_string(policy: Policy) -> None:
    """The third greedy word is made the stop string: the answer is the words before it, in three tokens."""
    text = next(text for text in prompts() if len(set(greedy_by_hand(policy, text, 3))) == 3)
    words = [policy.tokenizer.decode([token]) for token in greedy_by_hand(policy, text, 8)]
    (row,) = answer(policy, [text], stop=(words[2],), **GREEDY)
    whole = policy.tokenizer.decode(greedy_by_hand(policy, text, 8))
    assert row == {"id": 0, "answer": whole[: whole.index(words[2])].strip(), "tokens": 3, "ended": True}


def test_a_stop_string_ends_one_row_and_not_its_batch(policy: Policy) -> None:
    texts = prompts()
    whole = answer(policy, texts, **GREEDY)
    stop = whole[0]["answer"].split()[0]
    rows = answer(policy, texts, stop=(stop,), **GREEDY)
    assert rows[0]["answer"] == ""
    assert [row["answer"] for row in rows] == [row["answer"].split(stop)[0].strip() for row in whole]


def test_the_end_of_turn_ends_an_answer_and_is_counted(policy: Policy) -> None:
    """The first greedy token is made the end of the turn: an empty answer of one token."""
    text = prompts()[0]
    policy.model.config.eos_token_id = greedy_by_hand(policy, text, 1)[0]
    (row,) = answer(policy, [text], **GREEDY)
    assert row == {"id": 0, "answer": "", "tokens": 1, "ended": True}


def test_an_over_long_prompt_loses_its_left_end(policy: Policy) -> None:
    ids = policy.tokenizer(prompts()[0], add_special_tokens=False)["input_ids"]
    tail = policy.tokenizer.decode(ids[-10:])
    assert policy.tokenizer(tail, add_special_tokens=False)["input_ids"] == ids[-10:]
    (cut,) = answer(policy, [prompts()[0]], limit=10, **GREEDY)
    assert cut == answer(policy, [tail], **GREEDY)[0]


def test_the_models_own_generation_settings_have_no_say(policy: Policy) -> None:
    plain = answer(policy, prompts(), **GREEDY)
    own = policy.model.generation_config
    policy.model.generation_config = type(own)(
        repetition_penalty=50.0, max_new_tokens=2, suppress_tokens=[1, 2, 3, 4, 5]
    )
    try:
        assert answer(policy, prompts(), **GREEDY) == plain
        assert policy.model.generation_config.repetition_penalty == 50.0
    finally:
        policy.model.generation_config = own
