"""The runner: a group that fails is told with its reason, the others go on, and one group leaves the rest as it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import __main__ as runner
from benchmarks.rows import Context, Row, RowFailed


def module(name: str, *rows: Row, error: Exception | None = None) -> ModuleType:
    def made(context: Context) -> Iterator[Row]:
        yield from rows
        if error:
            raise error

    found: Any = ModuleType(f"benchmarks.{name}")
    found.rows = made
    return found


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups: one works, one yields a row and fails."""
    works = module("works", Row("a step", "TRL", [2.0]))
    breaks = module("breaks", Row("before", "", [1.0]), error=RowFailed("its process died\nwith more lines"))
    monkeypatch.setitem(sys.modules, "benchmarks.works", works)
    monkeypatch.setitem(sys.modules, "benchmarks.breaks", breaks)
    monkeypatch.setattr(runner, "GROUPS", {"breaks": "It breaks.", "works": "It works."})


def run(out: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = runner.main([*arguments, "--out", str(out), "--work", str(out / "work")])
    return code, json.loads((out / "results.json").read_text(encoding="utf-8"))["groups"]


@pytest.mark.usefixtures("groups")
def test_a_group_that_fails_keeps_its_rows_and_stops_no_other(tmp_path: Path) -> None:
    code, told = run(tmp_path)
    assert code == 1
    assert told["breaks"]["failed"] == "RowFailed: its process died"
    assert [row["work"] for row in told["breaks"]["rows"]] == ["before"]
    assert told["works"]["failed"] is None


@pytest.mark.usefixtures("groups")
def test_one_group_alone_leaves_the_others_results(tmp_path: Path) -> None:
    run(tmp_path)
    code, told = run(tmp_path, "--only", "works", "--quick")
    assert code == 0
    assert list(told) == ["breaks", "works"]
    assert (told["breaks"]["quick"], told["works"]["quick"]) == (False, True)
    assert told["works"]["command"] == "make bench QUICK=1"


@pytest.mark.usefixtures("groups")
def test_quick_leaves_out_what_short_rows_say_little_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "NEVER_QUICK", ("breaks",))
    code, told = run(tmp_path, "--quick")
    assert (code, list(told)) == (0, ["works"])
    _, told = run(tmp_path, "--quick", "--only", "breaks")
    assert (told["breaks"]["quick"], told["breaks"]["command"]) == (False, "make bench")


@pytest.mark.usefixtures("groups")
def test_an_unknown_group_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(tmp_path, "--only", "trainign")
    assert end.value.code == 2
    assert "invalid choice: 'trainign'" in capsys.readouterr().err
