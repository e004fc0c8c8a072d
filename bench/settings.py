"""The parts of a suite: model, data, training, objectives, reference. `suite/suite.py` puts them together.

Every model is frozen and refuses unknown keys. Units are in the names; λ is `lambda_dpo` and always weights DPO. The line below
a field is its description in docs/reference/suite.md.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from bench.errors import unknown_name
from bench.frozen import Frozen as Frozen

Positive = Annotated[int, Field(gt=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Dtype = Literal["float32", "bfloat16"]
LABEL_CHARACTERS = 100
# What file systems take of a name, and of a path.
NAME_BYTES, PATH_BYTES = 255, 4095


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be one line without tabs or other control characters")
    if len(value) > LABEL_CHARACTERS:
        raise ValueError(f"must have at most {LABEL_CHARACTERS} characters, not {len(value)}")
    return value


def _fits_a_file_system(value: str) -> str:
    longest = max(len(part.encode()) for part in value.split("/"))
    if longest > NAME_BYTES or len(value.encode()) > PATH_BYTES:
        raise ValueError(f"is longer than a path can be: {NAME_BYTES} bytes a name, {PATH_BYTES} bytes in all")
    return value


def _seed(value: int) -> int:
    if not 0 <= value < 2**32:  # what every generator that is seeded takes, NumPy's among them
        raise ValueError("must be from 0 to 2^32 - 1")
    return value


Text = Annotated[str, AfterValidator(_not_blank)]
"""What names something, such as a column."""
Label = Annotated[Text, AfterValidator(_one_line)]
"""What is shown in tables and logs."""
PathText = Annotated[Text, AfterValidator(_fits_a_file_system)]
"""A path, or a hub id."""
Seed = Annotated[int, AfterValidator(_seed), WithJsonSchema({"type": "integer", "minimum": 0})]


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError("must lie in [0, 1]")
    return value


Share = Annotated[float, AfterValidator(_share), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]


def _one_or_more(value: Any) -> Any:
    """Take a text alone for a list of one: `targets: all-linear`."""
    return [value] if isinstance(value, str) else value


def _distinct(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(values)) != len(values):
        raise ValueError("must not repeat a value")
    return values


Lambdas = Annotated[tuple[Share, ...], Field(min_length=1), AfterValidator(_distinct)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct)]


def _on_off_or_auto(value: Any) -> Any:
    if not isinstance(value, bool) and value != "auto":
        raise ValueError("must be auto, true or false")
    return value


def _off_may_be_false(value: Any) -> Any:
    """YAML reads the word off as false."""
    return "off" if value is False else value


class Model(Frozen):
    """Name the base model."""

    source: Literal["hub", "local", "gguf_package", "world", "random"]
    """`hub`: a model of the Hugging Face hub; `local`: a folder; `gguf_package`: an installed Python package with a
    .gguf file; `world`: the built-in model, pre-trained by a job of the plan; `random`: a tiny untrained one."""
    path: PathText | None = None
    """Hub id, folder or package; needed by `hub`, `local` and `gguf_package`."""
    revision: PathText | None = None
    """Branch, tag or commit on the hub; `null` is the hub's `main`, which can move."""
    architecture: Literal["llama", "gpt_neox"] = "llama"
    """Of the tiny model that `--smoke` puts in its place, and of `random`."""
    dtype: Dtype = "float32"
    """Of weights and activations; losses are summed in float32 either way."""
    gradient_checkpointing: Annotated[bool | Literal["auto"], BeforeValidator(_on_off_or_auto)] = False
    """`true` computes activations twice instead of keeping them: less memory, more time. `auto`: once a GPU's memory runs out
    though `micro_batch_size`, where left open, is at its smallest, or where a step holds both graphs at once."""
    compile: Annotated[Literal["auto", "off", "layers"], BeforeValidator(_off_may_be_false)] = "auto"
    """`layers` compiles the decoder layers for training, at its start and once for all lengths; numbers are the same to rounding.
    `auto`: on a GPU. What cannot be compiled, or then gives other numbers, is left as it is; the log says so."""
    tuning: Literal["lora", "full"] = "lora"
    """What is trained: `lora`, an adapter beside the weights (see `lora`); `full`, every weight of the model, which wants a
    learning rate some ten times smaller. Each run then leaves a whole model on disk."""
    pretraining_steps: Positive = 600
    """Optimizer steps of the pre-training; only for `world`."""

    @model_validator(mode="after")
    def _needs_path(self) -> Model:
        if self.source in ("hub", "local", "gguf_package") and not self.path:
            raise ValueError(f"source {self.source!r} needs 'path'")
        return self


