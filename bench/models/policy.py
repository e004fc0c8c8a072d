"""The policy: a base model with an optional LoRA adapter. Load, attach, save, reload."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import JobError, ModelError
from bench.models import dropout, files
from bench.settings import Lora, Model

if TYPE_CHECKING:
    from bench.data.tokens import Example
    from bench.models.compiled import Compiled
    from bench.models.objectives import Layout

ADAPTER = "adapter"


@dataclass
class Policy:
    """A model in memory, with or without an adapter.

    Attributes:
        layout: how the rows of a pair lie where they fit into the window; `load` sees whether they can share prompts.
        window: positions that its attention looks back over; None: all of them.
        notes: what this model cannot take, each said once.
        checkpointing: whether activations are made anew backward instead of kept.
        most_rows: by answers a row, the rows of one pass without a graph once memory ran out with more.
        compiled: the compiled layers, while an adapter is trained with them.
        compile_seconds: what compiling them, and trying them, took.
    """

    model: Any
    tokenizer: Any
    device: torch.device
    settings: Model
    layout: Layout = "plain"
    window: int | None = None
    notes: list[str] = field(default_factory=list)
    checkpointing: bool = False
    most_rows: dict[int, int] = field(default_factory=dict)
    compiled: Compiled | None = None
    compile_seconds: float = 0.0

    def layout_of(self, examples: Sequence[Example]) -> Layout:
        """Return how rows are to lie: attention by stretch knows no window, so none may be narrower than the rows."""
        longest = max(len(one.prompt) + max(map(len, one.answers)) for one in examples)
        if self.layout == "plain" or self.window is None or longest <= self.window:
            return self.layout
        self.note(f"rows of {longest} tokens reach past the model's window of {self.window}: prompts are not shared")
        return "plain"

    def note(self, text: str) -> None:
        """Say once that something is done the plain way."""
        if text not in self.notes:
            self.notes.append(text)
            logging.getLogger("bench").warning(text)

    def forward_facts(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Say for the record how rows are forwarded; both ways give the same numbers to rounding."""
        logits = "all tokens" if self.model_alone().bench_full_logits else "answer tokens"
        layout = self.layout_of(examples)
        packed = "one call" if getattr(self.model_alone(), "bench_one_call", False) else "by example"
        return {
            "layout": layout,
            "logits": logits,
            "attention": packed if layout == "shared_prompt" else "by row",
            "compiled": "layers" if self.compiled is not None and self.compiled.failure is None else "nothing",
            "gradient_checkpointing": self.checkpointing,
            "notes": self.notes,
        }

    def model_alone(self) -> Any:
        """Return the causal model, whether or not an adapter is on it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def end_of_turn_ids(self) -> list[int]:
        """List the token ids that end an answer."""
        causal = self.model_alone()
        known = {self.tokenizer.eos_token_id}
        for settings in (causal.config, causal.config.get_text_config(), getattr(causal, "generation_config", None)):
            ids = getattr(
                settings, "eos_token_id", None
            )  # some list their end of turn in the generation's settings only
            known.update(ids if isinstance(ids, list) else [ids])
        size = causal.get_input_embeddings().num_embeddings
        return sorted(token for token in known if token is not None and 0 <= token < size)

    def attach(self, lora: Lora, seed: int, *, model_dropout: bool = False) -> None:
        """Put a fresh LoRA adapter on the base model; equal seeds give equal adapters.

        Without `model_dropout` the base model's own dropout is off from now on, in training, too.
        """
        import peft

        self.detach()
        if not model_dropout:
            dropout.turn_off(self.model)
        torch.manual_seed(seed)
        targets: Any = lora.targets[0] if lora.targets == ("all-linear",) else list(lora.targets)
        settings = peft.LoraConfig(
            task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets
        )
        names, others = _linear_names(self.model)
        settings.exclude_modules = others or None
        if lora.targets == ("all-linear",) and others:
            self.note(f"{', '.join(others)}: layers that compute more than a product, so they take no adapter")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="fan_in_fan_out")  # peft sets it as GPT-2's layers need it
                self.model = peft.get_peft_model(self.model, settings)
        except (ValueError, TypeError) as error:
            _take_off_halves(self.model)
            raise ModelError(
                f"lora.targets = {list(lora.targets)}: {_no_adapter(lora, names, others, error)}"
            ) from error
        self.set_checkpointing(self.settings.gradient_checkpointing is True)

    def set_checkpointing(self, on: bool) -> None:
        """Have the model make activations anew backward, or keep them."""
        if on or self.checkpointing:
            checkpoint_activations(self.model_alone(), on)
        self.checkpointing = on

    def attach_saved(self, folder: Path) -> None:
        """Put a saved adapter on the base model."""
        import peft

        self.detach()
        self.model = peft.PeftModel.from_pretrained(self.model, str(folder / ADAPTER), is_trainable=False)
        self.model.eval()

    def attach_sum(self, parts: Mapping[str, tuple[Path, float]]) -> None:
        """Put a weighted sum of saved adapters on the base model: ΔW = Σ weight · scale · B A, exactly.

        Args:
            parts: any name -> (the job's folder, weight).
        """
        import peft

        self.detach()
        names = list(parts)
        folders = {name: str(folder / ADAPTER) for name, (folder, _) in parts.items()}
        model = peft.PeftModel.from_pretrained(self.model, folders[names[0]], adapter_name=names[0])
        for name in names[1:]:
            model.load_adapter(folders[name], adapter_name=name)
        weights = [weight for _, weight in parts.values()]
        # "cat" stacks the factors: its rank is the sum of theirs, and nothing is approximated.
        model.add_weighted_adapter(names, weights, "default", combination_type="cat")
        model.set_adapter("default")
        for name in names:
            model.delete_adapter(name)
        self.model = model.eval()

    def detach(self) -> None:
        """Take the adapter off, leaving the base model as it was loaded."""
        if self.compiled is not None:
            self.compiled.remove()
            self.compiled = None
        if hasattr(self.model, "get_base_model"):
            self.model = self.model.unload()
            # peft leaves its settings on the base model and warns at the next adapter
            if hasattr(self.model, "peft_config"):
                del self.model.peft_config

    def save(self, folder: Path) -> None:
        """Save the adapter."""
        # The embeddings are never trained; "auto" would ask the hub whether they were resized.
        self.model.save_pretrained(str(folder / ADAPTER), save_embedding_layers=False)

    def adapter_state(self) -> dict[str, torch.Tensor]:
        """Return copies of the trainable tensors by name."""
        return {name: value.detach().clone() for name, value in self.trainable().items()}

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def restore_adapter(self, state: dict[str, torch.Tensor]) -> None:
        """Put saved tensors back into the adapter."""
        with torch.no_grad():
            for name, value in self.trainable().items():
                value.copy_(state[name])

    @torch.no_grad()
    def logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the logits of one small batch, for comparing two states of the model."""
        self.model.eval()
        logits: torch.Tensor = self.model(input_ids=input_ids).logits.float()
        return logits

    def check_reload(self, folder: Path, input_ids: torch.Tensor) -> float:
        """Reload the saved adapter and compare its logits with the trained model's.

        Returns:
            The largest absolute difference.

        Raises:
            JobError: it exceeds rounding (1e-4 in float32, 0.05 in bfloat16, relative to the largest logit).
        """
        from bench.models import lora_products

        trained, in_bfloat16 = self.logits(input_ids), lora_products.installed(self.model)
        self.attach_saved(folder)
        if in_bfloat16:
            lora_products.in_bfloat16(self.model)
        difference = float((self.logits(input_ids) - trained).abs().max())
        allowed = (1e-4 if self.settings.dtype == "float32" else 0.05) * max(1.0, float(trained.abs().max()))
        if not difference <= allowed:
            raise JobError(
                f"{folder / ADAPTER}: reloaded logits differ from the trained ones by {difference:.3g} (allowed {allowed:.3g})"
            )
        return difference


def checkpoint_activations(model: Any, on: bool = True) -> None:
    """Have a model of transformers forget its activations and make them anew backward; some 5.x know the old name only."""
    if not on:
        (getattr(model, "activation_checkpointing_disable", None) or model.gradient_checkpointing_disable)()
        return
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _linear_names(model: Any) -> tuple[list[str], list[str]]:
    """Name the modules that LoRA could adapt (GPT-2's are convolutions of width 1), and linear ones that return something else.

    A router of experts is a linear layer that returns scores and choices: an adapter would break on it.
    """
    from transformers.pytorch_utils import Conv1D

    kinds = (torch.nn.Linear, Conv1D)
    found = [(name.split(".")[-1], type(one)) for name, one in model.named_modules() if isinstance(one, kinds)]
    plain = {name for name, kind in found if kind.forward in (torch.nn.Linear.forward, Conv1D.forward)}
    return sorted(plain), sorted({name for name, _ in found} - plain)


def _take_off_halves(model: Any) -> None:
    """Put back the modules that an adapter which could not be made has already covered."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "base_layer"):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.base_layer)


def _no_adapter(lora: Lora, names: list[str], others: list[str], error: Exception) -> str:
    """Say why a model takes no adapter there, and where it may."""
    more = [name for name in lora.targets if name.split(".")[-1] in others]
    if more:
        return f"{', '.join(more)} computes more than a product, so it takes no adapter; the others are: {', '.join(names)}"
    unknown = [name for name in lora.targets if name != "all-linear" and name.split(".")[-1] not in names]
    if unknown:
        return f"not in this model{' (' + ', '.join(unknown) + ')' if len(lora.targets) > 1 else ''}; it has: {', '.join(names)}"
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    left = [name for name in names if name not in said]
    return f"peft takes no adapter there ({said}); modules of this model that may be named: {', '.join(left)}"


def load(settings: Model, device: torch.device, pretrained: Path | None = None) -> Policy:
    """Load a base model and its tokenizer.

    Args:
        settings: the suite's model settings.
        device: where it goes.
        pretrained: folder of the plan's pre-training job, for source `world`.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    choose_kernels(device)
    model, tokenizer = load_model(settings, pretrained)
    policy = Policy(model.to(device), tokenizer, device, settings)
    _check_weights(policy)
    _check_kernels(policy)
    return policy


@torch.no_grad()
def _check_weights(policy: Policy) -> None:
    """See that every weight is a number.

    Raises:
        ModelError: one is not.
    """
    for name, weight in policy.model.named_parameters():
        if not torch.isfinite(weight).all():
            where = f"model {policy.settings.source}:{policy.settings.path or ''}"
            raise ModelError(f"{where}: {name} holds NaN or infinite values, so all it computes is NaN; load it anew")


def choose_kernels(device: torch.device) -> None:
    """Keep PyTorch from cuDNN's attention on a GPU: it makes a plan for every new shape, and rows are of many lengths.

    On an H100 20 new lengths took 1.09 s, the same ones again 0.001 s; without cuDNN 0.013 s.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def load_model(settings: Model, pretrained: Path | None = None) -> tuple[Any, Any]:
    """Load a frozen base model and its tokenizer as they come, to compute as transformers has them do.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        model, tokenizer = _load(settings, getattr(torch, settings.dtype), pretrained)
    except (OSError, ValueError, ImportError) as error:
        detail = str(error).strip().splitlines()[0][:300]
        raise ModelError(f"model {settings.source}:{settings.path or ''}: cannot be loaded: {detail}") from error
    return model.eval().requires_grad_(False), tokenizer


def _load(settings: Model, dtype: torch.dtype, pretrained: Path | None) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    from bench.models import gguf, tokenizers

    if settings.source == "random":
        from bench.models import world_model

        torch.manual_seed(0)
        config = world_model.config(settings.architecture, "tiny")
        return AutoModelForCausalLM.from_config(config, dtype=dtype), world_model.tokenizer()
    places: dict[str, Callable[[], str | None]] = {
        "hub": lambda: settings.path,
        "local": lambda: str(Path(settings.path or "").expanduser()),
        "world": lambda: str(_required(pretrained) / "model"),
        "gguf_package": lambda: str(gguf.plain_copy(str(settings.path))),
    }
    place, revision = places[settings.source](), files.revision_of(settings)
    tokenizer = tokenizers.load_from(str(place), revision)
    model = AutoModelForCausalLM.from_pretrained(place, revision=revision, dtype=dtype)
    return model, tokenizer


def _required(path: Path | None) -> Path:
    if path is None:
        raise ModelError("model source 'world' needs its pre-training job")
    return path


_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


def _carries_state(model: Any) -> bool:
    """Whether any layer is other than full or windowed attention: what it carries along a row no mask can cut.

    In bfloat16 such models were seen to pass a comparison of a few tokens and to be off by nats on rows.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ())
    return bool(getattr(model, "_is_stateful", False) or kinds - _ATTENTION - {"attention"})


@torch.no_grad()
def _check_kernels(policy: Policy) -> None:
    """See on a few tokens whether this model can take the fast paths; choose the plain ones where it cannot.

    The decoder followed by the output embeddings must equal the whole model (some models scale or cap their logits), and
    a row with a shared prompt must equal two plain rows (some attention cannot go by stretch). A few tokens cannot show what a
    window does: `Policy.layout_of` looks at the rows' lengths.
    """
    from bench.data.tokens import Example
    from bench.models import bf16_matmul, one_call, packed_attention, probe, rms_norm
    from bench.models.objectives import collate, sequence_logps

    rms_norm.install(policy.model)
    if bf16_matmul.install(policy.model):
        policy.note("this CPU multiplies bfloat16 slower than float32: products are made in float32, and rounded")
    config = policy.model.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    policy.window = min((window for window in windows if window), default=None)
    ids = probe.tokens(policy.tokenizer, 16, config.vocab_size)
    # Two of them, since what a layer carries along a row would reach from one into the other.
    examples = [
        Example(tuple(ids[:3]), (tuple(ids[3:5]), tuple(ids[5:7]))),
        Example(tuple(ids[7:11]), (tuple(ids[11:14]), tuple(ids[14:]))),
    ]
    batch = collate(examples, "plain", policy.device)
    policy.model.bench_full_logits = True
    try:
        expected = sequence_logps(policy.model, batch)
    except (RuntimeError, TypeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        where = f"model {policy.settings.source}:{policy.settings.path or ''}"
        raise ModelError(f"{where}: it cannot compute a sentence in {policy.settings.dtype} here: {said}") from error
    if not torch.isfinite(expected).all():
        where = f"model {policy.settings.source}:{policy.settings.path or ''}"
        raise ModelError(
            f"{where}: it computes NaN for a plain sentence in {policy.settings.dtype}; its weights do not fit its code"
        )
    policy.model.bench_full_logits = False
    policy.model.bench_logit_cap = getattr(config, "final_logit_softcapping", None)
    dtype = policy.model.dtype
    try:
        fast = probe.agree(sequence_logps(policy.model, batch), expected, dtype)
    except (AttributeError, TypeError):
        fast = False
    policy.model.bench_full_logits = not fast
    if not fast:
        policy.note("the model does more than project to its vocabulary: logits are made for all tokens of a row")
    try:
        if _carries_state(policy.model) or not packed_attention.install(policy.model):
            raise TypeError("attention of its own")
        row = collate(examples, "shared_prompt", policy.device)
        same = probe.agree(sequence_logps(policy.model, row), expected, dtype)
    except (RuntimeError, ValueError, TypeError):
        same = False
    policy.layout = "shared_prompt" if same else "plain"
    if not same:
        policy.note("the model cannot take two answers in one row: a pair's prompt is forwarded twice")
        return
    one_call.choose(policy, row, expected)
