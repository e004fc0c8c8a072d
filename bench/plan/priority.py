"""Which of the jobs that could run goes first: the one that the longest chain of others waits for."""

from __future__ import annotations

from bench.plan.plan import Plan

_SHARE = (
    0.1  # what a job without steps is taken to cost, of the costliest with some: an evaluation, or a pass over the rows
)


def order(plan: Plan) -> list[str]:
    """Return the plan's jobs in the order in which those that could run are started; what runs alone comes last.

    A job's rank is what it roughly costs and the rank of the costliest job that needs it, so a job always stands before those
    that need it. Equals stay in the plan's order.
    """
    costs = rough_costs(plan)
    waiting = dict.fromkeys(plan.jobs, 0.0)  # the costliest chain that begins behind a job
    ranks: dict[str, float] = {}
    for job_id in reversed(plan.jobs):  # a job stands after those it needs
        ranks[job_id] = costs[job_id] + waiting[job_id]
        for one in plan.jobs[job_id].needs:
            waiting[one] = max(waiting[one], ranks[job_id])
    return sorted(plan.jobs, key=lambda one: (plan.jobs[one].alone, -ranks[one]))


def rough_costs(plan: Plan) -> dict[str, float]:
    """Return what each job roughly costs, as the plan bounds it: tokens, or steps where it knows no tokens."""
    known = {}
    for job_id, job in plan.jobs.items():
        known[job_id] = (job.tokens or job.steps) * (job.steps_to_run / job.steps if job.steps else 0.0)
    other = _SHARE * max(known.values(), default=0.0) or 1.0
    return {job_id: cost or other for job_id, cost in known.items()}
