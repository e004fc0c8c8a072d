"""Shrink any suite so that all of it runs in a minute or two: `bench run SUITE --smoke`.

What a suite *does* stays: methods and their options, λ, order, phases, reference policy, reduction, which evaluations
run. What it *costs* goes: a tiny untrained model of the same architecture stands in for the base model, the built-in
world for the data and the questions, the rule judge for the judge; an epoch is one or two steps. So a smoke needs no
network and no key, and its figures measure nothing.
"""

from __future__ import annotations

from typing import Any

from bench.settings import Data, PerObjective, Reference, Training
from bench.suite.suite import Evaluation, Experiment, Suite
from bench.suite.toy import Horizon, ToySuite

SUFFIX = "--smoke"
BATCH = 2
EPOCHS = 6  # up to here an epoch is two steps, beyond it one
STEPS = 8
TOKENS = 64
TOY_CUT = 25


def shrink(suite: Experiment) -> Experiment:
    """Return the smoke form of a suite, named `<suite>--smoke`. A smoke stays as it is; a toy only runs fewer steps."""
    if suite.smoke:
        return suite
    if isinstance(suite, ToySuite):
        return _toy(suite)
    assert isinstance(suite, Suite)
    model: dict[str, Any] = {"source": "random", "path": None, "revision": None, "dtype": "float32"}
    model |= {"gradient_checkpointing": False, "compile": "off"}
    small = suite.model_copy(
        update={
            "name": suite.name + SUFFIX,
            "notes": (),  # they speak of the real data and judge; the report puts a banner of its own on a smoke
            "model": suite.model.model_copy(update=model),
            "data": _data(suite),
            "training": _training(suite),
            "reference": _reference(suite.reference),
            "seeds": suite.seeds[:1],
            "evaluation": _evaluation(suite.evaluation),
        }
    )
    return Suite.model_validate({**small.model_dump(), "smoke": True})


def _toy(suite: ToySuite) -> ToySuite:
    """Cut each T, the steps of the reference policy and the seeds."""
    horizons = {
        max(2, one.steps // TOY_CUT): Horizon(steps=max(2, one.steps // TOY_CUT)) for one in suite.training.horizons
    }
    reference = suite.problem.reference
    if reference.steps:
        reference = reference.model_copy(update={"steps": max(1, reference.steps // TOY_CUT)})
    small = suite.model_copy(
        update={
            "name": suite.name + SUFFIX,
            "notes": (),
            "problem": suite.problem.model_copy(update={"reference": reference}),
            "training": suite.training.model_copy(update={"horizons": tuple(horizons.values())}),
        }
    )
    return ToySuite.model_validate({**small.model_dump(), "smoke": True})


def _rows(suite: Suite) -> int:
    """Return rows a set: one or two batches."""
    return BATCH if (suite.training.epochs or 0) > EPOCHS else 2 * BATCH


def _data(suite: Suite) -> Data:
    data, rows = suite.data, _rows(suite)
    world: dict[str, Any] = {"source": "world", "path": None, "revision": None, "rows": rows, "evaluation_rows": rows}
    return data.model_copy(
        update={
            "preference": data.preference.model_copy(update=world),
            "instruction": data.instruction.model_copy(update=world),
            "max_prompt_tokens": min(data.max_prompt_tokens, TOKENS),
            "max_answer_tokens": min(data.max_answer_tokens, TOKENS),
        }
    )


def _training(suite: Suite) -> Training:
    """Shorten the runs; epochs that `phases` count are kept, and so is gradient accumulation."""
    training = suite.training
    epochs = training.epochs if suite.phases or not training.epochs else min(training.epochs, EPOCHS)
    steps = min(training.steps, STEPS) if training.steps else None
    micro = PerObjective(dpo=1, sft=1) if training.micro_batch_size else None
    return training.model_copy(
        update={
            "epochs": epochs,
            "steps": steps,
            "batch_size": PerObjective(dpo=BATCH, sft=BATCH),
            "micro_batch_size": micro,
            "warmup_steps": min(training.warmup_steps, 1),
            "evaluate_every": min(training.evaluate_every, 4),
        }
    )


def _reference(reference: Reference) -> Reference:
    """Keep which settings the reference policy has of its own; another suite's policy has not this tiny model."""
    return reference.model_copy(
        update={
            "policy": "sft" if reference.job else reference.policy,
            "rows": reference.rows and 3 * BATCH,
            "batch_size": reference.batch_size and BATCH,
            "epochs": reference.epochs and min(reference.epochs, 2),
        }
    )


def _evaluation(evaluation: Evaluation) -> Evaluation:
    """Keep which evaluations there are; each says how it asks little."""
    asked = {name: one.smoke() for name, one in evaluation.chosen.items()}
    return Evaluation.model_validate({"devices": evaluation.devices, **asked})
