"""Runs that train all weights, or variants of LoRA: from the base model through recipes, resumes and a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import Bench, adapter, assert_same_run
from small_runs import suite as small

from bench.records import record
from bench.run import execute, handlers
from bench.suite.suite import Suite
from report import build

FULL: dict[str, Any] = {"model": {"source": "random", "tuning": "full"}, "lora": None}
LORA = {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]}
TUNINGS = {
    "full": FULL,
    "dora": {"lora": LORA | {"variant": "dora"}},
    "pissa": {"lora": LORA | {"init": "pissa", "variant": "rslora"}},
}


@pytest.mark.parametrize("name", TUNINGS)
def test_a_suite_goes_through_a_report(name: str, tiny: Callable[..., Suite], run_plan: Any) -> None:
    """Reference, optima, Sequential from a shared first phase, MAXRIGHT, interpolation at λ = 1 (the DPO optimum's own policy),
    questions and the divergence from the base, which is what nothing was trained on yet."""
    settings = tiny(
        methods=["sequential", {"name": "maxright", "max_eval_every": 2}, "interpolation"],
        lambdas=[1.0, 0.5],
        evaluation={
            "lm_eval": {"tasks": ["world_questions"], "shots": 0, "limit": 3},
            "base_kl": {"prompts": 2, "max_new_tokens": 4},
        },
        **TUNINGS[name],
    )
    runner = run_plan(settings)
    execute.write_suite(runner.plan, runner.folder)
    made = {job: runner.run(job) for job in runner.plan.jobs}
    trained = [job for job in made.values() if job.kind in ("train", "recipe")]
    for job in trained:
        assert job.measurements["reload_difference"]["value"] <= 1e-5
        whole = name == "full" or (name == "dora" and job.kind == "recipe")
        assert (job.path / ("model" if whole else "adapter")).is_dir()
    optimum, same = (
        next(one for job, one in made.items() if job.startswith(start)) for start in ("dpo-opt", "interpolation-l1-")
    )
    for score in ("f_dpo/held_out", "f_sft/held_out"):
        assert same.scores[score]["value"] == pytest.approx(optimum.scores[score]["value"], abs=1e-4)
    moved = {job: one.scores["base_kl/text"]["value"] for job, one in made.items() if job.startswith("kl-")}
    assert all((value > 0) is (job != "kl-base" and "kl-base-" not in job) for job, value in moved.items())
    starts = [job.rows("trajectory")[0] for job in trained if job.kind == "train"]
    assert len({round(row["f_sft/held_out"], 4) for row in starts if row["step"] == 0}) == 1  # all start at the base
    flops = optimum.measurements["model_flops"]["value"]
    assert flops and flops > 0
    build.build(runner.folder)
    told = json.loads((runner.folder / "report.json").read_text())
    assert told["problems"] == []
    assert {one["base_method"] for one in told["recipes"]} == {"sequential", "maxright", "interpolation"}


@pytest.mark.parametrize("name", TUNINGS)
def test_an_interrupted_run_takes_the_same_steps(name: str, tmp_path: Path) -> None:
    """Bit for bit: what is trained, its moments and, of PiSSA, what was taken out of the weights are in the checkpoint."""
    whole = Bench(small(**TUNINGS[name]), tmp_path / "whole").run("mix")
    cut = Bench(small(**TUNINGS[name]), tmp_path / "cut")
    job = cut.job("mix")
    for need in job.needs:
        cut.run(need)
    cut.seen, cut.stop_at = 0, 3
    assert handlers.run(job, cut.context)["outcome"] == record.STOPPED
    cut.stop_at = None
    cut.context._policies.clear()  # another worker
    assert_same_run(whole, cut.run("mix"))
    assert adapter(whole)


@pytest.mark.parametrize("name", TUNINGS)
def test_trls_trainers_train_the_same(name: str, tiny: Callable[..., Suite], run_plan: Any) -> None:
    """Beside Sequential with equal settings; the reference forwarded, or of PiSSA, which TRL cannot forward, precomputed."""
    recipe = {"name": "trl_sequential", "precompute_reference": name == "pissa"}
    runner = run_plan(tiny(methods=["sequential", recipe], **TUNINGS[name]))
    ours, theirs = runner.run("sequential"), runner.run("trl-sequential")
    for score in ("f_dpo/held_out", "f_sft/held_out", "f_dpo/train", "f_sft/train"):
        assert theirs.scores[score]["value"] == pytest.approx(ours.scores[score]["value"], rel=2e-3), score


def test_what_trl_would_train_otherwise_is_refused(tiny: Callable[..., Suite]) -> None:
    with pytest.raises(ValueError, match=r"lora.init: with olora .*precompute_reference: true, or take trl_sequential"):
        tiny(methods=["trl_sequential"], lora=LORA | {"init": "olora"})
    with pytest.raises(ValueError, match=r"model.dtype: TRL takes .*give float32 for trl_sequential, or take"):
        tiny(methods=["trl_sequential"], model={"source": "random", "tuning": "full", "dtype": "bfloat16"})


def test_an_adapters_settings_are_needed_where_one_is_trained(tiny: Callable[..., Suite]) -> None:
    with pytest.raises(ValueError, match=r"lora: this key is missing; give rank and alpha, or set model.tuning: full"):
        tiny(lora=None)
    assert tiny(**FULL).adapter is None
    assert tiny(model={"source": "random", "tuning": "full"}).adapter is None  # --set model.tuning=full alone does it
