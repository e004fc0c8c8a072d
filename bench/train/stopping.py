"""When a joint run may end before its last step: the rules of the suite key `training.stopping`. Pure, no torch.

`authors` is the rule in the authors' published code, which the paper's text only mentions: at each evaluation, stop when either
objective has come to its optimum or any point of the reference front is matched in both. `dominates` asks for the second
alone, so that a run cannot end for being good at one objective. "Come to" is f − f* ≤ threshold, signed: below counts too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.methods import Method, Objective, Target


@dataclass(frozen=True)
class Rule:
    """What a run is compared with; all values are of the suite's evaluation split, in nats.

    Attributes:
        threshold: how far above a target still counts as having reached it.
        optimum: f* of each objective, of which one is enough; empty where the rule does not ask for it.
        front: points of the reference front by name; both values of one are needed.
    """

    threshold: float
    optimum: Mapping[Objective, float] = field(default_factory=dict)
    front: Mapping[str, Mapping[Objective, float]] = field(default_factory=dict)

    def held_against(self, start: Mapping[Objective, float]) -> tuple[Rule, list[str]]:
        """Leave out targets that a run meets before it begins: not below f(θ_1) by more than the threshold.

        Args:
            start: f(θ_1) of each objective.

        Returns:
            The rule that is left, and a sentence on each target that is not.
        """
        optimum = {one: target for one, target in self.optimum.items() if not self._reached(start[one], target)}
        front = {
            name: point
            for name, point in self.front.items()
            if not all(self._reached(start[objective], point[objective]) for objective in Objective)
        }
        dropped = [
            f"the optimum of {_name(one)} ({target:.5f}) is not below f(θ_1) = {start[one]:.5f}: nothing was learned there"
            for one, target in self.optimum.items()
            if one not in optimum
        ]
        dropped += [f"{name} of the reference front is met before any step" for name in self.front if name not in front]
        return Rule(self.threshold, optimum, front), dropped

    def reason(self, values: Mapping[Objective, float]) -> str | None:
        """Say why a run with these objective values should stop; None where it should go on."""
        for objective, optimum in self.optimum.items():
            if self._reached(values[objective], optimum):
                return (
                    f"{_name(objective)} = {values[objective]:.5f} is within {self.threshold:g} of its optimum "
                    f"{optimum:.5f} or below"
                )
        for name, point in self.front.items():
            if all(self._reached(values[objective], point[objective]) for objective in Objective):
                ours, theirs = (
                    ", ".join(f"{one[objective]:.5f}" for objective in Objective) for one in (values, point)
                )
                return f"(f_DPO, f_SFT) = ({ours}) matches {name} ({theirs}) of the reference front in both"
        return None

    def _reached(self, value: float, target: float) -> bool:
        return value - target <= self.threshold


def _name(objective: Objective) -> str:
    return f"f_{objective.upper()}"


_LOOKS_AT: dict[str, frozenset[Target]] = {
    "none": frozenset(),
    "authors": frozenset(Target),
    "dominates": frozenset({Target.FRONT}),
}


def targets(rule: str, method: type[Method]) -> frozenset[Target]:
    """Return what a rule compares a method's runs with; nothing: it does not apply to them."""
    of_front = {Target.FRONT} if method.makes_front else set()  # its runs cannot wait for themselves
    return (_LOOKS_AT[rule] & method.stops_at) - of_front
