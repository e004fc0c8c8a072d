"""What judges say of the same answers, and how far two of them agree.

Pairs of one prompt, judged for many policies, are not independent: every interval here is a percentile bootstrap that draws
prompts anew, each with all its pairs (Efron 1979; seeded). Pure functions, and what reads the judged pairs from records.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from report.analysis.load import Results, judge_of

Floats = NDArray[np.float64]

RESAMPLES = 2000
METHOD = f"percentile bootstrap over prompts, {RESAMPLES:,} draws"
_SEED = 20241015
_FEWEST_PROMPTS = 10  # for an interval
ORDERS = ("ours_first", "theirs_first")
LOSS, DRAW, WIN = -1, 0, 1
DECISIONS = {WIN: "won", DRAW: "drawn", LOSS: "lost"}


@dataclass(frozen=True)
class Verdict:
    """What one judge said of one pair, as seen from the policy's answer.

    Attributes:
        preference: 0 (the reference answer) to 1 (ours), the mean over the orders that it was shown in.
        orders: by order; empty where the record does not say.
        first: the preference for the answer shown first, mean over both orders; None where it was shown in one.
        longer: how many characters longer our answer is; None where the record does not say.
    """

    preference: float
    orders: tuple[float, ...] = ()
    first: float | None = None
    longer: int | None = None

    @property
    def flips(self) -> bool:
        """Whether the winner changes with the order."""
        return len({_side(one) for one in self.orders}) > 1

    @property
    def decision(self) -> int:
        """Won or lost where every order says so; a pair whose winner changes with the order is a draw (Zheng et al. 2023)."""
        return DRAW if self.flips else _side((self.orders or (self.preference,))[0])


def _side(preference: float) -> int:
    return (preference > 0.5) - (preference < 0.5)


PairKey = tuple[str, Any]
"""A policy and the id of a prompt."""


@dataclass(frozen=True)
class Share:
    """A share or another figure with its 95 % interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Disagreement:
    """One pair on which two judges part."""

    policy: str
    prompt: Any
    preferences: tuple[float, float]
    decisions: tuple[int, int]


@dataclass(frozen=True)
class Agreement:
    """How far two judges agree over the pairs that both judged, those of all policies together.

    Attributes:
        judges: their names, the main one's first.
        pairs, prompts: judged by both; prompts are what intervals draw anew.
        raw: share of the pairs with the same decision.
        kappa: Cohen's κ of the decisions; NaN where one of them decides every pair the same way, which is all chance.
        correlation: Spearman's, of the preferences; NaN where one of them never changes.
        tau: Kendall's τ-b of the recipes by mean win rate; NaN with fewer than three recipes.
        firsts: the recipe that each puts first; None where it ranks none, or all alike.
        table: pairs by the decisions of both, won, drawn and lost.
        parting: the pairs that were decided differently, furthest apart first.
    """

    judges: tuple[str, str]
    pairs: int
    prompts: int
    raw: Share
    kappa: Share
    correlation: float
    tau: float
    firsts: tuple[str | None, str | None]
    table: tuple[tuple[int, ...], ...]
    parting: tuple[Disagreement, ...]

    @property
    def same_first(self) -> bool | None:
        """Whether both put the same recipe first; None where one ranks none."""
        return None if None in self.firsts else self.firsts[0] == self.firsts[1]


# ---- reading ---------------------------------------------------------------------------------------------------------


def verdicts(results: Results) -> dict[str, dict[PairKey, Verdict]]:
    """Return what each judge said of each pair that it could judge, the main judge first; every policy of the suite counts."""
    found: dict[str, dict[PairKey, Verdict]] = {name: {} for name in results.judges}
    for job in results.judgings:
        names = [name for one in job.scores if (name := judge_of(one))] if job.complete else []
        if not names:
            continue
        policy = str(job.labels["of"])
        for row in job.rows("samples"):
            if row.get("preference") is not None:
                found[names[0]][policy, row["id"]] = _verdict(row)
    return {name: one for name, one in found.items() if one}


def _verdict(row: Mapping[str, Any]) -> Verdict:
    orders = {name: float(one) for name, one in (row.get("orders") or {}).items() if one is not None}
    both = len(orders) == len(ORDERS) and all(name in orders for name in ORDERS)
    first = (orders[ORDERS[0]] + 1 - orders[ORDERS[1]]) / 2 if both else None
    return Verdict(float(row["preference"]), tuple(orders.values()), first, row.get("length_difference"))


# ---- agreement -------------------------------------------------------------------------------------------------------


def agreements(
    found: Mapping[str, Mapping[PairKey, Verdict]], rates: Mapping[str, Mapping[str, float]]
) -> list[Agreement]:
    """Compare every two judges that judged some of the same pairs.

    Args:
        found: judge -> pair -> what it said.
        rates: judge -> recipe -> mean win rate.
    """
    made = []
    for one, other in combinations(found, 2):
        shared = [pair for pair in found[one] if pair in found[other]]
        if shared:
            made.append(_agreement((one, other), shared, found, rates))
    return made


