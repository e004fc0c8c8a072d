"""What a job ran on: versions, commit and hardware, without a path of the machine."""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
import torch

from bench.run import environment


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository with a committed `bench/code.py`, and let the code run from there."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path.resolve() / "checkout"
    (root / "bench").mkdir(parents=True)
    (root / "bench" / "code.py").write_text("one = 1\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "one")
    monkeypatch.setattr(environment, "_CODE", root / "bench")
    return root


def test_facts_hold_what_the_record_promises() -> None:
    facts = environment.facts("cpu", 3)
    assert set(facts) == {"packages", "python", "commit", "hardware", "workers", "threads", "device", "started"}
    assert facts["packages"]["torch"] == version("torch") and facts["packages"]["numpy"] == version("numpy")
    assert facts["python"] == platform.python_version()
    assert (facts["device"], facts["workers"], facts["threads"]) == ("cpu", 3, torch.get_num_threads())
    assert datetime.fromisoformat(facts["started"]).utcoffset() == timedelta(0)


def test_hardware_is_that_of_the_machine() -> None:
    hardware = environment.hardware()
    assert hardware["cores"] == psutil.cpu_count() and hardware["memory_bytes"] == psutil.virtual_memory().total
    assert hardware["cpu"]
    assert isinstance(hardware["gpus"], list)


def test_no_path_of_the_machine_is_on_record() -> None:
    text = json.dumps(environment.facts("cpu", 1))
    assert str(Path.home()) not in text
    assert str(Path(environment.__file__).parent) not in text


def test_a_package_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package-anywhere"))
    assert environment.packages() == {"torch": version("torch")}


def test_the_commit_is_marked_when_the_code_differs(checkout: Path) -> None:
    """Code changed or added counts; a result written beside it does not."""
    head = git(checkout, "rev-parse", "HEAD")
    assert len(head) == 40
    assert environment.commit() == head
    (checkout / "results.json").write_text("{}")
    assert environment.commit() == head
    (checkout / "bench" / "new.py").write_text("two = 2\n")
    assert environment.commit() == head + "+changes"
    (checkout / "bench" / "new.py").unlink()
    (checkout / "bench" / "code.py").write_text("one = 2\n")
    assert environment.commit() == head + "+changes"


def test_a_hooks_variables_do_not_name_another_repository(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(checkout / "absent"))
    assert environment.commit() is not None


def test_somebody_elses_repository_around_an_installed_package_is_not_ours(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = checkout / ".venv" / "site-packages" / "bench"
    installed.mkdir(parents=True)
    monkeypatch.setattr(environment, "_CODE", installed)
    assert environment.commit() is None


def test_no_repository_and_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_CODE", tmp_path)
    assert environment.commit() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.commit() is None
