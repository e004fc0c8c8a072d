"""The policy: a base model with an adapter, or with other weights. Load, attach, save, reload."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import JobError, ModelError
from bench.models import adapters, dropout, files, full_weights
from bench.settings import Lora, Model

if TYPE_CHECKING:
    from bench.data.tokens import Example
    from bench.models.compiled import Compiled
    from bench.models.objectives import Layout
    from bench.models.processes import Processes

ADAPTER = "adapter"


@dataclass
class Policy:
    """A model in memory: the base, or the base with an adapter or with other weights.

    Attributes:
        layout: how the rows of a pair lie where they fit into the window; `load` sees whether they can share prompts.
        window: positions that its attention looks back over; None: all of them.
        notes: what this model cannot take, each said once.
        checkpointing: whether activations are made anew backward instead of kept.
        most_rows: by answers a row, the rows of one pass without a graph once memory ran out with more.
        compiled: the compiled layers, while an adapter is trained with them.
        compile_seconds: what compiling them, and trying them, took.
        full: what is trained where all weights are; None: an adapter, or nothing.
        kept: base weights that are others now, as they were, in the CPU's memory by name.
        start: an adapter's factors as they began, where their product was taken out of the weights.
        processes: who computes with it together; None: this process alone.
        sharded: whether each of them has a part of every weight.
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
    full: full_weights.Training | None = None
    kept: dict[str, torch.Tensor] = field(default_factory=dict)
    start: dict[str, torch.Tensor] = field(default_factory=dict)
    processes: Processes | None = None
    sharded: bool = False

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
            **({"weights": f"in parts on {self.processes.count} devices"} if self.sharded and self.processes else {}),
            "notes": self.notes,
        }

    def model_alone(self) -> Any:
        """Return the causal model, whether or not an adapter is on it."""
        return self.model.get_base_model() if self.has_adapter else self.model

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

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in; trained weights that lie in parts are kept in float32."""
        found: torch.dtype = getattr(torch, self.settings.dtype)
        return found

    @property
    def has_adapter(self) -> bool:
        return hasattr(self.model, "get_base_model")

    @property
    def is_base(self) -> bool:
        """Whether it computes what the base model does, for nothing was added or changed."""
        return not (self.has_adapter or self.kept)

    def attach(self, lora: Lora | None, seed: int, *, model_dropout: bool = False) -> None:
        """Begin to train: put a fresh LoRA adapter on the base model, or without settings for one train all of its weights.

        Equal seeds give equal adapters. Without `model_dropout` the base model's own dropout is off from now on, in training,
        too.

        Raises:
            ModelError: the model takes no such adapter.
        """
        self.detach()
        if not model_dropout:
            dropout.turn_off(self.model)
        torch.manual_seed(seed)
        if self.sharded and lora and (lora.moves_weights or lora.variant == "dora" or lora.init == "mica"):
            raise ModelError(
                f"training.shard: an adapter of variant {lora.variant} and init {lora.init} is made of whole weights, of which "
                "each device has a part here; set training.shard: false, or give variant lora or rslora and init default"
            )
        if lora is None:
            # Weights in parts are those of processes that end with their job.
            self.kept = {} if self.sharded else full_weights.copies(self.model)
            self.full = full_weights.Training(self.model)
        else:
            self._attach_adapter(lora)
            if self.processes is not None:
                self._start_alike()
        self.set_checkpointing(self.settings.gradient_checkpointing is True)

    def _attach_adapter(self, lora: Lora) -> None:
        settings = adapters.settings_of(lora)
        names, others = adapters.linear_names(self.model)
        settings.exclude_modules = others or None
        if lora.targets == ("all-linear",) and others:
            self.note(f"{', '.join(others)}: layers that compute more than a product, so they take no adapter")
        expected = None if lora.starts_exactly else self._sentence_logits()
        if lora.moves_weights:
            self.kept = full_weights.copies(self.model, adapters.linear_weights(self.model))
        try:
            self.model = adapters.put_on(self.model, settings)
            adapters.check(self.model, lora)
            if expected is not None:
                self._check_start(lora, expected)
        except ModelError:
            self.detach()
            raise
        except (ValueError, TypeError, RuntimeError) as error:
            adapters.take_off_halves(self.model)
            self.detach()
            where = f"lora.targets = {list(lora.targets)}"
            where += f", lora.init = {lora.init}" if lora.init != "default" else ""
            raise ModelError(f"{where}: {adapters.why_none(lora, names, others, error)}") from error
        if lora.moves_weights:
            self.start = adapters.factors(self.model)
            adapted = {f"{name}.weight" for name in adapters.base_names(self.model)}
            self.kept = {name: one for name, one in self.kept.items() if name in adapted}

    def _start_alike(self) -> None:
        """Take the main process's fresh adapter: devices may decompose weights, or draw numbers, otherwise."""
        assert self.processes is not None
        state, start = self.trained_state(), {name: one.clone() for name, one in self.start.items()}
        self.processes.of_main([*state.values(), *start.values()])
        self.restore_trained(state, start)

    def _sentence_logits(self) -> torch.Tensor:
        from bench.models import probe

        size = self.model.config.get_text_config().vocab_size
        return self.logits(torch.tensor([probe.tokens(self.tokenizer, 16, size)], device=self.device))

    def _check_start(self, lora: Lora, expected: torch.Tensor) -> None:
        """See that a fresh adapter begins at the base model, to rounding: not every way to begin knows every kind of layer.

        Raises:
            ModelError: it does not.
        """
        difference = float((self._sentence_logits() - expected).abs().max())
        if not difference <= self._rounding(expected):
            raise ModelError(
                f"lora.variant = {lora.variant}, lora.init = {lora.init}: on this model such an adapter does not begin at the "
                f"base model (logits differ by {difference:.3g}); give other targets, or variant: lora and init: default"
            )

    def _rounding(self, logits: torch.Tensor) -> float:
        """Return by how much logits may differ that are computed in another order: 1e-4, in bfloat16 0.05, of the largest."""
        return (1e-4 if self.settings.dtype == "float32" else 0.05) * max(1.0, float(logits.abs().max()))

    def set_checkpointing(self, on: bool) -> None:
        """Have the model make activations anew backward, or keep them."""
        if on or self.checkpointing:
            checkpoint_activations(self.model_alone(), on)
        self.checkpointing = on

    def attach_saved(self, folder: Path) -> None:
        """Make the base model the policy that a job saved: put its adapter on, or its weights in.

        Raises:
            ModelError: its weights are not this model's.
        """
        import peft

        trained = self.full is not None
        self.detach()
        if full_weights.is_saved_in(folder):
            # Where weights in parts were trained, the base model's are gone.
            self.kept = {} if self.sharded and trained else full_weights.copies(self.model)
            full_weights.load(self.model, folder)
        else:
            self.model = peft.PeftModel.from_pretrained(self.model, str(folder / ADAPTER), is_trainable=False)
        self.model.eval()

    def attach_sum(self, parts: Mapping[str, tuple[Path, float]]) -> None:
        """Make the base model a weighted sum of saved policies: ΔW = Σ weight · ΔW of each, exactly.

        Of LoRA adapters it is again an adapter, with the rank of all together; where a part is none, or gives the rows a
        length of their own (DoRA), it is a whole model.

        Args:
            parts: any name -> (the job's folder, weight).
        """
        self.detach()
        if any(full_weights.is_saved_in(folder) or _is_dora(folder) for folder, _ in parts.values()):
            self._attach_sum_of_weights(parts)
            return
        import peft

        names = list(parts)
        folders = {name: str(folder / ADAPTER) for name, (folder, _) in parts.items()}
        model = peft.PeftModel.from_pretrained(self.model, folders[names[0]], adapter_name=names[0])
        for name in names[1:]:
            model.load_adapter(folders[name], adapter_name=name)
        weights = [weight for _, weight in parts.values()]
        # The sum has the parts' scales in its factors, and a scale of its own of α / r = 1, which with rsLoRA would be √r.
        model.peft_config[names[0]].use_rslora = False
        # "cat" stacks the factors: its rank is the sum of theirs, and nothing is approximated.
        model.add_weighted_adapter(names, weights, "default", combination_type="cat")
        model.set_adapter("default")
        for name in names:
            model.delete_adapter(name)
        self.model = model.eval()

    def _attach_sum_of_weights(self, parts: Mapping[str, tuple[Path, float]]) -> None:
        """Put W + Σ weight · (W_part − W) in the place of the weights, added up in float32 in the CPU's memory."""
        from bench.models.merging import CannotMerge, merged

        base = full_weights.copies(self.model)
        total = {name: one.to(torch.float32, copy=True) for name, one in base.items()}
        for folder, weight in parts.values():
            self.attach_saved(folder)
            try:
                with merged(self.model) as causal:
                    for name, one in causal.named_parameters():
                        total[name].add_(one.detach().cpu().float() - base[name].float(), alpha=weight)
            except CannotMerge as error:
                raise JobError(f"{folder}: its weights cannot be added to others': {error}") from error
        self.detach()
        self.kept = base
        full_weights.put_in(self.model, total)
        self.model.eval()

    def detach(self) -> None:
        """Leave the base model as it was loaded, without adapter and with its own weights."""
        if self.compiled is not None:
            self.compiled.remove()
            self.compiled = None
        if self.full is not None:
            self.full.end()
            self.full = None
        if self.has_adapter:
            self.model = self.model.unload()
            # peft leaves its settings on the base model and warns at the next adapter
            if hasattr(self.model, "peft_config"):
                del self.model.peft_config
        if self.kept:
            full_weights.put_in(self.model, self.kept)
        self.kept, self.start = {}, {}

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Be the base model for a while."""
        if self.has_adapter and not self.kept:
            with self.model.disable_adapter():
                yield
            return
        if self.has_adapter:
            raise RuntimeError("an adapter that holds a part of the base model's weights cannot be put aside")
        own = full_weights.copies(self.model, self.kept)
        try:
            full_weights.put_in(self.model, self.kept)
            yield
        finally:
            full_weights.put_in(self.model, own)

    def save(self, folder: Path) -> None:
        """Save what makes the policy of the base model: the adapter, or all weights."""
        writes = self.processes is None or self.processes.main
        if not self.has_adapter:
            full_weights.save(self.model, folder, self.dtype, writes)
        elif not writes:
            return
        elif self.start:
            adapters.save(self.model, folder / ADAPTER, self.start)
        else:
            # The embeddings are never trained; "auto" would ask the hub whether they were resized.
            self.model.save_pretrained(str(folder / ADAPTER), save_embedding_layers=False)

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Return copies of what is trained, by name; of a whole model in the CPU's memory."""
        if self.full is not None:
            return {name: value.detach().to("cpu", copy=True) for name, value in self.trainable().items()}
        return {name: value.detach().clone() for name, value in self._of_adapter().items()}

    def _of_adapter(self) -> dict[str, torch.nn.Parameter]:
        """Return the adapter's tensors, those that stay as they began (MiCA's) among them."""
        named = self.model.named_parameters()
        return {name: value for name, value in named if value.requires_grad or ".lora_" in name}

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Return what the optimizer steps on, by name."""
        if self.full is not None:
            return self.full.parameters
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def restore_trained(self, state: dict[str, torch.Tensor], start: dict[str, torch.Tensor] | None = None) -> None:
        """Put saved tensors back where they are trained.

        Args:
            start: what `start` was then: another machine may have decomposed the weights otherwise.
        """
        if start and not all(self.start[name].equal(value.to(self.start[name])) for name, value in start.items()):
            self.start = {name: value.to(self.start[name]) for name, value in start.items()}
            adapters.take_out(self.model, self.start, self.kept)
        with torch.no_grad():
            for name, value in (self.trainable() if self.full else self._of_adapter()).items():
                value.copy_(state[name])
        self.end_step()

    def end_step(self) -> None:
        """Give the model what the optimizer's step left elsewhere."""
        if self.full is not None:
            self.full.round_into_model()

    def forget_gradients(self) -> None:
        self.model.zero_grad(set_to_none=True)
        for one in self.trainable().values():
            one.grad = None

    @torch.no_grad()
    def logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the logits of one small batch, for comparing two states of the model."""
        self.model.eval()
        # Of the model itself: an adapter's layers are in it, and weights in parts are put together around its own call.
        logits: torch.Tensor = self.model_alone()(input_ids=input_ids).logits.float()
        return logits

    def check_reload(self, folder: Path, input_ids: torch.Tensor) -> float:
        """Reload what was saved and compare its logits with the trained model's.

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
        difference, allowed = float((self.logits(input_ids) - trained).abs().max()), self._rounding(trained)
        if not difference <= allowed:
            where = folder / (ADAPTER if self.has_adapter else full_weights.FOLDER)
            raise JobError(
                f"{where}: reloaded logits differ from the trained ones by {difference:.3g} (allowed {allowed:.3g})"
            )
        return difference