def _agreement(
    judges: tuple[str, str],
    shared: Sequence[PairKey],
    found: Mapping[str, Mapping[PairKey, Verdict]],
    rates: Mapping[str, Mapping[str, float]],
) -> Agreement:
    first, second = ([found[judge][pair] for pair in shared] for judge in judges)
    decided = [(one.decision, other.decision) for one, other in zip(first, second, strict=True)]
    prompts = _numbered(prompt for _, prompt in shared)
    cells = np.zeros((max(prompts) + 1, 9))
    for prompt, (one, other) in zip(prompts, decided, strict=True):
        cells[prompt, 3 * (WIN - one) + (WIN - other)] += 1
    drawn = _redrawn(cells)
    preferences = np.array([[one.preference for one in side] for side in (first, second)])
    apart = [
        Disagreement(*pair, (one.preference, other.preference), both)
        for pair, one, other, both in zip(shared, first, second, decided, strict=True)
        if both[0] != both[1]
    ]
    apart.sort(key=lambda one: -abs(one.preferences[0] - one.preferences[1]))
    total = cells.sum(axis=0)
    by_rate = _of_recipes(*(rates.get(judge, {}) for judge in judges))
    return Agreement(
        judges,
        len(shared),
        len(cells),
        _share(raw_agreement(total[None])[0], raw_agreement(drawn), len(cells)),
        _share(_known_kappa(total), kappa(drawn), len(cells)),
        spearman(*preferences),
        *by_rate,
        tuple(tuple(int(count) for count in row) for row in total.reshape(3, 3)),
        tuple(apart),
    )


def raw_agreement(cells: Floats) -> Floats:
    """Return the share of pairs with the same decision, from tables of 3 × 3 counts, shape [tables, 9]."""
    made: Floats = cells[:, [0, 4, 8]].sum(axis=1) / cells.sum(axis=1)
    return made


def kappa(cells: Floats) -> Floats:
    """Return Cohen's κ = (p_o − p_e) / (1 − p_e) of tables of 3 × 3 counts, shape [tables, 9]; NaN where p_e is 1."""
    total = cells.sum(axis=1)
    square = cells.reshape(-1, 3, 3)
    expected = (square.sum(axis=2) * square.sum(axis=1)).sum(axis=1) / total**2
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = (raw_agreement(cells) - expected) / (1 - expected)
    return np.where(np.isclose(expected, 1.0), np.nan, found)


def _known_kappa(total: Floats) -> float:
    sides = total.reshape(3, 3).sum(axis=1), total.reshape(3, 3).sum(axis=0)
    constant = any(np.count_nonzero(side) == 1 for side in sides)
    return math.nan if constant else float(kappa(total[None])[0])


def spearman(one: Floats, other: Floats) -> float:
    """Return Spearman's rank correlation; NaN where a side never changes, or there are fewer than three pairs."""
    from scipy.stats import spearmanr

    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(spearmanr(one, other).statistic)


def _of_recipes(one: Mapping[str, float], other: Mapping[str, float]) -> tuple[float, tuple[str | None, str | None]]:
    """Return Kendall's τ-b of the recipes that both rate, and the recipe that each puts first."""
    from scipy.stats import kendalltau

    both = [name for name in one if name in other and not math.isnan(one[name] + other[name])]
    if len(both) < 2:
        return math.nan, (None, None)
    first, second = ([rates[name] for name in both] for rates in (one, other))
    tau = float(kendalltau(first, second).statistic) if len(both) > 2 else math.nan
    best, best_of_other = (
        [name for name in both if rates[name] == max(side)] for rates, side in ((one, first), (other, second))
    )
    if len(both) in (len(best), len(best_of_other)):
        ranked = [None if len(both) == len(names) else names[0] for names in (best, best_of_other)]
        return tau, (ranked[0], ranked[1])
    common = [name for name in best if name in best_of_other]  # of equal rates, one that both put first
    return tau, (common[0], common[0]) if common else (best[0], best_of_other[0])


# ---- intervals -------------------------------------------------------------------------------------------------------


def mean(values: Mapping[PairKey, float]) -> Share:
    """Return a mean over pairs with its interval over prompts; NaN of none."""
    if not values:
        return Share(math.nan)
    prompts = _numbered(prompt for _, prompt in values)
    sums = np.zeros((max(prompts) + 1, 2))
    for prompt, value in zip(prompts, values.values(), strict=True):
        sums[prompt] += (value, 1)
    drawn = _redrawn(sums)
    return _share(float(sums[:, 0].sum() / sums[:, 1].sum()), drawn[:, 0] / drawn[:, 1], len(sums))


def _numbered(prompts: Iterable[Any]) -> list[int]:
    """Number prompts by their first appearance."""
    places: dict[Any, int] = {}
    return [places.setdefault(prompt, len(places)) for prompt in prompts]


def _redrawn(by_prompt: Floats) -> Floats:
    """Return the sums over prompts drawn anew, shape [draws, figures], from those of each prompt, shape [prompts, figures]."""
    n = len(by_prompt)
    draws = np.random.default_rng(_SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    made: Floats = draws @ by_prompt
    return made


def _share(value: float, drawn: Floats, prompts: int) -> Share:
    """Put a figure and its interval together; too few prompts give none, nor does a figure that most draws have not."""
    known = drawn[np.isfinite(drawn)]
    if math.isnan(value) or prompts < _FEWEST_PROMPTS or len(known) < RESAMPLES / 2:
        return Share(float(value))
    low, high = np.quantile(known, [0.025, 0.975])
    return Share(float(value), float(low), float(high))
