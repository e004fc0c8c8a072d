"""The goals that a page offers: each is a text of the language of --choose, made for the suite's own figures.

`balanced` goes by the figure that ranks; `keep accuracy` by the same among those that keep every task; `max win rate` by the
judge; `cheapest` by cost, among those that keep nine tenths of what the best gains. See docs/decisions/first-screen.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.errors import InputError
from report.analysis import kept
from report.analysis.findings import Findings
from report.analysis.load import judge_of
from report.analysis.tables import RecipeResults
from report.choose.figures import named_figures

BALANCED, ACCURACY, WIN_RATE, CHEAPEST, OWN = "balanced", "keep accuracy", "max win rate", "cheapest", "own"
NAMES = (BALANCED, ACCURACY, WIN_RATE, CHEAPEST)
MOST_LOST = 1  # percentage points of a task
KEPT_GAIN = 0.9  # of what the best gains over the base model


@dataclass(frozen=True)
class Preset:
    """One goal.

    Attributes:
        name: as one asks for it.
        words: what it means, in a sentence.
        text: the same for --choose; "" where this suite cannot answer it, with the reason in `why_not`.
    """

    name: str
    words: str
    text: str = ""
    why_not: str = ""


def presets(tables: Findings) -> tuple[Preset, ...]:
    """Return every goal, in the order of the switch."""
    return _balanced(tables), _accuracy(tables), _win_rate(tables), _cheapest(tables)


def resolve(tables: Findings, text: str) -> str:
    """Return the words behind a goal's name; any other text as it is.

    Raises:
        InputError: this suite cannot answer the goal.
    """
    wanted = goal_named(text)
    if not wanted:
        return text
    found = next(one for one in presets(tables) if one.name == wanted)
    if not found.text:
        raise InputError(f"{tables.results.name}: {found.name}: {found.why_not}")
    return found.text


def goal_named(text: str) -> str:
    """Return the goal that a text names; "" for words of one's own."""
    plain = " ".join(text.lower().replace("_", " ").replace("-", " ").split())
    return plain if plain in NAMES else ""


def _balanced(tables: Findings) -> Preset:
    figure = _figure(tables)
    if figure == tables.distance:
        words = "ends with both losses closest to the lowest that training on each alone reaches (ideal distance)"
    else:
        words = f"has the best {tables.metric(figure).title}, which is what can rank here"
    why = _no_figure(tables, figure)
    return Preset(BALANCED, words, "" if why else f"{_best(tables, figure)}", why)


def _accuracy(tables: Findings) -> Preset:
    words = (
        f"loses no more than {MOST_LOST} point of any task against the base model, and is the most balanced of those"
    )
    figure, conditions = _figure(tables), []
    for task in kept.tasks(tables):
        metric, known = tables.metric(task), tables.score_of("base", task).value is not None
        if known and metric.scale == "log":
            conditions.append(f"{_name(tables, task)} <= {1 + MOST_LOST / 100:g} * base")
        elif known and metric.unit in ("share", "%"):
            bound = f">= base - {MOST_LOST}" if metric.better == "higher" else f"<= base + {MOST_LOST}"
            conditions.append(f"{_name(tables, task)} {bound}")
    why = _no_figure(tables, figure)
    if not conditions:
        why = "no task was asked of the base model in this suite"
    return Preset(ACCURACY, words, "" if why else f"{' and '.join(conditions)}, {_best(tables, figure)}", why)


def _win_rate(tables: Findings) -> Preset:
    words = "is preferred most often by the judge"
    rates = [name for name in tables.scores if judge_of(name) and not tables.results.is_beside(name)]
    if not rates:
        return Preset(WIN_RATE, words, why_not="no judge in this suite")
    return Preset(WIN_RATE, words, f"maximize {_name(tables, rates[0])}")


def _cheapest(tables: Findings) -> Preset:
    timed = all(one.estimate("training_seconds").n for one in tables.recipes)
    cost, what = ("seconds", "training time") if timed else ("tokens", "tokens")
    figure = _figure(tables)
    words = f"needs the least {what} of those that keep nine tenths of what the best gains over the base model"
    why = _no_figure(tables, figure)
    if why or not tables.ranking.order:
        return Preset(CHEAPEST, words, why_not=why or "no recipe is complete")
    best, base = _mean(tables, tables.ranking.order[0], figure), _mean(tables, tables.base, figure)
    higher = tables.metric(figure).better == "higher"
    if math.isnan(base):
        return Preset(CHEAPEST, words, why_not=f"the base model has no {tables.metric(figure).title.lower()}")
    if not (best > base if higher else best < base):
        return Preset(CHEAPEST, words, why_not="no recipe is better than the base model")
    bound = f"{KEPT_GAIN * best:.4g} + {1 - KEPT_GAIN:g} * base"
    return Preset(CHEAPEST, words, f"{_name(tables, figure)} {'>=' if higher else '<='} {bound}, minimize {cost}")


def _figure(tables: Findings) -> str:
    return tables.ranking.basis or tables.distance


def _no_figure(tables: Findings, figure: str) -> str:
    """Say why no recipe has the figure that ranks; "" where one has."""
    if any(one.estimate(figure).n for one in tables.recipes):
        return ""
    return next((one.reason(figure) for one in tables.recipes), "no run is complete")


def _best(tables: Findings, figure: str) -> str:
    return f"{'maximize' if tables.metric(figure).better == 'higher' else 'minimize'} {_name(tables, figure)}"


def _name(tables: Findings, figure: str) -> str:
    """Return the shortest name that --choose has for a figure."""
    names = [name for name, one in named_figures(tables).items() if one.figure == figure and name.isidentifier()]
    return min(names, key=lambda name: (len(name), name))


def _mean(tables: Findings, recipe: RecipeResults, figure: str) -> float:
    """Return a recipe's mean in the unit of --choose."""
    factor = named_figures(tables)[_name(tables, figure)].factor
    values = [one[figure].number for one in recipe.figures.values() if figure in one]
    known = [value for value in values if not math.isnan(value)]
    return factor * math.fsum(known) / len(known) if known else math.nan
