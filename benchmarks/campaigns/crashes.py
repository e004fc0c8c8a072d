"""Kill with SIGKILL at random moments, the parent, a worker or the group; the same command must end at equal records.

python -m benchmarks --only crashes
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.run import live
from benchmarks.campaigns import base, signals
from benchmarks.rows import Context, Row

# Few jobs, and most of their time in training and its checkpoints.
SUITE = base.SUITE.replace("[sequential, mix, maxright]", "[sequential, mix]").replace("steps: 16", "steps: 240")
SUITE = SUITE.replace("evaluate_every: 4", "evaluate_every: 30").replace("checkpoint_every: 2", "checkpoint_every: 5")
SUITE = SUITE.replace("  lm_eval: {tasks: [world_questions]}\n", "").replace("  base_kl: {}\n", "")
_SEED = 7
# Runs, each killed so many times on its way to its end; reports and packings, each killed once.
CHAINS = {"parent": 11, "worker": 11, "group": 10}
KILLS = 5
WRITERS = {"report": 25, "pack": 25}
QUICK_CHAINS, QUICK_KILLS, QUICK_WRITERS = 1, 3, 2


@dataclass(frozen=True)
class _Setting:
    """What the kills of a campaign share: the suite's file, its folder, a whole run's records and its seconds."""

    suite: Path
    folder: Path
    whole: Path
    wanted: dict[str, object]
    seconds: float


def rows(context: Context) -> Iterator[Row]:
    """Kill at seeded moments, two at a time; bring each to its end by the same command."""
    setting = _prepare(context)
    kills = QUICK_KILLS if context.quick else KILLS
    for target, count in CHAINS.items():
        count = QUICK_CHAINS if context.quick else count
        context.say(f"{target}: {count} runs, {kills} kills each")
        counted = base.Count()
        with ThreadPoolExecutor(2) as pool:
            for number, problem in enumerate(pool.map(partial(_kill_a_run, setting, target, kills), range(count))):
                for _ in range(kills):
                    counted.add(f"{target}, run {number}", problem)
        yield counted.row(f"kills of a run's {target} after which the same command ended at equal records")
    for target, count in WRITERS.items():
        count = QUICK_WRITERS if context.quick else count
        context.say(f"{target}: {count} kills")
        counted = base.Count()
        with ThreadPoolExecutor(2) as pool:
            for number, problem in enumerate(pool.map(partial(_kill_a_writer, setting, target), range(count))):
                counted.add(f"{target}, kill {number}", problem)
        yield counted.row(f"kills of `bench {target}` that left the records as they were, and the next one no scraps")


def _prepare(context: Context) -> _Setting:
    folder = context.folder("crashes")
    suite, whole = base.write_suite(folder, SUITE), folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    started = time.monotonic()
    code, said = base.call("run", str(suite), "--results", str(whole))
    assert code == 0, said[-500:]
    return _Setting(suite, folder, whole, base.contents(whole / "small"), time.monotonic() - started)


def _kill_a_run(setting: _Setting, target: str, kills: int, number: int) -> str:
    """Kill a run some times, each at a moment between its start and about its end; then let it end."""
    draw = random.Random(f"{_SEED} {target} {number}")
    results = setting.folder / f"{target}-{number}"
    shutil.rmtree(results, ignore_errors=True)
    for _ in range(kills):
        process = base.start("run", str(setting.suite), "--results", str(results), output=subprocess.DEVNULL)
        time.sleep(draw.uniform(0.1, 1.0) * setting.seconds)
        if target == "worker" and process.poll() is None:
            for worker in signals.workers_of(process.pid):
                kill(os.kill, worker)
            time.sleep(draw.uniform(0.0, 0.5) * setting.seconds)  # it is being tried again
        kill(os.killpg if target == "group" else os.kill, process.pid)
        process.wait(60.0)
        time.sleep(2.0)  # workers whose parent is gone end by themselves
    code, said = base.call("run", str(setting.suite), "--results", str(results))
    problem = f"ended with {code}: {said.strip()[-200:]}" if code else ""
    problem = problem or base.difference(base.contents(results / "small"), setting.wanted) or scraps(results)
    if not problem:
        shutil.rmtree(results)
    return problem


def _kill_a_writer(setting: _Setting, target: str, number: int) -> str:
    """Kill `report` or `pack` in the middle; the records stay what they were, and the next one leaves no scraps."""
    draw = random.Random(f"{_SEED} {target} {number}")
    results = setting.folder / f"{target}-{number}"
    shutil.rmtree(results, ignore_errors=True)
    shutil.copytree(setting.whole, results)
    process = base.start(target, str(results), output=subprocess.DEVNULL)
    time.sleep(draw.uniform(0.3, 6.0 if target == "report" else 1.5))
    kill(os.killpg, process.pid)
    process.wait(60.0)
    code, said = base.call(target, str(results))
    problem = f"ended with {code}: {said.strip()[-200:]}" if code else ""
    problem = problem or base.difference(base.contents(results / "small"), setting.wanted) or scraps(results)
    if not problem:
        shutil.rmtree(results)
    return problem


def kill(how: Callable[[int, int], None], process: int) -> None:
    """Send SIGKILL, if there is still somebody to get it."""
    try:
        how(process, signal.SIGKILL)
    except ProcessLookupError:  # it has ended just now
        return


def scraps(results: Path) -> str:
    """Name what a kill left behind and nobody took away; "" for nothing."""
    left = [path.name for path in results.rglob(".*") if path.name not in (".lock", live.FILE)]
    return f"left behind: {left[:3]}" if left else ""
