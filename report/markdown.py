"""Write a report as Markdown that renders on GitHub; every text from outside is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable

from report.document import Block, Cell, Code, Details, Figure, Group, Report, Table, Text

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~!&])")


def escape(text: str) -> str:
    """Escape what Markdown, a table cell or HTML would read as markup; line breaks become spaces."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def render(report: Report) -> str:
    """Return the whole report."""
    parts = [f"# {escape(report.name)}"]
    parts += [
        f"> **{escape(banner.text)}**" if banner.kind == "warning" else f"> {escape(banner.text)}"
        for banner in report.banners
    ]
    if report.description:
        parts.append(escape(report.description))
    parts += [f"**{escape(report.headline)}**", "\n".join(f"- {escape(sentence)}" for sentence in report.sentences)]
    for section in report.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [text for block in section.blocks for text in _block(block)]
    parts.append(f"_{escape(report.footer)}_")
    return "\n\n".join(part for part in parts if part) + "\n"


def table(shown: Table) -> str:
    """Write a pipe table, its groups inside the column titles, and its notes below."""
    titles = [escape(f"{column.group}: {column.title}" if column.group else column.title) for column in shown.columns]
    lines = [
        "| " + " | ".join(titles) + " |",
        "|" + "|".join("---:" if column.numeric else "---" for column in shown.columns) + "|",
    ]
    for row in shown.rows:
        cells = [_cell(cell) for cell in row.cells]
        if row.kind == "best":
            cells = [f"**{cell}**" if cell else cell for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    notes = "\n".join(f"- {escape(note)}" for note in shown.notes)
    return "\n".join(lines) + (f"\n\n{notes}" if notes else "")


def _cell(cell: Cell) -> str:
    return escape(f"{cell.text} ({cell.note})" if cell.note else cell.text)


def _block(block: Block) -> Iterable[str]:
    match block:
        case Text():
            yield escape(block.text)
        case Table():
            if block.title:
                yield f"**{escape(block.title)}**"
            yield table(block)
        case Figure():
            yield f"![{escape(block.alt)}]({block.image.as_posix()})"
            for data in block.data:
                yield from _fold(data.title, [table(data)])
        case Code():
            yield _fenced(block)
        case Group():
            yield f"### {escape(block.title)}"
            for inner in block.blocks:
                yield from _block(inner)
        case Details():
            yield from _fold(block.title, [text for inner in block.blocks for text in _block(inner)])


def _fold(title: str, parts: Iterable[str]) -> Iterable[str]:
    yield f"<details><summary>{_html(title)}</summary>"
    yield from parts
    yield "</details>"


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _fenced(block: Code) -> str:
    """Fence code with more backticks than it holds in a row."""
    longest = max((len(run) for run in re.findall(r"`+", block.text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{block.language}\n{block.text}\n{fence}"
