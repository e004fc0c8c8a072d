"""What a recipe learned against what it kept: both objectives, and every task that it was not trained for.

Changes in a task are against the base model and against the first phase run to its end (the run on that objective alone, of the
same seed), paired over seeds, and over questions where single answers are on record. Win rates and objectives are what is
trained for; how far a policy moved from its base (`base_kl`) goes along with what it forgets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from report.analysis.checkpoints import Answers, answers
from report.analysis.contrast import contrast, line_up
from report.analysis.load import OBJECTIVES, judge_of
from report.analysis.statistics import Estimate, estimate
from report.analysis.tables import RecipeResults, Tables


@dataclass(frozen=True)
class Summary:
    """One recipe.

    Attributes:
        learned: mean over the objectives of the share that was learned of what training on each alone learns: 0 is the start, 1
            as much as that; NaN where nothing was learned alone.
        changes: by task, its score less the base model's.
        after_first: by task, its score less that of the first phase run to its end.
        kept: mean of `changes` over the tasks whose scores are shares.
        moved: KL from the base on its own answers, in nats a token.
    """

    recipe: RecipeResults
    learned: Estimate
    changes: Mapping[str, Estimate]
    after_first: Mapping[str, Estimate]
    kept: Estimate
    moved: Estimate


def tasks(tables: Tables) -> tuple[str, ...]:
    """Return the scores that stand for what is not trained for: each task's first, and no win rate."""
    return tuple(name for name in tables.ranking_scores if not judge_of(name))


def summaries(tables: Tables) -> tuple[Summary, ...]:
    """Return every recipe's summary, those on one objective alone behind them; empty without a score of the base model."""
    names = [name for name in tasks(tables) if tables.score_of("base", name).value is not None]
    recipes = [*tables.recipes, *(one for one in tables.context if one.base_method and one.jobs)]
    return tuple(_summary(tables, recipe, names) for recipe in recipes) if names else ()


def _summary(tables: Tables, recipe: RecipeResults, names: list[str]) -> Summary:
    changes = {name: _against(tables, recipe, name, dict.fromkeys(recipe.jobs, "base")) for name in names}
    first = _first_alone(tables, recipe)
    after = {name: _against(tables, recipe, name, first) for name in names}
    return Summary(
        recipe,
        estimate(list(learned(recipe).values())),
        changes,
        after,
        _kept(tables, recipe, names),
        recipe.estimate("base_kl/answers"),
    )


def learned(recipe: RecipeResults) -> dict[int, float]:
    """Return, by seed, the mean over objectives of (f(θ_1) − f) / (f(θ_1) − f*); NaN where one of them is not known."""
    gaps = [recipe.values(f"relative_gap_{objective}") for objective in OBJECTIVES]
    return {seed: 1 - math.fsum(one[seed] for one in gaps) / len(gaps) for seed in recipe.jobs}


def _first_alone(tables: Tables, recipe: RecipeResults) -> dict[int, str]:
    """Return, by seed, the run on the first objective of the suite's order alone."""
    first = str(tables.results.suite.get("order") or "sft_dpo").split("_")[0]
    alone = {run.seed: run.id for run in tables.results.with_role(f"optimum_{first}")}
    return {seed: alone[seed] for seed in recipe.jobs if seed in alone}


def _against(tables: Tables, recipe: RecipeResults, name: str, others: Mapping[int, str]) -> Estimate:
    """Estimate a score less that of another policy of each seed."""
    ours = {seed: value for seed, value in recipe.values(name).items() if seed in others}
    theirs = {seed: tables.score_of(others[seed], name).compared for seed in ours}
    known = [seed for seed, value in ours.items() if not (math.isnan(value) or math.isnan(theirs[seed]))]
    if not known or all(recipe.jobs[seed] == others[seed] for seed in ours):  # nothing, or against itself
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0)
    found: list[list[dict[int, Answers]]] = [
        [{seed: answers(tables.results, others[seed], name) for seed in ours}],
        [{seed: answers(tables.results, recipe.jobs[seed], name) for seed in ours}],
    ]
    lined_up = line_up(found, [theirs, ours])
    return contrast(theirs, ours, lined_up, alike=False, metric=tables.metric(name)).difference


def _kept(tables: Tables, recipe: RecipeResults, names: list[str]) -> Estimate:
    """Estimate the mean change over the tasks whose scores are shares, over seeds."""
    shares = [name for name in names if tables.metric(name).unit == "share"]
    by_seed = [
        math.fsum(recipe.values(name)[seed] - tables.score_of("base", name).compared for name in shares) / len(shares)
        for seed in recipe.jobs
        if shares
    ]
    return estimate(by_seed)
