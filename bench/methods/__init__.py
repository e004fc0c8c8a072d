"""The methods: which objectives does one optimizer step descend?

A method is torch-free. The loop in `train/loop.py` calls `choose` before a step and `observe` after it; everything a resumed
run needs to take the same steps is in `state`. To add one: a file beside this one and a line in `METHODS`, or an entry
point in the group `bench.methods` of another package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from bench.registry import Registry
from bench.settings import Frozen


class Objective(StrEnum):
    """Name the two objectives."""

    DPO = "dpo"
    SFT = "sft"


class Need(StrEnum):
    """Name what must be known or at hand before a method's run starts."""

    OPTIMUM = "optimum"  # f* of both objectives on a fixed sample of training rows
    ROW_OPTIMUM = "row_optimum"  # the optima's losses on every training row
    CHOSEN_ANSWERS = "chosen_answers"  # f_SFT on the chosen answers of the pairs that a step descends


@dataclass(frozen=True)
class Choice:
    """Say what one step descends: a weight per objective, and the phase.

    An objective without a weight gets no forward pass. A change of phase means a new optimizer and schedule.

    Attributes:
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
        batch_optimum: gives the optimum's loss on the rows that an objective's last probe or step was on, to a method that
            needs ROW_OPTIMUM; None on a toy problem, which has no rows.
    """

    lambda_dpo: float
    steps: int
    seed: int
    phase_steps: Mapping[Objective, int]
    order: tuple[Objective, Objective]
    optimum: Mapping[Objective, float]
    batch_optimum: Callable[[Objective], float] | None = None


Probe = Callable[[Objective], float]


class NoOptions(Frozen):
    """Take no options."""


def needs_nothing(_: Any) -> frozenset[Need]:
    """Need nothing before the run starts."""
    return frozenset()


class Method(Protocol):
    """Decide which objectives one optimizer step descends.

    Attributes:
        Options: a pydantic model of the keys a suite may give this method; a docstring below a field describes it.
        needs: what must be known before the run starts, given the options.
        batches_per_step: batches of each objective per step, in expectation, for the plan's estimate.
    """

    Options: ClassVar[type[BaseModel]]

    def __init__(self, setup: Setup, options: Any) -> None: ...

    @staticmethod
    def needs(options: Any) -> frozenset[Need]: ...

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: Any) -> dict[Objective, float]: ...

    def choose(self, step: int, probe: Probe) -> Choice:
        """Choose what step `step` (from 1) descends; `probe` evaluates an objective on its next batch, without a graph."""

    def observe(self, losses: Mapping[Objective, float]) -> None:
        """Learn the losses of the step just taken, as they were before the update."""

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""


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
)
