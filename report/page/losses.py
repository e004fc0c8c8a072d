"""What a recommended recipe loses, in one line: whatever is clearly worse than what it is held against, and at equal tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from report.analysis.findings import Findings
from report.analysis.load import OBJECTIVES, judge_of
from report.analysis.statistics import SEEDS_FOR_AN_INTERVAL
from report.analysis.tables import RecipeResults, rounded
from report.analysis.verdicts import BETTER
from report.render.document import Holder
from report.render.numbers import number
from report.render.shown import shown


def words(tables: Findings, recipe: RecipeResults, holders: Sequence[tuple[Holder, RecipeResults]]) -> str:
    """Return the caveat: every score and objective in which another column is clearly better, and what an equal budget says."""
    lost = [text for name in _figures(tables) if (text := _lost(tables, recipe, holders[1:], name))]
    if lost:
        first = f"It loses: {'; '.join(lost)}."
    elif tables.ranking.fewest_seeds < SEEDS_FOR_AN_INTERVAL:
        first = "What it loses cannot be told from so few seeds."
    else:
        first = "It is clearly worse than none of these in any score or objective."
    return " ".join(part for part in (first, _judged(tables, recipe), _equal_tokens(tables, recipe)) if part)


def _figures(tables: Findings) -> Iterable[str]:
    scores = [name for name in tables.ranking_scores if not name.startswith("base_kl/")]
    return (
        *sorted(scores, key=lambda name: not judge_of(name)),
        *(f"f_{name}/{tables.results.split}" for name in OBJECTIVES),
    )


def _lost(tables: Findings, recipe: RecipeResults, others: Sequence[tuple[Holder, RecipeResults]], name: str) -> str:
    """Say in which figure it is worse, than whom, with both values."""
    ahead = [(holder, one) for holder, one in others if tables.verdicts.between(one, recipe, name).word == BETTER]
    if not ahead:
        return ""
    writes = shown(tables.metric(name), [one.estimate(name).mean for one in (recipe, *(one for _, one in ahead))])
    unit = f" {writes.unit}" if writes.unit else ""
    told = [f"{holder.name} {writes.text(one.estimate(name).mean)}" for holder, one in ahead]
    title = writes.metric.title
    objective = next((one for one in OBJECTIVES if name.startswith(f"f_{one}/")), "")
    title = (
        f"{objective.upper()} objective"
        if objective
        else title
        if title[:2].isupper()
        else title[0].lower() + title[1:]
    )
    return f"{title} {writes.text(recipe.estimate(name).mean)}{unit} ({', '.join(told)})"


def _judged(tables: Findings, recipe: RecipeResults) -> str:
    """Remark a win rate that is clearly below one half, though nothing beside it does better."""
    rates = [name for name in tables.scores if judge_of(name) and not tables.results.is_beside(name)]
    one = recipe.estimate(rates[0]) if rates else None
    if one is None or not one.n or one.mean >= 25 or tables.metric(rates[0]).unit != "%":
        return ""
    return f"The judge prefers the answers it is compared with in {number(100 - one.mean, 1)} % of pairs."


def _equal_tokens(tables: Findings, recipe: RecipeResults) -> str:
    """Say who comes first after as many tokens of every run: Mix takes two batches a step."""
    name = "ideal_distance_at_equal_tokens"
    known = [one for one in tables.ranking.order if one.estimate(name).n]
    if not known or not tables.ranking.by_distance or not any(one.key == recipe.key for one in known):
        return ""
    first = min(known, key=lambda one: rounded(one.estimate(name).mean))
    if tables.same(first, recipe):
        return "At an equal number of tokens it is the closest to the ideal point, too."
    least = min(known, key=lambda one: one.estimate("tokens").mean)
    factor = recipe.estimate("tokens").mean / least.estimate("tokens").mean
    more = f" ({recipe.name} took {number(factor, 1)} times the tokens of {least.name})" if factor >= 1.1 else ""
    return f"At an equal number of tokens {first.name} is closest to the ideal point{more}."
