"""Kill with SIGKILL what one process does not have: nodes and actors of a cluster, ranks of a job; the same command must end at
equal records.

python -m benchmarks --only cluster_kills
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from benchmarks.campaigns import base, crashes, signals
from benchmarks.campaigns.cluster import Cluster
from benchmarks.rows import Context, Row

# Both optima, of which one is the reference, its log-probabilities, two joint recipes, and questions of each.
SUITE = base.SUITE.replace("[sequential, mix, maxright]", "[mix, maxright]").replace("steps: 16", "steps: 160")
SUITE = SUITE.replace("evaluate_every: 4", "evaluate_every: 40").replace("checkpoint_every: 2", "checkpoint_every: 10")
SUITE = SUITE.split("  win_rate:")[0]
ON_RANKS = SUITE.replace("training:\n", "training:\n  devices: 2\n")
ONLY, JOBS, STEPS = "[mq]*-l0.5-*", 7, 160
# Whom the kills of one run hit, in a drawn order; each run is then brought to its end. Five runs: twenty kills of each kind.
ON_CLUSTER = ("node", "actor", "command", "node and command")
ON_ONE_NODE = ("rank", "worker", "parent", "group")
ENDS_THE_COMMAND = ("parent", "group", "command", "node and command")
CHAINS, QUICK_CHAINS = 5, 1
_SEED = 7
_PATIENCE = 600.0
_AFTER, _AT_START = (
    3.0,
    8.0,
)  # seconds at most from a drawn share of the work to the kill, and from the last kill, or the start

Kill = Callable[[subprocess.Popen[str], random.Random], bool]
"""Kill something of a run; say whether it was there."""


@dataclass(frozen=True)
class _Setting:
    """What the kills of one kind share.

    Attributes:
        arguments: of the command, but for its results.
        folder: where runs go.
        wanted: a whole run's records.
        kill: by target.
        last: the share of the work after which none is drawn: while questions are answered there is no rank.
    """

    arguments: tuple[str, ...]
    folder: Path
    wanted: dict[str, object]
    kill: Mapping[str, Kill]
    last: float


@dataclass(frozen=True)
class Point:
    """Whom to kill, and when: so many seconds after a share of the work was done; without one, after the last kill."""

    target: str
    share: float | None
    seconds: float


def rows(context: Context) -> Iterator[Row]:
    """Kill at seeded moments, one run after another; bring each to its end by the same command."""
    folder = context.folder("cluster_kills")
    chains = QUICK_CHAINS if context.quick else CHAINS
    ranks: dict[str, Kill] = {
        "rank": lambda process, draw: _one_of(ranks_of(process.pid), draw),
        "worker": lambda process, draw: _one_of(signals.workers_of(process.pid), draw),
        "parent": lambda process, draw: _one_of([process.pid], draw),
        "group": lambda process, draw: _group(process),
    }
    context.say(f"ranks: {chains} runs, {len(ranks)} kills each")
    yield from _chains(context, _setting(folder / "ranks", ON_RANKS, 2, [], ranks, 0.6), chains, "torchrun")
    context.say(f"cluster: {chains} runs, {len(ON_CLUSTER)} kills each")
    with Cluster() as cluster:

        def node() -> bool:
            cluster.kill()
            cluster.add()
            return True

        nodes: dict[str, Kill] = {
            "node": lambda process, draw: node(),
            "actor": lambda process, draw: _one_of(cluster.actors(), draw),
            "command": lambda process, draw: _one_of([process.pid], draw),
            "node and command": lambda process, draw: _one_of([process.pid], draw) and node(),
        }
        setting = _setting(folder / "cluster", SUITE, 1, ["--engine", cluster.engine], nodes, 0.9)
        yield from _chains(context, setting, chains, "Ray")


def _setting(folder: Path, text: str, threads: int, more: list[str], kill: Mapping[str, Kill], last: float) -> _Setting:
    """Make a whole, undisturbed run by this machine's own processes, on as many ranks."""
    suite, whole = base.write_suite(folder, text), folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    arguments = ("run", str(suite), "--only", ONLY, "--threads", str(threads))
    code, said = base.call(*arguments, "--results", str(whole), seconds=_PATIENCE)
    assert code == 0, said[-500:]
    assert len(list((whole / "small" / "jobs").iterdir())) == JOBS
    return _Setting((*arguments, *more), folder, base.contents(whole / "small"), kill, last)


