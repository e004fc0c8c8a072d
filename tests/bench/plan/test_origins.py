"""Whose code counts: what another package brings is part of the identity of the jobs whose numbers it decides, of no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from other_evaluators import LengthJudge, Words
from other_methods import MixThenDpo

from bench import registry
from bench.collectors import COLLECTORS
from bench.collectors.cpu import Cpu
from bench.evaluators import EVALUATORS
from bench.judges import JUDGES
from bench.methods import METHODS
from bench.plan import planner
from bench.records import record
from bench.records.metrics import Metric
from bench.run import handlers
from bench.suite import yaml_file
from bench.suite.suite import Suite

TinySuite = Callable[..., Suite]
Offer = Callable[..., None]
JUDGE = {"prompts": 2, "judge": {"kind": "length"}}


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a way to let another package's sources have a hash; `one` at first."""

    def be(value: str) -> None:
        monkeypatch.setattr(registry, "source_hash", lambda module: f"{module}:{value}")

    be("one")
    return be


def kinds_changed(before: planner.Plan, after: planner.Plan) -> dict[str, int]:
    """Count the jobs that are new ones, by kind."""
    new = [job.kind for name, job in after.jobs.items() if name not in before.jobs]
    return {kind: new.count(kind) for kind in dict.fromkeys(new)}


def test_a_methods_code_decides_its_own_runs(tiny: TinySuite, offer: Offer, source: Callable[[str], None]) -> None:
    """Its run is a new one, and through it the questions asked of it; mix, both optima and the base stay as they are."""
    offer(METHODS, "mix_then_dpo", MixThenDpo)
    suite = tiny(methods=["mix", "mix_then_dpo"], evaluation={"lm_eval": {"tasks": ["world_questions"]}})
    before = planner.make(suite)
    job = next(job for job in before.jobs.values() if job.id.startswith("mix-then-dpo"))
    assert job.plugins == ({"distribution": "other_methods", "version": "unknown", "source": "other_methods:one"},)
    assert (job.settings["order"], job.settings["phase_steps"]) == ("sft_dpo", {"dpo": 3, "sft": 3})
    assert not any(one.plugins for one in before.jobs.values() if one is not job)
    assert kinds_changed(before, planner.make(suite)) == {}
    source("two")
    assert kinds_changed(before, planner.make(suite)) == {"train": 1, "lm_eval": 1}


def test_a_toys_method_counts_too(offer: Offer, source: Callable[[str], None]) -> None:
    offer(METHODS, "mix_then_dpo", MixThenDpo)
    suite = yaml_file.load("toy", ["methods=[mix, mix_then_dpo]", "training.horizons=[{steps: 6}]"])
    before = planner.make(suite)
    source("two")
    after = planner.make(suite)
    assert kinds_changed(before, after) == {"toy": 1}
    assert [len(job.plugins) for job in after.jobs.values()] == [0, 1]


def test_an_evaluators_code_decides_all_its_stages_and_a_judges_its_judgings(
    tiny: TinySuite, offer: Offer, source: Callable[[str], None]
) -> None:
    """Four policies: base, two optima, mix. What is generated for the judge depends on neither."""
    offer(EVALUATORS, "words", Words)
    offer(JUDGES, "length", LengthJudge)
    words, judged = tiny(evaluation={"words": {"prompts": 2}}), tiny(evaluation={"win_rate": JUDGE})
    before = [planner.make(suite) for suite in (words, judged)]
    source("two")
    after = [planner.make(suite) for suite in (words, judged)]
    assert kinds_changed(before[0], after[0]) == {"words_said": 4, "words": 4}
    assert kinds_changed(before[1], after[1]) == {"judge": 4}


def test_a_collectors_code_is_on_record_and_in_no_id(
    tiny: TinySuite, run_plan: Any, offer: Offer, source: Callable[[str], None]
) -> None:
    class Fans(Cpu):
        metric: ClassVar[Metric] = Metric("fan_turns", "Fan turns", "turns", "lower", "cost")

    suite = tiny()
    before = planner.make(suite)
    offer(COLLECTORS, "fan_turns", Fans)
    source("two")
    runner = run_plan(suite)
    assert list(runner.plan.jobs) == list(before.jobs)
    spec = handlers.spec(runner.job("mix"), runner.context)
    ((name, origin),) = spec["collectors"].items()
    assert (name, origin["version"]) == ("fan_turns", "unknown")
    assert "plugins" not in spec
    assert "collectors" not in handlers.spec(runner.job("reference-logps"), runner.context)


def test_a_run_says_whose_code_made_it(tiny: TinySuite, run_plan: Any, offer: Offer) -> None:
    offer(METHODS, "mix_then_dpo", MixThenDpo)
    runner = run_plan(tiny(methods=["mix_then_dpo"]))
    made = runner.run("mix-then-dpo")
    (plugin,) = record.read_job(made.path).spec["plugins"]
    assert (plugin["distribution"], plugin["version"]) == ("other_methods", "unknown")
    assert plugin["source"] == registry.source_hash("other_methods")
    assert Path(__file__).parents[2].joinpath("other_methods.py").exists()
