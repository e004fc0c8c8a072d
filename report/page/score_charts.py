"""Draw scores with their intervals: of every recipe, and by subject against the base model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from report.analysis import outcomes
from report.analysis.load import Results
from report.analysis.statistics import LEVEL, t_quantile
from report.analysis.tables import RecipeResults, Tables
from report.page import charts
from report.page.panels import INK, Drawer, Sketch, short_name
from report.page.present import score_shown, score_title
from report.render import document
from report.render.document import Cell, Column, Row
from report.render.numbers import number
from report.render.shown import Shown
from report.render.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 40
ROW_INCHES = 0.2
FEWEST_QUESTIONS, MOST_SUBJECTS = 20, 5  # of fewer questions a change says nothing, and more subjects nobody reads


@dataclass(frozen=True)
class Point:
    """One row of a dot plot: a value in percent (or points) with its 95 % interval, NaN where there is none."""

    name: str
    value: float
    low: float
    high: float
    source: str
    link: str = ""
    series: str = ""


def over_recipes(recipe: RecipeResults, writes: Shown) -> Point | None:
    """Estimate a score: Student-t over seeds from three on; below, over the pairs or questions of the one seed."""
    name = writes.metric.name
    one = recipe.estimate(name)
    if not one.n:
        return None
    low, high, source = one.low, one.high, f"{one.n} seeds"
    if not one.has_interval and len(recipe.jobs) == 1:
        source = f"one seed, over its {writes.metric.item or 'outcome'}s"
        low, high = recipe.own_interval(name) or _by_error(one.mean, recipe.standard_error(name))
    link = recipe.anchor if recipe.lambda_dpo is not None else ""
    one = replace(one, low=low, high=high).inside(*writes.metric.range)
    value, low, high = (writes.value(each) for each in (one.mean, one.low, one.high))
    return Point(recipe.name, value, low, high, source, link, recipe.method)


def _by_error(mean: float, error: float) -> tuple[float, float]:
    """Return the normal 95 % interval of a score whose record has an error and no interval; NaN without either."""
    return mean - 1.96 * error, mean + 1.96 * error


def scores(tables: Tables, folder: Path) -> document.Figure | None:
    """Draw every recipe's scores with intervals; the PNG goes to `folder`/scores.png. None without scores."""
    drawer = Drawer(tables)
    recipes = [*tables.ranked[:MOST_ROWS], *tables.context]
    sketches: list[Sketch] = []
    rows: list[Row] = []
    for name in tables.scores:
        writes = score_shown(name, tables)
        points = [point for recipe in recipes if (point := over_recipes(recipe, writes)) is not None]
        if points:
            title = score_title(name, tables)
            sketches.append(_dots(f"score-{len(sketches)}", title, points, drawer.colours))
            rows += [_data_row(title, point) for point in points]
    if not sketches:
        return None
    columns = (
        *map(partial(Column, numeric=False), ("Recipe", "Score")),
        Column("Mean"),
        Column("95 % CI"),
        Column("From", numeric=False),
    )
    table = document.Table("The numbers behind the figure", columns, tuple(rows))
    left_out = len(tables.ranked) - MOST_ROWS
    caption = (
        "Dots are means, lines 95 % CIs: Student's t over seeds from three on, otherwise over the questions or pairs of "
        "the one seed, which leaves out how much seeds differ. Recipes stand in the leaderboard's order."
        + (f" The {left_out} recipes below rank {MOST_ROWS} are in the leaderboard only." if left_out > 0 else "")
    )
    return charts.compose("Scores with intervals", sketches, folder / "scores.png", table, caption, drawer.colours)


def _data_row(title: str, point: Point) -> Row:
    interval = "–" if math.isnan(point.low) else f"{number(point.low, 1)} to {number(point.high, 1)}"
    return Row(
        (
            Cell(point.name, link=point.link),
            Cell(title),
            Cell(number(point.value, 1)),
            Cell(interval),
            Cell(point.source),
        )
    )


def _dots(name: str, title: str, points: Sequence[Point], colours: dict[str, str]) -> Sketch:
    ends = min(points, key=lambda point: point.value), max(points, key=lambda point: point.value)
    says = "; ".join(
        f"{word} {point.name}: {number(point.value, 1)}"
        for word, point in zip(("lowest", "highest"), ends, strict=True)
    )
    height = 0.9 + ROW_INCHES * len({point.name for point in points})

    def draw(axes: Axes) -> None:
        draw_dots(axes, title, points, colours)

    return Sketch(
        name,
        title,
        f"Dots with 95 % CIs: {title}; {says}.",
        draw,
        (4.7, height),
    )


