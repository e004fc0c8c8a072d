"""What each kind of job does, inside a worker process. One function a kind; `run` wraps them all."""

from __future__ import annotations

import logging
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, Interrupted, JudgeError
from bench.methods import Objective
from bench.plan.identity import SEMANTICS
from bench.records import record
from bench.records.spec import JobSpec
from bench.run import inputs
from bench.run.context import WorkerContext
from bench.settings import PerObjective

if TYPE_CHECKING:
    from collections.abc import Iterator


def run(job: JobSpec, context: WorkerContext) -> dict[str, Any]:
    """Run one job and leave its status behind, whatever happens.

    Returns:
        The content of status.json.
    """
    folder = context.job_folder(job.id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").unlink(missing_ok=True)
    record.write_json(folder / "spec.json", spec(job, context))
    started = time.monotonic()
    status: dict[str, Any] = {"schema": record.SCHEMA, "outcome": record.COMPLETE}
    with _log_to(folder / "log.txt") as log:
        try:
            KINDS[job.kind](job, context, folder)
        except Interrupted as stop:
            status |= {"outcome": record.STOPPED, "error": "Interrupted", "message": str(stop)}
        except BenchError as error:
            log.error("%s", traceback.format_exc())
            status |= {"outcome": record.FAILED, "error": type(error).__name__, "message": str(error)}
        except Exception as error:
            log.error("%s", traceback.format_exc())
            first = str(error).strip().splitlines()[0][:300] if str(error).strip() else "no message"
            message = f"internal error: {type(error).__name__}: {first} (traceback in {job.id}/log.txt)"
            status |= {"outcome": record.FAILED, "error": type(error).__name__, "message": message}
    status |= {
        "seconds": round(time.monotonic() - started, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    record.write_json(folder / "status.json", status)
    return status


def spec(job: JobSpec, context: WorkerContext) -> dict[str, Any]:
    """Return a job's spec.json."""
    return {
        "schema": record.SCHEMA,
        "id": job.id,
        "kind": job.kind,
        "suite": context.experiment.name,
        "smoke": context.experiment.smoke,
        "roles": list(job.roles),
        "labels": job.labels,
        "settings": job.settings,
        "inputs": job.inputs,
        "prefix": {"job": job.prefix.job, "step": job.prefix.step} if job.prefix else None,
        "data": job.data,
        "semantics": SEMANTICS,
        "environment": context.environment | {"started": datetime.now(UTC).isoformat(timespec="seconds")},
    }


@contextmanager
def _log_to(path: Path) -> Iterator[logging.Logger]:
    log = logging.getLogger("bench")
    log.setLevel(logging.INFO)
    propagate, log.propagate = log.propagate, False
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield log
    finally:
        log.propagate = propagate
        log.removeHandler(handler)
        handler.close()


# ---- the kinds --------------------------------------------------------------------------------------------------------


def _pretrain(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    from bench.models import world_model

    facts = world_model.pretrain(job.steps, folder, context.say)
    record.write_json(folder / "measurements.json", {name: record.measured(value, "") for name, value in facts.items()})


def _train(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    from bench.train.loop import Run, train

    policy = context.base(context.suite.model, job.inputs.get("pretrained"))
    own: dict[str, Any] = {name: job.settings[name] for name in ("sft_on_chosen", "sft_rows") if name in job.settings}
    datasets = context.datasets(policy.tokenizer, own)
    batch_size = context.suite.training.batch_size
    if own:
        batch_size = PerObjective(dpo=batch_size.dpo, sft=next(iter(own.values()))["batch_size"])
    train(
        Run(
            job=job,
            suite=context.suite,
            folder=folder,
            policy=policy,
            datasets=datasets,
            batch_size=batch_size,
            reference=inputs.reference_logps(job, context),
            optimum=inputs.optimum(job, context),
            row_optimum=inputs.row_optimum(job, context),
            prefix=context.job_folder(job.prefix.job) if job.prefix else None,
            base_logps=context.base_logps(own),
            tell=context.tell,
            stopping=context.stopping,
            clock=context.clock,
            rule=inputs.rule(job, context),
        )
    )
    policy.detach()
    if context.environment["workers"] > 1:
        measurements = _mark_shared(record.read_json(folder / "measurements.json"))
        record.write_json(folder / "measurements.json", measurements)


def _mark_shared(measurements: dict[str, Any]) -> dict[str, Any]:
    """Mark what other workers on the same machine have slowed down."""
    for name in ("training_seconds", "probe_seconds", "cpu_utilization_percent", "energy_joules"):
        measurements.get(name, {})["shared_machine"] = True
    return measurements


def _recipe(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    """Make an adapter by other means than the shared loop, and write what a training job writes of it."""
    from bench.recipes import RECIPES, Making
    from bench.recipes.steps import Steps
    from bench.train.loop import Run
    from bench.train.run_log import save_adapter

    kind = RECIPES[job.settings["recipe"]]
    policy = context.base(context.suite.model, job.inputs.get("pretrained"))
    run = Run(
        job=job,
        suite=context.suite,
        folder=folder,
        policy=policy,
        datasets=context.datasets(policy.tokenizer, {}),
        batch_size=context.suite.training.batch_size,
        reference=inputs.reference_logps(job, context),
        tell=context.tell,
        clock=context.clock,
    )
    steps = Steps(run)
    adapters = {name: context.job_folder(job.inputs[name]) for name in kind.needs if name in job.inputs}
    recipe = kind(kind.Options.model_validate(job.settings["options"]))
    try:
        started = context.clock()
        recipe.produce(Making(policy, job.settings["lambda_dpo"], job.settings["seed"], adapters, steps))
        seconds = context.clock() - started
        if kind.untrained is None:
            scores = steps.evaluate(both_splits=True)
            measurements = steps.measurements()
            if context.environment["workers"] > 1:
                measurements = _mark_shared(measurements)
        else:
            scores = steps.scores("held_out") | steps.scores("train")
            units = {name: record.metric(name).unit for name in record.OF_TRAINING}
            measurements = {name: record.not_measured(unit, kind.untrained) for name, unit in units.items()}
            measurements["recipe_seconds"] = record.measured(seconds, "s")
        difference = save_adapter(policy, run.datasets, folder)
    finally:
        policy.detach()
        if kind.untrained is None:
            context.forget(policy)
    measurements["reload_difference"] = record.measured(difference, "largest absolute difference of logits")
    record.write_json(folder / "measurements.json", measurements)
    record.write_json(folder / "scores.json", scores)
    record.write_json(folder / "data.json", run.datasets.facts())


def _compute_reference_logps(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    from bench.models import held_out

    policy = context.policy_of(job)
    datasets = context.datasets(policy.tokenizer, {})
    size = 2 * (context.suite.training.micro_batch_size or context.suite.training.batch_size).dpo
    made = {}
    for split, rows in (("train", datasets.train), ("held_out", datasets.held_out)):
        context.say(f"reference log-probabilities of {len(rows[Objective.DPO].examples)} {split} pairs")
        chosen, rejected = held_out.answer_logps(policy, rows[Objective.DPO].examples, size).T.tolist()
        made[split] = {"chosen": chosen, "rejected": rejected}
    record.write_json(folder / "reference_logps.json", made)


def _compute_row_optimum(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    """Keep an optimum's log-probabilities of every training row of its objective."""
    from bench.models import held_out

    policy = context.policy_of(job)
    objective = Objective(job.settings["objective"])
    examples = context.datasets(policy.tokenizer, {}).train[objective].examples
    size = 2 * getattr(context.suite.training.micro_batch_size or context.suite.training.batch_size, objective)
    context.say(f"the optimum's log-probabilities of {len(examples)} training rows")
    logps = held_out.answer_logps(policy, examples, size).tolist()
    record.write_json(folder / "row_logps.json", {"objective": str(objective), "unit": "nats", "logps": logps})


def _adopt(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    """Take over the adapter that a job of another suite in the same results folder trained."""
    shutil.copytree(inputs.adopted(job, context.folder) / "adapter", folder / "adapter", dirs_exist_ok=True)
    reason = f"trained by another suite: {job.labels['method']}"
    measurements = {name: record.not_measured(record.metric(name).unit, reason) for name in record.OF_TRAINING}
    record.write_json(folder / "measurements.json", measurements)


def _lm_eval(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    from bench.evaluators import lm_eval

    settings = context.suite.evaluation.lm_eval
    assert settings is not None
    policy = context.policy_of(job)
    scores, rows = lm_eval.ask(policy, settings, context.mirror, context.say)
    _write_rows(folder, rows)
    record.write_json(folder / "data.json", lm_eval.facts(policy, settings, context.mirror, rows))
    record.write_json(folder / "scores.json", scores)


def _generate(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    from bench.evaluators import generation

    settings = context.suite.evaluation.win_rate
    assert settings is not None
    policy = context.policy_of(job)
    datasets = context.datasets(policy.tokenizer, {}, settings.prompts)
    prompts = [row.prompt for row in datasets.judged]
    limit = context.suite.data.max_prompt_tokens
    rows = generation.answer(policy, prompts, settings.generation, datasets.stop, limit, context.say)
    _write_rows(folder, rows)


def _judge(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    from bench.evaluators import win_rate
    from bench.judges.requests import Pair

    settings = context.suite.evaluation.win_rate
    assert settings is not None
    pretrained = job.inputs.get("pretrained")
    tokenizer = context.base(context.suite.model, pretrained).tokenizer
    datasets = context.datasets(tokenizer, {}, settings.prompts)
    answers = record.read_jsonl(context.job_folder(job.inputs["answers"]) / "samples.jsonl")
    pairs = [
        Pair(id=row["id"], instruction=pair.prompt, ours=row["answer"], theirs=pair.chosen)
        for row, pair in zip(answers, datasets.judged, strict=True)
    ]
    scores, rows = win_rate.judge(
        pairs,
        settings.judge,
        folder,
        lambda model: context.base(model, pretrained),
        context.say,
        others=lambda: context.folder.glob(win_rate.JOURNALS),
    )
    _write_rows(folder, rows)
    record.write_json(folder / "scores.json", scores)
    for name, score in scores.items():
        if score["value"] is None:
            # Failed, not complete: the next run asks only for the pairs that are missing.
            raise JudgeError(f"{name}: {score['reason']}; the same command asks again, only for the missing ones")


def _toy(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    from bench.toy import runs

    context.say(f"{job.steps} steps in all")
    runs.work(job.settings, folder)


def _write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "samples.jsonl").unlink(missing_ok=True)
    record.append_jsonl(folder / "samples.jsonl", rows)


KINDS: dict[str, Callable[[JobSpec, WorkerContext, Path], None]] = {
    "pretrain": _pretrain,
    "train": _train,
    "recipe": _recipe,
    "adopt": _adopt,
    "reference_logps": _compute_reference_logps,
    "row_optimum": _compute_row_optimum,
    "lm_eval": _lm_eval,
    "generate": _generate,
    "judge": _judge,
    "toy": _toy,
}
