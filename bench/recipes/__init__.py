"""The recipes: adapters that are not made by a stream of steps of the shared loop.

A recipe stands beside the methods in a suite and in every table of the report. To add one: a file beside this one and a
line in `RECIPES`, or an entry point in the group `bench.recipes` of another package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel

if TYPE_CHECKING:
    from bench.policy import Policy


@dataclass(frozen=True)
class Making:
    """Give a recipe what it makes its adapter from.

    Attributes:
        policy: the base model without an adapter.
        lambda_dpo: λ, the weight of DPO.
        seed: the run's seed.
        adapters: role -> folder of the job whose adapter the recipe needs.
    """

    policy: Policy
    lambda_dpo: float
    seed: int
    adapters: Mapping[str, Path]


class Recipe(Protocol):
    """Make one adapter.

    Attributes:
        Options: a pydantic model of the keys a suite may give this recipe.
        needs: roles of the jobs whose adapters it is made from, of the same seed: optimum_dpo, optimum_sft.
        untrained: why there are no training figures on record.
    """

    Options: ClassVar[type[BaseModel]]
    needs: ClassVar[tuple[str, ...]]
    untrained: ClassVar[str]

    def __init__(self, options: Any) -> None: ...

    def produce(self, making: Making) -> None:
        """Leave the adapter on `making.policy`."""


class _Table(Mapping[str, type[Recipe]]):
    """Look recipes up by name; other packages' recipes are loaded when asked for."""

    @cached_property
    def _own(self) -> dict[str, type[Recipe]]:
        from bench.recipes.interpolation import Interpolation

        return {"interpolation": Interpolation}

    @cached_property
    def _foreign(self) -> dict[str, Any]:
        return {point.name: point for point in entry_points(group="bench.recipes")}

    def __getitem__(self, name: str) -> type[Recipe]:
        if name in self._own:
            return self._own[name]
        recipe: type[Recipe] = self._foreign[name].load()
        return recipe

    def __iter__(self) -> Iterator[str]:
        return iter({**self._own, **self._foreign})

    def __len__(self) -> int:
        return len({**self._own, **self._foreign})


RECIPES: Mapping[str, type[Recipe]] = _Table()
