"""What nothing needs any more is listed with its size, and deleted only when told to; what is needed stays."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli.main import app
from bench.errors import InputError
from bench.plan.plan import Plan
from bench.records import record, seal
from bench.run import cleaning, execute, standing


@pytest.fixture
def run(tiny: Any, run_plan: Any) -> Any:
    """A complete suite of two seeds, whose Sequential runs started from checkpoints of the optima."""
    runner = run_plan(tiny(methods=["sequential"], seeds=[0, 1]))
    for job in runner.plan.jobs:
        runner.run(job)
    execute.write_suite(runner.plan, runner.folder, 1)
    return runner


def without(run: Any, *starts: str) -> None:
    """Have the suite planned anew without some jobs."""
    jobs = {name: job for name, job in run.plan.jobs.items() if not name.startswith(starts)}
    execute.write_suite(Plan(run.suite, jobs), run.folder, 1)


def found(run: Any, **options: bool) -> set[tuple[str, str]]:
    """Return what may go: (its place below the jobs' folder without hashes, the rule)."""
    items = cleaning.find(run.folder.parent, **options).items
    places = {one.path: one.path.relative_to(run.folder / "jobs").parts for one in items}
    return {("/".join((places[one.path][0].rpartition("-")[0], *places[one.path][1:])), one.why) for one in items}


def test_checkpoints_of_a_complete_suite_go_and_records_stay(run: Any) -> None:
    kept = {path for path in run.folder.rglob("*") if "checkpoints" not in path.parts and not path.name.startswith(".")}
    assert found(run) == {(f"sft-optimum-s{seed}/checkpoints", cleaning.CHECKPOINTS) for seed in (0, 1)}
    size = sum(path.stat().st_size for path in run.folder.glob("jobs/*/checkpoints/*"))
    looked = cleaning.find(run.folder)
    assert (sum(one.size for one in looked.items), looked.freed) == (size, size)
    assert list(run.folder.glob("jobs/*/checkpoints/*"))  # looking deletes nothing
    cleaning.delete(run.folder)
    left = {path for path in run.folder.rglob("*") if not path.name.startswith(".")}
    assert left == kept
    assert set(standing.look(run.plan, run.folder).states.values()) == {"complete"}
    assert not cleaning.delete(run.folder).items


def test_while_a_job_is_not_complete_checkpoints_stay(run: Any) -> None:
    (run.folder / "jobs" / run.job("sequential-l0.5-s1").id / "status.json").unlink()
    looked = cleaning.find(run.folder, adapters=True)
    assert not looked.items
    assert looked.kept == (f"{run.folder}: checkpoints stay while 1 of its {len(run.plan.jobs)} jobs are not complete",)


def test_jobs_of_an_older_plan_go_whole(run: Any) -> None:
    """What is no job's folder, or a link, is the user's."""
    (run.folder / "jobs" / "mine").mkdir()
    (run.folder / "jobs" / "linked").symlink_to(run.folder / "jobs" / run.job("sequential-l0.5-s1").id)
    without(run, "sequential-l0.5-s1")
    assert ("sequential-l0.5-s1", cleaning.OLDER) in found(run)
    gone = run.folder / "jobs" / run.job("sequential-l0.5-s1").id
    assert gone.exists()
    cleaning.delete(run.folder)
    assert not gone.exists()
    assert (run.folder / "jobs" / run.job("sequential-l0.5-s0").id / "scores.json").exists()
    assert (run.folder / "jobs" / "mine").exists()


def test_paid_replies_and_what_another_suite_has_still_to_do_stay(run: Any) -> None:
    old = run.job("sequential-l0.5-s1").id
    without(run, "sequential-l0.5")
    paid = run.folder / "jobs" / run.job("sequential-l0.5-s0").id
    (paid / "journal.jsonl").write_text("{}\n")
    other = run.folder.parent / "other"
    other.mkdir()
    info = record.read_json(run.folder / "suite.json")
    record.write_json(
        other / "suite.json",
        {key: one for key, one in info.items() if key != "seal"} | {"name": "other", "jobs": [old]},
    )
    looked = cleaning.find(run.folder.parent)
    assert not [one for one in looked.items if one.why == cleaning.OLDER]
    assert f"{run.folder / 'jobs' / old}: another suite has it to do, or takes its policy over" in looked.kept
    assert any("1 job of older plans with replies of a judge" in one for one in looked.kept)
    shutil.copytree(run.folder / "jobs" / old, other / "jobs" / old)
    assert [one.path.name for one in cleaning.find(run.folder.parent).items if one.why == cleaning.OLDER] == [old]


def test_adapters_are_thinned_by_request_to_the_first_seed(run: Any) -> None:
    """Optima and references keep theirs; a job without its weights is complete all the same."""
    assert ("sequential-l0.5-s1/adapter", cleaning.ADAPTERS) not in found(run)
    assert {one for one in found(run, adapters=True) if one[1] == cleaning.ADAPTERS} == {
        ("sequential-l0.5-s1/adapter", cleaning.ADAPTERS)
    }
    cleaning.delete(run.folder, adapters=True)
    thinned = run.folder / "jobs" / run.job("sequential-l0.5-s1").id
    assert not (thinned / "adapter").exists()
    assert isinstance(seal.examine(thinned, weights=True), record.Job)
    states = standing.look(run.plan, run.folder).states
    assert standing.to_do(run.plan, run.folder, set(run.plan.jobs), states) == set()


def test_what_others_share_by_links_frees_nothing(run: Any, tmp_path: Path) -> None:
    """Half of the two optima's checkpoints have another name elsewhere."""
    first = run.folder / "jobs" / run.job("sft-optimum-s0").id / "checkpoints"
    for path in first.iterdir():
        os.link(path, tmp_path / path.name)
    looked = cleaning.find(run.folder)
    linked = sum(path.stat().st_size for path in first.iterdir())
    assert looked.freed == sum(one.size for one in looked.items) - linked


def test_a_folder_that_is_at_work_is_left_alone(run: Any) -> None:
    with standing.held(run.folder), pytest.raises(InputError, match="another bench run is at work"):
        cleaning.delete(run.folder.parent)
    assert list(run.folder.glob("jobs/*/checkpoints/*"))


def test_the_command_lists_first_and_deletes_with_yes(run: Any) -> None:
    def clean(*options: str) -> str:
        result = CliRunner().invoke(app, ["clean", str(run.folder.parent), *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    lines = clean().splitlines()
    assert lines[-1].endswith("Nothing is deleted yet: --yes deletes them.")
    assert [line.partition("  (")[2] for line in lines[:-1]] == [f"{cleaning.CHECKPOINTS})"] * 2
    told = json.loads(clean("--json"))
    assert (told["deleted"], len(told["items"])) == (False, 2)
    assert clean("--yes").splitlines()[-1].startswith("2 folders deleted, ")
    assert clean("--yes") == "Nothing to clean.\n"
    with pytest.raises(InputError, match="no such folder"):
        cleaning.find(run.folder / "nowhere")
