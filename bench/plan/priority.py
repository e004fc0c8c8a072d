"""Which of the jobs that could run goes first: the one that the longest chain of others waits for."""

from __future__ import annotations

from bench.plan.plan import Plan
from bench.records.spec import KINDS, WITH_ADAPTER, PolicyLabels

_SHARE = (
    0.1  # what a job without steps is taken to cost, of the costliest with some: an evaluation, or a pass over the rows
)


def order(plan: Plan, places: int = 1) -> list[str]:
    """Return the plan's jobs in the order in which those that could run are started; what runs alone comes last.

    A job's rank is what it roughly costs and the rank of the costliest job that needs it, so a job always stands before those
    that need it. Equals stay in the plan's order. Only the evaluations of the policies that are made first do not wait until
    all training is done: what is wrong with an evaluation shows early, and what all of them will take.

    Args:
        plan: which.
        places: jobs that compute at the same time. Evaluations of one policy more go early, as the first on each also loads.
    """
    costs = rough_costs(plan)
    waiting = dict.fromkeys(plan.jobs, 0.0)  # the costliest chain that begins behind a job
    ranks: dict[str, float] = {}
    for job_id in reversed(plan.jobs):  # a job stands after those it needs
        ranks[job_id] = costs[job_id] + waiting[job_id]
        for one in plan.jobs[job_id].needs:
            waiting[one] = max(waiting[one], ranks[job_id])
    found = sorted(plan.jobs, key=lambda one: (plan.jobs[one].alone, -ranks[one]))
    return _with_early(plan, found, places + 1)


def _with_early(plan: Plan, order: list[str], count: int) -> list[str]:
    """Move the evaluations of the first policies to where these are made, behind what the longest chain goes on with."""
    policies = [one for one in order if plan.jobs[one].kind in WITH_ADAPTER][:count]
    of_policy: dict[str, list[str]] = {}
    for job_id, job in plan.jobs.items():
        if job.kind not in KINDS and isinstance(job.labels, PolicyLabels) and job.labels.of in policies:
            of_policy.setdefault(job.labels.of, []).append(job_id)
    links = {
        need for job in plan.jobs.values() if job.kind in KINDS for need in job.needs
    }  # training goes on from them
    behind: dict[str, list[str]] = {}
    moved: set[str] = set()

    def move(job_id: str, place: list[str]) -> None:
        if plan.jobs[job_id].kind not in KINDS and job_id not in moved:
            moved.add(job_id)
            for one in plan.jobs[job_id].needs:  # such as the base's answers
                move(one, place)
            place.append(job_id)

    for policy in (one for one in policies if one in of_policy):
        nexts = (one for one in order if one in links and policy in plan.jobs[one].needs)
        place = behind.setdefault(next(nexts, policy), [])
        for job_id in of_policy[policy]:
            move(job_id, place)
    return [one for job_id in order if job_id not in moved for one in (job_id, *behind.get(job_id, ()))]


def rough_costs(plan: Plan) -> dict[str, float]:
    """Return what each job roughly costs, as the plan bounds it: tokens, or steps where it knows no tokens."""
    known = {}
    for job_id, job in plan.jobs.items():
        known[job_id] = (job.tokens or job.steps) * (job.steps_to_run / job.steps if job.steps else 0.0)
    other = _SHARE * max(known.values(), default=0.0) or 1.0
    return {job_id: cost or other for job_id, cost in known.items()}
