"""What a suite may say of the evaluators that come with this package. No torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bench.judges import JudgeSettings
from bench.settings import Frozen, Positive


class LmEval(Frozen):
    """Ask lm-eval tasks; `limit` is questions per subject. That lm-eval knows them is checked before training."""

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


class WinRate(Frozen):
    """Compare generated answers with the chosen answers of the preference test split."""

    prompts: Positive
    generation: Generation = Generation()
    judge: JudgeSettings
