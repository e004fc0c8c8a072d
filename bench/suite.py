"""What a suite may say. All validation of an experiment's settings is here or in `suite_file.py`, which reads the YAML.

Every model is frozen and refuses unknown keys. Units are in the names; λ is `lambda_dpo` and always weights DPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from bench.errors import unknown_name
from bench.stopping import uses_front

Positive = Annotated[int, Field(gt=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Dtype = Literal["float32", "bfloat16"]


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError("must lie in [0, 1]")
    return value


Share = Annotated[float, AfterValidator(_share)]


class Frozen(BaseModel):
    """Be immutable and refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(Frozen):
    """Name the base model.

    `hub` and `local` take a path (or hub id); `gguf_package` takes an installed Python package that carries one .gguf
    file; `world` is the built-in model, pre-trained by a job of the plan; `random` is a tiny untrained one.
    """

    source: Literal["hub", "local", "gguf_package", "world", "random"]
    path: str | None = None
    revision: str | None = None
    architecture: Literal["llama", "gpt_neox"] = "llama"
    dtype: Dtype = "float32"
    gradient_checkpointing: bool = False
    pretraining_steps: Positive = 600

    @model_validator(mode="after")
    def _needs_path(self) -> Model:
        if self.source in ("hub", "local", "gguf_package") and not self.path:
            raise ValueError(f"source {self.source!r} needs 'path'")
        return self


class Lora(Frozen):
    """Set the LoRA adapter; `targets` are module names, or the one word all-linear."""

    rank: Positive
    alpha: Positive
    dropout: BelowOne = 0.0
    targets: tuple[str, ...] = ("all-linear",)


class PreferenceColumns(Frozen):
    """Map the columns of preference pairs; without a prompt column it is what both texts begin with."""

    prompt: str | None = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"


class InstructionColumns(Frozen):
    """Map the columns of instruction rows."""

    instruction: str = "instruction"
    input: str | None = "input"
    output: str = "output"


class DataSource(Frozen):
    """Name a data set: hub id (or its copy in a mirror), a local file or folder, or the built-in world.

    Without a `test_split` the held-out rows are the ones that follow the training rows.
    """

    source: Literal["hub", "local", "world"]
    path: str | None = None
    revision: str | None = None
    train_split: str = "train"
    test_split: str | None = "test"
    rows: Positive
    evaluation_rows: Positive = 64

    @model_validator(mode="after")
    def _needs_path(self) -> DataSource:
        if self.source != "world" and not self.path:
            raise ValueError(f"source {self.source!r} needs 'path'")
        return self


class PreferenceData(DataSource):
    """Describe the preference pairs: prompt, chosen, rejected."""

    format: Literal["plain", "hh_dialogue", "messages"] = "plain"
    columns: PreferenceColumns = PreferenceColumns()


class InstructionData(DataSource):
    """Describe the instruction rows: instruction, input, output.

    `template` (format alpaca) makes the prompt; {prompt} is the instruction with the input, if any, on the next line.
    """

    format: Literal["plain", "alpaca", "messages"] = "alpaca"
    columns: InstructionColumns = InstructionColumns()
    template: str | None = None
    answer_prefix: str = ""

    @field_validator("template")
    @classmethod
    def _has_prompt(cls, value: str | None) -> str | None:
        if value is not None and value.count("{prompt}") != 1:
            raise ValueError("must contain {prompt} exactly once")
        return value


class Data(Frozen):
    """Describe both data sets and how long a row may be."""

    preference: PreferenceData
    instruction: InstructionData
    max_prompt_tokens: Positive = 512
    max_answer_tokens: Positive = 512
    evaluation_split: Literal["held_out", "train_head"] = "held_out"


class PerObjective(Frozen):
    """Give one whole number per objective."""

    dpo: Positive
    sft: Positive


class Stopping(Frozen):
    """Say when a joint run ends early, and what front it is held against: [f_DPO, f_SFT] points, or the ALRIGHT runs."""

    rule: Literal["none", "authors", "dominates"] = "none"
    threshold: Annotated[float, Field(gt=0)] = 1.0e-4
    front: tuple[tuple[float, float], ...] | None = Field(default=None, min_length=1)


