"""Two checkpoints on the same questions and pairs: read what each answered, and say whether these checkpoints differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from report.analysis import items, outcomes
from report.analysis.load import Results, Run, missing
from report.analysis.outcomes import Question
from report.analysis.statistics import Estimate, holm
from report.analysis.tables import Tables

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What a policy scored on each question or judged pair.

    Attributes:
        questions: in a fixed order, so that two policies that were asked the same have equal ones.
        values: one a question, on the scale on which scores compare: 1 or 0 for right or wrong, the preference for our
            answer in percent, a loss.
        reason: why there is nothing.
    """

    questions: tuple[Question, ...] = ()
    values: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.questions)


def of(values: Mapping[Question, float]) -> Answers:
    """Put scores by question in their fixed order."""
    questions = _shared(tuple(sorted(values, key=lambda question: (question[0], str(question[1])))))
    return Answers(questions, np.array([values[question] for question in questions], dtype=np.float64))


@lru_cache(maxsize=64)
def _shared(questions: tuple[Question, ...]) -> tuple[Question, ...]:
    """Return one object for equal tuples: a thousand policies are asked the same thousands of questions."""
    return questions


def answers(results: Results, policy: str, score: str) -> Answers:
    """Read a policy's answers behind a score, once; `policy` is a training job's id or "base".

    They are taken only if their mean is the score on record, so that a difference of answers is one of scores.
    """
    known: dict[tuple[str, str], Answers] = results.answers
    if (policy, score) not in known:
        known[policy, score] = _read(results, policy, score)
    return known[policy, score]


def _read(results: Results, policy: str, score: str) -> Answers:
    for job in results.evaluation_jobs(policy):
        entry = job.scores.get(score) if job.complete else None
        if entry is None or entry.get("value") is None:
            continue
        found = of(outcomes.read(job, score))
        if not found:
            return Answers(reason=f"{job.id} keeps no single answers")
        if not math.isclose(found.values.mean(), results.score(policy, score).compared, rel_tol=1e-6, abs_tol=1e-6):
            return Answers(reason=f"{score} of {job.id} is not the plain mean of its answers")
        return found
    return Answers(reason=results.score(policy, score).reason or "not evaluated")


@dataclass(frozen=True)
class Difference:
    """One checkpoint's score against another's on the same items.

    Attributes:
        first, second: job ids or "base".
        difference: first − second, in the score's unit, with its interval over items; NaN with a `reason`.
        only_first, only_second: questions one side alone has right; None for judged pairs.
        p_value: McNemar's exact one, or the bootstrap estimate's; NaN if not comparable.
    """

    first: str
    second: str
    score: str
    difference: Estimate
    only_first: int | None = None
    only_second: int | None = None
    p_value: float = math.nan
    reason: str = ""


_NOTHING = Estimate(math.nan, math.nan, math.nan, math.nan, 0)


def compare(results: Results, first: str, second: str, score: str) -> Difference:
    """Compare two checkpoints on a score: McNemar where answers are right or wrong, a paired bootstrap in any case.

    The bootstrap draws whole subjects where there are enough of them, and its interval stays inside the range of differences.
    """
    ours, theirs = answers(results, first, score), answers(results, second, score)
    if not ours or not theirs:
        return Difference(first, second, score, _NOTHING, reason=ours.reason or theirs.reason)
    if ours.questions != theirs.questions:
        return Difference(first, second, score, _NOTHING, reason="not asked the same questions")
    a, b = ours.values, theirs.values
    made = items.bootstrapped((a - b).tolist(), [subject for subject, _ in ours.questions], results.metric(score).reach)
    if not np.isin((a, b), (0.0, 1.0)).all():
        return Difference(first, second, score, made, p_value=made.p_value)
    test = items.mcnemar(a, b)
    return Difference(first, second, score, made, test.only_first, test.only_second, test.p_value)


def against_base(tables: Tables) -> pd.DataFrame:
    """Compare every run's checkpoint with the base model, score by score."""
    return frame(tables, ((run, "base") for run in tables.results.runs))


def against_sequential(tables: Tables) -> pd.DataFrame:
    """Compare every run's checkpoint with that of the Sequential run with the same λ and seed."""
    pairs = ((run, tables.matching_sequential(run)) for run in tables.results.runs)
    return frame(tables, ((run, other.id) for run, other in pairs if other is not None and other.id != run.id))


def frame(tables: Tables, pairs: Iterable[tuple[Run, str]]) -> pd.DataFrame:
    """One row a pair of checkpoints and a score; `p_holm` is corrected over all rows. It says whether *checkpoints* differ."""
    rows = []
    for run, second in pairs:
        for score in tables.scores:
            one = compare(tables.results, run.id, second, score)
            row: dict[str, Any] = {"method": run.method, "lambda_dpo": run.lambda_dpo, "seed": run.seed}
            row |= {"first": one.first, "second": one.second, "score": score}
            row |= {"difference": one.difference.mean, "low": one.difference.low, "high": one.difference.high}
            row |= {"n": one.difference.n, "only_first": one.only_first, "only_second": one.only_second}
            rows.append(row | {"p_value": one.p_value, "reason": one.reason})
    made = pd.DataFrame(rows)
    if len(made):
        made["p_holm"] = holm([float(p) for p in made["p_value"]])
    return made


def forgetting(tables: Tables) -> pd.DataFrame:
    """One row a two-phase Sequential run and score: its score at the phase change and at the end.

    The checkpoint at the change is evaluated only where it is the end of another job, an optimum whose length the first
    phase has; anywhere else the row has a reason instead of a figure. `undone` = end − at_change; negative: forgotten.
    """
    by_id = {run.id: run for run in tables.results.trained}
    rows: list[dict[str, Any]] = []
    for job in tables.forgetting["job"] if len(tables.forgetting) else ():
        run = by_id[job]
        prefix = run.job.spec.get("prefix") or {}
        first, step = by_id.get(str(prefix.get("job"))), prefix.get("step")
        for score in tables.scores:
            at_change = missing(f"no checkpoint at the phase change was evaluated: no job ends at step {step}")
            if first is not None and first.steps.value == step:
                at_change = tables.results.score(first.id, score)
            end = tables.results.score(job, score)
            rows.append(
                {
                    "job": job,
                    "method": run.method,
                    "lambda_dpo": run.lambda_dpo,
                    "seed": run.seed,
                    "order": "_".join(run.order),
                    "score": score,
                    "at_change": at_change.compared,
                    "end": end.compared,
                    "undone": end.compared - at_change.compared,
                    "reason": at_change.reason or end.reason,
                }
            )
    return pd.DataFrame(rows)
