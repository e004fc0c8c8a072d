"""Methods with phases of their own: what the loop and the plan make of what a method declares, whatever it is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from other_methods import MixThenDpo, SftThenMix, TooShort

from bench.errors import InputError, JobError
from bench.methods import METHODS, Choice, Objective
from bench.plan import planner
from bench.records import record
from bench.run import handlers
from bench.suite import yaml_file
from bench.suite.suite import Suite
from bench.toy import runs

TinySuite = Callable[..., Suite]
Offer = Callable[..., None]
DPO, SFT = Objective.DPO, Objective.SFT


def own(job: planner.JobSpec) -> dict[str, Any]:
    return {name: job.settings[name] for name in ("phases", "steps", "budget") if name in job.settings}


def test_each_phase_has_a_schedule_of_its_own_length_and_an_evaluation_at_its_end(
    tiny: TinySuite, run_plan: Any, offer: Offer
) -> None:
    """6 steps: 2 of both, 4 of DPO; evaluated every 5 and at the change. Linear from 0.01 over 2 and over 4 steps.

    The learning rate of step s of a phase of n steps is 0.01 (n − s + 1) / n: 0.01, 0.005; 0.01, 0.0075, 0.005, 0.0025.
    """
    offer(METHODS, "mix_then_dpo", MixThenDpo)
    training = tiny().training.model_dump() | {"schedule": "linear", "evaluate_every": 5}
    job = run_plan(tiny(methods=["mix_then_dpo"], training=training)).run("mix-then-dpo")
    steps = job.rows("steps")
    assert [row["phase"] for row in steps] == [0, 0, 1, 1, 1, 1]
    assert [row["learning_rate"] for row in steps] == pytest.approx([0.01, 0.005, 0.01, 0.0075, 0.005, 0.0025])
    assert [list(row["weights"]) for row in steps] == [["dpo", "sft"]] * 2 + [["dpo"]] * 4
    assert [row["step"] for row in job.rows("trajectory")] == [0, 2, 5, 6]


def test_a_first_phase_of_one_objective_starts_from_its_optimum(
    tiny: TinySuite, run_plan: Any, offer: Offer, tmp_path: Path
) -> None:
    """Its two steps of SFT are the SFT optimum's, records and all; the optimum's method state is not this method's.

    Interrupted after step 3, its own state comes back: three observed steps less the two that it did not take itself.
    """
    offer(METHODS, "sft_then_mix", SftThenMix)
    runner = run_plan(tiny(methods=["sft_then_mix"]))
    job = runner.job("sft-then-mix")
    optimum = runner.job("sft-optimum")
    assert (job.prefix.job, job.prefix.step) == (optimum.id, 2)
    made = runner.run("sft-then-mix")
    steps = made.rows("steps")
    assert steps[:2] == runner.run("sft-optimum").rows("steps")[:2]
    assert [list(row["weights"]) for row in steps] == [["sft"]] * 2 + [["dpo", "sft"]] * 4

    again = run_plan(tiny(name="again", methods=["sft_then_mix"]))
    again.needs("sft-then-mix")
    seen: list[int] = []
    again.context.tell = lambda message: seen.append(message.get("step", 0))
    again.context.stopping = lambda: seen[-1:] == [3]
    assert handlers.run(job, again.context)["outcome"] == record.STOPPED
    again.context.stopping = lambda: False
    assert handlers.run(job, again.context)["outcome"] == record.COMPLETE
    cut = record.read_job(again.context.job_folder(job.id))
    assert [row["losses"] for row in cut.rows("steps")] == [row["losses"] for row in steps]
    assert cut.scores == made.scores


def test_what_a_plan_makes_of_phases(tiny: TinySuite, offer: Offer) -> None:
    """A third of 6 steps is both, the rest DPO. A batch: DPO 2 (512 + 2 · 512) = 3,072 tokens, SFT 4 (512 + 512) = 4,096.

    Two steps of both and four of DPO are 2 (3,072 + 4,096) + 4 · 3,072 = 26,624 tokens. Sequential's length is its phases;
    other phases stand beside the steps, or the tokens that λ = 0.5's 3 and 3 steps make.
    """
    offer(METHODS, "mix_then_dpo", MixThenDpo)
    offer(METHODS, "sft_then_mix", SftThenMix)
    names = ["sequential", "mix", "mix_then_dpo", "sft_then_mix"]
    made = {job.labels.method: job for job in planner.make(tiny(methods=names)).jobs.values() if "run" in job.roles}
    assert own(made["sequential"]) == {"phases": [["sft", 3], ["dpo", 3]]}
    assert own(made["mix"]) == {"steps": 6}
    assert own(made["mix_then_dpo"]) == {"phases": [[None, 2], ["dpo", 4]], "steps": 6}
    assert own(made["sft_then_mix"]) == {"phases": [["sft", 2], [None, 4]], "steps": 6}
    assert made["mix_then_dpo"].tokens == 26_624
    assert made["mix_then_dpo"].prefix is None

    training = tiny().training.model_dump() | {"budget": "tokens"}
    equal = planner.make(tiny(methods=names, training=training)).jobs.values()
    made = {job.labels.method: job for job in equal if "run" in job.roles}
    tokens = {"budget": {"tokens_of_phases": [["sft", 3], ["dpo", 3]]}}
    assert own(made["sequential"]) == {"phases": [["sft", 3], ["dpo", 3]]}
    assert own(made["mix_then_dpo"]) == {"phases": [[None, 2], ["dpo", 4]], **tokens}


def test_phases_that_do_not_add_up_are_refused(tiny: TinySuite, offer: Offer) -> None:
    offer(METHODS, "too_short", TooShort)
    with pytest.raises(InputError) as caught:
        planner.make(tiny(methods=["too_short"]))
    assert str(caught.value) == (
        "the method 'too_short' of other_methods declares phases of 1 + 2 steps, but a run has 6; they must add up to it"
    )


def test_a_phase_that_was_not_declared_is_refused(tiny: TinySuite, run_plan: Any, offer: Offer) -> None:
    """It would have no length for its schedule."""

    class Lost(MixThenDpo):
        def choose(self, step: int, probe: Any) -> Choice:
            return Choice({DPO: 1.0}, phase=2)

    offer(METHODS, "lost", Lost)
    runner = run_plan(tiny(methods=["lost"]))
    runner.needs("lost")
    status = handlers.run(runner.job("lost"), runner.context)
    assert status["message"] == (
        f"the method 'lost' of {Lost.__module__}, step 1: it chose phase 2, but declares 2 phases, counted from 0"
    )
    assert status["error"] == JobError.__name__


def test_a_step_that_nobody_can_take_is_refused_by_name(tiny: TinySuite, run_plan: Any, offer: Offer) -> None:
    """At the third step, the first of DPO, it chooses a weight that is no number; a toy's job says the same."""

    class Gone(MixThenDpo):
        def choose(self, step: int, probe: Any) -> Choice:
            return Choice({DPO: float("nan")}, phase=1) if step == 3 else super().choose(step, probe)

    offer(METHODS, "gone", Gone)
    said = f"the method 'gone' of {Gone.__module__}, step 3: it chose the weight nan of DPO, which is no finite number"
    runner = run_plan(tiny(methods=["gone"]))
    runner.needs("gone")
    status = handlers.run(runner.job("gone"), runner.context)
    assert (status["error"], status["message"]) == (JobError.__name__, said)
    (job,) = planner.make(yaml_file.load("toy", ["methods=[gone]", "training.horizons=[{steps: 6}]"])).jobs.values()
    with pytest.raises(JobError, match=said):
        runs.work(job.settings, runner.folder)


