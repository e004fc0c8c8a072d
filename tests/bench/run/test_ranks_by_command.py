"""Several devices by the command itself: a rank that is killed, ranks on a node of a Ray cluster, costs measured on ranks."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bench.collectors import nvml
from bench.plan import planner
from bench.records import record
from bench.run import handlers
from bench.suite import yaml_file
from bench.suite.suite import Suite
from benchmarks.campaigns import base, cluster_kills
from benchmarks.campaigns.cluster import Cluster

SHORT = cluster_kills.ON_RANKS.replace("steps: 160", "steps: 20")


def run_id(results: Path, start: str) -> str:
    (found,) = (results / "small" / "jobs").glob(f"{start}*")
    return found.name


@pytest.mark.slow
def test_a_run_whose_rank_is_killed_ends_with_0_and_says_so(tmp_path: Path) -> None:
    suite, results = base.write_suite(tmp_path, cluster_kills.ON_RANKS), tmp_path / "out"
    process = base.start("run", str(suite), "--results", str(results), "--threads", "2", "--only", "sft-optimum-*")
    steps = "small/jobs/sft-optimum-*/steps.jsonl"
    while process.poll() is None and not any(one.read_bytes().count(b"\n") > 12 for one in results.glob(steps)):
        time.sleep(0.02)
    killed = cluster_kills.ranks_of(process.pid)
    assert len(killed) == 2
    os.kill(killed[1], signal.SIGKILL)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    name = run_id(results, "sft-optimum")
    last = record.read_json(results / "small" / "last_run.json")
    assert (last["exit_code"], last["retried"], last["failed"]) == (0, {name: 1}, {})
    status = record.read_json(results / "small" / "jobs" / name / "status.json")
    (attempt,) = status["attempts"]
    assert attempt["error"] == "RankDied" and "of 2 ended before its work was done" in attempt["message"]
    (went_on,) = status["resumed"]
    assert went_on["bit_equal"] and went_on["step"] >= 10
    assert cluster_kills.ranks_of(os.getpid()) == []


@pytest.mark.slow
def test_ranks_on_a_node_of_two_devices_leave_the_records_of_local_ones(tmp_path: Path) -> None:
    """One node that declares two GPUs; a job takes both, as a local worker of two threads takes two ranks."""
    if nvml.uuids():
        pytest.skip("the GPUs that the node declares would be taken for this machine's")
    suite = base.write_suite(tmp_path, SHORT)
    arguments = ("run", str(suite), "--only", "mix-*", "--results")
    code, said = base.call(*arguments, str(tmp_path / "local"), "--threads", "2")
    assert code == 0, said
    with Cluster(nodes=1) as cluster:
        code, said = base.call(*arguments, str(tmp_path / "ray"), "--threads", "1", "--engine", cluster.engine)
    assert code == 0, said
    name = run_id(tmp_path / "ray", "mix")
    spec = record.read_json(tmp_path / "ray" / "small" / "jobs" / name / "spec.json")
    assert spec["environment"]["devices"] == 2
    assert base.difference(base.contents(tmp_path / "local" / "small"), base.contents(tmp_path / "ray" / "small")) == ""


@pytest.mark.slow
def test_costs_are_measured_on_as_many_devices_as_runs_train_on(
    tmp_path: Path, run_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Costs are of models that lie in files, so the built-in random model is put into some; a block is two steps, not seconds."""
    monkeypatch.setattr(planner, "REPEATS", {"rounds": 2, "steps": 4, "seconds": 0.0, "warm_up_steps": 1})
    model = write_model(tmp_path / "model")
    text = SHORT.replace("{source: random}", f"{{source: local, path: {json.dumps(str(model))}}}")
    loaded = yaml_file.load(str(base.write_suite(tmp_path, text)))
    assert isinstance(loaded, Suite)
    runner = run_plan(loaded)
    job = runner.job("cost")
    assert job.resources.devices == 2
    status = handlers.run(job, runner.context)
    assert status["outcome"] == record.COMPLETE, status
    made = record.read_job(runner.context.job_folder(job.id))
    assert made.spec["environment"]["devices"] == 2
    for work in job.settings["work"]:
        assert made.measurements[f"step_seconds/{work}"]["value"] > 0
        assert made.measurements[f"step_seconds/{work}"]["steps"] == 4
        assert made.measurements[f"step_tokens/{work}"]["value"] > 0
    assert cluster_kills.ranks_of(os.getpid()) == []


def write_model(folder: Path) -> Path:
    """Save the built-in random model and its tokenizer as transformers does."""
    import torch

    from bench.models import policy
    from bench.settings import Model

    made = policy.load(Model(source="random"), torch.device("cpu"), None)
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return folder
