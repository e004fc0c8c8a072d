"""Lay the derived figures out as tables for people: decimals, units, marks and footnotes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from report.analysis.findings import Findings
from report.analysis.load import OBJECTIVES, Results, compared_with, judge_of
from report.analysis.metrics import SIGNED
from report.analysis.statistics import Estimate, estimate
from report.analysis.tables import RecipeResults, Tables
from report.page.panels import SPLIT_NAMES
from report.render.document import Cell, Column, Row, Table
from report.render.numbers import number, plus_minus, series_digits
from report.render.shown import Shown, shown

SHARED_MARK = "†"
SHARED_NOTE = f"{SHARED_MARK} measured while other workers used the same machine: compare with care."


def tags(recipe: RecipeResults) -> tuple[tuple[str, str], ...]:
    """Return what a reader can narrow a table of recipes down by; nothing for what is there for context."""
    return () if recipe.lambda_dpo is None else (("method", recipe.method), ("λ", f"{recipe.lambda_dpo:g}"))


class Sheet:
    """Build a table of recipes (rows) and figures (columns) with its footnotes."""

    def __init__(self, tables: Tables, recipes: Sequence[RecipeResults]) -> None:
        self.tables, self.recipes = tables, recipes
        self.columns: list[Column] = []
        self.cells: list[list[Cell]] = [[] for _ in recipes]
        self.reasons: list[str] = []
        self.shared = False

    def text(self, title: str, values: Iterable[str], numeric: bool = False, meaning: str = "") -> Sheet:
        """Add a column of plain words."""
        self.columns.append(Column(title, numeric=numeric, meaning=meaning))
        for recipe, cells, value in zip(self.recipes, self.cells, values, strict=True):
            cells.append(Cell(value, link=self._link(recipe)))
        return self

    def figure(self, name: str, group: str = "") -> Sheet:
        """Add a figure: mean ± sd over seeds, or its standard error where a score has one seed."""
        estimates = [recipe.estimate(name) for recipe in self.recipes]
        # What is only there for context (a distance of DPO alone, say) must not make the ranked figures coarse.
        ranked = [
            one.mean
            for recipe, one in zip(self.recipes, estimates, strict=True)
            if recipe.lambda_dpo is not None and one.n
        ]
        writes = shown(self.tables.metric(name), [one.mean for one in estimates if one.n], ranked)
        self.columns.append(Column(writes.title, meaning=writes.metric.meaning, group=group))
        for recipe, cells, one in zip(self.recipes, self.cells, estimates, strict=True):
            cells.append(self._figure_cell(recipe, name, one, writes))
        return self

    def _figure_cell(self, recipe: RecipeResults, name: str, one: Estimate, writes: Shown) -> Cell:
        if one.n == 0:
            return self._missing(recipe, name)
        text = writes.mean(one.mean, one.sd, name in SIGNED)
        notes = []
        if recipe.shared(name):
            self.shared = True
            text += SHARED_MARK
        error = recipe.standard_error(name)
        if not math.isnan(error):
            notes.append(f"s.e. {number(writes.spread(one.mean, error), writes.digits)}")
        if (spread := recipe.quartiles(name)) is not None:
            low, high = (number(writes.value(end), writes.digits) for end in spread)
            notes.append(f"half of the samples {low} to {high}")
        if one.n < len(recipe.jobs):
            notes.append(f"{one.n} of {len(recipe.jobs)} seeds")
        return Cell(text, link=self._link(recipe), note=", ".join(notes))

    def _missing(self, recipe: RecipeResults, name: str) -> Cell:
        if not any(name in figures for figures in recipe.figures.values()):
            return Cell("", link="")
        reason = recipe.reason(name)
        if reason not in self.reasons:
            self.reasons.append(reason)
        return Cell(f"missing [{self.reasons.index(reason) + 1}]", link=self._link(recipe), missing=True)

    def _link(self, recipe: RecipeResults) -> str:
        """Return the anchor of the runs behind a row."""
        if any(one is recipe for one in self.tables.recipes):
            return recipe.anchor
        if recipe.jobs.get(0) == "base":
            return "runs-base" if self.tables.results.evaluation_jobs("base") else ""
        return "runs-behind"

    def table(self, title: str, notes: Sequence[str] = (), best: RecipeResults | None = None) -> Table:
        """Return the table with its footnotes."""
        context = {id(recipe) for recipe in self.tables.context}
        rows = [
            Row(tuple(cells), "context" if id(recipe) in context else "best" if recipe is best else "", tags(recipe))
            for recipe, cells in zip(self.recipes, self.cells, strict=True)
        ]
        reasons = [f"[{place}] missing: {reason}" for place, reason in enumerate(self.reasons, 1)]
        marks = [SHARED_NOTE] if self.shared else []
        return Table(title, tuple(self.columns), tuple(rows), (*notes, *reasons, *marks), sortable=len(rows) > 2)


def leaderboard(tables: Findings) -> Table:
    """Return every recipe by the figure that ranks, then what it is held against; those not told apart share a rank."""
    ranking = tables.ranking
    order = [*ranking.order, *(recipe for recipe in tables.ranked if not ranking.holds(recipe))]
    recipes = [*order, *tables.context]
    ranks = [ranking.place(recipe) for recipe in order]
    sheet = Sheet(tables, recipes)
    sheet.text("Recipe", (recipe.name for recipe in recipes))
    sheet.text("Rank", (*ranks, *("" for _ in tables.context)), numeric=True)
    for name in dict.fromkeys((tables.distance, "ideal_distance", "gap_dpo", "gap_sft")):
        sheet.figure(name)
    for name in tables.scores:
        sheet.figure(name)
    for name in ("training_seconds", "runtime_increase_percent", "utilization_increase_percent"):
        sheet.figure(name)
    sheet.text("Seeds", (str(len(recipe.jobs)) if recipe.base_method else "" for recipe in recipes), numeric=True)
    return sheet.table(
        _leaderboard_title(tables), [*_rank_notes(tables, order), *judge_notes(tables.results)], tables.ranking.winner
    )


def _leaderboard_title(tables: Findings) -> str:
    ranking = tables.ranking
    by = "ideal distance" if ranking.by_distance else tables.metric(str(ranking.basis)).title
    return f"Leaderboard: recipes by {by}"


def _rank_notes(tables: Findings, order: Sequence[RecipeResults]) -> list[str]:
    """Say what a rank means, and why recipes have none."""
    ranking, unranked = tables.ranking, dict[str, list[str]]()
    notes = []
    if ranking.basis is not None:
        notes.append(
            "Rank: 1 + how many recipes are clearly better (p ≤ 0.05); recipes that are not told apart share one, marked =."
        )
    elif ranking.order:
        notes.append(
            "No ranks: fewer than three seeds of each recipe; the order is that of the means, and may be noise."
        )
    for recipe in order:
        if not ranking.holds(recipe):
            unranked.setdefault(tables.why_unranked(recipe) or "not every seed has the figure", []).append(recipe.name)
    return [*notes, *(f"Without a rank: {', '.join(names)} ({why})." for why, names in unranked.items())]


def judge_notes(results: Results) -> list[str]:
    """Name the judge; say so where one table holds scores of several."""
    judges = [judge for name in results.score_names if (judge := judge_of(name))]
    if len(judges) > 1 and results.main_judge:
        beside = ", ".join(judge for judge in judges if judge != results.main_judge)
        return [
            f"Win rate: share of answers preferred to the data's chosen answers; main judge: {results.main_judge}; beside it: "
            f"{beside}. Rates of different judges do not compare; how far the judges agree stands under Judges."
        ]
    if len(judges) > 1:
        return [f"Different judges: {', '.join(judges)}. Their win rates do not compare with each other."]
    where = _endpoint(results)
    judge = f"{judges[0]}{where}" if judges else ""
    other = next((compared_with(results.metric(name)) for name in results.score_names if judge_of(name)), "")
    return [f"Win rate: share of answers preferred to {other}; judge: {judge}."] if judges else []


def _endpoint(results: Results) -> str:
    """Say where a judge was asked, if not at its maker's own endpoint: a name alone says little of who answers there."""
    judged = (job for job in results.record.jobs.values() if job.kind == "judge")
    asked = {str(job.spec["settings"].get("base_url") or "") for job in judged} - {""}
    return f" at {', '.join(sorted(asked))}" if asked else ""


