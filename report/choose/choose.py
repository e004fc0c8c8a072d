"""Choose the recipe that does best by the user's own words, and say how often it would win if chance fell otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.errors import InputError, unknown_name
from bench.records.suite_record import SuiteRecord, find_suites
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.analysis.ranking import LEVEL
from report.analysis.redraws import DRAWS, Redrawn, Redraws
from report.analysis.statistics import SEEDS_FOR_AN_INTERVAL
from report.analysis.tables import RecipeResults, Tables
from report.analysis.toy import is_toy
from report.analysis.verdicts import SAME, UNCLEAR
from report.choose.choice import Candidate, Choice, shown
from report.choose.expression import (
    Comparison,
    Expression,
    Figure,
    Floats,
    Logic,
    Look,
    Number,
    Part,
    Truths,
    comparisons,
    defined,
    evaluate,
    holds,
)
from report.choose.figures import LAMBDA, Named, Origin, named_figures, short_names, values_by_seed
from report.choose.parser import parse, wrong
from report.choose.presets import resolve

ENOUGH_SEEDS = 10


def choose(tables: Findings, text: str, draws: int = DRAWS) -> Choice:
    """Choose among a suite's recipes.

    Raises:
        InputError: the text cannot be read, or names a figure that this suite does not have.
    """
    known = named_figures(tables)
    expression = parse(text, [name for name in known if not name.isidentifier()])
    return _Choosing(tables, expression, known, draws).choice()


class _Choosing:
    """Evaluate one expression on every recipe of one suite."""

    def __init__(self, tables: Findings, expression: Expression, known: Mapping[str, Named], draws: int) -> None:
        self.tables, self.expression = tables, expression
        for figure in expression.figures:
            if figure.name not in known:
                raise wrong(expression.text, figure.at, _no_such(figure.name, tables, known))
        self.named = {figure.name: known[figure.name] for figure in expression.figures}
        alone = (tables.alone(objective) for objective in ("sft", "dpo"))
        self.others = (*(one for one in alone if one is not None and one.jobs), tables.base) if tables.ranked else ()
        for comparison in (one for part in expression.conditions for one in comparisons(part.node)):
            self._refuse_shares(comparison)
        self.origins = {
            recipe.key: {
                one: values_by_seed(tables, recipe, self.named[one.name], one.of) for one in expression.figures
            }
            for recipe in (*tables.ranked, *self.others)
        }
        self.seeds = sorted({seed for recipe in tables.ranked for seed in recipe.figures})
        self.redraws = Redraws(tables.results, self.seeds or [0], draws)
        self.scores = {one.figure: self._redraw(one.figure) for one in self.named.values() if one.is_score}

    def _refuse_shares(self, comparison: Comparison) -> None:
        """Refuse a number below 1 as the bound of a score in percent: 0.95 is 0.95 %, and 95 was meant."""
        names = [one.name for one in comparison.terms if isinstance(one, Figure)]
        shares = [name for name in names if self.named[name].unit == "%" and self.named[name].is_score]
        small = next((one for one in comparison.terms if isinstance(one, Number) and 0 < abs(one.value) < 1), None)
        if shares and small is not None and len(comparison.terms) > len(names):
            message = f"{shares[0]} is in percent, so this is {small.value:g} %: did you mean {100 * small.value:g}?"
            raise wrong(self.expression.text, small.at, message)

    def _redraw(self, score: str) -> Redrawn:
        """Redraw a score of all policies; what is only held beside the recipes stays as measured where its outcomes are lost."""
        recipes = self._policies(score, self.tables.ranked)
        every = list(dict.fromkeys((*recipes, *self._policies(score, self.others))))
        made = self.redraws.score(score, every)
        return made if not made.why_not or len(every) == len(recipes) else self.redraws.score(score, recipes)

    def _policies(self, score: str, recipes: Iterable[RecipeResults]) -> list[str]:
        found = (
            origin.policy
            for recipe in recipes
            for figure, by_seed in self.origins[recipe.key].items()
            for origin in by_seed.values()
            if self.named[figure.name].figure == score and origin.policy
        )
        return list(dict.fromkeys(found))

    def choice(self) -> Choice:
        every = [self._check(recipe) for recipe in self.tables.ranked]
        checked = [one for one in every if isinstance(one, _Checked)]
        unchecked = [one for one in every if isinstance(one, Candidate)]
        varies = len(self.seeds) > 1 or any(one.what for one in self.scores.values())
        wins, nobody = _wins(checked, self.expression.maximize) if varies else ([math.nan] * len(checked), math.nan)
        beside = [one for one in map(self._check, self.others) if isinstance(one, _Checked)]
        together, _ = (
            _wins([*checked, *beside], self.expression.maximize) if varies else ([math.nan] * len(checked + beside), 0)
        )
        of_all = iter(together)
        candidates = [
            replace(one.candidate, wins=share, among_all=next(of_all)) for one, share in zip(checked, wins, strict=True)
        ]
        others = [replace(one.candidate, among_all=next(of_all)) for one in beside]
        allowed = [one for one in candidates if one.allowed]
        # The sort is stable: recipes that are level stay in the order of their ideal distance.
        allowed.sort(key=lambda one: self._place(one.goal))
        return Choice(
            suite=self.tables.results.name,
            expression=self.expression,
            candidates=(*allowed, *(one for one in candidates if not one.allowed), *unchecked),
            units={name: one.unit for name, one in self.named.items()},
            draws=self.redraws.draws if varies else 0,
            resampled=self._resampled() if varies else (),
            nobody=nobody,
            notes=tuple(self._notes(checked, varies)),
            level=self._level(allowed),
            others=tuple(others),
            level_of_all=self._level(
                sorted((*allowed, *(one for one in others if one.allowed)), key=lambda one: self._place(one.goal))
            ),
        )

    def _place(self, goal: float) -> float:
        return -goal if self.expression.maximize else goal

    def _level(self, allowed: Sequence[Candidate]) -> tuple[str, ...]:
        """Name the allowed recipes that the first is not told apart from.

        A goal that is one figure is tested as the tables test it; any other by the draws, in one of twenty of which a recipe
        may still come first.
        """
        if len(allowed) < 2:
            return ()
        recipes = {shown_name(one): one for one in (*self.tables.ranked, *self.others)}
        best = allowed[0]
        others = [one for one in allowed[1:] if not self.tables.same(recipes[best.name], recipes[one.name])]
        if len(self.seeds) < SEEDS_FOR_AN_INTERVAL:
            return tuple(one.name for one in others)
        goal = self.expression.goal
        if not isinstance(goal, Figure) or goal.of != "recipe" or self.named[goal.name].figure == LAMBDA:
            return tuple(
                one.name for one in others if not (one.among_all if math.isnan(one.wins) else one.wins) < LEVEL
            )
        figure = self.named[goal.name].figure
        return tuple(one.name for one in others if not self._ahead(recipes[best.name], recipes[one.name], figure))

    def _ahead(self, best: RecipeResults, other: RecipeResults, figure: str) -> bool:
        made = self.tables.verdicts.between(best, other, figure)
        return made.word not in (SAME, UNCLEAR) or (self.tables.metric(figure).better is None and made.p <= LEVEL)

    def _check(self, recipe: RecipeResults) -> _Checked | Candidate:
        """Evaluate the expression on one recipe, or say what is missing for that."""
        origins = self.origins[recipe.key]
        seeds = [
            seed
            for seed in recipe.figures
            if seed in self.seeds and all(found[seed].measured.value is not None for found in origins.values())
        ]
        candidate = Candidate(
            shown_name(recipe), recipe.method, recipe.lambda_dpo, {seed: recipe.jobs[seed] for seed in seeds}
        )
        if not seeds:
            return replace(candidate, unknown=tuple(dict.fromkeys(_reasons(origins))))
        arrays = {figure: self._array(figure, by_seed, seeds) for figure, by_seed in origins.items()}
        look = arrays.__getitem__
        shape = (self.redraws.draws + 1,)
        nodes = (*(part.node for part in self.expression.conditions), self.expression.goal)
        usable = np.all([np.broadcast_to(defined(node, look), shape) for node in nodes], axis=0)
        own = {one.name: float(values[0]) for one, values in arrays.items() if one.of == "recipe"}
        if not usable[0]:
            return replace(candidate, figures=own, unknown=("the expression divides by 0",))
        allowed = usable.copy()
        failed = []
        for part in self.expression.conditions:
            met = np.broadcast_to(holds(part.node, look), shape)
            allowed &= met
            if not met[0]:
                failed.append(_explain(part, look))
        goal = np.broadcast_to(evaluate(self.expression.goal, look), shape)
        candidate = replace(candidate, goal=float(goal[0]), figures=own, failed=tuple(failed))
        return _Checked(recipe, candidate, goal, allowed)

    def _array(self, figure: Figure, by_seed: Mapping[int, Origin], seeds: list[int]) -> Floats:
        """Return a figure's mean over the seeds, in the expression's unit, one entry a draw."""
        named = self.named[figure.name]
        redrawn = self.scores.get(named.figure)
        values = {}
        for seed in seeds:
            origin = by_seed[seed]
            measured = np.asarray(origin.measured.number)
            drawn = redrawn.values.get(origin.policy) if redrawn else None
            values[seed] = named.factor * (measured if drawn is None else drawn)
        return self.redraws.over_seeds(values)

    def _resampled(self) -> tuple[str, ...]:
        seeds = (f"{len(self.seeds)} seeds",) if len(self.seeds) > 1 else ()
        return tuple(dict.fromkeys((*seeds, *(one.what for one in self.scores.values() if one.what))))

    def _notes(self, checked: list[_Checked], varies: bool) -> Iterator[str]:
        count = len(self.seeds)
        if self.tables.results.smoke:
            yield "a smoke run: a tiny untrained model stood in, so these figures choose nothing"
        if not count:
            return
        if count < SEEDS_FOR_AN_INTERVAL:
            seeds = "1 seed" if count == 1 else f"{count} seeds"
            yield (
                f"{seeds}, fewer than {SEEDS_FOR_AN_INTERVAL}: what another seed would change is not known, so this cannot "
                "tell a better recipe from luck"
            )
        elif count < ENOUGH_SEEDS:
            yield f"{count} seeds: drawing so few anew says too little about another seed; read the shares as a rough guide"
        if not varies:
            yield "one seed and no single questions or pairs to draw anew: no share can be given"
        yield from self._not_redrawn() if varies else ()
        fixed = [name for name, one in self.named.items() if not one.is_score and one.figure != LAMBDA]
        if fixed and varies:
            how = "drawn over seeds only" if count > 1 else "not drawn anew"
            yield f"{', '.join(fixed)}: {how}; what they are the sum or mean of is not on record one by one"
        for one in checked:
            if len(one.candidate.jobs) < len(self.seeds):
                yield f"{one.recipe.name}: {len(one.candidate.jobs)} of {len(self.seeds)} seeds have every figure"
        shared = {name for name, named in self.named.items() for one in checked if one.recipe.shared(named.figure)}
        if shared:
            yield f"{', '.join(sorted(shared))}: measured while other workers used the same machine"

    def _not_redrawn(self) -> Iterator[str]:
        """Say which scores stay as measured, once for each reason."""
        for why in dict.fromkeys(one.why_not for one in self.scores.values() if one.why_not):
            yield f"{', '.join(name for name, one in self.scores.items() if one.why_not == why)}: {why}"


@dataclass(frozen=True)
class _Checked:
    """A recipe's goal in every draw, and whether it meets the conditions there."""

    recipe: RecipeResults
    candidate: Candidate
    goal: Floats
    allowed: Truths


