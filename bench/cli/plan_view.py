"""Show a plan to people and machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.cli import power_view
from bench.cli.progress import duration
from bench.judges.cost import estimate_in_words
from bench.plan.plan import Plan
from bench.records.spec import KINDS, JobSpec
from bench.run.estimates.forecast import Forecast
from bench.run.space import in_words
from bench.run.stale import Stale
from bench.suite.suite import Suite


def as_dict(
    plan: Plan,
    states: dict[str, str],
    selected: set[str],
    stale: Sequence[Stale] = (),
    disk: tuple[int, str] = (0, ""),
    folder: Path | None = None,
    forecast: Forecast | None = None,
) -> dict[str, Any]:
    """Return a plan as JSON values.

    Args:
        plan: which.
        states: of its jobs.
        selected: those that are meant.
        stale: what of the folder an upgrade has made stale.
        disk: bytes that are still to be written, and what is not in them.
        folder: the suite's results, where judged pairs tell how much they spread.
        forecast: what it will take on this machine.
    """
    jobs = [
        {
            "id": job.id,
            "kind": job.kind,
            "state": states[job.id],
            "roles": list(job.roles),
            "labels": job.labels.as_dict() if job.labels else {},
            "inputs": job.inputs.as_dict(),
            "prefix": {"job": job.prefix.job, "step": job.prefix.step} if job.prefix else None,
            "devices": job.resources.devices,
            "optimizer_steps": job.steps_to_run,
            "tokens_at_most": _tokens(job),
        }
        for job in plan.jobs.values()
        if job.id in selected
    ]
    sums = totals(plan, states, selected)
    judges = prices(plan, states, selected)
    by_reason = [asdict(one) for one in stale]
    room = {"disk_bytes_to_do": disk[0], "disk_bytes_left_out": disk[1] or None}
    return {
        "schema": 1,
        "suite": plan.suite.name,
        "jobs": jobs,
        **sums,
        **room,
        **_judges(judges),
        **power_view.as_dict(plan, folder),
        "forecast": forecast.as_dict() if forecast else None,
        "stale": by_reason,
    }


def prices(plan: Plan, states: dict[str, str], selected: set[str]) -> list[dict[str, Any]]:
    """Estimate what the evaluators have still to be paid for, such as a judge's replies."""
    if not isinstance(plan.suite, Suite):
        return []
    left = [job for job in plan.jobs.values() if job.id in selected and states[job.id] != "complete"]
    to_do = Counter(name for job in left for name in {job.kind, job.stage} - {""})
    found = (one.price(to_do, plan.suite.data) for one in plan.suite.evaluation.chosen.values())
    return [price for one in found for price in (one if isinstance(one, list) else [one]) if price is not None]


