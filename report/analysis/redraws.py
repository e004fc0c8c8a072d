"""Draw seeds, questions and judged pairs anew, the same draw for every recipe: a paired bootstrap (Efron 1979).

Entry 0 of every array is what was measured; entries 1 to `draws` are redraws.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bench.records.record import Job
from report.analysis.load import Results, is_accuracy

Floats = NDArray[np.float64]

DRAWS = 2000
# With fewer subjects, drawing whole ones would say more about their number than about the questions.
SUBJECTS_TO_CLUSTER = 10
_SEED = 0
_CHUNK = 200


@dataclass(frozen=True)
class Redrawn:
    """Hold one score of many policies, redrawn.

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
        outcomes = {of: _outcomes(self.results.evaluation_jobs(of), name) for of in known}
        factor = 1.0 if is_accuracy(name) else 100.0
        for of, found in outcomes.items():
            mean = math.fsum(found.values()) / len(found) if found else math.nan
            if not math.isclose(mean * factor, measured[of].number, rel_tol=1e-6, abs_tol=1e-6):
                why = "do not add up to its score" if found else "are not on record"
                constant = {one: np.full(self.draws + 1, measured[one].number) for one in known}
                return Redrawn(constant, why_not=f"{name}: the single outcomes of {of} {why}")
        values = {of: values * factor for of, values in self._redraw(name, outcomes).items()}
        for of in known:
            values[of][0] = measured[of].number
        return Redrawn(values, _words(name, outcomes))

    def _redraw(self, name: str, outcomes: dict[str, dict[tuple[str, int], float]]) -> dict[str, Floats]:
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
    """Hold what is drawn: each item's unit, and the groups of units inside which drawing happens."""

    names: list[tuple[str, int]]
    of: dict[tuple[str, int], int]
    strata: list[list[int]]


def _units(items: Sequence[tuple[str, int]]) -> _Units:
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


def _outcomes(jobs: Sequence[Job], name: str) -> dict[tuple[str, int], float]:
    """Read what a score is the mean of: (subject, question) -> right or not, or ("", pair) -> preference."""
    column = "correct" if is_accuracy(name) else "preference"
    found = {}
    for job in jobs:
        if job.complete and name in job.scores:
            for row in job.rows("samples"):
                of_task = row.get("task", name.split("/")[0]) == name.split("/")[0] or not is_accuracy(name)
                if of_task and row.get(column) is not None:
                    found[str(row.get("subject", "")), int(row["id"])] = float(row[column])
    return found


def _words(name: str, outcomes: dict[str, dict[tuple[str, int], float]]) -> str:
    items = {item for found in outcomes.values() for item in found}
    if not is_accuracy(name):
        return f"{len(items)} judged pairs ({name})"
    task, subjects = name.removesuffix("/acc"), len({subject for subject, _ in items})
    if subjects >= SUBJECTS_TO_CLUSTER:
        return f"{subjects} subjects of {task}, each with all its questions ({len(items)} in all)"
    return f"{len(items)} questions of {task}" + (f", inside each of {subjects} subjects" if subjects > 1 else "")