INITS = ("default", "gaussian", "orthogonal", "pissa", "olora", "mica")
# Values of PEFT's init_lora_weights that are not offered, and why.
_NO_INITS = {
    "eva": "it starts from activations on data, so that two runs would not start alike",
    "corda": "it starts from activations on data, so that two runs would not start alike",
    "lora_ga": "it starts from gradients on data, so that two runs would not start alike",
    "loftq": "it puts rounded weights in the place of the base model's",
    "false": "the policy would not start at the base model",
}


def _init(value: Any) -> Any:
    name = str(value).lower()
    if isinstance(value, str) and (name in INITS or re.fullmatch(r"pissa_niter_\d{1,3}", name)):
        return name
    known = (*INITS, "pissa_niter_N")
    if name in _NO_INITS:
        raise ValueError(f"is not offered: {_NO_INITS[name]}; known: {', '.join(known)}")
    raise ValueError(unknown_name("init", str(value), known))


class Lora(Frozen):
    """Set the LoRA adapter."""

    rank: Positive
    """Rank of the update that the adapter adds to a weight matrix."""
    alpha: Positive
    """The update is scaled by alpha / rank, or with `rslora` by alpha / √rank."""
    variant: Literal["lora", "dora", "rslora"] = "lora"
    """`lora`; `dora` trains the length of each row of the weights apart from its direction (arXiv 2402.09353); `rslora`
    scales the update by alpha / √rank (arXiv 2312.03732)."""
    init: Annotated[str, BeforeValidator(_init), WithJsonSchema({"type": "string"})] = "default"
    """How the adapter starts, by PEFT's names: `default`, `gaussian`, `orthogonal`, `pissa`, `pissa_niter_N` (N iterations
    instead of a whole decomposition), `olora` or `mica`. Every one starts at the base model. `pissa` and `olora` move a part
    of the weights into the adapter for training, and save what they learned as a plain adapter of twice the rank."""
    dropout: BelowOne = 0.0
    """Share of the adapter's inputs that is set to 0 in training."""
    targets: Annotated[tuple[Text, ...], Field(min_length=1), BeforeValidator(_one_or_more)] = ("all-linear",)
    """Names of the modules that get an adapter, such as `q_proj`, or the one word `all-linear`."""

    @model_validator(mode="after")
    def _goes_together(self) -> Lora:
        if self.init == "mica" and self.variant == "dora":
            raise ValueError(
                "init: mica trains one of the two factors alone, which PEFT does not do for dora; give another init"
            )
        if self.init == "orthogonal" and self.rank % 2:
            raise ValueError(f"rank: init orthogonal takes an even rank, not {self.rank}")
        return self

    @property
    def moves_weights(self) -> bool:
        """Whether a part of the base model's weights is in the adapter while it is trained."""
        return self.init.startswith(("pissa", "olora"))

    @property
    def starts_exactly(self) -> bool:
        """Whether a fresh adapter changes no logit by a single bit; the others start at the base model to rounding."""
        return self.variant != "dora" and not self.moves_weights and self.init != "orthogonal"


