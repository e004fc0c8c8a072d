"""What every campaign works with: a small suite with every kind of job, the command, and records that compare."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.suite import yaml_file
from bench.suite.suite import Suite
from benchmarks.rows import Row, Stated

# Every kind of job but pre-training and costs measured alone, in seconds; checkpoints every other step.
SUITE = """\
name: small
model: {source: random}
lora: {rank: 2, alpha: 4, targets: [q_proj, v_proj]}
data:
  preference: {source: world, rows: 24, evaluation_rows: 8}
  instruction: {source: world, rows: 24, evaluation_rows: 8}
  max_prompt_tokens: 32
  max_answer_tokens: 32
training:
  steps: 16
  batch_size: {dpo: 4, sft: 4}
  learning_rate: 1.0e-3
  evaluate_every: 4
  checkpoint_every: 2
methods: [sequential, mix, maxright]
lambdas: [0.5]
seeds: [0]
evaluation:
  lm_eval: {tasks: [world_questions]}
  win_rate: {judge: {kind: rule}, prompts: 6, generation: {max_new_tokens: 6}}
  base_kl: {}
"""
_ROOT = Path(__file__).resolve().parents[2]
# What says when, where and how long, and differs between two runs that made the same.
_TIMES = ("seconds", "started", "finished", "began", "ended", "per_second")
_NOT_COMPARED = ("log.txt", "usage.jsonl", "status.json", "last_run.json")


@dataclass
class Count:
    """Count cases of one kind, and keep what was wrong with the first few."""

    tried: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, name: str, problem: str) -> None:
        """Count a case; "" is no problem."""
        self.tried += 1
        if problem:
            self.wrong.append(f"{name}: {problem}")
        else:
            self.right += 1

    def row(self, work: str, notes: tuple[str, ...] = ()) -> Row:
        """Return it as a line of the results: the share that was right, in percent."""
        share = 100 * self.right / self.tried if self.tried else 0.0
        return Row(
            work=work,
            against="",
            values=[share],
            unit="% right",
            goal=Stated("all right", self.tried > 0 and not self.wrong),
            facts={"tried": self.tried, "right": self.right, "wrong": self.wrong[:20]},
            notes=(f"{work}: {self.tried} tried, {self.right} right.", *notes),
        )


def write_suite(folder: Path, text: str = SUITE) -> Path:
    """Write the suite's file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load_suite(folder: Path) -> Suite:
    """Read it."""
    loaded = yaml_file.load(str(write_suite(folder)))
    assert isinstance(loaded, Suite)
    return loaded


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a command: this checkout's code, one thread, no bars."""
    known = {name: value for name, value in os.environ.items() if name not in ("BENCH_TRACEBACK", "OMP_NUM_THREADS")}
    return known | {"PYTHONPATH": str(_ROOT), "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "150", **more}


def start(*arguments: str, output: Any = subprocess.PIPE, **variables: str) -> subprocess.Popen[str]:
    """Start `bench` in a process group of its own; `variables` are set in its environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.command", *arguments],
        cwd=_ROOT,
        env=environment(**variables),
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=hear_signals,
    )


def hear_signals() -> None:
    """Undo what a shell does to what it runs in the background, and nohup to what shall outlive a terminal."""
    for name in ("SIGINT", "SIGHUP", "SIGTERM", "SIGUSR1"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def call(*arguments: str, seconds: float = 600.0, **variables: str) -> tuple[int, str]:
    """Run `bench` to its end; return its exit code and what it said."""
    process = start(*arguments, **variables)
    said, _ = process.communicate(timeout=seconds)
    return process.returncode, said or ""


def contents(folder: Path) -> dict[str, Any]:
    """Return what a suite's jobs left on record and as weights, without what only says when and how long."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "jobs").rglob("*")):
        name = path.relative_to(folder / "jobs").as_posix()
        if not path.is_file() or path.name in _NOT_COMPARED or "/checkpoints/" in name or path.name.startswith("."):
            continue
        if path.name == "measurements.json":  # of them only counts are the same again
            entries = json.loads(path.read_text(encoding="utf-8")).items()
            found[name] = {key: one for key, one in entries if one.get("unit") in ("tokens", "steps", "rows", "share")}
        elif path.name == "spec.json":
            kept = json.loads(path.read_text(encoding="utf-8"))
            found[name] = {key: one for key, one in kept.items() if not key.startswith("environment") and key != "seal"}
        elif path.name == "adapter_config.json":  # whose list of modules is a set's, in any order
            kept = json.loads(path.read_text(encoding="utf-8"))
            found[name] = kept | {"target_modules": sorted(kept["target_modules"])}
        elif path.suffix == ".json":
            found[name] = _timeless(json.loads(path.read_text(encoding="utf-8")))
        elif path.suffix == ".jsonl":
            found[name] = [_timeless(row) for row in _rows(path)]
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _rows(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if not any(word in key for word in _TIMES)}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Name the first file in which two records differ; "" for none."""
    for name in sorted({*one, *other}):
        if name not in one or name not in other:
            return f"{name} is in one of them alone"
        if one[name] != other[name]:
            return f"{name} differs"
    return ""
