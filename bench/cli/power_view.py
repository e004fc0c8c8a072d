"""Say how small a difference a suite can show, and what it would take to see two points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError
from bench.evaluators import Evaluator
from bench.evaluators.prompt_sets import HELD_OUT
from bench.plan.plan import Plan
from bench.records import record
from bench.records.spec import RunLabels
from bench.suite.suite import Suite

if TYPE_CHECKING:
    from report.analysis.power import Spread

POINTS = 2.0
"""The difference whose price is told, in points."""


def as_dict(plan: Plan, folder: Path | None) -> dict[str, Any]:
    """Return what a plan can show as JSON values; null is not known before questions are loaded.

    Args:
        plan: which.
        folder: the suite's results, where judged pairs tell how much they spread.
    """
    found = {name: _score(plan, evaluator, name, items, folder) for evaluator, name, items in _scores(plan)}
    assumed = (
        "two recipes, paired over seeds on the same items as the report compares them (with fewer than three seeds two single "
        "policies); two-sided 5 %, power 80 %; at_worst: every outcome a coin of its own, and nothing that a seed changes beyond"
    )
    return {"detectable": {"assumed": assumed, "scores": found} if found else None}


def as_lines(plan: Plan, folder: Path | None) -> Iterator[str]:
    """Yield the same in a few lines."""
    suite = plan.suite
    scores = {name: _score(plan, evaluator, name, items, folder) for evaluator, name, items in _scores(plan)}
    if not isinstance(suite, Suite) or not scores:
        return
    seeds = f"{len(suite.seeds)} seed{'' if len(suite.seeds) == 1 else 's'}"
    enough = len(suite.seeds) >= 3
    whom, why = ("recipes", "") if enough else ("policies", "; recipes cannot be told apart with fewer than 3 seeds")
    for one in scores.values():
        if "to_see_points" in one:
            measured = one["measured_points"]
            more = "" if measured is None else f", {measured:.1f} with the spread judged so far"
            yield (
                f"smallest difference in win rate that {one['items']:,} prompts × {seeds} show between two {whom}: "
                f"{one['at_worst_points']:.1f} points (80 % power, two-sided 5 %, outcomes like coin flips){more}{why}"
            )
            yield f"{POINTS:g} points would take {_needed_in_words(one['to_see_points'])}"
    others = {name: one for name, one in scores.items() if "to_see_points" not in one}
    if others:
        yield f"smallest difference in points on {'; '.join(_in_words(name, one) for name, one in others.items())}"


def _scores(plan: Plan) -> Iterator[tuple[Evaluator, str, int | None]]:
    """Yield each score that more than one recipe has, with how many single outcomes are behind it."""
    suite = plan.suite
    if isinstance(suite, Suite) and _recipes(suite) > 1:
        for evaluator in suite.evaluation.chosen.values():
            for name, items in evaluator.items().items():
                yield evaluator, name, items


def _recipes(suite: Suite) -> int:
    return sum(len(one.lambdas or suite.lambdas) for one in suite.methods)


def _score(plan: Plan, evaluator: Evaluator, name: str, items: int | None, folder: Path | None) -> dict[str, Any]:
    """Return how small a difference of one score can be seen; for a win rate also what two points take."""
    from report.analysis import power

    suite = plan.suite
    assert isinstance(suite, Suite)
    seeds, recipes = len(suite.seeds), _recipes(suite)
    made: dict[str, Any] = {"items": items, "seeds": seeds, "recipes": recipes}
    if not items:
        return made
    made["at_worst_points"] = 100 * power.detectable(power.AT_WORST, items, seeds, recipes)
    if not name.startswith("win_rate/"):
        return made
    spread = _measured(plan, folder, name) if folder else None
    made["measured_points"] = spread and 100 * power.detectable(spread, items, seeds, recipes)
    # a prompt set has no more prompts than it has
    most = power.MOST_ITEMS if getattr(evaluator.options, "prompts_from", HELD_OUT) == HELD_OUT else items
    found = power.needed(spread or power.AT_WORST, POINTS / 100, seeds, recipes, most)
    made["to_see_points"] = {"points": POINTS, "spread": "measured" if spread else "at_worst"}
    if found is not None:
        judged = sum(job.stage == f"judge:{name.removeprefix('win_rate/')}" for job in plan.jobs.values())
        of_runs = judged - 1  # the base model is judged once, whatever the seeds
        judgings = 1 + -(-of_runs * found.seeds // seeds)
        made["to_see_points"] |= {"prompts": found.items, "seeds": found.seeds} | _price(
            suite, evaluator, found.items, judgings
        )
    return made


def _price(suite: Suite, evaluator: Evaluator, prompts: int, judgings: int) -> dict[str, Any]:
    """Return the comparisons of so many judgings, of all judges together, and what they cost at most."""
    more = type(evaluator)(evaluator.options.model_copy(update={"prompts": prompts}))
    stages = [stage for stage in more.stages() if stage.kind == "judge"]
    orders = sum(2 if stage.settings.get("orders") == "both" else 1 for stage in stages)
    priced = more.price({stage.shown_name: judgings for stage in stages}, suite.data) or []
    costs = [one["cost_usd_at_most"] for one in (priced if isinstance(priced, list) else [priced])]
    return {
        "comparisons": prompts * judgings * orders,
        "cost_usd_at_most": None if None in costs else sum(costs),
    }


def _measured(plan: Plan, folder: Path, name: str) -> Spread | None:
    """Estimate from the judgings on record how much the differences between recipes spread; None where too few are there."""
    import numpy as np

    from report.analysis import power

    found: dict[tuple[str, float | None], dict[int, dict[Any, float]]] = {}
    for job in plan.jobs.values():
        made = plan.jobs.get(str(job.labels.as_dict().get("of"))) if job.labels and job.kind == "judge" else None
        if made is None or job.stage != f"judge:{name.removeprefix('win_rate/')}" or "run" not in made.roles:
            continue
        labels = made.labels
        assert isinstance(labels, RunLabels)
        path = folder / "jobs" / job.id
        try:
            rows = list(record.read_jsonl(path / "samples.jsonl")) if record.read_job(path).complete else []
        except (InputError, OSError):  # not there yet, or damaged
            continue
        judged = {row["id"]: float(row["preference"]) for row in rows if row.get("preference") is not None}
        if judged:
            found.setdefault((labels.method, labels.lambda_dpo), {})[labels.seed] = judged
    most = max((len(seeds) for seeds in found.values()), default=0)
    whole = [seeds for seeds in found.values() if len(seeds) == most]
    common = set.intersection(*(set(judged) for seeds in whole for judged in seeds.values())) if whole else set()
    shared = set.intersection(*(set(seeds) for seeds in whole)) if whole else set()
    items = sorted(common, key=str)
    outcomes = [[[seeds[seed][item] for item in items] for seed in sorted(shared)] for seeds in whole]
    array = np.array(outcomes, dtype=np.float64)
    return power.measured(array) if array.ndim == 3 else None


def _in_words(name: str, one: dict[str, Any]) -> str:
    if not one["items"]:
        return f"{name}: not known before it is loaded"
    return f"{name}: {one['at_worst_points']:.1f} ({one['items']:,} questions)"


def _needed_in_words(one: dict[str, Any]) -> str:
    if "prompts" not in one:
        return "more prompts and seeds than there are, or anybody would judge"
    text = f"{one['prompts']:,} prompts × {one['seeds']} seeds: {one['comparisons']:,} comparisons"
    if one["cost_usd_at_most"] is None:
        text += ", cost not known"
    elif one["cost_usd_at_most"]:
        text += f", at most ${one['cost_usd_at_most']:,.2f}"
    return text
