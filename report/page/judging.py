"""What stands behind a win rate: its interval, unjudged pairs, the judge's love of a position and of length, its bill."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from report.analysis.load import Results, judge_of
from report.page import alpaca_eval
from report.render.document import Cell, Column, Details, Row, Table
from report.render.numbers import MISSING, number

_COLUMNS = (
    Column("Policy", numeric=False),
    Column("Judge", numeric=False),
    Column("Win rate (%)", meaning="95 % interval over pairs"),
    Column("Pairs", meaning="unjudged ones beside it"),
    Column("Position bias", meaning="how much more than half of the preference falls to the answer shown first"),
    Column("Our length", meaning="mean, in characters"),
    Column("Their length", meaning="mean, in characters"),
    Column(
        "Length-adjusted (%)",
        meaning="at equal length, by our own logistic regression on the difference in length, ± standard error; it is "
        "not AlpacaEval's length-controlled win rate",
    ),
    Column("Cost ($)", meaning="of the replies this judging paid for"),
)


def details(results: Results) -> Details | None:
    """Return a row per judged policy; None where none is judged."""
    rows = [
        _row(str(job.labels["of"]), judge_of(name), score)
        for job in results.record.jobs.values()
        if job.kind == "judge"
        for name, score in job.scores.items()
        if judge_of(name)
    ]
    if not rows:
        return None
    notes = tuple(f"{column.title}: {column.meaning}." for column in _COLUMNS if column.meaning)
    table = Table("", _COLUMNS, tuple(rows), (*_prompts(results), *notes))
    return Details("Each judging: interval, position, length, cost", (table, *alpaca_eval.blocks(results)))


def _prompts(results: Results) -> list[str]:
    """Say whose prompts were judged, where they are not those of held-out pairs, and how many were too long."""
    said: dict[str, None] = {}
    for job in results.record.jobs.values():
        for score in job.scores.values() if job.kind == "judge" else ():
            if "prompts_from" in score:
                cut = score["cut_prompts"]
                lost = f"; {cut} prompts were too long and lost their left end" if cut else ""
                said[f"Compared with {score['against']}: {score['n']} prompts{lost}."] = None
    return list(said)


def _row(policy: str, judge: str, score: Mapping[str, Any]) -> Row:
    unjudged = score.get("unjudged") or 0
    cells = (
        Cell(policy),
        Cell(judge),
        _figure(score.get("value"), 1, _interval(score.get("interval_95")), str(score.get("reason") or "")),
        Cell(str(score.get("n", MISSING)), note=f"{unjudged} unjudged" if unjudged else ""),
        _figure(score.get("position_bias"), 3, reason="each pair was shown in one order", sign=True),
        _figure(score.get("mean_length_ours"), 0),
        _figure(score.get("mean_length_theirs"), 0),
        _figure(
            score.get("length_controlled_win_rate"),
            1,
            _error(score.get("length_controlled_standard_error")),
            str(score.get("length_controlled_reason") or ""),
        ),
        _figure(
            score.get("cost_usd"),
            4,
            _doubtful(score),
            "; ".join(filter(None, (score.get("cost_reason"), _doubtful(score)))),
        ),
    )
    return Row(cells)


def _doubtful(score: Mapping[str, Any]) -> str:
    """Say how many requests may be paid for though nobody saw their answers."""
    if not score.get("unanswered"):
        return ""
    return f"{score['unanswered']} requests without an answer, {score['possibly_paid_twice']} possibly paid twice"


def _figure(value: float | None, digits: int, note: str = "", reason: str = "", sign: bool = False) -> Cell:
    if value is None:
        return Cell(number(math.nan, digits), note=reason, missing=True)
    return Cell(number(value, digits, sign), note=note)


def _interval(ends: Sequence[float] | None) -> str:
    return f"{number(ends[0], 1)} to {number(ends[1], 1)}" if ends else ""


def _error(value: float | None) -> str:
    return "" if value is None else f"± {number(value, 1)}"
