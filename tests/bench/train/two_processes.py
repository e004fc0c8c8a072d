"""Train one job of a plan as one of the processes that `torchrun` starts; `test_two_processes.py` launches it.

Arguments: the suite as JSON, the folder with what the job needs, the start of the job's id, this launch's name, and the
step at which the second process alone asks to stop (0: none does). Each process writes down the choices it saw.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from other_methods import Mgda

from bench.errors import Interrupted
from bench.methods import METHODS, Objective
from bench.plan import planner
from bench.records import record
from bench.run.context import WorkerContext
from bench.suite.suite import Suite
from bench.train.loop import TrainingRun, train


def main(suite_file: Path, folder: Path, start: str, name: str, stop_at: int) -> None:
    METHODS._points["mgda"] = EntryPoint("mgda", "other_methods:Mgda", METHODS.group)
    METHODS._loaded["mgda"] = Mgda
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    rank = accelerator.process_index
    suite = Suite.model_validate_json(suite_file.read_text())
    job = next(one for one in planner.make(suite).jobs.values() if one.id.startswith(start))
    context = WorkerContext(suite, folder, None, "cpu", {"workers": 1}, lambda message: None, lambda: False)
    base = context.base(suite.model, None)
    own = context.job_folder(job.id)
    own.mkdir(parents=True, exist_ok=True)
    seen: list[dict[str, Any]] = []
    optima = {
        objective: record.read_json(context.job_folder(job.inputs.optimum[objective]) / "scores.json")
        for objective in Objective
        if objective in job.inputs.optimum
    }
    run = TrainingRun(
        job,
        suite,
        own,
        base,
        context.datasets(base.tokenizer, {}),
        suite.training.batch_size,
        reference=record.read_json(context.job_folder(job.inputs.reference_logps) / "reference_logps.json"),
        optimum={objective: scores[f"f_{objective}/train"]["value"] for objective, scores in optima.items()},
        tell=seen.append,
        stopping=lambda: rank == 1 and len(seen) == stop_at,
    )
    try:
        train(run)
        outcome = "complete"
    except Interrupted as stopped:
        outcome = str(stopped)
    result = {"outcome": outcome, "backend": accelerator.state.backend, "seen": seen}
    (folder / f"{name}-{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
