"""What steps cost alone: each kind is measured, in random order, by a clock that tests need not wait for."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.methods import Objective
from bench.models import world_model
from bench.models.policy import load
from bench.plan import planner
from bench.records import record
from bench.records.spec import Inputs, JobSpec
from bench.records.work import Work
from bench.records.work import count as count_work
from bench.run import execute, handlers
from bench.settings import Model
from bench.train import cost
from bench.train.losses import Losses, Part
from report.build import build

REPEATS = {"rounds": 2, "steps": 4, "seconds": 6.0, "warm_up_steps": 1}


def job_of(runner: Any, *kinds: Work, repeats: dict[str, Any] = REPEATS) -> JobSpec:
    """Return a cost job on the runner's suite."""
    settings = {"work": [str(one) for one in kinds], "repeats": repeats}
    return JobSpec("cost-1", "cost", None, settings, Inputs(), {})


def measure(runner: Any, *kinds: Work, repeats: dict[str, Any] = REPEATS) -> record.Job:
    """Measure on a clock that is a second later at each look."""
    runner.context.clock = (float(one) for one in count()).__next__
    status = handlers.run(job_of(runner, *kinds, repeats=repeats), runner.context)
    assert status["outcome"] == record.COMPLETE, status["message"]
    return record.read_job(runner.context.job_folder("cost-1"))


def test_each_kind_is_measured_as_long_as_wanted(tiny: Any, run_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is read at both ends of a step, so each takes 1 s.

    Two rounds, at least 2 steps and 3 s each: 3 steps a block, 6 of each kind. The first round is warm-up, and so is the
    first step of each block: none of them is on record.
    """
    looks = iter([(0.0, 0.0), (0.0, 1.0)])
    monkeypatch.setattr(cost, "core_seconds", lambda *_: next(looks))
    job = measure(run_plan(tiny()), *Work)
    for work in Work:
        seconds = job.measurements[f"step_seconds/{work}"]
        # ON_GRADIENTS: the gradients are taken before the clock starts; probes look at the clock themselves
        assert seconds == {"value": 1.0, "unit": "s", "quartiles": [1.0, 1.0], "steps": 6, "together": "sum"}
        assert job.measurements[f"peak_memory_bytes/{work}"]["together"] == "max"
        assert job.measurements[f"energy_joules/{work}"]["together"] == "sum"
        assert job.measurements[f"cpu_utilization_percent/{work}"]["together"] == "mean"
    rows = job.rows("steps")
    assert len(rows) == 6 * len(Work) and {row["round"] for row in rows} == {1, 2}
    assert all(row["tokens"] > 0 for row in rows)
    flops = {work: job.measurements[f"step_model_flops/{work}"]["value"] for work in Work}
    assert flops[Work.ON_GRADIENTS] == 0 and all(flops[work] for work in Work if work is not Work.ON_GRADIENTS)
    assert job.metric("step_seconds/dpo").kind == "cost"


def test_other_programs_are_seen(tiny: Any, run_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 core-seconds others used 20, on a machine of 4 cores: 0.8 cores. Time is marked, memory is the process's own."""
    monkeypatch.setattr(cost.psutil, "cpu_count", lambda: 4)
    looks = [(5.0, 1000.0), (25.0, 1100.0), (5.0, 1000.0), (6.0, 1100.0)]
    monkeypatch.setattr(cost, "core_seconds", lambda *_: looks.pop(0))
    shared = measure(run_plan(tiny()), Work.SFT).measurements
    assert shared["other_cores_busy"]["value"] == pytest.approx(0.8)
    assert shared["step_seconds/sft"]["shared_machine"] and "shared_machine" not in shared["peak_memory_bytes/sft"]
    alone = measure(run_plan(tiny(name="idle")), Work.SFT).measurements
    assert alone["other_cores_busy"]["value"] == pytest.approx(0.04)
    assert "shared_machine" not in alone["step_seconds/sft"]


def test_the_machines_clock_counts_what_others_do() -> None:
    """Whatever runs here: others use no more than the cores have, and both only grow."""
    (used, had), (later, after) = cost.core_seconds(), cost.core_seconds()
    assert 0 < had <= after and used <= had and later - used <= after - had + 0.1


def test_rounds_differ_in_their_order_and_two_jobs_do_not(tiny: Any, run_plan: Any) -> None:
    """At 5 rounds of 4 kinds the order of all being one has a chance of 1 in 24 to the fourth."""
    repeats = {"rounds": 5, "steps": 5, "seconds": 0.0, "warm_up_steps": 0}
    orders = []
    for name in ("one", "two"):
        runner = run_plan(tiny(name=name))
        kinds = (Work.DPO, Work.SFT, Work.PROBE_DPO, Work.JOINT)
        rows = measure(runner, *kinds, repeats=repeats).rows("steps")
        orders.append([[row["work"] for row in rows if row["round"] == number] for number in range(1, 6)])
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders[0]}) > 1
    assert all(sorted(order) == sorted(orders[0][0]) for order in orders[0])


