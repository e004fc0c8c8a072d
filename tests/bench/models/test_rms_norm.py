"""Normalization in a few passes: transformers' own numbers and gradients, and only where they are the same."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from bench.models import policy, rms_norm
from bench.settings import Model

SIZE = 24


def frozen(kind: type, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    made: torch.nn.Module = kind(SIZE).to(dtype)
    torch.manual_seed(1)
    made.weight.data.normal_(1, 0.5)  # type: ignore[union-attr,operator]
    return made.requires_grad_(False)


def test_hand_worked_numbers_and_gradient() -> None:
    """x = (3, 4): mean of squares 12.5, r = 1 / √12.5; ∂/∂x of y₁ + y₂ at w = 1 is r − x r³ (7 / 2) = r (1 − 0.28 x)."""
    hidden = torch.tensor([[3.0, 4.0]], requires_grad=True)
    normalized = rms_norm._forward(torch.ones(2), 0.0, hidden)
    normalized.sum().backward()
    r = 12.5**-0.5
    assert normalized.tolist()[0] == pytest.approx([3 * r, 4 * r])
    assert hidden.grad is not None
    assert hidden.grad.tolist()[0] == pytest.approx([r * (1 - 0.28 * 3), r * (1 - 0.28 * 4)])


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen2RMSNorm])
@pytest.mark.parametrize(
    ("dtype", "rounding"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-6)], ids=["float32", "bfloat16"]
)
def test_the_models_own_numbers_and_gradients(kind: type, dtype: torch.dtype, rounding: float) -> None:
    theirs = frozen(kind, dtype)
    ours = copy.deepcopy(theirs)
    assert rms_norm.install(torch.nn.Sequential(ours)) == 1
    torch.manual_seed(0)
    rows, above = torch.randn(2, 5, SIZE).to(dtype), torch.randn(2, 5, SIZE).to(dtype)
    found = []
    for one in (ours, theirs):
        hidden = rows.clone().requires_grad_(True)
        normalized = one(hidden)
        normalized.backward(above)
        found.append((normalized, hidden.grad))
    for mine, other in zip(*found, strict=True):
        assert mine.dtype is dtype
        torch.testing.assert_close(mine, other, rtol=rounding, atol=rounding)


def test_another_formula_or_a_trained_weight_is_left_alone() -> None:
    """Gemma 2 multiplies by 1 + w; a weight that is trained needs a gradient."""
    gemma, trained = frozen(Gemma2RMSNorm), frozen(LlamaRMSNorm).requires_grad_(True)
    assert rms_norm.install(torch.nn.Sequential(gemma, trained)) == 0
    assert "forward" not in vars(gemma)
    assert "forward" not in vars(trained)


def test_a_loaded_model_normalizes_so_and_one_that_is_only_loaded_does_not() -> None:
    """Two in each of the tiny model's layers, and one at the end."""
    settings = Model(source="random")
    loaded = policy.load(settings, torch.device("cpu")).model
    stock = policy.load_model(settings)[0]
    count = 2 * loaded.config.num_hidden_layers + 1
    assert sum("forward" in vars(one) for one in loaded.modules() if "RMSNorm" in type(one).__name__) == count
    assert not any("forward" in vars(one) for one in stock.modules())
    ids = torch.tensor([[5, 11, 3, 17, 8]])
    torch.testing.assert_close(loaded(input_ids=ids).logits, stock(input_ids=ids).logits, rtol=1e-5, atol=1e-5)
