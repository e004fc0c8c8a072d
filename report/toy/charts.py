"""Draw a toy suite: Figure 2 (weight space with contours, objective space) and the gap against T."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from report.analysis.toy import ToyResults, ToyRun, objective_values
from report.page.charts import STYLE, inline, save
from report.page.panels import COLOURS, INK, MARKERS, MORE_COLOURS
from report.render import document
from report.render.numbers import number, series_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID_POINTS = 60
CONTOURS = {"f_dpo": ("#0072b2", "dashed", "f_DPO"), "f_sft": ("#c2571a", "solid", "f_SFT")}
LEVELS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
Draw = Callable[["Sequence[Axes]"], None]
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def colours(results: ToyResults) -> dict[str, str]:
    """Return a colour per shown run: a method keeps its own in every suite, a second one of its kind gets another."""
    spare = iter(MORE_COLOURS * 9)
    found: dict[str, str] = {}
    for name, runs in results.series.items():
        own = COLOURS.get(runs[0].base_method)
        found[name] = own if own is not None and own not in found.values() else next(spare)
    return found


def _panel(name: str, title: str, alt: str, draw: Draw, size: tuple[float, float], rows: int = 1) -> document.Panel:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(list(figure.subplots(rows, 1, squeeze=False)[:, 0]))
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return document.Panel(title, inline(buffer.getvalue(), name, alt), alt)


# ---- Figure 2 --------------------------------------------------------------------------------------------------------


def figure_2(results: ToyResults, folder: Path) -> document.Figure | None:
    """Draw weight space and objective space per method, for two parameters; the PNG goes to `folder`/figure_2.png."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    runs = [run for run in results.longest if len(run.settings["problem"]["start"]) == 2]
    if not runs:
        return None
    shades = colours(results)
    with mpl.rc_context(STYLE):
        main = (
            _panel(
                "together",
                "All methods",
                _together_alt(runs),
                lambda axes: _together(axes, runs, shades),
                (4.7, 7.6),
                2,
            ),
        )
        side = tuple(
            _panel(f"run{place}", run.name, _run_alt(run), _run_drawer(run, runs, shades[run.name]), (3.5, 5.8), 2)
            for place, run in enumerate(runs)
        )
        sheet = Figure(figsize=(3.3 * (len(runs) + 1), 6.4), layout="constrained", facecolor="white")
        columns = sheet.subplots(2, len(runs) + 1)
        for place, run in enumerate(runs):
            _run_drawer(run, runs, shades[run.name])(columns[:, place])
        _together(columns[:, -1], runs, shades)
        save(sheet, folder / "figure_2.png", 130)
    return document.Figure(
        title="Figure 2",
        main=main,
        side=side,
        legend=tuple(shades.items()),
        image=Path(folder.name) / "figure_2.png",
        alt=" ".join(panel.alt for panel in (*main, *side)),
        data=(),
        legend_label="Methods",
        caption="Paths from the start to where runs end; the star is the ideal point. Above: parameters; below: objectives.",
    )


def _run_alt(run: ToyRun) -> str:
    first, last = run.path[0], run.path[-1]
    return (
        f"Path of {run.name}. Above, in weight space, over contours of f_DPO and f_SFT: from {_point(first['theta'], 1)} to "
        f"{_point(last['theta'], 2)}. Below, in objective space: from {_point((first['f_dpo'], first['f_sft']), 3)} to "
        f"{_point((last['f_dpo'], last['f_sft']), 4)}; the ideal point is {_point(run.ideal, 0)}."
    )


def _together_alt(runs: list[ToyRun]) -> str:
    nearest = min(runs, key=lambda run: run.distance.value)
    return (
        "Every method's path in objective space, x: f_DPO, y: f_SFT, lower is better; above whole, below where the runs "
        f"end, closer up. Closest to the ideal point: {nearest.name}."
    )


def _point(values: Sequence[float], digits: int) -> str:
    return f"({', '.join(number(value, digits) for value in values)})"


def _run_drawer(run: ToyRun, runs: list[ToyRun], colour: str) -> Draw:
    def draw(axes: Sequence[Axes]) -> None:
        _weights(axes[0], run, runs, colour)
        _objectives(axes[1], [run], {run.name: colour})
        axes[0].set_title(run.name, pad=16)  # room for the legend between the title and the contours

    return draw


