"""What a recommended recipe loses: whatever is clearly worse than what it is held against, and what equal tokens would say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from report.analysis.findings import Findings
from report.analysis.load import OBJECTIVES, compared_with, judge_of
from report.analysis.statistics import SEEDS_FOR_AN_INTERVAL
from report.analysis.tables import RecipeResults, rounded
from report.analysis.verdicts import BETTER, WORSE
from report.choose.presets import ACCURACY, WIN_RATE
from report.render.document import Holder
from report.render.numbers import number
from report.render.sentences import inside_sentence
from report.render.shown import shown

Others = Sequence[tuple[Holder, RecipeResults]]


def words(tables: Findings, recipe: RecipeResults, others: Others, goal: str) -> str:
    """Return the caveat: every score and objective in which another column is clearly better, and which goal is for that."""
    lost = [text for name in _figures(tables) if (text := _lost(tables, recipe, others, name))]
    if lost:
        first = f"It loses: {'; '.join(lost)}."
    elif tables.ranking.fewest_seeds < SEEDS_FOR_AN_INTERVAL:
        first = "What it loses cannot be told from so few seeds."
    else:
        first = "It is clearly worse than none of these in any score or objective."
    goals = list(_goals_for(tables, recipe, others, goal))
    return " ".join((*goals, first, *([] if goals else _judged(tables, recipe))))


def _figures(tables: Findings) -> Iterable[str]:
    return (*_scores(tables), *(f"f_{name}/{tables.results.split}" for name in OBJECTIVES))


def _scores(tables: Findings) -> Iterable[str]:
    scores = [name for name in tables.ranking_scores if not name.startswith("base_kl/")]
    return sorted(scores, key=lambda name: not judge_of(name))


def _lost(tables: Findings, recipe: RecipeResults, others: Others, name: str) -> str:
    """Say in which figure it is worse, than whom, with both values."""
    ahead = [(holder, one) for holder, one in others if tables.verdicts.between(one, recipe, name).word == BETTER]
    if not ahead:
        return ""
    writes = shown(tables.metric(name), [one.estimate(name).mean for one in (recipe, *(one for _, one in ahead))])
    unit = f" {writes.unit}" if writes.unit else ""
    told = [f"{holder.name} {writes.text(one.estimate(name).mean)}" for holder, one in ahead]
    return f"{_title(tables, name)} {writes.text(recipe.estimate(name).mean)}{unit} ({', '.join(told)})"


def _title(tables: Findings, name: str) -> str:
    """Return a figure's title inside a sentence."""
    objective = next((one for one in OBJECTIVES if name.startswith(f"f_{one}/")), "")
    return f"{objective.upper()} objective" if objective else inside_sentence(tables.metric(name).title)


def _goals_for(tables: Findings, recipe: RecipeResults, others: Others, goal: str) -> Iterable[str]:
    """Name the goal that is for a score in which training brought nothing: a task below the base model's, a win rate as low."""
    for name in _scores(tables):
        wanted = WIN_RATE if judge_of(name) else ACCURACY
        word = tables.verdicts.between(recipe, tables.base, name).word if tables.base.estimate(name).n else BETTER
        if wanted == goal or not _lost(tables, recipe, others, name):
            continue
        if word == WORSE:
            yield f"Its {_title(tables, name)} is worse than the base model's: see the goal “{wanted}”."
        elif word != BETTER and wanted == WIN_RATE:
            yield f"Its {_title(tables, name)} is no better than the base model's: see the goal “{wanted}”."


def _judged(tables: Findings, recipe: RecipeResults) -> Iterable[str]:
    """Remark a win rate that is clearly below one half, though nothing beside it does better."""
    rates = [name for name in tables.scores if judge_of(name) and not tables.results.is_beside(name)]
    one = recipe.estimate(rates[0]) if rates else None
    if one is None or not one.n or one.mean >= 25 or tables.metric(rates[0]).unit != "%":
        return
    other = compared_with(tables.metric(rates[0]))
    yield f"The judge prefers {other} to its own in {number(100 - one.mean, 1)} % of pairs."


def equal_tokens(tables: Findings, recipe: RecipeResults) -> str:
    """Say who comes first after as many tokens of every run: Mix takes two batches a step."""
    name, tokens = "ideal_distance_at_equal_tokens", tables.equal_tokens.value
    known = [one for one in tables.ranking.order if one.estimate(name).n]
    if tokens is None or not tables.ranking.by_distance or not any(one.key == recipe.key for one in known):
        return ""
    first = min(known, key=lambda one: rounded(one.estimate(name).mean))
    start = f"At equal tokens ({number(tokens, 0)}, where the shortest run of a recipe ended)"
    if tables.same(first, recipe):
        return f"{start} it is the closest to the ideal point, too."
    writes = shown(tables.metric(name), [one.estimate(name).mean for one in (first, recipe)])
    ours, theirs = (writes.text(one.estimate(name).mean) for one in (recipe, first))
    apart = tables.verdicts.between(first, recipe, name).word == BETTER
    return (
        f"{start} {first.name} is the closest to the ideal point: {theirs} {writes.unit} against {ours} of {recipe.name}"
        f"{'' if apart else ', which the seeds do not tell apart'}."
    )
