"""Whether a job's files are those that it wrote: every way to damage one is seen, and nothing else is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from older_records import unseal

from bench.records import pack, record, schema, seal
from bench.records.archive import Archive, ArchivePath

LABELS = {"method": "mix", "base_method": "mix", "lambda_dpo": 0.5, "seed": 0}
NAMES = ("measurements.json", "scores.json", "metrics.json", "data.json", "steps.jsonl", "trajectory.jsonl", "own.csv")


def make(folder: Path, seed: int = 0) -> Path:
    """Write a complete training job of three steps, sealed."""
    spec = {"schema": 1, "id": folder.name, "kind": "train", "labels": LABELS | {"seed": seed}}
    record.write_json(folder / "spec.json", spec | {"settings": {}, "inputs": {}, "roles": ["run"]})
    record.write_json(folder / "measurements.json", {"steps": {"value": 3, "unit": "steps"}})
    record.write_json(folder / "scores.json", {"f_sft/held_out": {"value": 1.25 + seed, "n": 8, "standard_error": 0.5}})
    record.write_json(folder / "metrics.json", {"steps": {"title": "Length", "unit": "steps"}})
    record.write_json(folder / "data.json", {"sft/train": {"rows": 24}})
    steps = ({"step": step, "seconds": 1.0, "weights": {"sft": 1.0}, "seed": seed} for step in (1, 2, 3))
    record.append_jsonl(folder / "steps.jsonl", steps)
    record.append_jsonl(folder / "trajectory.jsonl", ({"step": step, "f_sft/held_out": 1.5 + seed} for step in (0, 3)))
    (folder / "own.csv").write_text(f"an evaluator's own, {seed}\n")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(bytes([seed]) * 40)
    (folder / "log.txt").write_text("words")
    status = {"schema": 1, "outcome": "complete", "seconds": 3.0, "finished": "2026-01-01T00:00:00+00:00"}
    record.write_json(folder / "status.json", status | {"files": seal.of_files(folder)})
    return folder


@pytest.fixture
def job(tmp_path: Path) -> Path:
    make(tmp_path / "jobs" / "other", seed=1)
    return make(tmp_path / "jobs" / "job")


def what(found: record.Job | seal.Damage) -> str:
    return found.what if isinstance(found, seal.Damage) else ""


def test_what_was_left_alone_is_sound(job: Path) -> None:
    """A log may grow, and checkpoints and weights may go: they are no part of what was found out."""
    (job / "log.txt").write_text("more words")
    (job / ".hidden").write_text("")
    assert what(seal.examine(job, weights=True)) == ""
    shutil.rmtree(job / "adapter")
    assert what(seal.examine(job, weights=True)) == ""


WAYS: dict[str, Callable[[Path], Any]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "empty": lambda path: path.write_bytes(b""),
    "bytes": lambda path: path.write_bytes(path.read_bytes().replace(b"1", b"2", 1) + b" "),
    "no text": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()),
    "missing": lambda path: path.unlink(),
    "foreign": lambda path: shutil.copyfile(path.parents[1] / "other" / path.name, path),
    "{}": lambda path: path.write_text("{}\n"),
    "null": lambda path: path.write_text("null\n"),
    "list": lambda path: path.write_text("[1]\n"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_every_damage_to_every_record_is_named(job: Path, name: str, way: str) -> None:
    same = ("measurements.json", "metrics.json", "data.json")
    if way == "foreign" and name in same:
        pytest.skip("both jobs wrote the same")
    WAYS[way](job / name)
    for thorough in (False, True):
        found = seal.examine(job, thorough=thorough)
        assert what(found).startswith(f"{name} is "), found
        assert what(found).endswith("'bench run' makes its job again")


@pytest.mark.parametrize("way", [way for way in WAYS if way != "missing"])
@pytest.mark.parametrize("name", ["spec.json", "status.json"])
def test_what_seals_itself_is_named_too(job: Path, name: str, way: str) -> None:
    WAYS[way](job / name)
    assert what(seal.examine(job))


def test_a_file_that_the_job_did_not_write_is_named(job: Path) -> None:
    record.write_json(job / "stopping.json", {"step": 1, "reason": "said so", "early": True})
    assert what(seal.examine(job)).startswith("stopping.json was not written by the job")


def test_weights_are_looked_at_where_they_are_read(job: Path) -> None:
    shutil.copytree(job.parent / "other" / "adapter", job / "adapter", dirs_exist_ok=True)
    assert what(seal.examine(job)) == ""
    assert what(seal.examine(job, weights=True)).startswith(
        "adapter/adapter_model.safetensors is not as it was written"
    )
    (job / "adapter" / "adapter_model.safetensors").unlink()
    assert what(seal.examine(job, weights=True)).startswith("adapter/adapter_model.safetensors is missing")


def test_a_job_that_is_not_complete_has_nothing_to_compare(job: Path) -> None:
    (job / "status.json").unlink()
    (job / "scores.json").write_text("half a")
    assert what(seal.examine(job)) == ""


def test_an_archive_is_looked_through_like_a_folder(tmp_path: Path, job: Path) -> None:
    record.write_json(tmp_path / "suite.json", {"schema": 1, "name": "s", "suite": {}, "jobs": ["job", "other"]})
    (packed,) = pack.pack(tmp_path, tmp_path / "s.bench")
    path = ArchivePath(Archive(packed.file)) / "jobs" / "job"
    assert what(seal.examine(path, weights=True)) == ""
    record.write_json(job / "scores.json", {"f_sft/held_out": {"value": 9.0}})
    (packed,) = pack.pack(tmp_path, tmp_path / "s.bench")
    path = ArchivePath(Archive(packed.file)) / "jobs" / "job"
    assert what(seal.examine(path)) == "scores.json is not as it was written; pack the suite's folder again"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("scores.json", '{"f": {"value": "1.5"}}', "scores.json: is not a record (f.value"),
        ("scores.json", '{"f": {"value": true}}', "scores.json: is not a record (f.value"),
        ("scores.json", '{"f": null}', "scores.json: is not a record (f:"),
        ("measurements.json", "[]", "measurements.json: is not a record ("),
        ("metrics.json", '{"steps": {}}', "metrics.json: is not a record (steps.title"),
        ("steps.jsonl", '{"step": 1, "seconds": "long"}\n', "steps.jsonl:1: is not a record (seconds"),
        ("steps.jsonl", '{"step": 1, "seconds": 1.0, "weights": {}}\n', "steps.jsonl ends at step 1 of 3"),
        ("steps.jsonl", '{"step": 2, "seconds": 1.0, "weights": {}}\n', "steps.jsonl has no row of step 1"),
        ("steps.jsonl", '{"step": 1}\n', "steps.jsonl has no seconds in a row"),
        ("trajectory.jsonl", "null\n", "trajectory.jsonl:1: is not a record ("),
    ],
)
def test_a_record_without_sha256_is_read_through_its_schema(job: Path, name: str, content: str, said: str) -> None:
    unseal(job)
    assert what(seal.examine(job)) == ""
    (job / name).write_text(content)
    assert what(seal.examine(job, thorough=False)).startswith(said)


def test_nothing_of_an_earlier_attempt_is_taken_for_the_next_ones(job: Path) -> None:
    """Rows stay, which a checkpoint goes with, and files that are no records: replies that were paid for, a log."""
    (job / "journal.jsonl").write_text("paid\n")
    seal.clear(job)
    left = {path.name for path in job.iterdir()}
    assert left == {"steps.jsonl", "trajectory.jsonl", "own.csv", "log.txt", "journal.jsonl"}


def test_the_seal_is_of_content_and_not_of_the_order_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "suite.json"
    record.write_json(path, {"name": "s", "suite": {}, "jobs": []})
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(kept.items()))))
    assert record.read_json(path)["name"] == "s"
    path.write_text(json.dumps(kept | {"jobs": ["more"]}))
    with pytest.raises(record.InputError, match=r"suite\.json: is not as it was written; 'bench run' writes it again"):
        record.read_json(path)


@pytest.mark.parametrize(
    ("kind", "labels", "said"),
    [
        ("train", LABELS | {"seed": "0"}, "labels.seed"),
        ("train", LABELS | {"lambda_dpo": True}, "labels.lambda_dpo"),
        ("train", {}, "labels.method"),
        ("toy", LABELS, "labels.steps"),
        ("lm_eval", {"of": 3}, "labels.of"),
        ("pretrain", {}, ""),
        ("train", LABELS, ""),
    ],
)
def test_labels_have_the_types_that_are_relied_on(kind: str, labels: dict[str, Any], said: str) -> None:
    assert schema.wrong_labels(kind, labels).startswith(said)
    assert bool(schema.wrong_labels(kind, labels)) == bool(said)
