"""Each tracker by its own files read back: two jobs at once, cut short and gone on with. None needs an account or a network."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.trackers import TRACKERS, Run, Tracker

JOBS = ("mix-1", "mix-2")
Figures = dict[str, list[tuple[int, str, float]]]
EXPECTED = {
    job: [(0, "eval/f_dpo/held_out", 0.5 + number), (1, "train/losses/dpo", 1.5 + number)]
    for number, job in enumerate(JOBS)
}
AFTER = {job: [*rows, (2, "train/losses/dpo", 2.5 + number)] for number, (job, rows) in enumerate(EXPECTED.items())}


def begin(name: str, folder: Path, known_as: dict[str, str | None]) -> dict[str, Tracker]:
    config = {"labels.seed": 0, "settings.lora.rank": 2}
    runs = [Run("tiny", job, "train", config, folder, known_as.get(job) or None) for job in JOBS]
    return {run.name: TRACKERS[name](run) for run in runs}


def track(name: str, folder: Path) -> dict[str, str]:
    """Log two jobs in turns, end them, and go on with them; return their ids."""
    trackers = begin(name, folder, {})
    for step, figure in ((0, "eval/f_dpo/held_out"), (1, "train/losses/dpo")):
        for number, job in enumerate(JOBS):
            trackers[job].log(step, {figure: 0.5 + number + step})
    for one in trackers.values():
        one.finish(False)
    ids = {job: one.id for job, one in trackers.items()}
    again = begin(name, folder, dict(ids))
    for number, job in enumerate(JOBS):
        if ids[job] and again[job].id == ids[job]:
            again[job].log(2, {"train/losses/dpo": 2.5 + number})
        again[job].finish(True)
    report = folder / "made" / "report.html"
    report.parent.mkdir()
    report.write_text("<p>report</p>")
    last = TRACKERS[name](Run("tiny", "report", "report", {}, folder))
    last.artifact(report.parent)
    last.finish(True)
    TRACKERS[name].close()
    return ids


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio", reason="extra trackio is not installed")
    from trackio import sqlite_storage as storage
    from trackio import utils

    for module in (storage, utils):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setenv("TRACKIO_PROJECT", "tests")
    track("trackio", tmp_path)
    runs = storage.SQLiteStorage.get_run_records("tests")
    assert sorted(one["name"] for one in runs) == [*JOBS, "report"]
    found: Figures = {}
    for one in (one for one in runs if one["name"] in JOBS):
        rows = storage.SQLiteStorage.get_logs("tests", one["name"], run_id=one["id"])
        found[one["name"]] = [
            (row["step"], figure, row[figure]) for row in rows for figure in row if figure[:5] in ("eval/", "train")
        ]
        config = storage.SQLiteStorage.get_run_config("tests", one["name"], run_id=one["id"])
        assert config["_Group"] == "tiny" and config["settings.lora.rank"] == 2
    assert found == AFTER
    assert [one["name"] for one in storage.SQLiteStorage.list_artifacts("tests")] == ["tiny-report"]


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder of files, as that needs no database."""
    pytest.importorskip("mlflow", reason="extra mlflow is not installed")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    ids = track("mlflow", tmp_path)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == [*JOBS, "report"]
    for job in JOBS:
        histories = {name: client.get_metric_history(ids[job], name) for name in runs[job].data.metrics}
        found = [(one.step, name, one.value) for name, history in histories.items() for one in history]
        assert sorted(found) == AFTER[job]
        assert runs[job].data.params == {"labels.seed": "0", "settings.lora.rank": "2"}
        assert runs[job].info.status == "FINISHED"
    assert [one.path for one in client.list_artifacts(runs["report"].info.run_id, "report")] == ["report/report.html"]


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track("tensorboard", tmp_path)
    for job in JOBS:
        read = EventAccumulator(str(tmp_path / "tensorboard" / job))
        read.Reload()
        found = [(one.step, tag, one.value) for tag in read.Tags()["scalars"] for one in read.Scalars(tag)]
        assert sorted(found) == AFTER[job]


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was ended offline cannot be gone on with: the next one is new, and says so by its id."""
    pytest.importorskip("wandb", reason="extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    assert TRACKERS["wandb"].problem() == ""
    assert set(track("wandb", tmp_path).values()) == {""}
    found = defaultdict(list)
    artifacts = []
    for file in sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb")):
        records = list(_records(file.read_bytes()))
        run = next(one.run for one in records if one.HasField("run"))
        assert (run.run_group, run.project) == ("tiny", "posttrain-bench")
        rows = [one.history for one in records if one.HasField("history")]
        found[run.display_name].append([row for one in rows for row in _figures(one)])
        artifacts += [one.request.log_artifact.artifact.name for one in records if one.HasField("request")]
        artifacts += [one.artifact.name for one in records if one.HasField("artifact")]
    for job in JOBS:
        assert sorted(found[job], key=len) == [[], EXPECTED[job]]
    assert "tiny-report" in artifacts


def _figures(history: Any) -> list[tuple[int, str, float]]:
    values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in history.item}
    return [(values["step"], name, values[name]) for name in values if name[:5] in ("eval/", "train")]


def _records(data: bytes) -> Iterator[Any]:
    """Read wandb's file: blocks of 32 KiB as in LevelDB's log, each record a protocol buffer."""
    from wandb.proto import wandb_internal_pb2

    at, whole = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            made = wandb_internal_pb2.Record()
            made.ParseFromString(whole)
            yield made
            whole = b""
