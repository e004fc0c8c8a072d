"""TRL's trainers as a recipe: in the plan, on record, in the report, and without a trace on what comes after.

That they compute what Sequential computes is in `test_proofs.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from bench.models import held_out
from bench.plan import planner
from bench.records import record
from bench.run import execute, handlers, standing
from bench.suite.suite import Suite
from report import build

TinySuite = Callable[..., Suite]
BOTH = ["sequential", "trl_sequential"]


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_it_takes_sequentials_steps_and_needs_the_references_weights(tiny: TinySuite) -> None:
    """λ = 0.5 of 6 steps is 3 and 3. TRL forwards the prompt with each answer: at most (2 · 2 · 3 + 4 · 3) rows of 512 + 512."""
    made = planner.make(tiny(methods=BOTH))
    job = next(job for job in made.jobs.values() if job.kind == "recipe")
    reference = made.with_role("reference")
    assert reference is not None
    assert job.needs_weights_of == (reference.id,)
    assert job.labels.phase_steps == {"dpo": 3, "sft": 3}
    assert (job.steps, job.tokens) == (6, 24 * 1024)
    assert job.roles == ("run",)


def test_a_base_model_as_reference_needs_no_weights(tiny: TinySuite) -> None:
    made = planner.make(tiny(methods=["trl_sequential"], reference={"policy": "base"}))
    (job,) = (job for job in made.jobs.values() if job.kind == "recipe")
    assert job.needs_weights_of == ()


@pytest.mark.parametrize("changes", [{"learning_rate": 1e-3}, {"schedule": "linear"}, {"adam_betas": [0.9, 0.99]}])
def test_its_id_depends_on_the_training_settings(tiny: TinySuite, changes: dict[str, Any]) -> None:
    training = tiny().training.model_dump()
    ids = [
        {job.id for job in planner.make(tiny(methods=["trl_sequential"], training=one)).jobs.values()}
        for one in (training, training | changes)
    ]
    recipes = [{name for name in one if name.startswith("trl-sequential")} for one in ids]
    assert recipes[0].isdisjoint(recipes[1])


def test_the_sum_over_a_sequence_is_refused_before_anything_runs(tiny: TinySuite) -> None:
    with pytest.raises(ValidationError, match=r"objectives.reduction: trl_sequential knows token_mean only; set it to"):
        tiny(methods=["trl_sequential"], objectives={"reduction": "sequence_sum"})
    tiny(methods=["interpolation"], objectives={"reduction": "sequence_sum"})


# ---- on record -------------------------------------------------------------------------------------------------------


def test_its_records_are_those_of_a_trained_run(tiny: TinySuite, run_plan: Any) -> None:
    """As many rows as Sequential's at the same steps, 3 of each phase; probes are a true 0.

    TRL repeats the prompt, so a DPO step's tokens are Sequential's and each pair's prompt once more.
    """
    runner = run_plan(tiny(methods=BOTH))
    ours, theirs = (runner.run(name) for name in ("sequential", "trl-sequential"))
    for name in ("step", "phase", "weights", "probe_seconds", "probe_tokens"):
        assert [row[name] for row in theirs.rows("steps")] == [row[name] for row in ours.rows("steps")], name
    # 2 and 4 as evaluate_every says, 3 where the phase changes
    assert [row["step"] for row in theirs.rows("trajectory")] == [0, 2, 3, 4, 6]
    assert theirs.rows("trajectory")[0].keys() == theirs.rows("trajectory")[-1].keys()
    for name, score in ours.scores.items():
        assert theirs.scores[name]["value"] == pytest.approx(score["value"], rel=1e-4), name
        assert theirs.rows("trajectory")[-1][name] == theirs.scores[name]["value"]

    tokenizer = runner.context.base(runner.suite.model, None).tokenizer
    pairs = runner.context.datasets(tokenizer, {}).train["dpo"].examples
    # three batches of 2 are the 6 pairs once each
    more = sum(len(pair.prompt) for pair in pairs)
    tokens = [job.measurements["tokens"]["value"] for job in (ours, theirs)]
    assert tokens[1] == tokens[0] + more
    rows = theirs.rows("steps")
    assert theirs.measurements["training_seconds"]["value"] == pytest.approx(sum(row["seconds"] for row in rows))
    assert all(row["seconds"] > 0 for row in rows)
    assert theirs.measurements["steps"]["value"] == 6
    assert (theirs.measurements["rows_drawn/dpo"]["value"], theirs.measurements["rows_drawn/sft"]["value"]) == (6, 12)
    assert theirs.measurements["probe_seconds"]["value"] == 0
    assert theirs.measurements["peak_memory_bytes"]["value"] > 0
    assert "recipe_seconds" not in theirs.measurements
    # nothing of TRL's own lies in the folder
    assert {one.name for one in theirs.path.iterdir()} == {one.name for one in ours.path.iterdir()} - {"checkpoints"}
    assert sorted(one.name for one in (theirs.path / "adapter").iterdir()) == sorted(
        one.name for one in (ours.path / "adapter").iterdir()
    )


def test_evaluations_are_outside_the_clock(tiny: TinySuite, run_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which an evaluation takes a second and nothing else takes any, training takes none."""
    runner = run_plan(tiny(methods=["trl_sequential"]))
    runner.needs("trl-sequential")
    seconds = 0
    real = held_out.both_scores

    def slow(*arguments: Any) -> Any:
        nonlocal seconds
        seconds += 1
        return real(*arguments)

    monkeypatch.setattr(held_out, "both_scores", slow)
    runner.context.clock = lambda: seconds
    job = runner.run("trl-sequential")
    assert seconds == 7  # one split at steps 2, 3 and 4, both at 0 and 6
    assert job.measurements["training_seconds"]["value"] == 0


