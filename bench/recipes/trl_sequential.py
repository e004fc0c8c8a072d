"""Sequential as most people run it today: TRL's own SFTTrainer, then its DPOTrainer on the adapter that left (or the reverse).

Rows, order, token ids, adapter, optimizer, schedule and reference are the suite's, so that what differs from our
`sequential` is TRL's code: what it computes a step, and what that costs. The trainers are in `trl_trainers.py`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from bench.methods import Objective
from bench.recipes import Making
from bench.settings import Frozen, TrainingParts


class TrlOptions(Frozen):
    """Choose where DPOTrainer has the reference's log-probabilities from."""

    precompute_reference: bool = False
    """`false`, TRL's default: DPOTrainer forwards the reference with every batch; `true`: it takes the stored
    log-probabilities, as all methods here do."""


class TrlSequential:
    """Train each phase with TRL's trainer for it.

    The objective is the same whether DPOTrainer forwards the reference or is given its stored log-probabilities.
    """

    Options: ClassVar[type[BaseModel]] = TrlOptions
    needs: ClassVar[tuple[str, ...]] = ("reference",)
    untrained: ClassVar[str | None] = None
    reductions: ClassVar[tuple[str, ...]] = ("token_mean",)

    def __init__(self, options: TrlOptions) -> None:
        self._options = options

    @staticmethod
    def refuses(options: TrlOptions, parts: TrainingParts) -> str | None:
        """Name the settings under which TRL would train or compare with something else."""
        lora = parts.adapter
        if lora is None and parts.model.dtype != "float32":
            return (
                "model.dtype: TRL takes AdamW's steps on bfloat16 weights themselves, which rounds most of them away; with "
                "model.tuning full give float32 for trl_sequential"
            )
        if lora and lora.moves_weights and not options.precompute_reference:
            return (
                f"lora.init: with {lora.init} the weights beside the adapter are not the base model's, and TRL's DPOTrainer "
                "would forward the reference on them; give trl_sequential precompute_reference: true"
            )
        return None

    def produce(self, making: Making) -> None:
        from bench.quiet import quiet
        from bench.recipes import trl_trainers

        labels = making.steps.run.job.run_labels
        phase_steps = labels.phase_steps or {}
        suite = making.steps.run.suite
        making.policy.attach(suite.adapter, making.seed, model_dropout=suite.training.model_dropout)
        with quiet("trl", "transformers", "accelerate", "datasets", "peft"), making.steps as steps:
            steps.evaluate(both_splits=True)
            for phase, name in enumerate(labels.order.split("_")):
                count = phase_steps[name]
                if not count:
                    continue
                part = trl_trainers.Phase(steps, phase, count)
                if Objective(name) is Objective.SFT:
                    trl_trainers.sft(part)
                else:
                    trl_trainers.dpo(part, making.adapters.get("reference"), self._options.precompute_reference)