def _chains(context: Context, setting: _Setting, chains: int, under: str) -> Iterator[Row]:
    counted = {target: base.Count() for target in setting.kill}
    by_themselves, seconds = 0, 0.0
    for number in range(chains):
        started = time.monotonic()
        problem, went_on = _kill_a_run(setting, number)
        by_themselves += went_on
        seconds += time.monotonic() - started
        context.say(f"{under}, run {number}: {problem or 'equal records'}, {time.monotonic() - started:.0f} s")
        for one in counted.values():
            one.add(f"run {number}", problem)
    note = (
        f"Under {under}: {chains} runs of {JOBS} jobs, each killed {len(counted)} times, {seconds / max(1, chains):.0f} s a run; "
        f"{by_themselves} of them ended with 0 once they were begun after the last kill of a command."
    )
    for target, one in counted.items():
        yield one.row(f"kills under {under} of: {target}, after which the same command ended at equal records", (note,))


def points(targets: Iterable[str], number: int, last: float) -> list[Point]:
    """Draw the kills of a run, in order; about one of four follows the last one, or the start, closely."""
    draw = random.Random(f"{_SEED} {number}")
    order = draw.sample(list(targets), len(list(targets)))
    shares = sorted(draw.uniform(0.0, last) for _ in order)
    found = []
    for target, share in zip(order, shares, strict=True):
        early = draw.random() < 0.25
        found.append(Point(target, None if early else share, draw.uniform(0.0, _AT_START if early else _AFTER)))
    return found


def _kill_a_run(setting: _Setting, number: int) -> tuple[str, bool]:
    """Kill a run at every point, and start the same command where it ended; say what was wrong, and if it went on by itself."""
    draw = random.Random(f"{_SEED} {number} whom")
    results = setting.folder / f"run-{number}"
    shutil.rmtree(results, ignore_errors=True)
    arguments = (*setting.arguments, "--results", str(results))
    start = partial(base.start, *arguments, output=subprocess.DEVNULL)
    process, missed = start(), ""
    for point in points(setting.kill, number, setting.last):
        _wait(point, process, results)
        process = process if process.poll() is None else start()
        if not _until(partial(setting.kill[point.target], process, draw), process):
            missed = f"no {point.target} was there to be killed"
        if point.target in ENDS_THE_COMMAND:
            process.wait(_PATIENCE)
            process = start()
    went_on = process.wait(_PATIENCE) == 0
    code, said = base.call(*arguments, seconds=_PATIENCE)
    problem = missed or (f"ended with {code}: {said.strip()[-200:]}" if code else "")
    problem = problem or base.difference(base.contents(results / "small"), setting.wanted) or crashes.scraps(results)
    if not problem:
        shutil.rmtree(results)
    return problem, went_on


def _wait(point: Point, process: subprocess.Popen[str], results: Path) -> None:
    """Wait for a point's moment."""
    if point.share is not None:
        share = point.share
        _until(lambda: done(results) >= share, process)
    time.sleep(point.seconds)


def _until(true: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    """Wait until something is true, as long as the command is at work; say whether it became so."""
    deadline = time.monotonic() + _PATIENCE
    while not true():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def done(results: Path) -> float:
    """Say which share of a run is done: complete jobs, and of others the steps that are on record."""
    found = 0.0
    for job in results.glob("*/jobs/*"):
        with contextlib.suppress(OSError, ValueError):  # it is being written
            status = job / "status.json"
            if status.exists() and json.loads(status.read_text(encoding="utf-8"))["outcome"] == "complete":
                found += 1.0
            else:
                found += min((job / "steps.jsonl").read_bytes().count(b"\n") / STEPS, 1.0)
    return found / JOBS


def ranks_of(parent: int) -> list[int]:
    """Return the processes that compute jobs together for a run."""
    found = []
    with contextlib.suppress(psutil.Error):
        for one in psutil.Process(parent).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = one.cmdline()
                found += [one.pid] if "bench.run.rank" in line and "--nproc-per-node" not in line else []
    return found


def _one_of(processes: list[int], draw: random.Random) -> bool:
    if processes:
        crashes.kill(os.kill, draw.choice(processes))
    return bool(processes)


def _group(process: subprocess.Popen[str]) -> bool:
    crashes.kill(os.killpg, process.pid)
    return True
