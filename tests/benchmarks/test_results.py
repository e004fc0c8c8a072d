"""The two files of results: what holds, what is missed, what failed, and that they are replaced in one piece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.records import safe_files
from benchmarks import results
from benchmarks.rows import Row, Stated, at_least, at_most


def group(*rows: Row, failed: str | None = None) -> dict[str, Any]:
    machine = {"cpu": "A | processor", "cores": 2, "memory_bytes": 2**33, "gpus": []}
    return {
        "title": "One training step.",
        "command": "make bench",
        "finished": "2026-01-01 00:00 UTC",
        "seconds": 61.4,
        "quick": False,
        "real_data": True,
        "threads": 2,
        "commit": "0123456789abcdef",
        "machine": machine,
        "python": "3.11",
        "packages": {"torch": "2"},
        "rows": [row.as_dict() for row in rows],
        "failed": failed,
    }


DPO = Row(
    "DPO step",
    "TRL",
    [4.5, 4.0, 5.0],
    goal=at_least(4.4),
    sides={"ours_seconds": [3.0, 1.0], "other_bytes": [2**20]},
    notes=["Same batches."],
)
LATE = Row("help", "", [0.7], unit="s", goal=at_most(0.5))


def told(*groups: dict[str, Any]) -> dict[str, Any]:
    return {"schema": results.SCHEMA, "groups": {f"group {place}": one for place, one in enumerate(groups)}}


def test_a_row_says_whether_its_median_keeps_the_goal() -> None:
    """The median of 4.5, 4, 5 is 4.5: at least 4.4, though the smallest is not."""
    assert DPO.as_dict()["holds"] is True
    assert DPO.as_dict()["spread"] == {"minimum": 4.0, "median": 4.5, "maximum": 5.0, "n": 3}
    assert LATE.as_dict()["holds"] is False
    assert Row("x", "", [1.0]).as_dict()["holds"] is None


def test_the_table_has_the_spread_the_sides_and_the_verdict() -> None:
    """Ours: the middle of 1 and 3 s."""
    text = results.markdown(told(group(DPO)))
    assert "| DPO step | TRL | 4.50× (4.00× to 5.00×), 3 | ours 2 s, other 1 MiB | ≥ 4.40× | yes |" in text
    assert "- Same batches." in text
    assert "**1 of 1 goals hold.**" in text


def test_what_is_missed_or_failed_stands_on_top() -> None:
    text = results.markdown(told(group(DPO, LATE), group(failed="RowFailed: the process died")))
    assert "**1 of 2 goals hold.**" in text
    assert "Missed: help (0.70 s)." in text
    assert "Not (wholly) measured: group 1." in text
    assert "**Failed:** RowFailed: the process died" in text


def test_it_says_where_the_rows_came_from() -> None:
    made_up = group(DPO) | {"real_data": False}
    assert "generated rows: no mirror was there" in results.markdown(told(made_up))


def test_both_files_are_written_and_read_again(tmp_path: Path) -> None:
    content = told(group(DPO))
    results.save(tmp_path, content)
    assert results.load(tmp_path / "results.json") == json.loads(json.dumps(content))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["RESULTS.md", "results.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results.save(tmp_path, told(group(DPO)))
    before = (tmp_path / "results.json").read_text(encoding="utf-8")

    def full(*_: Any, **__: Any) -> int:
        raise OSError("no space left on device")

    monkeypatch.setattr(safe_files.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        results.save(tmp_path, told(group(LATE)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["RESULTS.md", "results.json"]
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == before


def test_results_of_another_schema_are_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"schema": 0, "groups": {"old": {}}}', encoding="utf-8")
    assert results.load(tmp_path / "results.json")["groups"] == {}


def test_a_goal_in_words_is_told_as_it_was_judged() -> None:
    row = Row("coverage", "2,000 draws", [0.951], unit="%", goal=Stated("93 to 97 %", True))
    assert "| coverage | 2,000 draws | 95.1 %, 1 |  | 93 to 97 % | yes |" in results.markdown(told(group(row)))


def test_what_is_counted_is_written_whole() -> None:
    assert results.value_text(0.0, "replies") == "0 replies"
    assert results.value_text(6.0, "stops") == "6 stops"
