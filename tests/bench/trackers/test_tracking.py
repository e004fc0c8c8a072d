"""A tracked run as a user meets it: what arrives, that it goes on after Ctrl-C, and that no tracker's trouble touches it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.records import record
from bench.records.spec import Inputs, JobSpec
from bench.suite import yaml_file
from bench.trackers import sender, tracking

SUITE = """\
name: tiny
model: {source: random}
lora: {rank: 2, alpha: 4, targets: [q_proj, v_proj]}
data:
  preference: {source: world, rows: 8, evaluation_rows: 2}
  instruction: {source: world, rows: 8, evaluation_rows: 2}
training: {steps: 6, batch_size: {dpo: 2, sft: 2}, learning_rate: 1.0e-2, evaluate_every: 3, checkpoint_every: 1}
methods: [mix, alright]
lambdas: [0.5]
"""
HANGING = 600
ROOT = Path(__file__).parents[3]
STARTED: list[subprocess.Popen[str]] = []

BROKEN = """\
import os, time
from bench.trackers import Tracker

class Raising(Tracker):
    def log(self, step, values): raise OSError("no route to host")
    def finish(self, complete): ...

class Hanging(Tracker):
    def __init__(self, run): time.sleep(1000)
    def log(self, step, values): ...
    def finish(self, complete): ...

class Dying(Tracker):
    def __init__(self, run): os._exit(3)
    def log(self, step, values): ...
    def finish(self, complete): ...
