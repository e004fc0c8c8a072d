"""Send what schedulers, terminals and people send: a run keeps a checkpoint, says so, and goes on to the same records.

python -m benchmarks --only signals
"""

from __future__ import annotations

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.campaigns import base
from benchmarks.rows import Context, Row

# One run on each objective is long enough to be met in the middle of it; a checkpoint only every so many steps.
SUITE = base.SUITE.replace("steps: 16", "steps: 500").replace("checkpoint_every: 2", "checkpoint_every: 100000")
SUITE = SUITE.replace("evaluate_every: 4", "evaluate_every: 250").replace("[sequential, mix, maxright]", "[mix]")
TRAINING = "step"  # a run's last row: it is in the middle of training
_SEED, _PATIENCE, _LONG = 11, 120.0, 600.0
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


def rows(context: Context) -> Iterator[Row]:
    """Send every signal to the parent and to the whole group; close the terminal and the pipe; kill a worker; requeue."""
    folder = context.folder("signals")
    suite = base.write_suite(folder, SUITE)
    expected = folder / "expected"
    if not (expected / "small" / "last_run.json").exists():
        code, said = base.call("run", str(suite), "--results", str(expected))
        assert code == 0, said[-500:]
    wanted = base.contents(expected / "small")
    stopped, went_on = base.Count(), base.Count()
    whom = ("parent", "group") if not context.quick else ("group",)
    for target in whom:
        for name in NAMES:
            context.say(f"{name} to the {target}")
            problem, after = _signalled(suite, folder / "run", name, target)
            stopped.add(f"{name} to the {target}", problem)
            went_on.add(f"{name} to the {target}", after or _goes_on(suite, folder / "run", wanted))
    yield stopped.row("signals after which a run kept a checkpoint, said so and ended with 130")
    yield went_on.row("runs that the same command then brought to the same records")
    others = base.Count()
    cases: dict[str, Callable[[Path, Path], str]] = {
        "a closed terminal": _closed_terminal,
        "a closed pipe": _closed_pipe,
        "a full log": _full_log,
        "SIGTERM to a worker alone": _worker_told,
        "SIGKILL of a worker": _worker_killed,
    }
    for name, case in cases.items():
        context.say(name)
        shutil.rmtree(folder / "run", ignore_errors=True)
        problem = case(suite, folder / "run")
        others.add(name, problem or _goes_on(suite, folder / "run", wanted))
    yield others.row("other ends of a screen or a worker that lost nothing")


def _signalled(suite: Path, results: Path, name: str, target: str) -> tuple[str, str]:
    """Send a signal in the middle of training; return what was wrong with how the run ended, and with what it left."""
    shutil.rmtree(results, ignore_errors=True)
    process = base.start("run", str(suite), "--results", str(results))
    job = in_training(results, process)
    number = getattr(signal, name)
    (os.killpg if target == "group" else os.kill)(process.pid, number)
    said, _ = process.communicate(timeout=_PATIENCE)
    last = json.loads((results / "small" / "last_run.json").read_text(encoding="utf-8"))
    problem = ""
    if process.returncode != 130 or last["exit_code"] != 130 or last["signal"] != name:
        problem = f"ended with {process.returncode}, on record {last['exit_code']} by {last['signal']}"
    elif "checkpoints are kept" not in said or "Traceback" in said:
        problem = f"said: {said.strip()[-200:]}"
    kept = list((job / "checkpoints").glob("step-*.pt"))
    return problem, "" if kept else "no checkpoint was kept"


def in_training(results: Path, process: subprocess.Popen[Any], draw: random.Random | None = None) -> Path:
    """Wait until a job is in the middle of its steps; return its folder.

    Raises:
        RuntimeError: the command ended before that, or nothing came of it for long; with what it said.
    """
    deadline = time.monotonic() + _LONG
    while process.poll() is None and time.monotonic() < deadline:
        for path in results.glob("*/jobs/*/steps.jsonl"):
            if path.stat().st_size > 4000 and not (path.parent / "status.json").exists():
                time.sleep((draw or random.Random(_SEED)).random() * 0.5)
                return path.parent
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    said = process.communicate()[0] if process.stdout else ""
    raise RuntimeError(f"no job came to train; the command said: {said}")


def _goes_on(suite: Path, results: Path, wanted: dict[str, object]) -> str:
    code, said = base.call("run", str(suite), "--results", str(results))
    return (
        f"ended with {code}: {said.strip()[-200:]}"
        if code
        else base.difference(base.contents(results / "small"), wanted)
    )


def _closed_terminal(suite: Path, results: Path) -> str:
    """Run on a terminal of its own, and close it."""
    ours, theirs = pty.openpty()
    process = base.start("run", str(suite), "--results", str(results), output=theirs)
    os.close(theirs)
    job = in_training(results, process)
    os.close(ours)
    os.killpg(process.pid, signal.SIGHUP)  # as the kernel does to the session of a terminal that hangs up
    code = process.wait(_PATIENCE)
    kept = list((job / "checkpoints").glob("step-*.pt"))
    return "" if code == 130 and kept else f"ended with {code}, {len(kept)} checkpoints"


def _closed_pipe(suite: Path, results: Path) -> str:
    """Let the reader of its output go away: the run goes on to its end."""
    process = base.start("run", str(suite), "--results", str(results))
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    code = process.wait(600.0)
    return "" if code == 0 else f"ended with {code}"


def _full_log(suite: Path, results: Path) -> str:
    """Write its output to a full device."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        code = base.start("run", str(suite), "--results", str(results), output=full).wait(600.0)
    return "" if code == 0 else f"ended with {code}"


def _worker_told(suite: Path, results: Path) -> str:
    return _to_worker(suite, results, signal.SIGTERM)


def _worker_killed(suite: Path, results: Path) -> str:
    return _to_worker(suite, results, signal.SIGKILL)


def _to_worker(suite: Path, results: Path, number: int) -> str:
    """Signal the worker alone: its job is tried again, and the run ends well by itself."""
    process = base.start("run", str(suite), "--results", str(results))
    job = in_training(results, process)
    for worker in workers_of(process.pid):
        os.kill(worker, number)
    said, _ = process.communicate(timeout=600.0)
    attempts = json.loads((job / "status.json").read_text(encoding="utf-8")).get("attempts", [])
    if process.returncode or len(attempts) != 1:
        return f"ended with {process.returncode}, {len(attempts)} attempts on record: {said.strip()[-200:]}"
    return ""


def workers_of(parent: int) -> list[int]:
    """Return a run's workers: children that are no resource tracker."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    )
    lines = [line.split(None, 1) for line in listed.stdout.splitlines()]
    return [int(number) for number, arguments in lines if "spawn_main" in arguments]