def table_one(tables: Tables) -> Table | None:
    """Return the layout of the paper's Table 1: a row per method, each score under each λ."""
    if not tables.scores:
        return None
    lambdas = sorted({recipe.lambda_dpo for recipe in tables.recipes if recipe.lambda_dpo is not None})
    columns = [Column("Method", numeric=False)]
    columns += [
        Column(f"λ = {lambda_dpo:g}", group=score_title(name, tables))
        for name in tables.scores
        for lambda_dpo in lambdas
    ]
    rows: list[Row] = []
    reasons: list[str] = []
    by_key = {recipe.key: recipe for recipe in tables.recipes}
    writes = {name: score_shown(name, tables) for name in tables.scores}
    for method in tables.results.methods:
        cells = [Cell(method)]
        for name in tables.scores:
            for lambda_dpo in lambdas:
                recipe = by_key.get((method, lambda_dpo))
                cells.append(_score_cell(recipe, writes[name], reasons) if recipe else Cell("–"))
        rows.append(Row(tuple(cells)))
    for recipe in tables.context:
        # A context row has one value for every λ: it stands in the first column of each group.
        cells = [Cell(recipe.name)]
        for name in tables.scores:
            cells += [_score_cell(recipe, writes[name], reasons, link=False), *(Cell("") for _ in lambdas[1:])]
        rows.append(Row(tuple(cells), "context"))
    notes = [
        *judge_notes(tables.results),
        *(f"[{place}] missing: {reason}" for place, reason in enumerate(reasons, 1)),
    ]
    if any(len(recipe.jobs) > 1 for recipe in tables.recipes):
        notes.append("Mean ± sd over seeds.")
    notes += choice_notes(tables)
    return Table("Methods × λ (the layout of the paper's Table 1)", tuple(columns), tuple(rows), tuple(notes))


