"""Draw what quality costs: distance and scores against seconds and tokens, and how often MAXRIGHT must look (Figure 4)."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from report.analysis.findings import Findings
from report.analysis.load import judge_of
from report.analysis.statistics import Estimate
from report.analysis.tables import RecipeResults, Tables
from report.page import charts, plots
from report.page.panels import INK, MARKERS, MORE_COLOURS, Drawer, Mark, Sketch, short_name
from report.render import document
from report.render.document import Cell, Column, Plot, Row
from report.render.numbers import number, plus_minus, series_digits
from report.render.shown import shown
from report.render.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.2, 1.5)))


def cost_against_quality(tables: Tables, folder: Path) -> document.Figure | None:
    """Draw quality over training seconds, and distance over tokens; the PNG goes to `folder`/cost.png. None without both."""
    drawer = Drawer(tables)
    pairs = [("training_seconds", "ideal_distance"), ("tokens", "ideal_distance")]
    pairs += [("training_seconds", name) for name in tables.scores]
    found = [one for place, (x, y) in enumerate(pairs) if (one := _scatter(drawer, f"cost-{place}", x, y)) is not None]
    if not found:
        return None
    sketches, drawn = zip(*found, strict=True)
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    caption = (
        "A point is a recipe: colour is the method, shape is λ, lines are the sd over seeds, small points the seeds. "
        "Better is lower left for the ideal "
        "distance and other losses, upper left for scores better high. Only costs of equal hardware and workers are drawn."
    )
    table = _points(tables, names)
    path = folder / "cost.png"
    return charts.compose("Cost against quality", sketches, path, table, caption, drawer.colours, drawer.shapes, drawn)


def _scatter(drawer: Drawer, name: str, x: str, y: str) -> tuple[Sketch, Plot] | None:
    tables = drawer.tables
    known = [one for one in tables.recipes if one.estimate(x).n and one.estimate(y).n]
    if not known:
        return None
    across = shown(tables.metric(x), [one.estimate(x).mean for one in known])
    up = shown(tables.metric(y), [one.estimate(y).mean for one in known])
    order = sorted(known, key=lambda one: one.estimate(y).mean, reverse=up.metric.better == "higher")
    best = f"Best: {order[0].name}" if up.metric.better else f"Lowest: {order[0].name}, highest: {order[-1].name}"
    cheapest = min(known, key=lambda one: one.estimate(x).mean)
    judge = f", judge {judge_of(y)}" if judge_of(y) and not tables.results.is_beside(y) else ""
    title = f"{up.metric.title}{judge} over {across.metric.title.lower()}"
    alt = f"{title}, a point a recipe. {best}; cheapest: {cheapest.name}."

    def draw(axes: Axes) -> None:
        marks = []
        for recipe in known:
            a, b = recipe.estimate(x), recipe.estimate(y)
            marks.append(
                Mark(
                    recipe, across.value(a.mean), up.value(b.mean), across.spread(a.mean, a.sd), up.spread(b.mean, b.sd)
                )
            )
        drawer.marks(axes, marks, 6.5)
        for method, colour in drawer.colours.items():
            axes.plot([], [], "-", color=colour, linewidth=3, label=short_name(method))
        for label, marker in drawer.shapes:
            axes.plot([], [], marker, color=INK, linestyle="none", label=label)
        axes.margins(0.1)
        axes.set(title=visible(title), xlabel=visible(across.title), ylabel=visible(up.title))

    axis = plots.Axis(across.title, across.metric.title, across.unit), plots.Axis(up.title, up.metric.title, up.unit)
    drawn = plots.plot(drawer, title, alt, axis, plots.spots(known, x, y, (across, up)))
    return Sketch(name, title, alt, draw, (4.3, 3.5)), drawn


def _points(tables: Tables, names: list[str]) -> document.Table:
    columns, cells = [Column("Recipe", numeric=False)], [[Cell(one.name, link=one.anchor)] for one in tables.recipes]
    for name in names:
        estimates = [recipe.estimate(name) for recipe in tables.recipes]
        writes = shown(tables.metric(name), [one.mean for one in estimates if one.n])
        columns.append(Column(writes.title))
        for row, one in zip(cells, estimates, strict=True):
            row.append(Cell(writes.mean(one.mean, one.sd)))
    rows = tuple(Row(tuple(row)) for row in cells)
    return document.Table("The numbers behind the figure (mean ± sd over seeds)", tuple(columns), rows)


def learned_against_kept(tables: Findings, folder: Path) -> document.Figure | None:
    """Draw what each recipe learned over what it kept; the PNG goes to `folder`/kept.png. None without both."""
    known = [one for one in tables.kept if one.recipe.lambda_dpo is not None and one.learned.n and one.kept.n]
    if not known:
        return None
    drawer = Drawer(tables)
    best = max(known, key=lambda one: one.kept.mean)
    title, up = "Kept over learned", "other tasks against the base (points)"
    alt = f"{title}, a point a recipe; right is more learned, up is more kept. Most kept: {best.recipe.name}."

    def draw(axes: Axes) -> None:
        marks = [
            Mark(one.recipe, *(100 * value for value in (one.learned.mean, one.kept.mean, one.learned.sd, one.kept.sd)))
            for one in known
        ]
        drawer.marks(axes, marks, 6.5)
        axes.axhline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
        for method, colour in drawer.colours.items():
            axes.plot([], [], "-", color=colour, linewidth=3, label=short_name(method))
        axes.margins(0.1)
        axes.set(title=title, xlabel="learned of both objectives (%)", ylabel=up)

    def cell(value: Estimate) -> Cell:
        return Cell(plus_minus(100 * value.mean, 100 * value.sd, 1, sign=True))

    rows = tuple(
        Row((Cell(one.recipe.name, link=one.recipe.anchor), cell(one.learned), cell(one.kept))) for one in known
    )
    columns = (Column("Recipe", numeric=False), Column("Learned (%)"), Column("Kept (points)"))
    table = document.Table("The numbers behind the figure (mean ± sd over seeds)", columns, rows)
    caption = (
        "Right: the share of what training on each objective alone learns, mean over both. Up: the mean change of all tasks that "
        "nobody trained for, against the base model (dashed). Better is upper right; lines are the sd over seeds."
    )
    sketch = Sketch("kept", title, alt, draw, (4.7, 3.7))
    axis = plots.Axis("learned of both objectives (%)", "learned", "%"), plots.Axis(up, "kept", "points")
    spots = [
        plots.Spot(one.recipe, 100 * one.learned.mean, 100 * one.kept.mean, 100 * one.learned.sd, 100 * one.kept.sd, {})
        for one in known
    ]
    drawn = plots.plot(drawer, title, alt, axis, spots, level=0)
    path = folder / "kept.png"
    return charts.compose(
        "Learned against kept", [sketch], path, table, caption, drawer.colours, drawer.shapes, [drawn]
    )


# ---- Figure 4 --------------------------------------------------------------------------------------------------------


def evaluation_steps(tables: Tables) -> dict[int, list[RecipeResults]]:
    """Return k → MAXRIGHT's recipes that look at both objectives every k steps; empty unless a suite varies k."""
    every = {run.method: run.job.labels.get("options", {}).get("max_eval_every") for run in tables.results.runs}
    found: dict[int, list[RecipeResults]] = {}
    for recipe in tables.recipes:
        k = every.get(recipe.method)
        if recipe.base_method == "maxright" and isinstance(k, int):
            found.setdefault(k, []).append(recipe)
    return dict(sorted(found.items())) if len(found) > 1 else {}


