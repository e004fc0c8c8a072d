"""What each kind of job does, inside a worker process. One function a kind; `run` wraps them all."""

from __future__ import annotations

import gc
import logging
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import inputs, record
from bench.errors import BenchError, Interrupted, JudgeError
from bench.identity import SEMANTICS
from bench.methods import Objective
from bench.plan import PlannedJob
from bench.settings import Model, PerObjective
from bench.suite import Experiment, Suite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.data import Datasets
    from bench.evaluators import held_out
    from bench.policy import Policy


@dataclass
class Desk:
    """Hold what a worker keeps between jobs: the base models it has loaded and the data it has tokenized."""

    experiment: Experiment
    folder: Path
    mirror: Path | None
    device: str
    environment: dict[str, Any]
    tell: Callable[[dict[str, Any]], None]
    stopping: Callable[[], bool]
    _policies: dict[Any, Policy] = field(default_factory=dict)
    _datasets: dict[Any, Datasets] = field(default_factory=dict)
    _base_logps: dict[str, held_out.OfSplits] = field(default_factory=dict)

    @property
    def suite(self) -> Suite:
        """The suite of a job that trains or evaluates language models."""
        assert isinstance(self.experiment, Suite)
        return self.experiment

    def job_folder(self, job_id: str) -> Path:
        return self.folder / "jobs" / job_id

    def base(self, settings: Model, pretrained: str | None) -> Policy:
        """Return a base model without adapter, loaded once."""
        import torch

        from bench import policy

        key = (settings, pretrained)
        if key not in self._policies:
            self.say(f"loading {settings.path or settings.source}")
            where = self.job_folder(pretrained) if pretrained else None
            self._policies[key] = policy.load(settings, torch.device(self.device), where)
        self._policies[key].detach()
        return self._policies[key]

    def forget(self, policy: Policy) -> None:
        """Drop a base model on which another library has left its changes; the next job loads it anew."""
        self._policies = {key: one for key, one in self._policies.items() if one is not policy}
        gc.collect()  # trainers hold models in cycles, and two base models may not fit on a device

    def policy_of(self, job: PlannedJob) -> Policy:
        """Return the policy a job evaluates: the base, or the base with the input's adapter."""
        base = self.base(self.suite.model, job.inputs.get("pretrained"))
        if "policy" in job.inputs:
            base.attach_saved(self.job_folder(job.inputs["policy"]))
        return base

    def datasets(self, tokenizer: Any, own: dict[str, Any], judged: int = 0) -> Datasets:
        """Return the tokenized data; `own` holds a reference policy's departures from the suite's data."""
        from bench import data

        key = (repr(sorted(own.items())), judged)
        if key not in self._datasets:
            self.say("reading and tokenizing the data")
            settings = self.suite.data
            on_chosen, sft_rows = own.get("sft_on_chosen"), own.get("sft_rows")
            if on_chosen:
                preference = settings.preference.model_copy(update={"rows": on_chosen["rows"]})
                settings = settings.model_copy(update={"preference": preference})
            if sft_rows:
                instruction = settings.instruction.model_copy(update={"rows": sft_rows["rows"]})
                settings = settings.model_copy(update={"instruction": instruction})
            self._datasets[key] = data.load(
                settings, tokenizer, self.mirror, sft_on_chosen=bool(on_chosen), judged=judged
            )
        return self._datasets[key]

    def base_logps(self, own: dict[str, Any]) -> held_out.OfSplits:
        """Return where the untrained policy's log-probabilities on this worker's evaluation rows are kept."""
        return self._base_logps.setdefault(repr(sorted(own.items())), {})

    def say(self, text: str) -> None:
        """Log a line and show it as the job's present activity."""
        logging.getLogger("bench").info(text)
        self.tell({"text": text})


