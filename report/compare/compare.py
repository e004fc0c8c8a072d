"""Did a change make training recipes worse? Two results folders, recipe by recipe and metric by metric, beyond noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.records.metrics import Metric
from bench.records.suite_record import SuiteRecord, find_suites
from report.analysis import tradeoff, verdicts
from report.analysis.contrast import Contrast, enough, of_front, of_metric
from report.analysis.gate import Gate, Ruling
from report.analysis.metrics import HYPERVOLUME
from report.analysis.sides import Key, Side, differing, read
from report.analysis.statistics import holm

IDENTICAL, SAME, WORSE, BETTER, DIFFERENT = (
    "identical",
    "no difference seen",
    verdicts.WORSE,
    verdicts.BETTER,
    "different",
)
SMALL, FEW, REFUSED = "worse within tolerance", "not enough data", "not comparable"
PASS, REGRESSION, INCONCLUSIVE = 0, 1, 3
EVERY, METHOD, RECIPE = "all recipes", "method", "recipe"


@dataclass(frozen=True)
class Row:
    """One metric of one recipe, of a method's mean over λ, or of the mean over all recipes.

    Attributes:
        contrast: None where it is not comparable, which `reason` explains.
        worse_is: +1 if a higher figure is worse, −1 if a lower one is, 0 if neither is.
        described: what the figure is.
        tolerance, unseen: in the metric's unit; `unseen` None where the width of the interval does not gate.
        p_worse, p_better: one-sided, corrected for the number of comparisons; NaN without an interval.
    """

    suite: str
    level: str
    name: str
    described: Metric
    gates: bool
    contrast: Contrast | None
    worse_is: int = 1
    tolerance: float = 0.0
    unseen: float | None = None
    exact: bool = False
    reason: str = ""
    p_worse: float = math.nan
    p_better: float = math.nan
    verdict: str = REFUSED

    @property
    def metric(self) -> str:
        """The figure's name."""
        return self.described.name

    @property
    def word(self) -> str:
        """The candidate against the base as a report would put it: better, worse, same or unclear.

        A figure of which neither direction is better may also be different; what is not comparable has no word but that.
        """
        if self.verdict == SMALL:
            return verdicts.WORSE
        if self.verdict == IDENTICAL:
            return verdicts.SAME
        if self.verdict == FEW:
            return verdicts.UNCLEAR
        if self.verdict == SAME:
            assert self.contrast is not None
            alike = self.exact or verdicts.within(self.contrast.difference, self.tolerance)
            return verdicts.SAME if alike else verdicts.UNCLEAR
        return self.verdict

    @property
    def worsening(self) -> float:
        """How much worse the candidate's mean is, in the metric's unit; negative if better, NaN if neither can be."""
        return self.worse_is * self.contrast.difference.mean if self.contrast and self.worse_is else math.nan

    @property
    def could_be_worse_by(self) -> float:
        """The bad end of the interval, in the metric's unit; NaN without an interval, or if neither end is bad."""
        if self.contrast is None or not self.worse_is:
            return math.nan
        one = self.contrast.difference
        return one.high if self.worse_is > 0 else -one.low


@dataclass(frozen=True)
class Compared:
    """One suite of both sides, compared.

    Attributes:
        inconclusive: why no verdict can be given, one sentence each.
        notes: what a reader should know besides.
    """

    name: str
    rows: tuple[Row, ...]
    inconclusive: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Row, ...]:
        """The gating figures that got worse."""
        return tuple(row for row in self.rows if row.gates and row.verdict == WORSE)


