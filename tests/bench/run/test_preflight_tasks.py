"""Tasks that lm-eval does not know are refused before anything is loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.errors import SuiteError
from bench.evaluators import lm_eval_index
from bench.run import preflight
from bench.suite.suite import Suite
from bench.suite.yaml_file import load

KNOWN: dict[str, Any] = {name: {} for name in ("hellaswag", "arc_easy", "arc_challenge", "mmlu_anatomy")}


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put an index of four names where lm-eval's own would be kept; return its folder."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lm_eval_index, "_read", lambda folder: KNOWN)
    return tmp_path / "cache"


def asking(tiny: Callable[..., Suite], *tasks: str) -> Suite:
    return tiny(evaluation={"lm_eval": {"tasks": list(tasks)}})


def test_known_tasks_pass(index: Path, tiny: Callable[..., Suite], capsys: pytest.CaptureFixture[str]) -> None:
    preflight.check(asking(tiny, "hellaswag", "mmlu", "world_questions"))
    assert "reading lm-eval's index" in capsys.readouterr().err
    preflight.check(asking(tiny, "arc_easy"))
    assert capsys.readouterr().err == ""


def test_names_that_need_no_index_do_not_read_it(index: Path, tiny: Callable[..., Suite]) -> None:
    preflight.check(asking(tiny, "mmlu", "mmlu_anatomy", "world_questions"))
    preflight.check(tiny())
    preflight.check(load("toy"))
    assert not index.exists()


@pytest.mark.usefixtures("index")
def test_an_unknown_task_names_the_nearest(tiny: Callable[..., Suite]) -> None:
    with pytest.raises(
        SuiteError, match=r"tasks: lm-eval [\d.]+ knows no task 'mmlu_anatmy'; did you mean 'mmlu_anatomy'"
    ):
        preflight.check(asking(tiny, "mmlu_anatmy"))
    with pytest.raises(SuiteError, match="knows no task 'qqq'; 'lm-eval ls tasks' lists what it knows"):
        preflight.check(asking(tiny, "qqq"))


def test_what_a_task_needs_is_looked_for_before_training(
    index: Path, tiny: Callable[..., Suite], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the tasks that may need something, and where questions are still to be asked; MMLU and the world need no more."""
    from bench.evaluators import lm_eval_tasks

    loaded: list[tuple[str, int, Path | None]] = []
    monkeypatch.setattr(lm_eval_tasks, "check_needs", lambda *arguments: loaded.append(arguments))
    suite = asking(tiny, "mmlu", "hellaswag", "world_questions")
    assert preflight.try_out(suite, {"train"}, tmp_path, None) == []
    assert loaded == []
    preflight.try_out(suite, {"lm_eval"}, tmp_path, tmp_path)
    assert loaded == [("hellaswag", 1, tmp_path)]


@pytest.mark.parametrize("command", ["validate", "run"])
def test_the_commands_refuse_it_before_anything_is_loaded(index: Path, command: str, tmp_path: Path) -> None:
    """Exit code 2, one line, no folder of results, no torch; a smoke asks other questions and is not concerned."""
    lm_eval_index.entries()
    suite = Path(__file__).parents[3] / "suites" / "quickstart.yaml"
    code = (
        "import sys; from bench.cli import main as cli\n"
        f"sys.argv = ['bench', {command!r}, {str(suite)!r}, '--set', 'evaluation.lm_eval.tasks=[hellaswga]']\n"
        "try: cli.main()\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("knows no task 'hellaswga'; did you mean 'hellaswag'?")
    assert done.stdout == "False\n"
    assert not (tmp_path / "results").exists()
