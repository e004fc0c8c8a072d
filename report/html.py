"""Write a report as one self-contained HTML file: no network, no script, everything from outside escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from report.document import Block, Code, Column, Details, Figure, Group, Report, Table, Text

TEMPLATES = Path(__file__).parent / "templates"
KINDS: dict[type, str] = {
    Text: "text",
    Table: "table",
    Code: "code",
    Figure: "figure",
    Details: "details",
    Group: "group",
}
# No script at all, so none is allowed; styles and pictures stand in the page itself.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@cache
def environment() -> Environment:
    """Return the template environment: autoescape on, a missing name is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["unbroken"] = _unbroken
    made.filters["kind"] = _kind
    made.filters["drawn"] = _drawn
    made.filters["consecutive"] = _consecutive
    made.globals["policy"] = POLICY
    made.globals["style"] = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    return made


def _kind(block: Block) -> str:
    return KINDS[type(block)]


def _consecutive(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Return the groups of neighbouring columns with their widths."""
    return [(name, len(list(members))) for name, members in groupby(column.group for column in columns)]


def _unbroken(text: str) -> str:
    """Keep a number and its sign on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%").replace("λ = ", "λ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def _drawn(svg: str) -> Markup:
    """Pass on an SVG that `figures.inline` made: matplotlib has escaped the text in it."""
    return Markup(svg)


def render(report: Report) -> str:
    """Return a suite's page."""
    return environment().get_template("report.html.j2").render(report=report)


def render_index(**content: Any) -> str:
    """Return the page that leads to every suite's report."""
    return environment().get_template("index.html.j2").render(**content)
