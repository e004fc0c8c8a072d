"""How often intervals hold the truth, and how often `bench compare` is right: the simulations of intervals.py."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from benchmarks.rows import Context, Row, Stated
from benchmarks.sides import Turns, call


def rows(context: Context) -> Iterator[Row]:
    """Turn the simulations' figures into rows; they judge their goals themselves."""
    if find_spec("benchmarks.intervals") is None:
        context.say("no intervals.py here")
        return
    context.say("simulating")
    for one in call(context, "benchmarks.coverage:simulate", quick=context.quick)["rows"]:
        goal = None if "no goal" in one["goal"] else Stated(one["goal"], one["holds"])
        yield Row(one["name"], one["note"], [one["value"]], unit="%", goal=goal)


def simulate(turns: Turns, quick: bool) -> dict[str, Any]:
    """Run all simulations."""
    del turns
    return {"rows": importlib.import_module("benchmarks.intervals").measure(quick)}