def max_evaluation(tables: Tables, folder: Path) -> document.Figure | None:
    """Draw the layout of the paper's Figure 4: what MAXRIGHT's k does to gaps and costs; None unless a suite varies k."""
    by_k = evaluation_steps(tables)
    if not by_k:
        return None
    device = "GPU" if tables.utilization.startswith("gpu") else "CPU"
    panels = {
        "gap_dpo": "DPO optimality gap (nats)",
        "gap_sft": "SFT optimality gap (nats)",
        "ideal_distance": "Ideal distance (nats)",
        "runtime_increase_percent": "Increase in runtime (%)",
        "utilization_increase_percent": f"Increase in {device} utilization (%)",
    }
    lambdas = list(dict.fromkeys(recipe.lambda_dpo for recipes in by_k.values() for recipe in recipes))
    shades = dict(zip(lambdas, ("#d55e00", "#0072b2", "#009e73", *MORE_COLOURS), strict=False))
    sketches = []
    for name, title in panels.items():
        means = {k: [one.estimate(name).mean for one in recipes] for k, recipes in by_k.items()}
        average = {
            k: math.fsum(values) / len(values) for k, values in means.items() if not any(map(math.isnan, values))
        }
        says = ", ".join(f"k = {k:,}: {number(value, series_digits(average.values()))}" for k, value in average.items())
        alt = f"{title} over MAXRIGHT's evaluation interval k, a line a λ; mean over λ: {says or 'missing'}."
        sketches.append(
            Sketch(f"every-{name}", title, alt, partial(_lines, tables, by_k, shades, name, title), (3.5, 3.0))
        )
    caption = (
        "k: MAXRIGHT evaluates both objectives at the first step and at every k-th, and judges by what it last saw in between; a "
        "point is the mean over seeds, lines are the sd. Level lines: ALRIGHT, which never looks, at the same λ."
    )
    legend = {_lambda(lambda_dpo): shade for lambda_dpo, shade in shades.items()}
    table = _every_table(by_k, panels)
    path = folder / "max_evaluation.png"
    return charts.compose("What the evaluation interval changes", sketches, path, table, caption, legend)


