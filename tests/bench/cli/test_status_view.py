"""`bench status`: what runs, was stopped, failed, is blocked or untouched, and what it waits for; short for many jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli import status_view, watch
from bench.cli.main import app
from bench.records import record
from bench.run import live


def suite(root: Path, jobs: dict[str, str], **more: Any) -> Path:
    """Write a suite whose jobs have not begun."""
    folder = root / "one"
    (folder / "jobs").mkdir(parents=True)
    info = {"schema": 1, "name": "one", "smoke": False, "suite": {}, "jobs": list(jobs), "kinds": jobs}
    record.write_json(folder / "suite.json", info | more)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return suite(tmp_path, {"a": "train", "b": "train", "c": "train", "d": "questions", "e": "questions"})


def begun(folder: Path, job: str, outcome: str | None, **more: Any) -> None:
    labels = {"method": "mix", "base_method": "mix", "lambda_dpo": 0.5, "seed": 0}
    spec = {"id": job, "kind": "train", "labels": labels, "settings": {}, "inputs": {}, "roles": []}
    record.write_json(folder / "jobs" / job / "spec.json", spec)
    record.write_json(folder / "jobs" / job / "measurements.json", {})
    if outcome:
        record.write_json(folder / "jobs" / job / "status.json", {"schema": 1, "outcome": outcome, **more})


def lines(folder: Path) -> list[str]:
    return status_view.as_text(status_view.look(folder, verify=False)).splitlines()


def test_untouched_jobs_wait_for_bench_run(folder: Path) -> None:
    assert lines(folder) == [
        f"{folder}: 5 jobs: 5 to do",
        "  to do: 3 train, 2 questions",
        "  to do: a and 4 more: waits for bench run",
    ]


def test_a_run_at_work_is_told_with_its_step_and_what_the_others_wait_for(folder: Path) -> None:
    begun(folder, "a", "complete")
    begun(folder, "b", None)
    told = live.Live(folder)
    told.begin()
    told.started("b")
    told.progress("b", {"step": 3, "steps": 10, "losses": {"sft": 2.5}})
    told.write({"c": live.A_PLACE, "d": "b", "e": "b"}, {})
    assert lines(folder) == [
        f"{folder}: 5 jobs: 1 complete, 1 running, 3 to do",
        "  complete: 1 train",
        "  running: 1 train",
        "  to do: 1 train, 2 questions",
        "  running: b: step 3/10  f_sft 2.500",
        "  to do: d and 1 more: waits for b",
        "  to do: c: waits for a free worker",
    ]


def test_a_half_failed_suite_says_why_and_what_that_blocks_and_json_has_it_all(folder: Path) -> None:
    begun(folder, "a", "complete")
    begun(folder, "b", "failed", message="no such column")
    begun(folder, "c", "stopped", message="at step 3")
    told = live.Live(folder)
    told.begin()
    told.write({}, {"d": "b", "e": "b"}, last=True)
    assert lines(folder) == [
        f"{folder}: 5 jobs: 1 complete, 1 stopped, 1 failed, 2 blocked",
        "  complete: 1 train",
        "  stopped: 1 train",
        "  failed: 1 train",
        "  blocked: 2 questions",
        "  stopped: c: at step 3",
        "  failed: b: no such column",
        "  blocked: d and 1 more: needs b, which failed",
    ]
    done = CliRunner().invoke(app, ["status", str(folder), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == [
        {
            "suite": "one",
            "folder": str(folder),
            "run": "",
            "counts": {
                "complete": {"train": 1},
                "stopped": {"train": 1},
                "failed": {"train": 1},
                "blocked": {"questions": 2},
            },
            "jobs": {"complete": ["a"], "stopped": ["c"], "failed": ["b"], "blocked": ["d", "e"]},
            "details": {
                "b": "no such column",
                "c": "at step 3",
                "d": "needs b, which failed",
                "e": "needs b, which failed",
            },
            "broken": {},
        }
    ]


def test_a_killed_runs_job_is_stopped_and_no_longer_running(folder: Path) -> None:
    """One was at step 3 of 10 when the whole run was killed, another in a run before that."""
    begun(folder, "a", None)
    begun(folder, "b", None)
    told = live.Live(folder)
    told.begin()
    told.started("b")
    told.progress("b", {"step": 3, "steps": 10, "losses": {}})
    told.write({"d": "b"}, {})
    value = json.loads((folder / live.FILE).read_text())
    (folder / live.FILE).write_text(json.dumps(value | {"process_started": value["process_started"] - 60.0}))
    assert lines(folder)[3:] == [
        "  stopped: a: began and did not end; bench run goes on",
        "  stopped: b: its run was killed: step 3/10; bench run goes on",
        "  to do: c and 1 more: waits for bench run",
        "  to do: d: waits for b, and bench run",
    ]


def test_a_broken_record_is_told_of_once_and_an_older_plan_has_no_kinds(tmp_path: Path) -> None:
    folder = suite(tmp_path, {"a": "train", "b": "train"}, kinds=None)
    begun(folder, "a", "complete")
    (folder / "jobs" / "a" / "status.json").write_text("{")
    found = lines(folder)
    assert found[0] == f"{folder}: 2 jobs: 1 broken, 1 to do"
    assert found[1:3] == ["  broken: 1 of a kind not on record", "  to do: 1 of a kind not on record"]
    assert [line.split(": ")[1] for line in found[3:]] == ["a", "b"]


def test_who_verifies_is_told_of_every_broken_job(tmp_path: Path) -> None:
    names = [f"j{number}" for number in range(10)]
    folder = suite(tmp_path, dict.fromkeys(names, "train"))
    for job in names:
        begun(folder, job, "complete")
        (folder / "jobs" / job / "status.json").write_text("{")
    told = status_view.as_text(status_view.look(folder, verify=True)).splitlines()
    assert [line.split(": ")[1] for line in told[2:-1]] == names
    assert told[-1] == "  verified: 0 complete jobs are as they were written, by their sha256"


def test_it_and_watching_say_the_same(folder: Path) -> None:
    begun(folder, "a", "complete", seconds=1.25)
    begun(folder, "b", "failed", message="it broke")
    begun(folder, "c", None)
    told = live.Live(folder)
    told.begin()
    told.write({"e": "d"}, {"d": "b"})
    (seen,) = watch.Watcher(folder).look()
    (looked,) = status_view.look(folder, verify=False)
    assert seen.jobs == looked.jobs
    assert [one.name for one in looked.jobs.values()] == ["complete", "failed", "stopped", "blocked", "to do"]


def test_five_thousand_jobs_are_a_screen(tmp_path: Path) -> None:
    """20 jobs run, each at another step; the others wait for a worker, or for one of those that run."""
    names = [f"j{number}" for number in range(5000)]
    folder = suite(tmp_path, dict.fromkeys(names, "train"))
    told = live.Live(folder)
    told.begin()
    for number, job in enumerate(names[:20]):
        told.started(job)
        told.progress(job, {"step": number, "steps": 100, "losses": {}})
    told.write({job: live.A_PLACE if number % 2 else names[number % 20] for number, job in enumerate(names[20:])}, {})
    found = lines(folder)
    assert found[:3] == [f"{folder}: 5000 jobs: 20 running, 4980 to do", "  running: 20 train", "  to do: 4980 train"]
    assert found[11] == "  running: and 12 more"
    assert found[12] == "  to do: j21 and 2489 more: waits for a free worker"
    assert len(found) == 3 + 9 + 9  # of even numbers ten groups wait, and one for a worker: eight lines and a rest each
