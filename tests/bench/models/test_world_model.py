from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from bench.data import world
from bench.models import policy, world_model
from bench.settings import Lora, Model


def test_world_texts_come_back_from_the_tokenizer() -> None:
    """Every word of the world is one token, and decoding puts spaces back where English has them."""
    tokenizer = world_model.tokenizer()
    rows = world.preference_rows("test", 60)
    texts = [
        *world.corpus()[:200],
        *(row.prompt + row.chosen for row in rows),
        *(row.prompt + row.rejected for row in rows),
    ]
    texts += [row.prompt + row.answer for row in world.instruction_rows("test", 60)]
    texts += [world.PROMPT.format(question=row["question"]) for row in world.questions("test")]
    texts.append("\n\nQuestion: Name the colour of it.\n\nAnswer: Gladly! It is red.")
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert len(ids) == len(world.words(text))
        assert tokenizer.decode(ids) == text


def test_prompt_and_answer_tokenized_apart_are_the_whole() -> None:
    """A word-level tokenizer merges nothing over the border, so parts and whole agree."""
    tokenizer = world_model.tokenizer()
    for row in world.instruction_rows("train", 20):
        parts = tokenizer(row.prompt)["input_ids"] + tokenizer(row.answer)["input_ids"]
        assert parts == tokenizer(row.prompt + row.answer)["input_ids"]


def test_special_tokens() -> None:
    """No beginning token; an unknown word is <unk>, which does not hide its neighbours."""
    tokenizer = world_model.tokenizer()
    assert tokenizer.bos_token_id is None
    assert {tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token} == {"<pad>", "<eos>", "<unk>"}
    assert tokenizer.convert_ids_to_tokens(tokenizer("red quark.")["input_ids"]) == ["red", "<unk>", "."]
    assert (
        tokenizer.decode([*tokenizer("It is red.")["input_ids"], tokenizer.eos_token_id], skip_special_tokens=True)
        == "It is red."
    )


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
@pytest.mark.parametrize(("size", "least", "most"), [("small", 0.8e6, 1.2e6), ("tiny", 20e3, 50e3)])
def test_sizes(architecture: str, size: str, least: float, most: float) -> None:
    """`small` is about 1M parameters and `tiny` about 30k, in both architectures."""
    from transformers import AutoModelForCausalLM

    config = world_model.config(architecture, size)  # type: ignore[arg-type]
    model = AutoModelForCausalLM.from_config(config)
    assert config.model_type == architecture
    assert config.vocab_size == len(world_model.tokenizer())
    assert least <= model.num_parameters() <= most


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_a_random_model_takes_an_adapter_and_the_shared_prompt(architecture: str) -> None:
    """Both tiny models can take the fast paths that a real one takes."""
    settings = Model.model_validate({"source": "random", "architecture": architecture})
    loaded = policy.load(settings, torch.device("cpu"))
    assert loaded.layout == "shared_prompt"
    loaded.attach(Lora(rank=2, alpha=4), seed=0)
    assert loaded.trainable()


def test_batches_deal_every_text_once_an_epoch_and_by_length() -> None:
    """Ten texts of lengths 1 to 10 in batches of 4: neighbours in length share a batch, of 4, 4 and 2 texts."""
    texts = [[0] * length for length in range(1, 11)]
    dealt = world_model.batches(texts, 4, random.Random(0))
    for _ in range(2):
        epoch = [sorted(len(text) for text in next(dealt)) for _ in range(3)]
        assert sorted(epoch) == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_pretraining_is_deterministic_learns_and_loads(tmp_path: Path) -> None:
    """Two trainings are equal bit for bit, beat a uniform guess (log of the vocabulary's size) and load as a policy."""
    told: list[str] = []
    facts = [world_model.pretrain(12, tmp_path / name, told.append) for name in ("a", "b")]
    assert facts[0] == facts[1]
    assert facts[0]["steps"] == 12
    assert told[-1].startswith("step 12/12")
    assert facts[0]["loss"] < torch.tensor(float(len(world_model.tokenizer()))).log()
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
    loaded = policy.load(Model(source="world"), torch.device("cpu"), pretrained=tmp_path / "a")
    text = "Question: Name the colour of it.\nAnswer:"
    assert loaded.tokenizer(text)["input_ids"] == world_model.tokenizer()(text)["input_ids"]
    assert loaded.tokenizer.decode(loaded.tokenizer(text)["input_ids"]) == text
    assert loaded.end_of_turn_ids() == [loaded.tokenizer.eos_token_id]


def test_another_seed_trains_another_model(tmp_path: Path) -> None:
    """The seed reaches both the first weights and the order of the texts."""
    for seed in (0, 1):
        world_model.pretrain(1, tmp_path / str(seed), lambda line: None, seed=seed)
    weights = [(tmp_path / seed / "model" / "model.safetensors").read_bytes() for seed in ("0", "1")]
    assert weights[0] != weights[1]
