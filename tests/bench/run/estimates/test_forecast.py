"""What a plan will take, by records of known seconds and memory; expected values by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.cli import plan_view
from bench.plan.plan import Plan
from bench.records import record
from bench.records.spec import NETWORK_ONLY, Inputs, JobSpec
from bench.run.estimates import forecast, past

HARDWARE = {"cpu": "one", "cores": 2, "gpus": [], "memory_bytes": 1}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(past, "this_machine", lambda threads: past.Machine(HARDWARE, "cpu", 1))


@pytest.fixture
def plan(tiny: Any) -> Plan:
    """Jobs a and b of one kind, and c of another, which needs a."""
    made = Plan(tiny())
    made.add(job("a", "answers"))
    made.add(job("b", "answers"))
    made.add(job("c", "scores", "a"))
    return made


def job(name: str, kind: str, *needs: str) -> JobSpec:
    return JobSpec(name, kind, None, {"work": kind}, Inputs(front=needs), {})


def kept(results: Path, name: str, kind: str, seconds: float, *, peak: int | None = None, cpu: str = "one") -> None:
    """Leave a record of a job of an earlier suite behind."""
    folder = results / "earlier" / "jobs" / name
    folder.mkdir(parents=True)
    environment = {"hardware": HARDWARE | {"cpu": cpu}, "device": "cpu", "threads": 1}
    spec = {"schema": record.SCHEMA, "id": name, "kind": kind, "suite": "earlier", "smoke": False, "roles": []}
    spec |= {"labels": {}, "settings": {"work": kind}, "inputs": {}, "prefix": None, "data": {}, "semantics": 2}
    record.write_json(folder / "spec.json", spec | {"environment": environment, "environments": [environment]})
    status = {"schema": record.SCHEMA, "outcome": "complete", "seconds": seconds}
    record.write_json(folder / "status.json", status | {"finished": "2026-01-01T00:00:00+00:00"})
    if peak is not None:
        record.write_json(folder / "measurements.json", {"peak_memory_bytes": {"value": peak, "unit": "bytes"}})


def tell(plan: Plan, results: Path, workers: int = 1, like: Path | None = None) -> forecast.Forecast:
    return forecast.make(plan, results / "tiny", set(plan.jobs), dict.fromkeys(plan.jobs, "pending"), workers, like)


def text(plan: Plan, ahead: forecast.Forecast) -> str:
    return plan_view.as_text(plan, dict.fromkeys(plan.jobs, "pending"), set(plan.jobs), forecast=ahead)


# One worker: 100 + 100 + 30. Two: a and b beside each other until 100, then c until 130.
@pytest.mark.parametrize(("workers", "wall"), [(1, 230.0), (2, 130.0)])
def test_kinds_and_wall_time_by_records_of_known_seconds(plan: Plan, tmp_path: Path, workers: int, wall: float) -> None:
    kept(tmp_path, "x", "answers", 100.0, peak=3_000_000)
    kept(tmp_path, "y", "scores", 30.0)
    ahead = tell(plan, tmp_path, workers)
    assert (ahead.wall_seconds, ahead.wall_seconds_reason, ahead.at_most) == (wall, None, False)
    assert [(one.kind, one.jobs, one.seconds) for one in ahead.kinds] == [("answers", 2, 200.0), ("scores", 1, 30.0)]
    assert [one.peak_memory_bytes for one in ahead.kinds] == [3_000_000, None]
    assert "peak memory" in (ahead.kinds[1].peak_memory_reason or "")
    shown = text(plan, ahead)
    assert f"time: about {'3 min 50 s' if workers == 1 else '2 min 10 s'} on {workers} worker" in shown
    assert "2 × answers: about 3 min 20 s; peak memory 3.0 MB" in shown


def test_another_folder_tells_in_place_of_the_results(plan: Plan, tmp_path: Path) -> None:
    kept(tmp_path / "out", "x", "answers", 1.0)
    kept(tmp_path / "like", "x", "answers", 100.0)
    kept(tmp_path / "like", "y", "scores", 30.0)
    ahead = tell(plan, tmp_path / "out", like=tmp_path / "like")
    assert (ahead.wall_seconds, ahead.records) == (230.0, tmp_path / "like")


def test_what_is_not_known_is_null_with_a_reason(plan: Plan, tmp_path: Path) -> None:
    """Of one kind nothing is on record, but of another machine: no sum is told, and the other kind is."""
    kept(tmp_path, "x", "answers", 100.0)
    kept(tmp_path, "y", "scores", 30.0, cpu="another")
    ahead = tell(plan, tmp_path)
    shown = plan_view.as_dict(plan, dict.fromkeys(plan.jobs, "pending"), set(plan.jobs), forecast=ahead)["forecast"]
    why = f"no such job of kind scores of this machine is on record in {tmp_path} "
    why += "(1 of other machines or threads do not count)"
    assert (shown["wall_seconds"], shown["wall_seconds_reason"]) == (None, why)
    assert [(one["seconds"], one["seconds_reason"]) for one in shown["kinds"]] == [(200.0, None), (None, why)]
    assert f"time: not known: {why}; a first run leaves records, or give --like FOLDER" in text(plan, ahead)
    nothing = tell(plan, tmp_path / "none")
    assert nothing.wall_seconds is None
    assert "no such job of kind answers or scores" in (nothing.wall_seconds_reason or "")
    assert not (tmp_path / "none").exists()


def test_what_only_waits_for_a_network_compares_by_the_machine_alone(tiny: Any, tmp_path: Path) -> None:
    """Its worker has one thread, the others here four: 7 seconds, whatever the threads."""
    made = Plan(tiny())
    made.add(JobSpec("j", "judge", None, {"work": "judge"}, Inputs(), {}, resources=NETWORK_ONLY))
    kept(tmp_path, "x", "judge", 7.0)
    four = past.Machine(HARDWARE, "cpu", 4)
    assert [one.seconds for one in past.read(tmp_path, four, made).took] == [7.0]
    assert past.read(tmp_path, four).others == 1
    ahead = tell(made, tmp_path)
    assert ahead.wall_seconds == 7.0


def test_what_is_complete_takes_nothing(plan: Plan, tmp_path: Path) -> None:
    ahead = forecast.make(plan, tmp_path / "tiny", set(plan.jobs), dict.fromkeys(plan.jobs, "complete"), 1)
    assert (ahead.wall_seconds, ahead.kinds) == (0.0, ())
