"""What a suite may say of the evaluators that come with this package. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, field_validator

from bench.judges import JudgeSettings
from bench.settings import Frozen, PathText, Positive, Seed, Text

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


class Generation(Frozen):
    """Set how answers are sampled; temperature 0 is greedy."""

    max_new_tokens: Positive = 128
    """Tokens of an answer, at most."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the most likely tokens that hold this share of the probability."""
    seed: Seed = 0
    """Of the draws."""
    batch_size: Positive = 16
    """Prompts at once. Left out, a GPU takes as many as its memory has room for, and a CPU 16."""

    def finds_batch_size(self, device: str) -> bool:
        """Say whether as many prompts are taken at once as memory has room for."""
        return device == "cuda" and "batch_size" not in self.model_fields_set


class WinRate(Frozen):
    """Compare generated answers with the chosen answers of the preference test split."""

    prompts: Positive
    """Held-out pairs to judge for each policy."""
    generation: Generation = Generation()
    """How answers are sampled."""
    judge: JudgeSettings | tuple[JudgeSettings, ...]
    """Who prefers: one judge, or a list of two or more, of which the first is the main one. Each has its own score, from the
    same answers, and the report says how far they agree. `--set` names one by its place: `evaluation.win_rate.judge.1.model`."""

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
