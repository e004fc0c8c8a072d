"""A job's folder: whole files or none, lines that a kill cut short, schemas of the future, and where suites are found."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.records import record, safe_files, suite_record

LABELS = {"method": "mix", "base_method": "mix", "lambda_dpo": 0.5, "seed": 0}


def make_job(folder: Path, **spec: Any) -> Path:
    values = {"schema": record.SCHEMA, "id": folder.name, "kind": "train", "labels": LABELS, **spec}
    record.write_json(folder / "spec.json", values)
    return folder


def make_suite(folder: Path, jobs: list[str], beta: float = 0.1) -> Path:
    info = {"schema": 1, "name": folder.name, "jobs": jobs, "suite": {"objectives": {"beta": beta}}}
    record.write_json(folder / "suite.json", info)
    return folder


# ---- files ----------------------------------------------------------------------------------------------------------


def test_json_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data.json"
    record.write_json(path, {"λ": 0.5, "none": None})
    assert record.read_json(path) == {"λ": 0.5, "none": None}
    assert "λ" in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file_and_no_scraps(tmp_path: Path) -> None:
    """NaN has no place in JSON; and a disk may fill up in the middle of writing."""
    path = tmp_path / "data.json"
    record.write_json(path, {"value": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        record.write_json(path, {"first": 1, "value": math.nan})
    with pytest.raises(OSError, match="No space"), safe_files.replacing(path) as file:
        file.write(b"{")
        raise OSError("No space left on device")
    assert record.read_json(path) == {"value": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment of renaming the new text is complete beside the old one, in the same folder."""
    path = tmp_path / "data.json"
    record.write_json(path, {"outcome": "failed"})
    replace = safe_files.os.replace
    seen: list[Any] = []

    def watch(source: str, target: Path) -> None:
        seen.append((record.read_json(target), record.read_json(Path(source)), Path(source).parent))
        replace(source, target)

    monkeypatch.setattr(safe_files.os, "replace", watch)
    record.write_json(path, {"outcome": "complete"})
    assert seen == [({"outcome": "failed"}, {"outcome": "complete"}, tmp_path)]
    assert record.read_json(path) == {"outcome": "complete"}


@pytest.mark.parametrize("text", ["", '{"a": ', "\xff"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=rf"^{path}: cannot be read as JSON \(.*\); 'bench run' makes its job again$"):
        record.read_json(path)


def test_rows_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    assert list(record.read_jsonl(path)) == []
    record.append_jsonl(path, [{"step": 1}])
    record.append_jsonl(path, [{"step": 2}, {"step": 3}])
    assert list(record.read_jsonl(path)) == [{"step": 1}, {"step": 2}, {"step": 3}]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


@pytest.mark.parametrize("tail", ['{"step": 3, "lo', '{"step": 3}', "{"])
def test_a_last_line_that_was_cut_is_passed_over(tmp_path: Path, tail: str) -> None:
    """Without its line end a line may be a part of one, even where it reads as JSON."""
    path = tmp_path / "steps.jsonl"
    record.append_jsonl(path, [{"step": 1}, {"step": 2}])
    with path.open("a", encoding="utf-8") as file:
        file.write(tail)
    assert list(record.read_jsonl(path)) == [{"step": 1}, {"step": 2}]


def test_rows_after_the_checkpoint_are_cut_and_written_again(tmp_path: Path) -> None:
    """Five rows of two-row steps and a torn line; back to step 2, four stay and the next append starts a line."""
    path = tmp_path / "steps.jsonl"
    record.append_jsonl(path, [{"step": step, "part": part} for step in (1, 2, 3) for part in (0, 1)][:5])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "pa')
    record.cut_jsonl(path, last_step=2)
    record.append_jsonl(path, [{"step": 3, "part": 9}])
    rows = [(row["step"], row["part"]) for row in record.read_jsonl(path)]
    assert rows == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 9)]
    assert list(tmp_path.iterdir()) == [path]


def test_cutting_a_missing_file_makes_none(tmp_path: Path) -> None:
    record.cut_jsonl(tmp_path / "steps.jsonl", last_step=2)
    assert list(tmp_path.iterdir()) == []