def test_weights_stay_and_tokens_are_the_batches(tiny: Any, run_plan: Any) -> None:
    """A joint step's batches are one of each objective, so that its mean tokens are near the sum of theirs.

    6 pairs in batches of 2, 12 rows in batches of 4, so three steps are an epoch: over 6 steps the means are exact.
    """
    repeats = {"rounds": 1, "steps": 6, "seconds": 0.0, "warm_up_steps": 0}
    runner = run_plan(tiny())
    alone = {}
    for work in (Work.DPO, Work.SFT, Work.JOINT, Work.ACCUMULATE, Work.PROBE_DPO, Work.GRADIENTS):
        # the round of warm-up takes 6 steps too, which are two epochs
        alone[work] = measure(runner, work, repeats=repeats).measurements[f"step_tokens/{work}"]["value"]
    assert alone[Work.PROBE_DPO] == alone[Work.DPO]
    for work in (Work.JOINT, Work.ACCUMULATE, Work.GRADIENTS):
        assert alone[work] == pytest.approx(alone[Work.DPO] + alone[Work.SFT])


def test_each_block_finds_anew_what_fits(tiny: Any, run_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for 2 of 4 rows, for more once activations are forgotten; 3 rounds of 2 kinds, the first of them warm-up.

    SFT alone goes on with 2 rows at once. Both graphs at once ask for activations to be forgotten, and fit whole. No block begins
    with what an earlier one was left with, so each is told so once; what is measured after it is on the same micro-batches.
    """
    real = Losses.of
    seen: list[tuple[bool, int]] = []

    def of(self: Losses, part: Part) -> Any:
        checkpointing, rows = self._policy.checkpointing, len(part.rows)
        if rows > 2 and not checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if part.objective is Objective.SFT:
            seen.append((checkpointing, rows))
        return real(self, part)

    monkeypatch.setattr(Losses, "of", of)
    repeats = {"rounds": 2, "steps": 2, "seconds": 0.0, "warm_up_steps": 1}
    runner = run_plan(tiny(model={"source": "random", "gradient_checkpointing": "auto"}))
    job = measure(runner, Work.SFT, Work.JOINT, repeats=repeats)
    log = (job.path / "log.txt").read_text()
    assert log.count("going on with 2 sft rows at once") == log.count("going on with gradient checkpointing") == 3
    # each block: a step of warm-up and one that counts, of two halves or of the whole
    assert sorted(seen) == sorted(3 * 2 * [(False, 2), (False, 2), (True, 4)])


def test_it_stops_when_asked(tiny: Any, run_plan: Any) -> None:
    runner = run_plan(tiny())
    runner.context.stopping = lambda: True
    status = handlers.run(job_of(runner, Work.SFT), runner.context)
    assert status["outcome"] == record.STOPPED and "measured anew" in status["message"]


def test_the_work_of_runs_is_what_their_methods_declare(tiny: Any, run_plan: Any) -> None:
    """Every kind that a run's steps were made of is one that the plan would have measured."""
    lambdas, methods = [0.0, 0.5], ["mix", {"name": "mix", "label": "m2", "backward": "accumulate"}, "dpo_with_sft"]
    suite = tiny(methods=[*methods, "alright", "maxright", "sequential"], lambdas=lambdas)
    runner = run_plan(suite)
    by_method = {one.shown: one for one in suite.methods}
    for job in [one for one in runner.plan.jobs.values() if "run" in one.roles]:
        counted = count_work(runner.run(job.id).rows("steps"))
        labels = job.run_labels
        kind = planner.METHODS[labels.base_method]
        options = kind.Options.model_validate(by_method[labels.method].options)
        assert counted is not None and set(counted) <= kind.work(labels.lambda_dpo, options), job.id


def test_the_plan_measures_what_the_suite_needs_and_no_seed_changes_it(tiny: Any, tmp_path: Path) -> None:
    """Mix at λ = 0.5 takes joint steps, the optima one objective each; a model of one's own is measured, `off` is not."""
    model = {"source": "local", "path": str(tmp_path)}
    (tmp_path / "config.json").write_text("{}")

    def planned(**changes: Any) -> list[JobSpec]:
        plan = planner.make(tiny(**{"model": model} | changes))
        return [job for job in plan.jobs.values() if job.kind == "cost"]

    (job,) = planned()
    assert job.settings["work"] == ["dpo", "sft", "joint"] and job.alone
    assert list(planner.make(tiny(model=model)).jobs)[-1] == job.id
    assert [one.id for one in planned(seeds=[4, 7])] == [job.id]
    (with_probes,) = planned(methods=["maxright"])
    assert with_probes.settings["work"] == ["dpo", "sft", "probe_dpo", "probe_sft"]
    assert with_probes.id != job.id
    assert planned(cost="off") == planned(cost=False) == [] == planned(model={"source": "random"})
    assert (
        planned(methods=["mix", "trl_sequential"]) == []
    )  # whose loop is its own, and has nothing to compare with then


def test_a_recipe_of_other_settings_is_another_job(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    suite = tiny(model={"source": "local", "path": str(tmp_path)})
    lora = suite.lora.model_copy(update={"rank": 4})
    ids = {list(planner.make(one).jobs)[-1] for one in (suite, suite.model_copy(update={"lora": lora}))}
    assert len(ids) == 2 and all(one.startswith("cost-") for one in ids)
    often = suite.training.model_copy(update={"evaluate_every": 5})
    same = [list(planner.make(one).jobs)[-1] for one in (suite, suite.model_copy(update={"training": often}))]
    assert same[0] == same[1]
    assert replace(planner.make(suite).jobs[same[0]], kind="train").alone is False


def test_from_the_suite_to_its_report(
    tiny: Any, run_plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the clock of `measure` a step takes 1 s, a probe 1 s, and the six steps of a Sequential run 6 s.

    MAXRIGHT probes both objectives at steps 1, 2, 4 and 6: 6 + 8 = 14 s, 133 % more (Eq. 57). Its own run says 22 s, as the
    clock is looked at in the middle of its steps.
    """
    monkeypatch.setattr(planner, "REPEATS", {"rounds": 1, "steps": 2, "seconds": 0.0, "warm_up_steps": 0})
    loaded = load(Model(source="random"), torch.device("cpu"))
    loaded.model.save_pretrained(tmp_path / "base")
    world_model.tokenizer().save_pretrained(tmp_path / "base")
    methods = ["sequential", {"name": "maxright", "max_eval_every": 2}]
    runner = run_plan(tiny(model={"source": "local", "path": str(tmp_path / "base")}, methods=methods))
    runner.context.clock = (float(one) for one in count()).__next__
    execute.write_suite(runner.plan, runner.folder)
    for job in runner.plan.jobs:
        runner.run(job)
    own = runner.run("maxright").measurements
    assert own["training_seconds"]["value"] == 22.0
    build(runner.folder)
    report = record.read_json(runner.folder / "report.json")
    (maxright,) = [one["figures"] for one in report["recipes"] if one["method"] == "maxright"]
    assert maxright["training_seconds"]["mean"] == 14.0 and maxright["probe_seconds"]["mean"] == 8.0
    assert maxright["runtime_increase_percent"]["mean"] == pytest.approx(100 * 8 / 6)
    assert report["cost_source"].startswith("Costs of training were measured alone by cost-")
    assert report["cost_source"] in (runner.folder / "report.md").read_text()
