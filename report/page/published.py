"""Put the paper's published figures beside a suite's own; the figures and their origin are data, in published.json."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from report.analysis.load import judge_of
from report.analysis.statistics import Estimate, estimate
from report.analysis.tables import RecipeResults, Tables, recipe_name
from report.render.document import Block, Cell, Column, Row, Table, Text
from report.render.numbers import number, plus_minus

DATA = Path(__file__).parent / "published.json"
SMOKE_SUFFIX = "--smoke"
SPLIT = "train"  # the authors measured objective values on training rows
DECIMALS = {"%": 2, "nats": 4}


@dataclass(frozen=True)
class PublishedFigure:
    """One published figure beside ours.

    Attributes:
        row: what the figure is of, such as a recipe.
        title: the figure's name, with the judge where one is part of it.
        paper: as published, in `unit`; `words` where the text gives a bound instead of a value.
        here: over our seeds; of no values where we have none, for `reason`.
        origin: where it was published.
    """

    row: str
    title: str
    unit: str
    paper: float
    here: Estimate
    reason: str
    origin: str
    words: str = ""


@cache
def _data() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))["suites"]
    return found


def published(tables: Tables) -> dict[str, Any]:
    """Return what was published of the suite, which its name tells; empty for a suite of no one's, or a changed one.

    A smoke counts, which shows the tables under its banner.
    """
    if tables.results.changes_of_shipped and not tables.results.smoke:
        return {}
    return dict(_data().get(tables.results.name.removesuffix(SMOKE_SUFFIX), {}))


def blocks(tables: Tables) -> tuple[Block, ...]:
    """Return the section's blocks; none for a suite that reproduces nothing published."""
    known = published(tables)
    if not known:
        return ()
    how = "The paper's figures where it or its authors' code prints them, beside this suite's, its settings as shipped."
    differences = {title: known[part]["differences"] for part, (title, _) in PARTS.items() if part in known}
    return (Text(how), *(_grid(title, found, differences[title]) for title, found in groups(tables).items()))


def as_json(tables: Tables) -> list[dict[str, Any]]:
    """Return the comparisons for machines; a figure we do not have is null with a reason."""
    return [
        {
            "figure": one.title,
            "of": one.row,
            "unit": one.unit,
            "paper": one.paper,
            "paper_words": one.words or None,
            "here": None if one.here.n == 0 else one.here.mean,
            "reason": one.reason or None,
            "origin": one.origin,
        }
        for found in groups(tables).values()
        for one in found
    ]


def groups(tables: Tables) -> dict[str, list[PublishedFigure]]:
    """Compare every published figure of the suite, by the table it stands in."""
    known = published(tables)
    return {title: list(compare(tables, known[part])) for part, (title, compare) in PARTS.items() if part in known}


def _scores(tables: Tables, known: dict[str, Any]) -> Iterable[PublishedFigure]:
    judged = next((name for name in tables.scores if judge_of(name)), "win_rate")
    judge = judged.removeprefix("win_rate").removeprefix("/")
    for family, name, title in (
        ("mmlu/acc", "mmlu/acc", "MMLU, 1-shot"),
        ("win_rate", judged, f"Win rate (judge here: {judge})" if judge else "Win rate"),
    ):
        for method, values in known[family].items():
            for lambda_dpo, value in zip(known["lambdas"], values, strict=True):
                here, reason = _of_recipe(tables, method, lambda_dpo, name, 100.0 if name == "mmlu/acc" else 1.0)
                yield PublishedFigure(recipe_name(method, lambda_dpo), title, "%", value, here, reason, known["origin"])


def _objectives(tables: Tables, known: dict[str, Any]) -> Iterable[PublishedFigure]:
    for objective, optimum in known["optimum"].items():
        row, title = f"{objective.upper()} alone (f*)", f"f_{objective.upper()}"
        recipe = next((one for one in tables.context if one.method == row), None)
        here, reason = _figure(recipe, f"f_{objective}/{SPLIT}", f"no complete run of {row}")
        yield PublishedFigure(row, title, "nats", optimum, here, reason, known["origin"])
    for place, lambda_dpo in enumerate(known["lambdas"]):
        for objective, values in known["front"].items():
            here, reason = _of_recipe(tables, "alright", lambda_dpo, f"f_{objective}/{SPLIT}")
            row = recipe_name("alright", lambda_dpo)
            yield PublishedFigure(row, f"f_{objective.upper()}", "nats", values[place], here, reason, known["origin"])