def test_making_a_batch_is_inside_the_clock(tiny: TinySuite, run_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in our own loop. By a clock on which making a DPO batch takes a second, three steps take three."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    real = DataCollatorForPreference.torch_call
    seconds = 0

    def slow(self: Any, examples: Any) -> Any:
        nonlocal seconds
        seconds += 1
        return real(self, examples)

    monkeypatch.setattr(DataCollatorForPreference, "torch_call", slow)
    runner = run_plan(tiny(methods=["trl_sequential"], lambdas=[0.5]))
    runner.context.clock = lambda: seconds
    rows = runner.run("trl-sequential").rows("steps")
    assert [sum(row["seconds"] for row in rows if row["phase"] == phase) for phase in (0, 1)] == [0, 3]


def test_nothing_is_written_over_the_progress_display(
    tiny: TinySuite, run_plan: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    runner = run_plan(tiny(methods=["trl_sequential"]))
    runner.needs("trl-sequential")
    told: list[dict[str, Any]] = []
    runner.context.tell = told.append
    capfd.readouterr()
    runner.run("trl-sequential")
    assert capfd.readouterr() == ("", "")
    steps = [message for message in told if "step" in message]
    assert [message["step"] for message in steps] == [1, 2, 3, 4, 5, 6]
    assert all(message["steps"] == 6 and message["losses"] for message in steps)


def test_an_interrupted_job_is_made_again_from_the_start(tiny: TinySuite, run_plan: Any) -> None:
    """The worker of a recipe is killed where it stands; what it has written until then must not count."""
    runner = run_plan(tiny(methods=["trl_sequential"]))
    runner.needs("trl-sequential")
    job = runner.job("trl-sequential")
    folder = runner.context.job_folder(job.id)
    folder.mkdir()
    left = {"step": 1, "seconds": 99.0, "probe_seconds": 0.0, "tokens": 7, "probe_tokens": 0}
    record.append_jsonl(folder / "steps.jsonl", [left])
    record.append_jsonl(folder / "trajectory.jsonl", [{"step": 0}])
    assert standing.look(runner.plan, runner.folder).states[job.id] == "pending"
    made = runner.run("trl-sequential")
    assert [row["step"] for row in made.rows("steps")] == [1, 2, 3, 4, 5, 6]
    assert made.measurements["training_seconds"]["value"] < 99
    assert len(made.rows("trajectory")) == 5


def test_it_leaves_nothing_on_the_base_model(tiny: TinySuite, run_plan: Any) -> None:
    """TRL puts its own forward pass and padding on a model. Mix after it, by the same worker, is Mix without it, bit for bit."""
    training = tiny().training.model_dump() | {"micro_batch_size": {"dpo": 1, "sft": 2}}
    adapters = []
    for name, methods in (("with", ["trl_sequential", "mix"]), ("without", ["mix"])):
        runner = run_plan(tiny(name=name, methods=methods, training=training))
        for method in methods:
            job = runner.run(method.replace("_", "-"))
        adapters.append(load_file(job.path / "adapter" / "adapter_model.safetensors"))
        base = runner.context.base(runner.suite.model, None)
        assert "forward" not in vars(base.model)
    assert adapters[0].keys() == adapters[1].keys()
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def failure(runner: Any) -> dict[str, Any]:
    """Run the recipe, which must fail; return its status."""
    runner.needs("trl-sequential")
    status = handlers.run(runner.job("trl-sequential"), runner.context)
    assert status["outcome"] == record.FAILED
    return status


def test_a_loss_that_is_not_finite_ends_the_job(
    tiny: TinySuite, run_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import SFTTrainer

    real = SFTTrainer.compute_loss
    monkeypatch.setattr(
        SFTTrainer, "compute_loss", lambda *arguments, **options: math.nan * real(*arguments, **options)
    )
    status = failure(run_plan(tiny(methods=["trl_sequential"])))
    assert status["error"] == "JobError"
    assert status["message"] == "the loss is not finite at step 1 (nan); lower training.learning_rate"


def test_memory_that_runs_out_is_one_line(tiny: TinySuite, run_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl import DPOTrainer

    def full(*arguments: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DPOTrainer, "compute_loss", full)
    status = failure(run_plan(tiny(methods=["trl_sequential"])))
    assert status["error"] == "OutOfMemory"
    assert status["message"].startswith("out of memory at step 4: lower training.micro_batch_size")


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_a_setting_that_trl_refuses_is_one_line(tiny: TinySuite, run_plan: Any) -> None:
    pytest.importorskip("trl", "1.16", reason="older ones train an adapter on lm_head")
    lora = {"rank": 2, "alpha": 4, "targets": ["q_proj", "lm_head"]}
    status = failure(run_plan(tiny(methods=["trl_sequential"], lora=lora)))
    assert status["error"] == "JobError"
    assert status["message"].startswith("TRL cannot train this: Applying a PEFT adapter to `lm_head` is not supported")


# ---- the report ------------------------------------------------------------------------------------------------------


def test_it_stands_beside_sequential_in_the_report(tiny: TinySuite, run_plan: Any) -> None:
    """The same objective values; its cost is compared with Sequential's (Eq. 57), and all in it needs the reference."""
    settings = tiny(methods=["sequential", {"name": "trl_sequential", "label": "TRL SFT→DPO"}])
    runner = run_plan(settings)
    execute.write_suite(runner.plan, runner.folder)
    made = {job: runner.run(job) for job in runner.plan.jobs}
    build.build(runner.folder)
    told = json.loads((runner.folder / "report.json").read_text())
    figures = {one["base_method"]: one["figures"] for one in told["recipes"]}
    assert set(figures) == {"sequential", "trl_sequential"}
    ours, theirs = figures["sequential"], figures["trl_sequential"]
    assert theirs["ideal_distance"]["mean"] == pytest.approx(ours["ideal_distance"]["mean"], rel=1e-3)
    seconds = [one["training_seconds"]["mean"] for one in (ours, theirs)]
    assert theirs["runtime_increase_percent"]["mean"] == pytest.approx(100 * (seconds[1] - seconds[0]) / seconds[0])
    reference = next(job for name, job in made.items() if name.startswith("sft-optimum"))
    all_in = seconds[1] + reference.measurements["training_seconds"]["value"]
    assert theirs["all_in_seconds"]["mean"] == pytest.approx(all_in)
    assert told["problems"] == []
    page = (runner.folder / "report.md").read_text()
    assert "TRL SFT→DPO at λ = 0.5" in page
