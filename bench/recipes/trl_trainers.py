"""TRL's two trainers on our rows: what `trl_sequential` runs. Imports TRL."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from bench.data.tokens import Example
from bench.errors import JobError
from bench.methods import Objective
from bench.models import full_weights
from bench.models.policy import ADAPTER
from bench.recipes.steps import Steps
from bench.train.batches import Batches
from bench.train.loop import TrainingRun

REFERENCE = "ref"  # TRL's name for the adapter that it takes for the reference
# What transformers calls it; some 5.x know the old name only
CHECKPOINTING = (
    "activation_checkpointing" if hasattr(SFTConfig, "activation_checkpointing") else "gradient_checkpointing"
)


@dataclass(frozen=True)
class Phase:
    """Say which steps a trainer takes: the phase's number, and how many."""

    steps: Steps
    number: int
    count: int


def sft(phase: Phase) -> None:
    """Let SFTTrainer train a phase; only answer tokens count, over all of the batch."""
    run = phase.steps.run
    order = batches(run, Objective.SFT, phase.count)
    arguments = SFTConfig(dataset_kwargs={"skip_prepare_dataset": True}, **_arguments(run, Objective.SFT, phase.count))
    rows = Dataset.from_list(list(sft_rows(run.datasets.train[Objective.SFT].examples)))
    trainer = _make(_Sft, phase, arguments, rows, order)
    trainer.add_callback(_Clock(phase, Objective.SFT, [_tokens(run, Objective.SFT, one) for one in order]))
    trainer.train()


def dpo(phase: Phase, reference: Path | None, precomputed: bool) -> None:
    """Let DPOTrainer train a phase.

    Args:
        phase: its steps.
        reference: folder of the job whose policy is π_ref; None: the base model.
        precomputed: take π_ref's log-probabilities from the plan's job instead of forwarding it with every batch.
    """
    run = phase.steps.run
    order = batches(run, Objective.DPO, phase.count)
    arguments = DPOConfig(
        beta=run.suite.objectives.beta,
        precompute_ref_log_probs=precomputed,
        **_arguments(run, Objective.DPO, phase.count),
    )
    rows = Dataset.from_list(list(dpo_rows(run.datasets.train[Objective.DPO].examples)))
    if precomputed:
        assert run.reference is not None
        for answer, values in run.reference["train"].items():
            rows = rows.add_column(f"ref_{answer}_logps", values)
    dropouts = {one: one.p for one in run.policy.model.modules() if isinstance(one, torch.nn.Dropout)}
    full = not run.policy.has_adapter
    more = {"ref_model": _reference_model(run, reference)} if full and not precomputed else {}
    trainer = _make(_Dpo, phase, arguments, rows, order, **more)
    if not full:
        _set_reference(run.policy.model, None if precomputed else reference)
    trainer.add_callback(_Clock(phase, Objective.DPO, [_tokens(run, Objective.DPO, one) for one in order]))
    trainer.train()
    if not full and REFERENCE in run.policy.model.peft_config:
        run.policy.model.delete_adapter(REFERENCE)
    for module, share in dropouts.items():  # DPOTrainer turns dropout off; an SFT phase may follow
        module.p = share


# ---- rows ------------------------------------------------------------------------------------------------------------


def batches(run: TrainingRun, objective: Objective, count: int) -> list[list[int]]:
    """Return the row numbers of a phase's batches, as they are dealt to the shared loop."""
    by_length = run.suite.training.group_by_length
    dealt = Batches(run.datasets, run.batch_size, run.job.run_labels.seed, group_by_length=by_length)
    return [dealt.to_descend(objective) for _ in range(count)]


def sft_rows(examples: list[Example]) -> Iterator[dict[str, Any]]:
    """Yield rows as SFTTrainer has them after its own preparation."""
    for one in examples:
        (answer,) = one.answers
        learned = set(one.learned())
        labels = [token if place in learned else -100 for place, token in enumerate(answer)]
        yield {"input_ids": [*one.prompt, *answer], "labels": [-100] * len(one.prompt) + labels}


def dpo_rows(examples: list[Example]) -> Iterator[dict[str, Any]]:
    """Yield rows as DPOTrainer has them after its own preparation."""
    for one in examples:
        if one.unlearned:
            raise JobError("TRL's DPO learns every token of an answer: it cannot leave out a user's turn within one")
        chosen, rejected = one.answers
        yield {"prompt_ids": list(one.prompt), "chosen_ids": list(chosen), "rejected_ids": list(rejected)}


