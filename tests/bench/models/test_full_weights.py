"""All weights trained: every one has its gradient, bfloat16 keeps small steps, and the base model is there again afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench.data.tokens import Example
from bench.errors import ModelError
from bench.models import bf16_matmul, divergence, flops, full_weights, lm_head, policy
from bench.models.objectives import collate, sequence_logps, sft_sum
from bench.models.policy import Policy
from bench.settings import Lora, Model

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 11, 3, 17, 8, 2, 9]])
ROWS = [Example((5, 11, 3), ((17, 8),)), Example((4,), ((6, 7, 12),))]


def tiny(architecture: str = "llama", **settings: Any) -> Policy:
    return policy.load(Model.model_validate({"source": "random", "architecture": architecture, **settings}), CPU)


def weights(made: Policy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def train(made: Policy, steps: int = 3, lr: float = 0.01) -> None:
    made.model.train()
    optimizer = torch.optim.AdamW(made.trainable().values(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        sft_sum(made.model, collate(ROWS, "plain", CPU)).backward()
        optimizer.step()
        made.end_step()
    made.model.eval()


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
@pytest.mark.parametrize("chunked", [False, True])
def test_gradients_are_those_of_the_model_as_transformers_has_it(
    architecture: str, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fast ways for frozen weights give them no gradient, and without one a weight would stay where it is unseen."""
    if chunked:  # else a batch this small is one plain cross-entropy
        monkeypatch.setitem(lm_head.CHUNK_LOGITS, "cpu", 1)
    made = tiny(architecture)
    made.attach(None, seed=0)
    sft_sum(made.model, collate(ROWS, made.layout, CPU)).backward()
    plain, _ = policy.load_model(Model.model_validate({"source": "random", "architecture": architecture}))
    plain.requires_grad_(True)
    for row in ROWS:
        ids = torch.tensor([[*row.prompt, *row.answers[0]]])
        logits = plain(input_ids=ids).logits[0, len(row.prompt) - 1 : -1]
        F.cross_entropy(logits, ids[0, len(row.prompt) :], reduction="sum").backward()
    expected = {name: one.grad for name, one in plain.named_parameters()}
    assert made.trainable().keys() == expected.keys()
    for name, one in made.trainable().items():
        assert one.grad is not None, name
        torch.testing.assert_close(
            one.grad, expected[name], rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_packed_pairs_give_their_gradient_to_all_weights() -> None:
    """Two answers behind one prompt in a row, against the rows one by one."""
    pairs = [Example((5, 11, 3), ((17, 8), (2, 9, 4)))]
    gradients = []
    for layout in ("shared_prompt", "plain"):
        made = tiny()
        made.attach(None, seed=0)
        sequence_logps(made.model, collate(pairs, layout, CPU)).sum().backward()  # type: ignore[arg-type]
        gradients.append({name: one.grad for name, one in made.trainable().items()})
    for name, one in gradients[0].items():
        torch.testing.assert_close(one, gradients[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_whole_model_is_saved_reloaded_and_the_base_is_there_again(dtype: str, tmp_path: Path) -> None:
    made = tiny(dtype=dtype)
    before, base = weights(made), made.logits(IDS)
    fast = [one for one in made.model.modules() if "forward" in one.__dict__]
    made.attach(None, seed=0)
    train(made)
    trained = made.logits(IDS)
    assert (trained - base).abs().max() > 0.1
    made.save(tmp_path)
    assert made.check_reload(tmp_path, IDS) <= 1e-5
    made.detach()
    assert same(weights(made), before)
    assert made.logits(IDS).equal(base)
    assert [one for one in made.model.modules() if "forward" in one.__dict__] == fast
    assert not any(one.requires_grad for one in made.model.parameters())
    other = tiny(dtype=dtype)
    other.attach_saved(tmp_path)
    torch.testing.assert_close(other.logits(IDS), trained, rtol=0, atol=1e-5)


def test_bfloat16_keeps_steps_too_small_for_it() -> None:
    """A step of 1e-5 on a weight of 1 is lost in bfloat16, whose next number is 1 + 1/128; 800 of them come to one of its own."""
    made = tiny(dtype="bfloat16")
    made.attach(None, seed=0)
    name, wide = next((name, one) for name, one in made.trainable().items() if name.endswith("norm.weight"))
    assert wide.dtype is torch.float32
    own = dict(made.model.named_parameters())[name]
    optimizer = torch.optim.SGD([wide], lr=1e-5)
    with torch.no_grad():
        wide.fill_(1.0)
    seen = []
    for _ in range(800):
        wide.grad = -torch.ones_like(wide)
        optimizer.step()
        made.end_step()
        seen.append(float(own[0].detach()))
    assert (seen[0], seen[-1]) == (1.0, 1 + 1 / 128)


def test_bfloat16_gradients_add_up_in_float32() -> None:
    """256 + 1 is 256 in bfloat16."""
    made = tiny(dtype="bfloat16")
    made.attach(None, seed=0)
    name, wide = next(iter(made.trainable().items()))
    own = dict(made.model.named_parameters())[name]
    for factor in (256.0, 1.0):
        (own * factor).sum().backward()
    assert own.grad is None
    assert wide.grad is not None
    assert float(wide.grad.flatten()[0]) == 257.0


def test_a_widened_vocabulary_follows_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy in float32 of weights that were replaced would give the replaced ones' logits."""
    monkeypatch.setattr(bf16_matmul, "float32_is_faster", lambda: True)
    made = tiny(dtype="bfloat16")
    head = made.model.get_output_embeddings()
    assert bf16_matmul.weight_of(head).dtype is torch.float32
    with torch.no_grad():
        head.weight.mul_(2)
    assert bf16_matmul.weight_of(head).equal(head.weight.float())


def test_the_divergence_of_a_whole_model_is_from_the_weights_as_they_were(tmp_path: Path) -> None:
    """Against a policy of its own that holds the base; and the weights are the trained ones again afterwards."""
    made = tiny()
    assert [one for one, _ in divergence.from_base(made, ROWS, 2)] == [0.0, 0.0]
    made.attach(None, seed=0)
    train(made)
    made.save(tmp_path)
    made.attach_saved(tmp_path)
    trained = made.logits(IDS)
    found = divergence.from_base(made, ROWS, 2)
    assert made.logits(IDS).equal(trained)
    base = tiny()
    for (value, tokens), row in zip(found, ROWS, strict=True):
        ids = torch.tensor([[*row.prompt, *row.answers[0]]])
        states = slice(len(row.prompt) - 1, -1)
        p, q = (one.logits(ids)[0, states].log_softmax(-1) for one in (base, made))
        assert tokens == len(row.answers[0])
        assert value == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-3, abs=1e-6)


def test_a_whole_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    tiny("gpt_neox").save(tmp_path)
    with pytest.raises(ModelError, match="its weights are not this model's: "):
        tiny().attach_saved(tmp_path)
    assert full_weights.is_saved_in(tmp_path)


def test_backward_takes_twice_the_forward_where_all_is_trained() -> None:
    """Every product X W has a gradient for X and one for W, each as large; the lowest layer's, too, for the embeddings below."""
    made = tiny()
    made.attach(None, seed=0)
    full = flops.sizes_of(made.model)
    made.attach(Lora(rank=2, alpha=4), seed=0)
    adapter = flops.sizes_of(made.model)
    assert full and adapter
    assert full.full and not adapter.full
    assert (full.weights, full.adapter) == (adapter.weights, 0)
    assert flops.backward(full, 7, (3, 5)) == 2 * flops.forward(full, 7, (3, 5))
    made.attach(Lora(rank=2, alpha=4, init="mica"), seed=0)
    mica = flops.sizes_of(made.model)
    assert mica and mica.adapter == adapter.adapter
    # A's gradient and the one that reaches it through B, but none of B: of every layer 2 · r · out · T less.
    assert flops.backward(adapter, 7, (3,)) - flops.backward(mica, 7, (3,)) == 2 * mica.frozen_adapter * 10


@pytest.mark.filterwarnings("ignore:Model has")  # peft's, of weights that the vocabulary shares
def test_the_divergence_of_an_adapted_vocabulary_is_from_the_bases_own() -> None:
    made = tiny("gpt_neox")
    made.attach(Lora(rank=2, alpha=4, targets=("embed_out", "lm_head")), seed=0)
    train(made, lr=0.05)
    row = ROWS[1]
    ids = torch.tensor([[*row.prompt, *row.answers[0]]])
    p, q = (one.logits(ids)[0, len(row.prompt) - 1 : -1].log_softmax(-1) for one in (tiny("gpt_neox"), made))
    ((found, _),) = divergence.from_base(made, [row], 1)
    assert found == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-3)
