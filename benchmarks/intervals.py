"""How often intervals hold the truth, how often `bench compare` cries wolf, and whether it sees what is there: by simulation.

python benchmarks/intervals.py            # 2,000 draws each; some minutes
python benchmarks/intervals.py --quick    # 200 draws, wider limits
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.records.metrics import Metric, undescribed
from report.analysis import items, tradeoff
from report.analysis.checkpoints import Answers
from report.analysis.fronts import Box
from report.analysis.gate import Gate
from report.analysis.metrics import DERIVED
from report.analysis.outcomes import Question
from report.analysis.sides import Entry, Key
from report.analysis.statistics import Estimate, estimate, independent, paired
from report.compare import compare

Floats = NDArray[np.float64]
Generator = np.random.Generator
Draw = Callable[[Generator], tuple[Estimate, float]]

SUBJECTS, QUESTIONS = 57, 2000
SUBJECT_OF = np.sort(np.arange(QUESTIONS) % SUBJECTS)
ASKED: tuple[Question, ...] = tuple((f"subject {subject}", place) for place, subject in enumerate(SUBJECT_OF))


# ---- intervals -------------------------------------------------------------------------------------------------------


def _seeds(n: int) -> Draw:
    """Gaps f(run) − f*(optimum) of n seeds around 0.3, both with noise of their own."""
    return lambda rng: (
        paired(dict(enumerate(1.3 + rng.normal(0, 0.02, n))), dict(enumerate(1.0 + rng.normal(0, 0.02, n)))),
        0.3,
    )


def _skewed(n: int) -> Draw:
    """Draw n skewed seconds: 60 plus a gamma with mean 20."""
    return lambda rng: (estimate((60 + rng.gamma(4.0, 5.0, n)).tolist()), 80.0)


def _apart(rng: Generator) -> tuple[Estimate, float]:
    return independent((rng.normal(1.0, 0.05, 3)).tolist(), (rng.normal(0.9, 0.03, 4)).tolist()), 0.1


def _hypervolume(n: int) -> Draw:
    """Areas below (1, 1) of fronts of three points with independent noise; the truth is the mean over many draws."""
    ends = np.array([[0.2, 0.6], [0.4, 0.4], [0.6, 0.2]])

    def area(rng: Generator) -> float:
        return tradeoff.hypervolume(ends + rng.normal(0, 0.02, (3, 2)), (1.0, 1.0))

    many = np.random.default_rng(5)
    truth = float(np.mean([area(many) for _ in range(20_000)]))
    return lambda rng: (estimate([area(rng) for _ in range(n)]), truth)


def _spread(rng: Generator) -> tuple[Estimate, float]:
    """Distances between two ends (0, 3) and (4, 0), far against their noise: 5, and 0.02² / (2 · 5) · 2 of bias."""
    ends = np.array([[0.0, 3.0], [4.0, 0.0]])
    made = [tradeoff.spread(ends + rng.normal(0, 0.02, (2, 2))) for _ in range(5)]
    return estimate(made), 5.0 + 2 * 0.02**2 / 10


def _ideal_distance(rng: Generator) -> tuple[Estimate, float]:
    """Distances of gaps around (0.3, 0.4), with noise of 0.02 in run and optimum each; bias s² / (2 · 0.5), s² = 2 · 0.02²."""
    gaps = np.array([0.3, 0.4]) + rng.normal(0, 0.02 * 2**0.5, (3, 2))
    return estimate(tradeoff.ideal_distance(gaps[:, 0], gaps[:, 1]).tolist()), 0.5 + 2 * 0.02**2 / (2 * 0.5)


def _checkpoints(rng: Generator) -> tuple[Estimate, float]:
    """Two checkpoints on MMLU-like questions, 0.02 apart, with subjects that differ by 0.05 from each other."""
    shift = 0.02 + rng.normal(0, 0.05, SUBJECTS)[SUBJECT_OF]
    base = rng.uniform(0.3, 0.6, QUESTIONS)
    both = rng.random(QUESTIONS)
    first, second = both < base + shift, both < base
    return items.bootstrapped((first.astype(float) - second).tolist(), SUBJECT_OF.tolist(), 1.0), 0.02


def _win_rates(pairs: int) -> Draw:
    """Preferences in percent for the same pairs, correlated, mean 5 apart."""

    def draw(rng: Generator) -> tuple[Estimate, float]:
        common = rng.normal(0, 15, pairs)
        first, second = (mean + common + rng.normal(0, 15, pairs) for mean in (50.0, 45.0))
        return items.bootstrapped((first - second).tolist(), range(pairs), 100.0), 5.0

    return draw


def _crossed(shared: bool) -> Draw:
    """Differences over three seeds and MMLU-like questions, 0.02 apart: seeds 0.01, subjects 0.03, answers 0.4."""

    def side(rng: Generator, seeds: int) -> Floats:
        return rng.normal(0, 0.01, (seeds, 1)) + rng.normal(0, 0.4, (seeds, QUESTIONS))

    def draw(rng: Generator) -> tuple[Estimate, float]:
        first, second = side(rng, 3) + 0.02 + rng.normal(0, 0.03, SUBJECTS)[SUBJECT_OF], side(rng, 3)
        subjects = SUBJECT_OF.tolist()
        return (
            items.crossed(first - second, subjects) if shared else items.crossed_apart(first, second, subjects)
        ), 0.02

    return draw


INTERVALS: dict[str, Draw] = {
    "3 paired seeds (Student)": _seeds(3),
    "9 paired seeds (Student)": _seeds(9),
    "10 paired seeds (bootstrap)": _seeds(10),
    "20 skewed seeds (bootstrap)": _skewed(20),
    "3 against 4 other seeds (Welch)": _apart,
    "hypervolume, 3 seeds": _hypervolume(3),
    "hypervolume, 12 seeds": _hypervolume(12),
    "spread over λ, 5 seeds": _spread,
    "ideal distance, 3 seeds": _ideal_distance,
    "two checkpoints, clustered by subject": _checkpoints,
    "win rates, 48 pairs (bootstrap)": _win_rates(48),
    "win rates, 640 pairs (bootstrap)": _win_rates(640),
    "3 seeds and 2,000 questions": _crossed(shared=True),
    "3 against 3 other seeds and 2,000 questions": _crossed(shared=False),
}


def coverage(draw: Draw, draws: int, seed: int = 1) -> float:
    """Return the share of draws whose 95 % interval holds the truth."""
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(draws):
        made, truth = draw(rng)
        hits += made.low <= truth <= made.high
    return hits / draws


# ---- compare ---------------------------------------------------------------------------------------------------------


@dataclass
class Simulated:
    """Stand for one side's records: what `bench compare` reads of a suite, drawn instead of trained."""

    found: dict[Key, Entry]
    asked: dict[Key, dict[int, Answers]] = field(default_factory=dict)
    name: str = "simulated"
    smoke: bool = False
    planned: tuple[str, ...] = ()
    objectives: tuple[str, str] = ("f_dpo/held_out", "f_sft/held_out")

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*self.objectives, "ideal_distance", "mmlu/acc", "win_rate/judge", "training_seconds")

    @property
    def entries(self) -> Mapping[Key, Entry]:
        return self.found

    @property
    def box(self) -> Box:
        return Box((1.0, 1.0), (0.0, 0.0))

    def metric(self, name: str) -> Metric:
        return DERIVED.get(name) or undescribed(name, "s")

    def answers(self, key: Key, metric: str) -> dict[int, Answers]:
        return self.asked.get(key, {}) if metric == "mmlu/acc" else {}

    def shared(self, key: Key, metric: str) -> bool:
        return False

    def conditions(self, key: Key, metric: str) -> dict[str, Any]:
        return {}

    def notes(self) -> dict[str, str]:
        return {}


