"""Public failures, rebuilt small, each with a script that says whether they are mended: skipped where they are not beside us."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MENDED = (
    *("06", "08", "09", "10", "11", "12", "14", "16", "20", "21", "22", "24", "26", "27", "29", "30", "31", "32", "34"),
    *("36", "37", "38", "39", "41", "43", "45", "46"),
)
COMMAND = """#!/bin/bash
# The command, without what only takes time here: each kind of step measured alone.
[ "$1" = run ] && exec {python} -m bench.cli "$@" --set cost=off
exec {python} -m bench.cli "$@"
"""


@pytest.fixture(scope="session")
def cases(public_cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copied") / "cases"
    shutil.copytree(public_cases, folder)
    command = folder / "bench.sh"
    command.write_text(COMMAND.format(python=sys.executable))
    command.chmod(0o755)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", MENDED)
def test_a_public_failure_stays_mended(number: str, cases: Path) -> None:
    (folder,) = cases.glob(f"{number}-*")
    environment = {**os.environ, "BENCH": str(cases / "bench.sh"), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", str(folder / "run.sh")], env=environment, capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
