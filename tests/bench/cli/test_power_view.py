"""What a plan says of sample sizes: points, what two points take, and what is not known yet."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.cli import plan_view, power_view
from bench.evaluators import lm_eval_index
from bench.plan import planner
from bench.records import record
from bench.run import handlers, standing
from bench.run.context import WorkerContext
from bench.suite.suite import Suite
from report.analysis import power

TinySuite = Callable[..., Suite]
SEEDS = {"methods": ["sequential", "mix"], "seeds": [0, 1, 2]}


def judged(tiny: TinySuite, prompts: int = 3, judge: Any = None, **changes: Any) -> Suite:
    win_rate = {"prompts": prompts, "judge": judge or {"kind": "rule"}}
    return tiny(**(SEEDS | {"evaluation": {"win_rate": win_rate}} | changes))


def lines(suite: Suite, folder: Path | None = None) -> list[str]:
    return list(power_view.as_lines(planner.make(suite), folder))


def test_a_plan_says_what_its_prompts_and_seeds_can_show(tiny: TinySuite) -> None:
    """Two recipes of three seeds: t has two degrees of freedom; 0.5 is the variance of a difference of two coin flips."""
    suite = judged(tiny, prompts=50)
    points = 100 * power.detectable(power.AT_WORST, 50, 3, 2)
    first, second = lines(suite)
    assert first == (
        f"smallest difference in win rate that 50 prompts × 3 seeds show between two recipes: {points:.1f} points "
        "(80 % power, two-sided 5 %, outcomes like coin flips)"
    )
    found = power.needed(power.AT_WORST, 0.02, 3, 2)
    assert found is not None
    # base, six optima (one is the reference), six runs: 13 policies, in two orders
    assert second == f"2 points would take {found.items:,} prompts × 3 seeds: {found.items * 13 * 2:,} comparisons"
    plan = planner.make(suite)
    text = plan_view.as_text(plan, standing.look(plan, Path("none")).states, set(plan.jobs))
    assert f"  {first}\n  {second}" in text


def test_one_seed_tells_policies_apart_and_no_recipes(tiny: TinySuite) -> None:
    """Three seeds are needed: the price counts base + 4 policies a seed (two optima, two runs) × 3."""
    first, second = lines(judged(tiny, prompts=200, seeds=[0]))
    points = 100 * (1.96 + 0.8416) * math.sqrt(0.5 / 200)
    assert first.startswith("smallest difference in win rate that 200 prompts × 1 seed show between two policies: ")
    assert first.endswith("; recipes cannot be told apart with fewer than 3 seeds")
    assert float(first.split("policies: ")[1].split()[0]) == pytest.approx(points, abs=0.15)
    prompts = int(second.split()[4].replace(",", ""))
    assert second == f"2 points would take {prompts:,} prompts × 3 seeds: {prompts * 13 * 2:,} comparisons"


def test_two_points_are_priced(tiny: TinySuite) -> None:
    """By each paid judge's own price; comparisons are those of all judges."""
    price = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0}
    paid = {"kind": "openai", "model": "one", "base_url": "http://127.0.0.1:9/v1", "price": price}
    suite = judged(tiny, judge=[paid, {"kind": "rule"}, paid | {"model": "two", "orders": "single"}])
    made = power_view.as_dict(planner.make(suite), None)["detectable"]["scores"]
    assert list(made) == ["win_rate/one"]  # of several the main judge's
    needs = made["win_rate/one"]["to_see_points"]
    assert needs["comparisons"] == needs["prompts"] * 13 * (2 + 2 + 1)
    evaluator = suite.evaluation.chosen["win_rate"]
    (whole, half) = evaluator.price({"judge:one": 13, "judge:two": 13}, suite.data) or ()
    assert isinstance(whole, dict)
    assert isinstance(half, dict)
    each = (whole["cost_usd_at_most"] + half["cost_usd_at_most"]) / 3
    assert needs["cost_usd_at_most"] == pytest.approx(each * needs["prompts"])
    assert f"at most ${needs['cost_usd_at_most']:,.2f}" in lines(suite)[1]
    unknown = judged(tiny, judge={key: value for key, value in paid.items() if key != "price"})
    assert lines(unknown)[1].endswith(", cost not known")


def test_a_prompt_set_has_no_more_prompts_than_it_has(tiny: TinySuite, tmp_path: Path) -> None:
    """Thirty prompts are all there are: two points take more seeds than anybody would train."""
    rows = [{"instruction": f"Question {number}?", "output": "An answer."} for number in range(30)]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    win_rate = {"prompts_from": str(tmp_path / "set.json"), "judge": {"kind": "rule"}}
    first, second = lines(tiny(**SEEDS, evaluation={"win_rate": win_rate}))
    assert "that 30 prompts × 3 seeds show between two recipes: " in first
    assert second == "2 points would take more prompts and seeds than there are, or anybody would judge"