def test_a_training_jobs_rows_are_cut_together(tmp_path: Path) -> None:
    for name in record.ROWS:
        record.append_jsonl(tmp_path / f"{name}.jsonl", [{"step": 1}, {"step": 2}])
    record.cut_rows(tmp_path, last_step=1)
    assert {name: list(record.read_jsonl(tmp_path / f"{name}.jsonl")) for name in record.ROWS} == {
        name: [{"step": 1}] for name in record.ROWS
    }
    record.clear_rows(tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- figures --------------------------------------------------------------------------------------------------------


def test_a_figure_has_a_value_or_a_reason() -> None:
    assert record.measured(3.0, "s", shared_machine=True) == {"value": 3.0, "unit": "s", "shared_machine": True}
    assert record.not_measured("J", "no meter") == {"value": None, "unit": "J", "reason": "no meter"}


def test_dpo_losses_by_hand() -> None:
    """β = 0.5. Pair 1: h = 0.5 ((−1 − −2) − (−3 − −2)) = 1 → log(1 + e^−1). Pair 2 at the reference: log 2."""
    policy = {"chosen": [-1.0, -5.0], "rejected": [-3.0, -6.0]}
    reference = {"chosen": [-2.0, -5.0], "rejected": [-2.0, -6.0]}
    expected = [math.log(1 + math.exp(-1)), math.log(2)]
    assert record.dpo_losses(policy, reference, beta=0.5) == pytest.approx(expected, abs=1e-12)


def test_dpo_losses_far_from_the_reference_and_of_unequal_lengths() -> None:
    """h = −1000 gives 1000 and not an overflow; rows that do not match are refused, not cut."""
    reference = {"chosen": [0.0], "rejected": [0.0]}
    assert record.dpo_losses({"chosen": [-1000.0], "rejected": [0.0]}, reference, beta=1.0) == [1000.0]
    with pytest.raises(ValueError, match="shorter"):
        record.dpo_losses({"chosen": [0.0, 0.0], "rejected": [0.0, 0.0]}, reference, beta=1.0)


def test_a_trajectory_made_before_the_reference_is_filled_in(tmp_path: Path) -> None:
    """The reference has more training rows than were evaluated: the first ones count. At the reference f_DPO is log 2.

    At step 4 the chosen answer has gained 2 nats: h = 0.5 · 2 = 1.
    """
    suite = make_suite(tmp_path / "s", ["sft", "reference"], beta=0.5)
    job = make_job(suite / "jobs" / "sft")
    record.append_jsonl(job / "trajectory.jsonl", [{"step": 0, "f_sft/train": 3.0}, {"step": 4, "f_sft/train": 2.0}])
    logps = [{"step": step, "split": "train", "chosen": [-4.0 + step / 2], "rejected": [-6.0]} for step in (0, 4)]
    record.append_jsonl(job / "evaluation_logps.jsonl", logps)
    parts: dict[str, Any] = {"settings": {}, "inputs": {}, "roles": []}
    reference = make_job(suite / "jobs" / "reference", kind="reference_logps", **parts)
    record.write_json(
        reference / "reference_logps.json",
        {"train": {"chosen": [-4.0, -9.0], "rejected": [-6.0, -9.0]}, "held_out": {"chosen": [], "rejected": []}},
    )
    (found,) = suite_record.find_suites(suite)
    before = found.trajectory(found.jobs["sft"])
    assert before == [{"step": 0, "f_sft/train": 3.0}, {"step": 4, "f_sft/train": 2.0}]  # the reference is not complete

    record.write_json(reference / "status.json", {"schema": 1, "outcome": "complete"})
    (found,) = suite_record.find_suites(suite)
    after = found.trajectory(found.jobs["sft"])
    assert [row["f_sft/train"] for row in after] == [3.0, 2.0]
    assert [row["f_dpo/train"] for row in after] == pytest.approx([math.log(2), math.log(1 + math.exp(-1))])


# ---- jobs and suites ------------------------------------------------------------------------------------------------


def test_a_job_reads_its_files(tmp_path: Path) -> None:
    folder = make_job(tmp_path / "mix-l0.5-s0-abc")
    record.append_jsonl(folder / "steps.jsonl", [{"step": 1}])
    record.write_json(folder / "measurements.json", {"tokens": record.measured(3, "tokens")})
    record.write_json(folder / "scores.json", {"mmlu/acc": {"value": 0.5, "n": 4, "standard_error": 0.25}})
    record.write_json(folder / "status.json", {"schema": 1, "outcome": record.COMPLETE})
    job = record.read_job(folder)
    assert (job.id, job.kind, job.labels, job.complete) == ("mix-l0.5-s0-abc", "train", LABELS, True)
    assert job.rows("steps") == [{"step": 1}]
    assert job.rows("trajectory") == []
    assert job.measurements["tokens"]["value"] == 3
    assert job.scores["mmlu/acc"]["n"] == 4


@pytest.mark.parametrize("outcome", [record.FAILED, record.STOPPED, None])
def test_only_complete_is_complete(tmp_path: Path, outcome: str | None) -> None:
    folder = make_job(tmp_path / "job")
    if outcome:
        record.write_json(folder / "status.json", {"schema": 1, "outcome": outcome})
    job = record.read_job(folder)
    assert not job.complete
    assert (job.measurements, job.scores) == ({}, {})


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    folder = make_job(tmp_path / "job", schema=record.SCHEMA + 1)
    with pytest.raises(InputError) as caught:
        record.read_job(folder)
    assert (
        str(caught.value)
        == f"{folder / 'spec.json'}: schema 2 is newer than 1, the last this version reads; upgrade bench"
    )
    assert caught.value.exit_code == 2


def test_a_job_without_a_spec_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"spec\.json: cannot be read as JSON"):
        record.read_job(tmp_path)


