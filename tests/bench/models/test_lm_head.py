"""The vocabulary projection in chunks against one plain cross-entropy, and the layouts, on four architectures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from bench.data.tokens import Example
from bench.models import lm_head, policy, world_model
from bench.models.objectives import collate, dpo_and_chosen_sums, sequence_logps, sft_sum
from bench.settings import Lora, Model

CPU = torch.device("cpu")
VOCABULARY = 40
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = SHAPE | {"num_key_value_heads": 2}
CONFIGS: dict[str, Any] = {
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SHAPE),
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),
    "gemma2": lambda: transformers.Gemma2Config(**GROUPED, head_dim=8, sliding_window=16, final_logit_softcapping=2.0),
}


@pytest.fixture(scope="module", params=CONFIGS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[policy.Policy]:
    """Load a tiny random model as a user's own, with an adapter whose B matrices are not zero."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]()).save_pretrained(folder)
    world_model.tokenizer().save_pretrained(folder)
    loaded = policy.load(Model(source="local", path=str(folder)), CPU)
    loaded.attach(Lora(rank=2, alpha=4), seed=1)
    torch.manual_seed(7)
    with torch.no_grad():
        for value in loaded.trainable().values():
            value.copy_(0.1 * torch.randn_like(value))
    yield loaded


def pairs(lengths: list[tuple[int, int, int]]) -> list[Example]:
    generator = torch.Generator().manual_seed(0)

    def some(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (count,), generator=generator).tolist())

    return [Example(some(prompt), (some(chosen), some(rejected))) for prompt, chosen, rejected in lengths]


PAIRS = pairs([(5, 3, 4), (2, 6, 1), (9, 2, 2)])
ROWS = [Example(pair.prompt, pair.answers[:1]) for pair in PAIRS]
REFERENCE = {"chosen": torch.full((3,), -9.0), "rejected": torch.full((3,), -11.0)}


def loss_and_gradients(made: policy.Policy, objective: str, layout: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    made.model.zero_grad()
    if objective == "dpo":
        loss = dpo_and_chosen_sums(made.model, collate(PAIRS, layout, CPU), REFERENCE, beta=0.5)[0]
    else:
        loss = sft_sum(made.model, collate(ROWS, layout, CPU))
    loss.backward()
    return loss.detach(), [value.grad.clone() for value in made.trainable().values()]  # type: ignore[union-attr]


def assert_equal(
    ours: tuple[torch.Tensor, list[torch.Tensor]], theirs: tuple[torch.Tensor, list[torch.Tensor]]
) -> None:
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=4e-6)
    assert max(float(gradient.abs().max()) for gradient in theirs[1]) > 0.01
    for one, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=4e-6)


@pytest.mark.parametrize("objective", ["dpo", "sft"])
def test_chunks_give_the_loss_and_gradient_of_the_plain_path(
    made: policy.Policy, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """18 answer tokens of DPO and 11 of SFT at 4 tokens a chunk: several chunks, of unequal size."""
    plain = loss_and_gradients(made, objective, "plain")
    monkeypatch.setattr(lm_head, "CHUNK_LOGITS", {"cpu": 4 * VOCABULARY})
    assert_equal(loss_and_gradients(made, objective, "plain"), plain)
    with torch.no_grad():
        assert float(sft_sum(made.model, collate(ROWS, "plain", CPU))) > 1


def test_a_trained_projection_gets_its_gradient_in_chunks_too(
    made: policy.Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that is trained itself cannot take the shortcut for a frozen one."""
    head = made.model_alone().get_output_embeddings()
    head.weight.requires_grad_(True)
    gradients = []
    for tokens in (1000, 4):
        monkeypatch.setattr(lm_head, "CHUNK_LOGITS", {"cpu": tokens * VOCABULARY})
        made.model.zero_grad()
        sft_sum(made.model, collate(ROWS, "plain", CPU)).backward()
        gradients.append(head.weight.grad.clone())
    head.weight.requires_grad_(False)
    head.weight.grad = None
    assert float(gradients[0].abs().max()) > 0.01
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=4e-6)


class Largest(TorchDispatchMode):
    """Note the most logits that one product with the vocabulary's weights, or a part of them, makes."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.place, self.hidden, self.logits, self.made = weight.untyped_storage().data_ptr(), weight.shape[1], 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in (torch.ops.aten.mm.default, torch.ops.aten.mm.out, torch.ops.aten.addmm.default):
            places = [one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)]
            if self.place in places and result.shape[-1] != self.hidden:
                self.logits = max(self.logits, result.numel())
                self.made += result.numel()
        return result


@pytest.mark.parametrize("layout", ["plain", "shared_prompt"])
@pytest.mark.parametrize("tokens", [1000, 10])
def test_no_more_logits_than_a_chunk_are_ever_made(
    made: policy.Policy, layout: Any, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward of 18 answer tokens, in one block or in two: never many logits at a time.

    Each is made once, but for capped ones, which are made again backward.
    """
    monkeypatch.setattr(lm_head, "CHUNK_LOGITS", {"cpu": 4 * VOCABULARY})
    monkeypatch.setattr(lm_head, "BLOCK_TOKENS", {"cpu": tokens})
    with Largest(made.model_alone().get_output_embeddings().weight) as seen:
        loss_and_gradients(made, "dpo", layout)
    assert 3 * VOCABULARY < seen.logits <= 4 * VOCABULARY
    capped = getattr(made.model_alone().config, "final_logit_softcapping", None) is not None
    assert seen.made == (2 if capped else 1) * 18 * VOCABULARY


def test_a_target_that_is_all_but_certain_keeps_an_exact_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits 0 and 20 for two tokens: ∂ log p(second) = (W₂ − W₁) · (1 − p), with 1 − p = 1 / (1 + e²⁰) = 2.0612e-9."""
    monkeypatch.setattr(lm_head, "CHUNK_LOGITS", {"cpu": 1})
    head = torch.nn.Linear(1, 2, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[0.0], [20.0]]))
    hidden = torch.ones(3, 1, requires_grad=True)
    lm_head.token_logps(head, hidden, torch.tensor([1, 1, 1])).sum().backward()
    torch.testing.assert_close(hidden.grad, torch.full((3, 1), 20 * 2.0612e-9), rtol=1e-4, atol=0)