def shown_name(recipe: RecipeResults) -> str:
    """Name a recipe, or what stands beside them, such as SFT alone."""
    return recipe.name.removesuffix(" (f*)")


def _no_such(name: str, tables: Tables, known: Mapping[str, Named]) -> str:
    """Word the error for a name that no figure has, or that several could mean."""
    meant = short_names(tables).get(name, [])
    if meant:
        return f"{name} could be {' or '.join(tables.metric(one).choose_name for one in meant)}; name one"
    return unknown_name("figure", name, [one for one in known if one.isidentifier()])


def _wins(checked: list[_Checked], maximize: bool) -> tuple[list[float], float]:
    """Return each recipe's share of the redraws in which it is chosen, a tie shared, and the share in which none is."""
    if not checked:
        return [], math.nan
    allowed = np.stack([one.allowed[1:] for one in checked])
    goals = np.stack([one.goal[1:] for one in checked]) * (1 if maximize else -1)
    goals = np.where(allowed, goals, -np.inf)
    first = allowed & (goals == goals.max(axis=0))
    level = first.sum(axis=0)
    shares = np.divide(first, level, out=np.zeros(first.shape), where=level > 0).mean(axis=1)
    return [float(share) for share in shares], float((level == 0).mean())


def _reasons(origins: Mapping[Figure, Mapping[int, Origin]]) -> Iterator[str]:
    """Say what is missing; where every figure is known on some seed, that no seed has them all."""
    nowhere = {
        figure: by_seed
        for figure, by_seed in origins.items()
        if all(origin.measured.value is None for origin in by_seed.values())
    }
    for figure, by_seed in nowhere.items():
        whose = figure.name if figure.of == "recipe" else f"{figure.name} of {figure.of}"
        yield f"{whose}: {next(iter(by_seed.values())).measured.reason}"
    if not nowhere:
        yield "no seed has every figure"


