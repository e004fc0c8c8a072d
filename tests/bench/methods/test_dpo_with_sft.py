"""DPO with an SFT term on the chosen answers: by hand, at the ends of λ, and against TRL's own loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.data.tokens import load as load_data
from bench.methods import Choice, Objective
from bench.models import policy
from bench.models.objectives import collate, dpo_and_chosen_sums, sequence_logps, sft_divisor
from bench.records import record
from bench.suite.suite import Suite
from bench.train.batches import Cursor
from bench.train.loop import Trainer, TrainingRun

TinySuite = Callable[..., Suite]
CPU = torch.device("cpu")


def trainer_of(runner: Any) -> Trainer:
    """Return a trainer at θ_1, moved off the point where LoRA's A has no gradient."""
    job = runner.job("dpo-with-sft")
    runner.needs("dpo-with-sft")
    base = runner.context.base(runner.suite.model, None)
    logps = record.read_json(runner.context.job_folder(job.inputs.reference_logps) / "reference_logps.json")
    rows = runner.context.datasets(base.tokenizer, {})
    made = Trainer(TrainingRun(job, runner.suite, runner.folder, base, rows, runner.suite.training.batch_size, logps))
    made.row = {"probe_tokens": 0, "probe_seconds": 0.0, "tokens": 0, "padding_tokens": 0}
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def gradient(runner: Any, choice: Choice) -> torch.Tensor:
    trainer = trainer_of(runner)
    trainer.descend(choice)
    return torch.cat([parameter.grad.flatten() for parameter in trainer.parameters])  # type: ignore[union-attr]


def test_the_term_is_f_sft_on_the_chosen_answers(tiny: TinySuite, run_plan: Any) -> None:
    """Token mean: −Σ log π(y_w | x) over the batch's chosen answers, divided by their tokens."""
    trainer = trainer_of(run_plan(tiny(methods=["dpo_with_sft"])))
    rows = Cursor(Objective.DPO, 6, 2, 0).draw()
    examples = [trainer.run.datasets.train[Objective.DPO].examples[row] for row in rows]
    with torch.no_grad():
        logps = sequence_logps(trainer.policy.model, collate(examples, "plain", CPU)).view(-1, 2)
    trainer.descend(trainer.method.choose(1, lambda objective: 0.0))
    tokens = sum(len(example.answers[0]) for example in examples)
    assert sft_divisor(examples, "token_mean") == tokens
    assert trainer.row["chosen_sft"] == pytest.approx(-float(logps[:, 0].sum()) / tokens, abs=1e-5)


def test_the_gradient_is_the_weighted_sum_of_both(tiny: TinySuite, run_plan: Any) -> None:
    """λ ∇f_DPO + (1 − λ) ∇f_SFT(chosen), in one piece and in micro-batches."""
    runner = run_plan(tiny(name="whole", methods=["dpo_with_sft"]))
    dpo = gradient(runner, Choice({Objective.DPO: 1.0}))
    sft = gradient(runner, Choice({Objective.DPO: 0.0}, chosen_sft=1.0))
    both = gradient(runner, Choice({Objective.DPO: 0.25}, chosen_sft=0.75))
    assert float(sft.norm()) > 0.01
    torch.testing.assert_close(both, 0.25 * dpo + 0.75 * sft, rtol=1e-4, atol=1e-6)
    training = tiny().training.model_dump() | {"micro_batch_size": {"dpo": 1, "sft": 1}}
    parts = run_plan(tiny(name="parts", methods=["dpo_with_sft"], training=training))
    torch.testing.assert_close(
        gradient(parts, Choice({Objective.DPO: 0.25}, chosen_sft=0.75)), both, rtol=1e-4, atol=1e-6
    )


def test_at_lambda_1_it_is_dpo_alone(tiny: TinySuite, run_plan: Any) -> None:
    runner = run_plan(tiny(methods=["dpo_with_sft"], lambdas=[1.0]))
    alone = [row["losses"] for row in runner.run("dpo-optimum").rows("steps")]
    assert [row["losses"] for row in runner.run("dpo-with-sft").rows("steps")] == alone


def test_a_run_puts_the_term_on_record_at_every_step(tiny: TinySuite, run_plan: Any) -> None:
    job = run_plan(tiny(methods=["dpo_with_sft"])).run("dpo-with-sft")
    assert [row["weights"] for row in job.rows("steps")] == [{"dpo": 0.5}] * 6
    assert all(row["chosen_sft"] > 0 for row in job.rows("steps"))
    assert job.measurements["distinct_rows/sft"]["value"] == 0


# TRL asks transformers 5 for activation checkpointing by its old names
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
def test_trls_sigmoid_and_sft_loss_has_the_same_value(tiny: TinySuite, tmp_path: Path) -> None:
    """loss_type = [sigmoid, sft] with weights λ and 1 − λ, on one batch of 4 pairs; the reference is the base model."""
    import datasets
    from trl import DPOConfig, DPOTrainer

    class Prepared(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *arguments: Any) -> Any:
            return dataset

    settings = tiny()
    plain = policy.load(settings.model, CPU)
    examples = load_data(settings.data, plain.tokenizer, None).train[Objective.DPO].examples[:4]
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = [dict(zip(names, map(list, (one.prompt, *one.answers)), strict=True)) for one in examples]
    with torch.no_grad():
        reference = sequence_logps(plain.model, collate(examples, "plain", CPU)).view(-1, 2)
    plain.attach(settings.lora, 0)
    arguments = DPOConfig(
        output_dir=str(tmp_path),
        beta=0.1,
        loss_type=["sigmoid", "sft"],
        loss_weights=[0.25, 0.75],
        per_device_eval_batch_size=4,
        max_length=None,
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
    )
    dataset = datasets.Dataset.from_list(rows)
    trainer = Prepared(
        plain.model, args=arguments, train_dataset=dataset, eval_dataset=dataset, processing_class=plain.tokenizer
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in plain.trainable().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    trainer.model.eval()
    with torch.no_grad():
        theirs = float(trainer.compute_loss(trainer.model, dict(next(iter(trainer.get_eval_dataloader())))))
        logps = {"chosen": reference[:, 0], "rejected": reference[:, 1]}
        dpo, chosen = dpo_and_chosen_sums(plain.model, collate(examples, "shared_prompt", CPU), logps, 0.1)
    ours = 0.25 * float(dpo) / 4 + 0.75 * float(chosen) / sft_divisor(examples, "token_mean")
    assert ours == pytest.approx(theirs, abs=1e-4)
