"""Weights & Biases: `WANDB_MODE=offline` keeps runs in `WANDB_DIR` for `wandb sync`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bench.trackers import PROJECT, Run, Tracker


class WandB(Tracker):
    """Log by a run object of its own; the global one is left alone."""

    package = "wandb"

    def __init__(self, run: Run) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=run.suite,
            name=run.name,
            job_type=run.kind,
            config=dict(run.config),
            id=run.known_as,
            resume="allow" if run.known_as else None,
            reinit="create_new",
            settings=wandb.Settings(console="off", x_disable_stats=True),
        )
        self._run.define_metric("*", step_metric="step")  # its own steps can only grow, and files are read in turn
        offline = bool(self._run.settings.mode == "offline")
        self.id = "" if offline else str(self._run.id)  # an offline run cannot be gone on with

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def finish(self, complete: bool) -> None:
        self._run.finish(exit_code=0 if complete else 1)

    def artifact(self, folder: Path) -> None:
        import wandb

        kept = wandb.Artifact(f"{self._run.group}-report", type="report")
        kept.add_dir(str(folder))
        self._run.log_artifact(kept)

    @classmethod
    def close(cls) -> None:
        import wandb

        wandb.teardown()  # a process of its own writes the files

    @classmethod
    def problem(cls) -> str:
        import wandb

        if wandb.setup().settings.mode != "online" or wandb.login(prompt=False, verify=False):
            return ""
        return "has no key; run 'wandb login', or set WANDB_MODE=offline"
