"""From what a user names to a suite and its plan: options, errors that say where a key stands, and doubts on stderr."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import InputError, one_line

if TYPE_CHECKING:
    from bench.plan.plan import Plan
    from bench.suite.suite import Experiment


def planned(suite: str, overrides: list[str] | None, mirror: Path | None, smoke: bool) -> Plan:
    """Return the plan of a suite by its name or file."""
    from bench.plan import planner

    loaded = load(suite, overrides, mirror, smoke)
    with located(suite, overrides, smoke):
        return planner.make(loaded, mirror.resolve() if mirror else None)


def load(suite: str, overrides: list[str] | None, mirror: Path | None, smoke: bool) -> Experiment:
    """Return a suite by its name or file."""
    from bench.suite import yaml_file

    if mirror is not None and not mirror.is_dir():
        raise InputError(f"--mirror {mirror}: no such folder; it must hold datasets/ORG/NAME")
    loaded = yaml_file.load(suite, overrides or [])
    if smoke:
        from bench.suite.smoke import shrink

        loaded = shrink(loaded)
    return loaded


def located(suite: str, overrides: list[str] | None, smoke: bool = False) -> AbstractContextManager[None]:
    """Say where the key stands that an error begins with; a smoke has values of its own."""
    from bench.suite import yaml_file

    return nullcontext() if smoke else yaml_file.located(suite, overrides or [])


def warn(suite: Experiment) -> None:
    """Print what is doubtful about a suite's evaluations."""
    from bench.run import preflight

    for line in preflight.warnings(suite):
        print(f"bench: warning: {one_line(line)}", file=sys.stderr)
