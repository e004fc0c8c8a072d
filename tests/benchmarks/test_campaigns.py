"""The campaigns see what they are there to see: damage that is damage, and records that differ."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.records import record
from benchmarks.campaigns import base, damage


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
