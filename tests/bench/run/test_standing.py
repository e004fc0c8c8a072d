"""What stands in a folder: complete, to be gone on with, or damaged and so to be made again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.plan import planner
from bench.records import record, seal
from bench.run import execute, handlers, local_pool, standing


@pytest.fixture
def run(tiny: Any, run_plan: Any) -> Any:
    """A run whose jobs are all complete."""
    runner = run_plan(tiny())
    for job in runner.plan.jobs:
        runner.run(job)
    return runner


def states(run: Any) -> set[str]:
    return set(standing.look(run.plan, run.folder).states.values())


def test_a_damaged_record_is_to_do_and_what_read_it_before_is_not(run: Any) -> None:
    assert states(run) == {"complete"}
    job = run.job("sft-optimum")
    record.write_json(run.folder / "jobs" / job.id / "scores.json", {"f_sft/held_out": {"value": 0.0, "n": 1}})
    found = standing.look(run.plan, run.folder)
    assert list(found.damaged) == [job.id]
    assert found.damaged[job.id] == "scores.json is not as it was written; 'bench run' makes its job again"
    assert standing.to_do(run.plan, run.folder, set(run.plan.jobs), found.states) == {job.id}
    handlers.run(job, run.context)
    assert states(run) == {"complete"}


def test_weights_of_another_job_are_found_before_they_are_read(run: Any) -> None:
    """They are a valid adapter, and evaluations of it would differ without a word."""
    mix, other = (run.folder / "jobs" / run.job(start).id for start in ("mix", "dpo-optimum"))
    shutil.copytree(other / "adapter", mix / "adapter", dirs_exist_ok=True)
    assert list(standing.look(run.plan, run.folder).damaged) == [mix.name]


def test_a_job_whose_input_was_damaged_in_the_meantime_says_whose_it_is(run: Any) -> None:
    optimum, mix = run.job("sft-optimum"), run.job("mix")
    logps = run.folder / "jobs" / run.job("reference-logps").id / "reference_logps.json"
    logps.write_text(logps.read_text().replace("-1", "-2", 1))
    status = handlers.run(mix, run.context)
    assert (status["outcome"], status["error"]) == ("failed", "DamagedInput")
    assert status["damaged_input"] == run.job("reference-logps").id != optimum.id


def test_a_file_or_a_link_in_a_jobs_place_is_refused(run: Any, tmp_path: Path) -> None:
    folder = run.folder / "jobs" / run.job("mix").id
    shutil.rmtree(folder)
    folder.write_text("")
    with pytest.raises(InputError, match="is no folder, where one of the program's own belongs; remove it"):
        standing.look(run.plan, run.folder)
    folder.unlink()
    folder.symlink_to(tmp_path)
    with pytest.raises(InputError, match="is a link, where a folder"):
        standing.look(run.plan, run.folder)


def test_a_run_that_was_stopped_is_gone_on_with(run: Any) -> None:
    folder = run.folder / "jobs" / run.job("mix").id
    record.write_json(folder / "status.json", {"outcome": "stopped", "message": "at step 2"})
    assert "stopped" in states(run)
    (folder / "status.json").unlink()
    assert "pending" in states(run)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-000002.pt").touch()
    assert "resumable" in states(run)


def test_a_kept_checkpoint_that_is_not_whole_is_found_and_dropped(tiny: Any, run_plan: Any) -> None:
    """Of the SFT optimum, from which Sequential starts; deleting it costs those steps, keeping it would cost the run."""
    runner = run_plan(tiny(methods=["sequential"]))
    optimum = runner.run("sft-optimum")
    (kept,) = (optimum.path / "checkpoints").glob("*.pt")
    assert seal.damaged_checkpoints(optimum.path) == {}
    kept.write_bytes(kept.read_bytes()[:-1])
    assert seal.damaged_checkpoints(optimum.path) == {kept: f"{kept.name} is not as it was written"}
    pool = local_pool.of_this_machine(runner.suite, runner.folder, workers=1)
    execution = execute.Execution(runner.plan, runner.folder, None, pool)  # type: ignore[arg-type]
    assert execution._without_damaged_checkpoints([optimum.id]) == {
        optimum.id: [f"checkpoint {kept.name} is not as it was written; deleted"]
    }
    assert list((optimum.path / "checkpoints").iterdir()) == []
    assert "healed" not in runner.run("sequential").status


def test_damage_to_one_job_fails_no_other_that_only_looks_at_its_names(tiny: Any, run_plan: Any) -> None:
    """An evaluation sees that no other evaluator's score has its name, whatever has become of the others' records."""
    runner = run_plan(tiny(evaluation={"lm_eval": {"tasks": ["world_questions"]}, "base_kl": {}}))
    kl, asked = runner.run("kl-base"), runner.job("questions-base")
    for name, content in (("spec.json", "null"), ("spec.json", '{"id": '), ("scores.json", "[1]")):
        before = (kl.path / name).read_text()
        (kl.path / name).write_text(content)
        assert handlers.run(asked, runner.context)["outcome"] == "complete"
        (kl.path / name).write_text(before)


def test_what_was_complete_a_moment_ago_is_not_read_again_unless_its_status_is_gone(run: Any) -> None:
    before = standing.look(run.plan, run.folder)
    mix, optimum = (run.folder / "jobs" / run.job(start).id for start in ("mix", "dpo-optimum"))
    (mix / "scores.json").write_text("{}")
    (optimum / "status.json").unlink()
    found = standing.look(run.plan, run.folder, before)
    assert (found.states[mix.name], found.states[optimum.name]) == ("complete", "pending")
    assert standing.look(run.plan, run.folder).states[mix.name] == "damaged"


def test_records_go_by_the_suites_present_labels_whether_they_are_known_or_read(run: Any, tiny: Any) -> None:
    named = planner.make(tiny(methods=["sequential", {"name": "mix", "label": "the sum"}]))
    mix = run.folder / "jobs" / run.job("mix").id
    for known in (None, standing.look(named, run.folder).labels):
        execute.write_suite(run.plan, run.folder, 1)
        assert record.read_job(mix).labels["method"] == "mix"
        execute.write_suite(named, run.folder, 1, known)
        assert record.read_job(mix).labels["method"] == "the sum"
