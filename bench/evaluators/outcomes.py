"""Can what came of a stage of another package's evaluator be put on record? No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bench.evaluators import Outcome
from bench.plugins import not_json
from bench.records.metrics import Metric, find


def wrong(outcome: Any) -> str | None:
    """Say why an outcome is none: a score that nothing describes, without a value, or an outcome of no score."""
    if not isinstance(outcome, Outcome):
        return f"`run` returned {outcome!r:.100}, not an Outcome"
    wrong = next((one for one in outcome.metrics if not isinstance(one, Metric)), None)
    if wrong is not None:
        return f"the Outcome's metrics hold {wrong!r:.100}, which is no Metric"
    described = {one.name: one for one in outcome.metrics}
    for name, score in outcome.scores.items():
        problem = _wrong_score(score, find(name, described))
        if problem:
            return f"the score {name!r} {problem}"
    return _wrong_rows(outcome)


def _wrong_score(score: Any, metric: Metric | None) -> str | None:
    if metric is None:
        return "has no Metric among the Outcome's metrics; give it one of that name"
    if metric.kind != "score":
        return f"has a Metric of kind {metric.kind!r}; what an evaluator finds is of kind 'score'"
    if not isinstance(score, Mapping) or "value" not in score:
        return f"is {score!r:.100}; it is a mapping with value, n and standard_error"
    value = score["value"]
    if value is None:
        return None if score.get("reason") else "is null without a reason; say why it could not be measured"
    if not _is_number(value) or isinstance(value, bool):
        return f"has the value {value!r:.100}; it is a finite number, or null with a reason"
    problem = not_json(dict(score))
    return f"cannot be written as JSON ({problem})" if problem else _out_of_range(value, metric)


def _out_of_range(value: float, metric: Metric) -> str | None:
    below = metric.low is not None and value < metric.low - _ROUNDING
    if not below and (metric.high is None or value <= metric.high + _ROUNDING):
        return None
    return f"has the value {value:g}, which its Metric's low = {metric.low} and high = {metric.high} leave out"


def _wrong_rows(outcome: Outcome) -> str | None:
    known = {name for score in outcome.scores for name in (score, score.partition("/")[2]) if name}
    for place, row in enumerate(outcome.rows):
        problem = (
            _wrong_row(row, known) if isinstance(row, Mapping) else f"is {row!r:.100}, not a mapping of JSON values"
        )
        if problem:
            return f"row {place} {problem}"
    return None


def _wrong_row(row: Mapping[str, Any], known: set[str]) -> str | None:
    outcomes = row.get("outcomes", {})
    if not isinstance(outcomes, Mapping):
        return f"has the outcomes {outcomes!r:.100}; they are a mapping from a score to its number"
    unknown = next((name for name in outcomes if name not in known), None)
    if unknown is not None:
        return f"has an outcome of {unknown!r}, which is no score of the Outcome: {', '.join(sorted(known)) or 'it has none'}"
    if outcomes and "id" not in row:
        return "has outcomes, but no id by which other policies' rows are matched with it"
    for name, value in outcomes.items():
        parts = value if isinstance(value, list | tuple) and len(value) == 2 else (value,)
        if not all(map(_is_number, parts)):
            return f"has the outcome {value!r:.100} of {name!r}; it is a finite number, or [sum, weight]"
    problem = not_json(dict(row))
    return f"cannot be written as JSON ({problem})" if problem else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


_ROUNDING = 1e-9
