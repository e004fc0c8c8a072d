"""Read which objective each step of a run descended: shares, stretches, and how often a probed gap was negative."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.records.record import read_jsonl
from report.analysis.load import OBJECTIVES, Results, Run

MOST_BINS = 200
STRETCHES = 8
SHOWN = {"dpo": "DPO", "sft": "SFT"}


@dataclass(frozen=True)
class Choices:
    """A run's choice log in short.

    Attributes:
        steps: optimizer steps on record.
        taken: objective → steps whose gradient had a part of it; a step of Mix counts for both.
        stretches: the first few stretches of equal choice: ("SFT", 9) is nine steps in a row.
        changes: how many stretches there are in all.
        bins: mean weight of DPO in stretches of equal length along the run, at most 200.
        probes: objective → how often it was evaluated to choose.
        negative: objective → how many of those gaps were negative; None where neither gaps nor f* are on record.
    """

    steps: int
    taken: dict[str, int]
    stretches: tuple[tuple[str, int], ...]
    changes: int
    bins: tuple[float, ...]
    probes: dict[str, int]
    negative: dict[str, int | None]

    @property
    def dpo_share(self) -> float:
        """The share of steps that descended DPO."""
        return self.taken["dpo"] / self.steps

    @property
    def negative_share(self) -> float:
        """The share of probed gaps that were negative; NaN where nothing was probed, or f* is not on record."""
        counts = [count for count in self.negative.values() if count is not None]
        probes = sum(self.probes.values())
        return sum(counts) / probes if probes and len(counts) == len(self.negative) else math.nan

    @property
    def words(self) -> str:
        """The choices in one sentence."""
        parts = [
            f"{SHOWN[name]} in {count:,} of {self.steps:,} steps ({_percent(count / self.steps)})"
            for name, count in self.taken.items()
        ]
        rest = self.changes - len(self.stretches)
        text = ", ".join(parts) + ": " + ", ".join(f"{name} ×{length:,}" for name, length in self.stretches)
        text += f", … {rest:,} more" if rest > 0 else ""
        if any(self.probes.values()):
            both = ", ".join(f"{SHOWN[name]} {count:,}" for name, count in self.probes.items())
            share = self.negative_share
            below = "" if math.isnan(share) else f", {_percent(share)} of the gaps negative"
            text += f". Probes: {both}{below}"
        return text + "."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def read(results: Results, run: Run) -> Choices | None:
    """Read a run's steps.jsonl; None for a recipe that takes no steps, or where no log is there."""
    optimum: dict[str, float | None] = {}
    for name in OBJECTIVES:
        source = results.record.jobs.get(str(run.job.spec["inputs"].get(f"optimum_{name}")))
        entry = source.scores.get(f"f_{name}/train", {}) if source is not None else {}
        optimum[name] = entry.get("value")
    return count(read_jsonl(run.job.path / "steps.jsonl"), int(run.steps.value or 0), optimum)


def _gaps(row: Mapping[str, Any], optimum: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the gaps of a step's probes: those on record, or of older records, which hold the probes alone, their own."""
    known, found = row.get("gaps") or {}, {}
    for name, value in (row.get("probes") or {}).items():
        best = optimum.get(name)
        found[name] = known.get(name, None if best is None else value - best)
    return found


def count(rows: Iterable[Mapping[str, Any]], expected: int, optimum: Mapping[str, float | None]) -> Choices | None:
    """Count a step log, row by row.

    Args:
        rows: steps.jsonl; `weights` names the objectives a step descended, `probes` the values looked at to choose.
        expected: how many rows to expect, which sets the width of a bin.
        optimum: f* on training rows, which MAXRIGHT's rule compares probes with; None where it is not on record.
    """
    width = max(1, math.ceil(expected / MOST_BINS))
    taken, probes = dict.fromkeys(OBJECTIVES, 0), dict.fromkeys(OBJECTIVES, 0)
    negative: dict[str, int | None] = dict.fromkeys(OBJECTIVES, 0)
    sums: list[list[float]] = []
    stretches: list[list[Any]] = []
    changes, last, steps = 0, "", 0
    for row in rows:
        weights = {name: float(weight) for name, weight in row["weights"].items() if weight}
        for name in weights:
            taken[name] += 1
        choice = "+".join(SHOWN[name] for name in OBJECTIVES if name in weights)
        if choice != last:
            changes, last = changes + 1, choice
            if changes <= STRETCHES:
                stretches.append([choice, 0])
        if changes <= STRETCHES:
            stretches[-1][1] += 1
        if steps % width == 0:
            sums.append([0.0, 0.0])
        total = sum(weights.values())
        sums[-1][0] += weights.get("dpo", 0.0) / total if total else 0.0
        sums[-1][1] += 1
        for name, gap in _gaps(row, optimum).items():
            probes[name] += 1
            below = negative[name]
            negative[name] = None if below is None or gap is None else below + (gap < 0)
        steps += 1
    if not steps:
        return None
    bins = tuple(total / number for total, number in sums)
    return Choices(steps, taken, tuple((name, length) for name, length in stretches), changes, bins, probes, negative)
