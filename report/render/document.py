"""What a report is made of: sections of blocks that the HTML and the Markdown writer both render."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

LONG = 60  # rows


@dataclass(frozen=True)
class Cell:
    """Show one value; `link` is an anchor in the page (or a path beside it), `note` says more in small print."""

    text: str
    link: str = ""
    note: str = ""
    missing: bool = False


@dataclass(frozen=True)
class Column:
    """Head a column; `meaning` explains it in one line, `group` spans neighbours of the same name, `prose` holds sentences."""

    title: str
    numeric: bool = True
    meaning: str = ""
    group: str = ""
    prose: bool = False


@dataclass(frozen=True)
class Row:
    """Hold one row; `kind` is "" | "best" | "context" (not ranked: base, reference, optima).

    Attributes:
        tags: (filter, value) pairs, such as ("method", "mix"), by which a reader can narrow the table down.
        anchor: what links lead to; "" for none.
        more: what a row of a long table shows when it is opened, in a fixed-width block; "" for none.
    """

    cells: tuple[Cell, ...]
    kind: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    anchor: str = ""
    more: str = ""


@dataclass(frozen=True)
class Table:
    """Show rows under columns; the first column heads the row. `sortable` lets readers order them, `searchable` find words."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    sortable: bool = False
    searchable: bool = False

    @property
    def is_long(self) -> bool:
        """Whether the page draws rows as they are scrolled to, and has only the first ones in its text."""
        return len(self.rows) > LONG


@dataclass(frozen=True)
class Text:
    """Say one paragraph in plain words; `kind` is "" | "note" | "warning"."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Code:
    """Show text as it is, in a fixed-width block."""

    text: str
    language: str = ""


@dataclass(frozen=True)
class Strip:
    """Show a run's choices along its steps: a bar as high as DPO's share, over SFT's.

    Attributes:
        label, link: the run, and where it stands.
        bins: DPO's share in stretches of equal length, 0 to 1; empty for a run without steps.
        words: the same in a sentence.
    """

    label: str
    bins: tuple[float, ...]
    words: str
    link: str = ""


@dataclass(frozen=True)
class Strips:
    """Show several runs' choices below each other."""

    title: str
    rows: tuple[Strip, ...]


@dataclass(frozen=True)
class Panel:
    """One drawn panel as inline SVG."""

    title: str
    svg: str
    alt: str


@dataclass(frozen=True)
class Plot:
    """One picture of points and paths that the page's script draws; `data` is what plots.js takes, as plain values."""

    title: str
    alt: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """Show panels: one main column and a grid beside it, in the layout of the paper's Figures 3, 6 and 7; or rows of panels.

    Attributes:
        legend: (name, colour) per method, in the order of the bars.
        shapes: (name, glyph) of what markers tell apart.
        image: the same figure as PNG, relative to the report's folder, for Markdown.
        data: the numbers behind it.
        legend_label: what the legend lists, for those who cannot see it.
        caption: how to read it.
    """

    title: str
    main: tuple[Panel | Plot, ...]
    side: tuple[Panel | Plot, ...]
    legend: tuple[tuple[str, str], ...]
    image: Path
    alt: str
    data: tuple[Table, ...]
    legend_label: str = "Bars from left to right"
    caption: str = ""
    shapes: tuple[tuple[str, str], ...] = ()

    @property
    def has_plots(self) -> bool:
        """Whether the page's script draws any of it; without scripts the image stands there."""
        return any(isinstance(one, Plot) for one in (*self.main, *self.side))


@dataclass(frozen=True)
class Details:
    """Fold blocks away under a title; `page_only` leaves them out of Markdown, which has to stay short enough to render."""

    title: str
    blocks: tuple[Block, ...]
    page_only: bool = False


@dataclass(frozen=True)
class Group:
    """Put blocks under a small heading that cells can link to."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Holder:
    """Head a column of the first screen's table: who it is, in which role, with the anchor of its runs."""

    role: str
    name: str
    link: str = ""
    note: str = ""


@dataclass(frozen=True)
class Standing:
    """Show a value with its 95 % interval and a word against the recommended one; `note` is the reason of a missing one."""

    text: str
    spread: str = ""
    word: str = ""
    note: str = ""
    missing: bool = False


@dataclass(frozen=True)
class StandingRow:
    """Hold one figure of every column."""

    title: str
    unit: str
    better: str
    cells: tuple[Standing, ...]


@dataclass(frozen=True)
class Goal:
    """Answer one goal: what to use, how sure that is, beside what, and what it loses.

    Attributes:
        words, text: what the goal means, and the same for --choose.
        why_not: why this suite cannot answer it; then nothing else is there.
        heading: the recommendation, or that there is none; `clear` where there is one.
        leads: who leads so far where nothing is recommended.
        how: what the recipe's steps descend.
        confidence, overturn: how sure and why; what would undo it.
        caveat, budget: what it loses; what equal tokens of every run would say.
    """

    name: str
    words: str
    text: str = ""
    why_not: str = ""
    heading: str = ""
    clear: bool = False
    recipe: str = ""
    leads: str = ""
    how: str = ""
    confidence: str = ""
    overturn: str = ""
    holders: tuple[Holder, ...] = ()
    rows: tuple[StandingRow, ...] = ()
    caveat: str = ""
    budget: str = ""
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name as part of an id."""
        return self.name.replace(" ", "-")


NOTHING_SURE = "No recipe can be recommended yet"


@dataclass(frozen=True)
class FirstScreen:
    """Show what to use at first sight.

    Attributes:
        facts: model, recipes × seeds, device, date.
        state: how many jobs are complete.
        default: the goal that is open; "" where none can be answered or asked: `heading` and `sentences` then stand there.
        words: what the screen speaks of, each word with what it means.
        figure: the end points; `top` the first recipes, with the link to all of them, which are in the part `all_in`.
    """

    facts: tuple[str, ...]
    state: str
    complete: bool
    goals: tuple[Goal, ...]
    default: str = ""
    heading: str = NOTHING_SURE
    sentences: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    figure: Figure | None = None
    top: Table | None = None
    all_of: str = ""
    all_in: str = "leaderboard"


Block: TypeAlias = "Text | Table | Code | Figure | Strips | Details | Group"


@dataclass(frozen=True)
class Section:
    """One part of the report."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """A suite's whole report, ready to be rendered."""

    name: str
    description: str
    smoke: bool
    banners: tuple[Text, ...]
    screen: FirstScreen
    sections: tuple[Section, ...]
    footer: str
    links: tuple[tuple[str, str], ...] = field(default=())
    notes: tuple[str, ...] = ()
