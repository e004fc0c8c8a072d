"""What a job takes of a machine: a device for what computes with a model, a network for what only asks somebody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.plan import planner
from bench.records.spec import NETWORK_ONLY, Resources
from bench.suite import yaml_file

LOCAL = {"kind": "local", "local_model": {"source": "random"}}


def judged(judge: dict[str, Any]) -> dict[str, Any]:
    return {"win_rate": {"judge": judge, "prompts": 2, "generation": {"max_new_tokens": 4}}}


@pytest.mark.parametrize(("judge", "expected"), [({"kind": "rule"}, NETWORK_ONLY), (LOCAL, Resources())])
def test_a_judge_holds_a_device_only_where_it_loads_a_model(tiny: Any, judge: dict[str, Any], expected: Any) -> None:
    plan = planner.make(tiny(evaluation=judged(judge)))
    taken = {job.kind: job.resources for job in plan.jobs.values()}
    assert taken["judge"] == expected
    assert taken["generate"] == taken["train"] == taken["reference_logps"] == Resources()


def test_a_toy_takes_no_device_but_computes() -> None:
    plan = planner.make(yaml_file.load("toy"))
    (resources,) = {job.resources for job in plan.jobs.values()}
    assert resources.devices == 0 and not resources.network_only


def test_what_computes_needs_memory_for_the_weights(tiny: Any, tmp_path: Path) -> None:
    """As they lie on the disk: 12 and 30 bytes. A judge by a rule needs none."""
    for name, text in (("config.json", "{}"), ("a.safetensors", "x" * 12), ("b.safetensors", "x" * 30)):
        (tmp_path / name).write_text(text)
    suite = tiny(model={"source": "local", "path": str(tmp_path)}, evaluation=judged({"kind": "rule"}))
    taken = {job.kind: job.resources for job in planner.make(suite).jobs.values()}
    assert taken["train"] == Resources(memory_bytes=42) and taken["judge"] == NETWORK_ONLY


def test_what_asks_a_policy_takes_as_many_devices_as_evaluations_are_split_over(tiny: Any) -> None:
    """Not judging, nor answers that a server makes; jobs are the same on any number, of which the default is left open."""
    options = {"lm_eval": {"tasks": ["world_questions"]}, "base_kl": {}, **judged({"kind": "rule"})}
    plan = planner.make(tiny(evaluation={"devices": 2, **options}))
    taken = {job.kind: job.resources.devices for job in plan.jobs.values()}
    of_two = ("lm_eval", "generate", "base_answers", "base_kl")
    assert {kind: count for kind, count in taken.items() if kind in of_two} == dict.fromkeys(of_two, 2)
    assert (taken["judge"], taken["train"], taken["reference_logps"]) == (0, 1, 1)
    for settings in (options, {"devices": 1, **options}, {"devices": "auto", **options}):
        other = planner.make(tiny(evaluation=settings))
        assert list(other.jobs) == list(plan.jobs)
        assert {job.resources.devices for job in other.jobs.values()} == {0, 1}
    options["win_rate"]["generation"] |= {"engine": "endpoint", "endpoint": {"base_url": "http://127.0.0.1:1/v1"}}
    served = planner.make(tiny(evaluation={"devices": 2, **options}))
    assert {job.resources.devices for job in served.jobs.values() if job.kind == "generate"} == {1}
