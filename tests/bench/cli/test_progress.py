"""How long a run still takes, by what its jobs took so far."""

from __future__ import annotations

import pytest

from bench.cli.progress import Estimate
from bench.records.spec import Inputs, JobSpec


def job(name: str, kind: str, steps: int = 0) -> JobSpec:
    return JobSpec(name, kind, None, {}, Inputs(), {}, steps=steps)


def test_seconds_a_step_of_a_kind_times_the_steps_that_are_left() -> None:
    """Two trainings ended: 20 s for 10 steps and 20 s for 5, a mean of 3 s a step; 30 steps are left on two workers."""
    jobs = {
        one.id: one for one in (job("a", "train", 10), job("b", "train", 5), job("c", "train", 30), job("e", "lm_eval"))
    }
    estimate = Estimate(jobs, workers=2)
    assert estimate.seconds_left() is None
    for name in ("a", "b"):
        estimate.ended(jobs[name], {"outcome": "complete", "seconds": 20.0})
    assert estimate.seconds_left() == pytest.approx(3.0 * 30 / 2)
    estimate.ended(jobs["c"], {"outcome": "failed"})
    assert estimate.seconds_left() is None  # of what is left, an evaluation, none has been seen
    estimate.ended(jobs["c"], {"outcome": "complete", "seconds": 30.0})  # tried again: it is not taken off twice
    assert estimate.seconds_left() is None
