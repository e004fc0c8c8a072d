"""What jobs took on this machine before, by the records of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.records import record
from bench.run.estimates import past

HARDWARE = {"cpu": "one", "cores": 2, "gpus": [], "memory_bytes": 1}
HERE = past.Machine(HARDWARE, "cpu", 1)


def kept(results: Path, name: str, *, seconds: float, threads: int = 1, cpu: str = "one", **more: Any) -> None:
    """Leave a record of a job of an evaluator behind."""
    folder = results / "suite" / "jobs" / name
    folder.mkdir(parents=True)
    environment = {"hardware": HARDWARE | {"cpu": cpu}, "device": "cpu", "threads": threads}
    spec = {"schema": record.SCHEMA, "id": name, "kind": "lm_eval", "suite": "suite", "smoke": False, "roles": []}
    spec |= {"labels": {}, "settings": {"tasks": ["a"]}, "inputs": {}, "prefix": None, "data": {}, "semantics": 2}
    spec |= {"environment": environment, "environments": [environment]} | more
    record.write_json(folder / "spec.json", spec)
    status = {
        "schema": record.SCHEMA,
        "outcome": "complete",
        "seconds": seconds,
        "finished": "2026-01-01T00:00:00+00:00",
    }
    record.write_json(folder / "status.json", status)


def test_only_records_of_the_same_machine_and_threads_count(tmp_path: Path) -> None:
    kept(tmp_path, "a", seconds=3.0)
    kept(tmp_path, "b", seconds=5.0, threads=2)
    kept(tmp_path, "c", seconds=7.0, cpu="another")
    found = past.read(tmp_path, HERE)
    assert [one.seconds for one in found.took] == [3.0]
    assert found.others == 2


def test_what_was_taken_over_or_went_on_from_a_checkpoint_does_not_count(tmp_path: Path) -> None:
    kept(tmp_path, "a", seconds=3.0, taken_over={"from": "other"})
    kept(tmp_path, "b", seconds=3.0, environments=[{}, {}])
    assert past.read(tmp_path, HERE).took == []


@pytest.mark.parametrize("file", ["spec.json", "status.json"])
def test_what_is_damaged_is_left_out_and_no_folder_is_nothing(tmp_path: Path, file: str) -> None:
    kept(tmp_path, "a", seconds=3.0)
    (tmp_path / "suite" / "jobs" / "a" / file).write_text("{")
    assert past.read(tmp_path, HERE).took == []
    assert past.read(tmp_path / "none", HERE).took == []