class Training(Frozen):
    """Set the optimizer steps that every method shares. Give `epochs` or `steps`, not both."""

    epochs: Positive | None = None
    steps: Positive | None = None
    batch_size: PerObjective
    micro_batch_size: PerObjective | None = None
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    adam_betas: tuple[BelowOne, BelowOne] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    evaluate_every: Positive = 100
    checkpoint_every: Positive = 200
    stopping: Stopping = Stopping()

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of 'epochs' and 'steps'")
        for objective in ("dpo", "sft"):
            micro = getattr(self.micro_batch_size or self.batch_size, objective)
            if getattr(self.batch_size, objective) % micro:
                raise ValueError(f"batch_size.{objective} must be a multiple of micro_batch_size.{objective} ({micro})")
        return self


class Objectives(Frozen):
    """Set the two objectives: β of Eq. 1 and whether Eq. 4 is averaged per token or summed per sequence."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    reduction: Literal["token_mean", "sequence_sum"] = "token_mean"


class Reference(Frozen):
    """Say which policy is π_ref for the whole suite. Lengths left out are the training's own."""

    policy: Literal["sft", "preference_chosen", "base"] = "sft"
    rows: Positive | None = None
    batch_size: Positive | None = None
    epochs: Positive | None = None


class Method(Frozen):
    """Name a training method or a recipe, its options, and (optionally) its own λ list."""

    model_config = ConfigDict(extra="allow")

    name: str
    label: str | None = None
    lambdas: tuple[Share, ...] | None = None

    @model_validator(mode="after")
    def _known(self) -> Method:
        from bench.methods import METHODS
        from bench.recipes import RECIPES

        if self.name not in METHODS and self.name not in RECIPES:
            raise ValueError(unknown_name("method", self.name, [*METHODS, *RECIPES]))
        kind = METHODS[self.name] if self.name in METHODS else RECIPES[self.name]
        kind.Options.model_validate(self.options)
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The method's own keys, such as max_eval_every."""
        return dict(self.model_extra or {})

    @property
    def shown(self) -> str:
        return self.label or self.name


def names_alone(value: Any) -> Any:
    """Let a method without options be written as its bare name."""
    if not isinstance(value, list):
        return value
    return [{"name": entry} if isinstance(entry, str) else entry for entry in value]


def refuse_equal_labels(methods: Sequence[Method]) -> None:
    """Refuse two methods that would be shown under one name."""
    shown = [method.shown for method in methods]
    if len(set(shown)) != len(shown):
        raise ValueError("methods: two share a name; give each its own 'label'")


class LmEval(Frozen):
    """Ask lm-eval tasks; `limit` is questions per subject."""

    tasks: tuple[str, ...] = ("mmlu",)
    shots: Annotated[int, Field(ge=0)] = 1
    limit: Positive | None = None
    chat_template: bool = False
    batch_size: Positive = 8


