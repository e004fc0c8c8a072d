"""The methods: which objectives does one optimizer step descend?

A method is torch-free. The loop in `train.py` calls `choose` before a step and `observe` after it; everything a resumed
run needs to take the same steps is in `state`. To add one: a file beside this one and a line in `METHODS`, or an entry
point in the group `bench.methods` of another package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict


class Objective(StrEnum):
    """Name the two objectives."""

    DPO = "dpo"
    SFT = "sft"


@dataclass(frozen=True)
class Choice:
    """Say what one step descends: a weight per objective, and the phase.

    An objective without a weight gets no forward pass. A change of phase means a new optimizer and schedule.
    """

    weights: Mapping[Objective, float]
    phase: int = 0
    joint_backward: bool = False


@dataclass(frozen=True)
class Setup:
    """Give a method what it may know: λ, the run's length, its seed, and the optima's values on training rows."""

    lambda_dpo: float
    steps: int
    seed: int
    phase_steps: Mapping[Objective, int]
    order: tuple[Objective, Objective]
    optimum: Mapping[Objective, float]


Probe = Callable[[Objective], float]


class NoOptions(BaseModel):
    """Take no options."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Method(Protocol):
    """Decide which objectives one optimizer step descends.

    Attributes:
        Options: a pydantic model of the keys a suite may give this method.
        needs_optima: whether f*_DPO and f*_SFT must be known before the run starts.
        batches_per_step: batches of each objective per step, in expectation, for the plan's estimate.
    """

    Options: ClassVar[type[BaseModel]]
    needs_optima: ClassVar[bool]

    def __init__(self, setup: Setup, options: Any) -> None: ...

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


class _Table(Mapping[str, type[Method]]):
    """Look methods up by name; other packages' methods are loaded when asked for."""

    @cached_property
    def _own(self) -> dict[str, type[Method]]:
        from bench.methods.alright import Alright
        from bench.methods.maxright import Maxright
        from bench.methods.mix import Mix
        from bench.methods.sequential import Sequential

        return {"sequential": Sequential, "mix": Mix, "alright": Alright, "maxright": Maxright}

    @cached_property
    def _foreign(self) -> dict[str, Any]:
        return {point.name: point for point in entry_points(group="bench.methods")}

    def __getitem__(self, name: str) -> type[Method]:
        if name in self._own:
            return self._own[name]
        method: type[Method] = self._foreign[name].load()
        return method

    def __iter__(self) -> Iterator[str]:
        return iter({**self._own, **self._foreign})

    def __len__(self) -> int:
        return len({**self._own, **self._foreign})


METHODS: Mapping[str, type[Method]] = _Table()
