"""Pandas frames from records: one row per run with everything derived from it, and one per recipe over its seeds.

A recipe is a method at one λ. A figure that is missing is NaN in the frame and has its reason beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from bench.records.metrics import Metric
from report.analysis import derived, tradeoff
from report.analysis.comparable import Comparable
from report.analysis.derived import combine
from report.analysis.load import OBJECTIVES, SPLITS, Measured, Results, Run, judge_of, missing
from report.analysis.pairwise import Together, spreads
from report.analysis.statistics import SEEDS_FOR_AN_INTERVAL, Estimate, estimate, paired

RecipeKey: TypeAlias = "tuple[str, float | None]"

_RATIO_OF = {"seconds_per_step": "training_seconds", "joules_per_token": "energy_joules"}
IDENTITY = ("job", "method", "base_method", "lambda_dpo", "seed")


def rounded(nats: float) -> float:
    """Round to what float32 leaves of an objective value: the same run computed in two ways differs below that."""
    return round(nats, 5)


def inside(one: Measured, other: Measured) -> bool:
    """Whether two medians cannot be told apart: each lies in the middle half of the other's samples."""
    if one.quartiles is None or other.quartiles is None:
        return False
    (low, high), (other_low, other_high) = one.quartiles, other.quartiles
    return other_low <= one.number <= other_high and low <= other.number <= high


def recipe_name(method: str, lambda_dpo: float | None) -> str:
    """Name a recipe in text."""
    return method if lambda_dpo is None else f"{method} at λ = {lambda_dpo:g}"


@dataclass(frozen=True)
class RecipeResults:
    """What came of one recipe, a method at one λ, over its seeds.

    Attributes:
        figures: seed -> figure name -> what was measured or derived.
        jobs: seed -> training job.
        metric: says what a figure is.
    """

    method: str
    base_method: str
    lambda_dpo: float | None
    jobs: dict[int, str]
    figures: dict[int, dict[str, Measured]] = field(repr=False)
    metric: Callable[[str], Metric] = field(repr=False, compare=False)

    @property
    def key(self) -> RecipeKey:
        """What tells recipes apart."""
        return self.method, self.lambda_dpo

    @property
    def name(self) -> str:
        """The recipe in words."""
        return recipe_name(self.method, self.lambda_dpo)

    @property
    def anchor(self) -> str:
        """The id of this recipe's runs in the report."""
        letters = "".join(letter if letter.isalnum() else "-" for letter in self.method.lower())
        tail = "" if self.lambda_dpo is None else f"-{self.lambda_dpo:g}".replace(".", "_")
        return f"runs-{letters}{tail}"

    def values(self, name: str) -> dict[int, float]:
        """Return a figure by seed, on the scale on which it compares; NaN where not measured."""
        return {seed: figures[name].compared if name in figures else math.nan for seed, figures in self.figures.items()}

    def estimate(self, name: str) -> Estimate:
        """Estimate a figure over the seeds; its interval ends where its values do."""
        return estimate(list(self.values(name).values())).inside(*self.metric(name).range)

    def reason(self, name: str) -> str:
        """Say why a figure is missing on every seed."""
        reasons = [figures[name].reason for figures in self.figures.values() if name in figures]
        return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or "no complete run"

    def shared(self, name: str) -> bool:
        """Whether any seed's figure was measured while other workers used the machine."""
        return any(figures[name].shared for figures in self.figures.values() if name in figures)

    def quartiles(self, name: str) -> tuple[float, float] | None:
        """Return where the middle half of a median's samples lies, mean over seeds; None where it is not on record."""
        known = [one.quartiles for figures in self.figures.values() if (one := figures.get(name)) and one.quartiles]
        if not known:
            return None
        return math.fsum(low for low, _ in known) / len(known), math.fsum(high for _, high in known) / len(known)

    def own_interval(self, name: str) -> tuple[float, float] | None:
        """Return a score's interval over its questions or pairs if there is just one seed, on the scale of estimates."""
        known = [
            figures[name] for figures in self.figures.values() if name in figures and figures[name].value is not None
        ]
        if len(known) != 1 or known[0].interval is None:
            return None
        low, high = known[0].interval
        return (math.log(low), math.log(high)) if known[0].log else (low, high)

    def standard_error(self, name: str) -> float:
        """Return the score's own standard error (over questions or pairs) if there is just one seed; NaN otherwise."""
        known = [
            figures[name] for figures in self.figures.values() if name in figures and figures[name].value is not None
        ]
        return known[0].error if len(known) == 1 else math.nan