class PreferenceColumns(Frozen):
    """Map the columns of preference pairs."""

    prompt: Text | None = "prompt"
    """Column of the prompt; `null`: the prompt is what both answers begin with."""
    chosen: Text = "chosen"
    """Column of the answer that was preferred."""
    rejected: Text = "rejected"
    """Column of the other answer."""
    preference: Text | None = None
    """Column that says which of the two columns above is the better answer in a row: its name, or a number, negative for
    `chosen` and positive for `rejected`; `null`: `chosen` always is."""
    answers: Text | None = None
    """For rankings, with `ranking` and instead of `chosen` and `rejected`: column of a list of answers to the prompt, or of
    one answer, where each has a row of its own. The best is paired with the worst."""
    ranking: Text | None = None
    """Column, or key beside each answer in the list, of the number that answers are ranked by."""
    best: Literal["highest", "lowest"] | None = None
    """Which `ranking` is best; `null`: the lowest where its name has "rank" in it, else the highest."""
    system: Text | None = None
    """Column of a system text. `null`: in format `messages` the column `system` or `system_prompt`, if there is one."""

    @model_validator(mode="after")
    def _ranking_is_whole(self) -> PreferenceColumns:
        if (self.answers is None) != (self.ranking is None):
            raise ValueError("give both 'answers' and 'ranking', or neither")
        if self.answers is not None and (self.preference is not None or self.prompt is None):
            raise ValueError("'answers' needs a 'prompt' column and takes no 'preference'")
        return self


class InstructionColumns(Frozen):
    """Map the columns of instruction rows."""

    instruction: Text = "instruction"
    """Column of what is asked."""
    input: Text | None = "input"
    """Column of the text it is asked about; `null` if there is none."""
    output: Text = "output"
    """Column of the answer to imitate."""
    messages: Text | None = None
    """Column of a conversation in format `messages`; `null`: `messages`, `conversations`, `conversation`, `dialog` or
    `dialogue`, if there is one, else the columns above."""
    system: Text | None = None
    """Column of a system text. `null`: in format `messages` the column `system` or `system_prompt`, if there is one."""


class DataSource(Frozen):
    """Name a data set and how much of it is used."""

    source: Literal["hub", "local", "world", "chosen"]
    """`hub`: a data set of the hub, or its copy in a mirror; `local`: a file (.jsonl, .json, .csv, .tsv,
    .parquet or .arrow, also compressed), a folder of them or one that `save_to_disk` made; `world`: the built-in one, for
    both data sets or neither; `chosen`, of `data.instruction` alone: the preference pairs' prompts and chosen answers."""
    path: PathText | None = None
    """Hub id, file or folder; needed by `hub` and `local`."""
    revision: PathText | None = None
    """Branch, tag or commit on the hub; `null` is the hub's `main`, which can move."""
    train_split: Text = "train"
    """Split to train on, or a slice of one such as `train[:50%]`; a file has the one split `train`."""
    test_split: Text | None = "test"
    """Held-out split; `null`: the rows that follow the training rows."""
    rows: Positive
    """Rows to train on, from the head of the split."""
    evaluation_rows: Positive = 64
    """Held-out rows that objectives are evaluated on, and as many training rows."""

    @model_validator(mode="after")
    def _needs_path(self) -> DataSource:
        if self.source in ("hub", "local") and not self.path:
            raise ValueError(f"source {self.source!r} needs 'path'")
        return self


class PreferenceData(DataSource):
    """Describe the preference pairs: prompt, chosen, rejected."""

    format: Literal["plain", "hh_dialogue", "messages"] = "plain"
    """`plain`: texts as they stand; `hh_dialogue`: prompts that start with "\\n\\nHuman:" and end in
    "\\n\\nAssistant:"; `messages`: lists of {role, content} or {from, value}, or texts, put into the model's chat
    template."""
    columns: PreferenceColumns = PreferenceColumns()
    """Where the file keeps each text."""

    @model_validator(mode="after")
    def _has_pairs(self) -> PreferenceData:
        if self.source == "chosen":
            raise ValueError("source 'chosen' is one of data.instruction: it names these pairs")
        return self


