"""`bench status --watch`: what runs, what waits for what, what failed and what that blocks; its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.cli import watch
from bench.errors import InputError
from bench.records import record
from bench.run import live

JOBS = ["a", "b", "c", "d", "e", "f"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A suite of six jobs, none of which has begun."""
    (tmp_path / "one" / "jobs").mkdir(parents=True)
    record.write_json(
        tmp_path / "one" / "suite.json", {"schema": 1, "name": "one", "smoke": False, "suite": {}, "jobs": JOBS}
    )
    return tmp_path / "one"


def status(folder: Path, job: str, outcome: str, **more: Any) -> None:
    record.write_json(folder / "jobs" / job / "status.json", {"schema": 1, "outcome": outcome, **more})


def states(folder: Path) -> dict[str, tuple[str, str]]:
    (seen,) = watch.Watcher(folder.parent).look()
    return {job: (one.name, one.detail) for job, one in seen.jobs.items()}


def at_work(folder: Path, waiting: dict[str, str], blocked: dict[str, str], *running: str, last: bool = False) -> None:
    told = live.Live(folder)
    told.begin()
    for job in running:
        told.started(job)
    told.write(waiting, blocked, last=last)


def test_each_state_is_told_apart_with_what_it_waits_for(folder: Path) -> None:
    status(folder, "a", "complete", seconds=1.25)
    status(folder, "b", "failed", message="no such column")
    told = live.Live(folder)
    told.begin()
    told.started("c")
    told.progress("c", {"step": 3, "steps": 10, "losses": {"sft": 2.5}})
    told.write({"d": "c", "e": live.A_PLACE}, {"f": "b"})
    assert states(folder) == {
        "a": ("complete", "in 1.2 s"),
        "b": ("failed", "no such column"),
        "c": ("running", "step 3/10  f_sft 2.500"),
        "d": ("to do", "waits for c"),
        "e": ("to do", "waits for a free worker"),
        "f": ("blocked", "needs b, which failed"),
    }
    (seen,) = watch.Watcher(folder).look()
    assert str(seen) == f"{folder}: 6 jobs: 1 complete, 1 running, 1 failed, 1 blocked, 2 to do"


@pytest.mark.parametrize("how", ["ended", "killed", "another process"])
def test_of_a_run_that_is_gone_nothing_runs(folder: Path, how: str) -> None:
    """A process number that was given again began at another time. What a failed job blocks stays blocked."""
    status(folder, "b", "failed", message="it broke")
    status(folder, "c", "stopped", message="at step 3")
    at_work(folder, {"d": "e"}, {"f": "b"}, "c", "e", last=how == "ended")
    if how != "ended":
        value = json.loads((folder / live.FILE).read_text())
        value |= {"process": 2**22 + 1} if how == "killed" else {"process_started": value["process_started"] - 60.0}
        (folder / live.FILE).write_text(json.dumps(value))
    found = states(folder)
    assert found["c"] == ("stopped", "at step 3")
    assert found["d"] == ("to do", "waits for bench run" if how == "ended" else "waits for e, and bench run")
    killed = ("stopped", "its run was killed: started; bench run goes on")
    assert found["e"] == (("to do", "waits for bench run") if how == "ended" else killed)
    assert found["f"] == ("blocked", "needs b, which failed")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"running": 3}', '{"ended": false}', "\x00"])
def test_a_file_of_another_form_is_as_none(folder: Path, text: str) -> None:
    (folder / live.FILE).write_text(text)
    assert set(states(folder).values()) == {("to do", "waits for bench run")}


def test_a_run_of_another_machine_is_believed_and_told_of(folder: Path) -> None:
    at_work(folder, {}, {}, "a")
    value = json.loads((folder / live.FILE).read_text())
    (folder / live.FILE).write_text(json.dumps(value | {"host": "node7"}))
    (seen,) = watch.Watcher(folder).look()
    assert seen.jobs["a"].name == "running"
    assert str(seen).endswith(f"1 running, 5 to do (on node7, as of {value['time']})")


def watched(folder: Path, steps: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Watch, with something happening between two looks; after the last, Ctrl-C."""
    left = list(steps)

    def sleep(_: float) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    monkeypatch.setattr(watch.time, "sleep", sleep)
    out = StringIO()
    watch.watch(folder.parent, Console(file=out, width=200))
    assert not left
    return [line.split(" ", 1)[1] if line[:1].isdigit() else line for line in out.getvalue().splitlines()]


def test_elsewhere_than_on_a_terminal_an_event_is_a_line_and_it_ends_by_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in JOBS[2:]:
        status(folder, job, "complete")
    lines = watched(
        folder,
        [
            lambda: at_work(folder, {"b": "a"}, {}, "a"),
            lambda: None,
            lambda: (status(folder, "a", "complete", seconds=2.0), at_work(folder, {}, {}, "b"))[1],
            lambda: (status(folder, "b", "complete", seconds=1.0), at_work(folder, {}, {}, last=True))[1],
        ],
        monkeypatch,
    )
    assert lines == [
        f"{folder}: 6 jobs: 4 complete, 2 to do",
        "one: a: running: started",
        "one: a: complete in 2.0 s",
        "one: b: running: started",
        "one: b: complete in 1.0 s",
        f"{folder}: 6 jobs: 6 complete",
    ]


def test_ctrl_c_ends_it_well_and_a_suite_that_joins_is_told_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def joins() -> None:
        (folder.parent / "two").mkdir()
        info = record.read_json(folder / "suite.json")
        record.write_json(folder.parent / "two" / "suite.json", {**info, "name": "two", "jobs": ["x"]})

    lines = watched(folder, [joins, lambda: status(folder, "a", "failed", message="it broke")], monkeypatch)
    assert lines[1:] == [f"{folder.parent / 'two'}: 1 job: 1 to do", "one: a: failed: it broke"]


def test_on_a_terminal_it_is_drawn_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = iter([0, 1])

    def sleep(_: float) -> None:
        for job in JOBS if next(looked) else JOBS[:2]:
            status(folder, job, "complete")

    monkeypatch.setattr(watch.time, "sleep", sleep)
    out = StringIO()
    watch.watch(folder.parent, Console(file=out, width=200, height=50, force_terminal=True))
    for told in ("6 jobs: 6 to do", "2 complete, 4 to do", "6 jobs: 6 complete", "f  waits for bench run"):
        assert told in out.getvalue()


def test_what_cannot_be_watched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no suite"):
        watch.watch(tmp_path, Console(file=StringIO()))


def test_a_run_that_cannot_write_it_goes_on(folder: Path) -> None:
    """The file's place is taken by a folder: nothing is shown, nothing is left over."""
    (folder / live.FILE / "full").mkdir(parents=True)
    at_work(folder, {}, {}, "a")
    assert not live.read(folder).alive
    assert sorted(path.name for path in folder.iterdir()) == [live.FILE, "jobs", "suite.json"]
