"""When a joint run ends early: the rules by hand, and the loop on the untrained tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.methods import METHODS, Objective, Target
from bench.plan import planner
from bench.records import record
from bench.records.optimum import cross_fitted
from bench.records.record import read_jsonl
from bench.run import handlers, inputs
from bench.run.context import WorkerContext
from bench.suite import yaml_file
from bench.suite.suite import Suite
from bench.train.stopping import Rule, targets

DPO, SFT = Objective.DPO, Objective.SFT


def point(dpo: float, sft: float) -> dict[Objective, float]:
    return {DPO: dpo, SFT: sft}


# ---- the rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (point(0.51, 1.51), None),  # both 0.01 above their optima
        (point(0.50, 9.00), "f_DPO = 0.50000 is within 0.001 of its optimum 0.50000 or below"),
        (point(0.5009, 9.00), "f_DPO"),
        (point(0.5011, 9.00), None),
        (point(9.00, 1.4990), "f_SFT = 1.49900 is within 0.001 of its optimum 1.50000 or below"),
    ],
)
def test_one_objective_at_its_optimum_is_enough(values: dict[Objective, float], says: str | None) -> None:
    """f* = (0.5, 1.5), threshold 0.001: 0.5009 is 0.0009 above and counts, 0.5011 does not, 1.499 is below and counts."""
    reason = Rule(0.001, optimum=point(0.5, 1.5)).reason(values)
    assert reason is None if says is None else says in str(reason)


@pytest.mark.parametrize(
    ("values", "matched"),
    [
        (point(0.60, 1.80), "A"),
        (point(0.6009, 1.8009), "A"),
        (point(0.59, 1.79), "A"),  # dominates A
        (point(0.59, 1.82), None),  # better than A in DPO only; worse than B in DPO
        (point(0.80, 1.60), "B"),
        (point(0.70, 1.70), None),  # between the two: no point is matched in both
    ],
)
def test_a_point_of_the_front_must_be_matched_in_both(values: dict[Objective, float], matched: str | None) -> None:
    """Front A = (0.6, 1.8), B = (0.8, 1.6), threshold 0.001."""
    reason = Rule(0.001, front={"A": point(0.6, 1.8), "B": point(0.8, 1.6)}).reason(values)
    assert reason is None if matched is None else f"matches {matched} (" in str(reason)


def test_dominates_does_not_stop_for_one_objective() -> None:
    """f_DPO far below the front's, f_SFT 0.1 above: `authors` stops at f*_DPO = 0.5, `dominates` has no optimum to look at."""
    front = {"A": point(0.6, 1.8)}
    assert Rule(1e-4, front=front).reason(point(0.1, 1.9)) is None
    assert Rule(1e-4, point(0.5, 1.5), front).reason(point(0.1, 1.9)) is not None


def test_who_is_compared_with_what() -> None:
    """Sequential with nothing; ALRIGHT, which makes the front, with the optima alone, and only under `authors`."""
    sequential, alright, mix = (METHODS[name] for name in ("sequential", "alright", "mix"))
    both, front, optimum = frozenset(Target), {Target.FRONT}, {Target.OPTIMUM}
    assert [targets("authors", kind) for kind in (sequential, alright, mix)] == [set(), optimum, both]
    assert [targets("dominates", kind) for kind in (sequential, alright, mix)] == [set(), set(), front]
    assert not any(targets("none", kind) for kind in METHODS.values())


# ---- the plan --------------------------------------------------------------------------------------------------------


def suite(stopping: dict[str, Any] | None = None, **changes: Any) -> Suite:
    """Return a suite of 6 steps on the untrained tiny model, evaluated at steps 2, 4 and 6."""
    training: dict[str, Any] = {
        "epochs": 2,
        "batch_size": {"dpo": 2, "sft": 4},
        "learning_rate": 1e-2,
        "evaluate_every": 2,
        "checkpoint_every": 3,
    }
    settings: dict[str, Any] = {
        "name": "stopping",
        "model": {"source": "random"},
        "lora": {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]},
        "data": {
            "preference": {"source": "world", "rows": 6, "evaluation_rows": 3},
            "instruction": {"source": "world", "rows": 12, "evaluation_rows": 3},
        },
        "training": training | ({"stopping": stopping} if stopping else {}),
        "methods": ["sequential", "mix", "alright"],
        "lambdas": [0.5],
    }
    return Suite.model_validate(settings | changes)


def find(made: planner.Plan, slug: str) -> planner.JobSpec:
    return next(job for job in made.jobs.values() if job.id.startswith(slug))


def test_without_a_rule_every_job_is_what_it_was() -> None:
    plain, none = planner.make(suite()), planner.make(suite({"rule": "none", "threshold": 0.5}))
    assert list(plain.jobs) == list(none.jobs)
    assert all("stopping" not in job.settings for job in none.jobs.values())


def test_a_rule_changes_only_the_joint_runs() -> None:
    plain, ruled = planner.make(suite()), planner.make(suite({"rule": "authors"}))
    changed = {job.id.rsplit("-", 1)[0] for name, job in ruled.jobs.items() if name not in plain.jobs}
    assert changed == {"mix-l0.5-s0", "alright-l0.5-s0"}
    for slug in ("sequential", "mix", "alright"):
        assert find(plain, slug).labels == find(ruled, slug).labels