def _explain(part: Part, look: Look) -> str:
    """Show a condition that fails with its numbers."""
    if isinstance(part.node, Logic):
        return part.text
    values = [float(np.ravel(evaluate(term, look))[0]) for term in part.node.terms]
    numbers = shown(values[0]) + "".join(
        f" {sign} {shown(value)}" for sign, value in zip(part.node.signs, values[1:], strict=True)
    )
    return f"{part.text} ({numbers})"


# ---- a folder of results ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """What a suite of a results folder came to: a choice, or why there is none."""

    record: SuiteRecord
    choice: Choice | None
    reason: str = ""

    @property
    def suite(self) -> str:
        """The suite's name."""
        return self.record.name


def choose_all(results: Path, text: str) -> list[Chosen]:
    """Choose in every suite of a results folder; a suite that lacks a figure says so beside the others.

    Raises:
        InputError: no such folder, a text that cannot be read, or no suite in which it means something.
    """
    found: list[Chosen] = []
    problem: InputError | None = None
    for record in find_suites(results):
        if is_toy(record):
            found.append(Chosen(record, None, "a toy suite; its report compares the methods"))
            continue
        try:
            tables = Findings(Results(record))
            found.append(Chosen(record, choose(tables, resolve(tables, text))))
        except InputError as error:
            problem = error
            found.append(Chosen(record, None, str(error)))
    if not any(one.choice for one in found):
        raise problem or InputError(f"{results}: only toy suites here; --choose needs recipes of language models")
    return found
