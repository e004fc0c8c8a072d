"""Put a suite's report together: banner, verdict, leaderboard, tables, figure, every run, what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.records import row_counts
from report.analysis.completions import Texts
from report.analysis.findings import Findings
from report.analysis.load import BROKEN, Results
from report.analysis.ranking import listed
from report.analysis.tables import RecipeResults, Tables
from report.page import (
    charts,
    cost_charts,
    examples,
    judging,
    present,
    present_statistics,
    published,
    runs,
    score_charts,
    trained,
)
from report.page.panels import SPLIT_NAMES, Drawer
from report.page.runs import Log
from report.page.verdict import Verdict
from report.page.where import Where
from report.render.document import (
    Block,
    Cell,
    Code,
    Column,
    Figure,
    FirstScreen,
    Group,
    Report,
    Row,
    Section,
    Table,
    Text,
)
from report.render.shown import shown

SMOKE = (
    "Smoke run with a random tiny model: it shows that the suite runs and measures nothing. No figure below "
    "means anything."
)


def tell(
    tables: Findings, verdict: Verdict, folder: Path, log: Log, screen: FirstScreen, texts: Texts | None = None
) -> Report:
    """Tell a suite's story; pictures go to `folder`/figures, links lead from there to the records.

    Args:
        log: the choices of every run, by job id.
        texts: the prompts and targets to show beside answers; None shows none.
        screen: what to use, by goal; the end points and the first recipes are added here.
    """
    drawn = charts.tradeoff(tables, folder / "figures") if tables.recipes else None
    results = tables.results
    produced = results.record.info.get("produced", {})
    commit = str(produced.get("commit") or "")
    return Report(
        name=results.name,
        description=_description(results),
        smoke=results.smoke,
        banners=tuple(one for one in banners(tables) if one.kind == "warning"),
        notes=tuple(one.text for one in banners(tables) if one.kind != "warning"),
        screen=replace(screen, figure=_end_points(tables, drawn), **_top(tables)),
        sections=tuple(
            one
            for one in _sections(tables, verdict, folder, log, drawn and replace(drawn, main=drawn.main[:1]), texts)
            if one.blocks
        ),
        footer=" · ".join(
            part
            for part in (f"bench {produced.get('version', '')}", commit and f"commit {commit}", produced.get("time"))
            if part
        ),
        links=(
            *(("Markdown", "report.md"), ("JSON", "report.json"), ("Parquet", "runs.parquet")),
            *Where(results.record, folder).archive,
        ),
    )


def _description(results: Results) -> str:
    """Return what the suite says it is; of a changed one that it was that as shipped."""
    said = str(results.suite.get("description") or "")
    return f"Changed from: {said}" if said and results.changes_of_shipped and not results.smoke else said


def banners(tables: Tables) -> list[Text]:
    """Return what a reader must know before any figure: smoke, whose records, what is missing or does not compare, notes."""
    results = tables.results
    found = [Text(SMOKE, "warning")] if results.smoke else []
    found += [Text(results.record.note, "warning")] if results.record.note else []
    problems = results.problems
    if problems:
        failed = sum(problem.state == "failed" for problem in problems)
        broken = sum(problem.state == BROKEN for problem in problems)
        parts = [f"{failed} failed"] if failed else []
        parts += [f"{broken} with a broken record"] if broken else []
        unfinished = len(problems) - failed - broken
        parts += [f"{unfinished} not finished"] if unfinished else []
        total, last = len(results.record.info["jobs"]), " and ".join(parts[-2:])
        found.append(
            Text(
                f"Partial results: of {total} planned jobs, {', '.join([*parts[:-2], last])}; they are listed at the end.",
                "warning",
            )
        )
    found += [Text(words, "warning") for words in tables.comparable.warnings]
    for name in row_counts.SETS:
        splits = row_counts.splits(results.data_facts, name)
        if len(splits) == 2:
            found += [Text(f"{name.capitalize()} data: {words}.", "warning") for words in row_counts.warnings(*splits)]
    changes = _changes(results)
    said = "As shipped, which this is not: " if changes else ""
    notes = [Text(f"{said}{note}", "note") for note in results.suite.get("notes") or ()]
    return [*found, *([Text(changes, "warning")] if changes else []), *notes]


def _changes(results: Results, most: int = 8) -> str:
    """Say what a suite changes of the shipped one of its name; "" where nothing, or nothing is on record."""
    changes = results.changes_of_shipped
    if not changes or results.smoke:
        return ""
    listed = [f"{key} {_written(was)} → {_written(here)}" for key, (was, here) in list(changes.items())[:most]]
    more = f" and {len(changes) - most} more keys" if len(changes) > most else ""
    return f"This is not {results.name} as shipped: {', '.join(listed)}{more}. Title, notes and published figures are of that."


def _written(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _sections(
    tables: Findings, verdict: Verdict, folder: Path, log: Log, drawn: Figure | None, texts: Texts | None
) -> list[Section]:
    """Return what the first screen leaves to be opened; a part is one click away."""
    results, where, pictures = tables.results, Where(tables.results.record, folder), folder / "figures"
    if not tables.recipes:
        return [_problems(results, where), _settings(results)]
    rivals = [rival.other for rival in (verdict.sequential, verdict.runner_up) if rival is not None]
    compared = [recipe for recipe in (verdict.best, *rivals[:1]) if recipe is not None]
    figures = (
        _group("Trade-off", "tradeoff", _reading(tables) if drawn else None, drawn),
        _group("Fronts and optima", "fronts", present_statistics.fronts(tables), present.optima(tables)),
        _group(
            "Scores",
            "scores",
            present.table_one(tables),
            score_charts.scores(tables, pictures),
            score_charts.subjects(tables, pictures, compared),
        ),
        _group("How often MAXRIGHT must look", "max-evaluation", cost_charts.max_evaluation(tables, pictures)),
        _group("Objective values on both splits", "splits", present.both_splits(tables)),
        _group("Beside the published figures", "published", *published.blocks(tables)),
    )
    forgotten = (
        cost_charts.learned_against_kept(tables, pictures),
        present.learned_against_kept(tables),
        present.forgetting(tables),
        present_statistics.forgetting_scores(tables),
    )
    costs = cost_charts.cost_against_quality(tables, pictures), present.cost(tables)
    schedule = present_statistics.choices(tables), *examples.strips(tables, log, where)
    return [
        Section(
            "leaderboard", f"Leaderboard: all {len(tables.recipes)} recipes", _blocks(*_leaderboard(tables, verdict))
        ),
        Section("figures", "Paper's figures and tables", _blocks(*figures)),
        Section("forgetting", "Learned against kept", _blocks(*forgotten)),
        Section("cost", "Cost", _blocks(*costs)),
        Section("choices", "Step schedule", _blocks(*schedule)),
        Section("answers", "Answers", examples.side_by_side(tables, verdict, where, texts)),
        Section("judges", "Judges", judging.blocks(tables, where)),
        Section("runs", "Runs", runs.every_run(tables, where, log)),
        _problems(results, where),
        _settings(results),
    ]


def _group(title: str, anchor: str, *blocks: Block | None) -> Group | None:
    return Group(title, anchor, _blocks(*blocks)) if _blocks(*blocks) else None


def _end_points(tables: Findings, drawn: Figure | None) -> Figure | None:
    """Return the panel of where the runs end, for the first screen."""
    if drawn is None:
        return None
    caption = (
        "Mean over seeds, lines are the sd. Lower left is better: the star is the ideal point, the dashed line the reference "
        "front from SFT alone over ALRIGHT to DPO alone."
    )
    shapes = tuple((label, charts.GLYPHS[marker]) for label, marker in Drawer(tables).shapes)
    return replace(
        drawn, title="Where the runs end", main=drawn.main[1:2], side=(), data=(), caption=caption, shapes=shapes
    )


def _top(tables: Findings, most: int = 5) -> dict[str, Any]:
    """Return the first recipes of the leaderboard, as it ranks them."""
    ranking, name = tables.ranking, tables.verdicts.figure_that_ranks
    order = [recipe for recipe in ranking.order if recipe.estimate(name).n]
    if not order:
        return {}
    writes = shown(tables.metric(name), [one.estimate(name).mean for one in order])
    rows, once = [], list[RecipeResults]()
    for recipe in order:
        if len(once) < most and not any(tables.same(recipe, other) for other in once):
            once.append(recipe)
    for recipe in once:
        one, twins = recipe.estimate(name), tables.twins[recipe.key]
        interval = f"{writes.text(one.low)} to {writes.text(one.high)}" if one.has_interval else "no CI"
        word = "" if recipe is order[0] else tables.verdicts.between(recipe, order[0], name).word
        cells = (
            Cell(
                recipe.name,
                link=recipe.anchor,
                note=f"the same: {listed([twin.method for twin in twins])}" if twins else "",
            ),
            Cell(ranking.place(recipe)),
            Cell(writes.text(one.mean)),
            Cell(interval),
            Cell(word),
        )
        rows.append(Row(cells, "best" if recipe is ranking.winner else ""))
    columns = (
        Column("Recipe", numeric=False),
        Column("Rank"),
        Column(writes.title),
        Column("95 % CI"),
        Column("Against the first", numeric=False),
    )
    title = f"Top {len(rows)} of {len(tables.recipes)} recipes by {writes.metric.title.lower()}"
    return {"top": Table(title, columns, tuple(rows)), "all_of": f"all {len(tables.recipes)} recipes"}


def _leaderboard(tables: Findings, verdict: Verdict) -> tuple[Block | None, ...]:
    said = Text(" ".join(verdict.notes)) if verdict.notes else None
    verdicts = present_statistics.verdicts(tables)
    return _how(tables), present.leaderboard(tables), said, verdicts, present.best_seen(tables)


def _how(tables: Findings) -> Text:
    """Say what gaps are measured on and against, and over how many seeds."""
    results = tables.results
    seeds = len({run.seed for run in results.runs})
    spread = f"Figures are means ± sd over {seeds} seeds." if seeds > 1 else "One seed: figures have no spread."
    return Text(
        f"Gaps and distances are measured on {SPLIT_NAMES[results.split]}, against f* of the same seed: what training on that "
        f"objective alone reached in as many steps. {spread}{_early(results)}"
    )


def _early(results: Results) -> str:
    """Say how many runs ended early under the suite's stopping rule; "" without one."""
    ruled = [run for run in results.runs if run.job.stopping]
    if not ruled:
        return ""
    early = sum(run.job.stopping["early"] for run in ruled)
    rule = results.suite["training"]["stopping"]["rule"]
    return f" {early} of {len(ruled)} joint runs ended early by the stopping rule '{rule}'; where and why stands beside each."


