"""LoRA's products in bfloat16 against PEFT's own forward pass, which makes them in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import Linear

from bench.models import lora_products, policy
from bench.models.objectives import collate, sequence_logps
from bench.settings import Lora, Model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def load(dtype: str = "bfloat16", device: str = "cpu", **lora: Any) -> policy.Policy:
    made = policy.load(Model.model_validate({"source": "random", "dtype": dtype}), torch.device(device))
    made.attach(Lora.model_validate({"rank": 2, "alpha": 4} | lora), seed=0)
    with torch.no_grad():
        for one in made.trainable().values():
            one.copy_(torch.randn(one.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return made


def layers(made: policy.Policy) -> list[Any]:
    return [one for one in made.model.modules() if isinstance(one, Linear)]


def of_layer(layer: Any, x: torch.Tensor) -> list[torch.Tensor]:
    inputs = x.clone().requires_grad_()
    weights = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    mixed = layer(inputs)
    return [mixed.detach(), *torch.autograd.grad(mixed.float().square().sum(), [inputs, *weights])]


def test_output_and_gradients_are_pefts_to_rounding() -> None:
    """bfloat16 rounds by at most 2⁻⁹ = 0.2 %; a dozen terms and two roundings more stay below 2 % of the norm."""
    made = load()
    for layer in layers(made):
        layer.lora_B["default"].weight.data.normal_()  # what the adapter adds outweighs the base
        x = torch.randn(5, layer.in_features).bfloat16()
        expected = of_layer(layer, x)
        layer.__class__ = lora_products.kind()
        for one, other in zip(of_layer(layer, x), expected, strict=True):
            assert one.dtype is other.dtype
            assert float((one - other).float().norm()) < 0.02 * float(other.float().norm())


def test_all_layers_are_turned_over_and_keep_their_weights() -> None:
    made = load()
    before = made.trained_state()
    assert lora_products.in_bfloat16(made.model)
    assert {type(one) for one in layers(made)} == {lora_products.kind()}
    for name, value in made.trained_state().items():
        assert value.dtype is torch.float32
        assert value.equal(before[name])


def test_a_merged_or_disabled_adapter_goes_pefts_way() -> None:
    expected = []
    for turned in (False, True):
        made = load()
        assert not turned or lora_products.in_bfloat16(made.model)
        layer = layers(made)[0]
        x = torch.linspace(-1, 1, 3 * layer.in_features).view(3, -1).bfloat16()
        with torch.no_grad():
            layer.enable_adapters(False)
            expected.append(layer(x))
            layer.enable_adapters(True)
            layer.merge()
            expected.append(layer(x))
    assert expected[2].equal(expected[0])
    assert expected[3].equal(expected[1])
    assert not expected[0].equal(expected[1])


def test_what_disagrees_is_left_to_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Linear):  # type: ignore[misc, unused-ignore]
        def forward(self, x: torch.Tensor, *values: Any, **named: Any) -> Any:
            return super().forward(x) + super().forward(x) - self.base_layer(x)

    made = load()
    monkeypatch.setattr(lora_products, "kind", lambda: Wrong)
    before = made.trained_state()
    assert not lora_products.in_bfloat16(made.model)
    assert {type(one) for one in layers(made)} == {Linear}
    for name, value in made.trained_state().items():
        assert value.equal(before[name])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cpu_keeps_pefts_numbers(dtype: str) -> None:
    made = load(dtype)
    lora_products.install(made)
    assert {type(one) for one in layers(made)} == {Linear}
    assert made.notes == []


def test_a_reload_is_compared_in_the_way_that_was_trained(tmp_path: Path) -> None:
    """Were the reloaded adapter to compute in float32, the logits would differ by roundings."""
    made = load()
    assert lora_products.in_bfloat16(made.model)
    made.save(tmp_path)
    assert made.check_reload(tmp_path, torch.tensor([[5, 9, 3, 7]])) == 0
    assert lora_products.installed(made.model)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_takes_it_in_bfloat16_and_a_saved_adapter_gives_the_same(dtype: str, tmp_path: Path) -> None:
    from bench.data.tokens import Example

    made = load(dtype, "cuda")
    lora_products.install(made)
    assert {type(one) for one in layers(made)} == {lora_products.kind() if dtype == "bfloat16" else Linear}
    batch = collate([Example((5, 9, 3), ((7, 2), (8, 4, 6)))], made.layout, made.device)
    outcomes = []
    for kinds in (None, Linear):
        for one in layers(made):
            one.__class__ = kinds or type(one)
        made.model.zero_grad()
        logps = sequence_logps(made.model, batch)
        logps.sum().backward()
        gradients = [one.grad.flatten() for one in made.trainable().values() if one.grad is not None]
        outcomes.append((logps.detach(), torch.cat(gradients)))
    for fast, plain in zip(*outcomes, strict=True):
        assert float((fast - plain).norm()) <= 0.1 * float(plain.norm())
    for one in layers(made):
        one.__class__ = lora_products.kind() if dtype == "bfloat16" else Linear
    made.save(tmp_path)
    ids = torch.tensor([[5, 9, 3, 7]], device="cuda")
    assert made.check_reload(tmp_path, ids) == 0
