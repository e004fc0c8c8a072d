"""Checkpoints and the rows that go with them: what is not whole is not gone on from, and nothing is lost but time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import Bench, assert_same_run, suite

from bench.records import record
from bench.run import handlers
from bench.train import checkpoint


def stopped(folder: Path, method: str = "mix", at: int = 5) -> Bench:
    """Leave a run of 6 steps that was told to stop after so many, with checkpoints of steps 4 and 5."""
    made = Bench(suite(), folder)
    for need in made.job(method).needs:
        made.run(need)
    made.stop_at = at
    status = handlers.run(made.job(method), made.context)
    assert status["outcome"] == record.STOPPED
    made.stop_at = None
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> record.Job:
    return Bench(suite(), tmp_path_factory.mktemp("whole")).run("mix")


def test_two_checkpoints_are_kept_each_with_what_it_needs(tmp_path: Path) -> None:
    made = stopped(tmp_path)
    folder = made.context.job_folder(made.job("mix").id)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["step-000004.json", "step-000004.pt", "step-000005.json", "step-000005.pt"]
    said = record.read_json(folder / "checkpoints" / "step-000005.json")
    assert said["job"] == folder.name and said["rows"]["steps"]["bytes"] == (folder / "steps.jsonl").stat().st_size
    found, damaged = checkpoint.newest(folder)
    assert found is not None and (found.step, damaged) == (5, [])


def _cut_steps(folder: Path) -> None:
    """Leave three rows of five, as a disk does that lost power."""
    lines = (folder / "steps.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "steps.jsonl").write_bytes(b"".join(lines[:3]))


def _last_row_lost(folder: Path) -> None:
    lines = (folder / "steps.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "steps.jsonl").write_bytes(b"".join(lines[:4]))


def _checkpoint(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:06d}.pt"


def _write(step: int, content: Callable[[Path], bytes], suffix: str = ".pt") -> Callable[[Path], Any]:
    return lambda folder: _checkpoint(folder, step).with_suffix(suffix).write_bytes(content(folder))


BEFORE, START = "; went on from the checkpoint of step 4", "; went on from the start"
NOT_SO = "step-000005.pt is not as it was written"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "the last row was lost": (_last_row_lost, f"lacks its rows: steps.jsonl was cut short{BEFORE}"),
    "rows of both were lost": (_cut_steps, f"step-000004.pt lacks its rows: steps.jsonl was cut short{START}"),
    "no trajectory": (lambda folder: (folder / "trajectory.jsonl").unlink(), f"trajectory.jsonl is missing{START}"),
    "other usage": (lambda folder: (folder / "usage.jsonl").write_text("{}\n"), f"usage.jsonl was cut short{START}"),
    "cut": (_write(5, lambda folder: _checkpoint(folder, 5).read_bytes()[:1000]), f"{NOT_SO}{BEFORE}"),
    "empty": (_write(5, lambda folder: b""), f"{NOT_SO}{BEFORE}"),
    "an older one": (_write(5, lambda folder: _checkpoint(folder, 4).read_bytes()), f"{NOT_SO}{BEFORE}"),
    "a broken note": (_write(5, lambda folder: b"{", ".json"), f"step-000005.json cannot be read{BEFORE}"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_run_goes_on_from_what_is_sound_and_says_so(tmp_path: Path, whole: record.Job, what: str) -> None:
    """It ends as a run that was never stopped, every row on record once."""
    made = stopped(tmp_path)
    folder = made.context.job_folder(made.job("mix").id)
    damage, said = DAMAGE[what]
    damage(folder)
    job = made.run("mix")
    assert_same_run(job, whole)
    assert [row["step"] for row in job.rows("steps")] == [1, 2, 3, 4, 5, 6]
    assert any(one.endswith(said) for one in job.status["healed"]), job.status["healed"]
    assert not (folder / "checkpoints").exists()


def test_a_sound_run_that_goes_on_heals_nothing(tmp_path: Path, whole: record.Job) -> None:
    """A row after the checkpoint, and half of one, are what a kill leaves: they are written again."""
    made = stopped(tmp_path)
    folder = made.context.job_folder(made.job("mix").id)
    with (folder / "steps.jsonl").open("a") as file:
        file.write('{"step": 6, "seconds": 1.0}\n{"step": 7, "sec')
    job = made.run("mix")
    assert_same_run(job, whole)
    assert "healed" not in job.status


def test_checkpoints_of_a_version_that_noted_nothing_count_their_rows(tmp_path: Path, whole: record.Job) -> None:
    made = stopped(tmp_path)
    folder = made.context.job_folder(made.job("mix").id)
    for path in (folder / "checkpoints").glob("*.json"):
        path.unlink()
    found, _ = checkpoint.newest(folder)
    assert found is not None and (found.step, found.rows) == (5, None)
    _last_row_lost(folder)
    job = made.run("mix")
    assert_same_run(job, whole)
    assert job.status["healed"] == [
        "checkpoint step-000005.pt lacks its rows: steps.jsonl ends at step 4 of 5; went on from the checkpoint of step 4"
    ]


def test_another_jobs_checkpoint_is_not_gone_on_from(tmp_path: Path, whole: record.Job) -> None:
    """Whole and valid, with its note, it is still of another job."""
    made = stopped(tmp_path)
    other = stopped(tmp_path / "other", "alright")
    folder = made.context.job_folder(made.job("mix").id)
    source = other.context.job_folder(other.job("alright").id)
    for name in ("step-000005.pt", "step-000005.json"):
        shutil.copyfile(source / "checkpoints" / name, folder / "checkpoints" / name)
    job = made.run("mix")
    assert_same_run(job, whole)
    assert job.status["healed"] == [
        "checkpoint step-000005.pt is of another job; went on from the checkpoint of step 4"
    ]


@pytest.mark.parametrize("how", ["damaged", "foreign"])
def test_a_damaged_first_phase_is_trained_anew(tmp_path: Path, how: str) -> None:
    """Sequential then takes its first phase itself, to the same end."""
    whole = Bench(suite(), tmp_path / "whole").run("sequential")
    made = Bench(suite(), tmp_path / "made")
    job = made.job("sequential")
    assert job.prefix is not None
    made.run(job.prefix.job)
    kept = _checkpoint(made.context.job_folder(job.prefix.job), job.prefix.step)
    kept.write_bytes(b"nothing of the kind" if how == "damaged" else _last_of(tmp_path).read_bytes())
    found = made.run("sequential")
    assert_same_run(found, whole)
    assert found.status["healed"] == [
        f"the first phase kept by {job.prefix.job}: {kept.name} is not as it was written; trained its own"
    ]


def _last_of(folder: Path) -> Path:
    made = stopped(folder / "another")
    return _checkpoint(made.context.job_folder(made.job("mix").id), 4)


def test_rows_are_on_the_disk_before_their_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which a disk writes: at a checkpoint's first byte its rows were flushed."""
    flushed: list[str] = []
    monkeypatch.setattr(record.safe_files, "flush", lambda path: flushed.append(path.name))
    saved: list[list[str]] = []
    save = checkpoint.torch.save
    monkeypatch.setattr(checkpoint.torch, "save", lambda *given: (saved.append(list(flushed)), save(*given)))
    record.append_jsonl(tmp_path / "steps.jsonl", [{"step": 1, "seconds": 1.0}])
    checkpoint.save(tmp_path, 1, {"step": 1})
    assert saved == [["steps.jsonl"]]
