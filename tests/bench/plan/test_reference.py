"""π_ref as the end of phase 1, and as a policy of another suite."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from bench.plan import planner
from bench.records import record
from bench.run import handlers
from bench.suite.suite import Suite

TinySuite = Callable[..., Suite]


def weights(job: record.Job) -> Any:
    return load_file(job.path / "adapter" / "adapter_model.safetensors")


def test_phase_1_is_the_policy_that_sequential_starts_dpo_from(tiny: TinySuite, run_plan: Any) -> None:
    """λ = 0.5 of 6 steps: SFT ends at step 3. There π_θ = π_ref, so the first DPO loss is log 2.

    The reference takes no step of its own: it is the SFT optimum's checkpoint at step 3.
    """
    runner = run_plan(tiny(methods=["sequential"], reference={"policy": "phase_1"}))
    reference = runner.job("sft-phase-1")
    assert (reference.roles, reference.steps, reference.steps_to_run) == (("reference",), 3, 0)
    steps = runner.run("sequential").rows("steps")
    assert [list(row["losses"]) for row in steps] == [["sft"]] * 3 + [["dpo"]] * 3
    assert steps[3]["losses"]["dpo"] == pytest.approx(math.log(2), abs=1e-5)
    made = runner.run("sft-phase-1")
    assert [row["losses"] for row in made.rows("steps")] == [row["losses"] for row in steps[:3]]
    assert made.measurements["steps"]["value"] == 3


def test_phase_1_under_a_falling_schedule_is_trained_for_itself(tiny: TinySuite, run_plan: Any) -> None:
    """Its learning rate falls to 0 within the phase, as Sequential's does and the optimum's does not."""
    training = tiny().training.model_dump() | {"schedule": "linear"}
    runner = run_plan(tiny(methods=["sequential"], reference={"policy": "phase_1"}, training=training))
    assert runner.job("sft-phase-1").prefix is None
    steps = runner.run("sequential").rows("steps")
    assert steps[3]["losses"]["dpo"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": "dpo_sft"}, "needs order: sft_dpo"),
        ({"lambdas": [0.25, 0.5]}, r"give one λ \(now \[0.25, 0.5\]\)"),
        ({"methods": ["mix", {"name": "alright", "lambdas": [0.75]}]}, r"give one λ \(now \[0.5, 0.75\]\)"),
        ({"lambdas": [1.0]}, "at λ = 1 there is no SFT phase"),
    ],
)
def test_phase_1_is_refused_where_there_is_none_or_more_than_one(
    tiny: TinySuite, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(reference={"policy": "phase_1"}, **changes)


def test_an_unknown_reference_is_told_the_nearest_name(tiny: TinySuite) -> None:
    with pytest.raises(ValueError, match=r"unknown reference 'stf'; did you mean 'sft'\?.*or SUITE/JOB"):
        tiny(reference={"policy": "stf"})
    with pytest.raises(ValueError, match=r"epochs: policy 'base' has no length of its own"):
        tiny(reference={"policy": "base", "epochs": 2})


def test_a_policy_of_another_suite_is_taken_over(tiny: TinySuite, run_plan: Any) -> None:
    """At its own weights f_DPO is log 2; the adapter is a copy, and its cost is not claimed for this suite."""
    first = run_plan(tiny(name="first", methods=["mix"]))
    source = first.run("mix")
    second = run_plan(tiny(name="second", methods=["alright"], reference={"policy": f"first/{source.id}"}))
    made = second.run("adopted")
    assert all((weights(made)[name] == value).all() for name, value in weights(source).items())
    assert made.measurements["training_seconds"]["value"] is None
    assert "trained by another suite: first/mix" in made.measurements["training_seconds"]["reason"]
    assert second.job("reference-logps").inputs.policy == made.id
    assert second.run("alright").scores["f_dpo/held_out"]["value"] != pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "status.json").unlink(), "no complete job in"),
        (lambda folder: (folder / "adapter").rename(folder / "elsewhere"), "records without weights; run that suite"),
        (
            lambda folder: (folder / "adapter" / "adapter_model.safetensors").write_bytes(b""),
            "adapter/adapter_model.safetensors is not as it was written",
        ),
    ],
)
def test_a_policy_that_is_not_there_is_one_clear_error(
    tiny: TinySuite, run_plan: Any, break_it: Callable[[Path], Any], message: str
) -> None:
    source = run_plan(tiny(name="first", methods=["mix"])).run("mix")
    break_it(source.path)
    second = run_plan(tiny(name="second", reference={"policy": f"first/{source.id}"}))
    status = handlers.run(second.job("adopted"), second.context)
    assert (status["outcome"], status["error"]) == ("failed", "ModelError")
    assert message in status["message"]


def test_a_policy_that_is_not_there_is_bad_input_before_anything_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Exit code 2, one line, nothing made."""
    from bench.cli import main

    words = ["run", "quickstart", "--set", "reference.policy=first/mix-l0.5-s0-0123456789", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["bench", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert "reference.policy = first/mix-l0.5-s0-0123456789: no complete job in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_policy_of_another_base_model_is_refused(tiny: TinySuite, run_plan: Any) -> None:
    source = run_plan(tiny(name="first", methods=["mix"])).run("mix")
    other = {"source": "random", "architecture": "gpt_neox"}
    lora = {"rank": 2, "alpha": 4, "targets": ["all-linear"]}
    second = run_plan(tiny(name="second", model=other, lora=lora, reference={"policy": f"first/{source.id}"}))
    assert "another base model" in handlers.run(second.job("adopted"), second.context)["message"]


def test_the_reference_does_not_change_the_ids_of_what_does_not_use_it(tiny: TinySuite) -> None:
    """The SFT optimum trains without π_ref."""
    plans = [planner.make(tiny(reference={"policy": policy})) for policy in ("sft", "base", "phase_1")]
    ids = [{one for one in plan.jobs if one.startswith("sft-optimum")} for plan in plans]
    assert ids[0] == ids[1] == ids[2]
