"""Show a choice in the terminal, and keep it beside the reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.records.record import write_json
from report.choose.choice import Candidate, Choice, shown
from report.choose.choose import Chosen


def keep(found: Sequence[Chosen], out: Path | None) -> None:
    """Write choice.json of every suite beside its report."""
    for one in found:
        if one.choice:
            folder = one.record.folder if out is None else out / one.suite
            write_json(folder / "choice.json", one.choice.as_json())


def show(found: Sequence[Chosen], console: Console) -> None:
    """Print every suite's choice: the answer, all recipes, and what to keep in mind."""
    for one in found:
        if one.choice is None:
            console.print(f"{one.suite}: {one.reason}", markup=False, highlight=False, soft_wrap=True)
            continue
        console.print(_table(one.choice))
        for note in _notes(one.choice):
            console.print(f"· {note}", markup=False, highlight=False)
        console.print(f"{one.suite}: {one.choice.headline}", style="bold", markup=False, highlight=False)
        if one.choice.best is not None:
            job = next(iter(one.choice.best.jobs.values()))
            console.print(_take(one, job), markup=False, highlight=False, soft_wrap=True)


def _take(one: Chosen, job: str) -> str:
    """Say how to get at a job's weights."""
    if one.record.archive:
        return f"{one.record.archive} holds no weights; make them again: bench run {one.suite} --only {job}"
    return f"Take it away: bench export {job} DIR --results {one.record.folder}"


def _table(choice: Choice) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title=escape(choice.expression.text.strip()), title_justify="left"
    )
    table.add_column("recipe", no_wrap=True)
    for name, unit in choice.units.items():
        table.add_column(f"{name} ({unit})" if unit else name, justify="right")
    if choice.draws:
        table.add_column("chosen in", justify="right")
    table.add_column("does not meet")
    for one in choice.candidates:
        style = "bold green" if one is choice.best else "" if one.allowed else "dim"
        table.add_row(*map(escape, _row(choice, one)), style=style)
    return table


def _row(choice: Choice, one: Candidate) -> list[str]:
    figures = [shown(one.figures.get(name, math.nan)) for name in choice.units]
    share = [] if not choice.draws else ["–" if math.isnan(one.wins) else f"{100 * one.wins:.0f} %"]
    return [one.name, *figures, *share, "; ".join((*one.failed, *one.unknown))]


def _notes(choice: Choice) -> list[str]:
    notes = list(choice.notes)
    if choice.resampled:
        nobody = (
            f"; in {100 * choice.nobody:.0f} % of the draws no recipe meets the conditions" if choice.nobody > 0 else ""
        )
        drawn = ", ".join(choice.resampled)
        notes.insert(0, f"drawn anew {choice.draws:,} times, the same draw for every recipe: {drawn}{nobody}")
    return notes