"""


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    for process in STARTED:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    STARTED.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Hold a suite, and another package with three trackers that do not work."""
    (tmp_path / "tiny.yaml").write_text(SUITE)
    site = tmp_path / "site"
    (site / "broken-1.0.dist-info").mkdir(parents=True)
    (site / "broken-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    points = "".join(f"{name.lower()} = broken:{name}\n" for name in ("Raising", "Hanging", "Dying"))
    (site / "broken-1.0.dist-info" / "entry_points.txt").write_text(f"[bench.trackers]\n{points}")
    (site / "broken.py").write_text(BROKEN)
    return tmp_path


def start(*arguments: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
    paths = [str(ROOT), str(folder / "site"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TRACKIO_DIR": str(folder / "trackio")}
    for name in ("BENCH_MIRROR", "TRACKIO_PROJECT", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        environment.pop(name, None)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.cli", "run", "tiny.yaml", *arguments],
        cwd=folder,
        env=environment | variables,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    STARTED.append(process)
    return process


def run(*arguments: str, folder: Path) -> tuple[int, str, str]:
    process = start(*arguments, folder=folder)
    out, err = process.communicate(timeout=HANGING)
    return process.returncode, out, err


def database(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "trackio" / "posttrain-bench.db")


def logged(folder: Path) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Read Trackio's own database: run -> rows of step and figures."""
    found = defaultdict(list)
    for name, step, figures in database(folder).execute("select run_name, step, metrics from metrics order by id"):
        found[name].append((step, json.loads(figures)))
    return found


def test_trackio_has_every_step_and_score_of_jobs_that_ran_at_once(folder: Path) -> None:
    pytest.importorskip("trackio", reason="extra trackio is not installed")
    code, out, err = run("--tracker", "trackio", "--workers", "2", "--json", folder=folder)
    assert code == 0, err
    summary = json.loads(out)  # nothing of Trackio's own between
    assert not (folder / "wandb").exists() and "warning" not in err
    found, jobs = logged(folder), folder / "results/tiny/jobs"
    trained = [one for one in summary["made"] if (jobs / one / "steps.jsonl").exists()]
    assert len(trained) == 4
    for name in trained:
        job = record.read_job(jobs / name)
        steps = [(row["step"], sender.numbers(row, "train")) for row in job.rows("steps")]
        points = [(row["step"], sender.numbers(row, "eval")) for row in job.rows("trajectory")]
        assert [row for row in found[name] if any(one.startswith("train/losses/") for one in row[1])] == steps
        assert [row for row in found[name] if "eval/tokens" in row[1]] == points
        assert all("train/learning_rate" in figures for _, figures in steps)
        assert found[name][-1][1]["scores/f_sft/held_out"] == job.scores["f_sft/held_out"]["value"]
    configs = dict(database(folder).execute("select run_name, config from configs"))
    assert {json.loads(one)["_Group"] for one in configs.values()} == {"tiny"}
    assert database(folder).execute("select name, type from artifacts").fetchall() == [("tiny-report", "report")]
    manifest = database(folder).execute("select manifest from artifact_versions").fetchone()[0]
    assert "tiny/report.html" in {one["path"] for one in json.loads(manifest)}


def test_the_run_of_a_job_goes_on_after_ctrl_c(folder: Path) -> None:
    pytest.importorskip("trackio", reason="extra trackio is not installed")
    keys = ("--set", "training.steps=2000", "--set", "training.checkpoint_every=50")
    command = ("--tracker", "trackio", "--only", "sft-optimum-*", *keys)
    process = start(*command, folder=folder)
    while (
        not (files := list(folder.glob("results/tiny/jobs/sft*/steps.jsonl"))) or files[0].read_text().count("\n") < 99
    ):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the tracker's process gets it, too
    _, err = process.communicate(timeout=HANGING)
    assert process.returncode == 130 and "tracker" not in err
    name = files[0].parent.name
    first = [step for step, figures in logged(folder)[name] if "train/learning_rate" in figures]
    assert first == list(range(1, len(first) + 1)) and 99 <= len(first) < 2000
    code, _, err = run(*command, folder=folder)
    assert code == 0, err
    rows = logged(folder)[name]
    assert [step for step, figures in rows if "train/learning_rate" in figures] == list(range(1, 2001))
    assert database(folder).execute("select count(*) from configs where run_name = ?", [name]).fetchone() == (1,)


def test_a_tracker_that_fails_is_one_line(folder: Path) -> None:
    code, out, err = run("--tracker", "raising", folder=folder)
    assert code == 0, err
    assert out.splitlines()[-1] == "results/tiny: 5 made, 0 already complete. Next: bench report results"
    said = [line for line in (out + err).splitlines() if "tracker" in line]
    log = "results/tiny/tracker.log"
    whole = "the run goes on, and its records are whole"
    assert said == [f"warning: tracker raising: OSError: no route to host; {whole} ({log})"]
    assert "Traceback" in (folder / log).read_text()


@pytest.mark.parametrize("name", ["Hanging", "Dying"])
def test_a_tracker_that_hangs_or_dies_is_left_behind(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder / "site")  # which a process that is started takes over
    monkeypatch.setattr(tracking, "LAST_SECONDS", 1.0)
    job = JobSpec(id="mix-1", kind="train", labels=None, settings={}, inputs=Inputs(), data={})
    (folder / "jobs" / job.id).mkdir(parents=True)
    labels = {"method": "mix", "base_method": "mix", "lambda_dpo": 0.5, "seed": 0, "order": "sft_dpo"}
    spec = {"schema": 1, "id": job.id, "kind": "train", "labels": labels | {"phase_steps": None, "options": {}}}
    record.write_json(folder / "jobs" / job.id / "spec.json", spec | {"settings": {}, "inputs": {}, "data": {}})
    told: list[str] = []
    with tracking.Tracking(name.lower(), "tiny", folder, told.append) as one:
        one.started(job)
        if name == "Dying":
            one._process.join(HANGING)
        for _ in range(20):
            one.progress(job, {})
        one.ended(job, {"outcome": record.COMPLETE})
    one._process.join(HANGING)
    assert not one._process.is_alive()
    why = "its process ended with 3" if name == "Dying" else "not all was sent within 1 s"
    assert told == [
        f"tracker {name.lower()}: {why}; the run goes on, and its records are whole ({folder / sender.LOG})"
    ]


def test_a_missing_or_unknown_tracker_is_one_line_before_anything(folder: Path) -> None:
    code, out, err = run("--tracker", "trakio", folder=folder)
    assert (code, out) == (2, "")
    assert err.startswith("bench: tracker: unknown tracker 'trakio'; did you mean 'trackio'? known: ")
    assert err.count("\n") == 1 and "pip install" in err
    assert run("--set", "tracker=trakio", folder=folder)[0] == 2
    assert not (folder / "results").exists()


def test_jobs_are_the_same_with_a_tracker(folder: Path) -> None:
    from bench.plan import planner

    plain, tracked = (
        planner.make(yaml_file.load(str(folder / "tiny.yaml"), more)) for more in ([], ["tracker=tensorboard"])
    )
    assert list(plain.jobs) == list(tracked.jobs)
    assert tracked.suite.tracker == "tensorboard" and plain.suite.tracker is None
