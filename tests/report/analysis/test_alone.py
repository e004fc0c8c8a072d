"""Costs measured alone: a run's are those of its kinds of work, times how often it did each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.records import record
from bench.records.record import append_jsonl, write_json
from bench.records.suite_record import find_suites
from report.analysis.load import Results
from report.analysis.tables import Tables

SETTINGS = {"model": {}, "lora": {}, "data": {}, "reduction": "token_mean"}
# Seconds, joules, GiB and utilization of one of each kind.
WORK = {
    "dpo": (2.0, 50.0, 3.0, 90.0),
    "sft": (1.0, 20.0, 2.0, 60.0),
    "joint": (3.5, 80.0, 6.0, 95.0),
    "probe_dpo": (0.5, 10.0, 1.0, 50.0),
    "probe_sft": (0.25, 5.0, 1.0, 50.0),
}
STEPS: dict[str, list[dict[str, Any]]] = {
    # 3 on SFT, 1 on DPO
    "sequential": [{"weights": {"sft": 1.0}}] * 3 + [{"weights": {"dpo": 1.0}}],
    "mix": [{"weights": {"sft": 0.5, "dpo": 0.5}, "joint_backward": True}] * 4,
    # 4 steps, 2 on each, with both probes before the first and the third
    "maxright": [
        {"weights": {"dpo": 1.0}, "probes": {"dpo": 0.7, "sft": 3.0}},
        {"weights": {"sft": 1.0}},
    ]
    * 2,
}
HARDWARE = {"cpu": "a processor", "cores": 2, "gpus": ["a card"]}


def environment(workers: int) -> dict[str, Any]:
    return {"hardware": HARDWARE, "workers": workers, "threads": 2, "device": "cuda:0"}


def write(folder: Path, job: str, kind: str, **spec: Any) -> Path:
    path = folder / "jobs" / job
    common = {
        "schema": 1,
        "id": job,
        "kind": kind,
        "roles": [],
        "labels": {},
        "inputs": {},
        "data": {"preference": "a"},
    }
    write_json(path / "spec.json", common | spec)
    write_json(path / "status.json", {"schema": 1, "outcome": "complete"})
    return path


def cost_job(folder: Path, kinds: Any = WORK) -> None:
    settings = SETTINGS | {"training": {"learning_rate": 0.1}}
    path = write(folder, "cost-1", "cost", settings=settings, environment=environment(1))
    figures: dict[str, Any] = {}
    for kind in kinds:
        seconds, joules, gib, percent = WORK[kind]
        figures |= {
            f"step_seconds/{kind}": {"value": seconds, "unit": "s", "together": "sum"},
            f"energy_joules/{kind}": {"value": joules, "unit": "J", "together": "sum"},
            f"peak_memory_bytes/{kind}": {"value": gib, "unit": "B", "together": "max"},
            f"gpu_utilization_percent/{kind}": {"value": percent, "unit": "%", "together": "mean"},
            f"cpu_utilization_percent/{kind}": {"value": None, "unit": "%", "reason": "no way", "together": "mean"},
        }
    write_json(path / "measurements.json", figures)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Three runs of λ = 0.5 that shared the machine: each took 100 s."""
    folder = tmp_path / "s"
    for method, steps in STEPS.items():
        labels = {"method": method, "base_method": method, "lambda_dpo": 0.5, "seed": 0, "order": "sft_dpo"}
        # how often it is evaluated is no setting of a step
        settings = SETTINGS | {"training": {"learning_rate": 0.1, "evaluate_every": 7}}
        common = {"labels": labels, "roles": ["run"], "settings": settings, "environment": environment(4)}
        path = write(folder, method, "train", **common)
        append_jsonl(path / "steps.jsonl", ({"step": step, "seconds": 25.0} | row for step, row in enumerate(steps, 1)))
        units = {"training_seconds": "s", "probe_seconds": "s", "energy_joules": "J", "peak_memory_bytes": "B"}
        units |= {"gpu_utilization_percent": "%", "cpu_utilization_percent": "%", "tokens": "tokens"}
        figures = {name: {"value": 100.0, "unit": unit, "shared_machine": True} for name, unit in units.items()}
        write_json(path / "measurements.json", figures)
    jobs = [*STEPS, "cost-1"]
    info = {"schema": 1, "name": "s", "suite": {"data": {}, "objectives": {"beta": 0.1}}, "jobs": jobs}
    write_json(folder / "suite.json", info)
    return folder


def figures(folder: Path) -> tuple[Tables, dict[str, Any]]:
    tables = Tables(Results(find_suites(folder)[0]))
    return tables, {recipe.method: recipe.figures[0] for recipe in tables.recipes}