def test_results_may_be_a_root_or_one_suite(tmp_path: Path) -> None:
    make_suite(tmp_path / "b", [])
    make_suite(tmp_path / "a", [])
    (tmp_path / "not_a_suite").mkdir()
    assert [suite.name for suite in suite_record.find_suites(tmp_path)] == ["a", "b"]
    assert [suite.name for suite in suite_record.find_suites(tmp_path / "b")] == ["b"]


def test_a_folder_without_a_suite_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        suite_record.find_suites(tmp_path)
    assert (
        str(caught.value)
        == f"{tmp_path}: holds no suite (no suite.json in it or one level below, no *.bench); 'bench run' makes one"
    )
    with pytest.raises(InputError) as caught:
        suite_record.find_suites(tmp_path / "none")
    assert str(caught.value) == (
        f"{tmp_path}/none: no such folder; 'bench run SUITE --results {tmp_path}/none' makes one"
    )


def test_a_suite_lists_the_jobs_of_its_plan_in_order(tmp_path: Path) -> None:
    """A job that was never started has no folder; one that an older plan left behind is not the suite's any more."""
    suite = make_suite(tmp_path / "s", ["second", "first", "never"])
    for name in ("first", "second", "left_behind"):
        make_job(suite / "jobs" / name)
    (found,) = suite_record.find_suites(suite)
    assert list(found.jobs) == ["second", "first"]


def test_rows_are_plain_json_lines(tmp_path: Path) -> None:
    """Other tools read them: one object a line, UTF-8, no NaN."""
    path = tmp_path / "samples.jsonl"
    record.append_jsonl(path, [{"answer": "Zwölf\nZeilen"}])
    assert json.loads(path.read_text(encoding="utf-8")) == {"answer": "Zwölf\nZeilen"}
    with pytest.raises(ValueError, match="JSON compliant"):
        record.append_jsonl(path, [{"value": math.inf}])


def test_f_dpo_is_filled_in_where_the_reference_came_later() -> None:
    """Margin 0.5 · ((−1 − −2) − (−4 − −3)) = 1: −log σ(1) = log(1 + e⁻¹) = 0.313262; the other pair's margin is 0: log 2."""
    trajectory = [{"step": 0, "f_sft/held_out": 2.0}, {"step": 5, "f_sft/held_out": 1.0}]
    logps = [{"step": 5, "split": "held_out", "chosen": [-1.0, -2.0], "rejected": [-4.0, -3.0]}]
    reference = {"held_out": {"chosen": [-2.0, -2.0, -9.0], "rejected": [-3.0, -3.0, -9.0]}}
    made = record.complete_trajectory(trajectory, logps, reference, beta=0.5)
    assert made[0] == {"step": 0, "f_sft/held_out": 2.0}
    assert made[1]["f_dpo/held_out"] == pytest.approx((0.313262 + 0.693147) / 2, abs=1e-6)


def test_f_dpo_stays_finite_at_any_margin() -> None:
    """−log σ(−2000) = 2000 and −log σ(2000) = 0 in double precision."""
    far = {"chosen": [-2000.0, 0.0], "rejected": [0.0, -2000.0]}
    assert record.dpo_losses(far, {"chosen": [0.0, 0.0], "rejected": [0.0, 0.0]}, 1.0) == [2000.0, 0.0]


# ---- records that are not what they should be ------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[]", "3", '{"schema": 1}', '{"schema": 1, "name": "s", "suite": {}}'])
def test_a_suite_file_that_is_no_record_is_one_line_and_never_tells_to_delete_the_jobs(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "suite.json").write_text(text)
    with pytest.raises(InputError, match=r"suite\.json: is not a record \(.*'bench run' writes it again$"):
        suite_record.find_suites(tmp_path)


def test_a_status_without_an_outcome_names_its_file(tmp_path: Path) -> None:
    job = record.read_job(make_job(tmp_path / "a"))
    record.write_json(tmp_path / "a" / "status.json", {})
    with pytest.raises(InputError, match=r"a/status\.json: is not a record \(outcome: field required\)"):
        _ = job.complete


def test_a_broken_line_names_file_and_line(tmp_path: Path) -> None:
    """Only the last line may be cut, by a kill; a broken one before it is damage."""
    path = tmp_path / "steps.jsonl"
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(InputError, match=r"steps\.jsonl:2: cannot be read as JSON"):
        list(record.read_jsonl(path))


@pytest.mark.parametrize("name", ["suite.json", "steps.jsonl"])
def test_what_would_be_read_for_ever_is_refused(tmp_path: Path, name: str) -> None:
    """A pipe that nobody writes to, and a device that never ends."""
    os.mkfifo(tmp_path / name)
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero" / name).symlink_to("/dev/zero")
    for path in (tmp_path / name, tmp_path / "zero" / name):
        with pytest.raises(InputError, match=rf"{name}: is no plain file; "):
            list(record.read_jsonl(path)) if name.endswith("l") else record.read_json(path)
