"""The parts of a suite: model, data, training, objectives, reference, evaluations. `suite/suite.py` puts them together.

Every model is frozen and refuses unknown keys. Units are in the names; λ is `lambda_dpo` and always weights DPO. The line below
a field is its description in docs/reference/suite.md.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from bench.errors import unknown_name

Positive = Annotated[int, Field(gt=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Dtype = Literal["float32", "bfloat16"]


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError("must lie in [0, 1]")
    return value


Share = Annotated[float, AfterValidator(_share), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]


class Frozen(BaseModel):
    """An immutable model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Model(Frozen):
    """Name the base model."""

    source: Literal["hub", "local", "gguf_package", "world", "random"]
    """`hub`: a model of the Hugging Face hub; `local`: a folder; `gguf_package`: an installed Python package with a
    .gguf file; `world`: the built-in model, pre-trained by a job of the plan; `random`: a tiny untrained one."""
    path: str | None = None
    """Hub id, folder or package; needed by `hub`, `local` and `gguf_package`."""
    revision: str | None = None
    """Branch, tag or commit on the hub; `null` is the hub's `main`, which can move."""
    architecture: Literal["llama", "gpt_neox"] = "llama"
    """Of the tiny model that `--smoke` puts in its place, and of `random`."""
    dtype: Dtype = "float32"
    """Of weights and activations; losses are summed in float32 either way."""
    gradient_checkpointing: bool = False
    """`true` computes activations twice instead of keeping them: less memory, more time."""
    pretraining_steps: Positive = 600
    """Optimizer steps of the pre-training; only for `world`."""

    @model_validator(mode="after")
    def _needs_path(self) -> Model:
        if self.source in ("hub", "local", "gguf_package") and not self.path:
            raise ValueError(f"source {self.source!r} needs 'path'")
        return self


class Lora(Frozen):
    """Set the LoRA adapter."""

    rank: Positive
    """Rank of the update that the adapter adds to a weight matrix."""
    alpha: Positive
    """The update is scaled by alpha / rank."""
    dropout: BelowOne = 0.0
    """Share of the adapter's inputs that is set to 0 in training."""
    targets: tuple[str, ...] = ("all-linear",)
    """Names of the modules that get an adapter, such as `q_proj`, or the one word `all-linear`."""


class PreferenceColumns(Frozen):
    """Map the columns of preference pairs."""

    prompt: str | None = "prompt"
    """Column of the prompt; `null`: the prompt is what both answers begin with."""
    chosen: str = "chosen"
    """Column of the answer that was preferred."""
    rejected: str = "rejected"
    """Column of the other answer."""


class InstructionColumns(Frozen):
    """Map the columns of instruction rows."""

    instruction: str = "instruction"
    """Column of what is asked."""
    input: str | None = "input"
    """Column of the text it is asked about; `null` if there is none."""
    output: str = "output"
    """Column of the answer to imitate."""


class DataSource(Frozen):
    """Name a data set and how much of it is used."""

    source: Literal["hub", "local", "world"]
    """`hub`: a data set of the hub, or its copy in a mirror; `local`: a .jsonl, .json, .csv or .parquet file or a
    folder of them; `world`: the built-in one, for both data sets or neither."""
    path: str | None = None
    """Hub id, file or folder; needed by `hub` and `local`."""
    revision: str | None = None
    """Branch, tag or commit on the hub; `null` is the hub's `main`, which can move."""
    train_split: str = "train"
    """Split to train on; a file has the one split `train`."""
    test_split: str | None = "test"
    """Held-out split; `null`: the rows that follow the training rows."""
    rows: Positive
    """Rows to train on, from the head of the split."""
    evaluation_rows: Positive = 64
    """Held-out rows that objectives are evaluated on, and as many training rows."""

    @model_validator(mode="after")
    def _needs_path(self) -> DataSource:
        if self.source != "world" and not self.path:
            raise ValueError(f"source {self.source!r} needs 'path'")
        return self


class PreferenceData(DataSource):
    """Describe the preference pairs: prompt, chosen, rejected."""

    format: Literal["plain", "hh_dialogue", "messages"] = "plain"
    """`plain`: texts as they stand; `hh_dialogue`: prompts that start with "\\n\\nHuman:" and end in
    "\\n\\nAssistant:"; `messages`: lists of {role, content}, put into the model's chat template."""
    columns: PreferenceColumns = PreferenceColumns()
    """Where the file keeps each text."""


class InstructionData(DataSource):
    """Describe the instruction rows: instruction, input, output."""

    format: Literal["plain", "alpaca", "messages"] = "alpaca"
    """`alpaca`: the prompt is made by `template`; `plain`: the instruction is the prompt; `messages`: lists of {role,
    content}, put into the model's chat template."""
    columns: InstructionColumns = InstructionColumns()
    """Where the file keeps each text."""
    template: str | None = None
    """Prompt of format `alpaca`, with {prompt} once: the instruction, and its input, if any, on the next line."""
    answer_prefix: str = ""
    """Text put before each answer; the space between prompt and answer belongs here."""

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
    evaluation_split: Literal["held_out", "train_head"] = "held_out"
    """Which objective values lead the report: `held_out`, or `train_head`, a fixed sample of training rows, as the
    paper's authors do."""


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
    """Rows in memory at once; each must divide the batch, and the gradient stays the same. `null`: the whole batch."""
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
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """A longer gradient is scaled down to this norm; `null` leaves it."""
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
    lora: Lora
    """The adapter; only it is trained."""
    data: Data
    """Both data sets, and how long a row may be."""
    training: Training
    """Optimizer steps, shared by every method."""
    objectives: Objectives = Objectives()
    """The two losses."""

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


