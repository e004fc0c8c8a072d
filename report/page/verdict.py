"""Say in plain words which recipe did best, by how much, how sure that is and at what cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from report.analysis.findings import Findings
from report.analysis.load import OBJECTIVES, judge_of
from report.analysis.ranking import MOST_SEEDS, Gap, counted
from report.analysis.statistics import SEEDS_FOR_AN_INTERVAL, Estimate
from report.analysis.tables import RecipeResults, rounded
from report.analysis.verdicts import BETTER
from report.page.present import score_shown
from report.render.numbers import duration, number, series_digits
from report.render.sentences import inside_sentence

CLEAR, UNCLEAR, TOO_FEW = "better", "no difference seen", "not enough seeds"


@dataclass(frozen=True)
class Figure:
    """Say how the figure that ranks is written in sentences: what it is called, its unit, and what a lead makes it."""

    title: str = "ideal distance"
    unit: str = "nats"
    better: str = "smaller"
    factor: float = 1.0


@dataclass(frozen=True)
class Lead:
    """Compare the best recipe with another by the figure that ranks, paired over seeds.

    Attributes:
        gap: how much better the best is, in the figure's unit, and the test that says how sure.
        share: the lead as a share of the other's mean over the same seeds.
    """

    best: RecipeResults
    other: RecipeResults
    gap: Gap
    share: float
    figure: Figure = Figure()

    @property
    def lead(self) -> Estimate:
        """How much better the best is."""
        return self.gap.size

    @property
    def verdict(self) -> str:
        """One of CLEAR, UNCLEAR, TOO_FEW."""
        if self.lead.n < SEEDS_FOR_AN_INTERVAL:
            return TOO_FEW
        return CLEAR if self.gap.clear else UNCLEAR

    @property
    def digits(self) -> int:
        """The decimals that suit the lead."""
        return series_digits([self.figure.factor * self.lead.mean])

    def _number(self, value: float) -> str:
        return number(self.figure.factor * value, self.digits)

    @property
    def words(self) -> str:
        """One sentence: by how much, and how sure."""
        best, other, figure = self.best.name, self.other.name, self.figure
        size = f"{self._number(self.lead.mean)} {figure.unit}".rstrip()
        size += f" ({number(100 * self.share, 0)} %)" if figure.unit == "nats" else ""
        if self.lead.n == 0:
            return f"{best} and {other} share no seed, so no paired difference can be given."
        if self.verdict == CLEAR:
            between = f"95 % CI {self._number(self.lead.low)} to {self._number(self.lead.high)}"
            return (
                f"{best} is better than {other}: its {figure.title} is {size} {figure.better}, {between}, paired over "
                f"{self.lead.n} seeds."
            )
        if self.verdict == UNCLEAR and rounded(self.lead.low) > 0:
            corrected = f", corrected for {self.gap.comparisons} comparisons" if self.gap.comparisons > 1 else ""
            return (
                f"No difference seen between {best} and {other}: the means differ by {size} over {self.lead.n} paired seeds, but "
                f"p = {number(self.gap.p, 3)}{corrected}; the interval of this one difference alone would leave 0 out."
            )
        if self.verdict == UNCLEAR:
            return (
                f"No difference seen between {best} and {other}: the means differ by {size}, but over {self.lead.n} paired seeds "
                f"the 95 % CI covers 0 (the difference could be up to ±{self._number(self.lead.reach)})."
            )
        seeds = "One seed" if self.lead.n == 1 else f"{self.lead.n} seeds"
        return f"{best} ended {size} closer to the ideal point than {other}. {seeds}: no interval; the difference may be noise."


class Verdict:
    """Judge a suite by the figure that can rank it: the ideal distance, else a score, else not at all."""

    def __init__(self, tables: Findings) -> None:
        self.tables, self.results, self.ranking = tables, tables.results, tables.ranking

    @cached_property
    def best(self) -> RecipeResults | None:
        """The recipe with the best mean; None when none has one."""
        return next(iter(self.ranking.order), None)

    @property
    def by_distance(self) -> bool:
        """Whether recipes stand in the order of their ideal distance."""
        return self.ranking.by_distance

    @cached_property
    def runner_up(self) -> Lead | None:
        """The best recipe of any other method."""
        best = self.best
        others = [
            one
            for one in self.ranking.order
            if best is not None and one.method != best.method and not self.tables.same(one, best)
        ]
        return self._against(others[0]) if others else None

    @cached_property
    def sequential(self) -> Lead | None:
        """The Sequential run with the matching phases; None where the best recipe is Sequential."""
        best = self.best
        if best is None or best.base_method == "sequential":
            return None
        other = self.tables.sequential(best.lambda_dpo)
        return self._against(other) if other is not None and self.ranking.holds(other) else None

    def _against(self, other: RecipeResults) -> Lead | None:
        best, name = self.best, self.ranking.basis or self.tables.distance
        if best is None:
            return None
        gap = self.ranking.gap(best, other)
        # Over the seeds that both have, as the lead is
        shared = [value for seed, value in other.values(name).items() if seed in best.figures]
        share = gap.size.mean * len(shared) / sum(shared) if sum(shared) else 0.0
        return Lead(best, other, gap, share, self._figure)

    @cached_property
    def _figure(self) -> Figure:
        name = self.ranking.basis or self.tables.distance
        if name == self.tables.distance:
            return Figure("ideal distance", "nats", "smaller", 1.0)
        writes = score_shown(name, self.tables)
        metric = self.tables.metric(name)
        word = "lower" if metric.better == "lower" else "higher"
        unit = "points" if writes.unit == "%" else writes.unit
        return Figure(inside_sentence(metric.title), unit, word, 100.0 if metric.unit == "share" else 1.0)

    @cached_property
    def level(self) -> tuple[RecipeResults, ...]:
        """The recipes that the best is not told apart from: a winner leaves none."""
        return self.ranking.level_with(self.best) if self.best is not None else ()

    @property
    def headline(self) -> str:
        """The verdict in one sentence."""
        if self.results.smoke:
            return "Smoke run: it shows that the suite runs and measures nothing."
        best, nothing = self.best, self._nothing_learned()
        if best is None:
            return f"Not enough to rank: {nothing[0]}." if nothing else "No recipe can be ranked yet."
        if len(self.ranking.order) < 2:
            return f"{best.name} came closest to the ideal point; no other recipe to compare with."
        if self.ranking.basis is None:
            seeds = min(one.estimate(self.tables.distance).n for one in self.ranking.order)
            over = counted(seeds, "seed")
            return f"Not enough to rank: over {over} {best.name} came closest to the ideal point, which may be noise."
        if self.results.unfinished_runs:
            return f"Not enough to rank: {self.ranking.why_nothing_is_sure}; {best.name} leads so far."
        return self._crown(best)

    def _nothing_learned(self) -> list[str]:
        """Return what keeps recipes without a distance though all of it was trained."""
        found = (
            self.results.nothing_learned(name, seed, "held_out")
            for recipe in self.tables.recipes
            for seed in recipe.jobs
            for name in OBJECTIVES
        )
        return list(dict.fromkeys(why for why in found if why))

    def _crown(self, best: RecipeResults) -> str:
        """Name a winner only where it is ahead of every other recipe."""
        by = "" if self.by_distance else f" by {self._figure.title}"
        if not self.level:
            return f"{best.name} is clearly ahead of every other recipe by {self._figure.title}{self._without_recipe(best)}."
        more = len(self.level) - 1
        others = self.level[0].name + (f" and {more} more {'recipe' if more == 1 else 'recipes'}" if more else "")
        came = "came closest to the ideal point" if self.by_distance else f"has the best mean{by}"
        return f"{best.name} {came}, but not clearly ahead of {others}."

    def _without_recipe(self, best: RecipeResults) -> str:
        """Say that training on one objective alone, or the base model, is better still."""
        name = self.tables.verdicts.figure_that_ranks
        others = (self.tables.alone("sft"), self.tables.alone("dpo"), self.tables.base)
        better = [
            one for one in others if one is not None and self.tables.verdicts.between(one, best, name).word == BETTER
        ]
        return f", but {better[0].name.removesuffix(' (f*)')} is better still" if better else ""

    def _enough(self) -> str:
        """Say what would be enough to rank, from the spread that was seen."""
        best = self.best
        if best is None or len(self.ranking.order) < 2 or self.results.smoke:
            return ""
        if self.ranking.basis is None:
            others = [one for one in self.ranking.order if one is not best]
            wanted = self.ranking.seeds_wanted(best, others[0])
            likely = (
                f"; about {_count(wanted)} would tell it from {others[0].name}, if both stay as they are"
                if wanted
                else ""
            )
            return f"Three seeds or more of every recipe are needed for a rank{likely}."
        if not self.level:
            return ""
        wanted = self.ranking.seeds_wanted(best, self.level[0])
        if not wanted:
            return ""
        return (
            f"To tell {best.name} from {self.level[0].name} {_count(wanted)} seeds would be needed, if their difference is what "
            "it seems."
        )

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict in full, one sentence a point."""
        best = self.best
        if best is None:
            return (self._why_unranked(),)
        found = [self._distance(best)] if self.by_distance else []
        rivals = [one for one in (self.runner_up, self.sequential) if one is not None]
        if len(rivals) == 2 and rivals[0].other is rivals[1].other:
            rivals = rivals[:1]
        found += [rival.words for rival in rivals]
        found.append(self._scores(best))
        return tuple(sentence for sentence in (*found, *self.notes) if sentence)

    @property
    def notes(self) -> tuple[str, ...]:
        """Of the verdict what the first screen does not show: what would be enough, who leads otherwise, and cautions."""
        best = self.best
        if best is None:
            return ()
        found = (
            "" if self.by_distance else self._by_score(),
            self._enough(),
            self._by_lambda(),
            self._score_leaders(best),
            self._other_judges(),
            self._cost(best),
            self._caution(best),
        )
        return tuple(sentence for sentence in found if sentence)

    def _why_unranked(self) -> str:
        if not self.tables.recipes:
            return (
                f"No run is complete: {len(self.results.problems)} of {len(self.results.record.info['jobs'])} "
                f"jobs are not done."
            )
        whys = dict.fromkeys(self.tables.why_unranked(recipe) for recipe in self.tables.recipes)
        return f"No recipe is ranked: {'; '.join(list(whys)[:3])}."

    def _distance(self, best: RecipeResults) -> str:
        one = best.estimate(self.tables.distance)
        digits = series_digits([one.mean])
        if one.n == 1:
            return (
                f"Its ideal distance is {number(one.mean, digits)} nats, from one seed (0 is as good as "
                f"training on each objective alone)."
            )
        return (
            f"Its ideal distance is {number(one.mean, digits)} nats on average over {one.n} seeds (sd "
            f"{number(one.sd, digits)}; "
            "0 is as good as training on each objective alone)."
        )

    def _by_score(self) -> str:
        """Say why it is a score that ranks."""
        why = (self._nothing_learned() or ["the optima do not hold on every seed"])[0]
        return f"Recipes are ranked by {self._figure.title}, as distances cannot: {why}."

    def _by_lambda(self) -> str:
        """Say which method comes first at each λ, where all are given the same λ."""
        firsts: dict[float | None, str] = {}
        for recipe in self.tables.ranked:
            if recipe.estimate(self.tables.distance).n:
                firsts.setdefault(recipe.lambda_dpo, recipe.method)
        if len(firsts) < 2 or len(self.results.methods) < 2:
            return ""
        counts = Counter(firsts.values()).most_common()
        return (
            "At equal λ, the smallest mean is "
            + ", ".join(f"{method}'s at {n} of {len(firsts)}" for method, n in counts)
            + " λ."
        )

    def _scores(self, best: RecipeResults) -> str:
        parts = []
        for name in self.tables.main_scores:
            text, base = self._score(best, name), self.results.score("base", name)
            if text:
                against = "" if base.value is None else f" (base model {self._in_unit(name, base.compared)})"
                judge = f" by judge {judge_of(name)}" if judge_of(name) else ""
                parts.append(f"{inside_sentence(self.tables.metric(name).title)}{judge} {text}{against}")
        return f"Scores of {best.name}: {'; '.join(parts)}." if parts else ""

    def _score_leaders(self, best: RecipeResults) -> str:
        """Name the recipes that lead in the scores instead, if others do."""
        parts = []
        for name in self.tables.ranking_scores:
            known = [recipe for recipe in self.tables.recipes if recipe.estimate(name).n]
            metric, sign = self.tables.metric(name), -1 if self.tables.metric(name).better == "lower" else 1
            top = max(known, key=lambda recipe: sign * recipe.estimate(name).mean, default=None)
            if metric.better and top is not None and sign * (top.estimate(name).mean - best.estimate(name).mean) > 0:
                most = "lowest" if metric.better == "lower" else "highest"
                parts.append(f"{top.name} has the {most} {inside_sentence(metric.title)} ({self._score(top, name)})")
        return f"By the scores alone others lead: {'; '.join(parts)}." if parts else ""

    def _other_judges(self) -> str:
        """Say which judges put another recipe first than the main one; "" where none does."""
        agreements = self.tables.panel.agreements
        others = [one for one in agreements if one.judges[0] == self.results.main_judge and one.same_first is False]
        parts = [f"{one.firsts[1]} by {one.judges[1]}" for one in others]
        return f"By win rate {others[0].firsts[0]} is first by the main judge, {', '.join(parts)}." if parts else ""

    def _score(self, recipe: RecipeResults, name: str) -> str:
        one = recipe.estimate(name)
        return self._in_unit(name, one.mean) if one.n else ""

    def _in_unit(self, name: str, value: float) -> str:
        writes = score_shown(name, self.tables)
        return f"{writes.text(value)} {writes.unit}".rstrip()

    def _cost(self, best: RecipeResults) -> str:
        seconds, increase = best.estimate("training_seconds"), best.estimate("runtime_increase_percent")
        if not seconds.n:
            all_in = best.estimate("all_in_seconds")
            parts = f"; all in {duration(all_in.mean)} of training" if all_in.n else ""
            return f"Cost missing: {best.reason('training_seconds')}{parts}."
        text = f"Cost: {duration(seconds.mean)} of training a run"
        if best.base_method == "sequential":
            return f"{text}; it is the Sequential baseline itself."
        if not increase.n:
            return f"{text}; against the matching Sequential run missing: {best.reason('runtime_increase_percent')}."
        word = "more" if increase.mean >= 0 else "less"
        spread = f", sd {number(increase.sd, 1)}" if increase.n > 1 else ""
        shared = "; timed while other workers used the machine" if best.shared("runtime_increase_percent") else ""
        return (
            f"{text}, {number(abs(increase.mean), 1)} % {word} than the matching Sequential run (Eq. "
            f"57{spread}){shared}."
        )

    def _caution(self, best: RecipeResults) -> str:
        parts = []
        by_seen = [one for one in self.tables.recipes if one.estimate("best_seen_ideal_distance").n]
        first = min(by_seen, key=lambda one: rounded(one.estimate("best_seen_ideal_distance").mean), default=best)
        if first is not best:
            parts.append(
                f"f* is not a minimum for every run (negative gaps); measured from the best values seen "
                f"instead, {first.name} is closest."
            )
        if len(self.tables.recipes) > 2:
            parts.append(
                f"The winner was picked as the smallest of {len(self.tables.recipes)} means on these same "
                f"figures, which flatters its lead; "
                "intervals are not corrected for that."
            )
        return " ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return the verdict for machines."""

        def rival(one: Lead | None) -> dict[str, Any] | None:
            if one is None:
                return None
            return {
                "method": one.other.method,
                "lambda_dpo": one.other.lambda_dpo,
                "verdict": one.verdict,
                "lead_nats": one.lead.mean,
                "low": one.lead.low,
                "high": one.lead.high,
                "seeds": one.lead.n,
            }

        return {
            "headline": self.headline,
            "sentences": list(self.sentences),
            "best": self.best and {"method": self.best.method, "lambda_dpo": self.best.lambda_dpo},
            "runner_up": rival(self.runner_up),
            "matching_sequential": rival(self.sequential),
        }


def _count(seeds: int) -> str:
    return f"more than {MOST_SEEDS}" if seeds > MOST_SEEDS else str(seeds)
