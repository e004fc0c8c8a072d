"""Read one suite's job records into runs, optima, evaluations and what is missing; nothing is computed here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from bench.records.metrics import Metric, find, undescribed
from bench.records.optimum import Optimum, cross_fitted
from bench.records.record import FAILED, STOPPED, Job
from bench.records.suite_record import SuiteRecord
from report.analysis.alone import Alone
from report.analysis.metrics import DERIVED

OBJECTIVES = ("dpo", "sft")
SPLITS = ("held_out", "train")
BROKEN = "broken"  # of a job's record: it cannot be relied on
ALONE, IN_THE_RUN = "alone", "in the run"  # how a cost was measured
# Jobs about a policy that score nothing.
_NO_SCORES = ("reference_logps", "row_optimum", "generate")


@dataclass(frozen=True)
class Measured:
    """One figure, or why there is none.

    Attributes:
        value: None when not measured.
        reason: why there is no value.
        n, standard_error: of a score; None where they do not apply.
        shared: measured while other workers used the same machine.
        log: ratios compare, so that estimates are made of its logarithm.
        interval: a score's own 95 % interval over its questions or pairs, in the record's unit; None where there is none.
        quartiles: where the middle half of a median's samples lies; None where it is not on record.
    """

    value: float | None
    reason: str = ""
    n: int | None = None
    standard_error: float | None = None
    shared: bool = False
    log: bool = False
    interval: tuple[float, float] | None = None
    quartiles: tuple[float, float] | None = None

    @property
    def compared(self) -> float:
        """The value on the scale on which estimates are made; NaN when not measured."""
        if not self.log:
            return self.number
        return math.log(self.value) if self.value is not None and self.value > 0 else math.nan

    @property
    def error(self) -> float:
        """The standard error on that scale; NaN where none is known."""
        if self.standard_error is None or self.value is None:
            return math.nan
        return self.standard_error / self.value if self.log else self.standard_error

    @property
    def number(self) -> float:
        """The value, NaN when not measured."""
        return math.nan if self.value is None else self.value


def missing(reason: str) -> Measured:
    """Return a figure that is not there, and why."""
    return Measured(None, reason or "no reason on record")


def from_record(entry: dict[str, Any] | None, absent: str, metric: Metric | None = None) -> Measured:
    """Read an entry of measurements.json or scores.json; `absent` is the reason when there is none."""
    if entry is None:
        return missing(absent)
    if entry.get("value") is None:
        return missing(str(entry.get("reason") or "no reason on record"))
    return Measured(
        float(entry["value"]),
        n=entry.get("n"),
        standard_error=entry.get("standard_error"),
        shared=bool(entry.get("shared_machine")),
        quartiles=_pair(entry.get("quartiles")),
        log=metric is not None and metric.scale == "log",
        interval=_interval(entry),
    )


def _pair(found: Any) -> tuple[float, float] | None:
    return (float(found[0]), float(found[1])) if found else None


def _interval(entry: dict[str, Any]) -> tuple[float, float] | None:
    low, high = entry.get("interval_95") or (entry.get("low"), entry.get("high"))
    return None if low is None or high is None else (float(low), float(high))


def code(origin: Mapping[str, str] | None) -> str:
    """Name a package's code as records keep it; "" for none."""
    return "{distribution} {version} ({source})".format(**origin) if origin else ""


def _conditions(environment: Mapping[str, Any]) -> tuple[str, ...]:
    hardware = environment.get("hardware", {})
    parts = (hardware.get("cpu"), hardware.get("cores"), hardware.get("gpus"), environment.get("devices", 1))
    return tuple(str(part) for part in (*parts, *(environment.get(name) for name in ("device", "workers", "threads"))))


