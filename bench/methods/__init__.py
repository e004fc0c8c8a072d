"""The methods: which objectives does one optimizer step descend?

A method is torch-free. The loop in `train/loop.py` calls `choose` before a step and `observe` after it; everything a resumed
run needs to take the same steps is in `state`. What else the program must know of a method it declares: its phases, what it
needs, what may end it early. Nothing asks for its name. To add one: a file beside this one with a subclass of `Method` and a
line in `METHODS`, or an entry point in the group `bench.methods` of another package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from bench.plugins import Contract
from bench.records.work import Work
from bench.registry import NoOptions as NoOptions
from bench.registry import Registry


class Objective(StrEnum):
    """Name the two objectives."""

    DPO = "dpo"
    SFT = "sft"


class Need(StrEnum):
    """Name what must be known or at hand before a method's run starts."""

    OPTIMUM = "optimum"  # f* of both objectives on a fixed sample of training rows
    ROW_OPTIMUM = "row_optimum"  # the optima's losses on every training row
    CHOSEN_ANSWERS = "chosen_answers"  # f_SFT on the chosen answers of the pairs that a step descends


class Target(StrEnum):
    """Name what a stopping rule may compare a run with."""

    OPTIMUM = "optimum"  # f* of each objective
    FRONT = "front"  # the points of the reference front


@dataclass(frozen=True)
class Phase:
    """Describe a stretch of steps with an optimizer and a learning rate schedule of its own.

    Attributes:
        steps: how many; 0 for a phase that is left out.
        alone: the objective that every step of the phase descends, with weight 1 and nothing else, whatever was seen before.
            Such steps are those of the objective's optimum, whose checkpoint a run may then start from.
    """

    steps: int
    alone: Objective | None = None


@dataclass(frozen=True)
class Choice:
    """Say what one step descends: a weight per objective, and the phase.

    An objective without a weight gets no forward pass. A change of phase means a new optimizer and schedule.

    Attributes:
        phase: its place among the phases that the method declares.
        chosen_sft: weight of f_SFT on the chosen answers of the very pairs whose f_DPO is descended.
        gaps: the weighted gaps that the choice was made on, for the record.
    """

    weights: Mapping[Objective, float]
    phase: int = 0
    joint_backward: bool = False
    chosen_sft: float = 0.0
    gaps: Mapping[Objective, float] | None = None


@dataclass(frozen=True)
class Setup:
    """Give a method what it may know: λ, the run's length, its seed, and the optima's values on training rows.

    Attributes:
        phase_steps: how the suite's `phases`, or λ, split the steps between the objectives; 0 for one that is left out.
        order: which of them the suite trains first.
        optimum: f* of both objectives, to a method that needs OPTIMUM; empty while phases are declared.
        batch_optimum: gives the optimum's loss on the rows that an objective's last probe or step was on, to a method that
            needs ROW_OPTIMUM; None on a toy problem, which has no rows.
    """

    lambda_dpo: float
    steps: int
    seed: int
    phase_steps: Mapping[Objective, int]
    order: tuple[Objective, Objective]
    optimum: Mapping[Objective, float] = field(default_factory=dict)
    batch_optimum: Callable[[Objective], float] | None = None


@dataclass(frozen=True)
class Gradients:
    """How the gradients of both objectives lie to each other, each taken on the batch that the step then descends.

    Attributes:
        dot: their inner product.
        norms: their Euclidean norms.
        losses: both objectives on these batches.
    """

    dot: float
    norms: Mapping[Objective, float]
    losses: Mapping[Objective, float]


class Probe(Protocol):
    """Look before a step is chosen. What is looked at is the next batch, which the step then descends; the run is charged."""

    def __call__(self, objective: Objective) -> float:
        """Evaluate an objective, without a graph."""

    def gradients(self) -> Gradients:
        """Take the gradients of both objectives; a step on a weighted sum of them goes back through no graph again."""


class Method(Protocol):
    """Decide which objectives one optimizer step descends. A subclass needs `choose` and `batches_per_step`.

    Attributes:
        Options: a pydantic model of the keys a suite may give this method; a docstring below a field describes it.
        stops_at: what a stopping rule may compare its runs with.
        makes_front: whether the ends of its runs are points of the reference front; they are not compared with it then.
    """

    Options: ClassVar[type[BaseModel]] = NoOptions
    stops_at: ClassVar[frozenset[Target]] = frozenset(Target)
    makes_front: ClassVar[bool] = False

    def __init__(self, setup: Setup, options: Any) -> None: ...

    @staticmethod
    def needs(options: Any) -> frozenset[Need]:
        """Say what must be known before the run starts."""
        return frozenset()

    @staticmethod
    def phases(setup: Setup, options: Any) -> tuple[Phase, ...]:
        """Declare the phases in their order; their steps add up to the run's."""
        return (Phase(setup.steps),)

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: Any) -> dict[Objective, float]:
        """Say how many batches of each objective a step descends, in expectation, for the plan's estimate of tokens."""

    @staticmethod
    def work(lambda_dpo: float, options: Any) -> frozenset[Work]:
        """Say what its steps are made of, so that the cost of each is measured alone; all there is unless it says less."""
        return frozenset(Work)

    def choose(self, step: int, probe: Probe) -> Choice:
        """Choose what step `step` (from 1) descends; `probe` looks at the objectives' next batches."""

    def observe(self, losses: Mapping[Objective, float]) -> None:
        """Learn the losses of the step just taken, as they were before the update."""
        return

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON values."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        return


def _wrong_phases(phases: Any) -> str | None:
    """Say what is no declaration of phases."""
    if not isinstance(phases, tuple | list) or not phases or not all(isinstance(one, Phase) for one in phases):
        return f"{phases!r:.100}, but phases are a tuple of Phase, one or more"
    for one in phases:
        if not isinstance(one.steps, int) or one.steps < 0:
            return f"a phase of {one.steps!r} steps, but it has a whole number of them, 0 or more"
        if one.alone is not None and not isinstance(one.alone, Objective):
            return f"a phase with alone={one.alone!r}, but alone is Objective.DPO, Objective.SFT or None"
    return None


def is_finite(number: Any) -> bool:
    """Say whether something is a finite number."""
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


def _wrong_batches(made: Any) -> str | None:
    if not isinstance(made, Mapping) or not all(isinstance(one, Objective) for one in made):
        return f"{made!r:.100}, but it says how many batches of each Objective a step descends"
    wrong = next((count for count in made.values() if not is_finite(count) or count < 0), None)
    return None if wrong is None else f"{wrong!r} batches a step, but it is a number, 0 or more"


def _not_of(kind: type[StrEnum]) -> Callable[[Any], str | None]:
    """Return a check that a value is a set of one kind of names."""

    def check(made: Any) -> str | None:
        if isinstance(made, frozenset | set) and all(isinstance(one, kind) for one in made):
            return None
        return f"{made!r:.100}, but it is a frozenset of {kind.__name__}: {', '.join(kind.__members__)}"

    return check


METHODS: Registry[type[Method]] = Registry(
    "method",
    "bench.methods",
    {
        "sequential": "bench.methods.sequential:Sequential",
        "mix": "bench.methods.mix:Mix",
        "alright": "bench.methods.alright:Alright",
        "maxright": "bench.methods.maxright:Maxright",
        "dpo_with_sft": "bench.methods.dpo_with_sft:DpoWithSft",
    },
    Contract(
        Method,
        parts=("choose", "batches_per_step"),
        returns={
            "needs": _not_of(Need),
            "phases": _wrong_phases,
            "batches_per_step": _wrong_batches,
            "work": _not_of(Work),
        },
    ),
)
