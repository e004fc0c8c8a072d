"""The script for Slurm, as far as it goes without Slurm: its syntax, and one node with stand-ins for Slurm's own commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.campaigns import base, signals

SCRIPT = Path(__file__).parent.parent / "docs" / "cluster" / "ray.sbatch"
BASH = shutil.which("bash") or pytest.skip("no bash here", allow_module_level=True)
# They take their own options off and run what is left here; scontrol keeps what it was told.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo node1; else echo "$@" >> "$ASKED"; fi
"""
BENCH = f"""#!/bin/bash
exec {sys.executable} -m benchmarks.command "$@"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a job of one node."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("bench", BENCH)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    path = os.pathsep.join((str(commands), str(Path(sys.executable).parent), os.environ["PATH"]))
    own = {"SLURM_JOB_NODELIST": "node1", "SLURM_JOB_ID": str(os.getpid()), "SLURM_CPUS_ON_NODE": "2"}
    home = tmp_path / "home"  # where the script leaves the token
    home.mkdir()
    return base.environment(PATH=path, HOME=str(home), ASKED=str(tmp_path / "asked"), OMP_NUM_THREADS="1", **own)


def start(slurm: dict[str, str], suite: Path, results: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BASH, str(SCRIPT), str(suite), str(results), "--only", "sft-optimum-*"],
        env=slurm,
        cwd=SCRIPT.parent.parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=base.hear_signals,
    )


def test_its_syntax_is_right_and_it_says_how_it_is_called() -> None:
    subprocess.run([BASH, "-n", str(SCRIPT)], check=True)
    done = subprocess.run([BASH, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "usage: sbatch ray.sbatch SUITE RESULTS" in done.stderr


@pytest.mark.slow
def test_a_job_that_is_warned_keeps_a_checkpoint_and_goes_back_and_ends_well_the_next_time(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    """Slurm sends USR1 to the shell alone; Ray is gone each time when the script has ended."""
    text = base.SUITE.replace("steps: 16", "steps: 800").replace("checkpoint_every: 2", "checkpoint_every: 100000")
    suite = base.write_suite(tmp_path, text.replace("evaluate_every: 4", "evaluate_every: 400"))
    process = start(slurm, suite, tmp_path / "out")
    job = signals.in_training(tmp_path / "out", process)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert (tmp_path / "home" / ".ray" / "auth_token").exists()
    assert (tmp_path / "asked").read_text().split() == ["requeue", slurm["SLURM_JOB_ID"]]
    assert list((job / "checkpoints").glob("step-*.pt"))
    process = start(slurm, suite, tmp_path / "out")
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert json.loads((job / "status.json").read_text())["outcome"] == "complete"
    port = str(20000 + os.getpid() % 20000)
    listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    assert not any(f":{port}" in line and "raylet" in line for line in listed.splitlines())