class Tables:
    """Derive every figure of a suite from its records.

    Args:
        results: the records.
        refuse: leave out what does not compare with most of the suite's runs; False where both sides of a comparison are
            looked at themselves.
    """

    def __init__(self, results: Results, refuse: bool = True) -> None:
        self.results, self._refuse = results, refuse
        self.scores = results.score_names
        self.comparable = Comparable(results)
        self.utilization = self._utilization()
        self.best_seen = {(name, seed): self._best_seen(name, seed) for name in OBJECTIVES for seed in self._seeds()}
        self._together: dict[frozenset[RecipeKey], Together | None] = {}
        self._runs = {(run.method, run.lambda_dpo, run.seed): run for run in results.runs}

    def metric(self, name: str) -> Metric:
        """Return what a figure is."""
        if name == "utilization_increase_percent":
            return replace(self.results.metric(name), title=self.results.metric(self.utilization).title)
        return self.results.metric(name)

    @property
    def main_scores(self) -> tuple[str, ...]:
        """The first score of each task, before all one with a better direction, and the main judge's win rate: for a few words.

        Where no judge is the main one, that of every judge.
        """
        found: dict[str, str] = {}
        for name in sorted(self.scores, key=lambda one: self.metric(one).better is None):
            found.setdefault(name if judge_of(name) else name.split("/")[0], name)
        return tuple(name for name in self.scores if name in found.values() and not self.results.is_beside(name))

    @property
    def ranking_scores(self) -> tuple[str, ...]:
        """Those that say which of two policies is better; how far one moved from its base does not."""
        return tuple(name for name in self.main_scores if self.metric(name).better and not name.startswith("base_kl/"))

    @cached_property
    def costs(self) -> tuple[str, ...]:
        """The costs and counts of a run, as on record and as derived from them."""
        measured = ("steps", *(name for name in self.results.measurement_names if name != "steps"))
        ratios = (name for name, total in _RATIO_OF.items() if total in measured)
        return (*measured, "all_in_seconds", *ratios, "ideal_distance_at_equal_tokens")

    def _seeds(self) -> set[int]:
        return {run.seed for run in self.results.trained}

    def _utilization(self) -> str:
        """Choose the utilization to report: the GPU's where any run measured it, the CPU's otherwise."""
        measured = any(run.measurement("gpu_utilization_percent").value is not None for run in self.results.runs)
        return "gpu_utilization_percent" if measured else "cpu_utilization_percent"

    def _best_seen(self, objective: str, seed: int) -> Measured:
        """Return an objective's lowest value along any run of this seed, or at its end, which f* should not exceed."""
        name = f"f_{objective}/{self.results.split}"
        points = [point for run in self.results.trained if run.seed == seed for point in run.trajectory]
        values = [float(point[name]) for point in points if point.get(name) is not None]
        ends = (run.objective(name).value for run in self.results.trained if run.seed == seed and not run.trains)
        values += [value for value in ends if value is not None]
        return Measured(min(values)) if values else missing(f"no {name} on record")

    # ---- one run ----------------------------------------------------------------------------------------------------

    def figures(self, run: Run) -> dict[str, Measured]:
        """Derive everything about one training job."""
        made = {f"f_{name}/{split}": run.objective(f"f_{name}/{split}") for name in OBJECTIVES for split in SPLITS}
        for prefix, optimum in (
            ("", self.results.optimum),
            ("best_seen_", lambda name, seed: self.best_seen[name, seed]),
        ):
            for name in OBJECTIVES:
                value = made[f"f_{name}/{self.results.split}"]
                made[f"{prefix}gap_{name}"] = combine(tradeoff.optimality_gap, value, optimum(name, run.seed))
            gaps = [made[f"{prefix}gap_{name}"] for name in OBJECTIVES]
            made[f"{prefix}ideal_distance"] = combine(tradeoff.ideal_distance, *gaps)
        nothing = [why for name in OBJECTIVES if (why := self.results.nothing_learned(name, run.seed))]
        if nothing:
            made["ideal_distance"] = missing("; ".join(nothing))
        if self.distance != "ideal_distance":
            made[self.distance] = self._held_out_distance(made, run.seed)
        made |= {name: self.results.score(run.id, name) for name in self.scores}
        made |= {name: run.measurement(name) for name in self.results.measurement_names}
        made["steps"] = run.steps
        made["all_in_seconds"] = self._all_in(run)
        if "run" in run.roles:
            made["runtime_increase_percent"] = self._increase(run, "training_seconds")
            made["utilization_increase_percent"] = self._increase(run, self.utilization)
        made |= derived.figures(self.results, run, made, self.equal_tokens)
        if not self._refuse:
            return made
        return {name: self.comparable.check(run, name, one) for name, one in made.items()}

    @property
    def distance(self) -> str:
        """The ideal distance that ranks: on held-out rows, also where the suite leads with training rows."""
        return "ideal_distance" if self.results.split == "held_out" else "held_out_ideal_distance"

    def _held_out_distance(self, made: Mapping[str, Measured], seed: int) -> Measured:
        split = "held_out"
        nothing = [why for name in OBJECTIVES if (why := self.results.nothing_learned(name, seed, split))]
        if nothing:
            return missing("; ".join(nothing))
        gaps = [
            combine(tradeoff.optimality_gap, made[f"f_{name}/{split}"], self.results.optimum(name, seed, split))
            for name in OBJECTIVES
        ]
        return combine(tradeoff.ideal_distance, *gaps)

    @cached_property
    def equal_tokens(self) -> Measured:
        """The gradient tokens that every run reached, at which `ideal_distance_at_equal_tokens` holds."""
        return derived.equal_tokens(self.results.runs)

    def matching_sequential(self, run: Run) -> Run | None:
        """Find the Sequential run of the same λ and seed (the baseline B of Eq. 57 and 58)."""
        for method in self.results.methods:
            found = self._runs.get((method, run.lambda_dpo, run.seed))
            if found is not None and found.base_method == "sequential":
                return found
        return None

    def _increase(self, run: Run, name: str) -> Measured:
        baseline = self.matching_sequential(run)
        if baseline is None:
            return missing(f"no complete Sequential run at λ = {run.lambda_dpo:g}, seed {run.seed}")
        if baseline.conditions != run.conditions:
            return missing("its Sequential run was made on other hardware or with other workers")
        ours, theirs = run.measurement(name), baseline.measurement(name)
        if run.id != baseline.id and inside(ours, theirs):
            return missing(
                f"no increase to be seen: medians of {run.id} and {baseline.id} lie in the middle half of each other's samples"
            )
        return combine(tradeoff.increase_percent, ours, theirs)

    @cached_property
    def _by_id(self) -> dict[str, Run]:
        return {one.id: one for one in self.results.trained}

    def _all_in(self, run: Run) -> Measured:
        """Add to a run's training seconds those of what it needs: π_ref, the optima where it uses them, and the front."""
        by_id = self._by_id
        needed = {run.id: run} if run.trains else {}
        for name, job_id in run.job.spec["inputs"].items():
            if name == "reference_logps":
                logps = self.results.record.jobs.get(job_id)
                if logps is None:
                    return missing(f"{job_id} is missing")
                job_id = logps.spec["inputs"].get("policy")
            if name.startswith("row_optimum_"):
                rows = self.results.record.jobs.get(job_id)
                job_id = rows.spec["inputs"]["policy"] if rows else job_id
            needs = name == "reference_logps" or name.startswith(("optimum_", "row_optimum_", "front_"))
            if needs and job_id is not None:
                if job_id not in by_id:
                    return missing(f"{job_id} is missing")
                needed[job_id] = by_id[job_id]
        if len({one.alone is None for one in needed.values()}) > 1:  # π_ref on rows of its own: only its run tells
            needed = {job_id: replace(one, alone=None) for job_id, one in needed.items()}
        return combine(
            lambda *seconds: math.fsum(seconds), *(one.measurement("training_seconds") for one in needed.values())
        )

    # ---- frames -----------------------------------------------------------------------------------------------------

    @cached_property
    def recipes(self) -> tuple[RecipeResults, ...]:
        """Every method at every λ that has a complete run, in the suite's order."""
        return tuple(self._recipes(self.results.runs))

    def _recipes(self, runs: Iterable[Run], method: str | None = None) -> Iterable[RecipeResults]:
        grouped: dict[RecipeKey, list[Run]] = {}
        for run in runs:
            lambda_dpo = None if math.isnan(run.lambda_dpo) else run.lambda_dpo
            grouped.setdefault((method or run.method, lambda_dpo), []).append(run)
        for (name, lambda_dpo), members in grouped.items():
            jobs = {run.seed: run.id for run in members}
            figures = {run.seed: self.figures(run) for run in members}
            yield RecipeResults(name, members[0].base_method, lambda_dpo, jobs, figures, self.metric)

    @cached_property
    def context(self) -> tuple[RecipeResults, ...]:
        """What recipes are held against, unranked: the runs on one objective alone, π_ref and the base model."""
        found: list[RecipeResults] = []
        for objective in OBJECTIVES:
            alone = self.results.with_role(f"optimum_{objective}")
            found += self._recipes(alone, f"{objective.upper()} alone (f*)")
        reference = self.results.reference
        if reference is not None:
            found.append(self._scores_only("reference (π_ref)", reference.id, reference.seed))
        found.append(self._scores_only("base model", "base", 0))
        return tuple(found)

    def _scores_only(self, name: str, of: str, seed: int) -> RecipeResults:
        figures = {seed: {score: self.score_of(of, score) for score in self.scores}}
        return RecipeResults(name, "", None, {seed: of}, figures, self.metric)

    def score_of(self, of: str, name: str) -> Measured:
        """Return a policy's score, or why it does not compare with the suite's others."""
        score = self.results.score(of, name)
        return self.comparable.check_score(of, name, score) if self._refuse else score

    @cached_property
    def ranked(self) -> tuple[RecipeResults, ...]:
        """The recipes by mean ideal distance, smallest first, equal ones in the suite's order; the unranked last."""

        def place(recipe: RecipeResults) -> tuple[bool, bool, float]:
            mean = recipe.estimate(self.distance).mean
            return bool(self.why_unranked(recipe)), math.isnan(mean), rounded(mean)

        return tuple(sorted(self.recipes, key=place))

    @cached_property
    def competing(self) -> tuple[RecipeResults, ...]:
        """The recipes that are ranked, best first: with an ideal distance of every seed of the suite."""
        return tuple(recipe for recipe in self.ranked if not self.why_unranked(recipe))

    def distances_together(self, *first: RecipeResults) -> Together | None:
        """Return the ideal distances of all ranked recipes, seed by seed, with their spreads; None below three common seeds.

        Of twins one alone is there, as a second would count its spread twice; `first` stand for theirs.
        """
        # Asked of every pair: only those that take a twin's place are looked at, not all recipes.
        others = {self._leads[one.key]: one for one in reversed(first) if one.key in self._places}
        changed = {lead: one for lead, one in others.items() if self._standing[lead] is not one}
        keys = frozenset(one.key for one in changed.values())
        if keys not in self._together:
            kept = (self._standing | changed).values()
            self._together[keys] = self._side_by_side(sorted(kept, key=lambda one: self._places[one.key]))
        return self._together[keys]

    def _side_by_side(self, recipes: Sequence[RecipeResults]) -> Together | None:
        seeds = sorted(set.intersection(*(set(one.figures) for one in recipes))) if recipes else []
        if len(recipes) < 2 or len(seeds) < SEEDS_FOR_AN_INTERVAL:  # a spread between recipes is of two at least
            return None
        by_seed = [one.values(self.distance) for one in recipes]
        values = np.array([[found[seed] for seed in seeds] for found in by_seed])
        if np.isnan(values).any():
            return None
        return Together({one.key: place for place, one in enumerate(recipes)}, values, spreads(values))

    @cached_property
    def _places(self) -> dict[RecipeKey, int]:
        return {one.key: place for place, one in enumerate(self.competing)}

    @cached_property
    def _standing(self) -> dict[RecipeKey, RecipeResults]:
        """By the one that stands for its twins: which of them is the first of those ranked."""
        found: dict[RecipeKey, RecipeResults] = {}
        for one in self.competing:
            found.setdefault(self._leads[one.key], one)
        return found

    @cached_property
    def _leads(self) -> dict[RecipeKey, RecipeKey]:
        """By recipe, the one of its twins that stands for all."""
        found: dict[RecipeKey, RecipeKey] = {}
        for one in self.recipes:
            found.setdefault(one.key, one.key)
            for twin in self.twins[one.key]:
                found.setdefault(twin.key, found[one.key])
        return found

    def why_unranked(self, recipe: RecipeResults) -> str:
        """Say why a recipe has no place; "" where it has one. A recipe of fewer seeds could win by having lost its worst."""
        known, planned = recipe.estimate(self.distance).n, len(self.results.suite.get("seeds") or recipe.jobs)
        if not known:
            return f"no ideal distance: {recipe.reason(self.distance)}"
        return "" if known >= planned else f"{known} of {planned} seeds have an ideal distance"

    @cached_property
    def twins(self) -> dict[RecipeKey, tuple[RecipeResults, ...]]:
        """By recipe, those of the same λ that ended with its objective values on every seed: two ways to compute one thing."""
        names = [f"f_{name}/{split}" for name in OBJECTIVES for split in SPLITS]
        found: dict[tuple[Any, ...], list[RecipeResults]] = {}
        for recipe in self.recipes:
            ends = [(name, seed, rounded(end)) for name in names for seed, end in sorted(recipe.values(name).items())]
            known = tuple(one for one in ends if not math.isnan(one[2]))
            found.setdefault((recipe.lambda_dpo, *(known or (recipe.method,))), []).append(recipe)
        return {
            one.key: tuple(other for other in alike if other.key != one.key)
            for alike in found.values()
            for one in alike
        }

    def same(self, one: RecipeResults, other: RecipeResults) -> bool:
        """Whether two recipes are one and the same, or twins."""
        return one.key == other.key or any(twin.key == other.key for twin in self.twins.get(one.key, ()))

    def sequential(self, lambda_dpo: float | None) -> RecipeResults | None:
        """Find the Sequential recipe at a λ."""
        found = (one for one in self.recipes if one.base_method == "sequential" and one.lambda_dpo == lambda_dpo)
        return next(found, None)

    @cached_property
    def runs_frame(self) -> pd.DataFrame:
        """One row per run: who it is, then every figure (NaN: not measured)."""
        rows = []
        for recipe in self.recipes:
            for seed, job in recipe.jobs.items():
                identity: tuple[Any, ...] = (job, recipe.method, recipe.base_method, recipe.lambda_dpo, seed)
                figures = {name: one.number for name, one in recipe.figures[seed].items()}
                rows.append(dict(zip(IDENTITY, identity, strict=True)) | figures)
        return pd.DataFrame(rows, columns=None if rows else list(IDENTITY))

    @cached_property
    def forgetting(self) -> pd.DataFrame:
        """One row per two-phase Sequential run: its first objective at the start, the phase change and the end."""
        rows: list[dict[str, Any]] = []
        for run in self.results.runs:
            first = run.order[0]
            change = run.phase_steps.get(first, 0)
            if run.base_method != "sequential" or not 0 < change < sum(run.phase_steps.values()):
                continue
            name = f"f_{first}/{self.results.split}"
            points = [run.at(0), run.at(change), run.trajectory[-1] if run.trajectory else None]
            start, middle, end = (float(point[name]) if point and name in point else math.nan for point in points)
            lost, share = tradeoff.undone(start, middle, end)
            row = {
                "job": run.id,
                "method": run.method,
                "lambda_dpo": run.lambda_dpo,
                "seed": run.seed,
                "objective": first,
            }
            row |= {"change_step": change, "measured_step": points[1]["step"] if points[1] else math.nan}
            rows.append(
                row | {"start": start, "at_change": middle, "end": end, "undone": float(lost), "share": float(share)}
            )
        return pd.DataFrame(rows)

    def difference(self, a: RecipeResults, b: RecipeResults, name: str) -> Estimate:
        """Estimate a − b of a figure, paired over seeds."""
        reach = self.metric(name).reach
        return paired(a.values(name), b.values(name)).inside(-reach, reach)
