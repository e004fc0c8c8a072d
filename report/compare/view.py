"""Tell a comparison: Markdown for a pull request, a table on the terminal, JSON for machines, and one last line."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import InputError
from report.analysis import verdicts
from report.compare import compare as comparing
from report.compare.compare import Compared, Comparison, Row
from report.render import markdown
from report.render.document import Cell, Column, Table
from report.render.document import Row as Line
from report.render.numbers import MISSING, number, series_digits
from report.render.shown import Shown, shown

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1
_JOINER = "\u2060"
_MARKS = {comparing.WORSE: "✗", comparing.BETTER: "✓"}
_COLOURS = {comparing.WORSE: "red", comparing.BETTER: "green", comparing.FEW: "yellow", comparing.REFUSED: "yellow"}


# ---- one row in words ------------------------------------------------------------------------------------------------


def _shown(row: Row) -> Shown:
    """Return how a row's figures are written."""
    made = row.contrast
    return shown(row.described, [made.base.mean, made.candidate.mean] if made else [])


def figures(row: Row) -> tuple[str, str, str]:
    """Return base, candidate and difference as text."""
    if row.contrast is None:
        return MISSING, MISSING, MISSING
    made, writes = row.contrast, _shown(row)
    base, candidate = (f"{writes.text(one.mean)} {writes.unit}".strip() for one in (made.base, made.candidate))
    one, digits = made.difference, writes.digits + 1

    def written(value: float) -> str:
        return number(writes.difference(value), digits, True)

    text = f"{written(one.mean)} {writes.difference_unit}".strip()
    if one.has_interval and one.high > one.low:
        text += f" ({written(one.low)} to {written(one.high)})"
    return base, candidate, text


def verdict(row: Row) -> str:
    """Say what became of a row: its word, then why; where no difference was seen, how large a worsening could still be."""
    if row.verdict == comparing.REFUSED:
        return f"{row.verdict}: {row.reason}"
    if row.verdict in _MARKS:
        return f"{_MARKS[row.verdict]} {row.word}"
    if row.verdict == comparing.SMALL:
        return f"{row.word}, within tolerance"
    if row.verdict == comparing.DIFFERENT:
        return row.word
    within = row.verdict == comparing.SAME and row.word == verdicts.SAME
    text = f"{row.word}: {'within tolerance' if within else row.verdict}"
    if row.verdict == comparing.FEW and row.contrast:
        _, base, candidate = row.contrast.seeds
        return f"{text} ({base} and {candidate} seeds)"
    if row.verdict == comparing.SAME and not row.exact and row.could_be_worse_by > 0:
        writes = _shown(row)
        size = writes.difference(row.could_be_worse_by)
        digits = 1 if writes.difference_unit in ("points", "%") else max(3, series_digits([size]))
        return f"{text} (could still be {number(size, digits)} {writes.difference_unit}".rstrip() + " worse)"
    return text


def _probability(row: Row) -> str:
    if row.contrast is not None and row.contrast.identical:  # nothing was tested
        return MISSING
    smallest = min((p for p in (row.p_worse, row.p_better) if not math.isnan(p)), default=math.nan)
    if math.isnan(smallest):
        return MISSING
    if not row.worse_is:  # a difference either way
        smallest = min(1.0, 2 * smallest)
    return "< 0.001" if smallest < 0.001 else number(smallest, 3)


# ---- tables ----------------------------------------------------------------------------------------------------------

_COLUMNS = (
    Column("Metric", numeric=False),
    Column("Recipes", numeric=False),
    Column("Base"),
    Column("Candidate"),
    Column("Difference (95 % CI)"),
    Column("p"),
    Column("Verdict", numeric=False),
)


def table(title: str, rows: Iterable[Row]) -> Table:
    """Lay rows out."""
    lines = [
        Line(tuple(map(Cell, (row.metric, row.name, *figures(row), _probability(row), verdict(row))))) for row in rows
    ]
    return Table(title, _COLUMNS, tuple(lines))


def headlines(suite: Compared) -> list[Row]:
    """Choose the rows to show first: gating metrics at the coarsest level, and whatever else got worse or better."""
    coarsest = {row.metric: row.level for row in reversed(suite.rows)}
    told = (comparing.WORSE, comparing.BETTER)
    return [row for row in suite.rows if row.gates and (row.level == coarsest[row.metric] or row.verdict in told)]


def costs(suite: Compared) -> list[Row]:
    """Choose the rows that are shown and do not gate, at the coarsest level."""
    coarsest = {row.metric: row.level for row in reversed(suite.rows)}
    return [row for row in suite.rows if not row.gates and row.level == coarsest[row.metric]]


def headline(made: Comparison) -> str:
    """Say in one sentence what came out."""
    worse = [row for suite in made.suites for row in suite.regressions]
    if worse:
        first = min(worse, key=lambda row: (row.p_worse, -abs(row.worsening)))
        more = f"; {len(worse) - 1} more" if len(worse) > 1 else ""
        base, candidate, _ = figures(first)
        return f"Regression: {first.metric} of {first.name} went from {base} to {candidate}{more}."
    reasons = [reason for suite in made.suites for reason in suite.inconclusive]
    if reasons:
        more = f" ({len(reasons) - 1} more reasons)" if len(reasons) > 1 else ""
        return f"Inconclusive: {reasons[0]}{more}."
    rows = [row for suite in made.suites for row in suite.rows if row.gates]
    if all(row.verdict == comparing.IDENTICAL for row in rows):
        return f"No regression: all {len(rows)} gating figures are identical."
    better = sum(row.verdict == comparing.BETTER for row in rows)
    return f"No regression seen in {len(rows)} gating comparisons" + (f"; {better} got better." if better else ".")


