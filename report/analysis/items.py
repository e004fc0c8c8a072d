"""How sure a difference is when both sides answered the same questions or the same pairs were judged. Pure functions.

Two checkpoints on the same items say whether *these checkpoints* differ: `mcnemar`, `bootstrapped`. Whether
the *recipes* behind them differ also depends on what another seed would have made of them: `crossed` and
`crossed_apart` count both, seeds and questions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from report.analysis.statistics import SEEDS_FOR_AN_INTERVAL, Estimate, bootstrap_interval, normal, welch_degrees

Floats = NDArray[np.float64]
FEWEST_CLUSTERS = 10


@dataclass(frozen=True)
class McNemar:
    """Count the questions on which two checkpoints differ.

    Attributes:
        only_first, only_second: questions that one side alone has right.
        p_value: exact, two-sided.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Test whether two checkpoints are right equally often on the same questions (McNemar 1947, exact).

    Of the questions that just one side has right, each side should have half: a binomial test. No such question: p = 1.

    Args:
        first, second: 1 (right) or 0 for each question, in the same order.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    total = only_first + only_second
    p_value = float(binomtest(only_first, total).pvalue) if total else 1.0
    return McNemar(only_first, only_second, p_value)


def bootstrapped(differences: Sequence[float], clusters: Sequence[Hashable], reach: float = math.inf) -> Estimate:
    """Estimate a mean paired difference over the same questions or judged pairs, by a studentized bootstrap over clusters.

    Args:
        differences: one a question.
        clusters: the subject of each; with fewer than ten subjects every question is drawn by itself.
        reach: how large a difference can be; the interval ends there.

    Returns:
        The estimate; n is the number of questions.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n < SEEDS_FOR_AN_INTERVAL:
        return Estimate(float(values.mean()) if n else math.nan, math.nan, math.nan, math.nan, n)
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    # A cluster's part of the mean: drawn with replacement, their mean is the mean over questions.
    totals = cluster_totals(values[None, :], clusters)[0]
    sizes = cluster_totals(np.ones((1, n)), clusters)[0]
    groups = len(totals)
    parts = mean + (totals - mean * sizes) * groups / n
    low, high = bootstrap_interval(tuple(parts.tolist()))
    error = float(parts.std(ddof=1)) / math.sqrt(groups)
    return Estimate(mean, sd, max(low, -reach), min(high, reach), n, error, groups - 1)


def cluster_totals(values: Floats, clusters: Sequence[Hashable]) -> Floats:
    """Add up each row's values by cluster, (rows, clusters); with fewer than ten clusters each value is its own."""
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    if len(places) < FEWEST_CLUSTERS:
        return values
    index = np.fromiter((places[name] for name in clusters), dtype=np.intp, count=len(clusters))
    totals = np.zeros((values.shape[0], len(places)))
    for row, of_row in zip(totals, values, strict=True):
        np.add.at(row, index, of_row)
    return totals


# ---- seeds and questions ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """Take seeds × questions apart: means over both, and the variances of the mean due to each."""

    mean: float
    by_cluster: Floats
    of_seeds: float
    of_both: float
    seeds: int


def _side(values: Floats, clusters: Sequence[Hashable]) -> _Side:
    seeds, questions = values.shape
    totals = cluster_totals(values, clusters) / questions
    sizes = cluster_totals(np.ones((1, questions)), clusters)[0] / questions
    by_seed, by_cluster = totals.sum(axis=1), totals.mean(axis=0)
    mean, groups = float(by_seed.mean()), totals.shape[1]
    rest = totals - by_cluster - np.outer(by_seed - mean, sizes)
    of_both = groups / (groups - 1) * float((rest**2).sum()) / (seeds * (seeds - 1))
    return _Side(mean, by_cluster - mean * sizes, float(by_seed.var(ddof=1)) / seeds, of_both, seeds)


def _combined(mean: float, of_seeds: list[tuple[float, float]], by_cluster: Floats, of_both: float, n: int) -> Estimate:
    """Add the questions' part to the seeds'; what is due to both at once is in each of them and counts once."""
    groups = len(by_cluster)
    of_questions = groups / (groups - 1) * float((by_cluster**2).sum())
    seeds_alone = math.fsum(variance for variance, _ in of_seeds)
    if of_questions <= of_both:
        return normal(mean, math.sqrt(seeds_alone), welch_degrees(*of_seeds), n)
    total = seeds_alone + of_questions - of_both
    least = math.fsum(degrees for _, degrees in of_seeds)
    parts = [*of_seeds, (of_questions, groups - 1.0), (of_both, least * (groups - 1))]
    below = math.fsum(variance**2 / degrees for variance, degrees in parts)
    return normal(mean, math.sqrt(total), total**2 / below if below else least, n)


def crossed(differences: ArrayLike, clusters: Sequence[Hashable]) -> Estimate:
    """Estimate a mean difference over seeds *and* questions, both a sample of what there could be.

    The variance of the mean is V_seed + V_subject − V_both (two-way random effects; Cameron, Gelbach and Miller 2011), where
    V_subject counts only if it exceeds V_both; degrees of freedom after Satterthwaite (1946). So it is Student's t over
    per-seed differences, widened where some subjects changed more than others on every seed.

    Args:
        differences: (seeds, questions), the difference on each question with each seed.
        clusters: the subject of each question.

    Returns:
        The estimate; n is the number of seeds, and fewer than three give no interval.
    """
    values = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    seeds = values.shape[0]
    if seeds < SEEDS_FOR_AN_INTERVAL or values.shape[1] < 2:
        return Estimate(float(values.mean()), math.nan, math.nan, math.nan, seeds)
    side = _side(values, clusters)
    return _combined(side.mean, [(side.of_seeds, seeds - 1.0)], side.by_cluster, side.of_both, seeds)


def crossed_apart(first: ArrayLike, second: ArrayLike, clusters: Sequence[Hashable], pool: bool = False) -> Estimate:
    """Estimate mean(first) − mean(second) when the seeds of both sides are not the same; see `crossed`.

    Args:
        first, second: (seeds, questions) of each side, over the same questions.
        clusters: the subject of each question.
        pool: take one variance over seeds for both sides, as `statistics.pooled` does.
    """
    a, b = (np.atleast_2d(np.asarray(one, dtype=np.float64)) for one in (first, second))
    n = min(a.shape[0], b.shape[0])
    if n < SEEDS_FOR_AN_INTERVAL or a.shape[1] < 2:
        return Estimate(float(a.mean() - b.mean()), math.nan, math.nan, math.nan, n)
    ours, theirs = _side(a, clusters), _side(b, clusters)
    of_seeds = [(side.of_seeds, side.seeds - 1.0) for side in (ours, theirs)]
    if pool:
        degrees = ours.seeds + theirs.seeds - 2.0
        squares = math.fsum(side.of_seeds * side.seeds * (side.seeds - 1) for side in (ours, theirs))
        of_seeds = [(squares / degrees * (1 / ours.seeds + 1 / theirs.seeds), degrees)]
    by_cluster = ours.by_cluster - theirs.by_cluster
    return _combined(ours.mean - theirs.mean, of_seeds, by_cluster, ours.of_both + theirs.of_both, n)