@dataclass(frozen=True)
class Comparison:
    """Everything that was compared.

    Attributes:
        base, candidate: what a reader is told they are.
    """

    base: str
    candidate: str
    gate: Gate
    suites: tuple[Compared, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0: no regression seen; 1: a regression; 3: inconclusive."""
        if any(suite.regressions for suite in self.suites):
            return REGRESSION
        return INCONCLUSIVE if any(suite.inconclusive for suite in self.suites) else PASS

    @property
    def outcome(self) -> str:
        """The exit code in a word."""
        return {PASS: "no regression", REGRESSION: "regression", INCONCLUSIVE: "inconclusive"}[self.exit_code]


def compare(base: Path, candidate: Path, gate: Gate, base_name: str = "") -> Comparison:
    """Compare two results folders, roots or single suites, or archives.

    Args:
        base, candidate: where the records are.
        gate: what may get worse, and by how much.
        base_name: what a reader is told the base is; its path unless given.

    Raises:
        InputError: a folder is missing or holds no suite, or both have no suite in common.
    """
    found = find_suites(base), find_suites(candidate)
    pairs, notes = _matched(*found, gate)
    if not pairs:
        names = [", ".join(one.name for one in side) for side in found]
        raise InputError(
            f"{base_name or base} and {candidate} have no suite in common: {' against '.join(names)}; give two folders of "
            "the same suite"
        )
    notes = (*notes, *dict.fromkeys(one.note for pair in pairs for one in pair if one.note))
    made = compare_sides([(read(ours), read(theirs)) for ours, theirs in pairs], gate)
    return Comparison(base_name or str(base), str(candidate), gate, made, notes)


def compare_sides(pairs: Sequence[tuple[Side, Side]], gate: Gate) -> tuple[Compared, ...]:
    """Compare suites side by side, (base, candidate) each; the correction for many comparisons runs over all of them.

    Raises:
        InputError: a rule of the gate is of a figure that neither side has.
    """
    gate.check([side for pair in pairs for side in pair])
    drafts = [_Draft(base, candidate, gate) for base, candidate in pairs]
    judged = _judged([row for draft in drafts for row in draft.rows], gate)
    return tuple(draft.finish([row for row in judged if row.suite == draft.name]) for draft in drafts)


def _matched(
    base: list[SuiteRecord], candidate: list[SuiteRecord], gate: Gate
) -> tuple[list[tuple[SuiteRecord, SuiteRecord]], tuple[str, ...]]:
    """Match suites by name; two single suites match whatever their names."""

    def wanted(found: list[SuiteRecord]) -> dict[str, SuiteRecord]:
        return {one.name: one for one in found if any(fnmatchcase(one.name, pattern) for pattern in gate.suites)}

    ours, theirs = wanted(base), wanted(candidate)
    if len(ours) == len(theirs) == 1 and ours.keys() != theirs.keys():
        (first,), (second,) = ours.values(), theirs.values()
        return [(first, second)], (f"Suites of different names: {first.name} against {second.name}.",)
    alone = {"base": sorted(ours.keys() - theirs.keys()), "candidate": sorted(theirs.keys() - ours.keys())}
    notes = [f"Only in the {side}, not compared: {', '.join(names)}." for side, names in alone.items() if names]
    return [(ours[name], theirs[name]) for name in ours if name in theirs], tuple(notes)


# ---- one suite -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Unit:
    """Name recipes that are compared as one."""

    level: str
    name: str
    keys: tuple[Key, ...]


class _Draft:
    """Put one suite's rows together, before they are corrected for how many there are."""

    def __init__(self, base: Side, candidate: Side, gate: Gate) -> None:
        self.base, self.candidate, self.gate, self.name = base, candidate, gate, base.name
        self.keys = [key for key in base.entries if key in candidate.entries]
        self.units = self._units()
        self._differing: dict[tuple[Key, str], list[str]] = {}
        metrics = dict.fromkeys((*base.metrics, *candidate.metrics))
        self.rules = {name: gate.rule(self.metric(name)) for name in (*metrics, HYPERVOLUME)}
        rows = [self._row(unit, metric) for metric in metrics for unit in self.units]
        self.rows = [row for row in (*rows, *self._fronts()) if row is not None]

    def _units(self) -> list[_Unit]:
        """Form the mean over all recipes, over each method's λ, and each recipe; those that draw nothing stand alone."""
        entries = self.base.entries
        found = [_Unit(RECIPE, entries[key].name, (key,)) for key in self.keys]
        drawn = [key for key in self.keys if not self._exact(key)]
        methods = _by_method(drawn)
        if len(methods) > 1:
            found = [_Unit(METHOD, name, keys) for name, keys in methods.items() if len(keys) > 1] + found
        if len(drawn) > 1:
            found.insert(0, _Unit(EVERY, f"all {len(drawn)} recipes", tuple(drawn)))
        return found

    def _exact(self, key: Key) -> bool:
        return self.base.entries[key].exact and self.candidate.entries[key].exact

    def _row(self, unit: _Unit, metric: str) -> Row | None:
        rule = self.rules[metric]
        reason = self._not_measured(unit, metric)
        if reason is None:
            return None
        reason = reason or self._not_comparable(unit, metric)
        exact = all(self._exact(key) for key in unit.keys)
        if reason:
            return self._row_of(unit, metric, None, exact=exact, reason=reason)
        return self._filled(unit, metric, of_metric(self.base, self.candidate, unit.keys, metric), rule, exact)

    def _filled(self, unit: _Unit, metric: str, made: Contrast, rule: Ruling, exact: bool = False) -> Row:
        scale, described = made.base.mean, self.metric(metric)
        return replace(
            self._row_of(unit, metric, made, exact=exact, verdict=FEW),
            worse_is={"lower": 1, "higher": -1, None: 0}[rule.better],
            tolerance=rule.tolerance.of(scale, described),
            unseen=None if rule.unseen is None else rule.unseen.of(scale, described),
        )

    def _row_of(self, unit: _Unit, metric: str, made: Contrast | None, **parts: Any) -> Row:
        """Return a row; without a contrast it is one that is not comparable."""
        gates = self.rules[metric].gate
        return Row(self.name, unit.level, unit.name, self.metric(metric), gates, made, **parts)

    def metric(self, name: str) -> Metric:
        """Return what a figure is, as the base describes it; as the candidate does where the base has none of it."""
        return (self.base if name in (*self.base.metrics, HYPERVOLUME) else self.candidate).metric(name)

    def _fronts(self) -> Iterable[Row | None]:
        """Compare the area that each method's front over λ dominates, and the mean over methods."""
        rule = self.rules[HYPERVOLUME]
        fronts = {name: keys for name, keys in _by_method(self.keys).items() if len(keys) > 1}
        level = METHOD if len(fronts) > 1 else EVERY
        units = [(_Unit(level, name, keys), [keys]) for name, keys in fronts.items()]
        if len(fronts) > 1:
            every = tuple(key for keys in fronts.values() for key in keys)
            units.insert(0, (_Unit(EVERY, f"all {len(every)} recipes", every), list(fronts.values())))
        for unit, keys in units:
            reason = self._not_comparable(unit, HYPERVOLUME)
            if reason and self.base.box is not None:
                yield self._row_of(unit, HYPERVOLUME, None, reason=reason)
            made = None if reason else of_front(self.base, self.candidate, keys)
            if made is not None:
                yield self._filled(unit, HYPERVOLUME, made, rule)

    def _not_measured(self, unit: _Unit, metric: str) -> str | None:
        """Say on which side a metric is missing; None where the base does not have it: then there is nothing to lose."""
        for place, (name, side) in enumerate((("base", self.base), ("candidate", self.candidate))):
            without = [key for key in unit.keys if not _known(side, key, metric)]
            if without and place == 0:
                return None
            if without:
                return f"missing in the {name}: {side.entries[without[0]].reasons.get(metric, 'not evaluated')}"
        return ""

    def _not_comparable(self, unit: _Unit, metric: str) -> str:
        if self.base.smoke or self.candidate.smoke:
            return "a smoke run measures nothing"
        told: list[str] = []
        for key in unit.keys:
            if (key, metric) not in self._differing:
                conditions = (side.conditions(key, metric) for side in (self.base, self.candidate))
                self._differing[key, metric] = [*differing(*conditions), *self._beside_others(key, metric)]
            told += self._differing[key, metric]
        told = list(dict.fromkeys(told))
        return "; ".join(told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else "")

    def _beside_others(self, key: Key, metric: str) -> list[str]:
        """Say where a cost was measured while other workers used the machine: what they did is in it."""
        sides = (("base", self.base), ("candidate", self.candidate))
        shared = [name for name, side in sides if side.shared(key, metric)]
        return [f"measured beside other work on the same machine ({' and '.join(shared)})"] if shared else []

    # ---- what came of it ---------------------------------------------------------------------------------------------

    def finish(self, rows: list[Row]) -> Compared:
        """Put the judged rows and what stands in the way of a verdict together."""
        return Compared(self.name, tuple(rows), tuple(dict.fromkeys(self._inconclusive(rows))), tuple(self._notes()))

    def _inconclusive(self, rows: list[Row]) -> Iterable[str]:
        base, candidate = self.base, self.candidate
        if not self.keys:
            yield "no recipe is complete on both sides"
        elif not any(row.gates for row in rows):
            yield "no gating metric was measured"
        lost = [base.entries[key].name for key in base.entries if key not in candidate.entries]
        if lost and candidate.planned:
            yield f"the candidate has no complete run of {', '.join(lost[:3])}{' …' if len(lost) > 3 else ''}"
        if candidate.planned:
            more = f" and {len(candidate.planned) - 1} more jobs" if len(candidate.planned) > 1 else ""
            yield f"the candidate is not complete: {candidate.planned[0]}{more}"
        blocked = [row for row in rows if row.gates and row.verdict in (REFUSED, FEW)]
        for (metric, verdict), group in groupby(blocked, key=lambda row: (row.metric, row.verdict)):
            first = next(group)
            yield f"{metric}: {verdict}{': ' + first.reason if first.reason else ''}"
        for metric in dict.fromkeys((*base.metrics, *candidate.metrics)):
            if self.keys and self.gate.asks_for(metric) and not any(row.metric == metric for row in rows):
                yield f"{metric}: the gate asks for it, but {self._missing(metric)}"
        coarsest = {row.metric: row.level for row in reversed(rows)}
        for row in rows:
            wide = row.unseen is not None and not row.exact and row.could_be_worse_by >= row.unseen
            if row.gates and wide and row.level == coarsest[row.metric] and row.verdict != WORSE:
                yield f"{row.metric} of {row.name}: the interval cannot exclude a worsening of {row.unseen:.3g}"

    def _missing(self, metric: str) -> str:
        """Say why the base has nothing of a metric to compare with, and whether the candidate has."""
        reason = self.base.entries[self.keys[0]].reasons.get(metric, "not evaluated")
        neither = not any(_known(self.candidate, key, metric) for key in self.keys)
        return f"it is missing {'on either side' if neither else 'in the base'}: {reason}"

    def _notes(self) -> Iterable[str]:
        lost = [entry.name for key, entry in self.base.entries.items() if key not in self.candidate.entries]
        new = [entry.name for key, entry in self.candidate.entries.items() if key not in self.base.entries]
        if lost:
            yield f"Only in the base: {', '.join(lost)}."
        if new:
            yield f"Only in the candidate: {', '.join(new)}."
        if self.base.planned:
            yield f"{len(self.base.planned)} jobs of the base are not complete."
        ours, theirs = self.base.notes(), self.candidate.notes()
        changed = [
            f"{name} {ours.get(name)} → {theirs.get(name)}" for name in ours if ours.get(name) != theirs.get(name)
        ]
        if changed:
            yield f"Made with other versions: {'; '.join(changed)}."
        yield from self._dominance()

    def _dominance(self) -> Iterable[str]:
        """Count the recipes whose mean point is worse, or better, in both objectives at once."""
        if any(row.contrast is None for row in self.rows if row.metric in self.base.objectives):
            return
        worse, better, points = [], [], 0
        for key in self.keys:
            ours, theirs = (self._point(side, key) for side in (self.base, self.candidate))
            points += 1
            worse += [self.base.entries[key].name] if tradeoff.dominates(ours, theirs) else []
            better += [self.base.entries[key].name] if tradeoff.dominates(theirs, ours) else []
        if points:
            yield (
                f"Of {points} recipes, {len(worse)} ended worse in one objective and no better in the other than in the "
                f"base, {len(better)} better in one and no worse in the other (means, without a test)."
            )

    @staticmethod
    def _point(side: Side, key: Key) -> list[float]:
        values = (list(side.entries[key].values[name].values()) for name in side.objectives)
        return [math.fsum(one) / len(one) if one else math.nan for one in values]


def _by_method(keys: Sequence[Key]) -> dict[str, tuple[Key, ...]]:
    return {method: tuple(key for key in keys if key[0] == method) for method in dict.fromkeys(key[0] for key in keys)}


def _known(side: Side, key: Key, metric: str) -> bool:
    return any(not math.isnan(value) for value in side.entries[key].values.get(metric, {}).values())


# ---- verdicts --------------------------------------------------------------------------------------------------------


def _judged(rows: Sequence[Row], gate: Gate) -> list[Row]:
    """Correct the p-values and give each row its verdict.

    Gating rows are one family, rows that are only shown another. Inside a family each level of detail that occurs (all
    recipes, method, recipe) gets an equal part of the error, and Holm's correction runs over the rows of a level.
    """
    made = list(rows)
    for gates in (True, False):
        tested = [place for place, row in enumerate(rows) if row.gates == gates and _tested(row)]
        levels = {rows[place].level for place in tested}
        for level in levels:
            places = [place for place in tested if rows[place].level == level]
            contrasts = [(rows[place], rows[place].contrast) for place in places]
            up = [made_of.p_above if made_of else math.nan for _, made_of in contrasts]
            down = [made_of.p_below if made_of else math.nan for _, made_of in contrasts]
            worse = [a if row.worse_is > 0 else b for (row, _), a, b in zip(contrasts, up, down, strict=True)]
            better = [b if row.worse_is > 0 else a for (row, _), a, b in zip(contrasts, up, down, strict=True)]
            for place, p_worse, p_better in zip(places, holm(worse), holm(better), strict=True):
                share = len(levels)
                made[place] = replace(
                    rows[place], p_worse=min(1.0, share * p_worse), p_better=min(1.0, share * p_better)
                )
    return [replace(row, verdict=_verdict(row, gate)) for row in made]


def _tested(row: Row) -> bool:
    return row.contrast is not None and not row.exact and not row.contrast.identical


def _verdict(row: Row, gate: Gate) -> str:
    if row.contrast is None:
        return REFUSED
    if row.contrast.identical:
        return IDENTICAL
    if not row.worse_is:
        return _difference(row, gate)
    if row.exact:
        return WORSE if row.worsening > row.tolerance else BETTER if -row.worsening > row.tolerance else SAME
    if not enough(row.contrast, gate.seeds):
        return FEW
    if row.p_worse <= gate.level:
        return WORSE if row.worsening > row.tolerance else SMALL
    return BETTER if row.p_better <= gate.level else SAME


def _difference(row: Row, gate: Gate) -> str:
    """Judge a figure of which neither direction is better; both of its one-sided tests share the error."""
    assert row.contrast is not None
    size = abs(row.contrast.difference.mean)
    if row.exact:
        return DIFFERENT if size > row.tolerance else SAME
    if not enough(row.contrast, gate.seeds):
        return FEW
    return DIFFERENT if 2 * min(row.p_worse, row.p_better) <= gate.level and size > row.tolerance else SAME
