"""What an upgrade made stale: how many complete jobs count no longer, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from other_methods import MixThenDpo

from bench import registry
from bench.cli import plan_view
from bench.methods import METHODS
from bench.plan import planner
from bench.records import record
from bench.run import handlers, stale, standing
from bench.run.context import WorkerContext
from bench.suite.suite import Suite

TinySuite = Callable[..., Suite]
EVALUATION = {"lm_eval": {"tasks": ["world_questions"]}}


@pytest.fixture(autouse=True)
def _offered(offer: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    offer(METHODS, "mix_then_dpo", MixThenDpo)
    monkeypatch.setattr(registry, "source_hash", lambda module: "one")


def complete(suite: Suite, folder: Path) -> planner.Plan:
    """Leave a record of every job of a suite's plan, as a run does."""
    plan = planner.make(suite)
    context = WorkerContext(suite, folder, None, "cpu", {"workers": 1}, lambda message: None, lambda: False)
    for number, job in enumerate(plan.jobs.values()):
        path = context.job_folder(job.id)
        record.write_json(path / "spec.json", handlers.spec(job, context))
        status = {"schema": record.SCHEMA, "outcome": record.COMPLETE, "finished": f"2026-01-01T00:00:{number:02}"}
        record.write_json(path / "status.json", status)
    return plan


def told(suite: Suite, folder: Path) -> list[str]:
    return [str(one) for one in stale.find(planner.make(suite), folder)]


def test_nothing_is_stale_where_nothing_changed(tiny: TinySuite, tmp_path: Path) -> None:
    """Jobs that the plan no longer wants are not stale either."""
    complete(tiny(methods=["mix", "mix_then_dpo"], evaluation=EVALUATION), tmp_path)
    assert told(tiny(methods=["mix"]), tmp_path) == []
    assert told(tiny(), tmp_path / "none") == []


def test_a_plugins_new_source(tiny: TinySuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run and the questions asked of it: two jobs, for the one reason. Run again, nothing is stale."""
    suite = tiny(methods=["mix", "mix_then_dpo"], evaluation=EVALUATION)
    complete(suite, tmp_path)
    monkeypatch.setattr(registry, "source_hash", lambda module: "two")
    assert told(suite, tmp_path) == ["2 complete jobs are stale: other_methods unknown: its source has changed"]
    plan = planner.make(suite)
    states = standing.look(plan, tmp_path).states
    found = stale.find(plan, tmp_path)
    assert plan_view.as_text(plan, states, set(plan.jobs), found).endswith(f"  {found[0]}")
    shown = json.loads(json.dumps(plan_view.as_dict(plan, states, set(plan.jobs), found)))["stale"]
    assert shown[0]["reason"] == "other_methods unknown: its source has changed"
    assert sorted(one.rsplit("-", 1)[0] for one in shown[0]["jobs"]) == [
        "mix-then-dpo-l0.5-s0",
        "questions-mix-then-dpo-l0.5-s0",
    ]
    complete(suite, tmp_path)
    assert told(suite, tmp_path) == []


def test_a_changed_setting_is_named(tiny: TinySuite, tmp_path: Path) -> None:
    """β: the DPO optimum, mix and their questions; nothing that trains without it. 0.1 → 0.2."""
    complete(tiny(evaluation=EVALUATION), tmp_path)
    changed = tiny(evaluation=EVALUATION, objectives={"beta": 0.2})
    assert told(changed, tmp_path) == ["4 complete jobs are stale: beta 0.1 → 0.2"]
    training = tiny().training.model_dump() | {"learning_rate": 0.02, "weight_decay": 0.1}
    (line,) = told(tiny(training=training), tmp_path)
    assert line == ("4 complete jobs are stale: training.learning_rate 0.01 → 0.02, training.weight_decay 0.0 → 0.1")


def test_whose_setting_it_was_is_named(tiny: TinySuite, tmp_path: Path) -> None:
    """Four policies (base, two optima, mix): prompts are asked of each in the one suite, answered and judged in the other."""
    world = {"tasks": ["world_questions"], "limit": 3}
    judge = {"kind": "rule", "orders": "both"}
    before = {"lm_eval": world, "win_rate": {"prompts": 2, "judge": judge}}
    complete(tiny(evaluation=before), tmp_path)
    changed = {"lm_eval": world | {"limit": 4}, "win_rate": {"prompts": 3, "judge": judge}}
    assert told(tiny(evaluation=changed), tmp_path) == [
        "4 complete jobs are stale: evaluation.lm_eval.limit 3 → 4",
        "8 complete jobs are stale: evaluation.win_rate.prompts 2 → 3",
    ]
    changed = {"lm_eval": world, "win_rate": {"prompts": 2, "judge": judge | {"orders": "single"}}}
    assert told(tiny(evaluation=changed), tmp_path) == [
        '4 complete jobs are stale: evaluation.win_rate.judge.orders "both" → "single"'
    ]


def test_new_semantics_and_new_data(tiny: TinySuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both optima, the reference's log-probabilities and mix are four jobs."""
    from bench.plan import identity

    suite = tiny()
    plan = complete(suite, tmp_path)
    monkeypatch.setattr(identity, "SEMANTICS", identity.SEMANTICS + 1)
    monkeypatch.setattr(stale, "SEMANTICS", identity.SEMANTICS)
    assert told(suite, tmp_path) == ["4 complete jobs are stale: semantics 2 → 3"]
    monkeypatch.undo()
    for job in plan.jobs.values():
        path = tmp_path / "jobs" / job.id
        spec: dict[str, Any] = record.read_json(path / "spec.json")
        spec["data"]["preference"] = "sha256:other"
        record.write_json(
            tmp_path / "other" / "jobs" / f"{job.id[:-10]}0123456789" / "spec.json",
            spec | {"id": f"{job.id[:-10]}0123456789"},
        )
        record.write_json(
            tmp_path / "other" / "jobs" / f"{job.id[:-10]}0123456789" / "status.json",
            record.read_json(path / "status.json"),
        )
    assert told(suite, tmp_path / "other") == ["4 complete jobs are stale: data.preference has changed"]


def test_a_judge_among_several_is_named_by_its_place(tiny: TinySuite, tmp_path: Path) -> None:
    """The second of two judges asks otherwise: its four judgings are stale, and the first's are not. A third makes none stale."""
    rule, local = {"kind": "rule"}, {"kind": "local", "local_model": {"source": "random"}}

    def suite(*judges: dict[str, Any]) -> Suite:
        return tiny(evaluation={"win_rate": {"prompts": 2, "judge": list(judges)}})

    complete(suite(rule, local), tmp_path)
    assert told(suite(rule, local | {"orders": "single"}), tmp_path) == [
        '4 complete jobs are stale: evaluation.win_rate.judge[1].orders "both" → "single"'
    ]
    world = {"kind": "local", "local_model": {"source": "world"}}
    assert told(suite(world, local, rule), tmp_path) == []


def test_judges_that_all_ask_otherwise_are_all_stale(tiny: TinySuite, tmp_path: Path) -> None:
    rule, local = {"kind": "rule"}, {"kind": "local", "local_model": {"source": "random"}}
    complete(tiny(evaluation={"win_rate": {"prompts": 2, "judge": [rule, local]}}), tmp_path)
    once = [one | {"orders": "single"} for one in (rule, local)]
    (said,) = told(tiny(evaluation={"win_rate": {"prompts": 2, "judge": once}}), tmp_path)
    assert said == '8 complete jobs are stale: evaluation.win_rate.judge.orders "both" → "single"'