def _blocks(*blocks: Block | None) -> tuple[Block, ...]:
    return tuple(block for block in blocks if block is not None)


def _reading(tables: Tables) -> Text:
    unit = "epochs" if tables.results.suite.get("phases") else "steps"
    return Text(
        "Left: where training moved in the objective space; colour is the method, shape is λ, lower left is "
        "better. The reference front "
        "joins SFT alone, ALRIGHT by rising λ, and DPO alone. Right: bars by (T_DPO, T_SFT), the phase lengths "
        "of the matching "
        f"Sequential run in {unit}, and λ, the weight of DPO; whiskers are the sd over seeds; increases are "
        f"against Sequential (0)."
    )


def _problems(results: Results, where: Where) -> Section:
    rows = []
    for problem in results.problems:
        link = where.file(problem.job, "log.txt") if problem.state == "failed" else ""
        rows.append(Row((Cell(problem.job, link=link), Cell(problem.state), Cell(problem.message))))
    columns = tuple(Column(title, numeric=False) for title in ("Job", "State", "Message"))
    table = Table("Planned jobs without a result", columns, tuple(rows)) if rows else None
    return Section("missing", "Missing and failed jobs", _blocks(table))


def _settings(results: Results) -> Section:
    text = Code(runs.as_yaml(trained.as_read(results.suite)), "yaml")
    return Section("settings", "Settings", (Text("The suite's resolved settings."), text))
