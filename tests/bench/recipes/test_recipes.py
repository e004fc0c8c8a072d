"""Recipes: weight interpolation against arithmetic on merged weights, in the plan, as a job and in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from older_records import unseal
from pydantic import ValidationError
from safetensors.torch import load_file

from bench.models import policy
from bench.plan import planner
from bench.recipes import RECIPES, Making
from bench.records import record, suite_record
from bench.run import execute, standing
from bench.settings import Lora
from bench.suite.suite import Method, Suite
from report import build

CPU = torch.device("cpu")
no_steps: Any = None  # of a recipe that does not train
TinySuite = Callable[..., Suite]


def random_adapter(base: policy.Policy, folder: Path, rank: int, alpha: int, seed: int) -> Path:
    """Save an adapter whose factors are both random, and return its folder."""
    base.attach(Lora(rank=rank, alpha=alpha, targets=("q_proj", "v_proj")), seed)
    with torch.no_grad():
        for parameter in base.trainable().values():
            parameter.normal_(std=0.3)
    base.save(folder)
    base.detach()
    return folder


def update(folder: Path, name: str, scale: float) -> torch.Tensor:
    """Return scale · B A of one module from an adapter's file."""
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.{name}.lora_{factor}.weight"] for factor in "AB")
    return scale * b @ a


def to_do(runner: Any) -> set[str]:
    states = standing.look(runner.plan, runner.folder).states
    return standing.to_do(runner.plan, runner.folder, set(runner.plan.jobs), states)


@pytest.mark.parametrize("lambda_dpo", [0.0, 0.25, 1.0])
def test_interpolation_adds_the_optimas_updates_of_the_weights(
    tiny: TinySuite, tmp_path: Path, lambda_dpo: float
) -> None:
    """Merged W = W_0 + λ (6/3) B_D A_D + (1 − λ) (2/2) B_S A_S: DPO's adapter of rank 3 and alpha 6, SFT's of 2 and 2.

    Averaging the factors instead of the products would give cross terms B_D A_S.
    """
    base = policy.load(tiny().model, CPU)
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    dpo = random_adapter(base, tmp_path / "dpo", rank=3, alpha=6, seed=1)
    sft = random_adapter(base, tmp_path / "sft", rank=2, alpha=2, seed=2)
    recipe = RECIPES["interpolation"](RECIPES["interpolation"].Options())
    recipe.produce(Making(base, lambda_dpo, 0, {"optimum_dpo": dpo, "optimum_sft": sft}, no_steps))
    base.save(tmp_path / "made")
    base.attach_saved(tmp_path / "made")  # what is saved is what counts
    merged = base.model.merge_and_unload().state_dict()
    changed = [name for name in before if not torch.equal(merged[name], before[name])]
    assert len(changed) == 2 * base.model.config.num_hidden_layers
    for name in changed:
        module = name.removesuffix(".weight")
        expected = before[name] + lambda_dpo * update(dpo, module, 2) + (1 - lambda_dpo) * update(sft, module, 1)
        torch.testing.assert_close(merged[name], expected, atol=1e-6, rtol=1e-5)


def test_the_base_model_is_as_before_when_the_sum_is_taken_off(tiny: TinySuite, tmp_path: Path) -> None:
    base = policy.load(tiny().model, CPU)
    ids = torch.tensor([[5, 11, 3, 17]])
    before = base.logits(ids)
    folders = [random_adapter(base, tmp_path / str(seed), rank=2, alpha=2, seed=seed) for seed in (1, 2)]
    base.attach_sum({"one": (folders[0], 0.5), "two": (folders[1], 0.5)})
    assert not torch.allclose(base.logits(ids), before)
    base.detach()
    assert torch.equal(base.logits(ids), before)


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_a_recipe_needs_the_weights_of_its_seeds_optima(tiny: TinySuite) -> None:
    made = planner.make(tiny(methods=["interpolation"], seeds=[0, 1]))
    jobs = [job for job in made.jobs.values() if job.kind == "recipe"]
    assert [job.labels.seed for job in jobs] == [0, 1]
    for job in jobs:
        optima = [made.with_role(f"optimum_{name}", job.labels.seed) for name in ("dpo", "sft")]
        assert [one.id for one in optima if one] == list(job.needs_weights_of)
        assert set(job.needs_weights_of) < set(job.needs)
        assert job.roles == ("run",)
        assert job.steps == job.tokens == 0


def test_a_recipe_leaves_the_other_jobs_as_they_are(tiny: TinySuite) -> None:
    """The methods' jobs keep their ids; what is added is the recipe and its evaluations, and no optimizer step."""
    methods, evaluation = ["sequential", "maxright"], {"lm_eval": {"tasks": ["world_questions"]}}
    few = planner.make(tiny(methods=methods, evaluation=evaluation))
    many = planner.make(tiny(methods=[*methods, "interpolation"], evaluation=evaluation))
    added = [many.jobs[job].kind for job in many.jobs if job not in few.jobs]
    assert set(few.jobs) < set(many.jobs)
    assert added == ["recipe", "lm_eval"]
    assert many.optimizer_steps == few.optimizer_steps


