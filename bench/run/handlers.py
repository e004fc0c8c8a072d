"""What each kind of job does, inside a worker process. One function a kind; `run` wraps them all."""

from __future__ import annotations

import logging
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.collectors import COLLECTORS
from bench.errors import (
    BenchError,
    DamagedInput,
    DiskFull,
    InputError,
    Interrupted,
    JobError,
    PluginError,
    is_full,
    is_transient,
    one_line,
)
from bench.evaluators import EVALUATORS, Evaluator, Outcome, StageContext
from bench.methods import Objective
from bench.plan.identity import SEMANTICS
from bench.plugins import ADVICE
from bench.records import record, safe_files, seal
from bench.records.spec import JobSpec
from bench.run import inputs, ranks, space
from bench.run.context import WorkerContext
from bench.settings import PerObjective

if TYPE_CHECKING:
    from bench.data.tokens import Datasets

# For which a worker waits for one that is gone and does not know it yet, such as on a node that was cut off.
_LEAVING_SECONDS = 120


def run(job: JobSpec, context: WorkerContext, attempts: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Run one job and leave its status behind, whatever happens.

    Args:
        job: which.
        context: what the worker keeps between jobs.
        attempts: how earlier attempts at it ended.

    Returns:
        The content of status.json.
    """
    from filelock import FileLock, Timeout

    folder = context.job_folder(job.id)
    lock = FileLock(folder / ".lock", timeout=_LEAVING_SECONDS)
    try:
        safe_files.own_folder(folder)
        lock.acquire()
    except Timeout:
        message = f"the worker of an earlier attempt still holds {folder} after {_LEAVING_SECONDS} s"
        return {"outcome": record.FAILED, "error": Timeout.__name__, "message": message, "transient": True}
    except (OSError, NotImplementedError, InputError):  # what is wrong with the folder is said below
        pass
    try:
        return _attempt(job, context, attempts)
    finally:
        lock.release()


def _attempt(job: JobSpec, context: WorkerContext, attempts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    folder = context.job_folder(job.id)
    started = time.monotonic()
    context.healed.clear()
    context.resumed.clear()
    status: dict[str, Any] = {"schema": record.SCHEMA, "outcome": record.COMPLETE}
    try:
        safe_files.own_folder(folder)
        earlier = _earlier_environments(folder)
        seal.clear(folder)
        record.write_json(folder / "spec.json", spec(job, context, earlier))
        with _log_to(folder / "log.txt") as log:
            try:
                inputs.check(job, context)
                if job.resources.devices > 1:
                    ranks.run(job, context)
                else:
                    KINDS.get(job.kind, _evaluate)(job, context, folder)
                status["files"] = seal.of_files(folder)
            except Interrupted:
                raise
            except Exception:
                log.error("%s", traceback.format_exc())
                raise
    except Exception as error:
        status |= _of_error(error, job, context.folder)
    status |= {
        "seconds": round(time.monotonic() - started, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **({"first_of_kind": True} if _is_first(job, context) else {}),
        **({"attempts": list(attempts)} if attempts else {}),
        **({"healed": list(context.healed)} if context.healed else {}),
        **({"resumed": list(context.resumed)} if context.resumed else {}),
    }
    try:
        record.write_json(folder / "status.json", status)
        safe_files.flush_folder(folder)
    except OSError as error:
        status |= _of_error(error, job, context.folder)
    return status


def _is_first(job: JobSpec, context: WorkerContext) -> bool:
    """Say whether a job was the first of its kind in this process: its seconds are also those of imports and of loading.

    One that is split between processes starts them anew each time.
    """
    kind = (job.kind, job.stage)
    first = kind not in context.kinds and job.resources.devices <= 1
    context.kinds.add(kind)
    return first


def work_as_rank(job: JobSpec, context: WorkerContext) -> None:
    """Do a job's work together with other ranks; the first one logs it."""
    folder = context.job_folder(job.id)
    with _log_to(folder / "log.txt" if context.main else Path(os.devnull)) as log:
        try:
            KINDS.get(job.kind, _evaluate)(job, context, folder)
        except Interrupted:
            raise
        except Exception:
            log.error("rank %d: %s", context.rank, traceback.format_exc())
            raise


def _of_error(error: Exception, job: JobSpec, results: Path) -> dict[str, Any]:
    """Say how a job ended that did not become complete."""
    if isinstance(error, Interrupted):
        return {"outcome": record.STOPPED, "error": Interrupted.__name__, "message": str(error)}
    if is_full(error):
        return {"outcome": record.FAILED, "error": DiskFull.__name__, "message": str(space.full(results))}
    found: dict[str, Any] = {"outcome": record.FAILED, "error": type(error).__name__}
    if isinstance(error, DamagedInput):
        found["damaged_input"] = error.job
    if is_transient(error):
        found["transient"] = True
    if isinstance(error, BenchError):
        shows = f" (traceback in {job.id}/log.txt)" if isinstance(error, PluginError) else ""
        return found | {"message": f"{error}{shows}"}
    first = one_line((str(error).strip().splitlines() or ["no message"])[0], 300)
    what = first if found.get("transient") else f"internal error: {type(error).__name__}: {first}"
    return found | {"message": f"{what} (traceback in {job.id}/log.txt)"}


class _Clean(logging.Formatter):
    """Keep what others wrote, also in the tracebacks of their errors, from doing anything to the terminal that shows it."""

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).split("\n")
        return "\n".join(line[: len(line) - len(line.lstrip(" "))] + one_line(line) for line in lines)


