"""The job that the longest chain of others waits for goes first."""

from __future__ import annotations

from typing import Any

import pytest

from bench.plan import planner, priority
from bench.plan.plan import Plan
from bench.records.spec import Inputs, JobSpec, Prefix


def job(name: str, kind: str, *needs: str, steps: int = 0, tokens: int = 0, prefix: Prefix | None = None) -> JobSpec:
    return JobSpec(name, kind, None, {}, Inputs(front=needs), {}, steps=steps, tokens=tokens, prefix=prefix)


def plan(tiny: Any, *jobs: JobSpec) -> Plan:
    made = Plan(tiny())
    for one in jobs:
        made.add(one)
    return made


def test_the_longest_chain_goes_first_and_what_runs_alone_last(tiny: Any) -> None:
    """Ranks by hand, an evaluation being a tenth of the costliest run: a 100 + 10, b 60 + 100 + 10, c 100 + 10, e 10."""
    made = plan(
        tiny,
        job("cost", "cost"),
        job("e", "lm_eval"),
        job("a", "train", steps=10, tokens=100),
        job("b", "train", steps=10, tokens=60),
        job("c", "train", "b", steps=10, tokens=100),
        job("e-a", "lm_eval", "a"),
        job("e-c", "lm_eval", "c"),
    )
    assert priority.order(made) == ["b", "a", "c", "e", "e-a", "e-c", "cost"]


def test_a_run_that_begins_at_anothers_checkpoint_costs_its_own_steps(tiny: Any) -> None:
    made = plan(
        tiny,
        job("a", "train", steps=10, tokens=100),
        job("b", "train", steps=10, tokens=100, prefix=Prefix("a", 5)),
        job("e", "lm_eval", "b"),
    )
    assert priority.rough_costs(made) == {"a": 100.0, "b": 50.0, "e": pytest.approx(10.0)}


def test_a_plan_without_steps_has_an_order_too(tiny: Any) -> None:
    made = plan(tiny, job("a", "adopt"), job("b", "lm_eval", "a"), job("c", "lm_eval"))
    assert priority.order(made) == ["a", "b", "c"]


def test_of_a_suite_every_job_stands_after_those_it_needs_and_the_references_chain_first(tiny: Any) -> None:
    """Reference → its log-probabilities → the DPO optimum → MAXRIGHT: none waits behind a run that nothing waits for."""
    made = planner.make(tiny(methods=["sequential", "maxright"], evaluation={"base_kl": {}}))
    order = priority.order(made)
    place = {one: number for number, one in enumerate(order)}
    assert sorted(order) == sorted(made.jobs)
    assert all(place[need] < place[one] for one in order for need in made.jobs[one].needs)
    kinds = [one.rsplit("-", 1)[0] for one in order if made.jobs[one].kind != "cost"]
    trained = [one for one in kinds if not one.startswith(("kl-", "base-"))]
    assert trained[:3] == ["sft-optimum-s0", "reference-logps", "dpo-optimum-s0"]


def test_the_first_policies_are_evaluated_early_and_nobody_waits_in_the_longest_chain_for_it(tiny: Any) -> None:
    """The reference goes on to its log-probabilities; its evaluation, with the base's answers that it needs, comes next."""
    made = planner.make(tiny(methods=["mix"], lambdas=[0.25, 0.5], seeds=[0], cost="off", evaluation={"base_kl": {}}))
    order = [one.rsplit("-", 1)[0] for one in priority.order(made)]
    assert order[:4] == ["sft-optimum-s0", "reference-logps", "base-answers-base", "kl-sft-optimum-s0"]
    early = [one for one in order[4:6] if one.startswith("kl-")]  # of one place two policies', then training goes first
    assert len(early) == 1 and order[6:8] == [one for one in order[4:9] if not one.startswith("kl-")][1:3]
    assert all(one.startswith("kl-") for one in order[8:])
    more = [one.rsplit("-", 1)[0] for one in priority.order(made, places=8)]
    assert all(more.index(f"kl-{one}") == more.index(one) + 1 for one in more if one.startswith(("mix", "dpo")))


def test_what_a_job_needs_is_what_its_record_names(tiny: Any) -> None:
    made = planner.make(tiny(methods=["sequential", "maxright"], evaluation={"base_kl": {}}))
    for one in made.jobs.values():
        assert one.needs == (*one.inputs.as_dict().values(), *([one.prefix.job] if one.prefix else []))
