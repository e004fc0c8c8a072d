"""Can a step be taken as its method chose it? Every method is asked, ours too. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from bench.errors import JobError
from bench.methods import METHODS, Choice, Objective, Phase, is_finite


def check(name: str, choice: Any, step: int, phases: Sequence[Phase]) -> None:
    """Refuse a step that cannot be taken.

    Args:
        name: the method's.
        choice: what it returned.
        step: from 1.
        phases: those that it declares.

    Raises:
        JobError: says whose the method is, at which step, and what is wrong.
    """
    problem = wrong(choice, step, phases)
    if problem:
        raise JobError(f"{METHODS.whose(name)}, step {step}: {problem}")


def wrong(choice: Any, step: int, phases: Sequence[Phase]) -> str | None:
    """Say why a step cannot be taken as chosen.

    Args:
        choice: what the method returned.
        step: from 1.
        phases: those that the method declares.
    """
    if not isinstance(choice, Choice):
        return f"it returned {choice!r:.100}, not a Choice"
    return _wrong_weights(choice) or _wrong_phase(choice, step, phases)


def _wrong_weights(choice: Choice) -> str | None:
    weights = choice.weights
    if not isinstance(weights, Mapping) or not weights:
        return f"it chose the weights {weights!r:.100}; give one objective a weight, or both"
    for objective, weight in weights.items():
        if not isinstance(objective, Objective):
            return f"it chose a weight of {objective!r}; the objectives are Objective.DPO and Objective.SFT"
        if not is_finite(weight):
            return f"it chose the weight {weight!r} of {objective.upper()}, which is no finite number"
    if not is_finite(choice.chosen_sft):
        return f"it chose chosen_sft = {choice.chosen_sft!r}, which is no finite number"
    if choice.chosen_sft and Objective.DPO not in weights:
        return "it chose chosen_sft without a weight of DPO, whose pairs it is on"
    return None


def _wrong_phase(choice: Choice, step: int, phases: Sequence[Phase]) -> str | None:
    if not isinstance(choice.phase, int) or not 0 <= choice.phase < len(phases):
        count = f"{len(phases)} {'phase' if len(phases) == 1 else 'phases'}"
        return f"it chose phase {choice.phase}, but declares {count}, counted from 0"
    place = phase_of(step, phases)
    if choice.phase != place:
        lengths = " + ".join(str(one.steps) for one in phases)
        return f"it chose phase {choice.phase}, but declares phases of {lengths} steps, so that this step is of phase {place}"
    alone = phases[choice.phase].alone
    if alone and (dict(choice.weights) != {alone: 1.0} or choice.chosen_sft):
        return f"it chose {_shown(choice)} in phase {choice.phase}, which it declares to be {alone.upper()} alone, with weight 1"
    return None


def phase_of(step: int, phases: Sequence[Phase]) -> int:
    """Return which phase a step (from 1) is in, by their lengths; beyond their sum it is the last that has steps."""
    ends = list(accumulate(one.steps for one in phases))
    return next((place for place, end in enumerate(ends) if min(step, ends[-1]) <= end), len(phases) - 1)


def _shown(choice: Choice) -> str:
    shown = ", ".join(f"{objective.upper()}: {weight:g}" for objective, weight in choice.weights.items())
    return f"{shown} and chosen_sft: {choice.chosen_sft:g}" if choice.chosen_sft else shown