def draw_dots(axes: Axes, title: str, points: Sequence[Point], colours: dict[str, str]) -> None:
    """Draw a row per name from top to bottom; several series in a row stand a little apart, each with its own marker."""
    names = list(dict.fromkeys(point.name for point in points))
    series = list(dict.fromkeys(point.series for point in points))
    several = len(names) < len(points)
    for point in points:
        place = series.index(point.series)
        y = names.index(point.name) + (0.3 * (place - (len(series) - 1) / 2) if several else 0.0)
        colour = colours.get(point.series, INK)
        if not math.isnan(point.low):
            axes.plot([point.low, point.high], [y, y], color=colour, linewidth=1.4, alpha=0.75, solid_capstyle="butt")
        marker = ("o", "D", "s", "^")[place % 4] if several else "o"
        axes.plot(point.value, y, marker, color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.4)
    for place, name in enumerate(series if several else []):
        marker = ("o", "D", "s", "^")[place % 4]
        axes.plot([], [], marker, color=colours.get(name, INK), label=short_name(name))
    shown = [name if len(name) <= 34 else f"{name[:33]}…" for name in map(visible, names)]
    axes.set_yticks(range(len(names)), shown, fontsize=7.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(visible(title))


# ---- by subject ------------------------------------------------------------------------------------------------------


BySubject = dict[str, dict[object, float]]


def by_subject(results: Results, of: str, score: str) -> BySubject:
    """Return subject → question → outcome of a policy's score; empty where it keeps none."""
    jobs = (job for job in results.evaluation_jobs(of) if job.complete and score in job.scores)
    job = next(jobs, None)
    found: BySubject = {}
    for (subject, question), value in (outcomes.read(job, score) if job is not None else {}).items():
        found.setdefault(subject, {})[question] = value
    return found


def differences(
    results: Results, recipe: RecipeResults, base: BySubject, score: str, fewest: int = FEWEST_QUESTIONS
) -> list[Point]:
    """Estimate the change of a score against the base model by subject, paired by question, in per cent of its unit.

    A question's change is its mean over the recipe's seeds; the interval is Student's t over the subject's questions. It
    says how far these seeds' policies differ from the base model, not what another seed would do.

    Args:
        base: what the base model's score is made of, as `by_subject` gives it.
        fewest: questions that a subject needs.
    """
    runs = [found for job in recipe.jobs.values() if (found := by_subject(results, job, score))]
    reach = 100 * results.metric(score).reach
    points = []
    for subject, questions in base.items():
        changes = []
        for question, before in questions.items():
            after = [run[subject][question] for run in runs if question in run.get(subject, {})]
            if after:
                changes.append(100 * (math.fsum(after) / len(after) - before))
        n = len(changes)
        if n < fewest:
            continue
        mean = math.fsum(changes) / n
        sd = math.sqrt(math.fsum((change - mean) ** 2 for change in changes) / (n - 1))
        half = t_quantile(0.5 + LEVEL / 2, n - 1) * sd / math.sqrt(n)
        low, high = max(mean - half, -reach), min(mean + half, reach)
        points.append(Point(subject, mean, low, high, f"{n} questions", recipe.anchor, recipe.name))
    return points


def _with_subjects(tables: Tables) -> tuple[str, BySubject] | None:
    """Return the first share whose questions have several subjects, and the base model's outcomes."""
    for score in tables.scores:
        if tables.metric(score).unit == "share" and len(base := by_subject(tables.results, "base", score)) > 1:
            return score, base
    return None


def subjects(tables: Tables, folder: Path, recipes: Sequence[RecipeResults]) -> document.Figure | None:
    """Draw the subjects that changed most against the base model for a few recipes; the PNG goes to `folder`/subjects.png.

    None where no subject has questions enough, there is no more than one, or the base model was not asked.
    """
    with_subjects = _with_subjects(tables)
    if with_subjects is None or not recipes:
        return None
    score, base = with_subjects
    found = [differences(tables.results, recipe, base, score) for recipe in recipes]
    largest = sorted(found[0], key=lambda one: -abs(one.value))[:MOST_SUBJECTS]
    order = {point.name: point.value for point in largest}
    points = [
        point
        for series in found
        for point in sorted((one for one in series if one.name in order), key=lambda one: order[one.name])
    ]
    if not points:
        return None
    colours = dict(zip((recipe.name for recipe in recipes), ("#1f83c4", "#7d7d7d"), strict=False))
    title = f"Change of {tables.metric(score).title} by subject (points)"

    def draw(axes: Axes) -> None:
        draw_dots(axes, title, points, colours)
        axes.axvline(0, color=INK, linewidth=0.8)

    clear = sum(point.low > 0 or point.high < 0 for point in found[0])
    alt = (
        f"{title}, against the base model, paired by question, for {' and '.join(colours)}; for "
        f"{recipes[0].name} the interval excludes 0 in {clear} of {len(found[0])} subjects with {FEWEST_QUESTIONS} questions or "
        "more."
    )
    sketch = Sketch("subjects", title, alt, draw, (6.2, 0.9 + 0.21 * len(order)))
    rows = [_subject_row(point) for point in points]
    columns = (
        Column("Subject", numeric=False),
        Column("Recipe", numeric=False),
        Column("Change (points)"),
        Column("95 % CI"),
        Column("From"),
    )
    others = len(base) - len(found[0])
    asked = len(found[0])
    caption = (
        f"The {len(order)} largest of {asked} changes, paired by question, mean over seeds; lines are 95 % CIs over the "
        f"subject's questions. About {0.05 * asked:.2g} of {asked} would miss 0 by chance, the largest likeliest."
        + (f" {others} subjects have fewer than {FEWEST_QUESTIONS} questions, and say nothing." if others else "")
    )
    table = document.Table("The numbers behind the figure", columns, tuple(rows))
    return charts.compose(
        f"{tables.metric(score).title} by subject", [sketch], folder / "subjects.png", table, caption, colours
    )


def _subject_row(point: Point) -> Row:
    interval = "–" if math.isnan(point.low) else f"{number(point.low, 1, True)} to {number(point.high, 1, True)}"
    return Row(
        (
            Cell(point.name),
            Cell(point.series, link=point.link),
            Cell(number(point.value, 1, True)),
            Cell(interval),
            Cell(point.source),
        )
    )