@dataclass(frozen=True)
class Run:
    """Read one job that made an adapter, by training or of other jobs' weights.

    λ is NaN for a job without one (an optimum, a reference).

    Attributes:
        alone: what its costs are made of instead of its own seconds; None: its own.
        prefix: the job whose first steps, and seconds, it shares.
    """

    job: Job
    trajectory: list[dict[str, Any]] = field(repr=False)
    alone: Alone | None = None
    prefix: Job | None = None

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    @property
    def roles(self) -> tuple[str, ...]:
        """What the job is for: run, optimum_dpo, optimum_sft, reference."""
        return tuple(self.job.spec["roles"])

    @property
    def method(self) -> str:
        """The method's shown name."""
        return str(self.job.labels["method"])

    @property
    def base_method(self) -> str:
        """The kind of method behind the shown name."""
        return str(self.job.labels["base_method"])

    @property
    def lambda_dpo(self) -> float:
        """λ, the weight of DPO; NaN for a job without one."""
        value = self.job.labels["lambda_dpo"]
        return math.nan if value is None else float(value)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.job.labels["seed"])

    @property
    def order(self) -> tuple[str, str]:
        """The two objectives in Sequential's order."""
        first, second = str(self.job.labels["order"]).split("_")
        return first, second

    @property
    def phase_steps(self) -> dict[str, int]:
        """Steps of each objective in the matching Sequential run."""
        return dict(self.job.labels.get("phase_steps") or {})

    @property
    def conditions(self) -> tuple[str, ...]:
        """What must be equal for two costs to be comparable: machine, devices, workers, threads, how it was measured."""
        every = list(dict.fromkeys(map(_conditions, self.environments)))
        parts = (" and ".join(dict.fromkeys(part)) for part in zip(*every, strict=True))
        return (*parts, ALONE if self.alone else IN_THE_RUN)

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Where its costs were measured, one for each time it went on; of a shared first phase where that was, too."""
        jobs = [self.alone.job] if self.alone else [*([self.prefix] if self.prefix else []), self.job]
        return [one for job in jobs for one in job.spec.get("environments") or [job.spec["environment"]]]

    @property
    def on_several_machines(self) -> bool:
        """Whether its seconds were taken under more than one set of conditions."""
        return len(set(map(_conditions, self.environments))) > 1

    def collector(self, name: str) -> str:
        """Say whose code measured a cost: another package's version and source, or "" for what comes with bench."""
        return code((self.alone.job if self.alone else self.job).spec.get("collectors", {}).get(name))

    def objective(self, name: str) -> Measured:
        """Return the final value of an objective, such as f_dpo/held_out, with n and standard error where known."""
        score = from_record(self.job.scores.get(name), f"{self.id} wrote no {name}")
        if score.value is None and self.trajectory:
            value = self.trajectory[-1].get(name)
            if value is not None:
                return Measured(float(value))
        return score

    def measurement(self, name: str) -> Measured:
        """Return a figure of measurements.json; a cost as measured alone, where it is."""
        entry = (self.alone and self.alone.measurement(self.job, name)) or self.job.measurements.get(name)
        return from_record(entry, f"{self.id} has no {name} on record", self.job.metric(name) if entry else None)

    @property
    def steps(self) -> Measured:
        """Return the optimizer steps taken; runs made before they were measured tell them by their last evaluation."""
        found = self.measurement("steps")
        if found.value is None and self.trajectory:
            return Measured(float(self.trajectory[-1]["step"]))
        return found

    @property
    def ending(self) -> str:
        """Say where and why a run with a stopping rule ended; "" for a run without one."""
        stopping = self.job.stopping
        if not stopping:
            return ""
        if not stopping["early"]:
            return f"took all {stopping['step']} steps; its stopping rule never applied"
        return f"stopped at step {stopping['step']}: {stopping['reason']}"

    @property
    def trains(self) -> bool:
        """Whether it took steps of its own; a recipe that did has phases."""
        return _trains(self.job)

    def at(self, step: int) -> dict[str, Any] | None:
        """Return the trajectory's last point that is not later than `step`."""
        points = [point for point in self.trajectory if point["step"] <= step]
        return points[-1] if points else None


@dataclass(frozen=True)
class Problem:
    """Name a planned job without a result: what became of it, and its message."""

    job: str
    state: str
    message: str


