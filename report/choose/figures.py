"""The figures that a choice may name, and their values by seed: a recipe's own, and those of what it is held against."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bench.records.metrics import Kind
from report.analysis import base_model
from report.analysis.load import OBJECTIVES, Measured, missing
from report.analysis.tables import RecipeResults, Tables

LAMBDA = "lambda_dpo"


@dataclass(frozen=True)
class Named:
    """Tie a name to a figure of the tables.

    Attributes:
        figure: its name in the tables.
        unit: of the value in an expression, which is the tables' value × `factor`.
        kind: of the figure; a cost compares at equal hardware and workers only.
    """

    figure: str
    unit: str
    factor: float = 1.0
    kind: Kind = "count"

    @property
    def is_score(self) -> bool:
        """Whether it is made of single outcomes, such as questions or judged pairs."""
        return self.kind == "score"

    @property
    def cost(self) -> bool:
        return self.kind == "cost"


@dataclass(frozen=True)
class Origin:
    """Hold one seed's value and the policy it belongs to: a training job's id, or "base"."""

    measured: Measured
    policy: str


_FACTORS = {"share": (100.0, "%"), "B": (2.0**-30, "GiB")}


def named_figures(tables: Tables) -> dict[str, Named]:
    """List the names that a choice in this suite may use: its name on record, what it is called, and short names that are clear.

    A task's bare name stands for its score where it has just one, `accuracy` and `win_rate` likewise for the suite's.
    """
    split = tables.results.split
    found = {f"f_{name}": _named(tables, f"f_{name}/{split}") for name in OBJECTIVES}
    figures = (
        "gap_dpo",
        "gap_sft",
        "ideal_distance",
        tables.distance,
        *tables.scores,
        *tables.costs,
        "runtime_increase_percent",
    )
    found |= {one: _named(tables, name) for name in figures for one in (name, tables.metric(name).choose_name)}
    found |= {short: _named(tables, names[0]) for short, names in short_names(tables).items() if len(names) == 1}
    found["utilization"] = _named(tables, tables.utilization)
    return found | {"lambda": Named(LAMBDA, "")}


def short_names(tables: Tables) -> dict[str, list[str]]:
    """Return the short names of scores, each with the scores that it could stand for; `win_rate` is the main judge's."""
    found: dict[str, list[str]] = {}
    for name in (one for one in tables.scores if not tables.results.is_beside(one)):
        task, _, rest = name.partition("/")
        shorts = [re.sub(r"\W", "_", task)] + (["accuracy"] if rest == "acc" else [])
        for short in shorts:
            found.setdefault(short, []).append(name)
    return found


def _named(tables: Tables, name: str) -> Named:
    metric = tables.metric(name)
    factor, unit = _FACTORS.get(metric.unit, (1.0, metric.unit))
    return Named(name, unit, factor, metric.kind)


def values_by_seed(tables: Tables, recipe: RecipeResults, named: Named, of: str) -> dict[int, Origin]:
    """Return a figure on each of the recipe's seeds, in the tables' unit.

    Args:
        of: "recipe", or what it is held against: "base", "sequential" (at the same λ and seed), "reference".
    """
    return {seed: _value(tables, recipe, named, of, seed) for seed in recipe.figures}


def _value(tables: Tables, recipe: RecipeResults, named: Named, of: str, seed: int) -> Origin:
    if of == "base" or (of == "reference" and tables.results.reference is None):
        return Origin(base_model.value(tables, named.figure, seed), "base")
    if of == "reference":
        reference = tables.results.reference
        assert reference is not None
        if named.cost and not _alike(tables, recipe.jobs[seed], reference.id):
            return Origin(missing("π_ref was trained on other hardware or with other workers"), reference.id)
        return Origin(
            tables.figures(reference).get(named.figure, missing(f"π_ref has no {named.figure}")), reference.id
        )
    if of == "sequential":
        return _of_sequential(tables, recipe, named, seed)
    if named.figure == LAMBDA:
        value = recipe.lambda_dpo
        return Origin(missing("it has no λ") if value is None else Measured(value), recipe.jobs[seed])
    absent = base_model.NO_TRAINING if recipe.jobs[seed] == "base" else f"it has no {named.figure}"
    return Origin(recipe.figures[seed].get(named.figure, missing(absent)), recipe.jobs[seed])


def _of_sequential(tables: Tables, recipe: RecipeResults, named: Named, seed: int) -> Origin:
    baseline = tables.sequential(recipe.lambda_dpo)
    if baseline is None or seed not in baseline.jobs:
        at = "" if recipe.lambda_dpo is None else f" at λ = {recipe.lambda_dpo:g}"
        return Origin(missing(f"no complete Sequential run{at}, seed {seed}"), "")
    if named.cost and not _alike(tables, recipe.jobs[seed], baseline.jobs[seed]):
        return Origin(missing("its Sequential run was made on other hardware or with other workers"), "")
    return _value(tables, baseline, named, "recipe", seed)


def _alike(tables: Tables, *jobs: str) -> bool:
    """Whether jobs' costs were measured under the same conditions; the base model has none."""
    found = [run.conditions for run in tables.results.trained if run.id in jobs]
    return len(found) == len(set(jobs)) and len(set(found)) == 1