def test_questions_count_where_files_tell(tiny: TinySuite) -> None:
    """MMLU has 57 subjects, 19 of them of its STEM group; two of the world's kinds; of hellaswag only its data tell."""
    tasks = ["mmlu", "mmlu_stem", "mmlu_astronomy", "hellaswag"]
    evaluation = {"lm_eval": {"tasks": tasks, "limit": 5}}
    (said,) = lines(tiny(**SEEDS, evaluation=evaluation))
    made = power_view.as_dict(planner.make(tiny(**SEEDS, evaluation=evaluation)), None)["detectable"]["scores"]
    assert {name: one["items"] for name, one in made.items()} == {
        "mmlu": 285, "mmlu_stem": 95, "mmlu_astronomy": 5, "hellaswag": None,
    }  # fmt: skip
    assert said.startswith(
        f"smallest difference in points on mmlu: {100 * power.detectable(power.AT_WORST, 285, 3, 2):.1f} (285 questions); "
    )
    assert said.endswith("; hellaswag: not known before it is loaded")


@pytest.mark.parametrize(
    ("name", "limit", "count"),
    [("mmlu", None, None), ("mmlu", 100, 5700), ("mmlu", 101, None), ("mmlu_astronomy_continuation", 5, None)],
)
def test_what_files_do_not_tell_is_not_known(name: str, limit: int | None, count: int | None) -> None:
    """The smallest subjects of MMLU have 100 questions: beyond, a limit says only how many there are at most."""
    assert lm_eval_index.count_of(name, limit) == count


def test_the_worlds_questions_are_counted() -> None:
    """As lm-eval is asked them: so many of each kind of thing."""
    from bench.data import world

    kinds = [row["subject"] for row in world.questions("test")]
    assert lm_eval_index.count_of("world_questions", None) == len(kinds)
    assert lm_eval_index.count_of("world_questions", 2) == 2 * len(set(kinds))


def test_one_recipe_has_nothing_to_be_told_apart_from(tiny: TinySuite) -> None:
    suite = judged(tiny, methods=["mix"])
    assert lines(suite) == []
    assert power_view.as_dict(planner.make(suite), None) == {"detectable": None}


def test_judged_pairs_tell_how_much_they_spread(tiny: TinySuite, tmp_path: Path) -> None:
    """The rows of the six runs' judgings; a pair that one judging lacks counts in none."""
    suite = judged(tiny, prompts=40)
    plan = planner.make(suite)
    generator = np.random.default_rng(0)
    context = WorkerContext(suite, tmp_path, None, "cpu", {"workers": 1}, lambda message: None, lambda: False)
    outcomes: dict[str, list[Any]] = {}
    for job in plan.jobs.values():
        of = plan.jobs.get(str(job.labels.as_dict().get("of"))) if job.labels else None
        if job.kind == "judge" and of is not None and "run" in of.roles:
            preferences = generator.normal(0.5, 0.1, 40).tolist()
            outcomes.setdefault(of.run_labels.method, []).append(preferences)
            rows = [{"id": place, "preference": one, "orders": {}} for place, one in enumerate(preferences)]
            if len(outcomes) == 1 and len(outcomes[of.run_labels.method]) == 1:
                rows[39]["preference"] = None
            path = context.job_folder(job.id)
            record.write_json(path / "spec.json", handlers.spec(job, context))
            record.append_jsonl(path / "samples.jsonl", rows)
            record.write_json(path / "status.json", {"schema": record.SCHEMA, "outcome": record.COMPLETE})
    (method,) = (name for name in outcomes if name == "mix")
    array = np.array([outcomes["sequential"], outcomes[method]])[:, :, :39]
    spread = power.measured(array)
    assert spread is not None
    assert spread.item == pytest.approx(2 * 0.1**2, rel=0.4)
    made = power_view.as_dict(plan, tmp_path)["detectable"]["scores"]["win_rate/rule"]
    points = 100 * power.detectable(spread, 40, 3, 2)
    assert made["measured_points"] == pytest.approx(points)
    assert made["to_see_points"]["spread"] == "measured"
    assert f", {points:.1f} with the spread judged so far" in lines(suite, tmp_path)[0]
    assert made["to_see_points"]["prompts"] == getattr(power.needed(spread, 0.02, 3, 2), "items", None)
