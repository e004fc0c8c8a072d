"""The parts of a suite: model, data, training, objectives, reference. `suite/suite.py` puts them together.

Every model is frozen and refuses unknown keys. Units are in the names; λ is `lambda_dpo` and always weights DPO.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from bench.errors import unknown_name

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
    """Set the optimizer steps that every method shares. Give `epochs` or `steps`, not both.

    Under `budget: tokens` a joint run ends with the step at which it has trained on as many tokens as the matching
    Sequential run does.
    """

    epochs: Positive | None = None
    steps: Positive | None = None
    budget: Literal["steps", "tokens"] = "steps"
    batch_size: PerObjective
    micro_batch_size: PerObjective | None = None
    group_by_length: bool = False
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
        if self.budget == "tokens" and self.schedule != "constant":
            raise ValueError(
                f"budget: tokens needs schedule: constant, not {self.schedule!r}, whose end would depend on the tokens"
            )
        for objective in ("dpo", "sft"):
            micro = getattr(self.micro_batch_size or self.batch_size, objective)
            if getattr(self.batch_size, objective) % micro:
                raise ValueError(f"batch_size.{objective} must be a multiple of micro_batch_size.{objective} ({micro})")
        return self


class Objectives(Frozen):
    """Set the two objectives: β of Eq. 1 and whether Eq. 4 is averaged per token or summed per sequence."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    reduction: Literal["token_mean", "sequence_sum"] = "token_mean"


class TrainingParts(Frozen):
    """Hold the parts of a suite that a training job reads."""

    model: Model
    lora: Lora
    data: Data
    training: Training
    objectives: Objectives = Objectives()

    @property
    def primary_split(self) -> str:
        """The split on which objective values are followed and compared: held_out or train."""
        return "train" if self.data.evaluation_split == "train_head" else "held_out"


REFERENCES = ("base", "phase_1", "preference_chosen", "sft")


class Reference(Frozen):
    """Say which policy is π_ref for the whole suite. Lengths left out are the training's own.

    `policy` is one of `REFERENCES`, or SUITE/JOB: a complete job of another suite in the same results folder.
    """

    policy: str = "sft"
    rows: Positive | None = None
    batch_size: Positive | None = None
    epochs: Positive | None = None

    @field_validator("policy")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in REFERENCES and not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
            near = unknown_name("reference", value, REFERENCES)
            raise ValueError(f"{near}; or SUITE/JOB, a job of another suite in the same results folder")
        return value

    @model_validator(mode="after")
    def _lengths_are_trained(self) -> Reference:
        given = [name for name in ("rows", "batch_size", "epochs") if getattr(self, name) is not None]
        if given and self.policy not in ("sft", "preference_chosen"):
            raise ValueError(f"{given[0]}: policy {self.policy!r} has no length of its own; leave it out")
        return self

    @property
    def job(self) -> str | None:
        """The job of another suite that π_ref is, as SUITE/JOB."""
        return None if self.policy in REFERENCES else self.policy
