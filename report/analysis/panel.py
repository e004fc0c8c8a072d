"""A suite's judges, one by one and two by two, from its records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from report.analysis import judge_bias, judges
from report.analysis.judge_bias import Bias
from report.analysis.judges import Agreement, PairKey, Share, Verdict
from report.analysis.load import Results, judge_of
from report.analysis.tables import Tables


@dataclass(frozen=True)
class Unusable:
    """A judge's replies of one kind that could not be used: how many, and one of them."""

    judge: str
    kind: str
    count: int
    example: str


@dataclass(frozen=True)
class Beside:
    """How much more a judge prefers the policies' answers than another does on the same pairs, −1 to 1."""

    judge: str
    difference: Share
    pairs: int


@dataclass(frozen=True)
class JudgeSummary:
    """What is known of one judge.

    Attributes:
        main: whether it leads where there are several.
        bias: place and length.
        adjustment: points by which a win rate moves at equal length, mean over its judgings; NaN where none tells.
        kinship: what it has in common with the policies' base; "" where nothing tells.
        beside: of a judge that has, the judges that have not.
    """

    name: str
    main: bool
    bias: Bias
    adjustment: float
    kinship: str
    beside: tuple[Beside, ...]


@dataclass(frozen=True)
class Panel:
    """The judges of a suite, the main one first, and how far every two of them agree.

    Attributes:
        unusable: replies of all judgings, those that failed among them; the most frequent kind of a judge first.
    """

    judges: tuple[JudgeSummary, ...]
    agreements: tuple[Agreement, ...]
    unusable: tuple[Unusable, ...]


def panel(tables: Tables) -> Panel:
    """Sum up the judges of a suite; of one that judged no pair there are its unusable replies only."""
    results, found = tables.results, judges.verdicts(tables.results)
    kin = {name: _kinship(results, name) for name in found}
    rates = {
        name: {recipe.name: recipe.estimate(f"win_rate/{name}").mean for recipe in tables.recipes} for name in found
    }
    summaries = (
        JudgeSummary(
            name,
            name == results.main_judge,
            judge_bias.bias(name, one),
            _adjustment(results, name),
            kin[name],
            tuple(_beside(found, name, kin)) if kin[name] else (),
        )
        for name, one in found.items()
    )
    unusable = (one for name in results.judges for one in _unusable(results, name))
    return Panel(tuple(summaries), tuple(judges.agreements(found, rates)), tuple(unusable))


def _beside(found: Mapping[str, Mapping[PairKey, Verdict]], judge: str, kin: Mapping[str, str]) -> list[Beside]:
    made = (Beside(other, *judge_bias.against(found[judge], found[other])) for other in found if not kin[other])
    return [one for one in made if one.pairs]


def _scores(results: Results, judge: str) -> list[dict[str, Any]]:
    """Return the scores that a judge gave on record, those of judgings that failed among them."""
    return [score for job in results.judgings for name, score in job.scores.items() if judge_of(name) == judge]


def _kinship(results: Results, judge: str) -> str:
    settings: dict[str, Any] = next(
        (job.spec["settings"] for job in results.judgings if job.labels.get("judge") == judge), {}
    )
    return judge_bias.kinship(judge, settings, results.suite.get("model") or {})


def _adjustment(results: Results, judge: str) -> float:
    moved = [
        score["length_controlled_win_rate"] - score["value"]
        for score in _scores(results, judge)
        if score.get("length_controlled_win_rate") is not None and score.get("value") is not None
    ]
    return fmean(moved) if moved else math.nan


def _unusable(results: Results, judge: str) -> list[Unusable]:
    """Add up the unusable replies by kind, the most frequent first."""
    found: dict[str, Unusable] = {}
    for score in _scores(results, judge):
        for one in score.get("unusable_replies") or ():
            kind, known = str(one.get("kind")), found.get(str(one.get("kind")))
            count = int(one.get("count") or 0) + (known.count if known else 0)
            found[kind] = Unusable(judge, kind, count, known.example if known else str(one.get("example") or ""))
    return sorted(found.values(), key=lambda one: -one.count)