def _tokens(run: TrainingRun, objective: Objective, rows: list[int]) -> int:
    """Count a batch's tokens as TRL forwards them: the prompt once for each answer."""
    examples = [run.datasets.train[objective].examples[row] for row in rows]
    return sum(len(one.prompt) + len(answer) for one in examples for answer in one.answers)


# ---- trainers --------------------------------------------------------------------------------------------------------


class _Given:
    """Take the rows in the order they come in, and leave out what reaches beyond them: TRL's report of its use."""

    train_dataset: Dataset

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def _send_telemetry(self) -> None:
        """Send nothing."""


class _Sft(_Given, SFTTrainer):  # type: ignore[misc]
    pass


class _Dpo(_Given, DPOTrainer):  # type: ignore[misc]
    """Take rows that are tokenized, and have their reference's log-probabilities where these are wanted."""

    def _prepare_dataset(self, dataset: Any, *arguments: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *arguments: Any) -> Any:
        return dataset


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Tell our records of each step.

    The clock runs from one step's record to the end of the next step, so that making a batch counts as in our loop; what
    is logged or evaluated does not.
    """

    def __init__(self, phase: Phase, objective: Objective, tokens: list[int]) -> None:
        self._phase, self._objective, self._tokens = phase, objective, tokens

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self._phase.steps.start_clock()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._phase.steps.stop_clock()

    def on_log(self, arguments: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" not in logs:  # the summary after the last step
            return
        tokens = self._tokens[state.global_step - 1]
        self._phase.steps.note(self._objective, self._phase.number, logs["loss"], logs["learning_rate"], tokens)
        if state.global_step < self._phase.count:
            self._phase.steps.start_clock()


def _make(kind: Any, phase: Phase, arguments: Any, rows: Dataset, order: list[list[int]], **more: Any) -> Any:
    """Set a trainer up on the policy.

    Raises:
        JobError: TRL refuses a setting.
    """
    policy = phase.steps.run.policy
    in_order = rows.select([row for batch in order for row in batch])
    try:
        trainer = kind(policy.model, args=arguments, train_dataset=in_order, processing_class=policy.tokenizer, **more)
    except ValueError as error:
        raise JobError(f"TRL cannot train this: {str(error).splitlines()[0]}") from error
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(run: TrainingRun, objective: Objective, count: int) -> dict[str, Any]:
    """Say in TRL's words what the suite says; what is not named here is TRL's default."""
    training, cpu = run.suite.training, run.policy.device.type == "cpu"
    batch_size = getattr(run.batch_size, objective)
    micro = getattr(training.micro_batch_size or run.batch_size, objective)
    return {
        "max_steps": count,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch_size // micro,
        "max_length": None,  # the rows come cut
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if training.schedule == "constant" else training.schedule,
        "warmup_steps": training.warmup_steps,
        "adam_beta1": training.adam_betas[0],
        "adam_beta2": training.adam_betas[1],
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm or 0.0,  # 0: not at all
        CHECKPOINTING: run.suite.model.gradient_checkpointing is True,
        "bf16": False,  # no mixed precision: the model is in the suite's dtype already
        "use_cpu": cpu,
        "dataloader_pin_memory": not cpu,
        "seed": run.job.run_labels.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is not finite must be seen
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "output_dir": str(run.folder),  # nothing is written there
    }


def _reference_model(run: TrainingRun, folder: Path | None) -> Any:
    """Return a second model with π_ref's weights, for a policy that has no adapter to put aside."""
    policy = run.policy
    model = copy.deepcopy(policy.model).requires_grad_(False).eval()
    full_weights.put_in(model, policy.kept)
    if folder is not None:
        full_weights.load(model, folder)
    return model


def _set_reference(model: Any, folder: Path | None) -> None:
    """Put π_ref's weights in the place of TRL's copy of the adapter it starts from; without a folder drop that copy.

    Without the copy TRL takes the model without adapters for the reference, unless it was given log-probabilities.
    """
    import peft

    if folder is None:
        model.delete_adapter(REFERENCE)
        return
    weights = peft.load_peft_weights(str(folder / ADAPTER), device="cpu")
    missing = peft.set_peft_model_state_dict(model, weights, adapter_name=REFERENCE)
    if missing.unexpected_keys:
        raise JobError(f"{folder / ADAPTER}: its tensors do not fit this adapter: {missing.unexpected_keys[:3]}")
