"""What a suite changes of the shipped one of its name."""

from __future__ import annotations

from bench.run.shipped import changes
from bench.suite import yaml_file


def test_as_shipped_nothing_is_changed() -> None:
    assert changes(yaml_file.load("llama3_8b")) == {}
    assert changes(yaml_file.load("toy")) == {}


def test_what_changes_figures_is_told_with_both_values() -> None:
    overrides = ["model.source=random", "model.path=null", "lora.rank=2", "evaluation.win_rate.prompts=5"]
    assert changes(yaml_file.load("llama3_8b", overrides)) == {
        "model.source": ["hub", "random"],
        "model.path": ["meta-llama/Meta-Llama-3-8B", None],
        "lora.rank": [16, 2],
        "evaluation.win_rate.prompts": [640, 5],
    }


def test_what_changes_no_figure_is_not() -> None:
    overrides = [
        "description=mine",
        "training.checkpoint_every=7",
        "model.gradient_checkpointing=false",
        "model.revision=abc",
        "evaluation.lm_eval.batch_size=3",
        "evaluation.devices=2",
        "evaluation.win_rate.judge.concurrency=2",
    ]
    assert changes(yaml_file.load("llama3_8b", overrides)) == {}


def test_a_batch_that_is_trained_on_is_no_matter_of_speed() -> None:
    assert list(changes(yaml_file.load("quickstart", ["training.batch_size.dpo=2"])) or ()) == [
        "training.batch_size.dpo"
    ]


def test_a_suite_of_ones_own_has_nothing_to_differ_from() -> None:
    assert changes(yaml_file.load("quickstart", ["name=mine"])) is None