def _weights(axes: Axes, run: ToyRun, runs: list[ToyRun], colour: str) -> None:
    """Draw a path over contours; all methods share the frame, so that paths compare."""
    points = [row["theta"] for one in runs for row in one.path] + [list(run.pair.theta_ref)]
    frame = []
    for entries in zip(*points, strict=True):
        margin = 0.12 * (max(entries) - min(entries)) or 1.0
        frame.append((min(entries) - margin, max(entries) + margin))
    xs, ys = ([low + (high - low) * place / (GRID_POINTS - 1) for place in range(GRID_POINTS)] for low, high in frame)
    for name, values in objective_values(run.pair, xs, ys).items():
        shade, style, label = CONTOURS[name]
        drawn = axes.contour(xs, ys, values, levels=LEVELS, colors=shade, linestyles=style, linewidths=0.7, alpha=0.65)
        axes.clabel(drawn, fontsize=6, fmt=lambda level: f"{level:g}")
        axes.plot(
            [],
            [],
            color=shade,
            linestyle=style,
            linewidth=0.9,
            label=label,
        )
    axes.plot(*zip(*(row["theta"] for row in run.path), strict=True), color=colour, linewidth=2.0, zorder=3)
    axes.plot(
        *run.path[0]["theta"], "o", color=INK, fillstyle="none", markersize=7, zorder=4, label="start", linestyle="none"
    )
    axes.plot(*run.pair.theta_ref, "x", color=INK, markersize=6, zorder=4, label="θ_ref", linestyle="none")
    axes.plot(
        *run.path[-1]["theta"],
        "D",
        color=colour,
        markersize=6,
        markeredgecolor="white",
        zorder=5,
        label="end",
        linestyle="none",
    )
    axes.grid(visible=False)
    axes.set(xlabel="θ₁", ylabel="θ₂")
    # Above the contours: their numbers would lie over its words.
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        fontsize=6.5,
        frameon=False,
        ncols=5,
        borderpad=0.2,
        columnspacing=0.8,
        handlelength=1.5,
        handletextpad=0.4,
    )


def _objectives(axes: Axes, runs: list[ToyRun], shades: dict[str, str]) -> None:
    """Draw paths in objective space, from the start to the ideal point's neighbourhood."""
    for run in runs:
        axes.plot(
            [row["f_dpo"] for row in run.path],
            [row["f_sft"] for row in run.path],
            color=shades[run.name],
            linewidth=1.6,
        )
    first = runs[0].path[0]
    axes.plot(first["f_dpo"], first["f_sft"], "o", color=INK, fillstyle="none", markersize=7, zorder=4)
    _ends(axes, runs, shades)
    axes.margins(0.1)
    axes.set(xlabel="f_DPO (nats)", ylabel="f_SFT (nats)")


def _ends(axes: Axes, runs: list[ToyRun], shades: dict[str, str]) -> None:
    for run in runs:
        at = run.objective("f_dpo").value, run.objective("f_sft").value
        axes.plot(*at, "D", color=shades[run.name], markersize=6, markeredgecolor="white", zorder=5)
    axes.plot(*runs[0].ideal, "*", color=INK, markersize=12, zorder=6)
    axes.annotate("ideal", runs[0].ideal, (9, 2), textcoords="offset points", va="bottom")


def _together(axes: Sequence[Axes], runs: list[ToyRun], shades: dict[str, str]) -> None:
    """Draw all paths, and below only where they end."""
    _objectives(axes[0], runs, shades)
    axes[0].set_title("All methods in objective space")
    _ends(axes[1], runs, shades)
    axes[1].margins(0.15)
    axes[1].set(title="Where they end, closer up", xlabel="f_DPO (nats)", ylabel="f_SFT (nats)")


# ---- the gap against T -----------------------------------------------------------------------------------------------