class InstructionData(DataSource):
    """Describe the instruction rows: instruction, input, output."""

    format: Literal["plain", "alpaca", "messages"] = "alpaca"
    """`alpaca`: the prompt is made by `template`; `plain`: the instruction is the prompt; `messages`: lists of {role,
    content} or {from, value}, or texts, put into the model's chat template."""
    columns: InstructionColumns = InstructionColumns()
    """Where the file keeps each text."""
    template: str | None = None
    """Prompt of format `alpaca`, with {prompt} once: the instruction, and its input, if any, on the next line."""
    answer_prefix: str = ""
    """Text put before each answer; the space between prompt and answer belongs here."""
    train_on: Literal["last", "all"] = "last"
    """Of a conversation: `last`, its last answer; `all`, every answer in it."""

    @field_validator("template")
    @classmethod
    def _has_prompt(cls, value: str | None) -> str | None:
        if value is not None and value.count("{prompt}") != 1:
            raise ValueError("must contain {prompt} exactly once")
        return value


class Data(Frozen):
    """Describe both data sets and how long a row may be."""

    preference: PreferenceData
    """The preference pairs: prompt, chosen and rejected answer."""
    instruction: InstructionData
    """The instruction rows: instruction, input, answer."""
    max_prompt_tokens: Positive = 512
    """Tokens of a prompt; a longer one loses its left end. How many did is on record."""
    max_answer_tokens: Positive = 512
    """Tokens of an answer; a longer one loses its right end. How many did is on record."""
    bad_rows: Literal["stop", "drop"] = "stop"
    """Rows that cannot be used: `stop` names the first ten and how many there are; `drop` leaves them out, counted by
    reason."""
    evaluation_split: Literal["held_out", "train_head"] = "held_out"
    """Which objective values lead the report: `held_out`, or `train_head`, a fixed sample of training rows, as the
    paper's authors do."""

    @model_validator(mode="after")
    def _chosen_rows_are_there(self) -> Data:
        rows, pairs = self.instruction, self.preference
        if rows.source == "chosen" and pairs.source != "world" and rows.rows > pairs.rows and pairs.test_split is None:
            raise ValueError(
                f"instruction.rows: with source 'chosen' at most preference.rows ({pairs.rows}); the pairs after them are "
                "held out"
            )
        return self


class PerObjective(Frozen):
    """Give one whole number per objective."""

    dpo: Positive
    """Preference pairs."""
    sft: Positive
    """Instruction rows."""


class Stopping(Frozen):
    """Say when a joint run ends early."""

    rule: Literal["none", "authors", "dominates"] = "none"
    """`none`; `authors`: at an evaluation where one objective reaches its optimum, or both reach a point of the
    reference front; `dominates`: only the latter."""
    threshold: Annotated[float, Field(gt=0)] = 1.0e-4
    """Nats above a target that still count as reaching it."""
    front: tuple[tuple[float, float], ...] | None = Field(default=None, min_length=1)
    """The reference front as points [f_DPO, f_SFT] in nats; `null`: where the suite's ALRIGHT runs and optima end.
    ALRIGHT runs are compared with no front."""


