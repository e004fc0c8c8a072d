"""Draw the layout of the paper's Figures 3, 6 and 7 with seaborn: trade-off at the left, five bar panels at the right.

Each panel becomes an SVG of its own, so that a page can set them side by side or below each other; the same panels on
one sheet become the PNG that Markdown shows.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.records.safe_files import replacing
from report.analysis.tables import Tables
from report.page import plots
from report.page.panels import GRID, INK, Drawer, Sketch
from report.render import document
from report.render.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GLYPHS = dict(zip("os^DvPX<>phd*", "●■▲◆▼✚✖◀▶⬟⬢♦★", strict=True))
STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "bench",
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.linewidth": 0.8,
    "hatch.linewidth": 0.35,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def tradeoff(tables: Tables, folder: Path) -> document.Figure | None:
    """Draw the trade-off figure; its PNG goes to `folder`/tradeoff.png. None when no run is complete."""
    if not tables.recipes:
        return None
    drawer = Drawer(tables)
    with _style():
        side = tuple(_panel(sketch, (3.5, 2.7)) for sketch in drawer.side)
        _sheet(drawer, folder / "tradeoff.png")
    return document.Figure(
        title="Trade-off and cost",
        main=plots.objective_space(drawer),
        side=side,
        legend=tuple(drawer.colours.items()),
        shapes=tuple((label, GLYPHS[marker]) for label, marker in drawer.shapes),
        image=Path(folder.name) / "tradeoff.png",
        alt=" ".join(sketch.alt for sketch in (*drawer.main, *drawer.side)),
        data=(drawer.points_table(),),
        legend_label="Colours are methods, shapes are λ",
        caption=(
            "Points are means over seeds, lines through them the sd, small points the seeds. Star: the ideal point; dashed: the "
            "reference front from SFT alone over ALRIGHT to DPO alone. Bars: mean and sd over seeds."
        ),
    )


def compose(
    title: str,
    sketches: Sequence[Sketch],
    path: Path,
    data: document.Table,
    caption: str,
    colours: dict[str, str],
    shapes: Sequence[tuple[str, str]] = (),
    drawn: Sequence[document.Plot] = (),
) -> document.Figure:
    """Draw panels in rows; the same panels on one sheet become the PNG at `path`.

    Args:
        drawn: what the page's script draws in the sketches' place.
        data: the numbers behind the figure.
        colours: name → colour, for the legend.
        shapes: (name, matplotlib's marker), for the legend.
    """
    with _style():
        panels: tuple[document.Panel | document.Plot, ...] = tuple(drawn)
        panels = panels or tuple(_panel(sketch, sketch.size) for sketch in sketches)
        _rows(sketches, path)
    return document.Figure(
        title=title,
        main=(),
        side=panels,
        legend=tuple(colours.items()),
        shapes=tuple((name, GLYPHS.get(marker, "●")) for name, marker in shapes),
        image=Path(path.parent.name) / path.name,
        alt=" ".join(sketch.alt for sketch in sketches),
        data=(data,),
        legend_label="Colours",
        caption=caption,
    )


def _rows(sketches: Sequence[Sketch], path: Path, across: int = 3) -> None:
    from matplotlib.figure import Figure

    columns = min(across, len(sketches))
    rows = [sketches[start : start + columns] for start in range(0, len(sketches), columns)]
    heights = [max(sketch.size[1] for sketch in row) for row in rows]
    width = sum(sketch.size[0] for sketch in rows[0])
    figure = Figure(figsize=(width, sum(heights)), layout="constrained", facecolor="white")
    grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, sketch in zip(grid.flatten(), sketches, strict=False):
        sketch.draw(axes)
    for axes in grid.flatten()[len(sketches) :]:
        axes.set_axis_off()
    legends = [axes for axes in grid.flatten() if axes.get_legend_handles_labels()[0]]
    if legends:
        _legend(figure, legends[0], columns=5 if width > 6 else 3)
    save(figure, path, 130)


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure as PNG, equal bytes for equal figures."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})


def _style() -> Any:
    import matplotlib as mpl

    return mpl.rc_context(STYLE)


def _panel(sketch: Sketch, size: tuple[float, float]) -> document.Panel:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    sketch.draw(figure.subplots())
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return document.Panel(sketch.title, inline(buffer.getvalue(), sketch.name, sketch.alt), sketch.alt)


def _sheet(drawer: Drawer, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 8.4), layout="constrained", facecolor="white")
    left, right = figure.subfigures(1, 2, width_ratios=(5.0, 7.0), squeeze=False)[0]
    for axes, sketch in zip(left.subplots(2, 1), drawer.main, strict=True):
        sketch.draw(axes)
    *grid, spare = right.subplots(3, 2).flatten()
    for axes, sketch in zip(grid, drawer.side, strict=True):
        sketch.draw(axes)
    spare.set_axis_off()
    handles, labels = left.axes[0].get_legend_handles_labels()
    spare.legend(handles, labels, loc="center", ncol=2, frameon=False)
    save(figure, path, 150)


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncol=columns, frameon=False)


def inline(svg: str, name: str, alt: str) -> str:
    """Make matplotlib's SVG fit to stand in a page: own ids, the page's ink and grid colours, an accessible name."""
    svg, alt = visible(svg[svg.index("<svg") :]), visible(alt)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace(INK, "currentColor").replace(GRID, "var(--grid)")
    opening = re.match(r"<svg[^>]*>", svg)
    assert opening is not None
    box = re.search(r'viewBox="[^"]*"', opening.group())
    assert box is not None
    width = box.group().split()[2]
    text = alt.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return (
        f'<svg {box.group()} role="img" aria-label="{text}" style="max-width:{float(width) * 1.6:.0f}px" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{svg[opening.end() :]}'
    )
