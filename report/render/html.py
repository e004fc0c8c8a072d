"""Write a report as one self-contained HTML file: no network, one script of its own, everything from outside escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from report.render.document import Block, Cell, Code, Column, Details, Figure, Group, Plot, Report, Strips, Table, Text
from report.render.visible import visible

TEMPLATES = Path(__file__).parent / "templates"
VENDOR = Path(__file__).parent / "vendor"
KINDS: dict[type, str] = {
    Text: "text",
    Table: "table",
    Code: "code",
    Figure: "figure",
    Strips: "strips",
    Details: "details",
    Group: "group",
}
FIRST_ROWS = 30  # of a long table are in the page's text: for those without scripts, and for paper
SCRIPT, STYLE = (
    "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)
    for names in (
        ("tables.js", "plots.js", "page.js", "first_screen.js"),
        ("style.css", "../vendor/uPlot.min.css", "first_screen.css"),
    )
)
PLOTTER = (VENDOR / "uPlot.iife.min.js").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Name a script or a style by what it holds, so that a browser runs or applies this one and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Drawings carry style attributes, which cannot load or run anything; elements must match their hash.
POLICY = (
    f"default-src 'none'; script-src {_hash(SCRIPT)} {_hash(PLOTTER)}; style-src-elem {_hash(STYLE)}; "
    "style-src-attr 'unsafe-inline'; img-src 'self'; base-uri 'none'; form-action 'none'"
)


@cache
def environment() -> Environment:
    """Return the template environment: autoescape on, a missing name is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"sort_keys": False}  # filters stand in the order they are named in
    made.filters["unbroken"] = _unbroken
    made.filters["breakable"] = _breakable
    made.filters["kind"] = _kind
    made.filters["drawn"] = _drawn
    made.filters["consecutive"] = _consecutive
    made.globals["policy"] = POLICY
    made.filters["outline"] = _outline
    made.filters["packed"] = packed
    made.globals["first_rows"] = FIRST_ROWS
    made.globals["style"], made.globals["script"], made.globals["plotter"] = map(Markup, (STYLE, SCRIPT, PLOTTER))
    made.tests["plot"] = lambda one: isinstance(one, Plot)
    return made


def _visible(value: Any) -> Any:
    """Show what cannot be seen in every text that a template writes; markup of our own passes."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def packed(shown: Table | Plot) -> str:
    """Return what the page's script draws as compressed JSON in base64: a long table's rows, or what is in a plot."""
    content = json.dumps(
        _rows(shown) if isinstance(shown, Table) else shown.data, ensure_ascii=False, separators=(",", ":")
    )
    return base64.b64encode(zlib.compress(content.encode(), 9)).decode()


def _rows(table: Table) -> dict[str, Any]:
    """Return a long table's rows for the page's script, which draws them as they are scrolled to.

    {"columns": [class, ...], "filters": [name, ...], "rows": [[cells, kind, tags, anchor, more], ...]}; a cell is its text or
    [text, link, note, missing], a row's tags are in the order of the filters, and what is empty at a row's end is left out.
    """
    filters = list(dict.fromkeys(name for row in table.rows for name, _ in row.tags))
    rows = []
    for row in table.rows:
        tags = dict(row.tags)
        entry: list[Any] = [
            [_cell(cell) for cell in row.cells],
            row.kind,
            [tags.get(name) for name in filters] if tags else 0,
            row.anchor,
            visible(row.more),
        ]
        while not entry[-1]:
            entry.pop()
        rows.append(entry)
    columns = ["n" if column.numeric else "prose" if column.prose else "" for column in table.columns]
    return {"columns": columns, "filters": filters, "rows": rows}


def _cell(cell: Cell) -> Any:
    text = visible(_unbroken(cell.text))
    if not (cell.link or cell.note or cell.missing):
        return text
    return [text, cell.link, visible(cell.note), int(cell.missing)]


def _kind(block: Block) -> str:
    return KINDS[type(block)]


def _consecutive(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Return the groups of neighbouring columns with their widths."""
    return [(name, len(list(members))) for name, members in groupby(column.group for column in columns)]


def _unbroken(text: str) -> str:
    """Keep a number and its sign on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%").replace("λ = ", "λ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def _breakable(text: str) -> Markup:
    """Let a long name break after its marks, such as mmlu_pro_computer_science's, before it breaks inside a word."""
    return Markup(re.sub(r"(?<=[_/,:])(?=\w)", "<wbr>", str(escape(visible(text)))))


def _outline(bins: Sequence[float]) -> str:
    """Return the outline of a strip as an SVG path in a box of 1 × 1: as high as DPO's share, from the first step to the last."""
    parts, last = ["M0 1"], 0.0
    for place, share in enumerate(bins):
        if share != last:
            parts.append(f"H{place / len(bins):.4g}V{1 - share:.3g}")
            last = share
    return "".join([*parts, "H1V1Z"])


def _drawn(svg: str) -> Markup:
    """Pass on an SVG that `figures.inline` made: matplotlib has escaped the text in it."""
    return Markup(svg)


def render(report: Report) -> str:
    """Return a suite's page."""
    return environment().get_template("report.html.j2").render(report=report)


def render_index(**content: Any) -> str:
    """Return the page that leads to every suite's report."""
    return environment().get_template("index.html.j2").render(**content)
