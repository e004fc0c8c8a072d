"""How long a run still takes: hand-made plans of known durations, with a clock that is told."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import loading
from bench.plan import planner, priority, schedule
from bench.plan.plan import Plan
from bench.records.spec import NETWORK_ONLY, Inputs, JobSpec, Resources
from bench.run.estimates.durations import Durations, Took, Work
from bench.run.estimates.time_left import TimeLeft


def job(name: str, kind: str, *needs: str, steps: int = 0, **more: Any) -> JobSpec:
    return JobSpec(name, kind, None, {"work": kind}, Inputs(front=needs), {}, steps=steps, **more)


def plan(tiny: Any, *jobs: JobSpec) -> Plan:
    made = Plan(tiny())
    for one in jobs:
        made.add(one)
    return made


def done(seconds: float, **more: Any) -> dict[str, Any]:
    return {"outcome": "complete", "seconds": seconds, **more}


class Clock:
    """A clock that is told the time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# ---- the walk ------------------------------------------------------------------------------------------------------------


def test_a_chain_takes_its_sum_and_others_go_beside_it(tiny: Any) -> None:
    """a 10 → b 20, c 5 and d 5 beside them on the second place: c ends at 5, d at 10, a at 10, b at 30."""
    made = plan(tiny, job("a", "x"), job("b", "x", "a"), job("c", "x"), job("d", "x"))
    found = schedule.simulate(made.jobs, ["a", "b", "c", "d"], {"a": 10.0, "b": 20.0, "c": 5.0, "d": 5.0}, 2)
    assert found == {"c": 5.0, "a": 10.0, "d": 10.0, "b": 30.0}


def test_what_only_waits_for_a_network_holds_no_place_and_one_goes_at_a_time(tiny: Any) -> None:
    made = plan(tiny, job("a", "x"), *(job(one, "judge", resources=NETWORK_ONLY) for one in "jk"))
    assert schedule.simulate(made.jobs, ["a", "j", "k"], {"a": 10.0, "j": 4.0, "k": 3.0}, 1) == {
        "j": 4.0,
        "k": 7.0,
        "a": 10.0,
    }


def test_what_runs_alone_waits_for_all_and_what_needs_two_devices_is_not_overtaken(tiny: Any) -> None:
    """a holds one of two places to 5; two needs both, so c waits behind it: two 5 to 8, c 8 to 9, then cost alone to 11."""
    made = plan(
        tiny, job("a", "x"), job("two", "x", resources=Resources(devices=2)), job("c", "x"), job("cost", "cost")
    )
    seconds = {"two": 3.0, "c": 1.0, "cost": 2.0}
    found = schedule.simulate(made.jobs, ["a", "two", "c", "cost"], seconds, 2, {"a": 5.0})
    assert found == {"a": 5.0, "two": 8.0, "c": 9.0, "cost": 11.0}


# ---- what a job takes ----------------------------------------------------------------------------------------------------


def test_seconds_of_a_method_go_by_its_size_and_of_another_by_steps_and_tokens() -> None:
    """2 s a hundred steps and 1 s a thousand tokens: 100 steps × 1,000 take 3 s, × 2,000 4 s; another method's × 3,000 5 s."""
    known = Durations([Took(Work("train", "sft", 100, 1_000), 3.0), Took(Work("train", "dpo", 100, 2_000), 4.0)])
    assert known.guess(Work("train", "sft", 1_000, 10_000)).seconds == pytest.approx(30.0)  # type: ignore[union-attr]
    assert known.guess(Work("train", "mix", 100, 3_000)).seconds == pytest.approx(5.0)  # type: ignore[union-attr]
    assert known.guess(Work("lm_eval")) is None


def test_the_first_of_a_kind_on_a_worker_is_a_bound_until_another_is_seen() -> None:
    known = Durations([Took(Work("lm_eval"), 3.0, first=True)])
    assert (guess := known.guess(Work("lm_eval"))) and not guess.sure
    known.add(Took(Work("lm_eval"), 0.2))
    assert (guess := known.guess(Work("lm_eval"))) and guess.sure and guess.seconds == 0.2
    known = Durations([Took(Work("lm_eval"), 600.0, first=True)])  # loading is a small part of ten minutes
    assert (guess := known.guess(Work("lm_eval"))) and guess.sure