def run(job: PlannedJob, desk: Desk) -> dict[str, Any]:
    """Run one job and leave its status behind, whatever happens.

    Returns:
        The content of status.json.
    """
    folder = desk.job_folder(job.id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").unlink(missing_ok=True)
    record.write_json(folder / "spec.json", spec(job, desk))
    started = time.monotonic()
    status: dict[str, Any] = {"schema": record.SCHEMA, "outcome": record.COMPLETE}
    with _log_to(folder / "log.txt") as log:
        try:
            KINDS[job.kind](job, desk, folder)
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


def spec(job: PlannedJob, desk: Desk) -> dict[str, Any]:
    """Return a job's spec.json."""
    return {
        "schema": record.SCHEMA,
        "id": job.id,
        "kind": job.kind,
        "suite": desk.experiment.name,
        "smoke": desk.experiment.smoke,
        "roles": list(job.roles),
        "labels": job.labels,
        "settings": job.settings,
        "inputs": job.inputs,
        "prefix": {"job": job.prefix.job, "step": job.prefix.step} if job.prefix else None,
        "data": job.data,
        "semantics": SEMANTICS,
        "environment": desk.environment | {"started": datetime.now(UTC).isoformat(timespec="seconds")},
    }


@contextmanager
def _log_to(path: Path) -> Iterator[logging.Logger]:
    log = logging.getLogger("bench")
    log.setLevel(logging.INFO)
    log.propagate = False
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield log
    finally:
        log.removeHandler(handler)
        handler.close()


# ---- the kinds --------------------------------------------------------------------------------------------------------


def _pretrain(job: PlannedJob, desk: Desk, folder: Path) -> None:
    from bench import world_model

    facts = world_model.pretrain(job.steps, folder, desk.say)
    record.write_json(folder / "measurements.json", {name: record.measured(value, "") for name, value in facts.items()})


def _train(job: PlannedJob, desk: Desk, folder: Path) -> None:
    from bench.train import Run, train

    policy = desk.base(desk.suite.model, job.inputs.get("pretrained"))
    own: dict[str, Any] = {name: job.settings[name] for name in ("sft_on_chosen", "sft_rows") if name in job.settings}
    datasets = desk.datasets(policy.tokenizer, own)
    batch_size = desk.suite.training.batch_size
    if own:
        batch_size = PerObjective(dpo=batch_size.dpo, sft=next(iter(own.values()))["batch_size"])
    train(
        Run(
            job=job,
            suite=desk.suite,
            folder=folder,
            policy=policy,
            datasets=datasets,
            batch_size=batch_size,
            reference=inputs.reference_logps(job, desk),
            optimum=inputs.optimum(job, desk),
            row_optimum=inputs.row_optimum(job, desk),
            prefix=desk.job_folder(job.prefix.job) if job.prefix else None,
            base_logps=desk.base_logps(own),
            tell=desk.tell,
            stopping=desk.stopping,
            rule=inputs.rule(job, desk),
        )
    )
    policy.detach()
    if desk.environment["workers"] > 1:
        measurements = _mark_shared(record.read_json(folder / "measurements.json"))
        record.write_json(folder / "measurements.json", measurements)


def _mark_shared(measurements: dict[str, Any]) -> dict[str, Any]:
    """Mark what other workers on the same machine have slowed down."""
    for name in ("training_seconds", "probe_seconds", "cpu_utilization_percent", "energy_joules"):
        measurements.get(name, {})["shared_machine"] = True
    return measurements


def _recipe(job: PlannedJob, desk: Desk, folder: Path) -> None:
    """Make an adapter by other means than the shared loop, and write what a training job writes of it."""
    from bench.recipes import RECIPES, Making
    from bench.recipes.steps import Steps
    from bench.run_log import save_adapter
    from bench.train import Run

    kind = RECIPES[job.settings["recipe"]]
    policy = desk.base(desk.suite.model, job.inputs.get("pretrained"))
    run = Run(
        job=job,
        suite=desk.suite,
        folder=folder,
        policy=policy,
        datasets=desk.datasets(policy.tokenizer, {}),
        batch_size=desk.suite.training.batch_size,
        reference=inputs.reference_logps(job, desk),
        tell=desk.tell,
    )
    steps = Steps(run)
    adapters = {name: desk.job_folder(job.inputs[name]) for name in kind.needs if name in job.inputs}
    recipe = kind(kind.Options.model_validate(job.settings["options"]))
    try:
        started = time.perf_counter()
        recipe.produce(Making(policy, job.settings["lambda_dpo"], job.settings["seed"], adapters, steps))
        seconds = time.perf_counter() - started
        if kind.untrained is None:
            scores = steps.evaluate(both_splits=True)
            measurements = steps.measurements()
            if desk.environment["workers"] > 1:
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
            desk.forget(policy)
    measurements["reload_difference"] = record.measured(difference, "largest absolute difference of logits")
    record.write_json(folder / "measurements.json", measurements)
    record.write_json(folder / "scores.json", scores)
    record.write_json(folder / "data.json", run.datasets.facts())


def _compute_reference_logps(job: PlannedJob, desk: Desk, folder: Path) -> None:
    from bench.evaluators import held_out

    policy = desk.policy_of(job)
    datasets = desk.datasets(policy.tokenizer, {})
    size = 2 * (desk.suite.training.micro_batch_size or desk.suite.training.batch_size).dpo
    made = {}
    for split, rows in (("train", datasets.train), ("held_out", datasets.held_out)):
        desk.say(f"reference log-probabilities of {len(rows[Objective.DPO].examples)} {split} pairs")
        chosen, rejected = held_out.answer_logps(policy, rows[Objective.DPO].examples, size).T.tolist()
        made[split] = {"chosen": chosen, "rejected": rejected}
    record.write_json(folder / "reference_logps.json", made)


def _compute_row_optimum(job: PlannedJob, desk: Desk, folder: Path) -> None:
    """Keep an optimum's log-probabilities of every training row of its objective."""
    from bench.evaluators import held_out

    policy = desk.policy_of(job)
    objective = Objective(job.settings["objective"])
    examples = desk.datasets(policy.tokenizer, {}).train[objective].examples
    size = 2 * getattr(desk.suite.training.micro_batch_size or desk.suite.training.batch_size, objective)
    desk.say(f"the optimum's log-probabilities of {len(examples)} training rows")
    logps = held_out.answer_logps(policy, examples, size).tolist()
    record.write_json(folder / "row_logps.json", {"objective": str(objective), "unit": "nats", "logps": logps})


def _adopt(job: PlannedJob, desk: Desk, folder: Path) -> None:
    """Take over the adapter that a job of another suite in the same results folder trained."""
    shutil.copytree(inputs.adopted(job, desk.folder) / "adapter", folder / "adapter", dirs_exist_ok=True)
    reason = f"trained by another suite: {job.labels['method']}"
    measurements = {name: record.not_measured(record.metric(name).unit, reason) for name in record.OF_TRAINING}
    record.write_json(folder / "measurements.json", measurements)


def _lm_eval(job: PlannedJob, desk: Desk, folder: Path) -> None:
    from bench.evaluators import questions

    settings = desk.suite.evaluation.lm_eval
    assert settings is not None
    policy = desk.policy_of(job)
    scores, rows = questions.ask(policy, settings, desk.mirror, desk.say)
    _write_rows(folder, rows)
    record.write_json(folder / "data.json", questions.facts(policy, settings, desk.mirror, rows))
    record.write_json(folder / "scores.json", scores)


def _generate(job: PlannedJob, desk: Desk, folder: Path) -> None:
    from bench.evaluators import generation

    settings = desk.suite.evaluation.win_rate
    assert settings is not None
    policy = desk.policy_of(job)
    datasets = desk.datasets(policy.tokenizer, {}, settings.prompts)
    prompts = [row.prompt for row in datasets.judged]
    limit = desk.suite.data.max_prompt_tokens
    rows = generation.answer(policy, prompts, settings.generation, datasets.stop, limit, desk.say)
    _write_rows(folder, rows)


def _judge(job: PlannedJob, desk: Desk, folder: Path) -> None:
    from bench.evaluators import win_rate

    settings = desk.suite.evaluation.win_rate
    assert settings is not None
    pretrained = job.inputs.get("pretrained")
    tokenizer = desk.base(desk.suite.model, pretrained).tokenizer
    datasets = desk.datasets(tokenizer, {}, settings.prompts)
    answers = record.read_jsonl(desk.job_folder(job.inputs["answers"]) / "samples.jsonl")
    pairs = [
        win_rate.Pair(id=row["id"], instruction=pair.prompt, ours=row["answer"], theirs=pair.chosen)
        for row, pair in zip(answers, datasets.judged, strict=True)
    ]
    scores, rows = win_rate.judge(
        pairs,
        settings.judge,
        folder,
        lambda model: desk.base(model, pretrained),
        desk.say,
        others=lambda: desk.folder.glob(win_rate.JOURNALS),
    )
    _write_rows(folder, rows)
    record.write_json(folder / "scores.json", scores)
    for name, score in scores.items():
        if score["value"] is None:
            # Failed, not complete: the next run asks only for the pairs that are missing.
            raise JudgeError(f"{name}: {score['reason']}; the same command asks again, only for the missing ones")


def _toy(job: PlannedJob, desk: Desk, folder: Path) -> None:
    from bench import toy

    desk.say(f"{job.steps} steps in all")
    toy.work(job.settings, folder)


def _write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "samples.jsonl").unlink(missing_ok=True)
    record.append_jsonl(folder / "samples.jsonl", rows)


KINDS: dict[str, Callable[[PlannedJob, Desk, Path], None]] = {
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
