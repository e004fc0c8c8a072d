"""One variable-length call against the loop over stretches. What stands in for the GPU's kernel is its documented meaning."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.data.tokens import Example
from bench.models import packed_attention, policy, varlen
from bench.models.objectives import collate, sequence_logps
from bench.settings import Lora, Model

CPU = torch.device("cpu")
LENGTHS: dict[str, list[tuple[int, tuple[int, ...]]]] = {
    "pairs": [(3, (2, 4)), (5, (1, 3))],
    "single answers": [(3, (2,)), (1, (6,))],
    "three answers and one": [(2, (3,)), (1, (1, 2, 3))],
}


def kernel(
    query: Tensor, key: Tensor, value: Tensor, queries: Tensor, keys: Tensor, most: int, seen: int, scale: float | None
) -> Tensor:
    """softmax(scale · q kᵀ) v of each piece; token i of m queries sees keys 0 … i + (n − m) of n. Groups share a key."""
    pieces = []
    for start, end, first, last in zip(queries[:-1], queries[1:], keys[:-1], keys[1:], strict=True):
        length, width = int(end - start), int(last - first)
        assert length <= most
        assert width <= seen
        one = query[start:end].transpose(0, 1)
        k, v = (
            x[first:last].transpose(0, 1).repeat_interleave(query.shape[1] // key.shape[1], dim=0) for x in (key, value)
        )
        scores = one @ k.transpose(1, 2) * (scale or query.shape[-1] ** -0.5)
        ahead = torch.arange(width)[None, :] > torch.arange(length)[:, None] + width - length
        pieces.append((scores.masked_fill(ahead, -torch.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(pieces)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "operator", lambda: kernel)


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("examples", LENGTHS.values(), ids=LENGTHS)
def test_one_call_equals_the_loop_with_gradients(
    stand_in: None, examples: list[tuple[int, tuple[int, ...]]], groups: int, scale: float | None
) -> None:
    row = sum(prompt + sum(answers) for prompt, answers in examples)
    tensors = [torch.randn(1, heads, row, 8, requires_grad=True) for heads in (4, groups, groups)]
    weights = torch.randn(1, row, 4, 8)
    results = []
    for in_one_call in (False, True):
        rows = packed_attention.arguments(examples, torch.float32, CPU, in_one_call)["stretches"]
        assert isinstance(rows, varlen.Plan) is in_one_call
        mixed, _ = packed_attention.forward(SimpleNamespace(), *tensors, None, scaling=scale, stretches=rows)  # type: ignore[arg-type]
        results.append((mixed.detach(), *torch.autograd.grad((mixed * weights).sum(), tensors)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6)
    assert float(results[0][1].abs().max()) > 0.01


def test_a_further_answer_gets_the_prompts_keys_and_its_own() -> None:
    """Prompt 0 1 2, answers 3 4 and 5 6 7 8, then prompt 9 with answer 10 11: pieces of 5, 4 and 3 queries on 5, 7 and 3
    keys. The bounds are the least powers of two from 128 on."""
    made = varlen.plan([(3, (2, 4)), (1, (2,))], CPU)
    assert made.queries.tolist() == [0, 5, 9, 12]
    assert made.keys.tolist() == [0, 5, 12, 15]
    assert made.queries.dtype is made.keys.dtype is torch.int32
    assert made.seen is not None
    assert made.seen.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 5, 6, 7, 8, 9, 10, 11]
    assert (made.longest_query, made.longest_key) == (128, 128)


def test_rows_of_single_answers_are_not_gathered_and_bounds_are_few() -> None:
    """129 and 256 tokens have the bound 256, 257 have 512."""
    for length, bound in ((128, 128), (129, 256), (256, 256), (257, 512)):
        made = varlen.plan([(length - 1, (1,)), (1, (1,))], CPU)
        assert made.seen is None
        assert (made.longest_query, made.longest_key) == (bound, bound)


@pytest.mark.parametrize("others", [{"softcap": 2.0}, {"dropout": 0.1}])
def test_what_one_call_does_not_know_is_refused(stand_in: None, others: dict[str, Any]) -> None:
    row = torch.randn(1, 1, 3, 4)
    with pytest.raises(ValueError, match="neither capped scores nor dropout"):
        packed_attention.forward(None, row, row, row, None, stretches=varlen.plan([(2, (1,))], CPU), **others)


PAIRS = [Example((5, 9, 3), ((7, 2), (8, 4, 6, 1))), Example((11, 12), ((3,), (10, 2)))]


def losses_and_gradients(made: policy.Policy) -> tuple[Tensor, list[Tensor]]:
    made.model.zero_grad()
    logps = sequence_logps(made.model, collate(PAIRS, "shared_prompt", made.device))
    (logps * torch.arange(1.0, 5.0, device=made.device)).sum().backward()
    return logps.detach(), [one.grad.clone() for one in made.trainable().values() if one.grad is not None]


def stirred(made: policy.Policy) -> policy.Policy:
    made.attach(Lora(rank=2, alpha=4), seed=1)
    with torch.no_grad():
        for one in made.trainable().values():
            one.normal_(std=0.1)
    return made


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_a_whole_model_agrees(stand_in: None, architecture: str) -> None:
    made = stirred(policy.load(Model.model_validate({"source": "random", "architecture": architecture}), CPU))
    logps, gradients = losses_and_gradients(made)
    made.model_alone().bench_one_call = True
    fast_logps, fast = losses_and_gradients(made)
    torch.testing.assert_close(fast_logps, logps, rtol=1e-5, atol=1e-5)
    assert gradients
    for one, other in zip(fast, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# ---- chosen at load -------------------------------------------------------------------------------------------------


def tried(monkeypatch: pytest.MonkeyPatch, operator: varlen.Operator) -> policy.Policy:
    """Load a model as if the kernel took float32 on a CPU."""
    monkeypatch.setattr(varlen, "reason_against", lambda model, device: None)
    monkeypatch.setattr(varlen, "operator", lambda: operator)
    return policy.load(Model(source="random"), CPU)


def test_a_kernel_that_agrees_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tried(monkeypatch, kernel)
    assert made.model.bench_one_call
    assert made.notes == []


def refuses(*arguments: Any) -> Tensor:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")


def not_aligned(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> Tensor:
    """Forget what lies before a further answer, as a kernel does that aligns masks at the top left."""
    queries, keys, most, seen, scale = others
    shifted = kernel(query, key, value, queries, keys, most, seen, scale).clone()
    shifted[-2] = 0
    return shifted


class _WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mixed: Tensor) -> Tensor:
        return mixed.clone()

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> Tensor:
        return 2 * above[0]


def wrong_backward(*arguments: Any) -> Tensor:
    apply: Any = _WrongBackward.apply
    mixed: Tensor = apply(kernel(*arguments))
    return mixed


@pytest.mark.parametrize(
    ("operator", "why"),
    [
        (refuses, "FlashAttention only supports Ampere GPUs or newer."),
        (not_aligned, "it does not agree with the loop over stretches"),
        (wrong_backward, "it does not agree with the loop over stretches"),
    ],
)
def test_one_that_fails_or_disagrees_leaves_the_loop(
    monkeypatch: pytest.MonkeyPatch, operator: varlen.Operator, why: str
) -> None:
    made = tried(monkeypatch, operator)
    assert not getattr(made.model, "bench_one_call", False)
    assert made.layout == "shared_prompt"
    assert made.notes == [f"attention goes example by example and not in one call: {why}"]


@pytest.mark.parametrize(
    ("settings", "dtype", "why"),
    [
        ({}, torch.float32, "the kernel does not take float32"),
        ({"attn_logit_softcapping": 5.0}, torch.bfloat16, "the model caps its scores"),
        ({"attention_dropout": 0.1}, torch.bfloat16, "the model drops attention weights"),
        ({}, torch.bfloat16, None),
    ],
)
def test_settings_that_rule_it_out(settings: dict[str, Any], dtype: torch.dtype, why: str | None) -> None:
    config = SimpleNamespace(**settings)
    config.get_text_config = lambda: config
    assert varlen.reason_against(SimpleNamespace(config=config, dtype=dtype), torch.device("cuda")) == why


# ---- on a GPU -------------------------------------------------------------------------------------------------------


def of_shapes(
    examples: Sequence[tuple[int, tuple[int, ...]]], dtype: torch.dtype, heads: tuple[int, int]
) -> list[Tensor]:
    row = sum(prompt + sum(answers) for prompt, answers in examples)
    return [
        torch.randn(1, count, row, 64, device="cuda", dtype=dtype, requires_grad=True)
        for count in (heads[0], heads[1], heads[1])
    ]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("heads", [(8, 8), (9, 3), (8, 1)])
@pytest.mark.parametrize("examples", LENGTHS.values(), ids=LENGTHS)
def test_the_kernel_equals_the_loop(examples: list[tuple[int, tuple[int, ...]]], heads: tuple[int, int]) -> None:
    """The kernel in bfloat16 against the loop in float32: in all 1 % apart at most, as roundings to 8 bits are; nowhere 3 % of
    the largest, as a score of the wrong token would be.
    """
    cuda = torch.device("cuda")
    tensors = of_shapes(examples, torch.bfloat16, heads)
    wide = [one.detach().float().requires_grad_() for one in tensors]
    results = []
    for inputs, dtype, in_one_call in ((wide, torch.float32, False), (tensors, torch.bfloat16, True)):
        rows = packed_attention.arguments(examples, dtype, cuda, in_one_call)["stretches"]
        mixed, _ = packed_attention.forward(SimpleNamespace(), *inputs, None, stretches=rows)  # type: ignore[arg-type]
        results.append((mixed.detach(), *torch.autograd.grad(mixed.float().square().sum(), inputs)))
    for exact, fast in zip(*results, strict=True):
        apart = fast.float() - exact
        assert float(apart.norm() / exact.norm()) < 0.01
        assert float(apart.abs().max() / exact.abs().max()) < 0.03


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_whole_model_agrees_on_a_gpu(dtype: str) -> None:
    """In float32 the loop is kept; in bfloat16 what was chosen at load is compared with the loop."""
    made = stirred(policy.load(Model.model_validate({"source": "random", "dtype": dtype}), torch.device("cuda")))
    chosen = getattr(made.model_alone(), "bench_one_call", False)
    assert not (chosen and dtype == "float32")
    fast_logps, fast = losses_and_gradients(made)
    made.model_alone().bench_one_call = False
    logps, gradients = losses_and_gradients(made)
    torch.testing.assert_close(fast_logps, logps, rtol=0.02, atol=0.1)
    for one, other in zip(fast, gradients, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.1
