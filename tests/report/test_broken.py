"""A broken record is a broken job: named and left out, whatever is wrong with it, and the rest of the report stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.records.suite_record import find_suites
from report.analysis.load import Results
from report.build import build

BREAKS = {
    "no text": b"\xff\xfe{}",
    "{}": b"{}",
    "a list": b"[]",
    "null": b"null",
    "text": b'"text"',
    "half": b'{"f_dpo/held_out": {"val',
    "a string for a number": b'{"f_dpo/held_out": {"value": "0.5", "unit": ""}}',
    "a number for an entry": b'{"f_dpo/held_out": 0.5}',
    "deep": b"[" * 100_000,
}


@pytest.fixture
def folder(full: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(full, tmp_path / full.name))


@pytest.mark.parametrize("name", ["spec.json", "status.json", "scores.json", "measurements.json", "steps.jsonl"])
@pytest.mark.parametrize("what", BREAKS)
def test_it_is_told_of_and_nothing_else_suffers(folder: Path, name: str, what: str) -> None:
    path = folder / "jobs" / "mix-l0.5-s1" / name
    path.write_bytes(BREAKS[what] + b"\n")
    (suite,) = find_suites(folder)
    results = Results(suite)
    if what == "{}" and name in ("scores.json", "measurements.json", "steps.jsonl"):
        assert set(suite.broken) <= {"mix-l0.5-s1"}  # older records may hold as little
    else:
        assert list(suite.broken) == ["mix-l0.5-s1"]
        assert [(one.job, one.state) for one in results.problems][:1] == [("mix-l0.5-s1", "broken")]
    assert {run.id for run in results.runs} >= {"mix-l0.5-s0", "mix-l0.5-s2"}


def test_the_report_names_it_on_top_and_at_the_end(folder: Path) -> None:
    (folder / "jobs" / "mix-l0.5-s1" / "scores.json").write_text("[]")
    (folder / "jobs" / "judged-mix-l0.5-s0" / "samples.jsonl").write_bytes(b"\xff\n")
    build(folder)
    told = (folder / "report.md").read_text(encoding="utf-8")
    assert "2 with a broken record; they are listed at the end" in told
    assert "| mix-l0.5-s1 | broken | scores.json: is not a record (" in told
    assert "| judged-mix-l0.5-s0 | broken | samples.jsonl: is not UTF-8" in told


def test_links_in_a_strangers_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    """At names that anyone can foresee: the report's own, and the folder of its figures."""
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("report.html", "report.md", "report.json", "runs.parquet", "index.html", ".report.html.new"):
        (mine / name).write_text("mine")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(mine / name)
    (mine / "figures").mkdir()
    shutil.rmtree(folder / "figures", ignore_errors=True)
    (folder / "figures").symlink_to(mine / "figures")
    build(folder)
    assert {path.read_text() for path in mine.iterdir() if path.is_file()} == {"mine"}
    assert list((mine / "figures").iterdir()) == []
    assert (folder / "figures" / "tradeoff.png").stat().st_size > 1000
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