class Training(Frozen):
    """Set the optimizer steps that every method shares."""

    epochs: Positive | None = None
    """Length of every run in passes over the data, the optima included; an epoch must have as many steps in both sets.
    Give this or `steps`."""
    steps: Positive | None = None
    """Length of every run in optimizer steps, the optima included. Give this or `epochs`."""
    budget: Literal["steps", "tokens"] = "steps"
    """`steps`: every run takes as many; `tokens`: a joint run ends once it has trained on as many tokens as the
    matching Sequential run, so that Mix, with two batches a step, compares at equal tokens."""
    batch_size: PerObjective
    """Rows an optimizer step."""
    micro_batch_size: PerObjective | None = None
    """Rows in memory at once; each must divide the batch, and the gradient stays the same. `null`: the whole batch, and
    where a GPU's memory has no room for it the largest half, quarter and so on that fits."""
    group_by_length: bool = False
    """`true`: rows of similar length share a batch, so that less is padded. A batch's loss then depends on its length,
    which `maxright` would read as a gap."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Of AdamW, at its highest."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Of the learning rate, anew in each phase."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises."""
    adam_betas: tuple[BelowOne, BelowOne] = (0.9, 0.95)
    """AdamW's decay rates of the two moments."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's."""
    model_dropout: bool = False
    """`true` leaves the base model's own dropout on in training; without it the losses of the same rows compare."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """A longer gradient is scaled down to this norm; `null` leaves it."""
    devices: Annotated[Positive | Literal["auto"], Field(union_mode="left_to_right")] = 1
    """Devices that one job trains on at once, sharing each batch's rows: `auto` is 1, and where a GPU has no room for what is
    trained as many as have. Without GPUs they are processes that share a worker's processors."""
    shard: Annotated[bool | Literal["auto"], BeforeValidator(_on_off_or_auto)] = "auto"
    """On several devices: `true` leaves on each a part of every weight, and gets a layer's together as it is computed; `false`
    gives each all weights; `auto`: true where all weights are trained, or where one device has no room for them."""
    deterministic: bool = False
    """`true`: train by torch's deterministic algorithms, so that a run that is resumed on a GPU is bit for bit the one that
    nothing interrupted. Slower; on CPUs it is so anyway."""
    evaluate_every: Positive = 100
    """Steps between two points of a trajectory; evaluation is not timed as training."""
    checkpoint_every: Positive = 200
    """Steps between two checkpoints: what an interruption can cost."""
    stopping: Stopping = Stopping()
    """When joint runs end early; Sequential and the optima never do."""

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
    """Set the two objectives: f_DPO (Eq. 1) and f_SFT (Eq. 4)."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """β of Eq. 1: how strongly DPO holds the policy to its reference."""
    reduction: Literal["token_mean", "sequence_sum"] = "token_mean"
    """Of f_SFT: nats a token, or nats a sequence (Eq. 4)."""


class TrainingParts(Frozen):
    """The parts of a suite that a training job reads."""

    model: Model
    """The base model, the same for every run."""
    lora: Lora | None = None
    """The adapter; only it is trained. Needed where `model.tuning` is `lora`; with `full` there is none, and this is not read."""
    data: Data
    """Both data sets, and how long a row may be."""
    training: Training
    """Optimizer steps, shared by every method."""
    objectives: Objectives = Objectives()
    """The two losses."""

    @model_validator(mode="after")
    def _has_what_is_trained(self) -> TrainingParts:
        if self.model.tuning == "lora" and self.lora is None:
            raise ValueError("lora: this key is missing; give rank and alpha, or set model.tuning: full")
        return self

    @property
    def adapter(self) -> Lora | None:
        """The adapter that is trained; None: all weights are."""
        return self.lora if self.model.tuning == "lora" else None

    @property
    def primary_split(self) -> str:
        """The split on which objective values are followed and compared: held_out or train."""
        return "train" if self.data.evaluation_split == "train_head" else "held_out"


REFERENCES = ("base", "phase_1", "preference_chosen", "sft")


class Reference(Frozen):
    """Say which policy is π_ref for the whole suite, and how long it is trained."""

    policy: str = "sft"
    """π_ref of the whole suite: `sft`, the SFT optimum; `preference_chosen`, trained on the chosen answers; `phase_1`,
    the end of Sequential's SFT phase (one λ, order `sft_dpo`); `base`, the base model; or SUITE/JOB, a complete job of
    another suite in the same results folder."""
    rows: Positive | None = None
    """Rows it is trained on; `null`: the training's."""
    batch_size: Positive | None = None
    """Rows an optimizer step; `null`: the training's."""
    epochs: Positive | None = None
    """Passes over its rows; `null`: the training's."""

    @field_validator("policy")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in REFERENCES and not re.fullmatch(r"[\w.-]{1,255}/[\w.-]{1,255}", value):
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