def _lambda(lambda_dpo: float | None) -> str:
    return "no λ" if lambda_dpo is None else f"λ = {lambda_dpo:g}"


def _lines(
    tables: Tables,
    by_k: dict[int, list[RecipeResults]],
    shades: dict[float | None, str],
    name: str,
    title: str,
    axes: Axes,
) -> None:
    drawn = False
    for place, (lambda_dpo, shade) in enumerate(shades.items()):
        found = [
            (k, one.estimate(name)) for k, recipes in by_k.items() for one in recipes if one.lambda_dpo == lambda_dpo
        ]
        known = [(k, one) for k, one in found if one.n]
        drawn = drawn or bool(known)
        axes.errorbar(
            [
                k * 1.05 ** (place - (len(shades) - 1) / 2) for k, _ in known
            ],  # a little apart, so that lines do not hide lines
            [one.mean for _, one in known],
            [0.0 if math.isnan(one.sd) else one.sd for _, one in known],
            color=shade,
            linestyle=LINES[place % len(LINES)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=5,
            linewidth=1.3,
            elinewidth=0.8,
            label=_lambda(lambda_dpo),
        )
        alright = next(
            (one for one in tables.recipes if one.base_method == "alright" and one.lambda_dpo == lambda_dpo), None
        )
        if alright is not None and alright.estimate(name).n:
            axes.axhline(alright.estimate(name).mean, color=shade, linestyle=(0, (2, 2)), linewidth=0.9, alpha=0.7)
    axes.set(title=title, xlabel="evaluation interval k (steps)")
    if not drawn:
        axes.text(0.5, 0.5, "missing", ha="center", va="center", transform=axes.transAxes)
        return
    axes.set_xscale("log")
    axes.set_xticks(list(by_k), [f"{k:,}" for k in by_k])
    axes.minorticks_off()
    axes.margins(x=0.08)


def _every_table(by_k: dict[int, list[RecipeResults]], panels: dict[str, str]) -> document.Table:
    digits = {
        name: series_digits([one.estimate(name).mean for recipes in by_k.values() for one in recipes])
        for name in panels
    }
    rows = []
    for k, recipes in by_k.items():
        for recipe in recipes:
            cells = [Cell(recipe.name, link=recipe.anchor), Cell(f"{k:,}")]
            for name in panels:
                one = recipe.estimate(name)
                cells.append(Cell(plus_minus(one.mean, one.sd, digits[name])))
            rows.append(Row(tuple(cells)))
    columns = (Column("Recipe", numeric=False), Column("k"), *(Column(title) for title in panels.values()))
    return document.Table("The numbers behind the figure (mean ± sd over seeds)", columns, tuple(rows))
