"""What is read of growing files and sent, by a tracker that keeps what it is given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.records import record
from bench.trackers import TRACKERS, Run, Tracker, check, sender

SENT: dict[str, list[tuple[int, dict[str, float]]]] = {}
RUNS: list[Run] = []
ENDED: dict[str, bool] = {}
BROKEN: list[str] = []


class Kept(Tracker):
    """Keep what is sent, or fail where a test says so."""

    def __init__(self, run: Run) -> None:
        RUNS.append(run)
        self.id, self.name = run.known_as or f"run {len(RUNS)}", run.name

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if BROKEN:
            raise ConnectionError(BROKEN[0])
        SENT.setdefault(self.name, []).append((step, dict(values)))

    def finish(self, complete: bool) -> None:
        ENDED[self.name] = complete


@pytest.fixture(autouse=True)
def kept(offer: Any) -> None:
    for one in (SENT, RUNS, ENDED, BROKEN):
        one.clear()
    offer(TRACKERS, "kept", Kept)


def job(folder: Path, name: str = "mix-1") -> Path:
    path = folder / "jobs" / name
    path.mkdir(parents=True)
    labels = {"method": "mix", "base_method": "mix", "lambda_dpo": 0.5, "seed": 0, "order": "sft_dpo"}
    spec = {"schema": 1, "id": name, "kind": "train", "labels": labels | {"phase_steps": None, "options": {}}}
    spec |= {"settings": {"lora": {"rank": 2}}, "inputs": {}, "data": {}}
    record.write_json(path / "spec.json", spec)
    return path


def step(number: int, **more: Any) -> str:
    return json.dumps({"step": number, "phase": 0, "losses": {"dpo": 0.5 + number}, **more}) + "\n"


def add(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def losses(name: str = "mix-1") -> list[tuple[int, float]]:
    return [(at, values["train/losses/dpo"]) for at, values in SENT[name] if "train/losses/dpo" in values]


def test_figures_by_name() -> None:
    row = {"step": 3, "phase": 1, "losses": {"dpo": 0.5}, "gaps": {"sft": -0.25}, "learning_rate": 1e-3}
    row |= {"joint_backward": True, "note": "text", "halves": {"f_dpo/held_out": [1.0, 2.0]}, "model_flops": None}
    expected = {"train/losses/dpo": 0.5, "train/gaps/sft": -0.25, "train/learning_rate": 1e-3}
    assert sender.numbers(row, "train") == expected


def test_rows_are_sent_as_they_come_and_a_half_written_one_waits(tmp_path: Path) -> None:
    path = job(tmp_path)
    follow = sender.Sender("kept", "tiny", tmp_path)
    follow.begin("mix-1")
    follow.look()
    assert SENT == {}
    whole = step(2)
    add(path / "steps.jsonl", step(1) + whole[:9])
    follow.look()
    assert losses() == [(1, 1.5)]
    add(path / "steps.jsonl", whole[9:])
    add(path / "trajectory.jsonl", '{"step": 2, "phase": 0, "f_dpo/held_out": 0.25}\n')
    follow.look()
    assert losses() == [(1, 1.5), (2, 2.5)]
    assert (2, {"eval/f_dpo/held_out": 0.25}) in SENT["mix-1"]
    record.write_json(path / "scores.json", {"win_rate": {"value": 0.75}, "mmlu": {"value": None, "reason": "none"}})
    follow.end("mix-1", record.COMPLETE)
    follow.look()
    assert SENT["mix-1"][-1] == (2, {"scores/win_rate": 0.75})
    assert ENDED == {"mix-1": True} and follow.idle
    assert RUNS[0].suite == "tiny" and RUNS[0].kind == "train" and RUNS[0].config["settings.lora.rank"] == 2
    assert json.loads((tmp_path / sender.STATE).read_text())["jobs"] == {}


def test_a_job_that_goes_on_from_a_checkpoint_is_sent_once(tmp_path: Path) -> None:
    """Four steps were sent; the attempt after begins at step 3 again, in this process and in the next run's."""
    path = job(tmp_path)
    for attempt in (1, 2):
        follow = sender.Sender("kept", "tiny", tmp_path)
        follow.begin("mix-1")
        add(path / "steps.jsonl", "".join(step(n, tokens=100) for n in range(2 * attempt - 1, 2 * attempt + 3)))
        follow.look()
        (path / "steps.jsonl").write_text("".join(step(n) for n in range(1, 2 * attempt + 1)))
        follow.look()
        follow.end("mix-1", record.STOPPED)
        follow.look()
    assert losses() == [(n, n + 0.5) for n in (1, 2, 3, 4, 5, 6)]
    assert [one.known_as for one in RUNS] == [None, "run 1"]
    assert ENDED == {"mix-1": False}


def test_another_tracker_begins_anew(tmp_path: Path) -> None:
    path = job(tmp_path)
    (path / "steps.jsonl").write_text(step(1))
    (tmp_path / sender.STATE).write_text(
        '{"tracker": "trackio", "jobs": {"mix-1": {"run": "x", "steps": {"steps": 9}}}}'
    )
    follow = sender.Sender("kept", "tiny", tmp_path)
    follow.begin("mix-1")
    follow.look()
    assert losses() == [(1, 1.5)] and RUNS[0].known_as is None


@pytest.mark.parametrize("text", ["[", "[]", "null", '{"tracker": "kept", "jobs": {"mix-1": {"what": 1}}}', "\udcff"])
def test_a_broken_state_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / sender.STATE).write_text(text, errors="surrogateescape")
    assert sender.Sender("kept", "tiny", tmp_path).idle


def test_what_could_not_be_sent_is_sent_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = job(tmp_path)
    (path / "steps.jsonl").write_text(step(1) + step(2))
    follow = sender.Sender("kept", "tiny", tmp_path)
    follow.begin("mix-1")
    BROKEN.append("no route\nto host")
    follow.look()
    assert follow.failures == ["ConnectionError: no route to host"]
    BROKEN.clear()
    follow.look()  # a minute is not over
    assert SENT == {}
    follow.look(hurry=True)
    assert losses() == [(1, 1.5), (2, 2.5)]


def test_jobs_that_never_began_are_left_out(tmp_path: Path) -> None:
    follow = sender.Sender("kept", "tiny", tmp_path)
    follow.begin("mix-1")
    follow.end("mix-1", record.FAILED)
    follow.look()
    assert follow.idle and RUNS == []


def test_what_is_missing_is_said() -> None:
    with pytest.raises(InputError, match="unknown tracker 'wandbb'; did you mean 'wandb'") as unknown:
        check("wandbb")
    assert "pip install 'posttrain-bench[NAME]'" in str(unknown.value)
    Kept.package = "no_such_package_here"
    try:
        with pytest.raises(
            InputError, match="kept needs the package no_such_package_here; pip install no_such_package_here"
        ):
            check("kept")
    finally:
        Kept.package = ""
    check("kept")
