"""diversity: completions, scored by the share of their word pairs that are different ones (distinct-2, arXiv 1510.03055)."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from bench.evaluators import Evaluator, Outcome, Stage, StageContext
from bench.records.metrics import Metric
from bench.settings import Frozen

DIVERSITY = Metric(
    "diversity",
    "Diversity",
    "share",
    "higher",
    "score",
    "share of different ones among the word pairs of a completion",
    low=0.0,
    high=1.0,
    tolerance=0.02,
    item="completion",
)


class DiversityOptions(Frozen):
    """Set how many prompts are completed, and how long completions are."""

    prompts: int = Field(gt=0)
    """Held-out prompts to complete for each policy."""
    max_new_tokens: int = Field(default=64, gt=0)
    """Tokens of a completion, at most."""
    batch_size: int = Field(default=16, gt=0)
    """Prompts at once."""


class Diversity(Evaluator):
    """Complete held-out prompts greedily, and count word pairs."""

    Options: ClassVar[type[BaseModel]] = DiversityOptions
    options: DiversityOptions

    def stages(self) -> tuple[Stage, ...]:
        settings = self.options.model_dump(mode="json", exclude={"batch_size"})
        return (Stage("diversity", settings, title="completions scored for diversity", data=("preference",)),)

    def run(self, kind: str, context: StageContext) -> Outcome:
        from bench.evaluators.generation import answer
        from bench.evaluators.options import Generation

        options, datasets = self.options, context.datasets(self.options.prompts)
        sampling = Generation(max_new_tokens=options.max_new_tokens, temperature=0, batch_size=options.batch_size)
        prompts = [row.prompt for row in datasets.judged]
        limit = context.max_prompt_tokens
        completions = answer(context.policy(), prompts, sampling, datasets.stop, limit, context.tell)
        shares = [distinct_2(row["answer"].split()) for row in completions]
        rows: list[dict[str, Any]] = [
            {**row, "outcomes": {"diversity": share}} for row, share in zip(completions, shares, strict=True)
        ]
        return Outcome(rows, {"diversity": mean_of(shares)}, (DIVERSITY,))

    def smoke(self) -> DiversityOptions:
        return self.options.model_copy(update={"prompts": 4, "max_new_tokens": 8})


def distinct_2(words: Sequence[str]) -> float:
    """Return the share of different ones among the pairs of neighbouring words; 1 where there is no pair."""
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def mean_of(values: Sequence[float]) -> dict[str, Any]:
    """Return a score: the mean with its standard error over completions; one completion has none."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"value": statistics.fmean(values), "n": len(values), "standard_error": error}
