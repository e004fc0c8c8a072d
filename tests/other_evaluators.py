"""An evaluator and a judge as another package brings them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from bench.evaluators import Evaluator, Outcome, Stage, StageContext
from bench.judges import Judge, Receive, Reply, Request, Setup, label_completion
from bench.records.metrics import Metric
from bench.settings import Frozen

WORDS = Metric("words", "Words", "words", "lower", "score", "words of an answer", low=0.0, item="answer")


class WordsOptions(Frozen):
    """Say how many prompts are answered, and with which word."""

    prompts: int = Field(gt=0)
    word: str = "yes"
    batch_size: int = 8


class Words(Evaluator):
    """Count words in two stages: the first repeats a word as often as the prompt has letters in its first word."""

    Options: ClassVar[type[BaseModel]] = WordsOptions
    options: WordsOptions

    def stages(self) -> tuple[Stage, ...]:
        settings = {"prompts": self.options.prompts, "word": self.options.word}
        return (
            Stage("words_said", settings, name="said", slug="said", title="said words", data=("preference",)),
            Stage("words", {}, title="counted words", policy=False),
        )

    def run(self, kind: str, context: StageContext) -> Outcome:
        if kind == "words_said":
            assert context.policy().model is not None
            prompts = [row.prompt for row in context.datasets(self.options.prompts).judged]
            said = [" ".join([self.options.word] * len(prompt.split()[0])) for prompt in prompts]
            return Outcome([{"id": place, "said": text} for place, text in enumerate(said)])
        counts = [len(row["said"].split()) for row in context.earlier["said"]]
        score = {"value": sum(counts) / len(counts), "n": len(counts), "standard_error": None}
        rows = [{"id": place, "outcomes": {"words": count}} for place, count in enumerate(counts)]
        return Outcome(rows, {"words": score}, (WORDS,), {"counted": len(counts)})

    def smoke(self) -> WordsOptions:
        return self.options.model_copy(update={"prompts": 2})


class LengthOptions(Frozen):
    """Say which length is liked."""

    likes: str = "short"


class LengthJudge(Judge):
    """Prefer the shorter answer, or the longer one; neither costs anything."""

    Options: ClassVar[type[BaseModel]] = LengthOptions
    model = "length"
    host = "built-in"
    journaled = False

    def __init__(self, setup: Setup) -> None:
        self._labels, self._likes = setup.configuration.labels(), setup.settings.options.likes
        self.parameters: dict[str, Any] = {}

    def ask(self, requests: Sequence[Request], receive: Receive) -> None:
        for request in requests:
            first = len(request.first) < len(request.second) if self._likes == "short" else len(request.first) > 0
            best, other = (0.0, -100.0) if first else (-100.0, 0.0)
            receive(request, Reply(label_completion(dict(zip(self._labels, (best, other), strict=True)))))
