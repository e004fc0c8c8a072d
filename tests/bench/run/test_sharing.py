"""What another suite of the same folder has made is taken over, whole and on record, and never harmed by it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.cli import plan_view
from bench.errors import InputError
from bench.plan import planner
from bench.records import record, seal
from bench.run import sharing, standing
from bench.run.estimates import forecast

SHARED = {"sft-optimum-s0", "reference-logps", "dpo-optimum-s0", "mix-l0.5-s0", "sequential-l0.5-s0"}


@pytest.fixture
def made(tiny: Any, run_plan: Any) -> Any:
    """A suite, all of whose jobs are complete."""
    runner = run_plan(tiny(methods=["sequential", "mix"]))
    for job in runner.plan.jobs:
        runner.run(job)
    record.write_json(
        runner.folder / "suite.json",
        {"schema": 1, "name": "tiny", "smoke": False, "suite": {}, "jobs": list(runner.plan.jobs), "threads": 1},
    )
    return runner


@pytest.fixture
def other(tiny: Any, made: Any) -> tuple[planner.Plan, Path]:
    """Another suite, which shares all but one run with it, and its folder beside it."""
    plan = planner.make(tiny(name="other", methods=["sequential", "mix", "maxright"]))
    return plan, made.folder.parent / "other"


def slugs(jobs: Any) -> set[str]:
    return {one.rpartition("-")[0] for one in jobs}


def take(other: tuple[planner.Plan, Path], threads: int = 1) -> sharing.Taken:
    plan, folder = other
    wanted = standing.to_do(plan, folder, set(plan.jobs), standing.look(plan, folder).states)
    return sharing.take_over(plan, folder, wanted, threads)


def test_equal_jobs_are_taken_over_whole_and_on_record(made: Any, other: tuple[planner.Plan, Path]) -> None:
    """All but the MAXRIGHT run; weights lie on the disk once, and records are each suite's own."""
    plan, folder = other
    taken = take(other)
    assert slugs(taken.jobs) == SHARED
    assert set(taken.jobs.values()) == {made.folder.name}
    states = standing.look(plan, folder).states
    assert slugs(one for one, state in states.items() if state != "complete") == {"maxright-l0.5-s0"}
    for job_id in taken.jobs:
        source, target = made.folder / "jobs" / job_id, folder / "jobs" / job_id
        spec = record.read_job(target).spec
        assert (spec["suite"], spec["taken_over"]["from"]) == ("other", made.folder.name)
        assert spec["environment"] == record.read_job(source).spec["environment"]
        assert (source / "status.json").read_bytes() == (target / "status.json").read_bytes()
        assert isinstance(seal.examine(target, weights=True, remembered=False), record.Job)
        for weights in source.glob("adapter/*"):
            assert weights.samefile(target / weights.relative_to(source))
        for rows in source.glob("*.jsonl"):
            assert not rows.samefile(target / rows.name)
    assert not take(other).jobs


