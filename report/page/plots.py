"""Lay out pictures of points and paths for the page's script to draw: every run, every mean, and what they aim at.

The static pictures in Markdown show the same means; `report/render/templates/plots.js` says how the numbers are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from report.analysis.load import Run
from report.analysis.tables import RecipeResults
from report.page.panels import Drawer
from report.render.document import Plot
from report.render.numbers import series_digits
from report.render.visible import visible

MOST_VERTICES = 6000  # over all paths; more are thinned out evenly, ends and phase changes kept
FEWEST_VERTICES = 8


@dataclass(frozen=True)
class Axis:
    """Label an axis; `name` is what a value is called when it is pointed at, `unit` what stands behind it."""

    label: str
    name: str
    unit: str = ""


@dataclass(frozen=True)
class Spot:
    """Place a recipe's mean, its sd over seeds (NaN: none), and what each seed gave: seed -> (x, y)."""

    recipe: RecipeResults
    x: float
    y: float
    x_sd: float
    y_sd: float
    seeds: Mapping[int, tuple[float, float]]


def plot(
    drawer: Drawer,
    title: str,
    alt: str,
    axes: tuple[Axis, Axis],
    spots: Sequence[Spot],
    **more: Any,
) -> Plot:
    """Lay out recipes as points, colour for the method and shape for λ, with their seeds.

    Args:
        more: `paths`, `marks` and `front` as plots.js takes them; `level`: a horizontal line.
    """
    methods = list(drawer.colours)
    lambdas: list[float | None] = [*drawer.lambdas, None]
    digits = tuple(
        max(0, series_digits([getattr(spot, name) for spot in spots]) + 1 if spots else 3) for name in ("x", "y")
    )
    data: dict[str, Any] = {
        "axes": [
            {"label": axis.label, "name": axis.name, "unit": axis.unit, "digits": min(6, places)}
            for axis, places in zip(axes, digits, strict=True)
        ],
        "methods": [
            [visible(name), colour, [4 * part for part in drawer.dashes[name]]]
            for name, colour in drawer.colours.items()
        ],
        "lambdas": [
            [f"λ = {one:g}", drawer.marker(one), drawer.band(one)] if one is not None else ["no λ", "o", -1]
            for one in lambdas
        ],
        "points": [
            [
                methods.index(spot.recipe.method),
                lambdas.index(spot.recipe.lambda_dpo),
                *map(_short, (spot.x, spot.y, spot.x_sd, spot.y_sd)),
                [[seed, _short(x), _short(y)] for seed, (x, y) in spot.seeds.items() if not math.isnan(x + y)],
                spot.recipe.anchor,
            ]
            for spot in spots
            if not math.isnan(spot.x + spot.y)
        ],
    }
    return Plot(title, alt, data | more)


def spots(recipes: Iterable[RecipeResults], x: str, y: str, writes: Any = None) -> list[Spot]:
    """Return the recipes that have both figures.

    Args:
        writes: (of x, of y) how their values are written; as on record when left out.
    """
    found = []
    for recipe in recipes:
        a, b = recipe.estimate(x), recipe.estimate(y)
        if not (a.n and b.n):
            continue
        across, up = recipe.values(x), recipe.values(y)
        if writes is None:
            seeds = {seed: (across[seed], up[seed]) for seed in across}
            found.append(Spot(recipe, a.mean, b.mean, a.sd, b.sd, seeds))
            continue
        first, second = writes
        seeds = {seed: (first.value(across[seed]), second.value(up[seed])) for seed in across}
        places = first.value(a.mean), second.value(b.mean), first.spread(a.mean, a.sd), second.spread(b.mean, b.sd)
        found.append(Spot(recipe, *places, seeds))
    return found


def objective_space(drawer: Drawer) -> tuple[Plot, Plot]:
    """Return the trajectories and the end points."""
    axes = tuple(Axis(f"f_{name} on {drawer.split} (nats)", f"f_{name}", "nats") for name in ("DPO", "SFT"))
    across, up = axes
    points = spots(drawer.tables.recipes, drawer.x, drawer.y)
    alts = [sketch.alt for sketch in drawer.main]
    ideal = drawer.ideal
    marks = [[*map(_short, ideal), "ideal", "*"]] if ideal else []
    front = [[_short(x), _short(y)] for x, y in drawer.front] if len(drawer.front) > 1 else []
    frame = drawer.trajectory_frame
    alone = zip((("SFT alone"), ("DPO alone")), (drawer.front[0], drawer.front[-1]) if front else (), strict=False)
    more = [[_short(x), _short(y), words, ""] for words, (x, y) in alone]
    if not frame.empty:
        start = frame.nsmallest(1, "step").iloc[0]
        more.append([_short(start[drawer.x]), _short(start[drawer.y]), "start", "ring"])
    return (
        plot(
            drawer,
            "Trajectories",
            alts[0],
            (across, up),
            points,
            paths=_paths(drawer),
            marks=[*marks, *more],
            front=front,
        ),
        plot(drawer, "Where the runs end", alts[1], (across, up), points, marks=marks, front=front),
    )


def _paths(drawer: Drawer) -> list[list[Any]]:
    """Return [method, λ, seed or null for the mean, steps, x, y] of every recipe and every run."""
    methods, lambdas = list(drawer.colours), drawer.lambdas
    place: dict[float | None, int] = {value: number for number, value in enumerate(lambdas)}
    found: list[list[Any]] = []
    means: dict[tuple[str, float | None], list[list[float]]] = {}
    for row in drawer.trajectory_frame[["method", "lambda", "step", drawer.x, drawer.y]].to_numpy().tolist():
        means.setdefault((row[0], None if math.isnan(row[1]) else row[1]), []).append(row[2:])
    for (method, lambda_dpo), points in means.items():
        found.append([methods.index(method), place.get(lambda_dpo, len(lambdas)), None, points])
    for run in drawer.results.runs:
        points = [[p["step"], p[drawer.x], p[drawer.y]] for p in run.trajectory if drawer.x in p and drawer.y in p]
        found.append(
            [methods.index(run.method), place.get(run.lambda_dpo, len(lambdas)), run.seed, points, _change(run)]
        )
    total = sum(len(one[3]) for one in found)
    most = max(FEWEST_VERTICES, MOST_VERTICES // max(1, len(found))) if total > MOST_VERTICES else total
    return [[*one[:3], *_columns(_thinned(one[3], most, one[4] if len(one) > 4 else None))] for one in found if one[3]]


def _change(run: Run) -> int:
    """Return the step at which a run's first phase ends."""
    return int(run.phase_steps.get(run.order[0], 0)) if run.phase_steps else 0


def _thinned(points: list[list[float]], most: int, change: int | None) -> list[list[float]]:
    """Keep the ends, the phase change and what is evenly between them."""
    if len(points) <= most:
        return points
    kept = {round(number * (len(points) - 1) / (most - 1)) for number in range(most)}
    kept |= {number for number, point in enumerate(points) if point[0] == change}
    return [points[number] for number in sorted(kept)]


def _columns(points: list[list[float]]) -> tuple[list[Any], ...]:
    steps, x, y = zip(*points, strict=True)
    return [int(step) for step in steps], [_short(value) for value in x], [_short(value) for value in y]


def _short(value: float) -> float | None:
    """Write five significant figures; None for what is not there."""
    return None if math.isnan(value) else float(f"{value:.5g}")
