"""`bench pack` and what the commands say of archives: last lines, exit codes, one line for each error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.records.record import write_json

ROOT = Path(__file__).parents[3]


def bench(*arguments: str | Path, folder: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Write a suite of two jobs, of which one is complete, into `results/made`."""
    folder = tmp_path / "results" / "made"
    for name in ("first", "second"):
        labels = {"method": "mix", "base_method": "mix", "lambda_dpo": 0.5, "seed": 0}
        spec = {"id": name, "kind": "train", "labels": labels, "settings": {}, "inputs": {}, "roles": []}
        write_json(folder / "jobs" / name / "spec.json", spec)
        write_json(folder / "jobs" / name / "measurements.json", {})
    write_json(folder / "jobs" / "first" / "status.json", {"schema": 1, "outcome": "complete"})
    write_json(folder / "suite.json", {"name": "made", "suite": {}, "jobs": ["first", "second"]})
    return folder.parent


def test_the_last_line_says_where_how_many_and_how_big(results: Path) -> None:
    code, out, err = bench("pack", "results/made", folder=results.parent)
    size = (results / "made.bench").stat().st_size / 1e3
    assert (code, err) == (0, "")
    assert out == f"results/made.bench: 2 jobs, {size:.1f} kB; 1 of 2 planned are not complete\n"
    code, out, _ = bench("status", "results/made.bench", folder=results.parent)
    assert code == 0
    assert out.splitlines() == [
        "results/made.bench: 2 jobs: 1 complete, 1 stopped",
        "  complete: 1 train",
        "  stopped: 1 train",
        "  stopped: second: began and did not end; bench run goes on",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["pack", "empty"],
            "empty: holds no suite (no suite.json in it or one level below, no *.bench); 'bench run' makes one",
        ),
        (["pack", "nowhere"], "nowhere: no such folder; 'bench run SUITE --results nowhere' makes one"),
        (
            ["pack", "results", "--out", "precious.bench"],
            "precious.bench: is no archive, so it is not written over; name another by --out",
        ),
        (
            ["status", "precious.bench"],
            "precious.bench: cannot be read as a .bench archive (File is not a zip file); take one that 'bench pack' wrote",
        ),
        (
            ["export", "first", "new", "--results", "made.bench"],
            "made.bench/jobs/first: the weights of this job are not here, only its records; "
            "'bench run <the file of suite made> --only first --results A_NEW_FOLDER' makes them again",
        ),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(results: Path, arguments: list[str], message: str) -> None:
    (results.parent / "precious.bench").write_text("the only copy")
    (results.parent / "empty").mkdir()
    if "export" in arguments:
        assert bench("pack", "results/made", "--out", "made.bench", folder=results.parent)[0] == 0
    code, out, err = bench(*arguments, folder=results.parent)
    assert (code, out, err) == (2, "", f"bench: {message}\n")
    assert (results.parent / "precious.bench").read_text() == "the only copy"
