"""The campaigns see what they are there to see: damage that is damage, and records that differ."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.records import record
from benchmarks.campaigns import base, cluster_kills, damage


@pytest.mark.parametrize("way", damage.WAYS)
def test_every_way_of_damage_changes_the_file(tmp_path: Path, way: str) -> None:
    path = tmp_path / "jobs" / "one" / "scores.json"
    record.write_json(path, {"f": {"value": 1.25, "n": 64, "standard_error": 0.125}})
    record.write_json(tmp_path / "jobs" / "two" / "scores.json", {"f": {"value": 2.5, "n": 64, "standard_error": 0.5}})
    before = path.read_bytes()
    damage.WAYS[way](path, random.Random(1))
    assert not path.exists() or path.read_bytes() != before


def test_records_compare_by_what_was_found_out(tmp_path: Path) -> None:
    """Not by when, where and how long; and by every score, row and weight."""
    for name, seconds in (("one", 1.0), ("other", 2.0)):
        job = tmp_path / name / "jobs" / "a"
        record.write_json(job / "scores.json", {"f": {"value": 1.25}})
        record.write_json(job / "spec.json", {"id": "a", "kind": "pretrain", "labels": {}, "environment": {"at": name}})
        record.append_jsonl(job / "steps.jsonl", [{"step": 1, "seconds": seconds}])
        (job / "adapter").mkdir()
        (job / "adapter" / "weights").write_bytes(b"12")
    one, other = tmp_path / "one", tmp_path / "other"
    assert base.difference(base.contents(one), base.contents(other)) == ""
    (other / "jobs" / "a" / "adapter" / "weights").write_bytes(b"13")
    assert base.difference(base.contents(one), base.contents(other)) == "a/adapter/weights differs"
    (other / "jobs" / "a" / "adapter" / "weights").unlink()
    assert base.difference(base.contents(one), base.contents(other)) == "a/adapter/weights is in one of them alone"


def test_a_count_that_tried_nothing_or_missed_one_keeps_no_goal() -> None:
    count = base.Count()
    assert count.row("work").as_dict()["holds"] is False
    count.add("first", "")
    assert count.row("work").as_dict()["holds"] is True
    count.add("second", "it hung")
    found = count.row("work").as_dict()
    assert found["holds"] is False and found["values"] == [50.0]
    assert found["facts"] == {"tried": 2, "right": 1, "wrong": ["second: it hung"]}


@pytest.mark.parametrize("targets", [cluster_kills.ON_CLUSTER, cluster_kills.ON_ONE_NODE])
def test_every_run_on_a_cluster_is_killed_once_at_each_target_and_the_same_way_each_time(
    targets: tuple[str, ...],
) -> None:
    """Twenty kills in five runs, a quarter or so of them right after a start; the others wait for more and more of the work."""
    drawn = [cluster_kills.points(targets, number, 0.6) for number in range(cluster_kills.CHAINS)]
    assert drawn == [cluster_kills.points(targets, number, 0.6) for number in range(cluster_kills.CHAINS)]
    assert all(sorted(one.target for one in points) == sorted(targets) for points in drawn)
    assert sum(map(len, drawn)) == 20
    early = [one for points in drawn for one in points if one.share is None]
    assert 2 <= len(early) <= 8
    for points in drawn:
        shares = [one.share for one in points if one.share is not None]
        assert shares == sorted(shares) and all(0.0 <= one <= 0.6 for one in shares)


def test_the_work_done_is_complete_jobs_and_the_steps_of_others(tmp_path: Path) -> None:
    """Of seven jobs one is complete and one took 40 of 160 steps: (1 + 0.25) / 7."""
    jobs = tmp_path / "small" / "jobs"
    record.write_json(jobs / "a" / "status.json", {"outcome": record.COMPLETE})
    (jobs / "b").mkdir()
    record.append_jsonl(jobs / "b" / "steps.jsonl", [{"step": step} for step in range(40)])
    record.write_json(jobs / "c" / "status.json", {"outcome": record.FAILED})
    assert cluster_kills.done(tmp_path) == pytest.approx(1.25 / 7)
