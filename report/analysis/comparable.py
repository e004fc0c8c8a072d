"""Decide which runs may stand in one mean: equal data, questions and judge, and for costs equal hardware and workers.

A suite's records may come from several machines, or be put together by hand. What most runs share counts as the suite's
own; a figure made under other conditions keeps its place among its run's files, and is refused, with the reason, wherever
figures are averaged or compared.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from bench.records.record import Job
from report.analysis.load import Measured, Results, Run, missing


class Comparable:
    """Know what most of a suite's runs were made with, and refuse figures made with something else."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self._collectors: dict[str, str] = {}

    @cached_property
    def machine(self) -> str:
        """Hardware, device, workers and threads of most runs."""
        return _most(_machine(run) for run in self.results.runs if not run.on_several_machines)

    def collector(self, name: str) -> str:
        """Whose code measured a cost of most runs."""
        if name not in self._collectors:  # asked for every figure of every run
            measured = (run.collector(name) for run in self.results.runs if name in run.job.measurements)
            self._collectors[name] = _most(measured)
        return self._collectors[name]

    @cached_property
    def objective(self) -> str:
        """Data, base model, reduction, β, reference and evaluation rows of most runs."""
        return _most(_objective(run.job) for run in self.results.runs)

    @cached_property
    def scores(self) -> dict[str, str]:
        """Score name → what it was scored with, for most policies."""
        found: dict[str, list[str]] = {}
        for of in ["base", *(run.id for run in self.results.trained)]:
            for name in self.results.score_names:
                job = self._scorer(of, name)
                if job is not None:
                    found.setdefault(name, []).append(_scored_with(job))
        return {name: _most(identities) for name, identities in found.items()}

    def check(self, run: Run, name: str, figure: Measured) -> Measured:
        """Return the figure of a run, or why it may not stand beside the suite's others."""
        if figure.value is None:
            return figure
        kind = self.results.metric(name).kind
        if kind == "cost" and run.on_several_machines:
            return missing(f"not comparable: {run.id} was made on several machines, so its costs are of none of them")
        if kind == "cost" and _machine(run) != self.machine:
            return missing(f"not comparable: {run.id} was made on other hardware or with other workers")
        if kind == "cost" and run.collector(name) != self.collector(name):
            return missing(f"not comparable: {run.id} was measured by other code, {run.collector(name) or 'our own'}")
        if kind == "objective" and "run" in run.roles and _objective(run.job) != self.objective:
            return missing(f"not comparable: {run.id} was made with other data, model, reference or loss settings")
        return self.check_score(run.id, name, figure) if kind == "score" else figure

    def check_score(self, of: str, name: str, figure: Measured) -> Measured:
        """Return a policy's score, or why it may not stand beside the suite's others."""
        if figure.value is None:
            return figure
        job = self._scorer(of, name)
        if job is None or _scored_with(job) == self.scores[name]:
            return figure
        what = {"judge": "another judge or other data", "lm_eval": "other questions, shots or data"}
        return missing(f"not comparable: {job.id} was scored with {what.get(job.kind, 'other settings or data')}")

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Say what is refused, one sentence a kind; nothing where all runs compare."""
        runs, found = self.results.runs, []
        several = [run.id for run in runs if run.on_several_machines]
        if several:
            found.append(
                f"Runs went on, or share a first phase made, on another machine or with other workers: the costs of "
                f"{_listed(several)} are left out of means and comparisons."
            )
        others = [run.id for run in runs if _machine(run) != self.machine and not run.on_several_machines]
        if others:
            found.append(
                f"Runs were made on different hardware or with different workers: the costs of {_listed(others)} are "
                "left out of means and comparisons."
            )
        costs = [name for name in self.results.measurement_names if self.results.metric(name).kind == "cost"]
        for name in costs:
            measured = [run for run in runs if name in run.job.measurements]
            others = [run.id for run in measured if run.collector(name) != self.collector(name)]
            if others:
                found.append(
                    f"{name} was measured by different code: that of {_listed(others)} is left out of means and comparisons."
                )
        others = [run.id for run in runs if _objective(run.job) != self.objective]
        if others:
            found.append(
                f"Runs differ in data, model, reference or loss settings: the objective values of {_listed(others)} are "
                "left out of means and comparisons."
            )
        policies = ["base", *(run.id for run in self.results.trained)]
        jobs = [job for of in policies for name in self.scores for job in [self._scorer(of, name)] if job is not None]
        refused = dict.fromkeys(
            job.id
            for job in jobs
            if any(_scored_with(job) != self.scores[one] for one in self.scores if one in job.scores)
        )
        if refused:
            found.append(
                f"Policies were scored in different ways: the scores of {_listed(list(refused))} are left out of means and "
                "comparisons."
            )
        versions = {json.dumps(_task_version(job)) for job in jobs if job.kind == "lm_eval"}
        if len(versions) > 1:
            found.append("Questions were asked with different versions of lm-eval: compare scores with care.")
        return tuple(found)

    def _scorer(self, of: str, name: str) -> Job | None:
        """Return the job behind a score."""
        jobs = self.results.evaluation_jobs(of)
        return next((job for job in jobs if job.complete and name in job.scores), None)


def _most(identities: Iterable[str]) -> str:
    """Return the most frequent identity, the first of equals; "" of none."""
    counted = Counter(identities).most_common(1)
    return counted[0][0] if counted else ""


def _machine(run: Run) -> str:
    return json.dumps(run.conditions)


def _objective(job: Job) -> str:
    settings = job.spec["settings"]
    parts: dict[str, Any] = {name: settings.get(name) for name in ("model", "data", "reduction", "beta")}
    parts |= {"data_hash": job.spec.get("data"), "reference": job.spec["inputs"].get("reference_logps")}
    return json.dumps(parts, sort_keys=True)


def _scored_with(job: Job) -> str:
    return json.dumps([job.spec.get(name) for name in ("settings", "data", "plugins")], sort_keys=True)


def _task_version(job: Job) -> str:
    return str(job.spec["environment"].get("packages", {}).get("lm-eval", ""))


def _listed(names: list[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