def _judges(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Say what is to be paid: the main judge's under a name of its own, as from before there could be several."""
    return {"judge": next(iter(found), None), "judges": found}


def _titles(plan: Plan) -> dict[tuple[str, str], str]:
    """Return what the jobs of each kind, or of an evaluator's stage, are called."""
    evaluators = plan.suite.evaluation.chosen.values() if isinstance(plan.suite, Suite) else ()
    stages = (stage for one in evaluators for stage in one.stages())
    titles = {(stage.kind, stage.shown_name): stage.title or stage.kind for stage in stages}
    return {(kind, ""): title for kind, title in KINDS.items()} | titles


def totals(plan: Plan, states: dict[str, str], selected: set[str]) -> dict[str, int]:
    """Add up steps and tokens: of the selected jobs, of those not complete, and what sharing saves in the whole plan."""
    chosen = [job for job in plan.jobs.values() if job.id in selected]
    to_do = [job for job in chosen if states[job.id] != "complete"]
    return {
        "optimizer_steps": sum(job.steps_to_run for job in chosen),
        "optimizer_steps_to_do": sum(job.steps_to_run for job in to_do),
        "optimizer_steps_without_sharing": plan.unshared_steps,
        "optimizer_steps_saved": plan.unshared_steps - plan.optimizer_steps,
        "tokens_at_most": sum(_tokens(job) for job in chosen),
        "tokens_at_most_to_do": sum(_tokens(job) for job in to_do),
    }


def _tokens(job: JobSpec) -> int:
    return round(job.tokens * job.steps_to_run / job.steps) if job.steps else 0


def as_text(
    plan: Plan,
    states: dict[str, str],
    selected: set[str],
    stale: Sequence[Stale] = (),
    disk: tuple[int, str] = (0, ""),
    folder: Path | None = None,
    forecast: Forecast | None = None,
) -> str:
    """Return a plan as text: a line a training job, evaluations counted, totals last."""
    suite = plan.suite
    lines = [f"{suite.name}: {suite.size}", ""]
    for job in plan.jobs.values():
        if job.id in selected and job.kind in KINDS:
            lines.append(f"  {states[job.id]:<10} {job.id:<44} {_remark(job)}".rstrip())
    if isinstance(suite, Suite) and suite.training.stopping.rule != "none":
        lines += ["", f"  joint runs may end earlier: training.stopping.rule is {suite.training.stopping.rule}"]
    counts = Counter(((job.kind, job.stage), states[job.id]) for job in plan.jobs.values() if job.id in selected)
    devices = {(job.kind, job.stage): job.resources.devices for job in plan.jobs.values()}
    lines.append("")
    for which, name in _titles(plan).items():
        found = {state: count for (one, state), count in counts.items() if one == which}
        if found:
            states_in_words = ", ".join(f"{count} {state}" for state, count in found.items())
            each = f"; each on {devices[which]} devices" if devices[which] > 1 else ""
            lines.append(f"  {sum(found.values()):>4} × {name}: {states_in_words}{each}")
    sums = totals(plan, states, selected)
    lines += [
        "",
        f"  optimizer steps: {sums['optimizer_steps']:,} ({sums['optimizer_steps_to_do']:,} to do); without sharing "
        f"{sums['optimizer_steps_without_sharing']:,}: {sums['optimizer_steps_saved']:,} saved",
    ]
    if sums["tokens_at_most"]:
        lines.append(
            f"  training tokens: at most {sums['tokens_at_most']:,} ({sums['tokens_at_most_to_do']:,} to do), "
            "every row at full length"
        )
    if disk[0]:
        lines.append(f"  disk: about {in_words(disk[0])} to be written{f', {disk[1]}' if disk[1] else ''}")
    lines += [f"  {one}" for one in _forecast(forecast, _titles(plan))] if forecast else []
    lines += [f"  {estimate_in_words(one)}" for one in prices(plan, states, selected)]
    lines += [f"  {one}" for one in power_view.as_lines(plan, folder)]
    lines += [f"  {one}" for one in stale]
    return "\n".join(lines)


def _forecast(forecast: Forecast, titles: dict[tuple[str, str], str]) -> list[str]:
    """Say what a plan will take: the wall time, then a line a kind of job of which something is known."""
    lines = list(forecast.not_taken)
    if forecast.taken_over:
        count, whose = len(forecast.taken_over), ", ".join(dict.fromkeys(forecast.taken_over.values()))
        lines.append(f"taken over: {count} {'job' if count == 1 else 'jobs'} from {whose}, not to be made again")
    if not forecast.kinds:
        return lines
    if forecast.wall_seconds is None:
        lines.append(
            f"time: not known: {forecast.wall_seconds_reason}; a first run leaves records, or give --like FOLDER"
        )
    else:
        on = f"on {forecast.workers} {'worker' if forecast.workers == 1 else 'workers'}"
        lines.append(f"time: {_time(forecast.wall_seconds, forecast.at_most)} {on}, by records in {forecast.records}")
    for one in forecast.kinds:
        if one.seconds is None and one.peak_memory_bytes is None:
            continue
        time = "time not known" if one.seconds is None else _time(one.seconds, one.at_most)
        memory = "not known" if one.peak_memory_bytes is None else in_words(one.peak_memory_bytes)
        lines.append(f"  {one.jobs} × {titles.get((one.kind, one.stage), one.kind)}: {time}; peak memory {memory}")
    return lines


def _time(seconds: float, at_most: bool) -> str:
    return f"{'at most' if at_most else 'about'} {duration(seconds)}"


def _remark(job: JobSpec) -> str:
    parts = []
    if len(job.roles) > 1 or (job.roles and job.roles[0] != "run"):
        parts.append(" and ".join(role.replace("_", " ") for role in job.roles))
    if job.steps:
        parts.append(f"{job.steps_to_run} steps")
    if job.prefix:
        parts.append(f"after {job.prefix.step} shared ones of {job.prefix.job}")
    return ", ".join(parts)