def test_a_batch_below_the_chunk_is_one_plain_cross_entropy() -> None:
    """Bit for bit, so that small models' numbers are what they were."""
    head = torch.nn.Linear(8, VOCABULARY, bias=False).requires_grad_(False)
    hidden, targets = torch.randn(30, 8), torch.arange(30)
    expected = -torch.nn.functional.cross_entropy(head(hidden), targets, reduction="none")
    assert lm_head.token_logps(head, hidden, targets).equal(expected)


def test_bfloat16_chunks_stay_within_its_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same roundings as the plain path: logits to bfloat16, and the gradient once."""
    torch.manual_seed(0)
    head = torch.nn.Linear(32, VOCABULARY, bias=True, dtype=torch.bfloat16).requires_grad_(False)
    values, targets = torch.randn(30, 32).bfloat16(), torch.randint(0, VOCABULARY, (30,))
    made = []
    for tokens in (1000, 7):
        monkeypatch.setattr(lm_head, "CHUNK_LOGITS", {"cpu": tokens * VOCABULARY})
        hidden = values.clone().requires_grad_(True)
        logps = lm_head.token_logps(head, hidden, targets)
        assert logps.dtype is torch.float32
        (logps * torch.linspace(-1, 1, 30)).sum().backward()
        made.append((logps.detach(), hidden.grad))
    torch.testing.assert_close(made[1][0], made[0][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(made[1][1], made[0][1], rtol=0.02, atol=0.004)


# ---- layouts --------------------------------------------------------------------------------------------------------


def test_shared_prompts_give_the_loss_and_gradient_of_plain_rows(made: policy.Policy) -> None:
    assert made.layout_of(PAIRS) == "shared_prompt"
    with torch.no_grad():
        shared, plain = (sequence_logps(made.model, collate(PAIRS, one, CPU)) for one in ("shared_prompt", "plain"))
    assert float((shared - plain).abs().max()) <= 4e-6
    assert_equal(loss_and_gradients(made, "dpo", "shared_prompt"), loss_and_gradients(made, "dpo", "plain"))


SHORT = [
    Example(pair.prompt, pair.answers[:1]) for pair in pairs([(3, 2, 1), (9, 5, 1), (2, 4, 1), (4, 3, 1), (1, 1, 1)])
]


def test_rows_behind_one_another_give_the_loss_and_gradient_of_plain_rows(made: policy.Policy) -> None:
    """Lengths 5, 14, 6, 7 and 2: one row of 34 tokens instead of five rows of 14."""
    one_row, plain = (collate(SHORT, layout, CPU) for layout in ("shared_prompt", "plain"))  # type: ignore[arg-type]
    assert (tuple(one_row.input_ids.shape), one_row.padding) == ((1, 34), 0)
    assert (tuple(plain.input_ids.shape), plain.padding) == ((5, 14), 5 * 14 - 34)
    results = []
    for batch in (one_row, plain):
        made.model.zero_grad()
        loss = sft_sum(made.model, batch)
        loss.backward()
        results.append((loss.detach(), [value.grad.clone() for value in made.trainable().values()]))  # type: ignore[union-attr]
    assert_equal(results[0], results[1])


def test_only_answer_tokens_get_logits_and_the_record_says_how_rows_lie(made: policy.Policy) -> None:
    assert made.forward_facts(PAIRS) == {
        "layout": "shared_prompt",
        "logits": "answer tokens",
        "attention": "by example",
        "compiled": "nothing",
        "gradient_checkpointing": False,
        "notes": [],
    }


def test_rows_longer_than_the_window_lie_plain(made: policy.Policy, caplog: pytest.LogCaptureFixture) -> None:
    """Gemma 2's window here is 16: a row of 12 + 8 tokens reaches past it, one of 12 + 4 does not; the others look at all.

    Past the window the two layouts do differ, which is what the fallback is for.
    """
    long, fitting = pairs([(12, 8, 1)]), pairs([(12, 4, 4)])
    windowed = made.model.config.model_type == "gemma2"
    with torch.no_grad():
        shared, plain = (sequence_logps(made.model, collate(long, one, CPU)) for one in ("shared_prompt", "plain"))
    assert (float((shared - plain).abs().max()) > 1e-4) is windowed
    with caplog.at_level("WARNING", logger="bench"):
        layouts = [made.layout_of(rows) for rows in (long, fitting, long)]
    assert layouts == (["plain", "shared_prompt", "plain"] if windowed else ["shared_prompt"] * 3)
    said = ["rows of 20 tokens reach past the model's window of 16: prompts are not shared"] if windowed else []
    assert [one.message for one in caplog.records] == said
    assert made.notes == said
    made.notes.clear()
