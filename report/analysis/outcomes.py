"""What a score is the mean of: one number a question, a judged pair, or whatever a policy was asked.

A row of an evaluation's samples keeps its outcomes by score: a number, or [sum, weight] where the score is Σ sum / Σ weight.
Here each becomes the number whose plain mean over the rows is the score, on the scale on which scores compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from bench.records.record import Job

Question: TypeAlias = "tuple[str, Any]"
"""Subject and id of a question; "" and id of a judged pair."""


def read(job: Job, score: str) -> dict[Question, float]:
    """Return the outcomes behind a score of a job; empty where it keeps none."""
    return of_rows(job.rows("samples"), score)


def of_rows(rows: Iterable[Mapping[str, Any]], score: str) -> dict[Question, float]:
    """Return the outcomes of a score among an evaluation's rows."""
    found = {(str(row.get("subject", "")), row["id"]): one for row in rows if (one := _outcome(row, score)) is not None}
    weighted = {question: one for question, one in found.items() if isinstance(one, list)}
    total = math.fsum(weight for _, weight in weighted.values())
    scale = len(found) / total if total else math.nan
    return {question: float(one[0]) * scale if isinstance(one, list) else float(one) for question, one in found.items()}


def _outcome(row: Mapping[str, Any], score: str) -> float | list[float] | None:
    """Return what a row says of a score, in records of today and of before outcomes were kept by score."""
    task, _, rest = score.partition("/")
    if row.get("task", task) != task:
        return None
    outcomes = row.get("outcomes") or {}
    value = outcomes.get(score, outcomes.get(rest))
    if value is None and task == "win_rate" and row.get("preference") is not None:
        return 100.0 * float(row["preference"])
    if value is None and rest == "acc":
        value = row.get("correct")
    return value