def _is_dora(folder: Path) -> bool:
    settings = json.loads((folder / ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    return bool(settings.get("use_dora"))


def checkpoint_activations(model: Any, on: bool = True) -> None:
    """Have a model of transformers forget its activations and make them anew backward; some 5.x know the old name only."""
    if not on:
        (getattr(model, "activation_checkpointing_disable", None) or model.gradient_checkpointing_disable)()
        return
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def load(
    settings: Model,
    device: torch.device,
    pretrained: Path | None = None,
    processes: Processes | None = None,
    sharded: bool = False,
    trained: bool = True,
) -> Policy:
    """Load a base model and its tokenizer.

    Args:
        settings: the suite's model settings.
        device: where it goes.
        pretrained: folder of the plan's pre-training job, for source `world`.
        processes: who computes with it together; None: this process alone.
        sharded: whether each of them gets a part of every weight.
        trained: whether those are to be trained where `settings.tuning` is `full`.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    choose_kernels(device)
    model, tokenizer = load_model(settings, pretrained)
    policy = Policy(model, tokenizer, device, settings, processes=processes, sharded=sharded)
    if sharded:
        from bench.models import sharding

        assert processes is not None
        _check_weights(policy)
        sharding.shard(model, processes, getattr(torch, settings.dtype), trained and settings.tuning == "full")
    else:
        model.to(device)
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

    # These are for weights that are frozen, and all here.
    if not policy.sharded:
        rms_norm.install(policy.model)
    if not policy.sharded and bf16_matmul.install(policy.model):
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
    dtype = policy.dtype
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
