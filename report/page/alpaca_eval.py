"""Put AlpacaEval 2's published win rates beside a suite's own where they compare, or say why they do not.

The published figures are data, in alpaca_eval.json; that a judging compares with them is on record in its score.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from report.analysis.load import Results, judge_of
from report.render.document import Block, Cell, Column, Row, Table, Text
from report.render.numbers import number

DATA = Path(__file__).parent / "alpaca_eval.json"
TITLE = "AlpacaEval 2's published win rates beside these"
_COLUMNS = (
    Column("Model", numeric=False),
    Column("From", numeric=False),
    Column("Win rate (%)", meaning="± standard error over prompts"),
    Column(
        "Length-adjusted here (%)",
        meaning="by our own regression on the difference in length, from these pairs alone; it is no figure of AlpacaEval's",
    ),
    Column(
        "Length-controlled by AlpacaEval (%)",
        meaning="as published, by AlpacaEval's own model, which knows how hard each instruction is; it does not compare with "
        "the column before it",
    ),
    Column("Mean length", meaning="of answers, in characters"),
)
Score = tuple[str, dict[str, Any]]


@cache
def _published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def blocks(results: Results) -> tuple[Block, ...]:
    """Return the comparison, or the sentence that says why there is none; nothing where other prompts were judged."""
    found = [
        (str(job.labels["of"]), dict(score))
        for job in results.record.jobs.values()
        if job.kind == "judge"
        for name, score in job.scores.items()
        if judge_of(name) and "published_compares" in score
    ]
    ours = [(of, score) for of, score in found if score["published_compares"] and score.get("value") is not None]
    if ours:
        return (_table(ours, _endpoints(results)),)
    reasons = dict.fromkeys(str(score.get("published_reason") or score.get("reason")) for _, score in found)
    text = f"AlpacaEval 2's published win rates do not compare with these: {'; '.join(reasons)}."
    return (Text(text),) if found else ()


def _endpoints(results: Results) -> list[str]:
    """List the addresses other than its maker's at which the judge was asked."""
    judged = (job for job in results.record.jobs.values() if job.kind == "judge")
    return sorted({str(job.spec["settings"].get("base_url") or "") for job in judged} - {""})


def _table(ours: list[Score], endpoints: list[str]) -> Table:
    rows = [(float(score["value"]), _own(of, score)) for of, score in ours]
    rows += [(figures[0], _theirs(name, figures)) for name, figures in _published()["models"].items()]
    ranked = sorted(rows, key=lambda one: -one[0])
    notes = [f"Published: {_published()['source']}; the judge is {_published()['judge']} on both sides."]
    if endpoints:
        notes.append(f"Ours was asked at {', '.join(endpoints)}: that it is that model is the endpoint's word.")
    notes += [f"{column.title}: {column.meaning}." for column in _COLUMNS if column.meaning]
    return Table(TITLE, _COLUMNS, tuple(row for _, row in ranked), tuple(notes))


def _own(of: str, score: dict[str, Any]) -> Row:
    adjusted = score.get("length_controlled_win_rate")
    cells = (
        Cell(of),
        Cell("here"),
        Cell(number(score["value"], 1), note=_error(score.get("standard_error"))),
        Cell("–", note=str(score.get("length_controlled_reason") or ""))
        if adjusted is None
        else Cell(number(adjusted, 1)),
        Cell("–"),
        Cell(number(score["mean_length_ours"], 0)),
    )
    return Row(cells)


def _theirs(name: str, figures: list[float]) -> Row:
    rate, error, controlled, length, judged = figures
    note = _error(error) + (f", {judged:g} judged" if judged < 805 else "")
    cells = (
        Cell(name),
        Cell("published"),
        Cell(number(rate, 1), note=note),
        Cell("–"),
        Cell(number(controlled, 1)),
        Cell(number(length, 0)),
    )
    return Row(cells, kind="context")


def _error(value: float | None) -> str:
    return "" if value is None else f"± {number(value, 1)}"
