"""Made-up records of many runs are complete, and differ from run to run."""

from __future__ import annotations

from pathlib import Path

from bench.records.suite_record import find_suites
from benchmarks import records
from report.analysis.load import Results

QUICKSTART = Path(__file__).resolve().parent.parent.parent / "results" / "quickstart.bench"


def test_a_hundred_runs_are_complete_and_differ(tmp_path: Path) -> None:
    """4 methods × 5 λ × 5 seeds, with both optima of every seed and each policy's questions."""
    records.write(QUICKSTART, tmp_path / "many", 100)
    (suite,) = find_suites(tmp_path)
    found = Results(suite)
    assert len(found.runs) == 100
    assert found.problems == []
    assert {(run.method, run.lambda_dpo, run.seed) for run in found.runs} == {
        (method, lambda_dpo, seed)
        for method in ("sequential", "mix", "alright", "maxright")
        for lambda_dpo in (0.1667, 0.3333, 0.5, 0.6667, 0.8333)
        for seed in range(5)
    }
    assert len({(name, seed) for name, seed in found.optima}) == 10
    assert len({run.objective("f_dpo/held_out").value for run in found.runs}) == 100
    assert all(found.score(run.id, "world_questions/acc").value is not None for run in found.runs)
