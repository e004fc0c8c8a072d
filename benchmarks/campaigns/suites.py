"""Damaged suites: each is refused in one line with the exit code 2, or is legal; none hangs, none is an internal error.

python -m benchmarks --only suites
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.campaigns.mutations import KINDS, ROOT, Mutation, illegal, mutations
from benchmarks.rows import Context, Row, Stated

COUNT, QUICK = 1500, 100
BY_COMMAND, QUICK_BY_COMMAND = 40, 4
SECONDS = 20.0
COMMANDS = ("validate", "plan")
HUNG = -1

Outcome = tuple[int, str]
"""An exit code, or `HUNG`, and what stood on stderr."""


def rows(context: Context) -> Iterator[Row]:
    """Try `validate` and `plan` on every mutation, and a sample by the command itself."""
    drawn = mutations(QUICK if context.quick else COUNT)
    folder = context.folder("suites")
    tried = dict.fromkeys(KINDS, 0)
    wrong: dict[str, list[str]] = {kind: [] for kind in KINDS}
    slowest = 0.0
    with Worker() as worker:
        for number, mutation in enumerate(drawn):
            if number % 100 == 0:
                context.say(f"{number} of {len(drawn)} damaged suites")
            path = folder / "x.yaml"
            path.write_bytes(mutation.content)
            started = time.monotonic()
            told = [fault(command, worker.run(arguments(command, path, mutation)), mutation) for command in COMMANDS]
            slowest = max(slowest, time.monotonic() - started)
            tried[mutation.kind] += 1
            found = next((one for one in told if one), None)
            wrong[mutation.kind] += [f"{mutation.how}: {found}"] if found else []
    for kind in KINDS:
        yield _row(f"damaged suites end rightly: {kind}", tried[kind], wrong[kind], {"slowest_seconds": slowest})
    sample = drawn[:: max(1, len(drawn) // (QUICK_BY_COMMAND if context.quick else BY_COMMAND))]
    yield _row("damaged suites end rightly: by the command itself", len(sample), list(_by_command(sample, folder)))


def _row(work: str, tried: int, wrong: Sequence[str], facts: dict[str, Any] | None = None) -> Row:
    right = tried - len(wrong)
    return Row(
        work,
        f"{right} of {tried} right",
        [right / tried],
        unit="%",
        goal=Stated("all right", right == tried),
        facts={"tried": tried, "right": right, **(facts or {})},
        notes=[
            "Right is: one line on stderr and exit code 2, or accepted and legal by the reference; within 20 s.",
            *(f"Wrong: {one}" for one in wrong[:5]),
        ],
    )


def arguments(command: str, path: Path, mutation: Mutation) -> list[str]:
    """Return what the command line is given."""
    return [command, str(path), *(part for one in mutation.sets for part in ("--set", one))]


def fault(command: str, outcome: Outcome, mutation: Mutation) -> str | None:
    """Say what is wrong with how a command ended; None: nothing."""
    code, stderr = outcome
    if code == HUNG:
        return f"{command}: more than {SECONDS:g} s"
    if code == 0:
        problem = illegal(mutation)
        return f"{command}: accepted, but {problem}" if problem else None
    lines = [line for line in stderr.splitlines() if not line.startswith("bench: warning: ")]
    if code != 2 or len(lines) != 1 or len(lines[0]) > 3000:
        return f"{command}: exit code {code}, {len(lines)} lines: {stderr[-300:]!r}"
    if command == "validate" and not re.match(r"bench: (\S*x\.yaml:\d+: |--set )", lines[0]):
        return f"{command}: no line number: {lines[0]:.200}"
    return None


def _by_command(sample: Sequence[Mutation], folder: Path) -> Iterator[str]:
    for mutation in sample:
        if any("\0" in one for one in mutation.sets):
            continue  # no argument can hold it
        path = folder / "x.yaml"
        path.write_bytes(mutation.content)
        line = [sys.executable, "-m", "bench.cli.main", *arguments("validate", path, mutation)]
        try:
            done = subprocess.run(line, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            yield f"{mutation.how}: more than {SECONDS:g} s"
            continue
        found = fault("validate", (done.returncode, done.stderr), mutation)
        if found:
            yield f"{mutation.how}: {found}"


def _environment() -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


class Worker:
    """Run commands in one process, which is killed and started anew where it hangs."""

    def __enter__(self) -> Worker:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.recv() == "ready"  # imports do not count

    def run(self, given: Sequence[str]) -> Outcome:
        """Return how a command ended."""
        self._pipe.send(list(given))
        try:
            if self._pipe.poll(SECONDS):
                made: Outcome = self._pipe.recv()
                return made
            ended: Outcome = HUNG, ""
        except EOFError:
            self._process.join()
            ended = self._process.exitcode or 0, "the process died"
        self._process.kill()
        self._process.join()
        self._start()
        return ended


def _work(pipe: Connection) -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    from bench.cli import main as cli
    from bench.plan import planner  # noqa: F401 - so that the first command is as fast as the others
    from bench.suite import yaml_file  # noqa: F401

    pipe.send("ready")
    while True:
        given = pipe.recv()
        sys.argv = ["bench", *given]
        stderr, code = io.StringIO(), 0
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            try:
                cli.main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            except BaseException as error:  # what the command line lets through is a traceback
                code, _ = 1, stderr.write(f"Traceback: {error!r}")
        pipe.send((code, stderr.getvalue()))
