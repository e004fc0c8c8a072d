"""The plan: what is shared, what decides a job's id, what the estimate says."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.errors import InputError
from bench.methods import Objective
from bench.plan import identity, planner
from bench.suite.suite import Evaluation, Suite


def suite(**changes: Any) -> Suite:
    """Return a suite of 10 steps: 20 pairs and 40 rows in batches of 2 and 4, two epochs of 5."""
    settings: dict[str, Any] = {
        "name": "small",
        "model": {"source": "random"},
        "lora": {"rank": 2, "alpha": 2},
        "data": {
            "preference": {"source": "world", "rows": 10, "evaluation_rows": 4},
            "instruction": {"source": "world", "rows": 20, "evaluation_rows": 4},
            "max_prompt_tokens": 30,
            "max_answer_tokens": 10,
        },
        "training": {"epochs": 2, "batch_size": {"dpo": 2, "sft": 4}, "learning_rate": 1e-3},
        "methods": ["sequential", "mix", "alright", {"name": "maxright", "max_eval_every": 2}],
        "lambdas": [0.2, 0.5],
    }
    return Suite.model_validate(settings | changes)


def ids(made: planner.Plan) -> set[str]:
    return set(made.jobs)


def test_every_job_stands_after_what_it_needs() -> None:
    made = planner.make(suite(evaluation={"lm_eval": {}, "win_rate": {"prompts": 4, "judge": {"kind": "rule"}}}))
    seen: set[str] = set()
    for job in made.jobs.values():
        assert set(job.needs) <= seen
        seen.add(job.id)


def test_the_sft_optimum_is_the_reference_and_starts_every_sequential_run() -> None:
    """λ = 0.2 of 10 steps: 8 of SFT, shared, then 2 of DPO; λ = 0.5: 5 and 5."""
    made = planner.make(suite())
    optimum = made.with_role("optimum_sft")
    assert optimum is not None
    assert set(optimum.roles) == {"reference", "optimum_sft"}
    assert optimum.keep_steps == (5, 8)
    prefixes = [job.prefix for job in made.jobs.values() if "run" in job.roles and job.prefix]
    assert prefixes == [planner.Prefix(optimum.id, 8), planner.Prefix(optimum.id, 5)]


def test_the_other_order_shares_the_dpo_optimum() -> None:
    """λ = 0.2 of 10 steps in DPO-then-SFT: 2 shared steps of DPO."""
    made = planner.make(suite(order="dpo_sft", reference={"policy": "preference_chosen"}))
    optimum = made.with_role("optimum_dpo")
    assert optimum is not None
    assert optimum.keep_steps == (2, 5)
    reference = made.with_role("reference")
    assert reference is not None
    assert reference.roles == ("reference",)


def test_steps_are_counted_once() -> None:
    """Two optima of 10, Sequential 2 + 5 of its own, three joint methods × two λ × 10: 87 steps.

    Apart, the reference would be trained again (10) and each Sequential run would train its first phase (8 + 5): 110.
    """
    made = planner.make(suite())
    assert made.optimizer_steps == 87
    assert made.unshared_steps == 110


def test_a_schedule_that_knows_the_length_shares_no_prefix() -> None:
    made = planner.make(suite(training=suite().training.model_dump() | {"schedule": "cosine"}))
    assert all(job.prefix is None for job in made.jobs.values())


def test_optima_are_trained_per_seed_and_the_reference_once() -> None:
    made = planner.make(suite(seeds=[0, 1]))
    assert sum("optimum_sft" in job.roles for job in made.jobs.values()) == 2
    assert sum("reference" in job.roles for job in made.jobs.values()) == 1
    assert sum(job.kind == "reference_logps" for job in made.jobs.values()) == 1


def test_maxright_takes_the_optima_of_its_own_seed() -> None:
    made = planner.make(suite(seeds=[0, 1]))
    for job in made.jobs.values():
        if "run" in job.roles and job.run_labels.method == "maxright":
            for objective in Objective:
                assert made.jobs[job.inputs.optimum[objective]].run_labels.seed == job.run_labels.seed


def test_beta_changes_every_job_but_the_sft_optimum_and_the_reference_log_probabilities() -> None:
    one, other = planner.make(suite()), planner.make(suite(objectives={"beta": 0.5}))
    same = ids(one) & ids(other)
    assert {one.jobs[job].kind for job in same} == {"train", "reference_logps"}
    assert len(same) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"description": "words"},
        {"training": {"checkpoint_every": 1}},
        {"training": {"epochs": None, "steps": 10}},
        {"training": {"group_by_length": False}},
    ],
)
def test_what_changes_no_number_changes_no_id(change: dict[str, Any]) -> None:
    if "training" in change:
        change = {"training": suite().training.model_dump() | change["training"]}
    assert ids(planner.make(suite())) == ids(planner.make(suite(**change)))


@pytest.mark.parametrize(
    "change", [{"learning_rate": 2e-3}, {"weight_decay": 0.1}, {"max_grad_norm": None}, {"group_by_length": True}]
)
def test_what_changes_numbers_changes_every_training_job(change: dict[str, Any]) -> None:
    changed = suite(training=suite().training.model_dump() | change)
    assert not {one for one in ids(planner.make(suite())) & ids(planner.make(changed)) if "reference-logps" not in one}


def test_what_is_trained_of_the_model_is_in_the_ids_of_jobs_that_train() -> None:
    """At the defaults of keys younger than the first records it is as if they were not there; `lora` is not read with `full`."""
    plain, lora = ids(planner.make(suite())), {"rank": 2, "alpha": 2}
    assert ids(planner.make(suite(lora=lora | {"variant": "lora", "init": "default"}))) == plain
    assert ids(planner.make(suite(model={"source": "random", "tuning": "lora"}))) == plain
    full = {"source": "random", "tuning": "full"}
    others = [suite(lora=lora | {"variant": "dora"}), suite(lora=lora | {"init": "pissa"}), suite(model=full)]
    for one in others:
        assert not {job.id for job in planner.make(one).jobs.values() if job.kind == "train"} & plain
    assert ids(planner.make(suite(model=full, lora=None))) == ids(planner.make(suite(model=full)))


def test_a_pre_training_does_not_depend_on_what_is_trained_later() -> None:
    models = ({"source": "world", "tuning": one} for one in ("lora", "full"))
    first, second = (planner.make(suite(model=model)) for model in models)
    assert {job for job in first.jobs if job.startswith("pretrain")} == {
        job for job in second.jobs if job.startswith("pretrain")
    }


def test_more_methods_leave_the_others_as_they_are() -> None:
    few, many = planner.make(suite(methods=["mix"])), planner.make(suite())
    assert ids(few) <= ids(many)


def test_evaluations_cover_base_reference_optima_and_runs() -> None:
    """Base, two optima (one of them the reference), 4 methods × 2 λ: 11 policies."""
    made = planner.make(suite(evaluation={"lm_eval": {"tasks": ["world_questions"]}}))
    assert sum(job.kind == "lm_eval" for job in made.jobs.values()) == 11


def test_tokens_are_bounded_by_full_rows() -> None:
    """A DPO batch: 2 × (30 + 2 · 10) = 100 tokens; an SFT batch: 4 × (30 + 10) = 160. Mix takes both 10 times."""
    made = planner.make(suite())
    tokens = {
        job.labels.method: job.tokens
        for job in made.jobs.values()
        if "run" in job.roles and job.labels.lambda_dpo == 0.5
    }
    assert tokens == {"sequential": 1300, "mix": 2600, "alright": 1300, "maxright": 1300}


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys; from bench.plan import planner; from bench.suite import yaml_file; "
        "planner.make(yaml_file.load('quickstart')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_label_is_no_part_of_what_makes_a_run(tiny: Callable[..., Suite]) -> None:
    """Renamed, a method's runs are the same jobs; two names for one run are refused, two settings under names are not."""
    plain = planner.make(tiny(methods=["mix"]))
    named = planner.make(tiny(methods=[{"name": "mix", "label": "both losses"}]))
    assert list(plain.jobs) == list(named.jobs)
    with pytest.raises(InputError, match=r"'mix' and 'mix2' are the same run \(mix-l0\.5-s0-\w+\) under two labels"):
        planner.make(tiny(methods=["mix", {"name": "mix", "label": "mix2"}]))
    both = planner.make(tiny(methods=["mix", {"name": "mix", "label": "mix2", "backward": "accumulate"}]))
    assert sum(job.id.startswith("mix-l0.5-s0") for job in both.jobs.values()) == 2


