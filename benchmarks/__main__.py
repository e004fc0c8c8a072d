"""Measure this project beside what one would use instead, and write RESULTS.md and results.json.

python -m benchmarks                    everything
python -m benchmarks --quick            fewer rounds and steps, float32 alone; memory and growth stay as they are
python -m benchmarks --only training    one group; the others' results stay as they are

Campaigns, which break things on purpose, are tried in small unless they are asked for by name.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.rows import Context, Row

HERE = Path(__file__).resolve().parent
# A module with `rows(context)`, which yields them one by one. To add a group: a file, and a line here.
GROUPS = {
    "training": "One training step.",
    "evaluation": "Multiple-choice questions (MMLU, 1-shot).",
    "suite": "A whole suite: reference, optima, four methods × three λ, their evaluations.",
    "harness": "What the harness adds to the steps: records, clock, collectors, objective values along the way.",
    "commands": "Commands that load no model, and reports over many runs.",
    "large_plan": "A campaign of 5,000 jobs: making its plan, walking it, going on with it.",
    "memory": "Peak memory of a run, each in a fresh process.",
    "growth": "How the time of a suite grows: exponent k of seconds = c · x^k, least squares on logarithms.",
    "coverage": "How often intervals hold the truth and comparisons are right, over simulated suites.",
    "crowning": "How often a winner is named among equal recipes, and one that is better is, over simulated suites.",
    "crashes": "Runs, reports and packing killed at random moments, then the same command.",
    "cluster_kills": "Nodes and actors of a Ray cluster, ranks of a job and their commands killed, then the same command.",
    "damage": "Records damaged file by file: reports mark the job, a run makes it again.",
    "signals": "What schedulers, terminals and people send to a run, and the screens they take away.",
    "judge": "Paid replies through kills, faults and full disks: none lost, none paid twice without being counted.",
    "suites": "Damaged suites, drawn from the shipped ones: how many end in one line, or are rightly accepted.",
    "gpu": "On one GPU: training steps of models of given shapes with random weights.",
    "gpu_evaluation": "On one GPU: answers, questions, reference pass and start of the same models.",
}
CAMPAIGNS = ("crashes", "cluster_kills", "damage", "signals", "judge", "suites")
# Short rows and few steps would say little about them: always at full size, and only when asked for by name or with all.
ON_GPU = ("gpu", "gpu_evaluation")
NEVER_QUICK = ("memory", "growth", *ON_GPU)


def main(arguments: list[str] | None = None) -> int:
    """Run the groups; return 0, or 1 when one failed."""
    options = _parser().parse_args(arguments)
    chosen = options.only or [name for name in GROUPS if not (options.quick and name in NEVER_QUICK)]
    if set(chosen) & set(ON_GPU) and not has_gpu():
        print("gpu: skipped, as torch sees no CUDA device here; its last results stay as they are", flush=True)
        chosen = [name for name in chosen if name not in ON_GPU]
        if not chosen:
            return 0
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as temporary:
        work = Path(options.work or temporary)
        context = _context(options.quick, work)
        told = results.load(options.out / "results.json")
        failed = []
        for number, name in enumerate(chosen, 1):
            print(f"[{number}/{len(chosen)}] {name}", flush=True)
            small = name in CAMPAIGNS and not options.only
            group = _measure(name, replace(context, quick=True) if small else context)
            told["groups"] = {
                one: group if one == name else told["groups"][one]
                for one in GROUPS
                if one == name or one in told["groups"]
            }
            results.save(options.out, told)
            failed += [name] if group["failed"] else []
    print(f"{options.out / 'RESULTS.md'}: {len(chosen) - len(failed)} groups measured, {len(failed)} failed")
    return 1 if failed else 0


def has_gpu() -> bool:
    """Say whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


def _parser() -> argparse.ArgumentParser:
    assert __doc__
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds and steps, float32 alone; not memory and growth"
    )
    parser.add_argument("--only", action="append", choices=list(GROUPS), metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--out", type=Path, default=HERE, help="folder of RESULTS.md and results.json")
    parser.add_argument("--work", type=Path, help="keep what is made on the way, and the sides' logs, in this folder")
    return parser


def _context(quick: bool, work: Path) -> Context:
    from benchmarks import material

    mirror = material.find_mirror()
    if mirror is None:
        print("no mirror in BENCH_MIRROR or ../shared/hub: rows and questions are generated", flush=True)
    return Context(
        quick=quick,
        work=work.resolve(),
        mirror=(mirror or material.make_mirror(work / "mirror")).resolve(),
        real_data=mirror is not None,
        threads=min(2, os.cpu_count() or 1),
        say=lambda text: print(f"    {text}", flush=True),
    )


def _module(name: str) -> str:
    return f"campaigns.{name}" if name in CAMPAIGNS else name


def _command(name: str, quick: bool) -> str:
    if name in ON_GPU or (name in CAMPAIGNS and not quick):
        return f"python -m benchmarks --only {name}"
    return "make bench QUICK=1" if quick else "make bench"


def _measure(name: str, context: Context) -> dict[str, Any]:
    """Measure one group; what it yields before it fails is kept, with the reason."""
    from bench.run import environment

    quick = context.quick and name not in NEVER_QUICK
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    failed = None
    try:
        for row in importlib.import_module(f"benchmarks.{_module(name)}").rows(context):
            rows.append(row.as_dict())
            _show(row, rows[-1])
    except Exception as error:
        failed = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
        print(f"    FAILED: {failed}", flush=True)
    kept = ("posttrain-bench", "torch", "transformers", "peft", "trl", "lm-eval")
    return {
        "title": GROUPS[name],
        "command": _command(name, quick),
        "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": time.perf_counter() - started,
        "quick": quick,
        "real_data": context.real_data,
        "threads": context.threads,
        "commit": environment.commit(),
        "machine": environment.hardware(),
        "python": platform.python_version(),
        "packages": {one: version for one, version in environment.packages().items() if one in kept},
        "rows": rows,
        "failed": failed,
    }


def _show(row: Row, content: dict[str, Any]) -> None:
    verdict = {True: "goal holds", False: "GOAL MISSED", None: ""}[content["holds"]]
    against = f" against {row.against}" if row.against else ""
    told = row.failed or results.value_text(content["spread"]["median"], row.unit)
    print(f"    {row.work}{against}: {told} {verdict}".rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
