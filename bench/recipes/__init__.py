"""The recipes: policies that are not made by a stream of steps of the shared loop.

A recipe stands beside the methods in a suite and in every table of the report. It makes its policy of other jobs' policies, or
trains one in a loop of its own and tells `Making.steps` of each step. To add one: a file beside this one and a line in
`RECIPES`, or an entry point in the group `bench.recipes` of another package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel

from bench.plugins import Contract
from bench.registry import Registry

if TYPE_CHECKING:
    from bench.models.policy import Policy
    from bench.recipes.steps import Steps


@dataclass(frozen=True)
class Making:
    """Give a recipe what it makes its policy from.

    Attributes:
        policy: the base model, untouched.
        lambda_dpo: λ, the weight of DPO.
        seed: the run's seed.
        adapters: role -> folder of the job whose policy the recipe needs; no entry where that is the base model.
        steps: the clock and the records of a recipe that trains; `steps.run` holds suite, data and phases. The phases are those
            of the Sequential run at the same λ.
    """

    policy: Policy
    lambda_dpo: float
    seed: int
    adapters: Mapping[str, Path]
    steps: Steps


class Recipe(Protocol):
    """Make one policy.

    It may have a static `refuses(options, parts) -> str | None` that says, beginning with the key to change, why it cannot
    train with a suite's settings (`bench.settings.TrainingParts`), before anything is run.

    Attributes:
        Options: a pydantic model of the keys a suite may give this recipe.
        needs: roles of the jobs whose policies it needs: optimum_dpo and optimum_sft of the same seed, reference.
        untrained: why there are no training figures on record; None: it trains, and leaves them.
        reductions: values of `objectives.reduction` that it can do.
    """

    Options: ClassVar[type[BaseModel]]
    needs: ClassVar[tuple[str, ...]]
    untrained: ClassVar[str | None]
    reductions: ClassVar[tuple[str, ...]]

    def __init__(self, options: Any) -> None: ...

    def produce(self, making: Making) -> None:
        """Leave an adapter on `making.policy`, or weights in it."""


ROLES = ("optimum_dpo", "optimum_sft", "reference")
REDUCTIONS = ("token_mean", "sequence_sum")


def _not_among(known: tuple[str, ...]) -> Callable[[Any], str | None]:
    """Return a check that a value is a tuple of known names."""

    def check(made: Any) -> str | None:
        if isinstance(made, tuple | list) and all(one in known for one in made):
            return None
        return f"is {made!r:.100}; it is a tuple of what it knows among {', '.join(known)}"

    return check


def _no_reason(made: Any) -> str | None:
    return None if made is None or isinstance(made, str) else f"is {made!r:.100}; it is a reason in words, or None"


RECIPES: Registry[type[Recipe]] = Registry(
    "recipe",
    "bench.recipes",
    {
        "interpolation": "bench.recipes.interpolation:Interpolation",
        "trl_sequential": "bench.recipes.trl_sequential:TrlSequential",
    },
    Contract(
        Recipe,
        parts=("Options", "needs", "untrained", "reductions", "produce"),
        values={"needs": _not_among(ROLES), "untrained": _no_reason, "reductions": _not_among(REDUCTIONS)},
    ),
)