def test_looking_finds_what_would_be_taken_and_writes_nothing(
    made: Any, other: tuple[planner.Plan, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan counts the jobs, which it then does not count as work; with damaged weights one fewer, as in a run."""
    plan, folder = other
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    weights = made.folder / "jobs" / made.job("mix").id / "adapter" / "adapter_model.safetensors"
    states = standing.look(plan, folder).states
    assert slugs(sharing.would_take(plan, folder, plan.jobs, 1).jobs) == SHARED
    ahead = forecast.make(plan, folder, set(plan.jobs), states, 1, folder.parent)
    assert slugs(ahead.taken_over) == SHARED
    assert [(one.kind, one.jobs) for one in ahead.kinds] == [("train", 1)]
    shown = plan_view.as_text(plan, states, set(plan.jobs), forecast=ahead)
    assert f"taken over: 5 jobs from {made.folder.name}, not to be made again" in shown
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    (note,) = forecast.make(plan, folder, set(plan.jobs), states, 1).not_taken
    assert "made with 1 thread a job" in note
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    looked = sharing.would_take(plan, folder, plan.jobs, 1)
    assert slugs(looked.jobs) == SHARED - {"mix-l0.5-s0"}
    assert "made with 1 thread a job" in sharing.would_take(plan, folder, plan.jobs, 2).notes[0]
    assert not folder.exists()
    assert take(other).jobs == looked.jobs


def test_what_is_done_to_one_does_nothing_to_the_other(made: Any, other: tuple[planner.Plan, Path]) -> None:
    """A job is made again in the suite that took it over: the one it is from stays as it was."""
    plan, folder = other
    take(other)
    job = made.job("mix")
    before = seal.of_files(made.folder / "jobs" / job.id)
    made.context.folder = folder
    from bench.run import handlers

    assert handlers.run(plan.jobs[job.id], made.context)["outcome"] == "complete"
    assert "taken_over" not in record.read_job(folder / "jobs" / job.id).spec
    assert seal.of_files(made.folder / "jobs" / job.id) == before
    assert isinstance(seal.examine(made.folder / "jobs" / job.id, weights=True, remembered=False), record.Job)


@pytest.mark.parametrize("how", ["record", "weights", "no weights", "not complete", "unsealed", "settings", "link"])
def test_what_is_not_sound_is_left(made: Any, other: tuple[planner.Plan, Path], how: str, tmp_path: Path) -> None:
    """A damaged, unfinished or foreign job of the right name is made by the suite itself."""
    job = made.job("mix").id
    source = made.folder / "jobs" / job
    status = record.read_json(source / "status.json")
    if how == "record":
        (source / "scores.json").write_text((source / "scores.json").read_text().replace("1", "2", 1))
    elif how == "weights":
        weights = source / "adapter" / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    elif how == "no weights":
        shutil.rmtree(source / "adapter")
    elif how == "not complete":
        record.write_json(source / "status.json", status | {"outcome": "stopped", "message": "told to"})
    elif how == "unsealed":
        record.write_json(source / "status.json", {name: one for name, one in status.items() if name != "files"})
    elif how == "settings":
        spec = record.read_json(source / "spec.json")
        spec["settings"]["lambda_dpo"] = 0.7
        record.write_json(source / "spec.json", spec)
    else:
        source.rename(tmp_path / "elsewhere")
        source.symlink_to(tmp_path / "elsewhere")
    assert slugs(take(other).jobs) == SHARED - {"mix-l0.5-s0"}
    assert not list((other[1] / "jobs").glob("*mix*"))
    assert not list((other[1] / "jobs").glob(".*"))


def test_where_links_cannot_be_made_weights_are_copied(
    made: Any, other: tuple[planner.Plan, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refused)
    assert slugs(take(other).jobs) == SHARED
    job = made.job("mix").id
    target = other[1] / "jobs" / job
    assert record.read_job(target).spec["taken_over"]["weights"] == "copied"
    assert not (target / "adapter/adapter_model.safetensors").samefile(
        made.folder / "jobs" / job / "adapter/adapter_model.safetensors"
    )


def test_jobs_of_other_threads_are_left_and_told_of(made: Any, other: tuple[planner.Plan, Path]) -> None:
    taken = take(other, threads=3)
    assert not taken.jobs
    (note,) = taken.notes
    assert note == (
        f"{made.folder.name} has 5 jobs of this suite, made with 1 thread a job: made again with 3 (--threads 1 takes them over)"
    )


def test_a_failed_attempt_gives_way_and_paid_replies_do_not(made: Any, other: tuple[planner.Plan, Path]) -> None:
    """Replies that were paid for stay on record, whatever another suite has."""
    mix, sequential = made.job("mix").id, made.job("sequential").id
    for job in (mix, sequential):
        (other[1] / "jobs" / job).mkdir(parents=True)
        (other[1] / "jobs" / job / "log.txt").write_text("an attempt")
    (other[1] / "jobs" / sequential / "journal.jsonl").write_text("{}\n")
    assert slugs(take(other).jobs) == SHARED - {"sequential-l0.5-s0"}
    assert not (other[1] / "jobs" / mix / "log.txt").exists()
    assert (other[1] / "jobs" / sequential / "journal.jsonl").exists()


def test_a_folder_that_is_at_work_is_refused(other: tuple[planner.Plan, Path]) -> None:
    with standing.held(other[1]), pytest.raises(InputError, match="another bench run is at work in this folder"):
        take(other)