def simulated(
    rng: Generator,
    seeds: range,
    methods: int = 1,
    lambdas: int = 1,
    mmlu_drop: float = 0.0,
    dropped: int | None = None,
    questions: bool = True,
) -> Simulated:
    """Draw one side: recipes with unlike noise, and a part of it common to all recipes of a seed.

    Args:
        mmlu_drop: by how much MMLU is lower, in `dropped` recipes or (None) in all.
        questions: keep single answers, not only how many are right.
    """
    common = {seed: rng.normal(0, 1, 5) for seed in seeds}
    found, asked = {}, {}
    for place in range(methods * lambdas):
        key: Key = (f"method {place // lambdas}", (1 + place % lambdas) / (1 + lambdas), None)
        lowered = mmlu_drop if dropped is None or place < dropped else 0.0
        noise = 1.0 + place % 3  # recipes are not equally steady
        values: dict[str, dict[int, float]] = {}
        drawn = {seed: 0.5 * common[seed] + noise * rng.normal(0, 1, 5) for seed in seeds}
        scales = {"f_dpo/held_out": (0.4, 0.01), "f_sft/held_out": (0.5, 0.01), "ideal_distance": (0.3, 0.01)}
        scales |= {"win_rate/judge": (40.0, 2.0), "training_seconds": (60.0, 3.0)}
        for column, (name, (mean, scale)) in enumerate(scales.items()):
            values[name] = {seed: float(mean + scale * drawn[seed][column]) for seed in seeds}
        level = {seed: 0.45 - lowered + 0.004 * rng.normal() for seed in seeds}
        if not questions:
            level = {seed: rng.binomial(QUESTIONS, one) / QUESTIONS for seed, one in level.items()}
        else:
            asked[key] = {seed: _answered(rng, level[seed]) for seed in seeds}
            level = {seed: float(one.values.mean()) for seed, one in asked[key].items()}
        values["mmlu/acc"] = level
        found[key] = Entry(key[0], f"{key[0]} at λ = {key[1]:g}", False, values, {})
    return Simulated(found, asked)