def test_a_runs_cost_is_its_work(suite: Path) -> None:
    """Sequential 3 · 1 + 2 = 5 s, 3 · 20 + 50 = 110 J, 3 GiB at most, (3 · 60 + 2 · 90) / 5 = 72 %.

    MAXRIGHT 2 · (2 + 1) s of steps and 2 · 0.75 s of probes = 7.5 s; 2 · (50 + 20 + 10 + 5) = 170 J; utilization
    (4 · 90 + 2 · 60 + 1.5 · 50) / 7.5 = 74 %. Mix 4 · 3.5 = 14 s.
    """
    cost_job(suite)
    tables, found = figures(suite)
    expected = {
        "sequential": (5.0, 0.0, 110.0, 3.0, 72.0),
        "maxright": (7.5, 1.5, 170.0, 3.0, 74.0),
        "mix": (14.0, 0.0, 320.0, 6.0, 95.0),
    }
    names = ("training_seconds", "probe_seconds", "energy_joules", "peak_memory_bytes", "gpu_utilization_percent")
    for method, values in expected.items():
        assert [found[method][name].number for name in names] == pytest.approx(values), method
        assert not found[method]["training_seconds"].shared
    # Eq. 57: 7.5 / 5 and 14 / 5; Eq. 58: 74 / 72
    assert found["maxright"]["runtime_increase_percent"].number == pytest.approx(50.0)
    assert found["mix"]["runtime_increase_percent"].number == pytest.approx(180.0)
    assert found["maxright"]["utilization_increase_percent"].number == pytest.approx(100 * (74 / 72 - 1))
    # 7.5 s over the run's 100 tokens; tokens themselves are the run's
    assert found["maxright"]["seconds_per_token"].number == pytest.approx(0.075)
    assert found["maxright"]["tokens"].number == 100.0
    assert found["mix"]["cpu_utilization_percent"].reason == "no way"
    assert tables.results.cost_source.startswith("Costs of training were measured alone by cost-1:")


def test_other_workers_of_a_run_do_not_matter_any_more(suite: Path) -> None:
    """A run made with one worker beside those of four compares: what was measured alone is the same."""
    cost_job(suite)
    path = suite / "jobs" / "mix" / "spec.json"
    write_json(path, record.read_json(path) | {"environment": environment(1)})
    tables, found = figures(suite)
    assert found["mix"]["training_seconds"].number == 14.0 and tables.comparable.warnings == ()


def test_other_programs_are_told(suite: Path) -> None:
    cost_job(suite)
    path = suite / "jobs" / "cost-1" / "measurements.json"
    given = record.read_json(path)
    given["step_seconds/sft"]["shared_machine"] = True
    write_json(path, given | {"other_cores_busy": {"value": 0.84, "unit": "cores"}})
    tables, found = figures(suite)
    assert found["sequential"]["training_seconds"].shared and not found["mix"]["training_seconds"].shared
    assert tables.results.cost_source.endswith("Other programs kept 0.8 cores busy meanwhile: compare with care.")


def spoil(suite: Path, how: str) -> str:
    """Make one run one that cannot be priced; return the reason to be given."""
    spec = suite / "jobs" / "mix" / "spec.json"
    given = record.read_json(spec)
    if how == "a recipe's own steps":
        write_json(spec, given | {"kind": "recipe", "labels": given["labels"] | {"phase_steps": {"sft": 2, "dpo": 2}}})
        return "mix takes steps of its own, not those that were measured alone"
    if how == "other settings":
        write_json(spec, given | {"settings": given["settings"] | {"lora": {"rank": 2}}})
        return "mix was trained with other settings than those measured alone"
    if how == "other data":
        write_json(spec, given | {"data": {"preference": "b"}})
        return "mix was trained with other settings than those measured alone"
    append_jsonl(
        suite / "jobs" / "mix" / "steps.jsonl", [{"step": 5, "seconds": 1.0, "weights": {"dpo": 0.5, "sft": 0.5}}]
    )
    return "mix does not tell what its steps were made of"


@pytest.mark.parametrize("how", ["a recipe's own steps", "other settings", "other data", "rows of an older version"])
def test_costs_have_one_source(suite: Path, how: str) -> None:
    """Where one run cannot be priced, all keep their own seconds, marked: two sources would not compare."""
    cost_job(suite)
    reason = spoil(suite, how)
    tables, found = figures(suite)
    assert {one["training_seconds"].number for one in found.values()} == {100.0}
    assert all(one["training_seconds"].shared for one in found.values())
    assert tables.results.cost_source == f"Costs of training are those of the runs themselves: {reason}."


def test_without_a_cost_job_or_with_a_kind_missing(suite: Path) -> None:
    tables, found = figures(suite)
    assert found["mix"]["training_seconds"].number == 100.0
    assert tables.results.cost_source.endswith(": no steps were measured alone.")
    cost_job(suite, kinds=["dpo", "sft", "joint"])
    tables, _ = figures(suite)
    assert "maxright took steps that were not measured alone: probe_dpo, probe_sft" in tables.results.cost_source