def _earlier_environments(folder: Path) -> list[dict[str, Any]]:
    """Return where a job ran before, if it goes on from a checkpoint: its seconds are of those machines, too."""
    if not any((folder / "checkpoints").glob("*")) or not (folder / "spec.json").exists():
        return []
    try:
        earlier = record.read_json(folder / "spec.json")
    except InputError:  # damaged: written anew below
        return []
    found: list[dict[str, Any]] = earlier.get("environments") or [earlier["environment"]]
    return found


def spec(job: JobSpec, context: WorkerContext, earlier: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return a job's spec.json; `earlier` is where it ran before it went on."""
    devices: dict[str, Any] = {"devices": job.resources.devices} if job.resources.devices > 1 else {}
    if job.kind == "train" and context.suite.training.deterministic:
        devices["deterministic"] = True
    environment = context.environment | devices | {"started": datetime.now(UTC).isoformat(timespec="seconds")}
    return {
        "schema": record.SCHEMA,
        "id": job.id,
        "kind": job.kind,
        "suite": context.experiment.name,
        "smoke": context.experiment.smoke,
        "roles": list(job.roles),
        "labels": job.labels.as_dict() if job.labels else {},
        "settings": job.settings,
        "inputs": job.inputs.as_dict(),
        "prefix": {"job": job.prefix.job, "step": job.prefix.step} if job.prefix else None,
        "data": job.data,
        "semantics": SEMANTICS,
        **_code(job),
        "environment": environment,
        "environments": [*earlier, environment],
    }


def _code(job: JobSpec) -> dict[str, Any]:
    """Say whose code besides ours made the job's numbers, and whose measured what a training cost; nothing: all is ours."""
    found = {name: COLLECTORS.origin(name) for name in COLLECTORS} if job.kind in ("train", "recipe", "cost") else {}
    collectors = {name: origin.as_dict() for name, origin in found.items() if origin}
    made: dict[str, Any] = {"plugins": [dict(one) for one in job.plugins]} if job.plugins else {}
    return made | ({"collectors": collectors} if collectors else {})


@contextmanager
def _log_to(path: Path) -> Iterator[logging.Logger]:
    log = logging.getLogger("bench")
    log.setLevel(logging.INFO)
    propagate, log.propagate = log.propagate, False
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_Clean("%(asctime)s %(levelname)s %(message)s"))
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
    from bench.train.loop import TrainingRun, train

    policy = context.base_to_train(job.inputs.pretrained)
    own: dict[str, Any] = {name: job.settings[name] for name in ("sft_on_chosen", "sft_rows") if name in job.settings}
    datasets = context.datasets(policy.tokenizer, own)
    batch_size = context.suite.training.batch_size
    if own:
        batch_size = PerObjective(dpo=batch_size.dpo, sft=next(iter(own.values()))["batch_size"])
    train(
        TrainingRun(
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
            note_damage=context.note_damage,
            note_resumed=context.note_resumed,
            stopping=context.stopping,
            clock=context.clock,
            rule=inputs.rule(job, context),
        )
    )
    policy.detach()
    if context.environment["workers"] > 1 and context.main:
        measurements = _mark_shared(record.read_json(folder / "measurements.json"))
        record.write_json(folder / "measurements.json", measurements)