# ---- a run ---------------------------------------------------------------------------------------------------------------


def test_nothing_is_said_until_what_carries_most_is_known(tiny: Any) -> None:
    clock = Clock()
    made = plan(tiny, *(job(f"a{one}", "a", steps=10) for one in range(4)), job("b", "b"))
    left = TimeLeft(made, made.jobs, 1, clock=clock)
    assert left.seconds() is None
    left.started(made.jobs["b"])
    clock.now = 5.0
    left.ended(made.jobs["b"], done(5.0))
    assert left.seconds() is None  # the trainings carry most
    left.started(made.jobs["a0"])
    clock.now = 15.0
    left.ended(made.jobs["a0"], done(10.0))
    assert left.seconds() == pytest.approx(30.0)


def test_a_job_at_work_tells_its_pace_by_its_steps(tiny: Any) -> None:
    """Step 10 at 30 s after a slow start, step 20 at 60 s: 3 s a step, 80 of 100 left, then another run of 50 steps."""
    clock = Clock()
    made = plan(tiny, job("a", "toy_like", steps=100), job("b", "toy_like", steps=50))
    left = TimeLeft(made, made.jobs, 1, clock=clock)
    left.started(made.jobs["a"])
    clock.now = 30.0
    left.progress(made.jobs["a"], {"step": 10, "steps": 100})
    assert left.seconds() is None
    clock.now = 60.0
    left.progress(made.jobs["a"], {"step": 20, "steps": 100})
    assert left.seconds() == pytest.approx(80 * 3.0 + 50 * 3.0)


def test_what_needs_a_failed_job_is_no_longer_waited_for(tiny: Any) -> None:
    clock = Clock()
    made = plan(tiny, job("a", "a"), job("b", "a"), job("c", "a", "b"), job("d", "a", "c"), job("e", "a"))
    left = TimeLeft(made, made.jobs, 1, clock=clock)
    left.ended(made.jobs["a"], done(7.0))
    assert left.seconds() == pytest.approx(28.0)
    clock.now = 1e6
    left.ended(made.jobs["b"], {"outcome": "failed", "seconds": 1.0})
    assert left.seconds() == pytest.approx(7.0)


def test_a_machine_that_became_slower_is_so_for_all_kinds() -> None:
    """b took 1 s; one of a takes twice what was guessed, so b is believed to take 2^0.2 s; a hundred times says no more."""
    one, other = Work("a"), Work("b")
    durations = Durations([Took(one, 3.0), Took(other, 1.0)])
    durations.add(Took(one, 6.0))
    found = durations.guess(other)
    assert found is not None and found.seconds == pytest.approx(2**0.2)
    durations = Durations([Took(one, 3.0), Took(other, 1.0)])
    durations.add(Took(one, 3000.0))
    assert durations.guess(other) == found


def test_the_start_of_a_kind_says_nothing_of_the_machine() -> None:
    """The first job of a kind on a worker loads and compiles: 20 s instead of 3 s do not make the others slower."""
    one, other = Work("a"), Work("b")
    durations = Durations([Took(one, 3.0), Took(other, 1.0)])
    durations.add(Took(one, 20.0, first=True))
    found = durations.guess(other)
    assert found is not None and found.seconds == 1.0