def choice_notes(tables: Tables, most: int = 3) -> list[str]:
    """Say where equal log-probabilities, or a habit of one place, may have moved a score by more than its standard error.

    Ties are questions whose best choices are equally likely, as bfloat16 makes them: the first counts. A place that is chosen far
    more often than it is right answers whatever the question asks.
    """
    tied: list[str] = []
    habits: list[str] = []
    for of in ["base", *(run.id for run in tables.results.trained)]:
        for job in tables.results.evaluation_jobs(of):
            for name, entry in job.scores.items():
                n, error = entry.get("n"), entry.get("standard_error")
                if name not in tables.scores or not n or not error or tables.metric(name).unit != "share":
                    continue
                ties = entry.get("ties", 0) / n
                if ties > error:
                    tied.append(f"{of} ({number(100 * ties, 1)} % of the questions)")
                places = zip(entry.get("chosen", ()), entry.get("right", ()), strict=True)
                excess, place = max(((chosen - right) / n, at) for at, (chosen, right) in enumerate((*places, (0, 0))))
                if excess > 2 * error:
                    chosen, right = (100 * entry[what][place] / n for what in ("chosen", "right"))
                    habits.append(f"{of} (place {place + 1} in {number(chosen, 0)} %, right in {number(right, 0)} %)")
    said = (
        (tied, "Ties of the best choices could move a score by more than its standard error"),
        (habits, "One place is chosen far more often than it is right"),
    )
    return [
        f"{words}: {', '.join(found[:most])}{f' and {len(found) - most} more' if len(found) > most else ''}."
        for found, words in said
        if found
    ]


def score_shown(name: str, tables: Tables) -> Shown:
    """Return how a score is written over all recipes, one decimal of a percentage."""
    estimates = (recipe.estimate(name) for recipe in (*tables.recipes, *tables.context))
    return shown(tables.metric(name), [one.mean for one in estimates if one.n])


def score_title(name: str, tables: Tables) -> str:
    """Return a score's heading: its title, the judge where one gave it, the unit."""
    writes = score_shown(name, tables)
    judge = judge_of(name)
    named = not judge or tables.results.is_beside(name)  # by its own title
    title = writes.metric.title if named else f"{writes.metric.title}, {judge}"
    return f"{title} ({writes.unit})" if writes.unit else title


def _score_cell(recipe: RecipeResults, writes: Shown, reasons: list[str], link: bool = True) -> Cell:
    name = writes.metric.name
    one, error = recipe.estimate(name), recipe.standard_error(name)
    anchor = recipe.anchor if link else ""
    if one.n == 0:
        reason = recipe.reason(name)
        if reason not in reasons:
            reasons.append(reason)
        return Cell(f"missing [{reasons.index(reason) + 1}]", link=anchor, missing=True)
    note = "" if math.isnan(error) else f"s.e. {number(writes.spread(one.mean, error), writes.digits)}"
    return Cell(writes.mean(one.mean, one.sd), link=anchor, note=note)


