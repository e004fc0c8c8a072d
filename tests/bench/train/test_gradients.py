"""Methods that look at both objectives' gradients: what they are told, what is descended, what is charged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from other_methods import Mgda, SteepestFirst
from torch import Tensor

from bench.methods import METHODS, Choice, NoOptions, Objective, Setup
from bench.records import record
from bench.records.softmax_pair import SoftmaxPair
from bench.run import handlers
from bench.suite.suite import Suite
from bench.toy import runs
from bench.train.loop import Trainer, TrainingRun

TinySuite = Callable[..., Suite]
Offer = Callable[..., None]
DPO, SFT = Objective.DPO, Objective.SFT


# ---- the toy ---------------------------------------------------------------------------------------------------------


def test_mgda_on_a_toy_takes_the_shortest_vector_between_two_gradients() -> None:
    """At θ = θ_ref = 0 either answer has probability ½, so g_D = −½ (2, 0) = (−1, 0) and g_S = −½ (−2, 4) = (1, −2).

    g_D·g_S = −1, |g_D|² = 1, |g_S|² = 5: the weight of DPO is (5 + 1) / (1 + 5 + 2) = 0.75, the vector
    0.75 (−1, 0) + 0.25 (1, −2) = (−0.5, −0.5), and with a rate of 0.5 θ becomes (0.25, 0.25).
    """
    features = {"chosen": (2.0, 0.0), "rejected": (0.0, 0.0), "target": (-2.0, 4.0), "other": (0.0, 0.0)}
    pair = SoftmaxPair(features, 1.0, (0.0, 0.0))
    told: list[Any] = []

    class Telling(Mgda):
        def choose(self, step: int, probe: Any) -> Choice:
            told.append(probe.gradients())
            return super().choose(step, probe)

    method = Telling(Setup(0.5, 1, 0, {DPO: 1, SFT: 0}, (DPO, SFT)), NoOptions())
    problem = {"start": (0.0, 0.0), "optimum": {"dpo": 0.0, "sft": 0.0}}
    settings = {"problem": problem, "method": "mix", "options": {}, "lambda_dpo": 0.5, "steps": 1, "threshold": None}
    settings |= {"phases": [["dpo", 1], ["sft", 0]], "learning_rate": 0.5, "weight_decay": 0.0}
    made = runs.descend(pair, method, settings, points=0)
    (found,) = told
    assert found.dot == pytest.approx(-1.0, abs=1e-15)
    assert found.norms == pytest.approx({DPO: 1.0, SFT: math.sqrt(5)}, rel=1e-15)
    assert found.losses == pytest.approx({DPO: math.log(2), SFT: math.log(2)}, rel=1e-15)
    assert made.theta == pytest.approx([0.25, 0.25], rel=1e-14)
    assert made.taken == {DPO: 1, SFT: 1}


# ---- language models -------------------------------------------------------------------------------------------------


def trainer(runner: Any, method: str) -> Trainer:
    """Return a trainer at its first step, off the point where B = 0 makes A's gradient vanish."""
    runner.needs(method)
    job, base = runner.job(method), runner.context.base(runner.suite.model, None)
    logps = record.read_json(runner.context.job_folder(job.inputs.reference_logps) / "reference_logps.json")
    rows, batch_size = runner.context.datasets(base.tokenizer, {}), runner.suite.training.batch_size
    made = Trainer(TrainingRun(job, runner.suite, runner.folder, base, rows, batch_size, logps))
    made.row = dict.fromkeys(("probe_seconds", "tokens", "probe_tokens", "padding_tokens"), 0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def by_autograd(made: Trainer, objective: Objective) -> Tensor:
    """Return an objective's gradient on the batch it was last asked about, in one vector, in double precision."""
    total: Any = sum(made.losses.of(part)[0] for part in made.parts(objective, made.batches.last[objective]))
    found = torch.autograd.grad(total, made.parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([one.flatten() for one in found]).double()


@pytest.mark.parametrize("micro", [None, {"dpo": 1, "sft": 1}])
def test_gradients_are_autograds_on_the_batches_that_are_then_descended(
    tiny: TinySuite, run_plan: Any, offer: Offer, monkeypatch: pytest.MonkeyPatch, micro: dict[str, int] | None
) -> None:
    """Inner product and norms by torch.autograd.grad on the whole batches; the step's gradient is their weighted sum.

    It goes back through no graph again: one backward pass a micro-batch (2 pairs and 4 rows make 2 + 4, or 1 + 1).
    """
    offer(METHODS, "mgda", Mgda)
    training = tiny().training.model_dump() | ({"micro_batch_size": micro} if micro else {})
    made = trainer(run_plan(tiny(methods=["mgda"], training=training)), "mgda")
    backward, passes = made.accelerator.backward, []
    monkeypatch.setattr(made.accelerator, "backward", lambda loss: passes.append(loss) or backward(loss))
    found = made.gradients()
    again = made.gradients()
    losses = made.descend(Choice({DPO: 0.3, SFT: 0.7}))
    assert len(passes) == (6 if micro else 2)
    dpo, sft = by_autograd(made, DPO), by_autograd(made, SFT)
    assert found.dot == pytest.approx(float(dpo @ sft), rel=1e-4, abs=1e-7)
    assert found.norms == pytest.approx({DPO: float(dpo.norm()), SFT: float(sft.norm())}, rel=1e-4)
    assert (again.dot, again.norms) == (found.dot, found.norms)
    assert losses == found.losses
    descended = torch.cat([one.grad.flatten() for one in made.parameters]).double()  # type: ignore[union-attr]
    torch.testing.assert_close(descended, 0.3 * dpo + 0.7 * sft, atol=1e-6, rtol=1e-4)


def test_what_gradients_cost_is_on_record(tiny: TinySuite, run_plan: Any, offer: Offer) -> None:
    """Tokens that a step descends count once, as those of training; what it took to choose is within its seconds."""
    offer(METHODS, "mgda", Mgda)
    runner = run_plan(tiny(methods=["mgda", "mix"]))
    made, mix = runner.run("mgda"), runner.run("mix")
    assert [row["tokens"] for row in made.rows("steps")] == [row["tokens"] for row in mix.rows("steps")]
    for row in made.rows("steps"):
        told, (dpo, sft) = row["gradients"], (row["gradients"]["norms"][name] ** 2 for name in ("dpo", "sft"))
        expected = min(1.0, max(0.0, (sft - told["dot"]) / (dpo + sft - 2 * told["dot"])))
        assert row["weights"]["dpo"] == pytest.approx(expected, rel=1e-9)
        assert 0 < told["seconds"] <= row["seconds"]
        assert row["probe_tokens"] == 0
    seconds = sum(row["gradients"]["seconds"] for row in made.rows("steps"))
    assert made.measurements["gradient_seconds"] == {"value": pytest.approx(seconds), "unit": "s"}
    assert "gradient_seconds" not in mix.measurements


def test_a_gradient_that_is_not_descended_is_a_probe(tiny: TinySuite, run_plan: Any, offer: Offer) -> None:
    """The other objective's batch is dropped with the step, as one that was probed in vain: rows and tokens say so."""
    offer(METHODS, "steepest", SteepestFirst)
    runner = run_plan(tiny(methods=["steepest", "mix"]))
    made, mix = runner.run("steepest"), runner.run("mix")
    assert {name for row in made.rows("steps") for name in row["weights"]} <= {"dpo", "sft"}
    for row, both in zip(made.rows("steps"), mix.rows("steps"), strict=True):
        assert len(row["weights"]) == 1
        assert row["tokens"] + row["probe_tokens"] == both["tokens"]
        assert row["tokens"] > 0 < row["probe_tokens"]
    dropped = {name: made.measurements[f"rows_probed_only/{name}"]["value"] for name in ("dpo", "sft")}
    assert dropped["dpo"] / 2 + dropped["sft"] / 4 == 6


def test_a_run_on_gradients_goes_on_after_an_interruption(tiny: TinySuite, run_plan: Any, offer: Offer) -> None:
    offer(METHODS, "mgda", Mgda)
    whole = run_plan(tiny(methods=["mgda"])).run("mgda")
    runner = run_plan(tiny(name="cut", methods=["mgda"]))
    runner.needs("mgda")
    seen: list[int] = []
    runner.context.tell = lambda message: seen.append(message.get("step", 0))
    runner.context.stopping = lambda: seen[-1:] == [3]
    assert handlers.run(runner.job("mgda"), runner.context)["outcome"] == record.STOPPED
    runner.context.stopping = lambda: False
    assert handlers.run(runner.job("mgda"), runner.context)["outcome"] == record.COMPLETE
    cut = record.read_job(runner.context.job_folder(runner.job("mgda").id))
    assert [row["losses"] for row in cut.rows("steps")] == [row["losses"] for row in whole.rows("steps")]
    assert cut.scores == whole.scores
