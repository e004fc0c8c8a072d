"""What a suite may say of the evaluators that come with this package. No torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bench.judges import JudgeSettings
from bench.settings import Frozen, Positive


class LmEval(Frozen):
    """Ask lm-eval tasks; `limit` is questions per subject. That lm-eval knows them is checked before training."""

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
    """Rows at once. Left out, a GPU takes as many as its memory has room for, and a CPU 8."""

    def finds_batch_size(self, device: str) -> bool:
        """Say whether as many rows are taken at once as memory has room for."""
        return device == "cuda" and "batch_size" not in self.model_fields_set


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
    judge: JudgeSettings
    """Who prefers."""
