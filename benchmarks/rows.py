"""What a benchmark reports, and what it is given to work with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.timing import spread

# A side that is silent for so long is given up.
SECONDS_AT_MOST = 1200.0


class RowFailed(Exception):
    """Say in one line why a row could not be measured."""


@dataclass(frozen=True)
class Goal:
    """Bound a row's median from one side."""

    at: Literal["least", "most"]
    bound: float

    def holds(self, value: float) -> bool:
        """Say whether a value keeps the bound."""
        return value >= self.bound if self.at == "least" else value <= self.bound


def at_least(bound: float) -> Goal:
    """Ask for a value no smaller than a bound."""
    return Goal("least", bound)


def at_most(bound: float) -> Goal:
    """Ask for a value no larger than a bound."""
    return Goal("most", bound)


@dataclass(frozen=True)
class Stated:
    """A goal that was judged where its figure was made: its words, and whether it is kept."""

    text: str
    kept: bool

    def holds(self, value: float) -> bool:
        """Return what was said."""
        del value
        return self.kept


@dataclass(frozen=True)
class Row:
    """One line of the results.

    Attributes:
        work: what was measured.
        against: what it is compared with; "" where the figure stands alone.
        values: the ratio of every pair, or every measurement.
        unit: "×" for a ratio, else the values' unit.
        goal: what the median should keep; None: reported beside the others.
        sides: every measurement of each side, by name, with its unit in the name.
        facts: other figures that belong to it.
        notes: sentences that a reader needs to understand the figure.
        failed: why there are no values; None: there are.
    """

    work: str
    against: str
    values: Sequence[float]
    unit: str = "×"
    goal: Goal | Stated | None = None
    sides: dict[str, list[float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    failed: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON values, with its spread and whether the goal holds; what was not measured keeps no goal."""
        found = spread(self.values) if self.failed is None else None
        return {
            "work": self.work,
            "against": self.against,
            "unit": self.unit,
            "values": list(self.values),
            "spread": vars(found) if found else None,
            "goal": vars(self.goal) if self.goal else None,
            "holds": self.goal.holds(found.median) if self.goal and found else False if self.goal else None,
            "sides": self.sides,
            "facts": self.facts,
            "notes": list(self.notes),
            **({"failed": self.failed} if self.failed is not None else {}),
        }


@dataclass(frozen=True)
class Context:
    """Give every benchmark what it works with.

    Attributes:
        quick: fewer rounds and steps, float32 alone.
        work: a folder for what is made on the way.
        mirror: the offline mirror with pairs and questions, or its generated stand-in.
        real_data: whether that is the mirror.
        threads: of each side.
        say: shows a line of progress.
        device: what sides work on.
        until: when sides are given up, by `time.monotonic`; None: once one is silent for `SECONDS_AT_MOST`.
        preload: a module that is imported once for all sides; "": each imports what it needs itself.
    """

    quick: bool
    work: Path
    mirror: Path
    real_data: bool
    threads: int
    say: Callable[[str], None]
    device: str = "cpu"
    until: float | None = None
    preload: str = ""

    def folder(self, name: str) -> Path:
        """Make a folder for one benchmark's files."""
        made = self.work / name
        made.mkdir(parents=True, exist_ok=True)
        return made