def test_what_others_are_held_against_is_declared(tiny: TinySuite, offer: Offer) -> None:
    """A method whose runs make the front stands in for ALRIGHT: `mix` is held against its runs."""

    class Front(MixThenDpo):
        makes_front = True

    offer(METHODS, "front", Front)
    training = tiny().training.model_dump() | {"stopping": {"rule": "dominates"}}
    made = planner.make(tiny(methods=["mix", "front"], training=training))
    runs_by_method = {job.labels.method: job for job in made.jobs.values() if "run" in job.roles}
    assert runs_by_method["mix"].inputs.front == (runs_by_method["front"].id,)


def test_a_toy_run_has_the_steps_of_its_phases(offer: Offer, tmp_path: Path) -> None:
    """T = 6: two steps of both and four of DPO; with a threshold that f_DPO never passes, none of any is left out."""
    offer(METHODS, "mix_then_dpo", MixThenDpo)
    changes = ["methods=[{name: mix_then_dpo, threshold: 1.0e-9}]", "training.horizons=[{steps: 6}]"]
    (job,) = planner.make(yaml_file.load("toy", changes)).jobs.values()
    assert job.steps == 6
    runs.work(job.settings, tmp_path)
    measured = record.read_json(tmp_path / "measurements.json")
    assert {name: measured[f"steps/{name}"]["value"] for name in ("dpo", "sft")} == {"dpo": 6, "sft": 2}
    rows = list(record.read_jsonl(tmp_path / "trajectory.jsonl"))
    assert rows[0]["phase"] == 0
    assert rows[-1]["phase"] == 1
