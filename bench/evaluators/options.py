"""What a suite may say of the evaluators that come with this package. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, TypeAdapter, field_validator, model_validator

from bench.judges import JudgeSettings
from bench.settings import Frozen, Label, PathText, Positive, Seed, Text

# What people measure forgetting by: knowledge, common sense, truthfulness, arithmetic, instructions, and text itself.
FORGETTING = (
    "mmlu",
    "hellaswag",
    "arc_challenge",
    "winogrande",
    "truthfulqa_mc2",
    "gsm8k",
    "ifeval",
    "wikitext",
)


class LmEval(Frozen):
    """Ask lm-eval tasks; `limit` is questions per subject. That lm-eval knows them is checked before training."""

    tasks: Annotated[tuple[Text, ...], Field(min_length=1)] = ("mmlu",)
    """lm-eval's tasks, groups or tags (`lm-eval ls tasks` lists them), or `world_questions`; an unknown one is refused
    before anything is loaded. `forgetting` stands for mmlu, hellaswag, arc_challenge, winogrande, truthfulqa_mc2, gsm8k,
    ifeval (which needs `posttrain-bench[forgetting]`) and wikitext."""
    shots: Annotated[int, Field(ge=0)] = 1
    """Solved examples before the question; questions that share them share most of their work."""
    limit: Positive | None = None
    """Questions a subject; `null` is all."""
    chat_template: bool = False
    """`true` asks in the model's chat template, the shots as turns of a conversation."""
    batch_size: Positive = 8
    """Rows at once. Left out, a GPU takes as many as its memory has room for, and a CPU 8."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _sets(cls, given: Any) -> Any:
        """Put the tasks of a set in its place, each task once; one name may stand without a list."""
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list | tuple):
            return given
        every = [task for name in names for task in (FORGETTING if name == "forgetting" else (name,))]
        return every if any(not isinstance(one, str) for one in every) else tuple(dict.fromkeys(every))

    def finds_batch_size(self, device: str) -> bool:
        """Say whether as many rows are taken at once as memory has room for."""
        return device == "cuda" and "batch_size" not in self.model_fields_set


class TextSource(Frozen):
    """Name plain text that nothing is trained on."""

    source: Literal["hub", "local"] = "local"
    """`hub`: a data set of the hub, or its copy in a mirror; `local`: a file or folder, as of `data`."""
    path: PathText
    """Hub id, file or folder."""
    revision: PathText | None = None
    """Branch, tag or commit on the hub; `null` is its `main`."""
    split: Text = "test"
    """Split to read; a file has the one split `train`, which is read then."""
    column: Text = "text"
    """Where the text stands."""
    rows: Positive = 64
    """Texts, from the head of the split; each is cut to the limits of `data`."""


class BaseKl(Frozen):
    """Measure how far each policy has moved from its base model: KL(base ‖ policy) a token, exact over the vocabulary."""

    prompts: Positive = 64
    """Training prompts of each objective, from the head of its rows, that the base model answers once."""
    max_new_tokens: Positive = 64
    """Tokens of such an answer, at most; it is sampled at temperature 1."""
    seed: Seed = 0
    """Of the draws."""
    text: TextSource | None = None
    """General text beside them; `null`: the answers of the held-out instruction rows."""
    batch_size: Positive = 8
    """Rows at once."""


Address = Annotated[str, AfterValidator(JudgeSettings.without_secret)]
"""Where a server listens, without a user, a password or a query."""


class Endpoint(Frozen):
    """Name a server that makes the answers: one that speaks OpenAI's completions, such as vLLM or SGLang."""

    base_url: Address
    """Where it listens, such as `http://127.0.0.1:8000/v1`."""
    model: Label | None = None
    """Name that it serves the base model under; `null`: the suite's `model.path` where it serves that, else the one model
    that it serves."""
    server: Literal["vllm", "sglang", "llama.cpp"] | None = None
    """What it is. Given, it is part of the answers' identity, and a server that says otherwise is refused."""
    version: Label | None = None
    """Its version, such as `0.28.0`, in the same way."""
    adapters: Literal["lora", "merged"] = "lora"
    """`lora`: each policy's adapter is loaded by the server's LoRA interface and unloaded after; one of DoRA, which servers do
    not load, is merged. `merged`: every one is merged into a whole model, which the server must serve under its folder's path."""
    prompts: Literal["token_ids", "text"] = "token_ids"
    """How prompts are sent: as our own tokens, or as text for servers that take no tokens and make their own of it."""
    key_variable: Label | None = None
    """Environment variable that holds the key; `null`: it asks for none."""
    concurrency: Positive = 64
    """Prompts in flight; the server makes its own batches of them."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Seconds to wait for one answer."""
    first_pause_seconds: Annotated[float, Field(ge=0)] = 1.0
    """Seconds before a failed request is tried again; each further pause is about twice as long."""


