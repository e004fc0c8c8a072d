"""What a suite may say, and what its keys must agree on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from bench.settings import InstructionData, Model
from bench.suite.suite import Suite, suite_folder

MINIMAL: dict[str, Any] = {
    "name": "minimal",
    "model": {"source": "random"},
    "lora": {"rank": 2, "alpha": 4},
    "data": {
        "preference": {"source": "local", "path": "pairs.jsonl", "rows": 24},
        "instruction": {"source": "local", "path": "rows.jsonl", "rows": 48},
    },
    "training": {"epochs": 4, "batch_size": {"dpo": 2, "sft": 4}, "learning_rate": 0.001},
    "methods": ["mix", {"name": "maxright", "max_eval_every": 5}],
    "lambdas": [0.25, 0.5, 0.75],
}


def suite(**changes: Any) -> Suite:
    """Make the minimal suite with keys changed; a dotted key is written with two underscores."""
    values = copy.deepcopy(MINIMAL)
    for key, value in changes.items():
        *path, last = key.split("__")
        target = values
        for part in path:
            target = target.setdefault(part, {})
        target[last] = value
    return Suite.model_validate(values)


def refusal(**changes: Any) -> str:
    """Return the first message with which the suite is refused."""
    with pytest.raises(ValidationError) as caught:
        suite(**changes)
    return caught.value.errors()[0]["msg"].removeprefix("Value error, ")


def test_steps_are_epochs_of_whole_batches() -> None:
    """24 pairs / 2 = 12 and 48 rows / 4 = 12 steps an epoch; 4 epochs are 48. Given as steps, they are taken as they are."""
    assert suite().steps == 48
    assert suite(training__epochs=None, training__steps=7).steps == 7


def test_a_batch_that_is_not_full_is_not_a_step() -> None:
    """25 pairs / 2 = 12 whole batches, which still equals the 12 of the instruction rows."""
    assert suite(data__preference__rows=25).steps == 48


def test_epochs_of_unequal_length_are_refused_unless_steps_are_given() -> None:
    """20 pairs / 2 = 10 steps an epoch against 12."""
    assert refusal(data__preference__rows=20) == (
        "training.epochs: an epoch is 10 steps of preference pairs but 12 of instruction rows; "
        "make them equal or give training.steps instead of training.epochs"
    )
    assert suite(data__preference__rows=20, training__epochs=None, training__steps=30).steps == 30


@pytest.mark.parametrize("changes", [{"training__steps": 5}, {"training__epochs": None}])
def test_exactly_one_of_epochs_and_steps(changes: dict[str, Any]) -> None:
    assert refusal(**changes) == "give exactly one of 'epochs' and 'steps'"


def test_rows_must_fill_a_batch() -> None:
    assert refusal(data__preference__rows=1) == (
        "training.batch_size: an epoch is 0 batches of preference pairs and 12 of instruction rows, "
        "and needs at least one of each; lower it or raise data.*.rows"
    )


def test_a_batch_must_be_a_multiple_of_its_micro_batch() -> None:
    assert refusal(training__micro_batch_size={"dpo": 2, "sft": 3}) == (
        "batch_size.sft must be a multiple of micro_batch_size.sft (3)"
    )
    assert suite(training__micro_batch_size={"dpo": 1, "sft": 2}).steps == 48


def test_phases_split_the_epochs() -> None:
    """12 steps an epoch; λ = 0.25 is matched with (1, 3): 12 and 36 steps; λ = 0.75 with (3, 1)."""
    made = suite(phases=[[1, 3], [2, 2], [3, 1]])
    assert made.phase_steps(0.25) == {"dpo": 12, "sft": 36}
    assert made.phase_steps(0.75) == {"dpo": 36, "sft": 12}


def test_without_phases_lambda_splits_the_steps() -> None:
    """λ of 30 steps, rounded, goes to DPO and the rest to SFT: 0.25 · 30 = 7.5 → 8 (to even)."""
    made = suite(training__epochs=None, training__steps=30)
    assert made.phase_steps(0.25) == {"dpo": 8, "sft": 22}
    assert made.phase_steps(0.0) == {"dpo": 0, "sft": 30}
    assert made.phase_steps(1.0) == {"dpo": 30, "sft": 0}


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([[1, 3], [2, 2]], "phases: must have one [dpo_epochs, sft_epochs] per λ"),
        ([[1, 3], [2, 2], [3, 2]], "phases: they count epochs, so each pair must add up to training.epochs"),
    ],
)
def test_phases_must_fit_lambdas_and_epochs(phases: list[list[int]], message: str) -> None:
    assert refusal(phases=phases) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lambdas": [0.5, 0.5]}, "must not repeat a value"),
        ({"seeds": [1, 2, 1]}, "must not repeat a value"),
        ({"methods": ["mix", "mix"]}, "methods: two share a name; give each its own 'label'"),
        ({"lambdas": [0.5, 1.3]}, "must lie in [0, 1]"),
        ({"lambdas": [-0.1]}, "must lie in [0, 1]"),
        ({"lambdas": []}, "Tuple should have at least 1 item after validation, not 0"),
        ({"seeds": []}, "Tuple should have at least 1 item after validation, not 0"),
        ({"model": {"source": "hub"}}, "source 'hub' needs 'path'"),
        ({"data__preference__path": None}, "source 'local' needs 'path'"),
        (
            {"data__instruction": {"source": "world", "rows": 48}},
            "data.instruction.source: 'world' goes with data.preference.source 'world' only, and vice versa",
        ),
        (
            {"data__preference": {"source": "world", "rows": 24}},
            "data.instruction.source: 'world' goes with data.preference.source 'world' only, and vice versa",
        ),
        ({"training__learning_rate": float("inf")}, "Input should be a finite number"),
        ({"training__adam_betas": [0.9, 1.0]}, "Input should be less than 1"),
        ({"objectives__beta": 0.0}, "Input should be greater than 0"),
        ({"evaluation__win_rate": {"prompts": 2, "judge": {"kind": "local"}}}, "Field required"),
        ({"lora__ranks": 3}, "Extra inputs are not permitted"),
    ],
)
def test_what_a_suite_refuses(changes: dict[str, Any], message: str) -> None:
    assert refusal(**changes) == message


def test_one_method_may_run_twice_under_two_labels() -> None:
    made = suite(methods=["maxright", {"name": "maxright", "label": "maxright-10", "max_eval_every": 10}])
    assert [method.shown for method in made.methods] == ["maxright", "maxright-10"]
    assert [method.options for method in made.methods] == [{}, {"max_eval_every": 10}]


def test_a_template_holds_the_prompt_once() -> None:
    data = {"source": "local", "path": "rows.jsonl", "rows": 1}
    assert InstructionData.model_validate({**data, "template": "Q: {prompt}\nA:"}).template == "Q: {prompt}\nA:"
    for wrong in ("Q:\nA:", "{prompt} {prompt}"):
        with pytest.raises(ValidationError, match=r"must contain \{prompt\} exactly once"):
            InstructionData.model_validate({**data, "template": wrong})


def test_settings_are_frozen() -> None:
    made = suite()
    for target in (made, made.training, made.methods[1], made.data.preference.columns, Model(source="random")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(target, next(iter(type(target).model_fields)), "other")


def test_a_suite_survives_its_record() -> None:
    """The record holds `model_dump(mode="json")`; read again it is the same suite, a method's own options included."""
    made = suite()
    dumped = made.model_dump(mode="json")
    assert dumped["methods"][1]["max_eval_every"] == 5
    assert Suite.model_validate(dumped) == made


def test_the_shipped_suites_stand_beside_the_package() -> None:
    assert suite_folder().name in ("suites", "_suites")
    assert suite_folder().is_dir()


def test_a_reference_learns_no_held_out_rows() -> None:
    """Without a test split the rows after the 48th are held out, and a reference of 49 rows would learn one of them."""
    reference = {"policy": "sft", "rows": 49}
    assert refusal(reference=reference, data__instruction__test_split=None) == (
        "reference.rows = 49: with data.instruction.test_split null the rows after the first 48 are held out, and the "
        "reference would learn them; give at most 48, or a test_split"
    )
    assert suite(reference=reference).reference.rows == 49
    assert suite(reference={**reference, "rows": 48}, data__instruction__test_split=None).reference.rows == 48
    chosen = {"policy": "preference_chosen", "rows": 25}
    assert refusal(reference=chosen, data__preference__test_split=None).startswith(
        "reference.rows = 25: with data.preference"
    )