def best_seen(tables: Tables) -> Table | None:
    """Return the gaps against the best values seen, if any gap is negative; None otherwise."""
    negative = [
        recipe
        for recipe in tables.recipes
        if any(value < 0 for name in OBJECTIVES for value in recipe.values(f"gap_{name}").values())
    ]
    if not negative:
        return None
    sheet = Sheet(tables, tables.ranked)
    sheet.text("Recipe", (recipe.name for recipe in tables.ranked))
    for name in (
        "gap_dpo",
        "best_seen_gap_dpo",
        "gap_sft",
        "best_seen_gap_sft",
        "ideal_distance",
        "best_seen_ideal_distance",
    ):
        sheet.figure(name)
    note = (
        "A negative gap means that a run ended below the run that trained on that objective alone: it is better than the "
        "optimum, and adds nothing to the ideal distance."
    )
    return sheet.table("Gaps against the best value seen", [note])


def optima(tables: Tables) -> Table | None:
    """Return what training on each objective alone came to: f*, which distances start from, beside first and last value."""
    results = tables.results
    found = [
        (objective, seed, split, one)
        for (objective, seed), run in sorted(results.optima.items(), key=lambda item: (item[0][1], item[0][0]))
        for split in ("held_out", "train")
        if (one := results.found_optimum(objective, seed, split)) is not None
    ]
    if not found:
        return None
    digits = series_digits([one.value for *_, one in found])
    rows = []
    for objective, seed, split, one in found:
        learned = {True: "yes", False: "nothing that holds", None: "not on record"}[one.learned]
        steps = " and ".join(map(str, dict.fromkeys(one.steps))) or "–"
        start = "–" if one.start is None else number(one.start, digits)
        texts = (f"{objective.upper()} alone", str(seed), SPLIT_NAMES[split], start, number(one.value, digits), steps)
        rows.append(Row(tuple(map(Cell, (*texts, number(one.last, digits), learned)))))
    columns = (
        Column("Run", numeric=False),
        Column("Seed"),
        Column("Rows", numeric=False),
        Column("Start (nats)", meaning="f(θ_1), before any step"),
        Column(
            "f* (nats)",
            meaning="the best value along the run: each half of the rows chooses a step, the other says its value",
        ),
        Column("At step"),
        Column("Last (nats)"),
        Column("Learned", numeric=False),
    )
    return Table(
        "The optima: what training on one objective alone reached", columns, tuple(rows), sortable=len(rows) > 2
    )


def cost(tables: Tables) -> Table:
    """Return what each recipe cost; a figure that no run has is named below the table, with the reason."""
    recipes = [*tables.recipes, *(one for one in tables.context if one.base_method)]
    sheet = Sheet(tables, recipes).text("Recipe", (recipe.name for recipe in recipes))
    absent: dict[str, list[str]] = {}
    for name in tables.costs:
        if any(recipe.estimate(name).n for recipe in recipes):
            sheet.figure(name)
        else:
            absent.setdefault(recipes[0].reason(name), []).append(tables.metric(name).title)
    note = (
        "All-in runtime adds to a run's own training that of the reference policy π_ref, of the two optima where the "
        "recipe or the stopping rule uses their values f* or their weights, and of the reference front where a run is "
        "held against it; a job that serves several runs is charged in full to each."
    )
    missing = (f"{', '.join(names)}: missing: {reason}." for reason, names in absent.items())
    return sheet.table("Cost of one run", [tables.results.cost_source, note, *missing])


def both_splits(tables: Tables) -> Table:
    """Return the final objective values on held-out and on training rows."""
    recipes = [*tables.recipes, *(one for one in tables.context if one.base_method)]
    sheet = Sheet(tables, recipes).text("Recipe", (recipe.name for recipe in recipes))
    for objective in OBJECTIVES:
        for split in ("held_out", "train"):
            sheet.figure(f"f_{objective}/{split}", group=f"f_{objective.upper()}")
    return sheet.table("Final objective values on both splits")


