"""A run's progress in plain lines: one an event, with the time left once it is known."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from bench.cli.progress import Progress, duration
from bench.plan.plan import Plan
from bench.records.spec import Inputs, JobSpec
from bench.run.estimates.time_left import TimeLeft


def test_an_event_is_a_line_and_the_time_left_is_said_once_it_is_known(tiny) -> None:  # type: ignore[no-untyped-def]
    made = Plan(tiny())
    for name, kind in (("a", "x"), ("b", "x"), ("c", "x")):
        made.add(JobSpec(name, kind, None, {}, Inputs(), {}))
    out = StringIO()
    clock = [0.0]
    console = Console(file=out, width=200)
    with Progress(3, TimeLeft(made, made.jobs, 1, clock=lambda: clock[0]), console) as progress:
        progress.started(made.jobs["a"])
        progress.ended(made.jobs["a"], {"outcome": "complete", "seconds": 60.0, "first_of_kind": False})
        clock[0] = 1e6
        progress.started(made.jobs["b"])
        progress.ended(made.jobs["b"], {"outcome": "failed", "seconds": 2.0, "message": "it broke"})
        progress.ended(made.jobs["c"], {"outcome": "complete", "seconds": 60.0})
    assert out.getvalue().splitlines() == [
        "[1/3] a: complete in 60.0 s (about 2 min 0 s left)",
        "[2/3] b: failed in 2.0 s: it broke (about 1 min 0 s left)",
        "[3/3] c: complete in 60.0 s",
    ]


def test_of_several_suites_the_time_left_is_of_one(tiny) -> None:  # type: ignore[no-untyped-def]
    made = Plan(tiny())
    for name in ("a", "b"):
        made.add(JobSpec(name, "x", None, {}, Inputs(), {}))
    out = StringIO()
    left = TimeLeft(made, made.jobs, 1)
    with Progress(2, left, Console(file=out, width=200), " of suite 2 of 3") as progress:
        progress.ended(made.jobs["a"], {"outcome": "complete", "seconds": 60.0, "first_of_kind": False})
    assert out.getvalue() == "[1/2] a: complete in 60.0 s (about 1 min 0 s left of suite 2 of 3)\n"


def test_nothing_known_is_said_so(tiny) -> None:  # type: ignore[no-untyped-def]
    made = Plan(tiny())
    for name, kind in (("a", "x"), ("b", "y"), ("c", "y"), ("d", "y")):
        made.add(JobSpec(name, kind, None, {}, Inputs(), {}))
    out = StringIO()
    with Progress(4, TimeLeft(made, made.jobs, 1), Console(file=out, width=200)) as progress:
        progress.ended(made.jobs["a"], {"outcome": "complete", "seconds": 1.0})
    assert out.getvalue() == "[1/4] a: complete in 1.0 s (time left: not known yet)\n"


def test_a_length_of_time_has_two_units_at_most() -> None:
    assert [duration(one) for one in (3.4, 67, 3_661)] == ["3 s", "1 min 7 s", "1 h 1 min"]
