"""The base model's own dropout, off in training unless the suite asks for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from bench.models import dropout


def model(kind: str) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 50, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    if kind == "gpt2":  # modules, 0.1 each
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    config = transformers.LlamaConfig(  # a rate that attention keeps as a number
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_dropout=0.5,
    )
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize(("kind", "rate"), [("gpt2", 0.1), ("llama", 0.5)])
def test_training_computes_what_evaluation_does(kind: str, rate: float) -> None:
    made, ids = model(kind), torch.arange(1, 13)[None]
    expected = made.eval()(input_ids=ids).logits
    made.train()
    assert not torch.equal(made(input_ids=ids).logits, expected)
    assert dropout.turn_off(made) == rate
    assert made.training
    assert torch.equal(made(input_ids=ids).logits, expected)
    assert dropout.turn_off(made) == 0.0