class Generation(Frozen):
    """Set how answers are sampled; temperature 0 is greedy."""

    max_new_tokens: Positive = 128
    temperature: Annotated[float, Field(ge=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0
    batch_size: Positive = 16


class Judge(Frozen):
    """Say who compares two answers.

    `openai` is any OpenAI-compatible endpoint under an alpaca-eval configuration; the key comes from the environment
    variable `key_variable` only. `local` is a Hugging Face model that scores the two labels. `rule` knows the world.
    """

    kind: Literal["openai", "local", "rule"]
    configuration: str = "weighted_alpaca_eval_gpt4_turbo"
    model: str | None = None
    local_model: Model | None = None
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    orders: Literal["both", "single"] = "both"
    concurrency: Positive = 8
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0

    @model_validator(mode="after")
    def _needs_model(self) -> Judge:
        if self.kind == "local" and self.local_model is None:
            raise ValueError("kind 'local' needs 'local_model'")
        return self


class WinRate(Frozen):
    """Compare generated answers with the chosen answers of the preference test split."""

    prompts: Positive
    generation: Generation = Generation()
    judge: Judge


class Evaluation(Frozen):
    """Choose the evaluations; one left out is not run."""

    lm_eval: LmEval | None = None
    win_rate: WinRate | None = None


class Experiment(Frozen):
    """Hold what every suite has, whether it trains language models (`Suite`) or a toy problem (`toy_suite.ToySuite`)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    description: str = ""
    notes: tuple[str, ...] = ()
    smoke: bool = Field(default=False, exclude=True)

    @property
    def size(self) -> str:
        """How much there is to run, in words: methods × λ × seeds and steps."""
        raise NotImplementedError

    @property
    def contents(self) -> str:
        """What the suite holds, in words: methods by name, λ, seeds and steps."""
        raise NotImplementedError


class Suite(Experiment):
    """Hold one experiment: which methods, at which λ and seeds, on which model and data, judged how."""

    model: Model
    lora: Lora
    data: Data
    training: Training
    objectives: Objectives = Objectives()
    reference: Reference = Reference()
    order: Literal["sft_dpo", "dpo_sft"] = "sft_dpo"
    methods: tuple[Method, ...] = Field(min_length=1)
    lambdas: tuple[Share, ...] = Field(min_length=1)
    phases: tuple[tuple[Positive, Positive], ...] | None = None
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    evaluation: Evaluation = Evaluation()

    _names_alone = field_validator("methods", mode="before")(names_alone)

    @model_validator(mode="after")
    def _fits_together(self) -> Suite:
        for name in ("lambdas", "seeds"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name}: must not repeat a value")
        refuse_equal_labels(self.methods)
        if self.phases is not None and len(self.phases) != len(self.lambdas):
            raise ValueError("phases: must have one [dpo_epochs, sft_epochs] per λ")
        self.steps  # noqa: B018 - refuses epochs of unequal length
        if self.phases is not None and any(sum(pair) != self.training.epochs for pair in self.phases):
            raise ValueError("phases: they count epochs, so each pair must add up to training.epochs")
        if (self.data.preference.source == "world") != (self.data.instruction.source == "world"):
            raise ValueError(
                "data.instruction.source: 'world' goes with data.preference.source 'world' only, and vice versa"
            )
        self._has_a_front()
        return self

    def _has_a_front(self) -> None:
        """Refuse a stopping rule whose reference front comes from ALRIGHT runs that the suite does not make."""
        stopping, names = self.training.stopping, [method.name for method in self.methods]
        needs = any(uses_front(stopping.rule, name) for name in names)
        if needs and stopping.front is None and "alright" not in names:
            raise ValueError(
                "training.stopping: the reference front is made of ALRIGHT runs; add alright to methods or give "
                "training.stopping.front as a list of [f_DPO, f_SFT]"
            )

    @property
    def size(self) -> str:
        return (
            f"{len(self.methods)} methods × {len(self.lambdas)} λ × {len(self.seeds)} seeds, {self.steps} steps a run"
        )

    @property
    def contents(self) -> str:
        methods = ", ".join(method.shown for method in self.methods)
        return f"{methods}; {len(self.lambdas)} λ; seeds {list(self.seeds)}; {self.steps} steps a run"

    @property
    def steps(self) -> int:
        """Optimizer steps of every run, the optima included; a stopping rule may end joint runs earlier."""
        training = self.training
        per_epoch = {
            "dpo": self.data.preference.rows // training.batch_size.dpo,
            "sft": self.data.instruction.rows // training.batch_size.sft,
        }
        if min(per_epoch.values()) == 0:
            raise ValueError(
                f"training.batch_size: an epoch is {per_epoch['dpo']} batches of preference pairs and {per_epoch['sft']} "
                "of instruction rows, and needs at least one of each; lower it or raise data.*.rows"
            )
        if training.steps is not None:
            return training.steps
        if per_epoch["dpo"] != per_epoch["sft"]:
            raise ValueError(
                f"training.epochs: an epoch is {per_epoch['dpo']} steps of preference pairs but {per_epoch['sft']} "
                "of instruction rows; make them equal or give training.steps instead of training.epochs"
            )
        assert training.epochs is not None
        return training.epochs * per_epoch["dpo"]

    @property
    def primary_split(self) -> str:
        """The split on which objective values are followed and compared: held_out or train."""
        return "train" if self.data.evaluation_split == "train_head" else "held_out"

    def phase_steps(self, lambda_dpo: float) -> dict[str, int]:
        """Split the steps of the Sequential run that is matched with λ: {"dpo": T_DPO, "sft": T_SFT}."""
        if self.phases is not None and lambda_dpo in self.lambdas:
            dpo_epochs, sft_epochs = self.phases[self.lambdas.index(lambda_dpo)]
            per_epoch = self.steps // (dpo_epochs + sft_epochs)
            return {"dpo": dpo_epochs * per_epoch, "sft": sft_epochs * per_epoch}
        dpo = round(lambda_dpo * self.steps)
        return {"dpo": dpo, "sft": self.steps - dpo}


SHIPPED = "quickstart"


def suite_folder() -> Path:
    """Find the shipped suites: beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).parent / "_suites"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "suites"
