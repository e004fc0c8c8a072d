"""Lay out what the statistics say: recipes against Sequential, fronts over λ, and accuracy lost in the second phase."""

from __future__ import annotations

import math

import pandas as pd

from report.analysis.findings import Findings
from report.analysis.ranking import counted
from report.analysis.statistics import Estimate
from report.analysis.tables import RecipeResults, Tables
from report.page.present import Sheet, score_shown, score_title
from report.render.document import Cell, Column, Row, Table
from report.render.numbers import number, series_digits
from report.render.shown import shown

CHOICES = (
    "dpo_step_share",
    "negative_gap_share_dpo",
    "negative_gap_share_sft",
    "distinct_rows_dpo",
    "distinct_rows_sft",
    "ideal_distance",
)


def verdicts(tables: Findings) -> Table | None:
    """Return whether each recipe is better or worse than Sequential at its λ, figure by figure; None without Sequential."""
    frame = tables.against_sequential
    if frame.empty:
        return None
    metrics = list(dict.fromkeys(frame["metric"]))
    by_recipe = {recipe.key: recipe for recipe in tables.recipes}
    rows = []
    for (method, lambda_dpo), part in frame.groupby(["method", "lambda_dpo"], sort=False):
        recipe = by_recipe[str(method), float(str(lambda_dpo))]
        found = part.set_index("metric")
        cells = [_verdict(found.loc[name], name, tables) if name in found.index else Cell("–") for name in metrics]
        tags = (("method", recipe.method), ("λ", f"{recipe.lambda_dpo:g}"))
        rows.append(Row((Cell(recipe.name, link=recipe.anchor), *cells), tags=tags))
    columns = (Column("Recipe", numeric=False), *(Column(_title(name, tables), numeric=False) for name in metrics))
    notes = (
        f"Over seeds, paired, with Holm's correction over {counted(len(rows), 'comparison')} of a column at 5 %. In small print: "
        "the difference to Sequential with its own 95 % CI, which is not corrected; where no difference is seen, how large it "
        "could still be. Fewer than three seeds are not enough data.",
    )
    return Table("Better or worse than Sequential at the same λ", columns, tuple(rows), notes, sortable=len(rows) > 2)


def _title(name: str, tables: Tables) -> str:
    unit = shown(tables.metric(name), []).difference_unit
    return f"{tables.metric(name).title} ({unit})" if unit else tables.metric(name).title


def _verdict(row: pd.Series, name: str, tables: Tables) -> Cell:
    writes = shown(tables.metric(name), [])
    difference, low, high, could = (
        writes.difference(float(row[one])) for one in ("difference", "low", "high", "could_be")
    )
    digits = 1 if writes.difference_unit in ("points", "%") else series_digits([difference])
    if math.isnan(difference):
        return Cell(str(row["verdict"]), missing=True)
    note = number(difference, digits, True)
    if not math.isnan(low):
        note += f", {number(low, digits, True)} to {number(high, digits, True)}"
    text = str(row["verdict"]) + ("" if math.isnan(could) else f" (could be ±{number(could, digits)})")
    return Cell(text, note=note)


def choices(tables: Findings) -> Table | None:
    """Return what each recipe's steps descended and saw, over seeds; None where no record counts it."""
    recipes = [recipe for recipe in tables.recipes if recipe.estimate("dpo_step_share").n]
    if not recipes:
        return None
    sheet = Sheet(tables, recipes).text("Recipe", (recipe.name for recipe in recipes))
    for name in CHOICES:
        if any(recipe.estimate(name).n for recipe in recipes):
            sheet.figure(name)
    return sheet.table("What the steps descended and saw")


def fronts(tables: Findings) -> Table | None:
    """Return each method's front over λ: hypervolume, its share of what there is to reach, spread; None without λ."""
    if not tables.fronts:
        return None
    off = _off_front(tables)
    rows = []
    for front in tables.fronts:
        cells = [Cell(front.method), Cell(f"{len(front.lambdas)}"), Cell(f"{len(front.points)}")]
        cells += [
            _estimate(one, factor) for one, factor in ((front.hypervolume, 1), (front.share, 100), (front.spread, 1))
        ]
        rows.append(Row((*cells, Cell(off.get(front.method, "–")))))
    columns = (
        Column("Method", numeric=False),
        Column("λ"),
        Column("Seeds", meaning="complete at every λ"),
        Column("Hypervolume (nats²)", meaning="area that the method's ends dominate below the reference point"),
        Column("Share of the box (%)", meaning="of the area between the reference point and the ideal point"),
        Column("Spread (nats)", meaning="distance between the ends over λ"),
        Column("On the front of all recipes", numeric=False),
    )
    notes = (
        "The reference point is the worst of the start and of both optima's ends in each objective; it depends on no recipe. "
        "More area is better. In small print: 95 % CIs over seeds, from three seeds on.",
    )
    return Table("Fronts over λ", columns, tuple(rows), notes, sortable=len(rows) > 2)


def _off_front(tables: Findings) -> dict[str, str]:
    """Say for each method which λ no other recipe beats in both objectives, on average."""
    frame, found = tables.dominance, {}
    if frame.empty:
        return {}
    for method, part in frame.groupby("method", sort=False):
        on = [f"{value:g}" for value in part[part["on_front"]]["lambda_dpo"] if value is not None]
        found[str(method)] = f"λ = {', '.join(on)}" if on else "none: each is dominated"
    return found


def _estimate(one: Estimate, factor: float) -> Cell:
    if not one.n or math.isnan(one.mean):
        return Cell("missing", missing=True)
    digits = 1 if factor > 1 else series_digits([one.mean])
    note = f"{number(one.low * factor, digits)} to {number(one.high * factor, digits)}" if one.has_interval else ""
    return Cell(number(one.mean * factor, digits), note=note)


def forgetting_scores(tables: Findings) -> Table | None:
    """Return scores at the phase change against the end; None where no checkpoint at the change was evaluated."""
    frame = tables.forgetting_scores
    if frame.empty or frame["undone"].isna().all():
        return None
    by_job = {job: recipe for recipe in tables.recipes for job in recipe.jobs.values()}
    rows = []
    for _, row in frame.iterrows():
        recipe: RecipeResults = by_job[str(row["job"])]
        writes = score_shown(str(row["score"]), tables)
        change = f"{number(writes.difference(float(row['undone'])), 1, True)} {writes.difference_unit}".rstrip()
        written = (writes.text(float(row["at_change"])), writes.text(float(row["end"])), change)
        cells = [
            Cell("missing", note=str(row["reason"]), missing=True) if math.isnan(float(row[name])) else Cell(text)
            for name, text in zip(("at_change", "end", "undone"), written, strict=True)
        ]
        title = score_title(str(row["score"]), tables)
        rows.append(Row((Cell(recipe.name, link=recipe.anchor), Cell(str(row["seed"])), Cell(title), *cells)))
    columns = (
        Column("Recipe", numeric=False),
        Column("Seed"),
        Column("Score", numeric=False),
        *(Column(title) for title in ("At the phase change", "At the end", "Change")),
    )
    return Table("Scores between the phases: what the second undid", columns, tuple(rows))