def test_maxright_loads_no_weights_of_the_optima(tiny: TinySuite) -> None:
    """It reads f* only, so a results folder without weights is enough for it."""
    made = planner.make(tiny(methods=["maxright"]))
    job = next(job for job in made.jobs.values() if job.id.startswith("maxright"))
    assert job.needs_weights_of == ()


def test_an_optimum_without_weights_is_trained_again_for_a_recipe(tiny: TinySuite, run_plan: Any) -> None:
    runner = run_plan(tiny(methods=["interpolation"]))
    runner.needs("interpolation")
    optimum = runner.job("dpo-optimum").id
    recipe = runner.job("interpolation").id
    assert to_do(runner) == {recipe}
    (runner.context.job_folder(optimum) / "adapter").rename(runner.folder / "away")
    assert to_do(runner) == {recipe, optimum}


# ---- the table -------------------------------------------------------------------------------------------------------


def test_a_suite_may_name_a_recipe_but_give_it_no_option_of_a_method() -> None:
    assert Method(name="interpolation", lambdas=(0.1,)).shown == "interpolation"
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Method.model_validate({"name": "interpolation", "max_eval_every": 3})
    with pytest.raises(ValidationError, match="did you mean 'interpolation'"):
        Method(name="interpolatoin")


# ---- the job and the report ------------------------------------------------------------------------------------------


def test_a_recipe_is_recorded_evaluated_and_reported_like_the_rest(tiny: TinySuite, run_plan: Any) -> None:
    """At λ = 1 it is the DPO optimum: equal objective values and answers. It trained nothing, so its cost has no value.

    All in it costs what its parts did: both optima, of which SFT's is the reference too.
    """
    settings = tiny(
        methods=["sequential", "interpolation"],
        lambdas=[0.5, 1.0],
        evaluation={"lm_eval": {"tasks": ["world_questions"], "shots": 0, "limit": 4}},
    )
    runner = run_plan(settings)
    execute.write_suite(runner.plan, runner.folder)
    made = {job: runner.run(job) for job in runner.plan.jobs}
    whole = next(job for name, job in made.items() if name.startswith("interpolation-l1-"))
    optima = {
        name: next(job for one, job in made.items() if one.startswith(f"{name}-optimum")) for name in ("dpo", "sft")
    }
    for name, score in whole.scores.items():
        assert score["value"] == pytest.approx(optima["dpo"].scores[name]["value"], abs=1e-5), name
        assert score["n"] == 3
    questions = {name: job for name, job in made.items() if name.startswith("questions-")}
    choices = [
        [
            row["choice"]
            for row in next(job for name, job in questions.items() if name.startswith(start)).rows("samples")
        ]
        for start in ("questions-interpolation-l1-", "questions-dpo-optimum")
    ]
    assert choices[0] == choices[1]
    assert whole.measurements["training_seconds"] == {
        "value": None,
        "unit": "s",
        "reason": "no training of its own: the two optima's weights are added up",
    }
    assert whole.measurements["reload_difference"]["value"] <= 1e-5

    build.build(runner.folder)
    told = json.loads((runner.folder / "report.json").read_text())
    recipes = {(one["method"], one["lambda_dpo"]): one["figures"] for one in told["recipes"]}
    half = recipes["interpolation", 0.5]
    assert half["ideal_distance"]["mean"] is not None
    assert half["world_questions/acc"]["mean"] is not None
    assert (
        half["training_seconds"]["reason"]
        == half["runtime_increase_percent"]["reason"]
        == ("no training of its own: the two optima's weights are added up")
    )
    parts = [job.measurements["training_seconds"]["value"] for job in optima.values()]
    assert half["all_in_seconds"]["mean"] == pytest.approx(sum(parts))
    assert told["problems"] == []
    page = (runner.folder / "report.md").read_text()
    assert "interpolation at λ = 0.5" in page


def test_the_best_value_seen_counts_a_recipes_end(tiny: TinySuite, run_plan: Any) -> None:
    """A recipe has no trajectory; its final value still bounds the best seen, so no gap against that is negative."""
    from report.analysis.load import Results
    from report.analysis.tables import Tables

    runner = run_plan(tiny(methods=["interpolation"]))
    execute.write_suite(runner.plan, runner.folder)
    job = runner.run("interpolation")
    scores = job.scores
    scores["f_dpo/held_out"]["value"] = 0.01  # below anything that was trained
    record.write_json(job.path / "scores.json", scores)
    unseal(job.path)
    (found,) = suite_record.find_suites(runner.folder)
    tables = Tables(Results(found))
    assert tables.best_seen["dpo", 0].value == 0.01
    assert tables.recipes[0].estimate("best_seen_gap_dpo").mean == 0