def gap_figure(results: ToyResults, folder: Path) -> document.Figure | None:
    """Draw the gap over T and, where Theorem 4.1 applies, ALRIGHT's under its bound; None for one T."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if len(results.horizons) < 2:
        return None
    shades = colours(results)
    bounds = list(results.bounds.items())
    with mpl.rc_context(STYLE):
        main = (_panel("gaps", "Gap", _gap_alt(results), lambda axes: _gaps(axes[0], results, shades), (4.7, 4.4)),)
        side = tuple(
            _panel(f"bound{place}", name, _bound_alt(name), _bound_drawer(results, name), (4.2, 3.9))
            for place, (name, _) in enumerate(bounds)
        )
        if len(results.runs[0].settings["problem"]["start"]) == 1:
            words = f"The parameter along each run of T = {results.horizons[-1]:,}, first seed, over the share of its steps."
            side += (_panel("paths", "Paths", words, lambda axes: _paths(axes[0], results, shades), (4.2, 3.9)),)
        sheet = Figure(figsize=(5.2 * (1 + len(bounds)), 4.4), layout="constrained", facecolor="white")
        first, *others = sheet.subplots(1, 1 + len(bounds), squeeze=False)[0]
        _gaps(first, results, shades)
        for axes, (name, _) in zip(others, bounds, strict=True):
            _bound(axes, results, name)
        save(sheet, folder / "gap.png", 140)
    return document.Figure(
        title="The gap against T",
        main=main,
        side=side,
        legend=tuple(shades.items()),
        image=Path(folder.name) / "gap.png",
        alt=" ".join(panel.alt for panel in (*main, *side)),
        data=(),
        legend_label="Methods",
        caption="Points are means over seeds, lines through them two standard errors; both axes are logarithmic.",
    )


def _gap_alt(results: ToyResults) -> str:
    parts = [f"{name}: {', '.join(short(run.gap.value) for run in runs)}" for name, runs in results.series.items()]
    where = ", ".join(f"{steps:,}" for steps in results.horizons)
    return f"Gap to the best mixture over T = {where}, both axes logarithmic. {'; '.join(parts)}."


def _bound_alt(name: str) -> str:
    return f"Mean gap of {name} with two standard errors, and Theorem 4.1's corrected bound above it, over T; log-log."


def short(value: float) -> str:
    """Write a number of any size with three significant figures."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return number(value, series_digits([value]))
    exponent = math.floor(math.log10(abs(value)))
    return f"{number(value / 10**exponent, 1)} · 10{str(exponent).translate(_SUPERSCRIPT)}"


def _logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set(xscale="log", yscale="log")
    power = FuncFormatter(
        lambda value, _: f"10{str(round(math.log10(value))).translate(_SUPERSCRIPT)}" if value > 0 else ""
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(power)
        axis.set_minor_formatter(NullFormatter())


def _gaps(axes: Axes, results: ToyResults, shades: dict[str, str]) -> None:
    _logarithmic(axes)
    for place, (name, runs) in enumerate(results.series.items()):
        _line(axes, runs, shades[name], MARKERS[place % len(MARKERS)], name)
    axes.set(title="Gap to the best mixture, log-log", xlabel="T (steps)", ylabel="G_Mix,λ at the end (nats)")
    axes.legend(frameon=False, fontsize=8)


def _line(axes: Axes, runs: list[ToyRun], colour: str, marker: str, name: str) -> None:
    shown = [run for run in runs if run.gap.value > 0]
    axes.errorbar(
        [run.steps for run in shown],
        [run.gap.value for run in shown],
        yerr=[0.0 if math.isnan(run.gap.error) else 2 * run.gap.error for run in shown],
        color=colour,
        marker=marker,
        markersize=6,
        linewidth=1.3,
        elinewidth=0.9,
        label=name,
    )


def _bound_drawer(results: ToyResults, name: str) -> Draw:
    return lambda axes: _bound(axes[0], results, name)


def _bound(axes: Axes, results: ToyResults, name: str) -> None:
    pairs = results.bounds[name]
    steps = [run.steps for run, _ in pairs]
    _logarithmic(axes)
    _line(axes, [run for run, _ in pairs], colours(results)[name], "o", f"{name}, mean ± 2 s.e.")
    axes.plot(steps, [most for _, most in pairs], "s--", color=INK, linewidth=1.1, label="corrected bound")
    rate = [math.log(one) / math.sqrt(one) for one in steps]
    axes.plot(steps, rate, ":", color=INK, linewidth=1.1, label="log T / √T")
    axes.set(title="Theorem 4.1: mean gap and bound", xlabel="T (steps)", ylabel="nats")
    axes.legend(frameon=False, fontsize=8)


def _paths(axes: Axes, results: ToyResults, shades: dict[str, str]) -> None:
    for run in results.longest:
        last = max(1, run.path[-1]["step"])
        axes.plot(
            [row["step"] / last for row in run.path],
            [row["theta"][0] for row in run.path],
            color=shades[run.name],
            linewidth=1.4,
        )
    optimum = results.longest[0].minimum[1]
    if optimum is not None:
        axes.axhline(optimum[0], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate("best mixture", (1.0, optimum[0]), (0, 3), textcoords="offset points", ha="right", va="bottom")
    axes.set(title=f"θ along the runs of T = {results.horizons[-1]:,}", xlabel="share of the run's steps", ylabel="θ")
