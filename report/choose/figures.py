"""The figures that a choice may name, and their values by seed: a recipe's own, and those of what it is held against."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from report.analysis import tradeoff
from report.analysis.load import OBJECTIVES, Measured, Run, is_accuracy, is_win_rate, missing
from report.analysis.tables import Recipe, Tables

LAMBDA = "lambda_dpo"


@dataclass(frozen=True)
class Named:
    """Tie a name to a figure of the tables.

    Attributes:
        figure: its name in the tables.
        unit: of the value in an expression, which is the tables' value × `factor`.
        cost: compares at equal hardware and workers only.
    """

    figure: str
    unit: str
    factor: float = 1.0
    cost: bool = False

    @property
    def is_score(self) -> bool:
        """Whether it is the mean over questions or judged pairs."""
        return is_accuracy(self.figure) or is_win_rate(self.figure)


@dataclass(frozen=True)
class Origin:
    """Hold one seed's value and the policy it belongs to: a training job's id, or "base"."""

    measured: Measured
    policy: str


def named_figures(tables: Tables) -> dict[str, Named]:
    """List the names that a choice in this suite may use; accuracies and win rates are in percent."""
    split = tables.results.split
    found = {f"f_{name}": Named(f"f_{name}/{split}", "nats") for name in OBJECTIVES}
    found |= {name: Named(name, "nats") for name in ("gap_dpo", "gap_sft", "ideal_distance")}
    accuracies = [name for name in tables.scores if is_accuracy(name)]
    win_rates = [name for name in tables.scores if is_win_rate(name)]
    found |= {_word(name.removesuffix("/acc")): Named(name, "%", 100.0) for name in accuracies}
    if len(accuracies) == 1:
        found["accuracy"] = Named(accuracies[0], "%", 100.0)
    if len(win_rates) == 1:
        found["win_rate"] = Named(win_rates[0], "%")
    else:
        found |= {_word(name): Named(name, "%") for name in win_rates}
    return found | {
        "seconds": Named("training_seconds", "s", cost=True),
        "all_in_seconds": Named("all_in_seconds", "s", cost=True),
        "runtime_increase": Named("runtime_increase_percent", "%"),
        "tokens": Named("tokens", "tokens"),
        "steps": Named("steps", "steps"),
        "memory": Named("peak_memory_bytes", "GiB", 2.0**-30, cost=True),
        "energy": Named("energy_joules", "J", cost=True),
        "utilization": Named(tables.utilization, "%", cost=True),
        "lambda": Named(LAMBDA, ""),
    }


def _word(name: str) -> str:
    return re.sub(r"\W", "_", name)


def values_by_seed(tables: Tables, recipe: Recipe, named: Named, of: str) -> dict[int, Origin]:
    """Return a figure on each of the recipe's seeds, in the tables' unit.

    Args:
        of: "recipe", or what it is held against: "base", "sequential" (at the same λ and seed), "reference".
    """
    return {seed: _value(tables, recipe, named, of, seed) for seed in recipe.figures}


def _value(tables: Tables, recipe: Recipe, named: Named, of: str, seed: int) -> Origin:
    if of == "base" or (of == "reference" and tables.results.reference is None):
        return Origin(base_value(tables, named.figure, seed), "base")
    if of == "reference":
        reference = tables.results.reference
        assert reference is not None
        if named.cost and reference.conditions != _run(tables, recipe.jobs[seed]).conditions:
            return Origin(missing("π_ref was trained on other hardware or with other workers"), reference.id)
        return Origin(
            tables.figures(reference).get(named.figure, missing(f"π_ref has no {named.figure}")), reference.id
        )
    if of == "sequential":
        return _of_sequential(tables, recipe, named, seed)
    if named.figure == LAMBDA:
        value = recipe.lambda_dpo
        return Origin(missing("it has no λ") if value is None else Measured(value), recipe.jobs[seed])
    return Origin(recipe.figures[seed].get(named.figure, missing(f"it has no {named.figure}")), recipe.jobs[seed])


def _of_sequential(tables: Tables, recipe: Recipe, named: Named, seed: int) -> Origin:
    baseline = tables.sequential(recipe.lambda_dpo)
    if baseline is None or seed not in baseline.jobs:
        at = "" if recipe.lambda_dpo is None else f" at λ = {recipe.lambda_dpo:g}"
        return Origin(missing(f"no complete Sequential run{at}, seed {seed}"), "")
    runs = [_run(tables, one.jobs[seed]) for one in (recipe, baseline)]
    if named.cost and runs[0].conditions != runs[1].conditions:
        return Origin(missing("its Sequential run was made on other hardware or with other workers"), "")
    return _value(tables, baseline, named, "recipe", seed)


def base_value(tables: Tables, figure: str, seed: int) -> Measured:
    """Return the base model's value: its scores, or the objectives at step 0 of any run, whose adapter changes nothing yet.

    Its gaps are against f* of the seed.
    """
    if is_accuracy(figure) or is_win_rate(figure):
        return tables.results.score("base", figure)
    split = tables.results.split
    start = {name: _at_start(tables, f"f_{name}/{split}") for name in OBJECTIVES}
    gaps: dict[str, Measured] = {}
    for name in OBJECTIVES:
        optimum = tables.results.optimum(name, seed)
        known = start[name].value is not None and optimum.value is not None
        why = start[name].reason or optimum.reason
        gaps[name] = Measured(start[name].number - optimum.number) if known else missing(why)
    distance = float(tradeoff.ideal_distance(gaps["dpo"].number, gaps["sft"].number))
    why = gaps["dpo"].reason or gaps["sft"].reason
    made = {f"f_{name}/{split}": start[name] for name in OBJECTIVES}
    made |= {f"gap_{name}": gaps[name] for name in OBJECTIVES}
    made["ideal_distance"] = missing(why) if math.isnan(distance) else Measured(distance)
    return made.get(figure, missing("the base model takes no training"))


def _at_start(tables: Tables, name: str) -> Measured:
    values = (run.at(0) for run in tables.results.trained if run.trains)
    found = next((float(point[name]) for point in values if point and point.get(name) is not None), None)
    return missing(f"no run measured {name} at step 0") if found is None else Measured(found)


def _run(tables: Tables, job: str) -> Run:
    return next(run for run in tables.results.runs if run.id == job)
