"""What a job will take, by what jobs of its kind took: seconds by steps and tokens of training, by the job for anything else."""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from bench.plan.identity import as_json
from bench.records.spec import JobSpec

# The first job of a kind on a worker also imports, loads and compiles: of a short job that is most of its time.
LONG_SECONDS = 60.0
_KEPT = 9  # of a method or a stage: the latest, so that a machine that became slower or faster is followed
_KEPT_OF_A_KIND = 60
# A machine that is slower now is so for all kinds of jobs: each that ends moves what is believed of all by a part of its ratio to
# what was guessed, on a logarithmic scale; one alone says no more than twice or half.
_FOLLOWED, _MOST_OF_ONE = 0.2, 2.0
TRAINING = ("train", "recipe")
# What sets training jobs apart without changing what a step on so many tokens takes.
_NOT_OF_A_STEP = {"seed", "lambda_dpo", "options", "method", "recipe", "phases", "beta", "budget", "steps", "stopping"}
_NOT_OF_A_STEP |= {"order", "phase_steps", "sft_on_chosen", "sft_rows"}
_NOT_OF_TRAINING = {"learning_rate", "schedule", "warmup_steps", "adam_betas", "weight_decay", "max_grad_norm"}


@dataclass(frozen=True)
class Work:
    """What a job has to do.

    Attributes:
        kind: jobs of equal kind take seconds in proportion to their size.
        method: what sets jobs of the kind apart further: the method and its options; "" for an evaluation.
        steps, tokens: its size; 0 where the kind has none, as all its jobs do the same.
    """

    kind: str
    method: str = ""
    steps: float = 0.0
    tokens: float = 0.0

    @property
    def size(self) -> float:
        return self.tokens or self.steps or 1.0


def of_job(job: JobSpec) -> Work:
    """Return what a job of a plan has to do, as far as the plan bounds it."""
    steps = job.steps_to_run
    tokens = job.tokens * steps / job.steps if job.steps else 0.0
    return of_settings(job.kind, job.settings, job.resources.devices, steps, tokens)


def of_settings(kind: str, settings: Mapping[str, Any], devices: int, steps: float, tokens: float) -> Work:
    """Return what a job has to do, by its settings, which say what is equal work."""
    if kind == "toy":
        return Work(kind, str(settings["method"]), steps)
    if kind not in TRAINING:
        return Work(sys.intern(as_json([kind, devices, settings])), "", steps)
    # A recipe that trains by itself takes of these what it needs, and maybe none.
    training = {name: one for name, one in settings.get("training", {}).items() if name not in _NOT_OF_TRAINING}
    data = {name: one for name, one in settings.get("data", {}).items() if name.startswith("max_")}
    held_out = [settings.get("data", {}).get(name, {}).get("evaluation_rows") for name in ("preference", "instruction")]
    own = {name: one for name, one in settings.items() if name not in _NOT_OF_A_STEP}
    key = as_json([kind, devices, own | {"training": training, "data": data}, held_out])
    method = as_json([settings.get("method", settings.get("recipe")), settings.get("options")])
    return Work(sys.intern(key), sys.intern(method), steps, tokens)


@dataclass(frozen=True)
class Took:
    """What a job took.

    Attributes:
        first: whether it was the first of its kind on its worker.
    """

    work: Work
    seconds: float
    first: bool = False


@dataclass(frozen=True)
class Guess:
    """What a job will take.

    Attributes:
        sure: whether jobs like it were seen that neither loaded nor compiled; if not, it is a bound from above.
    """

    seconds: float
    sure: bool


class Durations:
    """Keep what jobs took, and say what others will take.

    Seconds are kept as on the machine of the first ones; `_slower` is how many times slower it is now.
    """

    def __init__(self, took: Iterable[Took] = ()) -> None:
        self._slower = 1.0
        self._of_method: dict[tuple[str, str], deque[Took]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._of_kind: dict[str, deque[Took]] = defaultdict(lambda: deque(maxlen=_KEPT_OF_A_KIND))
        self._first: dict[str, float] = {}
        self._known: dict[Work, Guess | None] = {}
        for one in took:
            self._keep(one)

    def add(self, took: Took) -> None:
        """Take into account what a job took that just ended."""
        guess = self.guess(took.work)
        if guess and guess.sure and guess.seconds > 0 and took.seconds > 0 and not _is_mostly_start(took):
            ratio = min(_MOST_OF_ONE, max(1 / _MOST_OF_ONE, took.seconds / guess.seconds))
            self._slower *= ratio**_FOLLOWED
        self._keep(replace(took, seconds=took.seconds / self._slower))

    def _keep(self, took: Took) -> None:
        self._known.clear()
        work = took.work
        if _is_mostly_start(took):
            rate = took.seconds / work.size
            self._first[work.kind] = min(self._first.get(work.kind, rate), rate)
            return
        self._of_method[work.kind, work.method].append(took)
        self._of_kind[work.kind].append(took)

    def guess(self, work: Work) -> Guess | None:
        """Return what such a job will take; None where no job of its kind was seen."""
        if work not in self._known:
            found = self._guess(work)
            self._known[work] = found and Guess(found.seconds * self._slower, found.sure)
        return self._known[work]

    def _guess(self, work: Work) -> Guess | None:
        seen = self._of_method.get((work.kind, work.method))
        if seen:
            return Guess(median(one.seconds / one.work.size for one in seen) * work.size, sure=True)
        others = self._of_kind.get(work.kind)
        if others:
            return Guess(_by_size(list(others), work), sure=True)
        if work.kind in self._first:
            return Guess(self._first[work.kind] * work.size, sure=False)
        return None


def _is_mostly_start(took: Took) -> bool:
    return took.first and took.seconds < LONG_SECONDS


def _by_size(seen: list[Took], work: Work) -> float:
    """Predict seconds from steps and tokens: least squares of relative errors, neither a step nor a token below nothing."""
    if not work.tokens or not work.steps or not all(one.work.tokens and one.work.steps for one in seen):
        return median(one.seconds / one.work.size for one in seen) * work.size
    rows = [(one.work.steps / one.seconds, one.work.tokens / one.seconds) for one in seen if one.seconds > 0]
    if not rows:
        return 0.0
    ss, tt = sum(s * s for s, _ in rows), sum(t * t for _, t in rows)
    st, s1, t1 = sum(s * t for s, t in rows), sum(s for s, _ in rows), sum(t for _, t in rows)
    by_steps, by_tokens = s1 / ss * work.steps, t1 / tt * work.tokens
    determinant = ss * tt - st * st
    if determinant < 1e-6 * ss * tt:  # all alike: a step's share and a token's cannot be told apart
        return (by_steps + by_tokens) / 2
    of_step, of_token = (s1 * tt - t1 * st) / determinant, (t1 * ss - s1 * st) / determinant
    if of_step < 0:
        return by_tokens
    if of_token < 0:
        return by_steps
    return of_step * work.steps + of_token * work.tokens
