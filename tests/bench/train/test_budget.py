"""Equal tokens: a joint run ends with the step at which it has trained on as many as the matching Sequential run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.data.tokens import Datasets, Example, Split
from bench.methods import Objective
from bench.plan import planner
from bench.settings import PerObjective
from bench.suite.suite import Suite
from bench.train import budget

TinySuite = Callable[..., Suite]
DPO, SFT = Objective.DPO, Objective.SFT


def tokens(settings: TinySuite, **changes: Any) -> Suite:
    training = settings().training.model_dump() | {"budget": "tokens", "epochs": None, "steps": 12}
    return settings(training=training, methods=["sequential", "mix", "alright", "maxright"], **changes)


def test_the_budget_is_the_phases_steps_times_the_mean_tokens_of_a_batch() -> None:
    """Pairs of 3 + 2 + 4 and 1 + 1 + 1 tokens: 9 and 3, mean 6, batches of 2; rows of 2 + 3 = 5, batches of 4.

    3 DPO and 5 SFT steps: 3 · 2 · 6 + 5 · 4 · 5 = 136. Plain rows hold the prompt twice: 12 and 4, mean 8: 148.
    """
    pairs = Split([Example((1,) * 3, ((1,) * 2, (1,) * 4)), Example((1,), ((1,), (1,)))])
    rows = Split([Example((1,) * 2, ((1,) * 3,))])
    data = Datasets({DPO: pairs, SFT: rows}, {}, [], ())
    settings = {"budget": {"tokens_of_phases": [["sft", 5], ["dpo", 3]]}}
    batch_size = PerObjective(dpo=2, sft=4)
    assert budget.tokens(data, batch_size, "shared_prompt", settings) == 136
    assert budget.tokens(data, batch_size, "plain", settings) == 148
    assert budget.tokens(data, batch_size, "plain", {"steps": 8}) is None


def test_joint_runs_end_with_the_step_that_reaches_the_budget(tiny: TinySuite, run_plan: Any) -> None:
    """At λ = 0.5 Sequential takes 6 + 6 steps; Mix sees a batch of each a step and so ends after about half of 12.

    Every joint run's tokens reach the budget, and did not before its last step.
    """
    runner = run_plan(tokens(tiny))
    rows = runner.context.datasets(runner.context.base(runner.suite.model, None).tokenizer, {})
    limit = budget.tokens(rows, runner.suite.training.batch_size, "shared_prompt", runner.job("mix").settings)
    taken = {}
    for method in ("sequential", "mix", "alright", "maxright"):
        steps = runner.run(method).rows("steps")
        taken[method] = len(steps)
        if method != "sequential":
            used = sum(row["tokens"] for row in steps)
            assert used >= limit > used - steps[-1]["tokens"]
    assert taken["sequential"] == 12
    assert 6 <= taken["mix"] <= 7
    assert taken["alright"] > 9


def test_an_interrupted_run_ends_at_the_same_step(tiny: TinySuite, run_plan: Any, tmp_path: Any) -> None:
    whole = run_plan(tokens(tiny, name="whole")).run("mix")
    runner = run_plan(tokens(tiny, name="cut"))
    runner.needs("mix")
    seen: list[int] = []
    runner.context.tell = lambda message: seen.append(message.get("step", 0))
    runner.context.stopping = lambda: seen[-1] == 3
    from bench.run import handlers

    assert handlers.run(runner.job("mix"), runner.context)["outcome"] == "stopped"
    runner.context.stopping = lambda: False
    assert handlers.run(runner.job("mix"), runner.context)["outcome"] == "complete"
    again = runner.run("mix")
    assert [row["losses"] for row in again.rows("steps")] == [row["losses"] for row in whole.rows("steps")]


def test_the_budget_leaves_the_optima_and_sequential_what_they_were(tiny: TinySuite) -> None:
    """They define the budget, so their ids, and with them their records, are those of a suite that counts steps."""
    training = tiny().training.model_dump() | {"epochs": None, "steps": 12}
    by_steps = set(planner.make(tiny(training=training, methods=["sequential", "mix"])).jobs)
    by_tokens = set(planner.make(tiny(training=training | {"budget": "tokens"}, methods=["sequential", "mix"])).jobs)
    assert {one for one in by_steps if one.startswith(("sequential", "dpo-", "sft-"))} < by_tokens
    assert not any(one.startswith("mix") for one in by_steps & by_tokens)


def test_a_schedule_that_falls_needs_to_know_its_end(tiny: TinySuite) -> None:
    training = tiny().training.model_dump() | {"budget": "tokens", "schedule": "linear"}
    with pytest.raises(ValueError, match=r"budget: tokens needs schedule: constant, not 'linear'"):
        tiny(training=training)
