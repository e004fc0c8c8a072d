"""The panels of the trade-off figure: the objective space and the five bar charts, each drawn on given axes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from report.analysis.tables import RecipeResults, Tables
from report.render import document
from report.render.numbers import plus_minus, series_digits
from report.render.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind tell apart; the baseline is grey.
COLOURS = {"sequential": "#7d7d7d", "mix": "#e69f00", "alright": "#1f83c4", "maxright": "#d55e00"}
MORE_COLOURS = ("#009e73", "#cc79a7", "#56b4e9", "#9a6a12", "#5b4bb5", "#b8a800", "#5d7a20", "#a33b5e", "#00808a")
# By a method's place in its suite, so that paths and bars can be told apart without colour.
DASHES = ("", (5, 1.5), (1.8, 1.2), (6, 1.5, 1.2, 1.5), (9, 2), (3, 1, 1, 1, 1, 1), (1, 2.5))
HATCHES = ("", "////", "\\\\\\\\", "xxxx", "----", "||||", "++++")  # lines only: a hatch of dots is a large drawing
MOST_UPRIGHT = 20  # labels of 7 points beside each other under a panel
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d")
INK, GRID = "#1f2328", "#d5d9de"
LONGEST_NAME = 24
SMALLEST = 5.5  # points of a label beside others
SPLIT_NAMES = {"held_out": "held-out rows", "train": "training rows"}


@dataclass(frozen=True)
class Sketch:
    """A panel before it is drawn; its size is in inches."""

    name: str
    title: str
    alt: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = (4.7, 3.7)


@dataclass(frozen=True)
class Mark:
    """Place a recipe in a panel; the spreads are sd over seeds, NaN where there is none."""

    recipe: RecipeResults
    x: float
    y: float
    x_spread: float = math.nan
    y_spread: float = math.nan


class Drawer:
    """Know the suite's colours, labels and points, and draw its panels."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self.results = tables, tables.results
        self.lambdas = sorted({recipe.lambda_dpo for recipe in tables.recipes if recipe.lambda_dpo is not None})
        self.x, self.y = (f"f_{name}/{self.results.split}" for name in ("dpo", "sft"))
        self.split = SPLIT_NAMES[self.results.split]

    @cached_property
    def colours(self) -> dict[str, str]:
        """A colour per shown method: the known methods keep theirs in every suite."""
        spare = iter(MORE_COLOURS * 9)
        found: dict[str, str] = {}
        for method in self.results.methods:
            own = COLOURS.get(self.results.base_method(method))
            found[method] = own if own is not None and own not in found.values() else next(spare)
        return found

    @cached_property
    def dashes(self) -> dict[str, Any]:
        """A line style per shown method, in seaborn's notation."""
        return {method: DASHES[place % len(DASHES)] for place, method in enumerate(self.colours)}

    def band(self, lambda_dpo: float) -> int:
        """Return which shape a λ has: its own, or, of more λ than there are shapes, that of some neighbours."""
        return self.lambdas.index(lambda_dpo) * self._bands // len(self.lambdas)

    @cached_property
    def _bands(self) -> int:
        return min(len(self.lambdas), len(MARKERS))

    @cached_property
    def shapes(self) -> tuple[tuple[str, str], ...]:
        """What each shape stands for, and its marker."""
        bands: list[list[float]] = [[] for _ in range(self._bands)]
        for lambda_dpo in self.lambdas:
            bands[self.band(lambda_dpo)].append(lambda_dpo)
        labels = (f"λ = {one[0]:g}" + (f" to {one[-1]:g}" if len(one) > 1 else "") for one in bands)
        return tuple(zip(labels, MARKERS, strict=False))

    def marker(self, lambda_dpo: float | None) -> str:
        """Return the marker of a λ."""
        return "*" if lambda_dpo is None else MARKERS[self.band(lambda_dpo)]

    @cached_property
    def group_labels(self) -> dict[float, str]:
        """(T_DPO,T_SFT) over λ: in epochs where the suite gives phases so, in steps otherwise."""
        suite, found = self.results.suite, {}
        epochs = dict(zip(suite["lambdas"], suite["phases"], strict=True)) if suite.get("phases") else {}
        for lambda_dpo in self.lambdas:
            sequential = self.tables.sequential(lambda_dpo)
            phase = epochs.get(lambda_dpo)
            if phase is None and sequential is not None:
                run = next(run for run in self.results.runs if run.id in sequential.jobs.values())
                phase = (run.phase_steps["dpo"], run.phase_steps["sft"])
            found[lambda_dpo] = (f"({phase[0]},{phase[1]})\n" if phase else "") + f"λ {lambda_dpo:g}"
        return found

    # ---- the objective space ----------------------------------------------------------------------------------------

    @property
    def main(self) -> tuple[Sketch, Sketch]:
        """The panels of the objective space."""
        best = self.tables.ranked[0]
        where = f"x: DPO objective, y: SFT objective, both on {self.split}, lower is better."
        return (
            Sketch(
                "trajectories",
                "Trajectories (mean over seeds)",
                f"Trajectories of every method and λ in the objective space; {where} All start at the same point and "
                "aim at the ideal point at the lower left.",
                self.trajectories,
            ),
            Sketch(
                "finals",
                "Where the runs end",
                f"Final points of every method and λ, mean with sd over seeds; {where} "
                f"Closest to the ideal point: {best.name}.",
                self.finals,
            ),
        )

    @cached_property
    def trajectory_frame(self) -> pd.DataFrame:
        """Mean over seeds of both objectives, per method, λ and step that every seed has."""
        rows = [
            {
                "method": run.method,
                "lambda": run.lambda_dpo,
                "step": point["step"],
                self.x: point[self.x],
                self.y: point[self.y],
            }
            for run in self.results.runs
            for point in run.trajectory
            if self.x in point and self.y in point
        ]
        if not rows:
            return pd.DataFrame(columns=["method", "lambda", "step", self.x, self.y])
        keys = ["method", "lambda", "step"]
        grouped = pd.DataFrame(rows).groupby(keys, dropna=False, sort=True)
        means = grouped[[self.x, self.y]].mean()
        seeds = grouped.size()
        most = seeds.groupby(level=[0, 1], dropna=False).transform("max")
        return means[seeds == most].reset_index()

    def trajectories(self, axes: Axes) -> None:
        """Draw where training moved, mean over seeds, from the start to the final points."""
        import seaborn as sns

        frame = self.trajectory_frame.assign(unit=lambda rows: rows["method"] + rows["lambda"].astype(str))
        if not frame.empty:
            style: dict[str, Any] = {"linewidth": 1.1, "alpha": 0.7, "legend": False, "sort": False, "estimator": None}
            style |= {"style": "method", "dashes": self.dashes}
            sns.lineplot(frame, x=self.x, y=self.y, hue="method", palette=self.colours, units="unit", ax=axes, **style)
            start = frame.nsmallest(1, "step").iloc[0]
            axes.plot(start[self.x], start[self.y], "o", color=INK, fillstyle="none", markersize=8, zorder=5)
            axes.annotate("start", (start[self.x], start[self.y]), (-7, -11), textcoords="offset points", ha="right")
        front = self._front(axes)
        for words, point in zip(("SFT alone", "DPO alone"), (front[0], front[-1]) if front else (), strict=False):
            axes.annotate(words, point, (0, 4), textcoords="offset points", ha="center", va="bottom", alpha=0.8)
        ends = [Mark(one, one.estimate(self.x).mean, one.estimate(self.y).mean) for one in self.tables.recipes]
        self.marks(axes, ends, 5.5)
        self._ideal(axes)
        axes.margins(0.12)
        self._axes(axes, "Trajectories")
        self._keys(axes)

    def finals(self, axes: Axes) -> None:
        """Draw where the runs end, closer up, with the spread over seeds."""
        marks = []
        for recipe in self.tables.recipes:
            x, y = recipe.estimate(self.x), recipe.estimate(self.y)
            if not (math.isnan(x.mean) or math.isnan(y.mean)):
                marks.append(Mark(recipe, x.mean, y.mean, x.sd, y.sd))
        self.marks(axes, marks, 7)
        points = [
            (one.x, one.y, *(0.0 if math.isnan(sd) else sd for sd in (one.x_spread, one.y_spread))) for one in marks
        ]
        ideal = self._ideal(axes)
        points += [(*ideal, 0.0, 0.0)] if ideal else []
        self._front(axes)
        for setter, values in (
            (axes.set_xlim, [(p[0], p[2]) for p in points]),
            (axes.set_ylim, [(p[1], p[3]) for p in points]),
        ):
            low, high = min((a - s for a, s in values), default=0.0), max((a + s for a, s in values), default=1.0)
            margin = 0.08 * (high - low) or 0.1
            setter(low - 1.8 * margin, high + margin)
        self._axes(axes, "Where the runs end (mean ± sd over seeds)" if self._several_seeds else "Where the runs end")

    @property
    def _several_seeds(self) -> bool:
        return any(len(recipe.jobs) > 1 for recipe in self.tables.recipes)

    def marks(self, axes: Axes, marks: Sequence[Mark], size: float) -> None:
        """Draw recipes as points, colour for the method and shape for λ, with their spread as thin lines.

        One artist a colour and a shape, since hundreds of them are slow.
        """
        for method, colour in self.colours.items():
            spread = [one for one in marks if one.recipe.method == method and not math.isnan(one.x_spread)]
            if spread:
                axes.errorbar(
                    [one.x for one in spread],
                    [one.y for one in spread],
                    [one.y_spread for one in spread],
                    [one.x_spread for one in spread],
                    fmt="none",
                    ecolor=colour,
                    elinewidth=0.8,
                    alpha=0.55,
                    zorder=3,
                )
        for lambda_dpo in dict.fromkeys(one.recipe.lambda_dpo for one in marks):
            shown = [one for one in marks if one.recipe.lambda_dpo == lambda_dpo]
            axes.scatter(
                [one.x for one in shown],
                [one.y for one in shown],
                s=size**2,
                marker=self.marker(lambda_dpo),
                color=[self.colours[one.recipe.method] for one in shown],
                edgecolors="white",
                linewidths=0.5,
                zorder=4,
            )

    @cached_property
    def ideal(self) -> tuple[float, float] | None:
        """(f*_DPO, f*_SFT), mean over the seeds of the runs; None where one is missing."""
        seeds = sorted({run.seed for run in self.results.runs})
        stars = [[self.results.optimum(name, seed).number for seed in seeds] for name in ("dpo", "sft")]
        x, y = (pd.Series(values, dtype=float).mean() for values in stars)
        return None if math.isnan(x) or math.isnan(y) else (float(x), float(y))

    def _ideal(self, axes: Axes) -> tuple[float, float] | None:
        """Mark the ideal point."""
        if self.ideal is None:
            return None
        x, y = self.ideal
        axes.plot(x, y, "*", color=INK, markersize=13, zorder=6)
        axes.annotate("ideal", (x, y), (0, -8), textcoords="offset points", ha="center", va="top")
        return self.ideal

    @cached_property
    def front(self) -> list[tuple[float, float]]:
        """The reference front: SFT alone, ALRIGHT by rising λ, DPO alone (means over seeds)."""
        context = {recipe.name.split()[0]: recipe for recipe in self.tables.context}
        alright = [recipe for recipe in self.tables.recipes if recipe.base_method == "alright"]
        between = sorted(alright, key=lambda recipe: recipe.lambda_dpo or 0.0)
        ordered = [context.get("SFT"), *between, context.get("DPO")]
        points = [(one.estimate(self.x).mean, one.estimate(self.y).mean) for one in ordered if one is not None]
        return [point for point in points if not any(map(math.isnan, point))]

    def _front(self, axes: Axes) -> list[tuple[float, float]]:
        """Draw the reference front; return its points."""
        if len(self.front) > 1:
            x, y = zip(*self.front, strict=True)
            axes.plot(x, y, linestyle=(0, (4, 3)), color=INK, linewidth=0.9, alpha=0.55, zorder=2)
            return self.front
        return []

    def _axes(self, axes: Axes, title: str) -> None:
        axes.set(title=title, xlabel=f"f_DPO on {self.split} (nats)", ylabel=f"f_SFT on {self.split} (nats)")

    def _keys(self, axes: Axes) -> None:
        """Add the legend's entries: methods by colour, λ by shape, and the three marks."""
        for method, colour in self.colours.items():
            dashes = self.dashes[method]
            axes.plot(
                [], [], color=colour, linewidth=2, linestyle=(0, dashes) if dashes else "-", label=short_name(method)
            )
        for label, marker in self.shapes:
            axes.plot([], [], marker, color=INK, linestyle="none", label=label)
        axes.plot([], [], linestyle=(0, (4, 3)), color=INK, linewidth=0.9, label="reference front")

    # ---- bars -------------------------------------------------------------------------------------------------------

    @property
    def side(self) -> tuple[Sketch, ...]:
        """The five bar panels."""
        device = "GPU" if self.tables.utilization.startswith("gpu") else "CPU"
        panels = (
            ("gap_dpo", "DPO optimality gap (nats)"),
            ("gap_sft", "SFT optimality gap (nats)"),
            ("ideal_distance", "Ideal distance (nats)"),
            ("runtime_increase_percent", "Increase in runtime (%)"),
            ("utilization_increase_percent", f"Increase in {device} utilization (%)"),
        )
        return tuple(self._bar_sketch(name, title) for name, title in panels)

    def _bar_sketch(self, name: str, title: str) -> Sketch:
        known = [(recipe.estimate(name).mean, recipe) for recipe in self._bar_recipes(name)]
        known = [(mean, recipe) for mean, recipe in known if not math.isnan(mean)]
        says = "missing."
        if known:
            ends = (min(known, key=lambda pair: pair[0]), max(known, key=lambda pair: pair[0]))
            says = (
                "; ".join(
                    f"{word} {pair[1].name}: {plus_minus(pair[0])}"
                    for word, pair in zip(("lowest", "highest"), ends, strict=True)
                )
                + "."
            )
        return Sketch(name, title, f"Bars: {title} by method and λ; {says}", lambda axes: self.bars(axes, name, title))

    def _bar_recipes(self, name: str) -> list[RecipeResults]:
        against_sequential = name.endswith("increase_percent")
        return [one for one in self.tables.recipes if not (against_sequential and one.base_method == "sequential")]

    def bars(self, axes: Axes, name: str, title: str) -> None:
        """Draw a panel: groups by λ, one bar a method, sd over seeds as whiskers; what is not measured has no bar."""
        import seaborn as sns

        recipes = self._bar_recipes(name)
        frame = self.tables.runs_frame
        rows = frame[frame["method"].isin([one.method for one in recipes]) & frame[name].notna()]
        rows = rows.assign(group=[self.group_labels.get(value, "no λ") for value in rows["lambda_dpo"]])
        axes.set_title(title)
        if rows.empty:
            reason = recipes[0].reason(name) if recipes else "nothing to compare with"
            axes.set_axis_off()
            axes.text(
                0.5, 0.5, _wrapped(visible(f"missing: {reason}")), ha="center", va="center", transform=axes.transAxes
            )
            return
        methods = [method for method in self.colours if any(recipe.method == method for recipe in recipes)]
        order = [label for label in (*self.group_labels.values(), "no λ") if (rows["group"] == label).any()]
        sns.barplot(
            rows,
            x="group",
            y=name,
            hue="method",
            order=order,
            hue_order=methods,
            palette=self.colours,
            saturation=1.0,
            errorbar="sd",
            err_kws={"linewidth": 0.9, "color": INK},
            legend=False,
            ax=axes,
        )
        for container, method in zip(axes.containers, methods, strict=False):
            for bar in container:
                bar.set(hatch=HATCHES[list(self.colours).index(method) % len(HATCHES)], edgecolor=INK, linewidth=0)
        axes.axhline(0, color=INK, linewidth=0.8)
        if not rows[name].any():
            axes.set_ylim(-1, 1)
        axes.set(xlabel="", ylabel="")
        axes.grid(axis="x", visible=False)
        # A group of bars is about 200 points wide, shared by the labels; a letter is about 0.6 of its size wide.
        fits = 200 / len(order) / (0.6 * max(len(line) for label in order for line in label.split("\n")))
        axes.tick_params(axis="x", length=0, labelsize=min(8.5, fits) if fits >= SMALLEST else 7)
        if fits < SMALLEST:  # many λ: upright, without the phase lengths, and of very many every second, third, …
            every = range(0, len(order), math.ceil(len(order) / MOST_UPRIGHT))
            axes.set_xticks(every, [order[place].split("\n")[-1] for place in every], rotation=90)

    def points_table(self) -> document.Table:
        """Return the numbers behind the panels: one row per recipe, mean and sd."""
        names = [
            self.x,
            self.y,
            "gap_dpo",
            "gap_sft",
            "ideal_distance",
            "runtime_increase_percent",
            "utilization_increase_percent",
        ]
        titles = ["f_DPO", "f_SFT", "gap DPO", "gap SFT", "ideal distance", "runtime +%", "utilization +%"]
        digits = {name: series_digits([one.estimate(name).mean for one in self.tables.recipes]) for name in names}
        rows = []
        for recipe in self.tables.recipes:
            cells = [document.Cell(recipe.name, link=recipe.anchor)]
            for name in names:
                cells.append(
                    document.Cell(plus_minus(recipe.estimate(name).mean, recipe.estimate(name).sd, digits[name]))
                )
            rows.append(document.Row(tuple(cells)))
        columns = (document.Column("recipe", numeric=False), *(document.Column(title) for title in titles))
        return document.Table("The numbers behind the figure (mean ± sd over seeds)", columns, tuple(rows))


def short_name(name: str) -> str:
    """Write a name for a legend: nothing unseen, and cut to what fits."""
    shown = visible(name)
    return shown if len(shown) <= LONGEST_NAME else shown[: LONGEST_NAME - 1] + "…"


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 38)[:6])
