"""Say in plain words which recipe did best, by how much, how sure that is and at what cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from report.analysis import recipe_verdicts
from report.analysis.findings import Findings
from report.analysis.load import OBJECTIVES, judge_of
from report.analysis.statistics import SEEDS_FOR_AN_INTERVAL, Estimate
from report.analysis.tables import RecipeResults, rounded
from report.page.present import score_shown
from report.render.document import KeyFigure
from report.render.numbers import duration, number, series_digits

LEVEL = 0.05
CLEAR, UNCLEAR, TOO_FEW = "better", "no difference seen", "not enough seeds"


@dataclass(frozen=True)
class Lead:
    """Compare the best recipe's ideal distance with another's, paired over seeds.

    Attributes:
        lead: other − best in nats; positive: the best is closer to the ideal point.
        share: the lead as a share of the other's ideal distance.
        p: two-sided, of the test that stands in the tables too; NaN without one.
        comparisons: how many it is corrected for.
    """

    best: RecipeResults
    other: RecipeResults
    lead: Estimate
    share: float
    p: float
    comparisons: int = 1

    @property
    def verdict(self) -> str:
        """One of CLEAR, UNCLEAR, TOO_FEW."""
        if self.lead.n < SEEDS_FOR_AN_INTERVAL:
            return TOO_FEW
        return CLEAR if self.p <= LEVEL and rounded(self.lead.mean) > 0 else UNCLEAR

    @property
    def digits(self) -> int:
        """The decimals that suit the lead."""
        return series_digits([self.lead.mean])

    @property
    def words(self) -> str:
        """One sentence: by how much, and how sure."""
        size = number(self.lead.mean, self.digits)
        percent = f"{number(100 * self.share, 0)} %"
        if self.lead.n == 0:
            return f"{self.best.name} and {self.other.name} share no seed, so no paired difference can be given."
        if self.verdict == CLEAR:
            low, high = number(self.lead.low, self.digits), number(self.lead.high, self.digits)
            return (
                f"{self.best.name} is better than {self.other.name}: its ideal distance is {size} nats "
                f"({percent}) smaller, "
                f"95 % interval {low} to {high}, paired over {self.lead.n} seeds."
            )
        if self.verdict == UNCLEAR and rounded(self.lead.low) > 0:
            corrected = f", corrected for {self.comparisons} comparisons" if self.comparisons > 1 else ""
            return (
                f"No difference seen between {self.best.name} and {self.other.name}: the means differ by {size} nats "
                f"({percent}) over {self.lead.n} paired seeds, but p = {number(self.p, 3)}{corrected}; the interval of this one "
                "difference alone would leave 0 out."
            )
        if self.verdict == UNCLEAR:
            return (
                f"No difference seen between {self.best.name} and {self.other.name}: the means differ by {size} nats "
                f"({percent}), but over {self.lead.n} paired seeds the 95 % interval covers 0 (the difference "
                f"could be up to "
                f"±{number(self.lead.reach, self.digits)})."
            )
        seeds = "One seed" if self.lead.n == 1 else f"{self.lead.n} seeds"
        return (
            f"{self.best.name} ended {size} nats ({percent}) closer to the ideal point than {self.other.name}. "
            f"{seeds}: no "
            "interval; the difference may be noise."
        )


class Verdict:
    """Judge a suite by the ideal distance, mean over seeds."""

    def __init__(self, tables: Findings) -> None:
        self.tables, self.results = tables, tables.results

    @cached_property
    def best(self) -> RecipeResults | None:
        """The recipe with the smallest mean ideal distance; None when none has one."""
        return next(iter(self.tables.competing), None)

    @cached_property
    def runner_up(self) -> Lead | None:
        """The best recipe of any other method."""
        best = self.best
        others = [one for one in self.tables.competing if best is not None and one.method != best.method]
        return self._against(others[0]) if others else None

    @cached_property
    def sequential(self) -> Lead | None:
        """The Sequential run with the matching phases; None where the best recipe is Sequential."""
        best = self.best
        if best is None or best.base_method == "sequential":
            return None
        other = self.tables.sequential(best.lambda_dpo)
        return self._against(other) if other is not None else None

    def _against(self, other: RecipeResults) -> Lead | None:
        best = self.best
        theirs = other.estimate("ideal_distance")
        if best is None or theirs.n == 0:
            return None
        lead = self.tables.difference(other, best, "ideal_distance")
        share = lead.mean / theirs.mean if theirs.mean else 0.0
        p, comparisons = self._test(best, other)
        return Lead(best, other, lead, share, p, comparisons)

    def _test(self, best: RecipeResults, other: RecipeResults) -> tuple[float, int]:
        """Return the p-value of a lead; against Sequential at the same λ that of the table, corrected as there."""
        if other.base_method == "sequential" and other.lambda_dpo == best.lambda_dpo:
            frame = self.tables.against_sequential
            rows = frame[frame["metric"] == "ideal_distance"] if not frame.empty else frame
            for _, row in rows.iterrows():
                if (row["method"], row["lambda_dpo"]) == best.key:
                    return float(row["p_holm"]), len(rows)
        return recipe_verdicts.two_sided(recipe_verdicts.compare(self.tables, best, other, "ideal_distance")), 1

    @cached_property
    def level(self) -> tuple[RecipeResults, ...]:
        """The recipes that the best is not told apart from: a winner leaves none."""
        best = self.best
        others = [one for one in self.tables.competing if one is not best]
        leads = [(one, self._against(one)) for one in others]
        return tuple(one for one, lead in leads if lead is None or lead.verdict != CLEAR)

    @property
    def headline(self) -> str:
        """The verdict in one sentence."""
        if self.results.smoke:
            return "Smoke run: it shows that the suite runs and measures nothing."
        best = self.best
        if best is None:
            nothing = [why for recipe in self.tables.recipes for why in self._nothing_learned(recipe)]
            return f"No recipe is ranked: {nothing[0]}." if nothing else "No recipe can be ranked yet."
        rival = self.runner_up
        if rival is None:
            return f"{best.name} came closest to the ideal point; no other method to compare with."
        if rival.lead.n >= SEEDS_FOR_AN_INTERVAL:
            return self._crown(best)
        seeds = "one seed" if rival.lead.n == 1 else f"{rival.lead.n} paired seeds"
        return f"{best.name} came closest to the ideal point, over {seeds}: the order may be noise."

    def _nothing_learned(self, recipe: RecipeResults) -> list[str]:
        """Return what keeps a recipe without a distance though all of it was trained."""
        found = (self.results.nothing_learned(name, seed) for seed in recipe.jobs for name in OBJECTIVES)
        return [why for why in found if why]

    def _crown(self, best: RecipeResults) -> str:
        """Name a winner only where it is ahead of every other recipe."""
        if not self.level:
            return f"{best.name} did best."
        more = len(self.level) - 1
        others = self.level[0].name + (f" and {more} more {'recipe' if more == 1 else 'recipes'}" if more else "")
        return f"{best.name} came closest to the ideal point, but not clearly ahead of {others}."

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict in full, one sentence a point."""
        best = self.best
        if best is None:
            return (self._why_unranked(),)
        found = [self._distance(best)]
        rivals = [one for one in (self.runner_up, self.sequential) if one is not None]
        if len(rivals) == 2 and rivals[0].other is rivals[1].other:
            rivals = rivals[:1]
        found += [rival.words for rival in rivals]
        found += [
            self._by_lambda(),
            self._scores(best),
            self._score_leaders(best),
            self._cost(best),
            self._caution(best),
        ]
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
        one = best.estimate("ideal_distance")
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

    def _by_lambda(self) -> str:
        """Say which method comes first at each λ, where all are given the same λ."""
        firsts: dict[float | None, str] = {}
        for recipe in self.tables.ranked:
            if recipe.estimate("ideal_distance").n:
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
                parts.append(f"{_lower(self.tables.metric(name).title)}{judge} {text}{against}")
        return f"Scores of {best.name}: {'; '.join(parts)}." if parts else ""

    def _score_leaders(self, best: RecipeResults) -> str:
        """Name the recipes that lead in the scores instead, if others do."""
        parts = []
        for name in self.tables.main_scores:
            known = [recipe for recipe in self.tables.recipes if recipe.estimate(name).n]
            metric, sign = self.tables.metric(name), -1 if self.tables.metric(name).better == "lower" else 1
            top = max(known, key=lambda recipe: sign * recipe.estimate(name).mean, default=None)
            if metric.better and top is not None and sign * (top.estimate(name).mean - best.estimate(name).mean) > 0:
                most = "lowest" if metric.better == "lower" else "highest"
                parts.append(f"{top.name} has the {most} {_lower(metric.title)} ({self._score(top, name)})")
        return f"By the scores alone others lead: {'; '.join(parts)}." if parts else ""

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
            return f"Cost not measured: {best.reason('training_seconds')}{parts}."
        text = f"Cost: {duration(seconds.mean)} of training a run"
        if best.base_method == "sequential":
            return f"{text}; it is the Sequential baseline itself."
        if not increase.n:
            return (
                f"{text}; against the matching Sequential run not measured: {best.reason('runtime_increase_percent')}."
            )
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

    @property
    def key_figures(self) -> tuple[KeyFigure, ...]:
        """The figures to show large."""
        best = self.best
        if best is None:
            return ()
        one = best.estimate("ideal_distance")
        digits = series_digits([one.mean])
        found = [KeyFigure(number(one.mean, digits), "ideal distance (nats)", best.name)]
        for rival, name in (
            (self.runner_up, "lead over the runner-up"),
            (self.sequential, "lead over matching Sequential"),
        ):
            if rival is not None and rival.lead.n:
                d = rival.digits
                sure = (
                    f"95 % interval {number(rival.lead.low, d, True)} to {number(rival.lead.high, d, True)}"
                    if rival.lead.has_interval
                    else "no interval"
                )
                found.append(KeyFigure(number(rival.lead.mean, d, True), name, sure))
        for name in self.tables.main_scores:
            base = self.results.score("base", name)
            if best.estimate(name).n:
                note = "" if base.value is None else f"base model {self._in_unit(name, base.compared)}"
                found.append(KeyFigure(self._score(best, name), _lower(self.tables.metric(name).title), note))
        increase = best.estimate("runtime_increase_percent")
        if increase.n and best.base_method != "sequential":
            found.append(KeyFigure(f"{number(increase.mean, 1, True)} %", "runtime", "against matching Sequential"))
        return tuple(found)

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


def _lower(title: str) -> str:
    """Write a title inside a sentence; an abbreviation stays as it is."""
    return title if title[:2].isupper() else title[0].lower() + title[1:]