def test_the_front_is_the_alright_runs_of_the_seed_and_the_optima() -> None:
    made = planner.make(suite({"rule": "dominates"}, lambdas=[0.25, 0.5], seeds=[0, 1]))
    mix = find(made, "mix-l0.5-s1")
    front = {name: one.rsplit("-", 1)[0] for name, one in mix.inputs.as_dict().items() if name != "reference_logps"}
    assert front == {
        "front_1": "alright-l0.25-s1",
        "front_2": "alright-l0.5-s1",
        "optimum_dpo": "dpo-optimum-s1",
        "optimum_sft": "sft-optimum-s1",
    }
    seen: set[str] = set()
    for job in made.jobs.values():
        assert set(job.needs) <= seen
        seen.add(job.id)
    assert "stopping" not in find(made, "alright").settings


def test_a_front_given_by_number_needs_no_runs() -> None:
    made = planner.make(suite({"rule": "dominates", "front": [[0.5, 2.0]]}, methods=["mix"]))
    mix = find(made, "mix")
    assert list(mix.inputs.as_dict()) == ["reference_logps"]
    assert mix.settings["stopping"] == {"rule": "dominates", "threshold": 1e-4, "front": [[0.5, 2.0]]}


def test_a_front_from_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match=r"add alright to methods or give training\.stopping\.front"):
        suite({"rule": "authors"}, methods=["mix"])
    with pytest.raises(ValueError, match="at least 1 item"):
        suite({"rule": "authors", "front": []})


@pytest.mark.parametrize("name", ["llama3_8b", "pythia_1b_dpo_sft", "pythia_1b_sft_dpo", "pythia_1b_max_evaluation"])
def test_the_papers_suites_stop_as_its_authors_did(name: str) -> None:
    stopping = yaml_file.load(name).training.stopping
    assert (stopping.rule, stopping.threshold, stopping.front) == ("authors", 1e-4, None)


# ---- the loop --------------------------------------------------------------------------------------------------------


class Bench:
    """Run jobs of a plan in this process; `interrupt_at` is a step at which the user asks to stop."""

    def __init__(self, settings: Suite, folder: Path) -> None:
        self.plan = planner.make(settings)
        self.interrupt_at: int | None = None
        self.seen = 0
        self.context = WorkerContext(
            settings, folder, None, "cpu", {"workers": 1}, self._tell, lambda: self.seen == self.interrupt_at
        )

    def _tell(self, message: dict[str, Any]) -> None:
        self.seen = message.get("step", self.seen)

    def needs(self, slug: str) -> planner.JobSpec:
        """Run what a job needs; return the job."""
        job = find(self.plan, slug)
        for need in job.needs:
            if not (self.context.job_folder(need) / "status.json").exists():
                self.run(need)
        return job

    def run(self, slug: str, outcome: str = record.COMPLETE) -> record.Job:
        job = self.needs(slug)
        status = handlers.run(job, self.context)
        assert status["outcome"] == outcome, status
        return record.read_job(self.context.job_folder(job.id))


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timing = {"seconds", "probe_seconds", "training_seconds"}
    return [{name: value for name, value in row.items() if name not in timing} for row in rows]


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory: pytest.TempPathFactory) -> record.Job:
    """Mix without a rule."""
    return Bench(suite(), tmp_path_factory.mktemp("unstopped")).run("mix")


@pytest.fixture(scope="module")
def front(unstopped: record.Job) -> dict[str, Any]:
    """A front of one point: where Mix stands at step 4, which it has not matched at step 2."""
    two, four = (next(row for row in unstopped.rows("trajectory") if row["step"] == step) for step in (2, 4))
    names = ("f_dpo/held_out", "f_sft/held_out")
    assert any(two[name] > four[name] + 1e-3 for name in names)
    return {"rule": "dominates", "front": [[four[name] for name in names]]}


def test_a_run_stops_where_it_matches_the_front_and_is_finished_properly(
    unstopped: record.Job, front: dict[str, Any], tmp_path: Path
) -> None:
    """Equal values differ by 0 ≤ 1e-4 at step 4: two steps fewer, the same until then, and every file of a whole run."""
    made = Bench(suite(front), tmp_path).run("mix")
    assert timeless(made.rows("steps")) == timeless(unstopped.rows("steps"))[:4]
    assert [row["step"] for row in made.rows("trajectory")] == [0, 2, 4]
    assert {f"f_{one}/{split}" for one in ("dpo", "sft") for split in ("held_out", "train")} <= set(
        made.rows("trajectory")[-1]
    )
    assert (made.stopping["step"], made.stopping["early"]) == (4, True)
    assert "matches point 1" in made.stopping["reason"]
    assert made.measurements["steps"] == {"value": 4, "unit": "steps"}
    assert made.measurements["tokens"]["value"] == sum(row["tokens"] for row in made.rows("steps"))
    assert made.measurements["reload_difference"]["value"] <= 1e-5
    assert made.scores["f_sft/held_out"]["value"] == made.rows("trajectory")[-1]["f_sft/held_out"]
    assert (made.path / "adapter" / "adapter_model.safetensors").exists()
    assert not (made.path / "checkpoints").exists()