_EASE = np.random.default_rng(9).normal(0, 2, QUESTIONS)  # in logits: two checkpoints agree on seven questions of ten


def _answered(rng: Generator, level: float) -> Answers:
    """Draw right and wrong answers around a level, each question with an ease of its own that all checkpoints share."""
    shift = 1.75 * np.log(level / (1 - level))  # so that the mean over these questions is about the level
    right = rng.random(QUESTIONS) < 1 / (1 + np.exp(-(shift + _EASE)))
    return Answers(ASKED, right.astype(np.float64))


def outcomes(draws: int, seed: int = 2, same_seeds: bool = False, **candidate: Any) -> dict[int, float]:
    """Compare simulated sides and return the share of each exit code (0, 1, 3).

    Args:
        same_seeds: whether both sides ran seeds 0 to 2 (with noise of their own even so), or the candidate 3 to 5.
        candidate: what differs in the candidate; `methods`, `lambdas` and `questions` hold for both sides.
    """
    rng = np.random.default_rng(seed)
    both = {name: candidate[name] for name in ("methods", "lambdas", "questions") if name in candidate}
    counts = {0: 0, 1: 0, 3: 0}
    for _ in range(draws):
        base = simulated(rng, range(3), **both)
        other = simulated(rng, range(3) if same_seeds else range(3, 6), **candidate)
        (made,) = compare.compare_sides([(base, other)], Gate())
        code = 1 if made.regressions else 3 if made.inconclusive else 0
        counts[code] += 1
    return {code: count / draws for code, count in counts.items()}


# ---- all of it -------------------------------------------------------------------------------------------------------


def measure(quick: bool) -> list[dict[str, Any]]:
    """Measure every interval's coverage and compare's false alarms and power.

    Args:
        quick: 200 draws with wider limits instead of 2,000.

    Returns:
        Rows of name, value (a share), goal, holds and note.
    """
    draws, low, high = (200, 0.90, 0.995) if quick else (2000, 0.93, 0.97)
    rows = []
    for name, draw in INTERVALS.items():
        value = coverage(draw, draws)
        goal = f"{100 * low:g} to {100 * high:g} %"
        rows.append(_row(f"coverage: {name}", value, goal, low <= value <= high, f"{draws} draws, 95 % intervals"))
    many: dict[str, Any] = {"methods": 4, "lambdas": 3, "questions": False}
    slack = 0.03 if quick else 0.005
    for words, arguments in (
        ("1 recipe, other seeds", {}),
        ("1 recipe, same seeds", {"same_seeds": True}),
        ("12 recipes, other seeds", many),
        ("12 recipes, same seeds", many | {"same_seeds": True}),
    ):
        shares = outcomes(draws, **arguments)
        rows.append(
            _row(f"false alarms: {words}", shares[1], "at most 5 %", shares[1] <= 0.05 + slack, f"{draws} draws")
        )
        rows.append(
            _row(f"equal sides pass: {words}", shares[0], "at least 95 %", shares[0] >= 0.95 - slack, f"{draws} draws")
        )
    lowered = "5 points of MMLU less, 2,000 questions, 3 seeds"
    for words, arguments, least in (
        ("1 recipe, other seeds", {"mmlu_drop": 0.05}, 0.9),
        ("1 recipe, same seeds", {"mmlu_drop": 0.05, "same_seeds": True}, 0.9),
        ("4 of 4 recipes", {"mmlu_drop": 0.05, "methods": 4}, 0.95),
        ("12 of 12 recipes", many | {"mmlu_drop": 0.05}, 0.95),
        ("1 of 12 recipes", many | {"mmlu_drop": 0.05, "dropped": 1}, None),
    ):
        value = outcomes(draws // 4, **arguments)[1]
        told = "shown, no goal" if least is None else f"at least {100 * least:g} %"
        rows.append(
            _row(f"caught: {lowered}: {words}", value, told, least is None or value >= least, f"{draws // 4} draws")
        )
    return rows


def _row(name: str, value: float, goal: str, holds: bool, note: str) -> dict[str, Any]:
    return {"name": name, "value": value, "goal": goal, "holds": bool(holds), "note": note}


if __name__ == "__main__":
    for row in measure("--quick" in sys.argv[1:]):
        print(
            f"{'holds ' if row['holds'] else 'MISSED'} {row['value']:7.3f}  {row['goal']:<16} {row['name']} ({row['note']})"
        )