class Generation(Frozen):
    """Set how answers are sampled; temperature 0 is greedy."""

    engine: Literal["transformers", "endpoint"] = "transformers"
    """Who makes the answers: `transformers` on this machine, or the server that `endpoint` names."""
    endpoint: Endpoint | None = None
    """The server of `engine: endpoint`."""
    max_new_tokens: Positive = 128
    """Tokens of an answer, at most."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the most likely tokens that hold this share of the probability."""
    seed: Seed = 0
    """Of the draws."""
    batch_size: Positive = 16
    """Prompts at once. Left out, a GPU takes as many as its memory has room for, and a CPU 16. A server makes its own."""

    @model_validator(mode="after")
    def _names_its_server(self) -> Generation:
        if self.engine == "endpoint" and self.endpoint is None:
            raise ValueError("engine 'endpoint' needs 'endpoint' with the server's base_url")
        return self

    def identity(self) -> dict[str, Any]:
        """Return what decides the answers; of a server what it is and how it is asked, not where it is or how patiently."""
        made = self.model_dump(mode="json", exclude={"engine", "endpoint"})
        if self.engine == "transformers" or self.endpoint is None:
            return made
        del made["batch_size"]
        decisive = {"model", "server", "version", "adapters", "prompts"}
        return made | {"engine": self.engine, "endpoint": self.endpoint.model_dump(mode="json", include=decisive)}

    def finds_batch_size(self, device: str) -> bool:
        """Say whether as many prompts are taken at once as memory has room for."""
        return device == "cuda" and "batch_size" not in self.model_fields_set


# As AlpacaEval 2 judges its set.
ALPACA_EVALS_JUDGE = {"configuration": "weighted_alpaca_eval_gpt4_turbo", "orders": "single"}


@dataclass(frozen=True)
class FoundSet:
    """What a plan knows of a prompt set.

    Attributes:
        rows: how many are judged.
        instructions_sha256: of what policies are asked.
        sha256: of that and the reference answers.
        characters: mean lengths of an instruction and of a reference answer.
    """

    rows: int
    instructions_sha256: str
    sha256: str
    characters: tuple[float, float]


class WinRate(Frozen):
    """Compare generated answers with reference answers: the chosen ones of held-out pairs, or those of a prompt set."""

    prompts_from: PathText = "held_out"
    """`held_out`: prompts and chosen answers of the preference test split; `alpaca_eval`: AlpacaEval 2's 805 instructions
    with gpt-4-1106-preview's answers, from the hub or its copy in a mirror (`tatsu-lab/alpaca_eval`); or a JSON or JSON lines
    file of rows with `instruction` and `output` (or `reference`). Instructions are put into the suite's own template."""
    prompts: Positive | Literal["all"] = "all"
    """How many are judged for each policy, from the head of the set; `held_out` needs a number."""
    generation: Generation = Generation()
    """How answers are sampled."""
    judge: JudgeSettings | tuple[JudgeSettings, ...]
    """Who prefers: one judge, or a list of two or more, of which the first is the main one. Each has its own score, from the
    same answers, and the report says how far they agree. `--set` names one by its place: `evaluation.win_rate.judge.1.model`.
    With `alpaca_eval`, what is left out of the only or the main one is as AlpacaEval 2 has it: an endpoint's model under the
    configuration `weighted_alpaca_eval_gpt4_turbo`, each pair in one order."""

    _found: FoundSet | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _judged_as_the_set_is(cls, given: Any) -> Any:
        """Fill in AlpacaEval's own judge where the suite names none."""
        if not isinstance(given, Mapping) or given.get("prompts_from") != "alpaca_eval":
            return given
        judge = given.get("judge", {})
        known = {"kind": "openai", **ALPACA_EVALS_JUDGE}
        if isinstance(judge, list | tuple) and judge and isinstance(judge[0], Mapping):
            return {**given, "judge": [{**known, **judge[0]}, *judge[1:]]}
        return {**given, "judge": {**known, **judge} if isinstance(judge, Mapping) else judge}

    @model_validator(mode="after")
    def _has_a_count(self) -> WinRate:
        if self.prompts_from == "held_out" and self.prompts == "all":
            raise ValueError("prompts: say how many held-out pairs are judged, such as 64")
        return self

    @property
    def found(self) -> FoundSet | None:
        """What is known of the set since the plan was made."""
        return self._found

    def with_set(self, found: FoundSet) -> WinRate:
        """Return these options with the set that they mean."""
        made = self.model_copy(update={"prompts": found.rows})
        made._found = found
        return made

    @field_validator("judge", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        """Check one judge, or each of several; an error has the place of the key."""
        if not isinstance(given, list | tuple):
            return given if isinstance(given, JudgeSettings) else JudgeSettings.model_validate(given)
        if len(given) < 2:
            raise ValueError("a list holds two judges or more; write a single one without the list")
        return _SEVERAL.validate_python(given)

    @property
    def judges(self) -> tuple[JudgeSettings, ...]:
        """The judges, the main one first."""
        return self.judge if isinstance(self.judge, tuple) else (self.judge,)


_SEVERAL = TypeAdapter(tuple[JudgeSettings, ...])
