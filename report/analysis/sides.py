"""One side of a comparison: the recipes of a suite, what was measured of each by seed, and under which conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias

from bench.records.metrics import Metric
from bench.records.record import flat
from bench.records.suite_record import SuiteRecord
from report.analysis.checkpoints import Answers, answers
from report.analysis.fronts import Box, box
from report.analysis.load import Results, Run, code, judge_of
from report.analysis.metrics import RATIOS
from report.analysis.tables import RecipeResults, Tables, recipe_name
from report.analysis.toy import ToyResults, ToyRun, is_toy

Key: TypeAlias = "tuple[str, float | None, int | None]"
"""Method, λ, and T for a toy."""

_DRAWS_NOTHING = ("sequential", "mix", "maxright")


@dataclass(frozen=True)
class Entry:
    """One recipe of one side.

    Attributes:
        exact: it draws nothing, so that one run says all there is.
        values: metric -> seed -> value (NaN: not measured).
        reasons: metric -> why it is missing on every seed.
        jobs: the training jobs' ids.
    """

    method: str
    name: str
    exact: bool
    values: dict[str, dict[int, float]] = field(repr=False)
    reasons: dict[str, str] = field(repr=False)
    jobs: tuple[str, ...] = ()


class Side(Protocol):
    """Read one suite's records as one side of a comparison."""

    name: str
    smoke: bool

    @property
    def metrics(self) -> tuple[str, ...]:
        """What this side can be compared by."""

    @property
    def entries(self) -> Mapping[Key, Entry]:
        """The recipes with complete runs."""

    @property
    def planned(self) -> tuple[str, ...]:
        """Planned jobs that are not complete, with why."""

    @property
    def box(self) -> Box | None:
        """Where the area under a front is measured; None where it is not."""

    @property
    def objectives(self) -> tuple[str, str]:
        """The names of f_DPO and f_SFT."""

    def metric(self, name: str) -> Metric:
        """Return what one of `metrics`, or the hypervolume, is."""

    def answers(self, key: Key, metric: str) -> dict[int, Answers]:
        """Return seed -> answers behind a score."""

    def shared(self, key: Key, metric: str) -> bool:
        """Whether a recipe's figure was measured while other workers used the machine."""

    def conditions(self, key: Key, metric: str) -> dict[str, Any]:
        """Return what must be equal on both sides for the metric to compare, flat: name -> value."""

    def notes(self) -> dict[str, str]:
        """Return what a reader should know when it differs: versions, semantics."""


def read(record: SuiteRecord) -> Side:
    """Read a suite's records as a side."""
    return ToySide(record) if is_toy(record) else SuiteSide(record)


