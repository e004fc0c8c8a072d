"""A whole suite: one `bench run` against TRL, a custom joint loop and stock lm-eval, run by run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.rows import SECONDS_AT_MOST, Context, Row, RowFailed, at_least
from benchmarks.sides import call, variables
from benchmarks.training import DPO_BATCH, SFT_BATCH

METHODS = ("sequential", "mix", "alright", "maxright")
LAMBDAS = (0.25, 0.5, 0.75)
SUBJECTS_EVERY = 28
# How often each kind of work occurs: two optima (the SFT one is the reference, too), each method at each λ.
COUNTS = {"sft": 1, "dpo": 1, **dict.fromkeys(METHODS, len(LAMBDAS))}
POLICIES = 1 + sum(COUNTS.values())  # and the base model
NOTES = (
    "By hand, each kind of run was measured once, at λ = 0.5, and counted as often as it occurs: SFT optimum (which is the "
    "reference, too) 1, DPO optimum 1, Sequential, Mix, ALRIGHT and MAXRIGHT 3 each, lm-eval 15 (12 runs, 2 optima, the "
    "base model).",
    "By hand, Sequential and the optima are TRL's SFTTrainer and DPOTrainer (reference precomputed, no activation "
    "checkpointing); the joint methods are a plain loop over pairs of rows with full logits and the reference's "
    "log-probabilities computed once a run. All evaluate both objectives at the same steps and on the same rows as we do, "
    "and save their adapter.",
    "By hand each kind is a process of its own, clocked from its start: imports and loading the model count there as they do "
    "in `bench run`. Checking that adapters reload, checkpoints and records count on our side only.",
)


def rows(context: Context) -> Iterator[Row]:
    """Measure one suite from a fresh folder, then each kind of run by hand."""
    folder = context.folder("suite")
    size = _size(context.quick)
    call(
        context,
        "benchmarks.material:write",
        mirror=str(context.mirror),
        folder=str(folder),
        pairs=size["pairs"] + size["held_out"],
        rows=size["rows"] + size["held_out"],
        prompt_tokens=size["prompt_tokens"],
        answer_tokens={"dpo": size["answer_tokens"], "sft": size["answer_tokens"]},
    )
    suite = _suite(folder, size)
    context.say(f"bench run: {size['steps']} steps a run, 12 runs, {POLICIES} policies evaluated")
    ours = _bench_run(context, folder, suite)
    context.say(f"bench run took {ours:.0f} s; by hand, each kind once")
    optimum = _optimum(folder / "results")
    by_hand = {kind: _by_hand(context, folder, suite, kind, optimum) for kind in (*COUNTS, "lm-eval")}
    counts = COUNTS | {"lm-eval": POLICIES}
    total, work = (sum(by_hand[kind][part] * count for kind, count in counts.items()) for part in ("seconds", "work"))
    yield Row(
        f"a whole suite, {size['dtype']}, {size['steps']} steps a run",
        "TRL, a custom joint loop and stock lm-eval, run by run",
        [total / ours],
        goal=at_least(4.0),
        sides={"ours_seconds": [ours], "other_seconds": [total]},
        facts={"seconds_by_hand": by_hand, "counted": counts, "size": size},
        notes=[
            *NOTES,
            "Seconds by hand: "
            + ", ".join(f"{kind} {one['seconds']:.1f} × {counts[kind]}" for kind, one in by_hand.items())
            + f". Training and asking alone, without start and set-up, come to {work:.0f} s, {work / ours:.2f} times our whole "
            "run with its own.",
        ],
    )


def _optimum(results: Path) -> dict[str, float]:
    """Read f* of both objectives from our own run; by hand it is known from the two optima as well."""
    found = {}
    for objective in ("dpo", "sft"):
        (scores,) = results.glob(f"*/jobs/{objective}-optimum-*/scores.json")
        found[objective] = float(json.loads(scores.read_text(encoding="utf-8"))[f"f_{objective}/train"]["value"])
    return found


def _by_hand(
    context: Context, folder: Path, suite: dict[str, Any], kind: str, optimum: dict[str, float]
) -> dict[str, float]:
    """Make one run of a kind, or ask the checkpoint of the run before the questions, in a fresh process."""
    trainers = folder / "by-hand"
    if kind == "lm-eval":
        asked = {"source": suite["model"], "mirror": str(context.mirror), "settings": suite["evaluation"]["lm_eval"]}
        adapter = str(trainers / "adapter")
        return call(context, "benchmarks.evaluation:checkpoint", begun=time.time(), adapter=adapter, **asked)
    run = {"suite": suite, "folder": str(trainers), "kind": kind, "optimum": optimum}
    return call(context, "benchmarks.run_by_run:measure", begun=time.time(), **run)


def _size(quick: bool) -> dict[str, Any]:
    if quick:
        return {
            "dtype": "float32",
            "steps": 2,
            "evaluate_every": 2,
            "batch_size": {"dpo": 2, "sft": 4},
            "pairs": 4,
            "rows": 8,
            "held_out": 2,
            "prompt_tokens": 64,
            "answer_tokens": 32,
            "limit": 2,
        }
    return {
        "dtype": "float32",
        "steps": 4,
        "evaluate_every": 2,
        "batch_size": {"dpo": DPO_BATCH, "sft": SFT_BATCH},
        "pairs": 16,
        "rows": 32,
        "held_out": 6,
        "prompt_tokens": 192,
        "answer_tokens": 96,
        "limit": 8,
    }


def _suite(folder: Path, size: dict[str, Any]) -> dict[str, Any]:
    made = material.suite(
        folder,
        size["dtype"],
        size["pairs"],
        size["rows"],
        training={
            "steps": size["steps"],
            "batch_size": size["batch_size"],
            "evaluate_every": size["evaluate_every"],
        },
        data={"max_prompt_tokens": size["prompt_tokens"], "max_answer_tokens": size["answer_tokens"]},
        reference={"policy": "sft"},
        methods=list(METHODS),
        lambdas=list(LAMBDAS),
        evaluation={
            "lm_eval": {
                "tasks": [f"mmlu_{subject}" for subject in material.mmlu_subjects()[::SUBJECTS_EVERY]],
                "shots": 1,
                "limit": size["limit"],
                "batch_size": 8,
            }
        },
    )
    for part in ("preference", "instruction"):
        made["data"][part]["evaluation_rows"] = size["held_out"]
    return made


def _bench_run(context: Context, folder: Path, suite: dict[str, Any]) -> float:
    """Run the command from nothing; return its seconds from start to end."""
    import shutil

    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    path = folder / "benchmark.yaml"
    path.write_text(json.dumps(suite, indent=1), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-m", "benchmarks.command", "run", str(path), "--results", str(results)]
    environment = os.environ | variables(context) | {"BENCH_MIRROR": str(context.mirror)}
    started = time.perf_counter()
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=2 * SECONDS_AT_MOST, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RowFailed(f"bench run ended with {done.returncode}: {_last_line(done.stdout + done.stderr)}")
    return seconds


def _last_line(text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines() or ["no output"]
    return lines[-1][:300]
