"""What a choice came to: the recipe, the runner-up, and every other recipe with the reason why not. Plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from report.choose.expression import Expression
from report.render.numbers import number, series_digits

CHOICE_SCHEMA = 1


@dataclass(frozen=True)
class Candidate:
    """One recipe in a choice.

    Attributes:
        jobs: seed -> training job, of the seeds on which all figures are known.
        goal: what is to be largest or smallest; NaN where it cannot be computed.
        figures: the recipe's figures that the expression names, in the expression's units.
        failed: the conditions that it does not meet, each with its numbers.
        unknown: why it could not be checked; such a recipe is not in the running.
        wins: share of the draws in which it would be chosen of all recipes (a tie is shared); NaN without draws.
        among_all: that share where training on one objective alone and the base model may be chosen as well.
    """

    name: str
    method: str
    lambda_dpo: float | None
    jobs: dict[int, str]
    goal: float = math.nan
    figures: dict[str, float] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    wins: float = math.nan
    among_all: float = math.nan

    @property
    def allowed(self) -> bool:
        """Whether it meets every condition."""
        return not self.failed and not self.unknown


@dataclass(frozen=True)
class Choice:
    """What was asked and what came out.

    Attributes:
        candidates: best first; then those that fail a condition, then those that could not be checked.
        units: figure's name -> unit.
        draws: how many; 0 where nothing varies.
        resampled: what was drawn anew, in words.
        nobody: share of the draws in which no recipe meets the conditions; NaN without draws.
        notes: what to keep in mind.
        level: the allowed recipes that the first is not told apart from.
        others: training on SFT alone, on DPO alone, and the base model, by the same words.
        level_of_all: those of recipes and others that the pick is not told apart from.
    """

    suite: str
    expression: Expression
    candidates: tuple[Candidate, ...]
    units: dict[str, str]
    draws: int
    resampled: tuple[str, ...]
    nobody: float
    notes: tuple[str, ...]
    level: tuple[str, ...] = ()
    others: tuple[Candidate, ...] = ()
    level_of_all: tuple[str, ...] = ()

    @cached_property
    def allowed(self) -> tuple[Candidate, ...]:
        """The recipes that meet every condition, best first."""
        return tuple(one for one in self.candidates if one.allowed)

    @property
    def best(self) -> Candidate | None:
        """The recipe to use; None where none meets the conditions."""
        return self.allowed[0] if self.allowed else None

    @cached_property
    def in_order(self) -> tuple[Candidate, ...]:
        """The allowed recipes and others, best first; of equal ones recipes first."""
        others = (one for one in self.others if one.allowed)
        sign = -1 if self.expression.maximize else 1
        return tuple(sorted((*self.allowed, *others), key=lambda one: sign * one.goal))

    @property
    def pick(self) -> Candidate | None:
        """What does best by the words, be it no recipe: SFT alone, DPO alone or the base model."""
        return self.in_order[0] if self.in_order else None

    @property
    def runner_up(self) -> Candidate | None:
        """The next one."""
        return self.allowed[1] if len(self.allowed) > 1 else None

    @property
    def headline(self) -> str:
        """One or two sentences: the recipe, the runner-up, and how often each would win."""
        if not self.candidates:
            return "no recipe has a complete run yet."
        if self.best is None:
            unknown = sum(bool(one.unknown) for one in self.candidates)
            unchecked = f"; {unknown} could not be checked" if unknown else ""
            return f"no recipe of {len(self.candidates)} meets the conditions{unchecked}.{self._without_recipe()}"
        word, goal = ("largest" if self.expression.maximize else "smallest"), self.expression.goal_text
        first = f"{self.best.name} has the {word} {goal}, {shown(self.best.goal)}"
        if self.runner_up is None:
            return f"{first}: it alone meets the conditions{self._share(self.best)}.{self._without_recipe()}"
        level = self.runner_up.goal == self.best.goal
        second = "level with it" if level else "runner-up"
        return (
            f"{first}{self._share(self.best)}; {second}: {self.runner_up.name}, "
            f"{shown(self.runner_up.goal)}{self._share(self.runner_up)}.{self._not_ahead()}{self._without_recipe()}"
        )

    def _without_recipe(self) -> str:
        """Say that what is no recipe does better by the same words."""
        if self.pick is None or self.pick is self.best:
            return ""
        return f" {self.pick.name} does better than any recipe by these words: {shown(self.pick.goal)}."

    def _not_ahead(self) -> str:
        """Say that the first is not clearly the best, as the leaderboard does."""
        if not self.level:
            return ""
        more = len(self.level) - 1
        others = self.level[0] + (f" and {more} more {'recipe' if more == 1 else 'recipes'}" if more else "")
        return f" It is not clearly ahead of {others}."

    def _share(self, one: Candidate) -> str:
        return "" if math.isnan(one.wins) else f" (chosen in {100 * one.wins:.0f} % of {self.draws:,} redraws)"

    def as_json(self) -> dict[str, Any]:
        """Return the choice for machines; what is not known is null."""
        return {
            "schema": CHOICE_SCHEMA,
            "suite": self.suite,
            "expression": self.expression.text.strip(),
            "headline": self.headline,
            "chosen": self.best.name if self.best else None,
            "runner_up": self.runner_up.name if self.runner_up else None,
            "best_of_all": self.pick.name if self.pick else None,
            "level_with": list(self.level),
            "units": self.units,
            "draws": self.draws,
            "resampled": list(self.resampled),
            "nobody": _known(self.nobody),
            "notes": list(self.notes),
            "candidates": [
                {
                    "name": one.name,
                    "method": one.method,
                    "lambda_dpo": one.lambda_dpo,
                    "jobs": {str(seed): job for seed, job in one.jobs.items()},
                    "allowed": one.allowed,
                    "goal": _known(one.goal),
                    "figures": {name: _known(value) for name, value in one.figures.items()},
                    "failed": list(one.failed),
                    "unknown": list(one.unknown),
                    "wins": _known(one.wins),
                }
                for one in self.candidates
            ],
        }


def shown(value: float) -> str:
    """Write a figure with four significant digits."""
    return number(value, series_digits([value], 4))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
