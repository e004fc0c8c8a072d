"""A side takes turns in a process of its own, and a failure in it is one line here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rows import Context, RowFailed
from benchmarks.sides import Side, call, variables


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(True, tmp_path, tmp_path, False, 1, lambda text: None)


@pytest.fixture(autouse=True)
def _importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module with functions for sides where a fresh process finds it."""
    (tmp_path / "echo_side.py").write_text(
        "import os\n"
        "def count(turns, start):\n"
        "    turns.ready({'pid': os.getpid(), 'threads': os.environ['OMP_NUM_THREADS']})\n"
        "    for number in range(start, start + 2):\n"
        "        turns.wait()\n"
        "        turns.done({'number': number})\n"
        "def add(turns, one, other):\n"
        "    print('to the log')\n"
        "    return {'sum': one + other}\n"
        "def fail(turns):\n"
        "    raise ValueError('4 pairs wanted; 3 fit')\n"
        "def die(turns):\n"
        "    os._exit(9)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_side_takes_turns_in_a_process_of_its_own(context: Context) -> None:
    with Side(context, "echo_side:count", start=5) as side:
        facts = side.ready()
        assert facts["pid"] != os.getpid()
        assert facts["threads"] == "1"
        assert [side.turn()["number"], side.turn()["number"]] == [5, 6]
        with pytest.raises(RowFailed, match="too few steps"):
            side.turn()


def test_a_call_returns_what_the_function_returns_and_logs_what_it_prints(context: Context) -> None:
    assert call(context, "echo_side:add", one=2, other=3) == {"sum": 5}
    assert (context.work / "logs" / "echo_side.add.txt").read_text(encoding="utf-8") == "to the log\n"


@pytest.mark.parametrize(
    ("function", "message"),
    [("fail", "echo_side:fail: ValueError: 4 pairs wanted; 3 fit"), ("die", r"died \(exit code 9\)")],
)
def test_what_goes_wrong_in_a_side_is_one_line(context: Context, function: str, message: str) -> None:
    with pytest.raises(RowFailed, match=message):
        call(context, f"echo_side:{function}")


def test_a_side_that_is_not_asked_ends(context: Context) -> None:
    with Side(context, "echo_side:count", start=0) as side:
        side.ready()
    process: Any = side._process
    assert process.exitcode is not None


def test_a_side_sees_no_gpu_or_the_first_one(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL would spread a model over all that it sees."""
    on_card = replace(context, device="cuda:0")
    for visible, first in ((None, "0"), ("3,1", "3"), ("GPU-aa,GPU-bb", "GPU-aa")):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert variables(context)["CUDA_VISIBLE_DEVICES"] == ""
        assert variables(on_card)["CUDA_VISIBLE_DEVICES"] == first
