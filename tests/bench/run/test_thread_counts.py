"""How many threads compute a job: chosen at a folder's first run, and kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench.errors import InputError
from bench.records import record
from bench.run import thread_counts

CORES = os.cpu_count() or 1
SUITE = {"name": "s", "suite": {}, "jobs": []}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_a_first_run_shares_the_processors(tmp_path: Path) -> None:
    assert thread_counts.of_folder(tmp_path, 1) == (CORES, CORES)
    assert thread_counts.of_folder(tmp_path, CORES) == (1, CORES)
    assert thread_counts.of_folder(tmp_path, 10 * CORES) == (1, CORES)


@pytest.mark.parametrize(("value", "threads"), [("3", 3), ("3,2", 3), (" 5 ", 5)])
def test_the_environment_is_asked_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert thread_counts.of_folder(tmp_path, 2) == (threads, threads)
    assert thread_counts.of_folder(tmp_path, 2, asked=7) == (7, 7)


@pytest.mark.parametrize("value", ["", "many", "0", "-1"])
def test_what_is_no_number_is_as_if_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert thread_counts.of_folder(tmp_path, 1) == (CORES, CORES)


def test_what_the_first_run_chose_is_kept_and_another_number_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.write_json(tmp_path / "suite.json", SUITE | {"threads": 3})
    assert [thread_counts.of_folder(tmp_path, workers)[0] for workers in (1, 2, 8)] == [3, 3, 3]
    assert thread_counts.of_folder(tmp_path, 1, asked=3) == (3, 3)
    with pytest.raises(
        InputError, match=r"^--threads = 4: .* was made with 3 threads a job, .*; leave it out, or begin"
    ):
        thread_counts.of_folder(tmp_path, 1, asked=4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(InputError, match=r"^OMP_NUM_THREADS = 1: "):
        thread_counts.of_folder(tmp_path, 1)


def test_a_folder_of_a_version_that_kept_no_number_tells_by_its_jobs(tmp_path: Path) -> None:
    """A damaged record is passed over; a job that had the machine for itself says nothing of the others."""
    record.write_json(tmp_path / "suite.json", SUITE)
    for name, kind, threads in (("a", "cost", 9), ("c", "train", 5)):
        spec = {"id": name, "kind": kind, "labels": {}, "environment": {"threads": threads}}
        record.write_json(tmp_path / "jobs" / name / "spec.json", spec)
    (tmp_path / "jobs" / "b").mkdir()
    (tmp_path / "jobs" / "b" / "spec.json").write_text("{")
    assert thread_counts.of_folder(tmp_path, 1)[0] == 5
    (tmp_path / "suite.json").write_text(json.dumps([]))
    assert thread_counts.of_folder(tmp_path, 1)[0] == 5
