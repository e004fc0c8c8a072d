"""Products of bfloat16 numbers in float32: the same numbers, gradients included, and only where it pays."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from bench.data.tokens import Example
from bench.models import bf16_matmul, policy
from bench.models.objectives import collate, sequence_logps
from bench.settings import Lora, Model

CPU = torch.device("cpu")
EXAMPLES = [Example(tuple(range(3, 25)), (tuple(range(30, 45)), tuple(range(50, 60)))) for _ in range(2)]


@pytest.fixture(params=[True, False])
def faster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(bf16_matmul, "float32_is_faster", lambda: request.param)
    return bool(request.param)


@pytest.fixture
def slow_bfloat16(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(bf16_matmul, "float32_is_faster", lambda: True)
    yield


def test_a_product_is_the_exact_one_rounded_once(slow_bfloat16: None) -> None:
    """In float64 nothing rounds; bfloat16 keeps 8 bits, so half a step is 2⁻⁹ of the value (and sums of 48 round a little)."""
    torch.manual_seed(0)
    model = torch.nn.Linear(48, 20, dtype=torch.bfloat16).requires_grad_(False)
    inputs = torch.randn(bf16_matmul.ROWS, 48).bfloat16().requires_grad_(True)
    above = torch.randn(bf16_matmul.ROWS, 20).bfloat16()
    made = bf16_matmul._forward(model, inputs)
    made.backward(above)
    expected = inputs.detach().double() @ model.weight.double().T + model.bias.double()
    torch.testing.assert_close(made.double(), expected, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(inputs.grad.double(), above.double() @ model.weight.double(), rtol=2**-8, atol=1e-6)  # type: ignore[union-attr]
    assert made.dtype is inputs.grad.dtype is torch.bfloat16  # type: ignore[union-attr]


def test_a_few_rows_and_other_dtypes_are_left_alone(slow_bfloat16: None) -> None:
    assert bf16_matmul.in_float32(torch.zeros(bf16_matmul.ROWS, 4, dtype=torch.bfloat16), bf16_matmul.ROWS)
    assert not bf16_matmul.in_float32(torch.zeros(4, 4, dtype=torch.bfloat16), bf16_matmul.ROWS - 1)
    assert not bf16_matmul.in_float32(torch.zeros(64, 4), 64)
    model = torch.nn.Linear(4, 4, dtype=torch.bfloat16)
    few = torch.randn(3, 4).bfloat16()
    assert bf16_matmul._forward(model, few).equal(F.linear(few, model.weight, model.bias))


def test_a_model_says_how_it_multiplies_and_its_numbers_stay_within_rounding(faster: bool) -> None:
    """The same model both ways: log-probabilities and adapter gradients as near as bfloat16 is to float32."""
    loaded = policy.load(Model(source="random", dtype="bfloat16"), CPU)
    assert any("float32" in note for note in loaded.notes) is faster
    assert hasattr(loaded.model.get_output_embeddings(), "bench_float32") is faster
    assert not any("bench_float32" in name for name in loaded.model.state_dict())
    exact = policy.load(Model(source="random"), CPU)
    exact.model.load_state_dict({name: value.float() for name, value in loaded.model.state_dict().items()})
    found = []
    for one in (loaded, exact):
        one.attach(Lora(rank=2, alpha=4, targets=("q_proj", "v_proj")), 0)
        for name, value in one.trainable().items():
            if "lora_B" in name:
                torch.nn.init.constant_(value, 0.02)
        logps = sequence_logps(one.model, collate(EXAMPLES, one.layout_of(EXAMPLES), CPU))
        logps.sum().backward()
        found.append((logps.detach(), torch.cat([value.grad.flatten() for value in one.trainable().values()])))  # type: ignore[union-attr]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0.01, atol=0.05)
    close = torch.nn.functional.cosine_similarity(found[0][1].float(), found[1][1], dim=0)
    assert float(close) > 0.99


def test_what_is_trained_keeps_its_own_product(slow_bfloat16: None) -> None:
    """Only frozen weights have no gradient to lose."""
    model = policy.load_model(Model(source="random", dtype="bfloat16"))[0]
    trained = copy.deepcopy(model)
    trained.model.layers[0].mlp.up_proj.weight.requires_grad_(True)
    assert bf16_matmul.install(trained)
    assert "forward" not in vars(trained.model.layers[0].mlp.up_proj)
    assert "forward" in vars(trained.model.layers[0].mlp.down_proj)
    assert "forward" not in vars(model.model.layers[0].mlp.down_proj)


def test_the_choice_is_measured_once_a_process() -> None:
    bf16_matmul.float32_is_faster.cache_clear()
    first = bf16_matmul.float32_is_faster()
    assert isinstance(first, bool)
    assert bf16_matmul.float32_is_faster() is first
    assert bf16_matmul.float32_is_faster.cache_info().misses == 1


def test_checks_can_leave_products_alone(slow_bfloat16: None) -> None:
    many = torch.zeros(bf16_matmul.ROWS, 4, dtype=torch.bfloat16)
    with bf16_matmul.left_alone():
        assert not bf16_matmul.in_float32(many, bf16_matmul.ROWS)
    assert bf16_matmul.in_float32(many, bf16_matmul.ROWS)


def test_where_there_is_no_backward_pass_attention_follows_the_products(faster: bool) -> None:
    """With a unit for bfloat16 it is as fast there, and nothing is widened."""
    many = torch.zeros(bf16_matmul.ROWS, 4, dtype=torch.bfloat16)
    with bf16_matmul.forward_only():
        assert bf16_matmul.worth_widening(many, bf16_matmul.ROWS) is faster
    assert bf16_matmul.worth_widening(many, bf16_matmul.ROWS)
