"""Draw seeds, questions and judged pairs anew, the same draw for every recipe: a paired bootstrap (Efron 1979).

Entry 0 of every array is what was measured; entries 1 to `draws` are redraws.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bench.records.metrics import Metric
from report.analysis.load import Results, judge_of
from report.analysis.outcomes import Question
from report.analysis.outcomes import read as read_outcomes

Floats = NDArray[np.float64]
Outcomes = dict[Question, float]

DRAWS = 2000
# With fewer subjects, drawing whole ones would say more about their number than about the questions.
SUBJECTS_TO_CLUSTER = 10
_SEED = 0
_CHUNK = 200


@dataclass(frozen=True)
class Redrawn:
    """One score of many policies, redrawn.

    Attributes:
        values: policy (training job's id or "base") -> array of `draws` + 1, in the record's unit.
        what: what was drawn, in words; "" where the score stays as measured, with the reason in `why_not`.
    """

    values: dict[str, Floats]
    what: str = ""
    why_not: str = ""


class Redraws:
    """Make the draws of one choice; equal arguments give equal draws."""

    def __init__(self, results: Results, seeds: Sequence[int], draws: int = DRAWS) -> None:
        self.results, self.seeds, self.draws = results, tuple(seeds), draws
        chance = np.random.default_rng([_SEED, 0])
        counts = chance.multinomial(len(seeds), [1 / len(seeds)] * len(seeds), size=draws)
        #: how often each seed was drawn: one row a draw, one column a seed
        self.seed_counts = np.vstack([np.ones(len(seeds)), counts])

    def over_seeds(self, by_seed: dict[int, Floats]) -> Floats:
        """Return the mean over the seeds drawn, of those that have a value; NaN in a draw of none of them."""
        places = [self.seeds.index(seed) for seed in by_seed]
        counts = self.seed_counts[:, places]
        values = np.stack([np.broadcast_to(value, self.draws + 1) for value in by_seed.values()], axis=1)
        with np.errstate(invalid="ignore"):
            return cast(Floats, (counts * values).sum(axis=1) / counts.sum(axis=1))

    def score(self, name: str, policies: Sequence[str]) -> Redrawn:
        """Redraw a score's questions or judged pairs.

        The score stays as measured where any policy's outcomes are not on record, or do not add up to its score.
        """
        measured = {of: self.results.score(of, name) for of in policies}
        known = [of for of in policies if measured[of].value is not None]
        outcomes = {of: self._outcomes(of, name) for of in known}
        for of, found in outcomes.items():
            mean = math.fsum(found.values()) / len(found) if found else math.nan
            if not math.isclose(mean, measured[of].compared, rel_tol=1e-6, abs_tol=1e-6):
                why = "do not add up to its score" if found else "are not on record"
                constant = {one: np.full(self.draws + 1, measured[one].number) for one in known}
                return Redrawn(constant, why_not=f"the single outcomes of {of} {why}")
        metric = self.results.metric(name)
        values = {
            of: np.exp(drawn) if metric.scale == "log" else drawn for of, drawn in self._redraw(name, outcomes).items()
        }
        for of in known:
            values[of][0] = measured[of].number
        return Redrawn(values, _words(metric, outcomes))

    def _outcomes(self, of: str, name: str) -> Outcomes:
        """Read what a policy's score is the mean of."""
        jobs = (job for job in self.results.evaluation_jobs(of) if job.complete and name in job.scores)
        job = next(jobs, None)
        return {} if job is None else read_outcomes(job, name)

    def _redraw(self, name: str, outcomes: Mapping[str, Outcomes]) -> dict[str, Floats]:
        items = sorted({item for found in outcomes.values() for item in found})
        units = _units(items)
        sums, counts = (np.zeros((len(units.names), len(outcomes))) for _ in range(2))
        for place, found in enumerate(outcomes.values()):
            for item, value in found.items():
                sums[units.of[item], place] += value
                counts[units.of[item], place] += 1
        made = np.empty((self.draws + 1, len(outcomes)))
        chance = np.random.default_rng([_SEED, *name.encode()])
        for start in range(1, self.draws + 1, _CHUNK):
            stop = min(start + _CHUNK, self.draws + 1)
            drawn = np.zeros((stop - start, len(units.names)))
            for members in units.strata:
                drawn[:, members] = chance.multinomial(len(members), [1 / len(members)] * len(members), stop - start)
            with np.errstate(invalid="ignore"):
                made[start:stop] = (drawn @ sums) / (drawn @ counts)
        return {of: made[:, place] for place, of in enumerate(outcomes)}


@dataclass(frozen=True)
class _Units:
    """What is drawn: each item's unit, and the groups of units inside which drawing happens."""

    names: list[Question]
    of: dict[Question, int]
    strata: list[list[int]]


def _units(items: Sequence[Question]) -> _Units:
    """Draw whole subjects where there are enough of them, questions inside their subject otherwise."""
    subjects = sorted({subject for subject, _ in items})
    if len(subjects) >= SUBJECTS_TO_CLUSTER:
        places = {subject: place for place, subject in enumerate(subjects)}
        names = [(subject, 0) for subject in subjects]
        return _Units(names, {item: places[item[0]] for item in items}, [list(range(len(subjects)))])
    strata: dict[str, list[int]] = defaultdict(list)
    for place, (subject, _) in enumerate(items):
        strata[subject].append(place)
    return _Units(list(items), {item: place for place, item in enumerate(items)}, list(strata.values()))


def _words(metric: Metric, outcomes: Mapping[str, Outcomes]) -> str:
    items = {item for found in outcomes.values() for item in found}
    subjects = len({subject for subject, _ in items})
    item, of = metric.item or "outcome", metric.name if judge_of(metric.name) else metric.name.split("/")[0]
    if subjects >= SUBJECTS_TO_CLUSTER:
        return f"{subjects} subjects of {of}, each with all its {item}s ({len(items)} in all)"
    return f"{len(items)} {item}s of {of}" + (f", inside each of {subjects} subjects" if subjects > 1 else "")
