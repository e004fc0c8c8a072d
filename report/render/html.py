"""Write a report as one self-contained HTML file: no network, one script of its own, everything from outside escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from report.render.document import Block, Code, Column, Details, Figure, Group, Report, Strips, Table, Text

TEMPLATES = Path(__file__).parent / "templates"
KINDS: dict[type, str] = {
    Text: "text",
    Table: "table",
    Code: "code",
    Figure: "figure",
    Strips: "strips",
    Details: "details",
    Group: "group",
}
SCRIPT, STYLE = (
    "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)
    for names in (("page.js", "first_screen.js"), ("style.css", "first_screen.css"))
)


def _hash(text: str) -> str:
    """Name a script or a style by what it holds, so that a browser runs or applies this one and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Drawings carry style attributes, which cannot load or run anything; elements must match their hash.
POLICY = (
    f"default-src 'none'; script-src {_hash(SCRIPT)}; style-src-elem {_hash(STYLE)}; style-src-attr 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)


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
    made.policies["json.dumps_kwargs"] = {"sort_keys": False}  # filters stand in the order they are named in
    made.filters["unbroken"] = _unbroken
    made.filters["kind"] = _kind
    made.filters["drawn"] = _drawn
    made.filters["consecutive"] = _consecutive
    made.globals["policy"] = POLICY
    made.filters["outline"] = _outline
    made.globals["style"], made.globals["script"] = Markup(STYLE), Markup(SCRIPT)
    return made


def _kind(block: Block) -> str:
    return KINDS[type(block)]


def _consecutive(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Return the groups of neighbouring columns with their widths."""
    return [(name, len(list(members))) for name, members in groupby(column.group for column in columns)]


def _unbroken(text: str) -> str:
    """Keep a number and its sign on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%").replace("λ = ", "λ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


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
