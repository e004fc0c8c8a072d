"""What machines read: report.json keeps to its schema, runs.parquet has a row a run with units in its names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest

from bench.records.metrics import undescribed
from bench.records.suite_record import find_suites
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.analysis.metrics import DERIVED
from report.analysis.toy import ToyResults, is_toy
from report.page import first_screen
from report.page.report_json import SCHEMA_FILE, as_json, clean, column, write_runs
from report.page.verdict import Verdict
from report.toy.page import as_json as toy_as_json

SHIPPED = Path(__file__).parents[3] / "results"


@pytest.fixture(scope="module")
def schema() -> Any:
    loaded = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(loaded)
    return jsonschema.Draft202012Validator(loaded)


def content(folder: Path) -> Any:
    """Return what report.json would say, after a round trip through JSON."""
    record = find_suites(folder)[0]
    if is_toy(record):
        said = clean(toy_as_json(ToyResults(record)))
    else:
        tables = Findings(Results(record))
        said = as_json(tables, Verdict(tables), first_screen.make(tables))
    return json.loads(json.dumps(said, allow_nan=False))


def test_the_made_up_suite_keeps_to_the_schema(schema: Any, built: Path) -> None:
    schema.validate(json.loads((built / "report.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("suite", ["quickstart", "smollm2_135m", "max_evaluation", "extended", "toy", "theorem_3_1"])
def test_the_committed_suites_keep_to_the_schema(schema: Any, suite: str) -> None:
    schema.validate(content(SHIPPED / f"{suite}.bench"))


def test_an_unfinished_suite_keeps_to_the_schema(schema: Any, writer: Callable[..., Any]) -> None:
    said = content(writer().finish(missing=["mix-l0.5-s0"]))
    schema.validate(said)
    assert said["verdict"]["best"] is None


def test_the_schema_refuses_what_breaks_its_promises(schema: Any, full: Path) -> None:
    """A figure without a value needs its reason; a state is one of four; nothing required may go."""
    for edit in (
        lambda said: said["recipes"][0]["figures"]["gpu_utilization_percent"].pop("reason"),
        lambda said: said["recipes"][0]["figures"]["ideal_distance"].update(mean=None),
        lambda said: said.update(problems=[{"job": "a", "state": "lost", "message": ""}]),
        lambda said: said.pop("verdict"),
        lambda said: said.update(schema=2),
    ):
        said = content(full)
        edit(said)
        with pytest.raises(jsonschema.ValidationError):
            schema.validate(said)


def test_columns_carry_their_units() -> None:
    def named(name: str, unit: str = "") -> str:
        return column(DERIVED.get(name) or undescribed(name, unit))

    assert named("gap_dpo") == "gap_dpo_nats"
    assert named("f_sft/held_out") == "f_sft_held_out_nats"
    assert named("mmlu/acc") == "mmlu_accuracy_share"
    assert named("win_rate/local:judge-1") == "win_rate_local_judge_1_percent"
    assert named("training_seconds", "s") == "training_seconds"
    assert named("seconds_per_step") == "seconds_per_step"
    assert named("gsm8k/exact_match,strict-match") == "gsm8k_exact_match_strict_match"


def test_a_row_a_run(built: Path) -> None:
    """4 methods × 3 λ × 3 seeds; MAXRIGHT at λ = 0.5, seed 1: distance 0.05, 11 s and 1 % more, half of 100 steps on DPO."""
    frame = pd.read_parquet(built / "runs.parquet")
    assert len(frame) == 36
    row = frame.set_index("job").loc["maxright-l0.5-s1"]
    assert row["ideal_distance_nats"] == pytest.approx(0.05)
    assert row["training_seconds"] == pytest.approx(11.11)
    assert row["mmlu_accuracy_share"] == pytest.approx(0.561)
    assert (row["method"], row["lambda_dpo"], row["seed"], row["dpo_steps"]) == ("maxright", 0.5, 1, 50)
    assert json.loads(row["data_json"]) == {"preference": "sha256:aa"}


def test_a_figure_no_run_has_is_a_column_of_nulls_with_reasons(built: Path) -> None:
    frame = pd.read_parquet(built / "runs.parquet")
    assert frame["gpu_utilization_percent"].dtype == float
    assert frame["gpu_utilization_percent"].isna().all()
    reasons = json.loads(frame["missing_reasons_json"].iloc[0])
    assert reasons["gpu_utilization_percent"] == "no GPU in this machine"


def test_a_suite_without_runs_has_a_readable_empty_file(writer: Callable[..., Any], tmp_path: Path) -> None:
    tables = Findings(Results(find_suites(writer().finish(missing=["mix-l0.5-s0"]))[0]))
    write_runs(tmp_path / "runs.parquet", tables, {})
    assert len(pd.read_parquet(tmp_path / "runs.parquet")) == 0