def test_a_front_of_many_runs_is_hashed_once_to_the_same_id() -> None:
    """Its members stand between those of other inputs, in the order of keys; 12 jobs, so that front_10 precedes front_2."""
    front = {f"front_{place}": f"job-{place}" for place in range(1, 13)}
    others = {"optimum_dpo": "a", "policy": "b", "earlier": "c"}
    whole = identity.content_hash(["train", {**others, **front}, {"x": 1}])
    assert (
        identity.content_hash(["train", {**others, identity.FRONT: None}, {"x": 1}], identity.as_json(front)) == whole
    )
    assert identity.content_hash(["train", others, {"x": 1}]) != whole


def test_planning_takes_time_that_grows_with_the_jobs_alone() -> None:
    """Every run of `mix` is held against all of ALRIGHT's; making these anew for each took a minute where now it is 2 s."""
    lambdas = [place / 400 for place in range(400)]
    small = suite(lambdas=lambdas, methods=["alright", "mix"], seeds=[0, 1, 2])
    stopping = small.training.stopping.model_copy(update={"rule": "dominates"})
    training = small.training.model_copy(update={"stopping": stopping})
    started = time.process_time()
    made = planner.make(small.model_copy(update={"training": training, "evaluation": Evaluation()}))
    assert sum("run" in job.roles for job in made.jobs.values()) == 2 * 400 * 3
    assert time.process_time() - started < 15
