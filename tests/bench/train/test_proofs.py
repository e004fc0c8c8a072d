"""Proofs on the language-model loop: what the paper's equations say of whole runs, and what TRL's own trainers do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.methods import METHODS, Choice, Objective, Setup
from bench.records import record
from bench.suite.suite import Suite
from bench.train.loop import Trainer, TrainingRun

LAMBDA_DPO = 0.25
TinySuite = Callable[..., Suite]


def adapter(job: record.Job) -> dict[str, Tensor]:
    return dict(load_file(job.path / "adapter" / "adapter_model.safetensors"))


# ---- Eq. 11: ALRIGHT is Mix in expectation ---------------------------------------------------------------------------


class Gradients:
    """Compute gradients of a run at its first step, θ_1, where no optimizer moves it on."""

    def __init__(self, runner: Any, method: str) -> None:
        job = runner.job(method)
        runner.needs(method)
        base = runner.context.base(runner.suite.model, None)
        logps = record.read_json(runner.context.job_folder(job.inputs.reference_logps) / "reference_logps.json")
        rows = runner.context.datasets(base.tokenizer, {})
        batch_size = runner.suite.training.batch_size
        self.make = lambda: Trainer(TrainingRun(job, runner.suite, runner.folder, base, rows, batch_size, logps))
        self.restart()

    def restart(self) -> None:
        """Start again at the first batches."""
        self.trainer = self.make()
        self.trainer.row = {"probe_seconds": 0.0}
        # B starts at 0, where A's gradient vanishes; move off that point so that both factors take part.
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in self.trainer.parameters:
                parameter.add_(0.1 * torch.randn_like(parameter))

    def of(self, choice: Choice) -> Tensor:
        """Return the gradient of the next batches under a choice, as one vector."""
        self.trainer.descend(choice)
        made = torch.cat([parameter.grad.flatten() for parameter in self.trainer.parameters])  # type: ignore[union-attr]
        for parameter in self.trainer.parameters:
            parameter.grad = None
        return made.double()


def method(name: str, lambda_dpo: float = LAMBDA_DPO) -> Any:
    half = dict.fromkeys(Objective, 1)
    setup = Setup(lambda_dpo, 2, 0, half, (Objective.SFT, Objective.DPO), {})
    return METHODS[name](setup, METHODS[name].Options.model_validate({}))


def no_probe(objective: Objective) -> float:
    raise AssertionError(f"{objective} was probed")


@pytest.fixture
def gradients(tiny: TinySuite, run_plan: Any) -> Gradients:
    return Gradients(run_plan(tiny(methods=["mix"], lambdas=[LAMBDA_DPO])), "mix")


def test_alrights_expected_gradient_is_mixs(gradients: Gradients) -> None:
    """Eq. 11: E over i_t ~ Bernoulli(λ) of ALRIGHT's gradient on given batches = λ ∇f_DPO + (1 − λ) ∇f_SFT = Mix's.

    The two outcomes are the two choices that ALRIGHT itself makes; each is weighted with its probability.
    """
    alright = method("alright")
    outcomes = {tuple(choice.weights): choice for choice in (alright.choose(step, no_probe) for step in range(1, 101))}
    assert set(outcomes) == {(Objective.DPO,), (Objective.SFT,)}
    expected: Any = 0.0
    for (objective,), choice in outcomes.items():
        probability = LAMBDA_DPO if objective is Objective.DPO else 1 - LAMBDA_DPO
        gradients.restart()  # either outcome meets the batch that Mix meets
        expected = expected + probability * gradients.of(choice)
    gradients.restart()
    mix = gradients.of(method("mix").choose(1, no_probe))
    assert mix.norm() > 0.01
    torch.testing.assert_close(expected, mix, rtol=1e-5, atol=1e-6 * float(mix.norm()))


def test_alrights_mean_gradient_over_many_draws_is_mixs(gradients: Gradients) -> None:
    """The mean of N = 600 draws of (i_t, batch) lies at Mix's gradient over all rows, within sampling error.

    The squared distance of the mean has expectation s² / N at most, s² the spread of single draws; 6 s² / N is far in
    its tail. Mix with the weights exchanged lies farther away than that, so the check can fail.
    """
    epoch = 3  # batches of either objective in an epoch of 6 pairs or 12 rows
    of_mix = {}
    for lambda_dpo in (LAMBDA_DPO, 1 - LAMBDA_DPO):
        gradients.restart()
        choice = method("mix", lambda_dpo).choose(1, no_probe)
        of_mix[lambda_dpo] = torch.stack([gradients.of(choice) for _ in range(epoch)]).mean(0)
    gradients.restart()
    alright = method("alright")
    draws = torch.stack([gradients.of(alright.choose(step, no_probe)) for step in range(1, 601)])
    mean = draws.mean(0)
    allowed = 6 * float((draws - mean).square().sum(1).mean()) / len(draws)
    assert float((mean - of_mix[LAMBDA_DPO]).square().sum()) < allowed
    assert float((mean - of_mix[1 - LAMBDA_DPO]).square().sum()) > allowed


# ---- the ends of λ ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lambda_dpo", "objective"), [(0.0, Objective.SFT), (1.0, Objective.DPO)])
def test_at_the_ends_of_lambda_every_method_is_the_objective_alone(
    tiny: TinySuite, run_plan: Any, lambda_dpo: float, objective: Objective
) -> None:
    """λ = 0 is SFT alone and λ = 1 DPO alone: steps, final values and adapter equal the optimum's, bit for bit.

    With dropout, so that a forward pass too many would be seen in the random numbers, and two micro-batches a batch.
    """
    settings = tiny(
        lora={"rank": 2, "alpha": 4, "dropout": 0.2, "targets": ["q_proj", "v_proj"]},
        training=tiny().training.model_dump() | {"micro_batch_size": {"dpo": 1, "sft": 2}},
        methods=[
            "sequential",
            "mix",
            "alright",
            "maxright",
            {"name": "mix", "backward": "accumulate", "label": "mix2"},
        ],
        lambdas=[lambda_dpo],
    )
    runner = run_plan(settings)
    alone = runner.run(f"{objective}-optimum")
    losses = [row["losses"] for row in alone.rows("steps")]
    assert len(losses) == 6
    assert len({loss[str(objective)] for loss in losses}) == 6
    weights = adapter(alone)
    runs = [job for job in runner.plan.jobs.values() if "run" in job.roles]
    assert [job.run_labels.method for job in runs] == ["sequential", "mix", "alright", "maxright", "mix2"]
    for job in runs:
        made, shown = runner.run(job.id), job.run_labels.method
        assert [row["losses"] for row in made.rows("steps")] == losses, shown
        assert not any("probes" in row for row in made.rows("steps"))
        own = adapter(made)
        assert own.keys() == weights.keys()
        assert all(torch.equal(own[name], weights[name]) for name in weights), shown
        for name in (f"f_{objective}/held_out", f"f_{objective}/train"):
            assert made.scores[name] == alone.scores[name]


# ---- TRL -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "reference", "training", "options"),
    [
        ("sft_dpo", {"policy": "sft", "epochs": 1}, {}, {}),
        (
            "dpo_sft",
            {"policy": "base"},
            {
                "micro_batch_size": {"dpo": 1, "sft": 2},
                "schedule": "linear",
                "warmup_steps": 3,
                "max_grad_norm": None,
                "weight_decay": 0.1,
            },
            {},
        ),
        ("sft_dpo", {"policy": "sft"}, {"schedule": "cosine", "max_grad_norm": 0.05}, {"precompute_reference": True}),
    ],
    ids=["as the suites have it", "every setting another", "stored log-probabilities"],
)
def test_trls_two_trainers_give_sequentials_loss_curve(
    tiny: TinySuite,
    run_plan: Any,
    order: str,
    reference: dict[str, Any],
    training: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """TRL's trainers one after the other, 10 steps each, against our Sequential of 10 and 10: losses and learning rates.

    In the first case π_ref is what phase 1 ends at, so that DPO's first loss must be log 2; in the second it is the base
    model, where DPO starts. In the third it is an SFT run twice as long.
    """
    settings = tiny(
        data={
            "preference": {"source": "world", "rows": 20, "evaluation_rows": 2},
            "instruction": {"source": "world", "rows": 40, "evaluation_rows": 2},
        },
        training=tiny().training.model_dump() | training,
        methods=["sequential", {"name": "trl_sequential", **options}],
        order=order,
        reference=reference,
    )
    runner = run_plan(settings)
    ours, theirs = (runner.run(name).rows("steps") for name in ("sequential", "trl-sequential"))
    first, second = order.split("_")
    assert [next(iter(row["losses"])) for row in ours] == [first] * 10 + [second] * 10
    for one, other in zip(ours, theirs, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-4), one["step"]
        assert one["learning_rate"] == pytest.approx(other["learning_rate"], rel=1e-9), one["step"]
    losses = {name: [row["losses"][name] for row in theirs if name in row["losses"]] for name in ("dpo", "sft")}
    starts_at_reference = "epochs" in reference or reference["policy"] == "base"
    assert math.isclose(losses["dpo"][0], math.log(2), rel_tol=1e-5) == starts_at_reference
    # The curves move by far more than the tolerance, in either phase.
    assert losses["sft"][0] - losses["sft"][9] > 0.01
    assert abs(losses["dpo"][0] - losses["dpo"][9]) > 0.01
