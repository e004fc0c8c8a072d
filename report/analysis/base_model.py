"""The base model as something that recipes are held against: what every run starts from, on each of the suite's seeds."""

from __future__ import annotations

import math

from report.analysis import tradeoff
from report.analysis.load import OBJECTIVES, Measured, missing
from report.analysis.tables import RecipeResults, Tables

NAME = "base model"
NO_TRAINING = "the base model takes no training"


def value(tables: Tables, figure: str, seed: int) -> Measured:
    """Return a figure of the base model: its scores, or the objectives at step 0 of any run, whose adapter changes nothing yet.

    Its gaps are against f* of the seed.
    """
    if figure in tables.scores:
        return tables.score_of("base", figure)
    split = tables.results.split
    if figure == tables.distance and split != "held_out":
        return _distances(tables, seed, "held_out")["ideal_distance"]
    found = {f"f_{name}/{split}": _at_start(tables, f"f_{name}/{split}") for name in OBJECTIVES}
    found |= _distances(tables, seed, split)
    return found.get(figure, missing(NO_TRAINING))


def policy(tables: Tables) -> RecipeResults:
    """Return the base model like a recipe: one policy on every seed, so that it is compared as recipes are."""
    seeds = sorted({run.seed for run in tables.results.runs}) or [0]
    names = [f"f_{name}/{tables.results.split}" for name in OBJECTIVES]
    names += ["gap_dpo", "gap_sft", "ideal_distance", tables.distance, *tables.scores]
    figures = {seed: {name: value(tables, name, seed) for name in dict.fromkeys(names)} for seed in seeds}
    return RecipeResults(NAME, "", None, dict.fromkeys(seeds, "base"), figures, tables.metric)


def _distances(tables: Tables, seed: int, split: str) -> dict[str, Measured]:
    start = {name: _at_start(tables, f"f_{name}/{split}") for name in OBJECTIVES}
    made: dict[str, Measured] = {}
    for name in OBJECTIVES:
        optimum = tables.results.optimum(name, seed, split)
        known = start[name].value is not None and optimum.value is not None
        why = start[name].reason or optimum.reason
        made[f"gap_{name}"] = Measured(start[name].number - optimum.number) if known else missing(why)
    distance = float(tradeoff.ideal_distance(made["gap_dpo"].number, made["gap_sft"].number))
    nothing = [why for name in OBJECTIVES if (why := tables.results.nothing_learned(name, seed, split))]
    why = "; ".join(nothing) or made["gap_dpo"].reason or made["gap_sft"].reason
    made["ideal_distance"] = missing(why) if nothing or math.isnan(distance) else Measured(distance)
    return made


def _at_start(tables: Tables, name: str) -> Measured:
    values = (run.at(0) for run in tables.results.trained if run.trains)
    found = next((float(point[name]) for point in values if point and point.get(name) is not None), None)
    return missing(f"no run measured {name} at step 0") if found is None else Measured(found)