def last_line(made: Comparison) -> str:
    """Return the line that ends the output."""
    names = ", ".join(suite.name for suite in made.suites)
    return f"compare {made.base} {made.candidate} ({names}): {headline(made)} Exit code {made.exit_code}."


# ---- Markdown --------------------------------------------------------------------------------------------------------


def as_markdown(made: Comparison) -> str:
    """Write a comparison for a pull request or a step summary."""
    parts = [f"# bench compare: {markdown.escape(made.outcome)}", f"**{markdown.escape(headline(made))}**"]
    parts.append(markdown.escape(f"Candidate {made.candidate} against base {made.base}."))
    parts += [markdown.escape(note) for note in made.notes]
    for suite in made.suites:
        parts += [f"## {markdown.escape(suite.name)}", *_suite(suite)]
    return _inert("\n\n".join([*parts, f"_{markdown.escape(_how(made))}_"])) + "\n"


def _inert(text: str) -> str:
    """Keep names in a pull request's comment from calling people, linking elsewhere or turning the direction of reading.

    GitHub looks for @name, #12, GH-12 and addresses after Markdown has taken backslashes away; a word joiner between sign
    and name stops that and cannot be seen. Characters that are not printable are left out.
    """
    cut = re.sub(
        r"(?<=(?<!\w)@)(?=\w)|(?<=#)(?=\w)|(?<=\bGH-)(?=\d)|(?<=\bwww\.)|(?<=://)", _JOINER, text, flags=re.IGNORECASE
    )
    return "".join(letter for letter in cut if letter.isprintable() or letter in f"\n{_JOINER}")


def _suite(suite: Compared) -> Iterable[str]:
    if suite.inconclusive:
        yield "\n".join(f"- Inconclusive: {markdown.escape(reason)}." for reason in suite.inconclusive)
    yield markdown.table(table("", headlines(suite)))
    if found := costs(suite):
        yield "Cost: shown, does not gate."
        yield markdown.table(table("", found))
    if suite.notes:
        yield "\n".join(f"- {markdown.escape(note)}" for note in suite.notes)
    first = {id(row) for row in _first(suite)}
    if rest := [row for row in suite.rows if id(row) not in first]:
        yield f"<details><summary>Recipe by recipe: {len(rest)} more comparisons</summary>"
        yield markdown.table(table("", rest))
        yield "</details>"


def _how(made: Comparison) -> str:
    level = number(100 * made.gate.level, 1 if made.gate.level < 0.1 else 0).removesuffix(".0")
    return (
        f"p is one-sided and corrected for the number of comparisons (Holm): when nothing changed, at most {level} of 100 "
        "comparisons call a regression. Intervals are each figure's own, uncorrected. A regression is sure at that level "
        "and larger than its metric's tolerance."
    )


def write(made: Comparison, out: Path | None) -> None:
    """Write the Markdown to a file, and append it to GitHub's step summary where there is one.

    Raises:
        InputError: the file cannot be written.
    """
    text = as_markdown(made)
    try:
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text, encoding="utf-8")  # where the user says, be it a pipe or a device
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(text + "\n")
    except OSError as error:
        raise InputError(f"the Markdown cannot be written: {error}") from None


# ---- terminal and machines -------------------------------------------------------------------------------------------


def show(made: Comparison, console: Console) -> None:
    """Print each suite's headline rows as a table."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table as RichTable

    for suite in made.suites:
        lines = RichTable(title=escape(suite.name), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in _COLUMNS:
            justify: Literal["left", "right"] = "right" if column.numeric else "left"
            lines.add_column(column.title, justify=justify, overflow="fold", no_wrap=column.title == "Metric")
        for row, line in zip(_first(suite), table("", _first(suite)).rows, strict=True):
            style = _COLOURS.get(row.verdict) if row.gates else "dim"
            lines.add_row(*(escape(cell.text) for cell in line.cells), style=style)
        console.print(lines)
        for text in (*(f"inconclusive: {reason}" for reason in suite.inconclusive), *suite.notes):
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    for note in made.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _first(suite: Compared) -> Sequence[Row]:
    return [*headlines(suite), *costs(suite)]


def as_dict(made: Comparison) -> dict[str, Any]:
    """Return the comparison for machines; null is not known. Figures are in the metrics' own units."""
    return {
        "schema": SCHEMA,
        "outcome": made.outcome,
        "exit_code": made.exit_code,
        "headline": headline(made),
        "base": made.base,
        "candidate": made.candidate,
        "level": made.gate.level,
        "notes": list(made.notes),
        "suites": [
            {
                "suite": suite.name,
                "inconclusive": list(suite.inconclusive),
                "notes": list(suite.notes),
                "comparisons": [_row(row) for row in suite.rows],
            }
            for suite in made.suites
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    made = row.contrast
    found: dict[str, Any] = {"level": row.level, "recipes": row.name, "metric": row.metric, "gates": row.gates}
    found |= {"word": row.word, "verdict": row.verdict, "reason": row.reason or None, "tolerance": row.tolerance}
    if made is not None:
        one = made.difference
        found |= {"base": _known(made.base.mean), "candidate": _known(made.candidate.mean)}
        found |= {"difference": _known(one.mean), "low": _known(one.low), "high": _known(one.high)}
        known = {"p_worse": _known(row.p_worse), "p_better": _known(row.p_better)}
        found |= known if row.worse_is else dict.fromkeys(known)
        found["how"] = made.how
        found["seeds"] = dict(zip(("shared", "base", "candidate"), made.seeds, strict=True))
    return found


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
