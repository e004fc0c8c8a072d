"""An adapter in the weights gives its logits, and leaves not a bit behind."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from bench.models import policy as policies
from bench.models.merging import CannotMerge, merged, write_merged
from bench.models.policy import Policy
from bench.settings import Lora, Model

IDS = torch.tensor([[3, 17, 60, 5, 9, 31]])


def adapted(dtype: Any = "float32", targets: tuple[str, ...] = ("all-linear",), device: str = "cpu") -> Policy:
    """A random model with an adapter that changes its logits."""
    policy = policies.load(Model(source="random", dtype=dtype), torch.device(device))
    policy.attach(Lora(rank=4, alpha=8, targets=targets), seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for value in policy.trainable().values():
            value.normal_(0, 0.2)
    policy.model.eval()
    return policy


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("all-linear",)])
def test_merged_weights_give_the_adapters_logits_and_are_restored(targets: tuple[str, ...]) -> None:
    policy = adapted(targets=targets)
    before, modules = state(policy.model), [type(one) for one in policy.model.modules()]
    wanted = policy.logits(IDS)
    with merged(policy.model) as model, torch.no_grad():
        assert not any("lora" in type(one).__module__ for one in model.modules())
        torch.testing.assert_close(model(input_ids=IDS).logits, wanted, rtol=1e-4, atol=1e-4)
    assert [type(one) for one in policy.model.modules()] == modules
    assert same(state(policy.model), before)
    assert torch.equal(policy.logits(IDS), wanted)
    with policy.model.disable_adapter():
        assert (policy.logits(IDS) - wanted).abs().max() > 0.05  # else nothing was shown


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def test_bfloat16_weights_come_back_bit_for_bit(device: str) -> None:
    """Adding and taking away again would not: a bfloat16 weight forgets what lies 8 bits below it."""
    policy = adapted("bfloat16", device=device)
    before = state(policy.model)
    with merged(policy.model) as model:
        assert not same({"": model.model.layers[0].self_attn.q_proj.weight}, {
            "": next(value for name, value in before.items() if name.endswith("0.self_attn.q_proj.base_layer.weight"))
        })  # fmt: skip
    assert same(state(policy.model), before)


def test_an_error_leaves_nothing_merged() -> None:
    policy = adapted()
    before = state(policy.model)
    with pytest.raises(KeyError), merged(policy.model):
        raise KeyError
    assert same(state(policy.model), before)


def test_a_model_alone_is_as_it_is() -> None:
    policy = policies.load(Model(source="random"), torch.device("cpu"))
    with merged(policy.model) as model:
        assert model is policy.model


def test_another_kind_of_adapter_stays_beside_the_weights() -> None:
    kinds = [
        peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights="mica"),
        peft.LoHaConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]),
    ]
    for settings in kinds:
        base = policies.load(Model(source="random"), torch.device("cpu")).model
        with pytest.raises(CannotMerge, match="q_proj"), merged(peft.get_peft_model(base, settings)):
            pass


@pytest.mark.parametrize(("dtype", "dora"), [("float32", False), ("float32", True), ("bfloat16", False)])
def test_a_written_merged_model_gives_the_adapters_logits(dtype: str, dora: bool, tmp_path: Path) -> None:
    """Loaded by plain transformers; the policy in memory is as before, bit for bit."""
    from transformers import AutoModelForCausalLM

    policy = policies.load(Model(source="random", dtype=dtype), torch.device("cpu"))
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", use_dora=dora)
    policy.model = peft.get_peft_model(policy.model, settings)
    torch.manual_seed(2)
    with torch.no_grad():
        for value in policy.trainable().values():
            value.add_(torch.randn_like(value) * 0.2)
    policy.model.eval()
    before, wanted = state(policy.model), policy.logits(IDS)
    with policy.model.disable_adapter():
        assert (policy.logits(IDS) - wanted).abs().max() > 0.05  # else nothing was shown
    write_merged(policy.model, tmp_path)
    assert same(state(policy.model), before)
    assert torch.equal(policy.logits(IDS), wanted)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype).eval()
    assert not [name for name, _ in plain.named_parameters() if "lora" in name]
    closeness = 1e-4 if dtype == "float32" else 0.05 * max(1.0, float(wanted.abs().max()))
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=IDS).logits.float(), wanted, rtol=0, atol=closeness)


def test_an_adapter_on_shared_embeddings_is_not_written(tmp_path: Path) -> None:
    """Merged into the output, it would change the input, too."""
    policy = policies.load(Model(source="random"), torch.device("cpu"))
    policy.model.config.tie_word_embeddings = True
    policy.model.tie_weights()
    assert policy.model.lm_head.weight is policy.model.get_input_embeddings().weight
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["lm_head"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft says so, too
        model = peft.get_peft_model(policy.model, settings)
    with pytest.raises(CannotMerge, match="lm_head shares its weights with the embeddings"):
        write_merged(model, tmp_path)
    assert list(tmp_path.iterdir()) == []
