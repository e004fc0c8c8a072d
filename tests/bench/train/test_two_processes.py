"""One training job on two processes: the same choices on both, and the single process's run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from other_methods import Mgda

from bench.methods import METHODS
from bench.records import record
from bench.suite.suite import Suite

PROGRAM = Path(__file__).parent / "two_processes.py"
ROOT = Path(__file__).resolve().parents[3]


def launch(
    suite_file: Path, folder: Path, name: str, stop_at: int = 0, method: str = "maxright"
) -> list[dict[str, Any]]:
    """Run the program under torchrun on two processes; return what either one saw."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(PROGRAM), str(suite_file), str(folder), method, name, str(stop_at)]
    done = subprocess.run(
        [*torchrun, *arguments],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes_choose_alike_and_give_the_single_processs_run(
    tiny: Callable[..., Suite], run_plan: Any, tmp_path: Path
) -> None:
    """MAXRIGHT with probes every second step, batches of 2 pairs or 4 rows shared out as 1 and 2 a process.

    Stopped at step 3 because the second process alone was asked to, then resumed from the main process's checkpoint:
    losses, probes, tokens, objective values and the adapter are those of the uninterrupted single process to 1e-4, and
    the records were written once.
    """
    settings = tiny(methods=[{"name": "maxright", "max_eval_every": 2}], lambdas=[0.99])
    runner = run_plan(settings)
    single = runner.run("maxright")
    steps = single.rows("steps")
    assert {name for row in steps for name in row["weights"]} == {"dpo", "sft"}  # else alike would say little

    suite_file, shared = tmp_path / "suite.json", tmp_path / "two"
    suite_file.write_text(settings.model_dump_json())
    for need in runner.job("maxright").needs:
        shutil.copytree(runner.context.job_folder(need), shared / "jobs" / need)
    first = launch(suite_file, shared, "first", stop_at=3)
    assert [one["backend"] for one in first] == ["gloo", "gloo"]
    assert [one["outcome"] for one in first] == ["stopped at step 3"] * 2
    second = launch(suite_file, shared, "second")
    assert [one["outcome"] for one in second] == ["complete"] * 2

    for rank in (0, 1):
        seen = [*first[rank]["seen"], *second[rank]["seen"]]
        assert [list(message["losses"]) for message in seen] == [list(row["losses"]) for row in steps]
        assert seen == [*first[0]["seen"], *second[0]["seen"]]

    double = record.Job(shared / "jobs" / single.id, single.spec)
    assert len(double.rows("steps")) == len(steps) == 6
    for one, other in zip(steps, double.rows("steps"), strict=True):
        for name in ("losses", "probes"):
            assert other.get(name) == (pytest.approx(one[name], abs=1e-4) if name in one else None)
        for name in ("step", "phase", "weights", "learning_rate", "tokens", "probe_tokens"):
            assert other[name] == one[name], name
    values = [[row[f"f_{name}/held_out"] for name in ("dpo", "sft")] for row in single.rows("trajectory")]
    other_values = [[row[f"f_{name}/held_out"] for name in ("dpo", "sft")] for row in double.rows("trajectory")]
    assert [row["step"] for row in double.rows("trajectory")] == [row["step"] for row in single.rows("trajectory")]
    assert other_values == [pytest.approx(pair, abs=1e-4) for pair in values]
    assert double.measurements["tokens"] == single.measurements["tokens"]
    assert double.measurements["reload_difference"]["value"] <= 1e-5
    assert_close_adapters(single, double)


@pytest.mark.slow
def test_two_processes_take_the_gradients_of_the_whole_batches(
    tiny: Callable[..., Suite], run_plan: Any, offer: Callable[..., None], tmp_path: Path
) -> None:
    """MGDA's weights follow from inner product and norms over both processes' rows: those of the single process."""
    offer(METHODS, "mgda", Mgda)
    settings = tiny(methods=["mgda"])
    runner = run_plan(settings)
    single = runner.run("mgda")
    suite_file, shared = tmp_path / "suite.json", tmp_path / "two"
    suite_file.write_text(settings.model_dump_json())
    for need in runner.job("mgda").needs:
        shutil.copytree(runner.context.job_folder(need), shared / "jobs" / need)
    seen = launch(suite_file, shared, "both", method="mgda")
    assert [one["outcome"] for one in seen] == ["complete"] * 2
    assert seen[0]["seen"] == seen[1]["seen"]
    double = record.Job(shared / "jobs" / single.id, single.spec)
    for one, other in zip(single.rows("steps"), double.rows("steps"), strict=True):
        assert other["gradients"]["dot"] == pytest.approx(one["gradients"]["dot"], rel=1e-3, abs=1e-5)
        for name in ("losses", "weights"):
            assert other[name] == pytest.approx(one[name], abs=1e-3)
        assert other["gradients"]["norms"] == pytest.approx(one["gradients"]["norms"], rel=1e-3)
        assert other["tokens"] == one["tokens"]


def assert_close_adapters(one: record.Job, other: record.Job) -> None:
    import torch
    from safetensors.torch import load_file

    first, second = (load_file(job.path / "adapter" / "adapter_model.safetensors") for job in (one, other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-4, rtol=0)