def _mark_shared(measurements: dict[str, Any]) -> dict[str, Any]:
    """Mark what other workers on the same machine have a part in."""
    from bench.train import run_log

    for metric in run_log.metrics():
        if metric.kind == "cost" and not metric.of_process and metric.name in measurements:
            measurements[metric.name]["shared_machine"] = True
    return measurements


def _cost(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    from bench.train import cost
    from bench.train.loop import TrainingRun

    policy = context.base_to_train(job.inputs.pretrained)
    cost.measure(
        TrainingRun(
            job=job,
            suite=context.suite,
            folder=folder,
            policy=policy,
            datasets=context.datasets(policy.tokenizer, {}),
            batch_size=context.suite.training.batch_size,
            tell=context.tell,
            stopping=context.stopping,
            clock=context.clock,
        )
    )
    policy.detach()


def _recipe(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    """Make a policy by other means than the shared loop, and write what a training job writes of it."""
    from bench.recipes import RECIPES, Making
    from bench.recipes.steps import Steps
    from bench.train import run_log
    from bench.train.loop import TrainingRun

    kind = RECIPES[job.settings["recipe"]]
    policy = context.base_to_train(job.inputs.pretrained)
    run = TrainingRun(
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
    made_by = job.inputs.as_dict()
    adapters = {name: context.job_folder(made_by[name]) for name in kind.needs if name in made_by}
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
            measurements = run_log.not_measured(kind.untrained)
            shared = {"shared_machine": True} if context.environment["workers"] > 1 else {}
            measurements["recipe_seconds"] = record.measured(seconds, "s", **shared)
        difference = run_log.save_policy(policy, run.datasets, folder)
    finally:
        policy.detach()
        if kind.untrained is None:
            context.forget(policy)
    measurements["reload_difference"] = record.measured(difference, "largest absolute difference of logits")
    record.write_json(folder / "measurements.json", measurements)
    record.write_json(folder / "scores.json", scores)
    record.write_metrics(folder, run_log.metrics())
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
    if context.main:
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
    if context.main:
        record.write_json(folder / "row_logps.json", {"objective": str(objective), "unit": "nats", "logps": logps})


def _adopt(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    """Take over the policy that a job of another suite in the same results folder trained."""
    from bench.train import run_log

    source = inputs.adopted(job, context.folder)
    for name in seal.weights_in(source):
        shutil.copytree(source / name, folder / name, dirs_exist_ok=True)
    reason = f"trained by another suite: {job.run_labels.method}"
    record.write_json(folder / "measurements.json", run_log.not_measured(reason))
    record.write_metrics(folder, run_log.metrics())


def _evaluate(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    """Run a stage of an evaluator for one policy, and write down what came of it."""
    name, evaluator = _evaluator_of(job.kind, context)
    pretrained = job.inputs.pretrained
    earlier = {name: _samples(context.job_folder(one)) for name, one in job.inputs.stages.items()}

    def datasets(prompts: int) -> Datasets:
        return context.datasets(context.tokenizer(pretrained), {}, prompts)

    outcome = evaluator.run(
        job.kind,
        StageContext(
            folder=folder,
            results=context.folder,
            mirror=context.mirror,
            data=context.suite.data,
            policy=lambda: context.policy_of(job),
            load=lambda model: context.base(model, pretrained),
            datasets=datasets,
            earlier={name: list(record.read_jsonl(rows)) for name, rows in earlier.items()},
            tell=context.say,
            stage=job.stage,
            stopping=context.stopping,
        ),
    )
    if not context.main:
        return
    _check_outcome(outcome, name, context)
    _samples(folder).unlink(missing_ok=True)
    record.append_jsonl(_samples(folder), outcome.rows)
    if outcome.facts is not None:
        record.write_json(folder / "data.json", outcome.facts)
    if outcome.scores:
        record.write_json(folder / "scores.json", outcome.scores)
        record.write_metrics(folder, outcome.metrics)
    if outcome.error is not None:
        raise outcome.error


def _evaluator_of(kind: str, context: WorkerContext) -> tuple[str, Evaluator]:
    """Find the evaluator that a kind of job is a stage of, and its name."""
    every = context.evaluators.items()
    return next((name, one) for name, (one, stages) in every if kind in {stage.kind for stage in stages})


def _check_outcome(outcome: Outcome, name: str, context: WorkerContext) -> None:
    """Refuse what cannot be put on record, or would take the place of a figure of training or of another evaluator.

    Raises:
        JobError: says whose it is.
    """
    from bench.evaluators import outcomes
    from bench.train import run_log

    whose = EVALUATORS.whose(name)
    problem = None if EVALUATORS.ours(name) else outcomes.wrong(outcome)
    if problem:
        raise JobError(f"{whose}: {problem}; {ADVICE}")
    taken = next((one for one in outcome.scores if one.split("/")[0] in run_log.own_names() | set(COLLECTORS)), None)
    if taken:
        raise JobError(f"{whose}: the score {taken!r} begins like a figure of training; give it a name of its own")
    for one, other in _scores_of_others(name, context):
        if one in outcome.scores:
            raise JobError(
                f"{whose}: the score {one!r} is one of {EVALUATORS.whose(other)} too; rename one, or leave one out"
            )


def _scores_of_others(name: str, context: WorkerContext) -> Iterator[tuple[str, str]]:
    """Yield the scores on record in the suite's folder that other evaluators of the suite gave, each with its evaluator."""
    kinds = {stage.kind: one for one, (_, stages) in context.evaluators.items() if one != name for stage in stages}
    for path in (context.folder / "jobs").iterdir() if kinds else ():
        if path.name not in context.scores:  # thousands of jobs are not read again for each
            try:
                other = record.read_job(path) if (path / "scores.json").exists() else None
                if other is None or not other.complete:
                    continue
                context.scores[path.name] = other.kind, tuple(other.scores)
            except InputError:  # damaged, and about to be made again
                continue
        kind, scores = context.scores[path.name]
        yield from ((score, kinds[kind]) for score in scores if kind in kinds)


def _samples(folder: Path) -> Path:
    return folder / "samples.jsonl"


def _toy(job: JobSpec, context: WorkerContext, folder: Path) -> None:
    from bench.toy import runs

    context.say(f"{job.steps} steps in all")
    runs.work(job.settings, folder)


KINDS: dict[str, Callable[[JobSpec, WorkerContext, Path], None]] = {
    "pretrain": _pretrain,
    "train": _train,
    "recipe": _recipe,
    "adopt": _adopt,
    "reference_logps": _compute_reference_logps,
    "row_optimum": _compute_row_optimum,
    "toy": _toy,
    "cost": _cost,
}