@pytest.mark.parametrize("interrupted", [1, 3, 4])
def test_interrupted_before_or_at_its_stop_it_ends_the_same(
    front: dict[str, Any], tmp_path: Path, interrupted: int
) -> None:
    """Step 4 is the stop itself: the checkpoint kept there must know that nothing is left to do."""
    whole = Bench(suite(front), tmp_path / "whole").run("mix")
    bench = Bench(suite(front), tmp_path / "cut")
    bench.needs("mix")
    bench.seen, bench.interrupt_at = 0, interrupted
    bench.run("mix", outcome=record.STOPPED)
    bench.interrupt_at = None
    made = bench.run("mix")
    for name in ("steps", "trajectory"):
        assert timeless(made.rows(name)) == timeless(whole.rows(name))
    assert (made.scores, made.stopping) == (whole.scores, whole.stopping)


def test_a_run_that_its_rule_never_ends_takes_all_its_steps(tmp_path: Path) -> None:
    made = Bench(suite({"rule": "dominates", "front": [[-1.0, -1.0]]}), tmp_path).run("mix")
    assert made.stopping == {
        "step": 6,
        "reason": "all steps taken; the rule never applied",
        "early": False,
        "dropped": [],
    }
    assert made.measurements["steps"]["value"] == 6


def test_the_authors_rule_ends_alright_at_an_optimum_and_leaves_sequential_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """f*_SFT is put where ALRIGHT stands at step 2, f*_DPO out of reach: the first evaluation ends the run."""
    free = Bench(suite(), tmp_path / "free").run("alright").rows("trajectory")
    assert free[1]["f_sft/held_out"] < free[0]["f_sft/held_out"] - 1e-3
    targets = {"sft": free[1]["f_sft/held_out"], "dpo": -10.0}
    monkeypatch.setattr(inputs, "_optimum", lambda folder, objective, split: targets[objective])
    bench = Bench(suite({"rule": "authors", "threshold": 1e-4}), tmp_path / "ruled")
    made = bench.run("alright")
    assert made.stopping["step"] == 2
    assert "f_SFT = " in made.stopping["reason"] and "within 0.0001 of its optimum" in made.stopping["reason"]
    sequential = bench.run("sequential")
    assert sequential.stopping == {}
    assert sequential.measurements["steps"]["value"] == 6


@pytest.mark.parametrize("split", ["held_out", "train_head"])
def test_the_front_is_read_from_the_runs_on_the_evaluation_split(tmp_path: Path, split: str) -> None:
    """The SFT optimum is the reference, so its f_DPO, which came later than the run, is log 2 on either split."""
    data = suite().data.model_dump() | {"evaluation_split": split}
    bench = Bench(suite({"rule": "authors", "threshold": 1e-9}, data=data), tmp_path)
    job = bench.needs("mix")
    rule = inputs.rule(job, bench.context)
    assert rule is not None
    place = "train" if split == "train_head" else "held_out"
    assert set(rule.front) == {*job.inputs.front, *job.inputs.optimum.values()}
    assert len(rule.front) == 3
    assert rule.front[job.inputs.optimum["sft"]][DPO] == pytest.approx(0.693147, abs=1e-5)
    for one in (job.inputs.front[0], job.inputs.optimum["dpo"]):
        scores = json.loads((bench.context.job_folder(one) / "scores.json").read_text())
        expected = point(*(scores[f"f_{one}/{place}"]["value"] for one in ("dpo", "sft")))
        assert rule.front[one] == pytest.approx(expected)
    for one in Objective:
        rows = list(read_jsonl(bench.context.job_folder(job.inputs.optimum[one]) / "trajectory.jsonl"))
        found = cross_fitted(rows, f"f_{one}/{place}")
        assert found is not None
        assert rule.optimum[one] == found.value


def test_targets_that_are_met_before_any_step_are_dropped() -> None:
    """f_DPO starts at 0.69: an optimum of 0.70 (overfitted) would end every run at its first look; 1.0 of f_SFT is valid.
    Of the front, a point is dropped only where both of its values are met at the start."""
    start = {Objective.DPO: 0.69, Objective.SFT: 2.0}
    front = {
        "near": {Objective.DPO: 0.70, Objective.SFT: 2.1},
        "far": {Objective.DPO: 0.70, Objective.SFT: 1.5},
    }
    rule = Rule(0.01, {Objective.DPO: 0.70, Objective.SFT: 1.0}, front)
    left, dropped = rule.held_against(start)
    assert left.optimum == {Objective.SFT: 1.0}
    assert list(left.front) == ["far"]
    assert dropped == [
        "the optimum of f_DPO (0.70000) is not below f(θ_1) = 0.69000: nothing was learned there",
        "near of the reference front is met before any step",
    ]
    assert left.reason(start) is None
