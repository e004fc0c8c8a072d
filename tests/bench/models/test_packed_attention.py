"""Attention by stretch against one masked softmax over the whole row, written out, with its gradients."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from bench.models import bf16_matmul, packed_attention

CPU = torch.device("cpu")
# Prompts and answers: 3 + 2 and 4, 2 + 3, 1 + 1 and 2 and 3 tokens. In all 21.
LENGTHS = [(3, (2, 4)), (2, (3,)), (1, (1, 2, 3))]
ROW = 21


def may_look() -> torch.Tensor:
    """Write the mask out by asking of every two tokens: the same example, not later, prompt or the same answer?"""
    tokens = []  # (example, answer or None for the prompt)
    for number, (prompt, answers) in enumerate(LENGTHS):
        tokens += [(number, None)] * prompt
        for answer, length in enumerate(answers):
            tokens += [(number, answer)] * length
    assert len(tokens) == ROW
    return torch.tensor(
        [
            [a[0] == b[0] and later <= now and (b[1] is None or a[1] == b[1]) for later, b in enumerate(tokens)]
            for now, a in enumerate(tokens)
        ]
    )


def expected(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cap: float | None) -> torch.Tensor:
    """softmax(q kᵀ / √d) v head by head; heads 0 and 1 share the first key and value head, 2 and 3 the second."""
    heads = []
    for head in range(4):
        scores = query[0, head] @ key[0, head // 2].T / math.sqrt(8)
        if cap is not None:
            scores = cap * torch.tanh(scores / cap)
        heads.append(scores.masked_fill(~may_look(), -math.inf).softmax(-1) @ value[0, head // 2])
    return torch.stack(heads, dim=1)[None]


@pytest.mark.parametrize("cap", [None, 2.0])
def test_stretches_equal_a_masked_row_with_gradients(cap: float | None) -> None:
    torch.manual_seed(0)
    shapes = ((1, 4, ROW, 8), (1, 2, ROW, 8), (1, 2, ROW, 8))
    results = []
    tensors = [torch.randn(shape, requires_grad=True) for shape in shapes]
    weights = torch.randn(1, ROW, 4, 8)
    stretches = packed_attention.Loop(tuple(packed_attention.stretch(*one, torch.float32, CPU) for one in LENGTHS))
    ours, _ = packed_attention.forward(SimpleNamespace(), *tensors, None, stretches=stretches, softcap=cap)  # type: ignore[arg-type]
    for mixed in (ours, expected(*tensors, cap)):  # type: ignore[arg-type]
        gradients = torch.autograd.grad((mixed * weights).sum(), tensors)
        results.append((mixed.detach(), *gradients))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6)
    assert float(results[0][1].abs().max()) > 0.1


def test_attention_that_does_not_know_stretches_comes_out_as_nan() -> None:
    """Never as one row whose examples all see each other."""
    model = tiny(transformers.LlamaConfig, "sdpa")
    known = packed_attention.arguments([(1, (1,)), (1, (2,))], torch.float32, CPU)
    with torch.no_grad():
        logits = model(torch.tensor([[5, 9, 3, 7, 2]]), **known).logits
    assert logits.isnan().all()


def test_what_stretches_do_not_know_is_refused() -> None:
    row = torch.randn(1, 1, 3, 4)
    stretches = packed_attention.Loop((packed_attention.stretch(2, (1,), torch.float32, CPU),))
    with pytest.raises(ValueError, match="s_aux cannot take stretches"):
        packed_attention.forward(None, row, row, row, None, stretches=stretches, s_aux=torch.ones(1))


def tiny(kind: Any, attention_name: str, **settings: Any) -> Any:
    shape = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "pad_token_id": 0}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    torch.manual_seed(3)
    config = kind(**shape, **heads, **settings)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention_name).eval()


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        (transformers.LlamaConfig, "sdpa", {}),
        (transformers.Gemma2Config, "eager", {"sliding_window": 4, "attn_logit_softcapping": 1.0}),
    ],
    ids=["llama", "gemma2"],
)
def test_other_calls_come_out_as_before(kind: Any, name: str, settings: dict[str, Any]) -> None:
    """Left-padded rows, a window narrower than they are, and decoding behind a cache."""
    model = tiny(kind, name, **settings)
    ids = torch.tensor([[5, 9, 3, 17, 22, 8, 11], [0, 0, 6, 30, 2, 14, 9]])
    seen = (ids != 0).int()

    def outcome() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=seen).logits[:, 2:]
            written = model.generate(
                ids, attention_mask=seen, max_new_tokens=6, do_sample=False, eos_token_id=None, use_cache=True
            )
        return logits, written

    before = outcome()
    assert packed_attention.install(model)
    after = outcome()
    torch.testing.assert_close(after[0], before[0], rtol=1e-5, atol=2e-6)
    assert after[1].equal(before[1])


def test_attention_of_a_models_own_is_left_alone() -> None:
    model = tiny(transformers.LlamaConfig, "eager")
    assert not packed_attention.install(model)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("rows", [bf16_matmul.ROWS, bf16_matmul.ROWS - 1])
def test_bfloat16_attends_in_float32_on_a_cpu_and_is_rounded_once(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its products are made in: PyTorch's attention is slow backward in bfloat16. A few rows stay as they are."""
    monkeypatch.setattr(bf16_matmul, "float32_is_faster", lambda: False)
    torch.manual_seed(0)
    module = SimpleNamespace(is_causal=True)
    query, key, value = (torch.randn(1, 4, rows, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    mixed, _ = packed_attention.forward(module, query, key, value, None)
    wide = [one.detach().float().requires_grad_() for one in (query, key, value)]
    exact = torch.nn.functional.scaled_dot_product_attention(*wide, is_causal=True).transpose(1, 2)
    assert mixed.dtype is torch.bfloat16
    assert mixed.equal(exact.to(torch.bfloat16)) is (rows == bf16_matmul.ROWS)
    above = torch.randn_like(exact).bfloat16()
    mixed.backward(above)
    exact.backward(above.float())
    for one, other in zip((query, key, value), wide, strict=True):
        assert one.grad is not None and other.grad is not None
        assert one.grad.equal(other.grad.to(torch.bfloat16)) is (rows == bf16_matmul.ROWS)