class SuiteSide:
    """Read a suite that trains language models."""

    def __init__(self, record: SuiteRecord) -> None:
        self.results = Results(record)
        self.tables = Tables(self.results, refuse=False)
        self.name, self.smoke = record.name, self.results.smoke
        self._by_id = {run.id: run for run in self.results.trained}
        self._answers: dict[tuple[str, str], Answers] = {}

    @property
    def objectives(self) -> tuple[str, str]:
        return f"f_dpo/{self.results.split}", f"f_sft/{self.results.split}"

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        costs = (name for name in self.tables.costs if name not in RATIOS and self.metric(name).kind == "cost")
        compared = (name for name in costs if self.metric(name).better is not None)
        return (*self.objectives, "ideal_distance", *self.tables.scores, *compared)

    def metric(self, name: str) -> Metric:
        return self.tables.metric(name)

    @cached_property
    def entries(self) -> dict[Key, Entry]:
        return {(recipe.method, recipe.lambda_dpo, None): self._entry(recipe) for recipe in self.tables.recipes}

    def _entry(self, recipe: RecipeResults) -> Entry:
        values = {name: recipe.values(name) for name in self.metrics}
        reasons = {name: recipe.reason(name) for name in self.metrics if not recipe.estimate(name).n}
        return Entry(recipe.method, recipe.name, False, values, reasons, tuple(recipe.jobs.values()))

    @cached_property
    def planned(self) -> tuple[str, ...]:
        return tuple(f"{one.job} {one.state}: {one.message}" for one in self.results.problems)

    @cached_property
    def box(self) -> Box | None:
        return box(self.tables)

    def answers(self, key: Key, metric: str) -> dict[int, Answers]:
        if metric not in self.tables.scores:
            return {}
        for run in self._runs(key):
            if (run.id, metric) not in self._answers:
                self._answers[run.id, metric] = answers(self.results, run.id, metric)
        return {run.seed: self._answers[run.id, metric] for run in self._runs(key)}

    def _runs(self, key: Key) -> list[Run]:
        return [self._by_id[job] for job in self.entries[key].jobs]

    def shared(self, key: Key, metric: str) -> bool:
        """Whether a recipe's figure was measured while other workers used the machine."""
        return any(one.shared(metric) for one in self.tables.recipes if (*one.key, None) == key)

    def conditions(self, key: Key, metric: str) -> dict[str, Any]:
        runs = self._runs(key)
        if self.metric(metric).kind == "cost":
            names = ("processor", "cores", "GPUs", "devices", "device", "workers", "threads", "measured")
            made = {name: _joined(run.conditions[place] for run in runs) for place, name in enumerate(names)}
            return made | {"collector": _joined(run.collector(metric) for run in runs)}
        if metric in self.tables.scores:
            return self._of_score(runs[0], metric) | self._reference_seed()
        wanted = {"f_dpo": ("preference",), "f_sft": ("instruction",)}.get(
            metric.split("/")[0], ("preference", "instruction")
        )
        return self._of_objective(runs[0], wanted, metric) | self._reference_seed()

    def _of_objective(self, run: Run, sources: tuple[str, ...], metric: str) -> dict[str, Any]:
        """List what decides an objective's value beside the policy: rows, template, reduction, β, reference, model, dtype."""
        suite, spec = self.results.suite, run.job.spec
        data = suite.get("data", {})
        made = flat({"model": _model(spec["settings"].get("model") or {})})
        made |= {"data.evaluation_split": data.get("evaluation_split", "held_out")}
        made |= {f"data.{name}": data.get(name) for name in ("max_prompt_tokens", "max_answer_tokens")}
        for source in sources:
            made[f"data of {source}"] = spec.get("data", {}).get(source)
            made |= flat({f"data.{source}": self._rows(data.get(source) or {})})
        if "preference" in sources:
            made["objectives.beta"] = suite["objectives"].get("beta")
            made |= self._reference()
        if "instruction" in sources:
            made["objectives.reduction"] = suite["objectives"].get("reduction")
        score = run.objective(metric)
        return made | ({"rows": score.n} if score.n is not None else {})

    def _rows(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what decides the rows of the evaluation split; how many are trained on does not where they stand apart."""
        apart = self.results.split == "held_out" and source.get("test_split") is not None
        left_out = (*_PLACES, *(("rows", "train_split") if apart else ()))
        return {name: value for name, value in source.items() if name not in left_out}

    def _reference(self) -> dict[str, Any]:
        """Tell π_ref by what it was made of: one made again after an upgrade is still the same recipe."""
        made = {"reference.policy": (self.results.suite.get("reference") or {}).get("policy")}
        run = self.results.reference
        if run is None:
            return made
        settings = {name: value for name, value in run.job.spec["settings"].items() if name != "seed"}
        return made | flat({WHERE_BOTH_KNOW: {"settings": settings, "data": run.job.spec.get("data")}})

    def _reference_seed(self) -> dict[str, Any]:
        """Tell the seed of π_ref: all runs of a side learn from the one, so that its luck is in no spread over seeds."""
        run = self.results.reference
        return {} if run is None else {f"{WHERE_BOTH_KNOW}.seed": run.seed}

    def _of_score(self, run: Run, metric: str) -> dict[str, Any]:
        """List what decides a score beside the policy: the task and how it was asked, or the judge and what it was shown."""
        for job in self.results.evaluation_jobs(run.id):
            if job.complete and metric in job.scores:
                settings = {name: value for name, value in job.spec["settings"].items() if name != "model"}
                asked = dict(settings.get("lm_eval") or {})
                asked.pop("tasks", None)  # other tasks in the same job change nothing
                if "lm_eval" in settings:
                    settings["lm_eval"] = asked
                labels = {name: value for name, value in job.labels.items() if name not in ("of", "of_name")}
                made = flat({"settings": settings, "labels": labels, "data": job.spec.get("data")})
                made["code"] = _joined(code(one) for one in job.spec.get("plugins", ()))
                made["model.dtype"] = (job.spec["settings"].get("model") or {}).get("dtype")
                made["items"] = None if judge_of(metric) else job.scores[metric].get("n")
                generated = self.results.record.jobs.get(str(job.spec["inputs"].get("answers")))
                if generated is not None:
                    shown = {name: value for name, value in generated.spec["settings"].items() if name != "model"}
                    made |= flat({"answers": shown})
                return made
        return {}

    def notes(self) -> dict[str, str]:
        runs = self.results.runs
        packages = [run.job.spec["environment"].get("packages", {}) for run in runs]
        names = dict.fromkeys(name for one in packages for name in one)
        found = {name: _joined(one.get(name) for one in packages) for name in names}
        found["commit"] = _joined(run.job.spec["environment"].get("commit") for run in runs)
        found["semantics"] = _joined(run.job.spec.get("semantics") for run in runs)
        reference = self.results.reference
        return found | {"reference": reference.id if reference else "not on record"}


class ToySide:
    """Read a toy suite: a job holds all seeds of a method at one λ and T, and most methods draw nothing."""

    box = None
    objectives = ("f_dpo", "f_sft")
    metrics = ("f_dpo", "f_sft", "ideal_distance")

    def __init__(self, record: SuiteRecord) -> None:
        self.toy = ToyResults(record)
        self.name, self.smoke = record.name, self.toy.smoke
        self._runs: dict[Key, ToyRun] = {(run.method, run.lambda_dpo, run.steps): run for run in self.toy.runs}

    @cached_property
    def entries(self) -> dict[Key, Entry]:
        several = len(self.toy.horizons) > 1
        return {key: self._entry(run, several) for key, run in self._runs.items()}

    @staticmethod
    def _entry(run: ToyRun, several: bool) -> Entry:
        values = {name: {int(row["seed"]): float(row[name]) for row in run.samples} for name in ("f_dpo", "f_sft")}
        dpo, sft = run.ideal
        values["ideal_distance"] = {
            seed: ((values["f_dpo"][seed] - dpo) ** 2 + (values["f_sft"][seed] - sft) ** 2) ** 0.5
            for seed in values["f_dpo"]
        }
        name = recipe_name(run.method, run.lambda_dpo) + (f", T = {run.steps:,}" if several else "")
        exact = run.base_method in _DRAWS_NOTHING and len(run.samples) == 1
        return Entry(run.method, name, exact, values, {}, (run.job.id,))

    @property
    def planned(self) -> tuple[str, ...]:
        return tuple(f"{one.job} {one.state}: {one.message}" for one in self.toy.problems)

    def metric(self, name: str) -> Metric:
        return self.toy.metric(name)

    def answers(self, key: Key, metric: str) -> dict[int, Answers]:
        return {}

    def shared(self, key: Key, metric: str) -> bool:
        return False

    def conditions(self, key: Key, metric: str) -> dict[str, Any]:
        return flat({"problem": self._runs[key].settings["problem"]})

    def notes(self) -> dict[str, str]:
        jobs = [run.job for run in self.toy.runs]
        commits = _joined(job.spec["environment"].get("commit") for job in jobs)
        return {"commit": commits, "semantics": _joined(job.spec.get("semantics") for job in jobs)}


WHERE_BOTH_KNOW = "reference"  # conditions below this name count where both sides have one on record
_PLACES = ("source", "path", "revision")  # where data came from; what it was is told by its hash


def _model(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what decides a model's values: not how activations are kept in memory."""
    return {name: value for name, value in settings.items() if name != "gradient_checkpointing"}


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values}))


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """List the conditions that are not equal, in words."""
    found = []
    for name in sorted(ours.keys() | theirs.keys()):
        unknown = name.startswith(f"{WHERE_BOTH_KNOW}.") and not (name in ours and name in theirs)
        if not unknown and ours.get(name) != theirs.get(name):
            found.append(f"{name}: {ours.get(name)} → {theirs.get(name)}")
    return found