def forgetting(tables: Tables) -> Table | None:
    """Return what Sequential's second phase undid of its first; None without a two-phase Sequential run."""
    frame = tables.forgetting
    if frame.empty:
        return None
    names = ("start", "at_change", "end", "undone")
    digits = max(3, series_digits(frame["undone"].tolist()))
    rows = []
    for (method, lambda_dpo, objective), part in frame.groupby(["method", "lambda_dpo", "objective"], sort=True):
        recipe = next(one for one in tables.recipes if one.key == (method, lambda_dpo))
        estimates = {name: estimate(part[name].tolist()) for name in names}
        cells = [Cell(recipe.name, link=recipe.anchor), Cell(f"f_{str(objective).upper()}")]
        cells += [Cell(plus_minus(one.mean, one.sd, digits, name == "undone")) for name, one in estimates.items()]
        share, lost = estimate(part["share"].tolist()), estimates["undone"]
        cells.append(Cell(plus_minus(share.mean * 100, share.sd * 100, 0)))
        cells.append(
            Cell(f"{number(lost.low, digits, True)} to {number(lost.high, digits, True)}" if lost.has_interval else "–")
        )
        rows.append(Row(tuple(cells)))
    columns = (
        Column("Recipe", numeric=False),
        Column("First objective", numeric=False),
        *(Column(title) for title in ("At the start", "At the phase change", "At the end", "Undone (nats)")),
        Column("Undone, % of what phase 1 won"),
        Column("95 % CI of undone", meaning="Student-t over seeds; three or more are needed"),
    )
    notes = ["Undone: the first objective's value at the end minus at the phase change; positive is forgotten."]
    late = frame[frame["measured_step"] != frame["change_step"]]
    if not late.empty:
        steps = ", ".join(
            f"{int(b)} for {int(a)}"
            for a, b in sorted(set(zip(late["change_step"], late["measured_step"], strict=True)))
        )
        notes.append(
            f"Not evaluated exactly at the phase change everywhere; the last evaluation before it is used (step "
            f"{steps})."
        )
    return Table("What Sequential's second phase undid of its first", columns, tuple(rows), tuple(notes))


def learned_against_kept(tables: Findings) -> Table | None:
    """Return what each recipe learned and what became of what it was not trained for; None without scores of the base."""
    if not tables.kept:
        return None
    names = list(tables.kept[0].changes)
    writes = {name: score_shown(name, tables) for name in names}
    rows = []
    for one in tables.kept:
        recipe = one.recipe
        cells = [Cell(recipe.name, link=recipe.anchor if recipe.lambda_dpo is not None else "")]
        cells += [_with_interval(one.learned, 100.0, False), _with_interval(one.kept, 100.0)]
        for name in names:
            cells += [_change(changes[name], writes[name]) for changes in (one.changes, one.after_first)]
        if any(other.moved.n for other in tables.kept):
            cells.append(Cell(plus_minus(one.moved.mean, one.moved.sd, 4) if one.moved.n else "missing"))
        rows.append(Row(tuple(cells), "" if recipe.lambda_dpo is not None else "context"))
    first = str(tables.results.suite.get("order") or "sft_dpo").split("_")[0].upper()
    columns = [
        Column("Recipe", numeric=False),
        Column(
            "Learned (%)", meaning="of what training on each objective alone learns, mean over both: 0 is the start"
        ),
        Column("Kept (points)", meaning="mean change against the base model over all tasks whose scores are shares"),
    ]
    for name in names:
        written, base = writes[name], tables.results.score("base", name)
        group = f"{written.metric.title}, base {written.text(base.compared)} {written.unit}".rstrip()
        unit = f" ({written.difference_unit})" if written.difference_unit else ""
        columns += [Column(f"Against base{unit}", group=group), Column(f"Against {first} alone{unit}", group=group)]
    if any(one.moved.n for one in tables.kept):
        columns.append(Column("KL from the base (nats)", meaning="a token, on the base model's own answers"))
    notes = (
        "Changes are paired over seeds, and over questions where single answers are on record; in small print 95 % CIs, "
        f"from three seeds on. {first} alone is the first phase run to its end, with the same seed.",
    )
    title = "Learned against kept: what was gained, and what became of what nobody trained for"
    return Table(title, tuple(columns), tuple(rows), notes, sortable=len(rows) > 2)


def _with_interval(one: Estimate, factor: float, sign: bool = True) -> Cell:
    if not one.n or math.isnan(one.mean):
        return Cell("missing", missing=True)
    note = f"{number(factor * one.low, 1, sign)} to {number(factor * one.high, 1, sign)}" if one.has_interval else ""
    return Cell(number(factor * one.mean, 1, sign), note=note)


def _change(one: Estimate, writes: Shown) -> Cell:
    if not one.n or math.isnan(one.mean):
        return Cell("–")
    low, high = (number(writes.difference(value), 1, True) for value in (one.low, one.high))
    return Cell(number(writes.difference(one.mean), 1, True), note=f"{low} to {high}" if one.has_interval else "")
