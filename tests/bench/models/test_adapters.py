"""Variants of LoRA by PEFT's names: each starts at the base model, reloads to what was trained, and leaves the base as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench.data.tokens import Example
from bench.errors import ModelError
from bench.models import adapters, policy
from bench.models.merging import merged
from bench.models.objectives import collate, sft_sum
from bench.models.policy import Policy
from bench.settings import Lora, Model

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 11, 3, 17, 8, 2, 9]])
ROWS = [Example((5, 11, 3), ((17, 8),)), Example((4,), ((6, 7, 12),))]
VARIANTS = [
    {"variant": "dora"},
    {"variant": "rslora"},
    {"init": "gaussian"},
    {"init": "orthogonal"},
    {"init": "pissa"},
    {"init": "pissa_niter_4"},
    {"init": "olora"},
    {"init": "mica"},
    {"variant": "rslora", "init": "pissa"},
    {"variant": "dora", "init": "olora"},
]


def tiny(architecture: str = "llama", **settings: Any) -> Policy:
    return policy.load(Model.model_validate({"source": "random", "architecture": architecture, **settings}), CPU)


def lora(rank: int = 4, **changes: Any) -> Lora:
    return Lora.model_validate({"rank": rank, "alpha": 8} | changes)


def train(made: Policy, steps: int = 3) -> None:
    made.model.train()
    optimizer = torch.optim.AdamW(made.trainable().values(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        sft_sum(made.model, collate(ROWS, "plain", CPU)).backward()
        optimizer.step()
        made.end_step()
    made.model.eval()


def weights(made: Policy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
@pytest.mark.parametrize("changes", VARIANTS, ids=lambda one: "-".join(one.values()))
def test_a_variant_starts_at_the_base_reloads_and_leaves_it_as_it_was(
    architecture: str, changes: dict[str, str], tmp_path: Path
) -> None:
    """What is saved fits the base model itself: a fresh copy of it, which never saw the training, gives the trained logits."""
    made = tiny(architecture)
    before, base = weights(made), made.logits(IDS)
    made.attach(lora(**changes), seed=0)
    torch.testing.assert_close(made.logits(IDS), base, rtol=0, atol=1e-5)
    train(made)
    trained = made.logits(IDS)
    assert (trained - base).abs().max() > 0.1
    made.save(tmp_path)
    assert made.check_reload(tmp_path, IDS) <= 1e-5
    made.detach()
    assert same(weights(made), before)
    fresh = tiny(architecture)
    fresh.attach_saved(tmp_path)
    torch.testing.assert_close(fresh.logits(IDS), trained, rtol=0, atol=1e-5)


def test_what_pissa_learned_is_a_plain_adapter_of_twice_the_rank_and_the_same_scale(tmp_path: Path) -> None:
    """α / r: 8 / 4 = 16 / 8; with rsLoRA α / √r: 8 / √4 = 8 √2 / √8."""
    made = tiny()
    for variant, alpha in (("lora", 16), ("rslora", 8 * 2**0.5)):
        made.attach(lora(variant=variant, init="pissa"), seed=0)
        made.save(tmp_path / variant)
        saved = json.loads((tmp_path / variant / "adapter" / "adapter_config.json").read_text())
        assert saved["r"] == 8
        assert saved["lora_alpha"] == pytest.approx(alpha)
        assert saved["init_lora_weights"] is True
        tensors = load_file(tmp_path / variant / "adapter" / "adapter_model.safetensors")
        assert all(value.shape[0] == 8 for name, value in tensors.items() if "lora_A" in name)


def test_pissa_goes_on_from_a_decomposition_that_another_machine_made() -> None:
    """A singular vector's sign is free: with both factors' signs turned their product is the same, and so is the policy."""
    made = tiny()
    made.attach(lora(init="pissa"), seed=0)
    train(made)
    state, start, logits = made.trained_state(), made.start, made.logits(IDS)
    made.attach(lora(init="pissa_niter_1"), seed=3)  # whose product is another
    assert not torch.allclose(made.logits(IDS), logits, atol=1e-2)
    made.restore_trained(state, start)
    torch.testing.assert_close(made.logits(IDS), logits, rtol=0, atol=1e-5)
    assert same(made.start, start)


def test_micas_frozen_factor_is_in_a_checkpoint() -> None:
    """It is made of singular vectors, whose signs another machine may choose otherwise."""
    made = tiny()
    made.attach(lora(init="mica"), seed=0)
    assert all("lora_A" in name for name in made.trainable())
    assert any("lora_B" in name for name in made.trained_state())


def test_dora_merges_into_the_weights_and_comes_out_bit_for_bit() -> None:
    made = tiny()
    made.attach(lora(variant="dora", targets=("all-linear",)), seed=0)
    train(made)
    wanted, before = made.logits(IDS), weights(made)
    with merged(made.model) as model, torch.no_grad():
        torch.testing.assert_close(model(input_ids=IDS).logits, wanted, rtol=1e-4, atol=1e-4)
    assert same(weights(made), before)


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_a_sum_adds_what_the_parts_changed(variant: str, tmp_path: Path) -> None:
    """ΔW = 0.25 ΔW₁ + 0.75 ΔW₂ in one layer, by the weights that each part has when merged."""
    made, found = tiny(), []
    layer = "model.layers.0.self_attn.q_proj"
    base = made.model.get_submodule(layer).weight.detach().clone()
    for seed in (1, 2):
        made.attach(lora(variant=variant, targets=("q_proj", "v_proj")), seed)
        train(made, steps=seed)
        made.save(tmp_path / str(seed))
        with merged(made.model) as model:
            found.append(model.get_submodule(layer).weight.detach().clone())
    made.attach_sum({"one": (tmp_path / "1", 0.25), "other": (tmp_path / "2", 0.75)})
    assert made.has_adapter is (variant != "dora")
    with merged(made.model) as model:
        summed = model.get_submodule(layer).weight.detach().clone()
    torch.testing.assert_close(summed, base + 0.25 * (found[0] - base) + 0.75 * (found[1] - base), rtol=0, atol=1e-5)
    made.save(tmp_path / "sum")
    assert made.check_reload(tmp_path / "sum", IDS) <= 1e-5
    made.detach()
    assert made.is_base
    assert made.model.get_submodule(layer).weight.equal(base)


def test_a_rank_that_the_weights_do_not_have_is_one_line() -> None:
    made = tiny()
    before = weights(made)
    with pytest.raises(
        ModelError, match=r"lora.init = pissa: .*no adapter of rank 500; lower lora.rank to at most \d+$"
    ):
        made.attach(lora(rank=500, init="pissa"), seed=0)
    assert same(weights(made), before)
    assert made.is_base


def test_a_start_that_a_kind_of_layer_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """OLoRA takes a layer's weights for [out, in]; GPT-2's lie the other way, and of square ones no shape would tell."""
    made = tiny()
    before = weights(made)
    own = adapters.put_on

    def turned(model: Any, settings: Any) -> Any:
        wrapped = own(model, settings)
        with torch.no_grad():
            wrapped.get_base_model().model.layers[0].self_attn.q_proj.base_layer.weight.mul_(-1)
        return wrapped

    monkeypatch.setattr(adapters, "put_on", turned)
    with pytest.raises(
        ModelError, match=r"lora.init = olora: on this model such an adapter does not begin at the base"
    ):
        made.attach(lora(init="olora"), seed=0)
    assert same(weights(made), before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"init": "pisa"}, "unknown init 'pisa'; did you mean 'pissa'"),
        ({"init": "eva"}, "is not offered: it starts from activations on data"),
        ({"init": "loftq"}, "is not offered: it puts rounded weights"),
        ({"init": False}, "is not offered: the policy would not start at the base model"),
        ({"init": "orthogonal", "rank": 3}, "rank: init orthogonal takes an even rank, not 3"),
        ({"init": "mica", "variant": "dora"}, "PEFT does not do for dora"),
    ],
)
def test_what_is_not_offered_says_why(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        lora(**changes)
