"""Choice logs, counted by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bench.records.suite_record import find_suites
from report.analysis.choices import count, read
from report.analysis.load import Results
from report.render.html import _outline


def rows(*choices: str, probes: dict[int, dict[str, float]] | None = None) -> list[dict[str, Any]]:
    """Return a step log: "d" descends DPO, "s" SFT, "b" both with a quarter of the weight on DPO."""
    weights = {"d": {"dpo": 1.0}, "s": {"sft": 1.0}, "b": {"dpo": 0.25, "sft": 0.75}}
    return [
        {"weights": weights[one]} | ({"probes": probes[place]} if probes and place in probes else {})
        for place, one in enumerate(choices)
    ]


def test_shares_stretches_and_bins() -> None:
    """Three of five steps on DPO (60 %), in stretches SFT 1, DPO 2, SFT 1, DPO 1; a bin a step."""
    found = count(rows(*"sddsd"), 5, {})
    assert found is not None
    assert found.taken == {"dpo": 3, "sft": 2}
    assert found.stretches == (("SFT", 1), ("DPO", 2), ("SFT", 1), ("DPO", 1))
    assert found.bins == (0.0, 1.0, 1.0, 0.0, 1.0)
    assert found.dpo_share == 0.6
    assert found.words == "DPO in 3 of 5 steps (60 %), SFT in 2 of 5 steps (40 %): SFT ×1, DPO ×2, SFT ×1, DPO ×1."


def test_a_step_on_both_counts_for_both() -> None:
    """Mix at λ = 0.25: two steps, each a quarter DPO."""
    found = count(rows("b", "b"), 2, {})
    assert found is not None
    assert (found.taken, found.stretches, found.bins) == ({"dpo": 2, "sft": 2}, (("DPO+SFT", 2),), (0.25, 0.25))


def test_long_runs_are_put_into_two_hundred_bins() -> None:
    """400 steps by turns: bins of two steps, each half DPO; 400 stretches, of which eight are told."""
    found = count(rows(*"ds" * 200), 400, {})
    assert found is not None
    assert (len(found.bins), set(found.bins), found.changes, len(found.stretches)) == (200, {0.5}, 400, 8)
    assert "… 392 more" in found.words


def test_negative_gaps() -> None:
    """Probes 0.7 and 0.1 against f*_DPO = 0.15, 3.0 and 0.9 against f*_SFT = 0.95: two of four lie below, 50 %."""
    probes = {0: {"dpo": 0.7, "sft": 3.0}, 1: {"dpo": 0.1, "sft": 0.9}}
    found = count(rows("s", "d", probes=probes), 2, {"dpo": 0.15, "sft": 0.95})
    assert found is not None
    assert (found.probes, found.negative, found.negative_share) == ({"dpo": 2, "sft": 2}, {"dpo": 1, "sft": 1}, 0.5)
    unknown = count(rows("s", "d", probes=probes), 2, {"dpo": 0.15})
    assert unknown is not None
    assert math.isnan(unknown.negative_share)


def test_no_log_no_choices() -> None:
    assert count([], 0, {}) is None


def test_optima_come_from_the_jobs_that_the_run_names(full: Path) -> None:
    """MAXRIGHT's records probe 0.7 and 0.1 on DPO, 3.0 twice on SFT; f* on training rows is 0.15 and 0.95 in seed 0."""
    results = Results(find_suites(full)[0])
    run = next(run for run in results.runs if run.id == "maxright-l0.5-s0")
    found = read(results, run)
    assert found is not None
    assert (found.steps, found.negative_share) == (100, 0.25)


def test_outline_of_a_strip() -> None:
    """Half of the steps without DPO, then half with it alone: the line rises to the top at one half."""
    assert _outline((0.0, 1.0)) == "M0 1H0.5V0H1V1Z"
    assert _outline((0.25,)) == "M0 1H0V0.75H1V1Z"


def test_a_report_shows_them(built: Path) -> None:
    """Sequential at λ = 0.5 takes 50 steps on SFT, then 50 on DPO; every step of Mix is on both."""
    for name in ("report.html", "report.md"):
        text = (built / name).read_text(encoding="utf-8")
        assert "SFT ×50, DPO ×50." in text
        assert "DPO+SFT ×100." in text