def _resources(tables: Tables, known: dict[str, Any]) -> Iterable[PublishedFigure]:
    for name, title in (
        ("runtime_increase_percent", "Runtime (Eq. 57)"),
        ("utilization_increase_percent", "GPU utilization (Eq. 58)"),
    ):
        here, reason = _largest(tables, known["method"], name)
        claim = known[name]
        yield PublishedFigure(
            known["method"], title, "%", claim["value"], here, reason, known["origin"], claim["words"]
        )


def _largest(tables: Tables, method: str, name: str) -> tuple[Estimate, str]:
    """Return a method's largest mean increase over λ."""
    if name.startswith("utilization") and not tables.utilization.startswith("gpu"):
        return estimate([]), "no GPU utilization was measured, and the processor's is another figure"
    recipes = [one for one in tables.recipes if one.base_method == method]
    found = [one.estimate(name) for one in recipes if one.estimate(name).n]
    if found:
        return max(found, key=lambda one: one.mean), ""
    return estimate([]), recipes[0].reason(name) if recipes else f"no complete run of {method}"


def _of_recipe(tables: Tables, method: str, lambda_dpo: float, name: str, factor: float = 1.0) -> tuple[Estimate, str]:
    fits = (one for one in tables.recipes if (one.base_method, one.lambda_dpo) == (method, lambda_dpo))
    return _figure(next(fits, None), name, f"no complete run of {recipe_name(method, lambda_dpo)}", factor)


def _figure(recipe: RecipeResults | None, name: str, absent: str, factor: float = 1.0) -> tuple[Estimate, str]:
    """Estimate a recipe's figure over seeds, or say why there is none."""
    if recipe is None:
        return estimate([]), absent
    low, high = recipe.metric(name).range
    found = estimate([value * factor for value in recipe.values(name).values()]).inside(low * factor, high * factor)
    if found.n:
        return found, ""
    known = any(name in figures for figures in recipe.figures.values())
    return found, recipe.reason(name) if known else f"{name} was not evaluated here"


PARTS: dict[str, tuple[str, Callable[[Tables, dict[str, Any]], Iterable[PublishedFigure]]]] = {
    "scores": ("Accuracy and win rate (Table 1)", _scores),
    "objectives": ("Objective values on training rows: optima and ALRIGHT's front", _objectives),
    "resources": ("Cost of Mix against Sequential, the largest over λ", _resources),
}


def _grid(title: str, comparisons: Sequence[PublishedFigure], differences: Sequence[str]) -> Table:
    """Lay comparisons out: a row each thing, and for each figure the paper's and ours side by side."""
    figures = {one.title: one.unit for one in comparisons}
    columns = [Column("Recipe", numeric=False)]
    for name, unit in figures.items():
        columns += [Column(f"paper ({unit})", group=name), Column(f"here ({unit})", group=name)]
    by_place = {(one.row, one.title): one for one in comparisons}
    reasons: list[str] = []
    rows = []
    for row in dict.fromkeys(one.row for one in comparisons):
        cells = [Cell(row)]
        for name in figures:
            found = by_place.get((row, name))
            cells += _pair(found, reasons) if found else [Cell("–"), Cell("–")]
        rows.append(Row(tuple(cells)))
    origins = dict.fromkeys(one.origin for one in comparisons)
    notes = [f"Published in: {'; '.join(origins)}."]
    notes += [f"Known difference: {one}" for one in differences]
    notes += [f"[{place}] missing: {reason}" for place, reason in enumerate(reasons, 1)]
    return Table(title, tuple(columns), tuple(rows), tuple(notes))


def _pair(one: PublishedFigure, reasons: list[str]) -> list[Cell]:
    least = DECIMALS[one.unit]
    paper = Cell(one.words or number(one.paper, max(least, _decimals(one.paper))))
    if one.here.n:
        return [paper, Cell(plus_minus(one.here.mean, one.here.sd, least if not one.words else 1))]
    if one.reason not in reasons:
        reasons.append(one.reason)
    return [paper, Cell(f"missing [{reasons.index(one.reason) + 1}]", missing=True)]


def _decimals(value: float) -> int:
    """Count the decimals a figure was published with, trailing zeros apart."""
    return 0 if math.isclose(value, round(value)) else len(repr(value).split(".")[1])
