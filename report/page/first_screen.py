"""The first screen: what to use, how sure that is, what it costs and what it loses, for each goal that a reader may have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.errors import InputError
from report.analysis.findings import Findings
from report.analysis.load import Results, compared_with, judge_of
from report.analysis.ranking import MOST_SEEDS, counted, listed, seeds_for
from report.analysis.statistics import SEEDS_FOR_AN_INTERVAL, Estimate, estimate
from report.analysis.tables import RecipeResults
from report.analysis.toy import ToyResults
from report.choose.choice import Candidate, Choice
from report.choose.choose import choose, shown_name
from report.choose.expression import Figure
from report.choose.presets import OWN, Preset, goal_named, presets
from report.page import losses, words
from report.page.runs import base_name, device
from report.render.document import NOTHING_SURE, FirstScreen, Goal, Holder, Standing, StandingRow
from report.render.numbers import number
from report.render.sentences import enumerated, inside_sentence, many
from report.render.shown import Shown, shown

COSTS = ("tokens", "training_seconds", "energy_joules")
OWN_HINT = 'bench report RESULTS --choose "mmlu >= base - 1, maximize win_rate"'


def make(tables: Findings, text: str = "") -> FirstScreen:
    """Make the first screen of a suite.

    Args:
        text: the goal to open with: one by name, or words of one's own; "" for the balanced one.
    """
    goals = [_goal(tables, preset) for preset in presets(tables)]
    own, wanted = _own(tables, text), goal_named(text) or OWN
    goals.append(own)
    usable = [goal.name for goal in goals if not goal.why_not]
    default = wanted if text and wanted in usable else next(iter(usable), "")
    return FirstScreen(
        facts=tuple(_facts(tables)),
        state=state(tables.results),
        complete=not tables.results.problems,
        goals=tuple(goals),
        default=default,
        words=words.glossary(tables),
        sentences=() if usable else (f"{_no_goal(tables, goals)}.",),
    )


def _no_goal(tables: Findings, goals: Sequence[Goal]) -> str:
    return tables.ranking.why_nothing_is_sure or next((goal.why_not for goal in goals), "")


def _facts(tables: Findings) -> Iterable[str]:
    results = tables.results
    yield base_name(results)
    if tables.recipes:
        seeds = len({run.seed for run in results.runs})
        yield f"{many(len(tables.recipes), 'recipe')} × {many(seeds, 'seed')}"
        yield device(results)
    if made := made_on(results):
        yield made


def made_on(results: Results | ToyResults) -> str:
    """Return the day on which records were made; "" where they do not tell."""
    return str(results.record.info.get("produced", {}).get("time") or "")[:10]


def state(results: Results | ToyResults) -> str:
    """Say how many of the planned jobs are complete."""
    planned = len(results.record.info["jobs"])
    return f"{'PARTIAL' if results.problems else 'COMPLETE'} {planned - len(results.problems)}/{planned}"


def _own(tables: Findings, text: str) -> Goal:
    if not text or goal_named(text):
        return Goal(OWN, "your own words", why_not=f"your own words: {OWN_HINT}")
    return _goal(tables, Preset(OWN, "does best by your own words", text.strip()))


def _goal(tables: Findings, preset: Preset) -> Goal:
    if not preset.text:
        return Goal(preset.name, preset.words, why_not=preset.why_not)
    try:
        choice = choose(tables, preset.text)
    except InputError as error:
        return Goal(preset.name, preset.words, why_not=str(error))
    return _Told(tables, preset, choice).goal


@dataclass
class _Told:
    """Say what came of one goal."""

    tables: Findings
    preset: Preset
    choice: Choice

    def __post_init__(self) -> None:
        everyone = (*self.tables.ranked, self.tables.alone("sft"), self.tables.alone("dpo"), self.tables.base)
        self.named = {shown_name(one): one for one in everyone if one is not None}

    @property
    def goal(self) -> Goal:
        pick = self.choice.pick
        if pick is None:
            why = self._unmet()
            return Goal(
                self.preset.name, self.preset.words, self.preset.text, heading="Nothing meets this goal", confidence=why
            )
        recipe, why = self.named[pick.name], self._why_not_sure(pick)
        holders = self._holders(recipe, clear=not why)
        return Goal(
            name=self.preset.name,
            words=self.preset.words,
            text=self.preset.text,
            heading=NOTHING_SURE if why else f"Use {pick.name}",
            clear=not why,
            recipe=pick.name,
            leads=f"{pick.name} leads so far" if why else "",
            how=" ".join(filter(None, (words.how(self.tables, recipe), self._cost(recipe)))),
            confidence=f"{why}.{self._enough(pick)}" if why else self._confidence(pick),
            overturn="" if why else self._overturn(pick),
            holders=tuple(holder for holder, _ in holders),
            rows=tuple(self._rows([one for _, one in holders])),
            caveat=losses.words(self.tables, recipe, holders[1:], self.preset.name),
            budget=losses.equal_tokens(self.tables, recipe),
            notes=tuple(self._notes([one for _, one in holders])),
        )

    # ---- how sure -------------------------------------------------------------------------------------------------

    def _unmet(self) -> str:
        """Say which condition keeps most recipes out."""
        failed = [one for one in self.choice.candidates if one.failed]
        first = next(iter(failed), None)
        unknown = next((one.unknown[0] for one in self.choice.candidates if one.unknown), "")
        why = f"; {first.name} does not meet {first.failed[0]}" if first else f": {unknown}"
        return f"None of {len(self.choice.candidates)} recipes, SFT alone, DPO alone and the base model does{why}."

    def _why_not_sure(self, pick: Candidate) -> str:
        """Say why what leads is not recommended; "" where it is."""
        ranking, level = self.tables.ranking, self.choice.level_of_all
        if ranking.why_nothing_is_sure:
            return _capital(ranking.why_nothing_is_sure)
        seeds = len({seed for one in self.tables.recipes for seed in one.jobs})
        if pick.method in self.tables.results.methods and len(pick.jobs) < seeds:
            return f"{len(pick.jobs)} of {counted(seeds, 'seed')} of it have every figure"
        if level:
            return f"It is not told apart from {listed(level, 2)}"
        goal = self.choice.expression.goal
        is_recipe = any(one.key == self.named[pick.name].key for one in self.tables.recipes)
        ranks = isinstance(goal, Figure) and self._figure == self.tables.verdicts.figure_that_ranks
        if ranks and not self.choice.expression.conditions and is_recipe and ranking.why_no_winner:
            return _capital(ranking.why_no_winner)
        return ""

    @property
    def _figure(self) -> str:
        """The figure that the goal is, in the tables; "" for a formula."""
        from report.choose.figures import named_figures

        goal = self.choice.expression.goal
        return named_figures(self.tables)[goal.name].figure if isinstance(goal, Figure) and goal.of == "recipe" else ""

    def _rival(self, pick: Candidate) -> Candidate | None:
        """The next that meets the conditions and is not the same recipe."""
        own = self.named[pick.name]
        others = (one for one in self.choice.in_order if not self.tables.same(self.named[one.name], own))
        return next(others, None)

    def _leads(self, pick: Candidate, rival: Candidate) -> list[float]:
        """Return by how much the pick is better than a rival on each seed, on the figure's scale; empty for a formula."""
        if not self._figure:
            return []
        ours, theirs = (self.named[one.name].values(self._figure) for one in (pick, rival))
        sign = 1 if self.choice.expression.maximize else -1
        found = [sign * (ours[seed] - theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
        return [one for one in found if not math.isnan(one)]

    @property
    def _writes(self) -> Shown:
        return shown(self.tables.metric(self._figure), [one.estimate(self._figure).mean for one in self.tables.recipes])

    def _size(self, value: float) -> str:
        """Write a difference in the goal's figure."""
        writes = self._writes
        digits = max(writes.digits, 2) if writes.difference_unit == "nats" else writes.digits
        return f"{number(writes.difference(value), digits)} {writes.difference_unit}".rstrip()

    def _confidence(self, pick: Candidate) -> str:
        rival = self._rival(pick)
        share = self._share(pick)
        drawn = (
            f" Chosen in {100 * share:.0f} % of {self.choice.draws:,} redraws of the {enumerated(self.choice.resampled)}."
            if share >= 0
            else ""
        )
        if rival is None:
            return f"It alone meets the conditions.{drawn}"
        leads = self._leads(pick, rival)
        if not leads:
            return f"{_sure(share)} confidence by these words: next is {rival.name}.{drawn}"
        ahead, seeds = sum(one > 0 for one in leads), len(leads)
        word = "High" if ahead == seeds and not share < 0.95 else "Fair"
        size = self.tables.verdicts.between(self.named[pick.name], self.named[rival.name], self._figure).size
        low, high = sorted(abs(end) for end in (size.low, size.high)) if size.has_interval else (math.nan, math.nan)
        interval = "" if math.isnan(low) else f" (95 % CI {self._size(low).split(' ')[0]} to {self._size(high)})"
        writes = self._writes
        figure = inside_sentence(writes.title if writes.metric.kind == "cost" else writes.metric.title)
        return (
            f"{word} confidence by {figure}: clearly ahead of {self._everyone_else(pick)}. "
            f"The closest, {rival.name}, is behind on {ahead} of {counted(seeds, 'seed')}, "
            f"by {self._size(abs(size.mean))}{interval}.{drawn}"
        )

    def _everyone_else(self, pick: Candidate) -> str:
        """Name all that the pick is ahead of; a recipe that is the same one is none of them."""
        own = self.named[pick.name]
        others = [
            one for candidate in self.choice.in_order if not self.tables.same(one := self.named[candidate.name], own)
        ]
        recipes = [one for one in others if any(one is recipe for recipe in self.tables.recipes)]
        count = len(recipes)
        told = [recipes[0].name if count == 1 else f"the {count} other recipes"] if count else []
        alone = [shown_name(one) for one in others if one not in recipes]
        told += [f"the {name}" if name == self.tables.base.name else name for name in alone]
        who = enumerated(told)
        return f"{who} that meet the conditions" if self.choice.expression.conditions else who

    def _share(self, pick: Candidate) -> float:
        """The share of redraws in which it is chosen, or a twin of it; NaN without draws."""
        own = self.named[pick.name]
        alike = (one for one in self.choice.in_order if self.tables.same(self.named[one.name], own))
        return math.fsum(one.among_all for one in alike)

    def _overturn(self, pick: Candidate) -> str:
        """Say what another seed would have to show to undo the lead."""
        rival = self._rival(pick)
        leads = self._leads(pick, rival) if rival else []
        if rival is None or len(leads) < SEEDS_FOR_AN_INTERVAL:
            return ""
        bound = turning(leads)
        if bound is None:
            unclear = "any further seed"
        else:
            size = (
                f"ahead by more than {self._size(-bound)}" if bound < 0 else f"behind by less than {self._size(bound)}"
            )
            unclear = f"one more seed on which {rival.name} is {size}"
        leads_by = self._size(math.fsum(leads))
        return (
            f"What would overturn it: {unclear} (the two are then not told apart by a paired t-test; it leads if ahead by "
            f"more than {leads_by}), or λ and settings not tried."
        )

    def _enough(self, pick: Candidate) -> str:
        """Say what would be enough for a recommendation."""
        ranking, results = self.tables.ranking, self.tables.results
        if results.smoke:
            return " Run the suite itself."
        if results.unfinished_runs:
            return f" Enough would be: finish the missing runs (bench run {results.name})."
        rival = self._rival(pick)
        wanted = self._seeds_wanted(pick, rival) if rival else None
        count = f"more than {MOST_SEEDS}" if wanted and wanted > MOST_SEEDS else str(wanted)
        likely = (
            f"about {count} seeds would tell it from {rival.name}, if both stay as they are" if wanted and rival else ""
        )
        if ranking.fewest_seeds < SEEDS_FOR_AN_INTERVAL:
            return f" Enough would be: three seeds or more of every recipe{'; ' + likely if likely else ''}."
        return f" Enough would be: {likely}." if likely else ""

    def _seeds_wanted(self, pick: Candidate, rival: Candidate) -> int | None:
        ours, theirs = self.named[pick.name], self.named[rival.name]
        if self._figure == self.tables.verdicts.figure_that_ranks and all(
            map(self.tables.ranking.holds, (ours, theirs))
        ):
            return self.tables.ranking.seeds_wanted(ours, theirs)
        one = estimate(self._leads(pick, rival))
        return seeds_for(abs(one.mean), one.sd) if one.sd > 0 and abs(one.mean) > 0 else None

    def _cost(self, recipe: RecipeResults) -> str:
        """Say what a run of a recipe takes."""
        taken = []
        for name in ("tokens", "training_seconds"):
            known = recipe.estimate(name)
            if known.n:
                writes = shown(self.tables.metric(name), [known.mean])
                taken.append(f"{writes.text(known.mean)} {writes.unit or name}")
        return f"A run takes {' and '.join(taken)}." if taken else ""

    # ---- the table ------------------------------------------------------------------------------------------------

    def _holders(self, recipe: RecipeResults, clear: bool) -> list[tuple[Holder, RecipeResults]]:
        """Return the columns: what is recommended, Sequential at its λ, one objective alone, the base model."""
        tables, twins = self.tables, self.tables.twins.get(recipe.key, ())
        note = f"the same recipe as {listed([one.name for one in twins])}" if twins else ""
        is_recipe = any(one is recipe for one in tables.recipes)
        role = "recommended" if clear else "leads so far"
        found = [(Holder(role, shown_name(recipe), recipe.anchor if is_recipe else "runs-behind", note), recipe)]
        sequential = tables.sequential(recipe.lambda_dpo) if is_recipe else None
        if sequential is not None and not tables.same(sequential, recipe):
            found.append((Holder("same λ", sequential.method, sequential.anchor), sequential))
        else:
            others = (one for one in tables.ranking.order if not tables.same(one, recipe))
            next_best = next(others, None)
            if next_best is not None:
                found.append((Holder("leaderboard's first", next_best.name, next_best.anchor), next_best))
        for objective in ("sft", "dpo"):
            one = tables.alone(objective)
            if one is not None and one.jobs and one.key != recipe.key:
                found.append((Holder("", shown_name(one), "runs-behind"), one))
        if recipe.key != tables.base.key:
            has_runs = bool(tables.results.evaluation_jobs("base"))
            found.append((Holder("", "base model", "runs-base" if has_runs else ""), tables.base))
        return found

    def _rows(self, recipes: Sequence[RecipeResults]) -> Iterable[StandingRow]:
        tables = self.tables
        names = dict.fromkeys((tables.verdicts.figure_that_ranks, tables.distance, *_scores(tables), *COSTS))
        for name in names:
            known = [one.estimate(name) for one in (*tables.recipes, *recipes)]
            if not any(one.n for one in known):
                continue
            writes = shown(tables.metric(name), [one.mean for one in known if one.n])
            cells = tuple(self._standing(one, recipes[0], name, writes) for one in recipes)
            lower = name == "tokens" or writes.metric.better == "lower"
            better = "lower is better" if lower else "higher is better"
            if judge_of(name):
                better = f"against {compared_with(writes.metric)}, judge {judge_of(name)}; {better}"
            yield StandingRow(writes.metric.title, writes.unit, better, cells)

    def _notes(self, recipes: Sequence[RecipeResults]) -> Iterable[str]:
        """Say what a mark means, and which costs nobody measured."""
        if any(one.shared(name) for one in recipes for name in COSTS):
            yield "† measured while other workers used the same machine: compare with care."
        for name in COSTS:
            if not any(one.estimate(name).n for one in (*self.tables.recipes, *recipes)):
                yield f"{self.tables.metric(name).title} missing: {self.tables.recipes[0].reason(name)}."

    def _standing(self, one: RecipeResults, first: RecipeResults, name: str, writes: Shown) -> Standing:
        known = one.estimate(name)
        if known.n == 0:
            if one is self.tables.base and writes.metric.kind in ("cost", "count"):
                return Standing("none", note="no training")
            return Standing("missing", note=one.reason(name), missing=True)
        word = "" if one is first else self.tables.verdicts.between(one, first, name).word
        mark = "†" if one.shared(name) else ""
        if one is self.tables.base:
            known = estimate(list(one.values(name).values())[:1])
        return Standing(
            writes.text(known.mean) + mark, _spread(one, known, name, writes, one is self.tables.base), word
        )


def _spread(one: RecipeResults, known: Estimate, name: str, writes: Shown, base: bool) -> str:
    """Write the 95 % interval: ± where it is even, its ends where a range cuts it off, and of one seed that over questions."""
    if known.has_interval:
        return _ends(known.mean, known.low, known.high, writes)
    first = next(iter(one.figures.values())).get(name)
    if (known.n == 1 or base) and first is not None and first.value is not None:
        if first.interval is not None and not first.log:
            return _ends(known.mean, *first.interval, writes)
        if not math.isnan(first.error) and first.error > 0:
            half = 1.96 * first.error
            return _ends(known.mean, known.mean - half, known.mean + half, writes)
    return ""


def _ends(mean: float, low: float, high: float, writes: Shown) -> str:
    low, mean, high = writes.value(low), writes.value(mean), writes.value(high)
    half = max(mean - low, high - mean)
    even = math.isclose(mean - low, high - mean, rel_tol=0.05, abs_tol=10**-writes.digits / 2)
    return (
        f"± {number(half, writes.digits)}"
        if even
        else f"({number(low, writes.digits)} to {number(high, writes.digits)})"
    )


def _scores(tables: Findings) -> list[str]:
    """Return the tasks, then the main judge's win rate; not how far a policy moved."""
    names = [name for name in tables.ranking_scores if not name.startswith("base_kl/")]
    return sorted(names, key=lambda name: bool(judge_of(name)))


def turning(leads: Sequence[float]) -> float | None:
    """Return the lead on one more seed below which a paired t-test of all would not stand; None where it never does.

    The bound is found by halving between the mean of the leads, where the test is surest, and far below it.
    """

    def stands(extra: float) -> bool:
        return estimate([*leads, extra]).low > 0

    high = math.fsum(leads) / len(leads)
    if not stands(high):
        return None
    low = high - 100 * (abs(high) + max(map(abs, leads)))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if stands(middle) else (middle, high)
    return high


def _sure(share: float) -> str:
    return "High" if share >= 0.95 else "Fair" if share >= 0.8 else "Low"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