def truths(
    made: Plan,
    seconds: dict[str, float],
    places: int,
    marks: list[float],
    slower: Callable[[float], float] = lambda now: 1.0,
) -> list[tuple[float, float | None]]:
    """Walk a plan of known seconds, the first of a kind on a place takes some more; at each mark say truth and estimate.

    Args:
        slower: how many times longer a job takes that begins then.
    """
    order = priority.order(made, places)
    clock, pending = Clock(), dict.fromkeys(order)
    running: list[Any] = []
    left = TimeLeft(made, made.jobs, places, clock=clock)
    kinds: list[set[str]] = [set() for _ in range(places)]
    free = list(range(places))
    events: list[tuple[float, float | None]] = []
    while pending or running:
        at_work = {one for _, one, _, _ in running}
        for one in [one for one in order if one in pending]:
            if free and not any(need in pending or need in at_work for need in made.jobs[one].needs):
                place, kind = free.pop(0), made.jobs[one].kind
                first = kind not in kinds[place]
                kinds[place].add(kind)
                took = (seconds[one] + (2.0 if first else 0.0)) * slower(clock.now)
                heapq.heappush(running, (clock.now + took, one, place, (took, first)))
                del pending[one]
                at_work.add(one)
                left.started(made.jobs[one])
        clock.now, one, place, (took, first) = heapq.heappop(running)
        free.append(place)
        left.ended(made.jobs[one], done(took, **({"first_of_kind": True} if first else {})))
        left._next = 0.0  # as long as the clock stands still no look ahead may be left out
        events.append((clock.now, left.seconds()))
    end = clock.now
    found = []
    for mark in marks:
        at, said = next((at, said) for at, said in events if at >= mark * end)
        found.append((end - at, said))
    return found


@pytest.mark.parametrize(("places", "marks"), [(1, [0.25, 0.5, 0.75]), (2, [0.25, 0.5, 0.75]), (4, [0.5, 0.75])])
def test_of_a_whole_suite_it_holds_once_it_is_said(tiny: Any, places: int, marks: list[float]) -> None:
    """Steps and tokens decide what a training takes, an evaluation 0.3 s; the first of a kind on a worker takes 2 s more.

    The more workers, the more evaluations are each the first on its own, and the later it is known.
    """
    made = planner.make(
        tiny(
            methods=["sequential", "mix", "alright", "maxright"],
            lambdas=[0.25, 0.5, 0.75],
            seeds=[0, 1, 2],
            cost="off",
            evaluation={"base_kl": {}},
        )
    )
    most = max(one.tokens for one in made.jobs.values())
    seconds = {
        one: 2.0 * spec.steps_to_run / max(1, spec.steps)
        + 4.0 * spec.tokens * spec.steps_to_run / max(1, spec.steps) / most
        if spec.steps
        else 0.3
        for one, spec in made.jobs.items()
    }
    for truth, said in truths(made, seconds, places, marks):
        assert said is not None
        assert abs(said - truth) <= 0.3 * truth, (said, truth)


@pytest.mark.parametrize(("places", "marks"), [(1, [0.25, 0.5, 0.75]), (2, [0.5, 0.75])])
def test_it_holds_for_the_seconds_that_a_real_run_took(places: int, marks: list[float]) -> None:
    """Seconds of every job of a finished quickstart on two workers; a quarter of it is pre-training and the first optimum."""
    made = loading.planned("quickstart", None, None, smoke=False)
    took = json.loads(Path(__file__).with_name("quickstart_seconds.json").read_text())
    seconds = {one: took[one.rsplit("-", 1)[0]] for one in made.jobs}
    for truth, said in truths(made, seconds, places, marks):
        assert said is not None
        assert abs(said - truth) <= 0.3 * truth, (said, truth)


def test_a_load_that_doubles_in_the_middle_is_followed() -> None:
    """The same seconds on one worker, twice as long from 30 % of the work on: within 30 %, where it was up to 53 % off."""
    made = loading.planned("quickstart", None, None, smoke=False)
    took = json.loads(Path(__file__).with_name("quickstart_seconds.json").read_text())
    seconds = {one: took[one.rsplit("-", 1)[0]] for one in made.jobs}
    whole = sum(seconds.values())
    for truth, said in truths(made, seconds, 1, [0.4, 0.5, 0.6, 0.75], lambda now: 2.0 if now > 0.3 * whole else 1.0):
        assert said is not None
        assert abs(said - truth) <= 0.3 * truth, (said, truth)