@dataclass(frozen=True)
class Results:
    """One suite's records, sorted into what each is for."""

    record: SuiteRecord

    def __post_init__(self) -> None:
        self.record.check_settings()

    @cached_property
    def answers(self) -> dict[tuple[str, str], Any]:
        """What each policy answered behind a score, by both; `checkpoints.answers` fills it, as reading takes long."""
        return {}

    @property
    def name(self) -> str:
        """The suite's name."""
        return self.record.name

    @property
    def smoke(self) -> bool:
        """Whether a tiny random model stood in for the suite's own."""
        return bool(self.record.info.get("smoke"))

    @property
    def suite(self) -> dict[str, Any]:
        """The suite's resolved settings."""
        return dict(self.record.info["suite"])

    @property
    def split(self) -> str:
        """The split on which gaps are measured: held_out or train."""
        return "train" if self.suite["data"].get("evaluation_split") == "train_head" else "held_out"

    @property
    def changes_of_shipped(self) -> dict[str, list[Any]]:
        """Dotted key -> [as shipped, here] of a suite that goes by a shipped one's name; empty where nothing is on record."""
        return dict(self.record.info.get("changes_of_shipped") or {})

    @cached_property
    def trained(self) -> list[Run]:
        """Every complete job that made an adapter."""
        return [
            Run(
                job,
                sorted(self.record.trajectory(job), key=lambda point: point["step"]),
                self._alone_for(job),
                self.record.jobs.get(str((job.spec.get("prefix") or {}).get("job"))),
            )
            for job in self._adapters
        ]

    @cached_property
    def _adapters(self) -> list[Job]:
        kinds = ("train", "recipe", "adopt")
        return [job for job in self.record.jobs.values() if job.kind in kinds and job.complete]

    @cached_property
    def data_facts(self) -> dict[str, Any]:
        """What is on record about the rows that runs were trained and evaluated on; of the first run that says so."""
        return next((job.data for job in self._adapters if job.data), {})

    @cached_property
    def _measured_alone(self) -> Alone | None:
        found = (Alone(job) for job in self.record.jobs.values() if job.kind == "cost" and job.complete)
        return next(found, None)

    @cached_property
    def _not_alone(self) -> str:
        """Why costs are not those measured alone; "" where they are. One run without would have nothing to compare with."""
        if self._measured_alone is None:
            return "no steps were measured alone"
        runs = (job for job in self._adapters if "run" in job.spec["roles"] and _trains(job))
        return next((why for job in runs if (why := self._measured_alone.refusal(job))), "")

    def _alone_for(self, job: Job) -> Alone | None:
        """Return what prices a job's steps; a job without steps has nothing that would not compare."""
        if self._not_alone or self._measured_alone is None:
            return None
        return None if _trains(job) and self._measured_alone.refusal(job) else self._measured_alone

    @property
    def cost_source(self) -> str:
        """Say where costs are from: measured alone, or from the training runs, and why."""
        if self._measured_alone is not None and not self._not_alone:
            found = (
                f"Costs of training were measured alone by {self._measured_alone.job.id}: each kind of step while no other job "
                "ran, times how often a run took it. Utilization is the mean over its kinds, by seconds."
            )
            return f"{found} {self._measured_alone.others}".rstrip()
        return f"Costs of training are those of the runs themselves: {self._not_alone}."

    def with_role(self, role: str) -> list[Run]:
        """Return the complete training jobs that have a role."""
        return [run for run in self.trained if role in run.roles]

    @cached_property
    def runs(self) -> list[Run]:
        """The complete runs that are compared, in the suite's order of methods, then by λ and seed."""
        order = {method: place for place, method in enumerate(self.methods)}
        return sorted(self.with_role("run"), key=lambda run: (order[run.method], run.lambda_dpo, run.seed))

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Shown names of the methods, in the suite's order."""
        named = [str(method.get("label") or method["name"]) for method in self.suite.get("methods", [])]
        found = [run.method for run in self.with_role("run")]
        return tuple(dict.fromkeys([*(name for name in named if name in found), *found]))

    def base_method(self, method: str) -> str:
        """Return the kind of method behind a shown name."""
        return next((run.base_method for run in self.runs if run.method == method), method)

    @cached_property
    def optima(self) -> dict[tuple[str, int], Run]:
        """The runs on one objective alone: (objective, seed) -> run."""
        return {(name, run.seed): run for name in OBJECTIVES for run in self.with_role(f"optimum_{name}")}

    @cached_property
    def reference(self) -> Run | None:
        """The run that made π_ref; None when π_ref is the base model, or is not trained yet."""
        return next(iter(self.with_role("reference")), None)

    def optimum(self, objective: str, seed: int, split: str | None = None) -> Measured:
        """Return f* of an objective: the best that the run on it alone, with the same seed, reached on the evaluation split."""
        run, found = self.optima.get((objective, seed)), self.found_optimum(objective, seed, split)
        if run is None:
            return missing(f"f*_{objective.upper()} of seed {seed} is not there yet")
        return run.objective(f"f_{objective}/{split or self.split}") if found is None else Measured(found.value)

    @cached_property
    def _optimum_of(self) -> dict[tuple[str, int, str], Optimum | None]:
        return {
            (objective, seed, split): cross_fitted(run.trajectory, f"f_{objective}/{split}")
            for (objective, seed), run in self.optima.items()
            for split in SPLITS
        }

    def found_optimum(self, objective: str, seed: int, split: str | None = None) -> Optimum | None:
        """Return f* with where it was found, the last value and f(θ_1); None where no trajectory tells."""
        return self._optimum_of.get((objective, seed, split or self.split))

    def nothing_learned(self, objective: str, seed: int, split: str | None = None) -> str:
        """Say that training on an objective alone gained nothing that holds on the evaluation split; "" where it did."""
        found = self.found_optimum(objective, seed, split)
        if found is None or found.learned is not False:
            return ""
        rows = "held-out rows" if (split or self.split) == "held_out" else "the training rows it is measured on"
        return f"nothing was learned of {objective.upper()} alone that holds on {rows} (f* is not below f(θ_1))"

    @cached_property
    def _evaluations(self) -> dict[str, list[Job]]:
        found: dict[str, list[Job]] = {}
        for job in self.record.jobs.values():
            if "of" in job.labels and job.kind not in _NO_SCORES:
                found.setdefault(str(job.labels["of"]), []).append(job)
        return found

    @cached_property
    def generations(self) -> dict[str, Job]:
        """The jobs that made answers: a training job's id or "base" -> job."""
        jobs = self.record.jobs.values()
        return {str(job.labels["of"]): job for job in jobs if job.kind == "generate" and job.complete}

    @cached_property
    def _scored(self) -> dict[str, tuple[Metric, str]]:
        """Score -> what it is, and the kind of job that gives it; not the scores of parts, such as one subject's."""
        found: dict[str, tuple[Metric, str]] = {}
        for job in (job for jobs in self._evaluations.values() for job in jobs if job.complete):
            for name in job.scores:
                if name not in found and (metric := job.metric(name)).name == name and metric.kind == "score":
                    found[name] = metric, job.kind
        return found

    @property
    def score_names(self) -> tuple[str, ...]:
        """The scores that any policy has, such as mmlu/acc or win_rate/<judge>; of several judges the main one's first."""
        by_judge = iter(sorted(filter(judge_of, self._scored), key=lambda name: self.judges.index(judge_of(name))))
        return tuple(next(by_judge) if judge_of(name) else name for name in self._scored)

    @cached_property
    def judgings(self) -> list[Job]:
        """The jobs that judged a policy's answers, in the plan's order."""
        return [job for job in self.record.jobs.values() if job.kind == "judge"]

    @cached_property
    def judges(self) -> tuple[str, ...]:
        """The judges by the names of their scores, in the suite's order, in which each policy's judgings are planned."""
        found: dict[str, list[str]] = {}
        for job in self.judgings:
            names = [str(job.labels.get("judge", "")), *map(judge_of, job.scores if job.complete else ())]
            found.setdefault(str(job.labels.get("of")), []).extend(filter(None, names))
        of_most = max(found.values(), key=lambda names: len(set(names)), default=[])
        return tuple(dict.fromkeys([*of_most, *(name for names in found.values() for name in names)]))

    @property
    def main_judge(self) -> str:
        """The judge whose win rate stands for all, of a suite that names several; "" of any other."""
        named = (self.suite.get("evaluation") or {}).get("win_rate") or {}
        return self.judges[0] if isinstance(named.get("judge"), list) and self.judges else ""

    def is_beside(self, score: str) -> bool:
        """Whether a score is the win rate of a judge that stands beside the main one: it leads, ranks and gates nothing."""
        return bool(self.main_judge and judge_of(score) and judge_of(score) != self.main_judge)

    @cached_property
    def measurement_names(self) -> tuple[str, ...]:
        """The costs and counts of training that any run has on record, in the records' order."""
        found = dict.fromkeys(
            name
            for run in self.trained
            if run.trains
            for name in run.job.measurements
            if "/" not in name and (name in run.job.metrics or (not run.job.metrics and _is_known_unit(run, name)))
        )
        return tuple(found)

    @cached_property
    def _described(self) -> dict[str, Metric]:
        jobs = (job for job in self.record.jobs.values() if job.complete)
        return {name: metric for job in jobs for name, metric in job.metrics.items()}

    def metric(self, name: str) -> Metric:
        """Return what a figure is: as it is derived here, as its record describes it, or as its name tells."""
        made = self._metric(name)
        if not self.is_beside(name):
            return made
        return replace(
            made, gate=False, title=f"{made.title}, {judge_of(name)}"
        )  # beside the main judge's of the same title

    def _metric(self, name: str) -> Metric:
        known = DERIVED.get(name) or find(name, self._described)
        if known:
            return known
        units = (run.job.measurements[name].get("unit") for run in self.trained if name in run.job.measurements)
        return undescribed(name, next((str(unit) for unit in units), "steps" if name == "steps" else ""))

    def score(self, of: str, name: str) -> Measured:
        """Return a policy's score; `of` is a training job's id or "base"."""
        jobs = self._evaluations.get(of, [])
        metric, kind = self._scored.get(name, (None, ""))
        for job in jobs:
            if job.complete and name in job.scores:
                return from_record(job.scores[name], "", metric)
        by, unlike = judge_of(name), [job for job in jobs if job.kind == kind and not job.complete]
        unfinished = next((job for job in unlike if not by or job.labels.get("judge", by) == by), None)
        if unfinished is not None:
            return missing(f"{unfinished.id} {_state(unfinished)}")
        return missing("not evaluated yet" if self.problems else "not evaluated")

    def evaluation_jobs(self, of: str) -> list[Job]:
        """Return the evaluations of a policy."""
        return self._evaluations.get(of, [])

    @cached_property
    def unfinished_runs(self) -> tuple[str, ...]:
        """The planned runs, of those that are compared, without a complete record."""
        return tuple(problem.job for problem in self.problems if self._is_run(problem.job))

    def _is_run(self, job_id: str) -> bool:
        """Whether a planned job is a run to be compared; of one without a record its name tells."""
        job = self.record.jobs.get(job_id)
        if job is not None:
            return "run" in (job.spec.get("roles") or ())
        name = _without_hash(job_id)
        about = any(name.endswith(f"-{_without_hash(other)}") for other in self.record.info["jobs"] if other != job_id)
        return not about and re.search(r"-s\d+$", name) is not None and "-optimum-" not in name

    @cached_property
    def problems(self) -> list[Problem]:
        """Planned jobs without a complete record, in the plan's order."""
        found = []
        for job_id in self.record.info["jobs"]:
            job = self.record.jobs.get(job_id)
            if job_id in self.record.broken:
                found.append(Problem(job_id, BROKEN, self.record.broken[job_id]))
            elif job is None:
                found.append(Problem(job_id, "missing", "not run yet"))
            elif not job.complete:
                message = str(job.status.get("message") or "")
                found.append(Problem(job_id, _state(job), message or "no status on record: running, or cut off"))
        return found


def _without_hash(job_id: str) -> str:
    return re.sub(r"-[0-9a-f]{10}$", "", job_id)


def _trains(job: Job) -> bool:
    return job.kind == "train" or bool(job.labels.get("phase_steps"))


def _state(job: Job) -> str:
    return {FAILED: "failed", STOPPED: "was stopped"}.get(str(job.status["outcome"]), "is not finished")


def _is_known_unit(run: Run, name: str) -> bool:
    """Say whether a figure of a record without descriptions is a cost or a count, by its unit."""
    return run.job.measurements[name].get("unit") in ("s", "B", "J", "%", "tokens", "steps")


def judge_of(name: str) -> str:
    """Return the judge of a win rate, win_rate/<judge>; "" for any other score."""
    return name.removeprefix("win_rate/") if name.startswith("win_rate/") else ""


def compared_with(metric: Metric) -> str:
    """Say whose answers a win rate compares with; the data's chosen ones where its description says no other."""
    said = metric.meaning.partition(", judged by ")[0]
    known = said.startswith("against ") and said != "against the chosen answers"
    return said.removeprefix("against ") if known else "the data's chosen answers"
