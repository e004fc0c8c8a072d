"""Heads that share a key, taken together for one token, give what transformers' own attention gives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from bench.models import grouped_attention, packed_attention

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


@pytest.mark.parametrize("mask", ["none", "bool", "float"])
@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_one_token_over_a_cache(groups: int, mask: str) -> None:
    """Two rows of 7 keys, of which the first row hides 3."""
    torch.manual_seed(groups)
    query, key, value = (torch.randn(2, heads, length, 4) for heads, length in ((8, 1), (groups, 7), (groups, 7)))
    seen = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    seen[0, ..., :3] = False
    given = None if mask == "none" else packed_attention.added(seen, torch.float32) if mask == "float" else seen
    module: Any = SimpleNamespace(num_key_value_groups=8 // groups, is_causal=True, training=False)
    made, _ = grouped_attention.forward(module, query, key, value, given, scaling=0.3)
    repeated = [one.repeat_interleave(8 // groups, dim=1) for one in (key, value)]
    scores = query @ repeated[0].transpose(2, 3) * 0.3
    if mask != "none":
        scores = scores.masked_fill(~seen, -torch.inf)
    wanted = (scores.softmax(-1) @ repeated[1]).transpose(1, 2)
    assert made.shape == (2, 1, 8, 4)
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("cache", [None, "static"])
def test_a_model_generates_the_same_tokens(cache: str | None, device: str) -> None:
    """Prompts of 6 and 3 tokens in a batch, 8 key heads shared by 2; many tokens take the way over the groups, and it is seen."""
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model("llama", num_key_value_heads=2, **SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval().to(device)
    packed_attention.install(model)
    ids = torch.tensor([[5, 9, 31, 4, 7, 8], [0, 0, 0, 12, 33, 2]], device=device)
    given = {"input_ids": ids, "attention_mask": (ids != 0).long(), "do_sample": False, "max_new_tokens": 12}
    given |= {"eos_token_id": None, "pad_token_id": 0, "cache_implementation": cache, "disable_compile": True}
    wanted = model.generate(**given)
    taken: list[int] = []
    real = grouped_attention.F.scaled_dot_product_attention

    def watched(query: Any, *others: Any, **more: Any) -> Any:
        taken.append(query.shape[2])
        return real(query, *others, **more)

    with grouped_attention.installed(model), pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped_attention.F, "scaled_dot_product_attention", watched)
        assert torch.equal(model.generate(**given), wanted)
    assert taken.count(4) == 2 * 11  # layers, tokens after the first: 8 heads over 2 groups
    assert model.config._attn_implementation == packed_attention.NAME
    assert len(set(wanted[0, 6:].tolist())) > 3


def test_another_attention_is_left_alone() -> None:
    config = transformers.AutoConfig.for_model("llama", num_key_value_heads=2, **SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with grouped_attention.installed(model):
        assert model.config._attn_implementation == "eager"