class LmEval(Frozen):
    """Ask lm-eval tasks; `limit` is questions per subject. `preflight.py` checks that lm-eval knows them."""

    tasks: tuple[str, ...] = ("mmlu",)
    """lm-eval's tasks, groups or tags (`lm-eval ls tasks` lists them), or `world_questions`; an unknown one is refused
    before anything is loaded."""
    shots: Annotated[int, Field(ge=0)] = 1
    """Solved examples before the question; questions that share them share most of their work."""
    limit: Positive | None = None
    """Questions a subject; `null` is all."""
    chat_template: bool = False
    """`true` asks in the model's chat template, the shots as turns of a conversation."""
    batch_size: Positive = 8
    """Rows at once."""


class Generation(Frozen):
    """Set how answers are sampled; temperature 0 is greedy."""

    max_new_tokens: Positive = 128
    """Tokens of an answer, at most."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the most likely tokens that hold this share of the probability."""
    seed: int = 0
    """Of the draws."""
    batch_size: Positive = 16
    """Prompts at once."""


class Price(Frozen):
    """Give what an endpoint asks for a million tokens, in US dollars."""

    input_usd_per_million_tokens: Annotated[float, Field(ge=0)]
    """US dollars a million tokens of prompts."""
    output_usd_per_million_tokens: Annotated[float, Field(ge=0)]
    """US dollars a million tokens of replies."""


class Judge(Frozen):
    """Say who compares two answers.

    `openai` is any OpenAI-compatible endpoint under an alpaca-eval configuration; the key comes from the environment
    variable `key_variable` only. `local` is a Hugging Face model that scores the two labels. `rule` knows the world.
    `replay` reads the replies that an earlier judging left in `journal`.
    """

    kind: Literal["openai", "local", "rule", "replay"]
    """`openai`: any OpenAI-compatible endpoint; `local`: a model on this machine that scores the two labels; `rule`:
    right and courteous, for the built-in world only; `replay`: the replies of an earlier judging."""
    configuration: str = "weighted_alpaca_eval_gpt4_turbo"
    """alpaca-eval's prompt and parser: `weighted_alpaca_eval_gpt4_turbo` (needs log-probabilities) or
    `alpaca_eval_gpt4_turbo_fn` (a ranking by function call)."""
    model: str | None = None
    """Instead of the configuration's own, which for those two is retired; of `replay`: whose replies, where a journal
    holds those of several."""
    local_model: Model | None = None
    """The model of `local`."""
    journal: str | None = None
    """Of `replay`: a journal.jsonl, or a folder or .bench archive with some in it, such as `results/SUITE`."""
    base_url: str | None = None
    """Another endpoint than OpenAI's; it must carry no key."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; the key itself never stands in a suite."""
    orders: Literal["both", "single"] = "both"
    """`both`: each pair in both orders; `single`: in one, drawn at random."""
    concurrency: Positive = 8
    """Requests in flight."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Seconds to wait for one request."""
    first_pause_seconds: Annotated[float, Field(ge=0)] = 1.0
    """Seconds before a failed request is tried again; each further pause is about twice as long, unless the endpoint
    says how long."""
    max_unjudged_share: Share = 0.0
    """Share of pairs that may stay without a usable reply; beyond it the win rate is null. 0 allows none."""
    max_cost_usd: Annotated[float, Field(gt=0)] | None = None
    """Ceiling in US dollars for all judging of the suite: it stops before the ceiling may be passed and keeps what
    came; `null` for none."""
    price: Price | None = None
    """What the endpoint asks; `null`: what `bench/judges/prices.yaml` says of OpenAI's own."""

    @field_validator("base_url")
    @classmethod
    def _carries_no_secret(cls, value: str | None) -> str | None:
        """Records keep the URL, so nothing secret may stand in it."""
        from urllib.parse import urlsplit

        if value is None:
            return None
        try:
            parts = urlsplit(value)
            secret = parts.username or parts.password or parts.query
        except ValueError:
            raise ValueError("must be an address such as https://api.example.org/v1") from None
        if secret:
            raise ValueError("must carry no user, password or query; the key is read from 'key_variable'")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address such as https://api.example.org/v1")
        return value

    @model_validator(mode="after")
    def _needs_model(self) -> Judge:
        if self.kind == "local" and self.local_model is None:
            raise ValueError("kind 'local' needs 'local_model'")
        if self.kind == "replay" and self.journal is None:
            raise ValueError("kind 'replay' needs 'journal': a journal.jsonl, or a folder or archive with some in it")
        return self


class WinRate(Frozen):
    """Compare generated answers with the chosen answers of the preference test split."""

    prompts: Positive
    """Held-out pairs to judge for each policy."""
    generation: Generation = Generation()
    """How answers are sampled."""
    judge: Judge
    """Who prefers."""


class Evaluation(Frozen):
    """Choose the evaluations; one left out is not run."""

    lm_eval: LmEval | None = None
    """Questions asked through lm-eval: its figures to the last digit, from fewer tokens."""
    win_rate: WinRate | None = None
    """Generated answers against the chosen answers of held-out pairs, by a judge."""
