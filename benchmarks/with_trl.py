"""The other side: TRL's trainers at their best public settings, one step a turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from benchmarks import material
from benchmarks.sides import Turns


class OneStepATurn(TrainerCallback):  # type: ignore[misc]
    """Wait for a turn before each step; clock it from after its batch was made to after the optimizer."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.started = self.seconds = 0.0
        self.is_ready = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        if not self.is_ready:
            self.turns.ready({})
            self.is_ready = True
        self.turns.wait()
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock."""
        self.seconds = time.perf_counter() - self.started

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Hand the step back with its loss, which TRL tells after the step."""
        if "loss" in logs:
            self.turns.done({"seconds": self.seconds, "losses": {"": float(logs["loss"])}})


def lora() -> LoraConfig:
    """Return the same adapter as this project's side."""
    return LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "v_proj"])


def shared_arguments(folder: str, steps: int, batch_size: int) -> dict[str, Any]:
    """Return the settings that both of TRL's trainers share: AdamW and clipping as on our side, nothing else running.

    `activation_checkpointing` is TRL's default and costs a third forward pass, so it is off. `bf16` (autocast) is on by
    default too; off, a model works in the dtype it was loaded in, as on our side.
    """
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": 2 * batch_size,
        "activation_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "train_sampling_strategy": "sequential",  # the rows already stand in the other side's order
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "max_length": None,
        "seed": 0,
    }


def dpo(
    turns: Turns,
    source: dict[str, Any],
    pairs: Sequence[dict[str, str]],
    batch_size: int,
    folder: str,
    precompute: bool,
) -> None:
    """Take one step of DPOTrainer a turn on pairs of text in this order."""
    dpo_trainer(source, pairs, batch_size, folder, precompute, [OneStepATurn(turns)]).train()


def dpo_trainer(
    source: dict[str, Any],
    pairs: Sequence[dict[str, str]],
    batch_size: int,
    folder: str,
    precompute: bool,
    callbacks: Sequence[TrainerCallback],
) -> DPOTrainer:
    """Set DPOTrainer up; its reference is the base model, as on our side."""
    model, tokenizer = material.stock_model(source)
    arguments = DPOConfig(
        **shared_arguments(folder, len(pairs) // batch_size, batch_size),
        beta=0.1,
        precompute_ref_log_probs=precompute,
    )
    return DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(list(pairs)),
        processing_class=tokenizer,
        peft_config=lora(),
        callbacks=list(callbacks),
    )


def sft(
    turns: Turns, source: dict[str, Any], examples: Sequence[dict[str, list[int]]], batch_size: int, folder: str
) -> None:
    """Take one step of SFTTrainer a turn on tokenized rows in this order; only answers are learned."""
    sft_trainer(source, examples, batch_size, folder, [OneStepATurn(turns)]).train()


def sft_trainer(
    source: dict[str, Any],
    examples: Sequence[dict[str, list[int]]],
    batch_size: int,
    folder: str,
    callbacks: Sequence[TrainerCallback],
) -> SFTTrainer:
    """Set SFTTrainer up on rows that hold input_ids and completion_mask."""
    model, tokenizer = material.stock_model(source)
    arguments = SFTConfig(
        **shared_arguments(folder, len(examples) // batch_size, batch_size), completion_only_loss=True
    )
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(list(examples)),
        processing_class=tokenizer,
        peft_config=lora(),
        callbacks=list(callbacks),
    )


class AfterSteps(TrainerCallback):  # type: ignore[misc]
    """Call a function with the model before training, after every so many steps, and at the end.

    It is told whether this is where the whole run starts or ends: `first` and `last` say whether the trainer's does.
    """

    def __init__(self, every: int, then: Callable[[Any, bool], None], *, first: bool = True, last: bool = True) -> None:
        self.every, self.then, self.first, self.last = every, then, first, last

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Evaluate the start."""
        if self.first:
            self.then(model, True)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Evaluate where it is due."""
        at_end = state.global_step == args.max_steps
        if state.global_step % self.every == 0 or at_end:
            self.then(model, at_end and self.last)
