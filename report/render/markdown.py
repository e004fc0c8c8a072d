"""Write a report as Markdown that renders on GitHub; every text from outside is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from report.render.document import (
    Block,
    Cell,
    Code,
    Column,
    Details,
    Figure,
    FirstScreen,
    Goal,
    Group,
    Report,
    Row,
    Strips,
    Table,
    Text,
)
from report.render.visible import visible

LONGEST = 500  # characters of a sentence's cell
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~!&])")


def escape(text: str) -> str:
    """Escape what Markdown, a table cell or HTML would read as markup; line breaks become spaces, unseen characters are shown."""
    escaped = _SPECIAL.sub(r"\\\1", " ".join(visible(text).split()))
    # GitHub reads $ as mathematics before it reads a backslash.
    return escaped.replace("$", "&#36;")


def paragraph(text: str) -> str:
    """Escape a text that begins a line: nothing at its start may make a list or a heading of it."""
    escaped = escape(text)
    marker = re.match(r"(\d*)([-+=.)])", escaped)
    return f"{marker[1]}\\{escaped[marker.end(1) :]}" if marker else escaped


def render(report: Report) -> str:
    """Return the whole report."""
    parts = [f"# {escape(report.name)}"]
    parts += [
        f"> **{escape(banner.text)}**" if banner.kind == "warning" else f"> {escape(banner.text)}"
        for banner in report.banners
    ]
    if report.description:
        parts.append(paragraph(report.description))
    parts += _first_screen(report.screen, report.notes)
    for section in report.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [text for block in section.blocks for text in _block(block)]
    parts.append(f"_{escape(report.footer)}_")
    return "\n\n".join(part for part in parts if part) + "\n"


def _first_screen(screen: FirstScreen, notes: Iterable[str]) -> Iterable[str]:
    """Write what the first screen shows: the default goal in full, the others in a row each."""
    yield escape(" · ".join((*screen.facts, screen.state)))
    yield from (f"> {escape(note)}" for note in notes)
    default = next((goal for goal in screen.goals if goal.name == screen.default), None)
    if default is None:
        yield f"## {escape(screen.heading)}"
        yield "\n".join(f"- {escape(sentence)}" for sentence in screen.sentences)
    else:
        yield f"## {escape(default.heading)}"
        said = (f"{default.leads}." if default.leads else "", default.how, default.confidence)
        yield from (paragraph(text) for text in said if text)
        yield f"**{escape(default.caveat)}**" if default.caveat else ""
        yield paragraph(default.budget) if default.budget else ""
        yield paragraph(default.overturn) if default.overturn else ""
        if default.rows:
            yield table(standings(default))
        yield from (paragraph(f"{one.name} is {one.note}.") for one in default.holders if one.note)
        yield from (paragraph(note) for note in default.notes)
        yield "\n".join(f"- *{escape(word)}*: {escape(meaning)}." for word, meaning in screen.words)
        yield "By goal:\n\n" + table(goals(screen))
    if screen.top is not None:
        yield _heading(screen.top.title) + table(screen.top)


def standings(goal: Goal) -> Table:
    """Return a goal's table: a column for each that is held against the others."""
    heads = (f"{one.name} ({one.role})" if one.role else one.name for one in goal.holders)
    columns = (Column("Value, 95 % CI", numeric=False), *(Column(head) for head in heads))
    rows = []
    for row in goal.rows:
        title = f"{row.title} ({row.unit})" if row.unit and row.unit.lower() != row.title.lower() else row.title
        cells = (" ".join(filter(None, (one.text, one.spread, one.word and f"({one.word})"))) for one in row.cells)
        notes = (one.note for one in row.cells)
        rows.append(Row((Cell(title), *(Cell(text, note=note) for text, note in zip(cells, notes, strict=True)))))
    return Table("", columns, tuple(rows))


def goals(screen: FirstScreen) -> Table:
    """Return what every goal comes to, with its words for --choose."""
    columns = tuple(Column(title, numeric=False) for title in ("Goal", "Recipe", "--choose"))
    rows = []
    for goal in screen.goals:
        said = goal.why_not or (goal.recipe if goal.clear else goal.leads or goal.heading)
        rows.append(Row((Cell(goal.name), Cell(said), Cell(goal.text)), "best" if goal.name == screen.default else ""))
    return Table("", columns, tuple(rows))


def table(shown: Table) -> str:
    """Write a pipe table, its groups inside the column titles, and its notes below."""
    titles = [escape(f"{column.group}: {column.title}" if column.group else column.title) for column in shown.columns]
    lines = [
        "| " + " | ".join(titles) + " |",
        "|" + "|".join("---:" if column.numeric else "---" for column in shown.columns) + "|",
    ]
    for row in shown.rows:
        cells = [
            _cell(replace(cell, text=_cut(cell.text)) if column.prose else cell)
            for column, cell in zip(shown.columns, row.cells, strict=True)
        ]
        if row.kind == "best":
            cells = [f"**{cell}**" if cell else cell for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    notes = "\n".join(f"- {escape(note)}" for note in shown.notes)
    return "\n".join(lines) + (f"\n\n{notes}" if notes else "")


def _cut(text: str) -> str:
    """Cut a long text, whose whole is in the data or in the page, and say how much of it is left out."""
    more = len(text) - LONGEST
    return text if more <= 0 else f"{text[:LONGEST].rstrip()} … ({more:,} more characters)"


def _cell(cell: Cell) -> str:
    text = escape(f"{cell.text} ({cell.note})" if cell.note else cell.text)
    # Anchors are the page's; files beside the report are there for Markdown too.
    return f"[{text}]({cell.link})" if text and "/" in cell.link else text


def _block(block: Block) -> Iterable[str]:
    match block:
        case Text():
            yield paragraph(block.text)
        case Table():
            yield _heading(block.title) + table(block)
        case Figure():
            yield from _figure(block)
        case Strips():
            yield from _strips(block)
        case Code():
            yield _fenced(block)
        case Group():
            yield f"### {escape(block.title)}"
            for inner in block.blocks:
                yield from _block(inner)
        case Details(page_only=True):
            yield f"{escape(block.title)}: in report.html."
        case Details():
            yield from _fold(block.title, [text for inner in block.blocks for text in _block(inner)])


def _figure(block: Figure) -> Iterable[str]:
    if not block.main:
        yield f"**{escape(block.title)}**"
    yield f"![{escape(block.alt)}]({block.image.as_posix()})"
    if block.caption:
        yield paragraph(block.caption)
    for data in block.data:
        yield from _fold(data.title, [table(data)])


def _heading(title: str) -> str:
    return f"**{escape(title)}**\n\n" if title else ""


def _strips(block: Strips) -> Iterable[str]:
    columns = Column("Run", numeric=False), Column("Steps", numeric=False)
    rows = tuple(Row((Cell(one.label, link=one.link), Cell(one.words))) for one in block.rows)
    yield _heading(block.title) + table(Table("", columns, rows))


def _fold(title: str, parts: Iterable[str]) -> Iterable[str]:
    yield f"<details><summary>{_html(title)}</summary>"
    yield from parts
    yield "</details>"


def _html(text: str) -> str:
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _fenced(block: Code) -> str:
    """Fence code with more backticks than it holds in a row."""
    text = visible(block.text)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{block.language}\n{text}\n{fence}"
