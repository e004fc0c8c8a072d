"""MAXRIGHT's gaps in whole runs: by number, and paired with the optimum's losses on the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from bench.methods import Objective
from bench.records import record
from bench.suite.suite import Suite
from bench.train.batches import Cursor

TinySuite = Callable[..., Suite]
COUNTED = ("steps_on", "gaps", "negative_gaps")


def maxright(**options: Any) -> dict[str, Any]:
    return {"name": "maxright", **options}


def test_gaps_by_number_train_no_optimum_first(tiny: TinySuite, run_plan: Any) -> None:
    """λ = 0.5, f* = (0.5, 1): each weighted gap on record is half of the probe less that number."""
    runner = run_plan(tiny(methods=[maxright(optimum={"dpo": 0.5, "sft": 1.0})]))
    assert not [name for name in runner.job("maxright").inputs.as_dict() if "optimum" in name]
    for row in runner.run("maxright").rows("steps"):
        expected = {"dpo": 0.5 * (row["probes"]["dpo"] - 0.5), "sft": 0.5 * (row["probes"]["sft"] - 1.0)}
        assert row["gaps"] == pytest.approx(expected)
        assert list(row["losses"]) == ["dpo" if row["gaps"]["dpo"] >= row["gaps"]["sft"] else "sft"]


def test_negative_gaps_and_choices_are_counted(tiny: TinySuite, run_plan: Any) -> None:
    """f*_SFT = 100 lies above every loss, f*_DPO = −100 below: 6 of 6 SFT gaps are negative, no DPO gap, and all steps DPO's."""
    made = run_plan(tiny(methods=[maxright(optimum={"dpo": -100.0, "sft": 100.0})])).run("maxright")
    counts = {name: made.measurements[name]["value"] for name in made.measurements if name.split("/")[0] in COUNTED}
    assert counts == {
        "steps_on/dpo": 6,
        "steps_on/sft": 0,
        "gaps/dpo": 6,
        "gaps/sft": 6,
        "negative_gaps/dpo": 0,
        "negative_gaps/sft": 6,
    }


def test_paired_gaps_compare_with_the_optimum_on_the_same_rows(tiny: TinySuite, run_plan: Any) -> None:
    """The rows are those of the cursor; the optimum's losses on them come from its stored log-probabilities.

    f_SFT of a batch is −Σ logps / Σ answer tokens; f_DPO the mean of −log σ(β margin), worked out here from the files.
    """
    runner = run_plan(tiny(methods=[maxright(gaps="paired")]))
    steps = runner.run("maxright").rows("steps")
    inputs = runner.job("maxright").inputs.as_dict()
    folders = {name: runner.context.job_folder(inputs[f"row_optimum_{name}"]) for name in ("dpo", "sft")}
    logps = {name: record.read_json(folder / "row_logps.json")["logps"] for name, folder in folders.items()}
    reference = record.read_json(runner.context.job_folder(inputs["reference_logps"]) / "reference_logps.json")["train"]
    examples = runner.context.datasets(runner.context.base(runner.suite.model, None).tokenizer, {}).train
    cursors = {"dpo": Cursor(Objective.DPO, 6, 2, 0), "sft": Cursor(Objective.SFT, 12, 4, 0)}
    for row in steps:
        pairs, rows = cursors["dpo"].draw(), cursors["sft"].draw()
        margins = [
            (logps["dpo"][one][0] - reference["chosen"][one]) - (logps["dpo"][one][1] - reference["rejected"][one])
            for one in pairs
        ]
        f_dpo = sum(math.log1p(math.exp(-0.1 * margin)) for margin in margins) / 2
        tokens = sum(len(examples[Objective.SFT].examples[one].answers[0]) for one in rows)
        f_sft = -sum(logps["sft"][one][0] for one in rows) / tokens
        expected = {"dpo": 0.5 * (row["probes"]["dpo"] - f_dpo), "sft": 0.5 * (row["probes"]["sft"] - f_sft)}
        assert row["gaps"] == pytest.approx(expected, abs=1e-6)


def test_the_optimums_own_weights_have_paired_gaps_of_0(tiny: TinySuite, run_plan: Any) -> None:
    """With the SFT optimum's adapter on the model, each batch's loss is the stored one: what gaps: paired is for."""
    from bench.train.loop import Trainer, TrainingRun

    runner = run_plan(tiny(methods=[maxright(gaps="paired")]))
    runner.needs("maxright")
    job, base = runner.job("maxright"), runner.context.base(runner.suite.model, None)
    from bench.run import inputs
    from bench.train import checkpoint

    rows = runner.context.datasets(base.tokenizer, {})
    logps = record.read_json(runner.context.job_folder(job.inputs.reference_logps) / "reference_logps.json")
    row_optimum = inputs.row_optimum(job, runner.context)
    batch_size = runner.suite.training.batch_size
    trainer = Trainer(
        TrainingRun(job, runner.suite, runner.folder, base, rows, batch_size, logps, row_optimum=row_optimum)
    )
    trainer.row = {"probe_tokens": 0, "probe_seconds": 0.0, "tokens": 0, "padding_tokens": 0}
    assert checkpoint.newest(runner.context.job_folder(runner.job("sft-optimum").id)) == (None, [])
    saved = load_adapter(runner, "sft-optimum")
    base.restore_trained({name: saved[name.replace(".default", "")] for name in base.trainable()})
    for _ in range(3):
        loss = trainer.probe(Objective.SFT)
        assert loss == pytest.approx(trainer.batch_optimum(Objective.SFT), abs=1e-5)


def load_adapter(runner: Any, start: str) -> Any:
    from safetensors.torch import load_file

    return load_file(runner.context.job_folder(runner.job(start).id) / "adapter" / "adapter_model.safetensors")


def test_a_run_with_paired_gaps_goes_on_after_an_interruption(tiny: TinySuite, run_plan: Any) -> None:
    """With k = 4 the gaps in between are stale ones; a run stopped after step 2 takes the same choices."""
    from bench.run import handlers

    methods = [maxright(gaps="paired", max_eval_every=4)]
    whole = run_plan(tiny(name="whole", methods=methods)).run("maxright").rows("steps")
    runner = run_plan(tiny(name="cut", methods=methods))
    runner.needs("maxright")
    seen: list[int] = []
    runner.context.tell = lambda message: seen.append(message.get("step", 0))
    runner.context.stopping = lambda: seen[-1] == 2
    assert handlers.run(runner.job("maxright"), runner.context)["outcome"] == "stopped"
    runner.context.stopping = lambda: False
    assert handlers.run(runner.job("maxright"), runner.context)["outcome"] == "complete"
    again = record.read_job(runner.context.job_folder(runner.job("maxright").id)).rows("steps")
    assert [(row["gaps"], row["losses"]) for row in again] == [(row["gaps"], row["losses"]) for row in whole]


def test_one_kind_of_optimum_at_a_time(tiny: TinySuite) -> None:
    with pytest.raises(ValueError, match=r"it does not go with gaps: paired"):
        tiny(methods=[maxright(gaps="paired", optimum={"dpo": 0.1, "sft": 0.1})])
