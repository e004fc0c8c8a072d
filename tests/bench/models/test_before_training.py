"""What is wrong with a model is one line before anything is trained, or in the first job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from byte_level import byte_tokenizer

from bench.errors import ModelError
from bench.export import export
from bench.models import policy, tokenizers
from bench.models.policy import Policy
from bench.run import execute
from bench.settings import Lora, Model

TOKENIZER = byte_tokenizer()
CPU = torch.device("cpu")


def save(folder: Path, kind: str = "llama", **changes: Any) -> Model:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": len(TOKENIZER), "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    if kind == "llama":
        sizes |= {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        config: Any = transformers.LlamaConfig(**(sizes | {"max_position_embeddings": 64} | changes))
    elif kind == "gpt2":
        config = transformers.GPT2Config(**sizes, n_positions=64, n_embd=16, n_layer=1, n_head=2)
    else:
        config = transformers.MambaConfig(**sizes, hidden_size=16, num_hidden_layers=1, state_size=4)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return Model(source="local", path=str(folder))


def test_a_token_without_an_embedding_is_named(tmp_path: Path) -> None:
    model = save(tmp_path)
    more = byte_tokenizer()
    more.add_tokens(["<cat>"])
    count = len(TOKENIZER)
    with pytest.raises(ModelError) as caught:
        tokenizers.check(model, more, 8, lambda: 8)
    assert str(caught.value) == (
        f"model local:{tmp_path}: its tokenizer makes {count + 1} tokens, and its vocabulary has {count} embeddings: "
        f"'<cat>' (id {count}) has none; resize the embeddings, or take the tokenizer that belongs to it"
    )
    assert tokenizers.check(model, TOKENIZER, 8, lambda: 8) == []


def test_rows_beyond_learned_positions_are_refused_and_beyond_rotary_ones_told(tmp_path: Path) -> None:
    """64 positions: a limit of 100 matters only if some row is that long, and only GPT-2 has nothing beyond them."""
    learned, rotary = save(tmp_path / "gpt2", "gpt2"), save(tmp_path / "llama")
    for model in (learned, rotary):
        assert tokenizers.check(model, TOKENIZER, 100, lambda: 64) == []
    with pytest.raises(
        ModelError, match=r"it has 64 positions, and a row has 65 tokens; lower data\.max_prompt_tokens"
    ):
        tokenizers.check(learned, TOKENIZER, 100, lambda: 65)
    assert tokenizers.check(rotary, TOKENIZER, 100, lambda: 65) == [
        f"model local:{tmp_path / 'llama'}: a row has 65 tokens, and it was made for 64"
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(tmp_path: Path, value: float) -> None:
    model = save(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    loaded.model.layers[1].mlp.up_proj.weight.data[3, 2] = value
    loaded.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN or infinite values"):
        policy.load(model, CPU)


def test_finite_weights_that_compute_nan_are_said_at_loading(tmp_path: Path) -> None:
    """Numbers of 1e38 are finite, and their sums are not."""
    model = save(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    loaded.lm_head.weight.data.fill_(3e38)
    loaded.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"it computes NaN for a plain sentence in float32"):
        policy.load(model, CPU)


def test_what_peft_refuses_is_said_truly_and_leaves_the_model_whole(tmp_path: Path) -> None:
    """Mamba's out_proj takes no adapter: all-linear fails, the message names modules of the model, and those work."""
    made = policy.load(save(tmp_path, "mamba"), CPU)
    for _ in range(2):  # the second time as the first
        with pytest.raises(ModelError) as caught:
            made.attach(Lora(rank=2, alpha=4), 0)
        message = str(caught.value)
        assert "peft takes no adapter there" in message and "out_proj" in message
        assert message.endswith("modules of this model that may be named: dt_proj, in_proj, lm_head, x_proj")
    made.attach(Lora(rank=2, alpha=4, targets=("in_proj", "x_proj")), 0)
    assert made.trainable()


def ends(tmp_path: Path, config: Any, generation: Any) -> Policy:
    model = save(tmp_path, eos_token_id=config)
    settings = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": generation}))
    return policy.load(model, CPU)


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        (2, 2, [2]),
        (2, [2, 5], [2, 5]),  # as Gemma-2-it and Phi-3 list theirs
        ([2, 7], 5, [2, 5, 7]),
        (None, None, [2]),  # the tokenizer's own
        (2, 5000, [2]),  # no such token
    ],
)
def test_ends_of_turn_are_those_of_all_settings(
    tmp_path: Path, config: Any, generation: Any, expected: list[int]
) -> None:
    assert ends(tmp_path, config, generation).end_of_turn_ids() == expected


@pytest.mark.parametrize("merge", [True, False])
def test_what_is_exported_stops_where_ours_does(tmp_path: Path, tiny: Any, run_plan: Any, merge: bool) -> None:
    """The base's settings name one end, the tokenizer another: plain generate() must stop at both."""
    ends(tmp_path / "base", 7, 7)
    runner = run_plan(tiny(model={"source": "local", "path": str(tmp_path / "base")}))
    execute.write_suite(runner.plan, runner.folder)
    export.export(runner.folder, runner.run("mix").id, tmp_path / "made", merge=merge)
    written = json.loads((tmp_path / "made" / "generation_config.json").read_text())
    assert written["eos_token_id"] == [2, 7]
