"""Put a suite's report together: banner, verdict, leaderboard, tables, figure, every run, what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.records import row_counts
from report.analysis.findings import Findings
from report.analysis.load import BROKEN, Results
from report.analysis.tables import Tables
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
from report.page.panels import SPLIT_NAMES
from report.page.runs import Log
from report.page.verdict import Verdict
from report.page.where import Where
from report.render.document import Block, Cell, Code, Column, Details, Report, Row, Section, Table, Text

SMOKE = (
    "Smoke run with a random tiny model: it shows that the suite runs and measures nothing. No figure below "
    "means anything."
)


def tell(tables: Findings, verdict: Verdict, folder: Path, log: Log) -> Report:
    """Tell a suite's story; pictures go to `folder`/figures, links lead from there to the records.

    Args:
        log: the choices of every run, by job id.
    """
    results = tables.results
    produced = results.record.info.get("produced", {})
    commit = str(produced.get("commit") or "")
    return Report(
        name=results.name,
        description=_description(results),
        smoke=results.smoke,
        banners=tuple(banners(tables)),
        headline=verdict.headline,
        sentences=verdict.sentences,
        key_figures=() if results.smoke else verdict.key_figures,
        sections=tuple(section for section in _sections(tables, verdict, folder, log) if section.blocks),
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


def _sections(tables: Findings, verdict: Verdict, folder: Path, log: Log) -> list[Section]:
    results, where, pictures = tables.results, Where(tables.results.record, folder), folder / "figures"
    if not tables.recipes:
        return [_problems(results, where), _settings(results)]
    drawn = charts.tradeoff(tables, pictures)
    rivals = [rival.other for rival in (verdict.sequential, verdict.runner_up) if rival is not None]
    compared = [recipe for recipe in (verdict.best, *rivals[:1]) if recipe is not None]
    scores = (
        present.table_one(tables),
        score_charts.scores(tables, pictures),
        score_charts.subjects(tables, pictures, compared),
    )
    costs = cost_charts.cost_against_quality(tables, pictures), present.cost(tables)
    forgotten = (
        present.forgetting(tables),
        present_statistics.forgetting_scores(tables),
        cost_charts.learned_against_kept(tables, pictures),
        present.learned_against_kept(tables),
    )
    return [
        Section("leaderboard", "Leaderboard", _blocks(*_leaderboard(tables))),
        Section(
            "tradeoff",
            "Trade-off",
            _blocks(
                _reading(tables) if drawn else None, drawn, present_statistics.fronts(tables), present.optima(tables)
            ),
        ),
        Section("scores", "Scores", _blocks(*scores)),
        Section("judges", "Judges", judging.blocks(tables, where)),
        Section("cost", "Cost", _blocks(*costs)),
        Section(
            "max-evaluation", "How often MAXRIGHT must look", _blocks(cost_charts.max_evaluation(tables, pictures))
        ),
        Section("forgetting", "Forgetting", _blocks(*forgotten)),
        Section(
            "choices", "Choices", _blocks(present_statistics.choices(tables), *examples.strips(tables, log, where))
        ),
        Section("answers", "Answers", examples.side_by_side(tables, verdict, where)),
        Section("splits", "Objective values on both splits", _blocks(present.both_splits(tables))),
        Section("published", "Beside the published figures", published.blocks(tables)),
        Section("runs", "Every run", runs.every_run(tables, where, log)),
        _problems(results, where),
        _settings(results),
    ]


def _leaderboard(tables: Findings) -> tuple[Block | None, ...]:
    verdicts = present_statistics.verdicts(tables)
    return _how(tables), present.leaderboard(tables), verdicts, present.best_seen(tables)


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
    return Section("settings", "Settings", (Details("The suite's resolved settings", (text,)),))
