"""Tell a toy suite's story: where each method ends, what held it back, and whether the theorems' rates are seen."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from report.analysis.toy import Mean, ToyResults, ToyRun, slope
from report.page import first_screen
from report.page.runs import as_yaml
from report.page.where import Where
from report.render.document import (
    Block,
    Cell,
    Code,
    Column,
    Details,
    Figure,
    FirstScreen,
    Report,
    Row,
    Section,
    Table,
    Text,
)
from report.render.numbers import MISSING, number
from report.render.sentences import many
from report.toy import charts
from report.toy.charts import short
from report.toy.words import SHOWN, headline, sentences

TOGETHER = (
    "Above each path from the start to where the run ends, below the ends closer up; the star is the ideal point."
)
SMOKE = (
    "Smoke run cut to a few steps: it shows that the suite runs and measures nothing. No figure below means anything."
)


def tell(results: ToyResults, folder: Path) -> Report:
    """Tell a toy suite's story; pictures go to `folder`/figures, links lead from there to the records."""
    suite, produced = results.suite, results.record.info.get("produced", {})
    paths = charts.figure_2(results, folder / "figures") if results.runs else None
    gaps = charts.gap_figure(results, folder / "figures") if results.runs else None
    commit = str(produced.get("commit") or "")
    parts = (f"bench {produced.get('version', '')}", commit and f"commit {commit}", produced.get("time"))
    return Report(
        name=results.record.name,
        description=str(suite.get("description") or ""),
        smoke=results.smoke,
        banners=tuple(_banners(results)),
        screen=_screen(results, paths, gaps),
        sections=tuple(section for section in _sections(results, folder, paths, gaps) if section.blocks),
        notes=tuple(str(note) for note in results.suite.get("notes") or ()),
        footer=" · ".join(str(part) for part in parts if part),
        links=(("Markdown", "report.md"), ("JSON", "report.json"), *Where(results.record, folder).archive),
    )


def _banners(results: ToyResults) -> list[Text]:
    found = [Text(SMOKE, "warning")] if results.smoke else []
    found += [Text(results.record.note, "warning")] if results.record.note else []
    if results.problems:
        planned = len(results.record.info["jobs"])
        found.append(
            Text(f"Partial results: {len(results.problems)} of {planned} planned jobs are not complete.", "warning")
        )
    return found


def _screen(results: ToyResults, paths: Figure | None, gaps: Figure | None) -> FirstScreen:
    """Return what came out, the picture of all methods together, and how near each came; a toy recommends nothing."""
    figure = gaps or paths
    facts = "toy problem", many(len(results.series), "method"), first_screen.made_on(results)
    return FirstScreen(
        facts=tuple(filter(None, facts)),
        state=first_screen.state(results),
        complete=not results.problems,
        goals=(),
        heading=headline(results),
        sentences=tuple(sentences(results)),
        figure=figure and replace(figure, side=(), caption=gaps.caption if gaps else TOGETHER),
        top=_nearest(results) if results.runs and not results.smoke else None,
        all_of="where the methods end",
        all_in="ends",
    )


def _nearest(results: ToyResults) -> Table:
    """Return the methods of the longest runs, the nearest to what is best first."""
    by_gap = len(results.horizons) > 1
    rows = [(run.gap if by_gap else run.distance, run) for run in results.longest]
    rows.sort(key=lambda row: row[0].value)
    columns = (Column("Method", numeric=False), Column("Gap (nats)" if by_gap else "Ideal distance (nats)"))
    title = f"Gap at T = {results.horizons[-1]:,}" if by_gap else "Nearest to the ideal point"
    return Table(title, columns, tuple(Row((Cell(run.name), _mean(mean))) for mean, run in rows))


# ---- the sections ----------------------------------------------------------------------------------------------------


def _sections(results: ToyResults, folder: Path, paths: Figure | None, gaps: Figure | None) -> list[Section]:
    if not results.runs:
        return [_problems(results), _settings(results)]
    reading = Text(
        "Each panel is a method: above its path in weight space over the contours of f_DPO (blue, dashed) and f_SFT (orange), "
        "below the same path in objective space. The star is the ideal point, where both objectives are at their optimum."
    )
    about_t = Text(
        "The gap is λ f_DPO + (1 − λ) f_SFT where a run ends, less the least value that any parameters reach. Points are means "
        "over seeds with two standard errors. Sequential takes "
        + (
            "T steps on each objective, the others T in all."
            if results.suite["training"]["phase"] == "full"
            else "half of T on each objective."
        )
    )
    return [
        Section(
            "figure-2", "Figure 2: weight space and objective space", _blocks(reading if paths else None, _rest(paths))
        ),
        Section(
            "gap",
            "The gap against T",
            _blocks(about_t if gaps else None, _rest(gaps), _gap_table(results) if gaps else None),
        ),
        Section("bound", "Theorem 4.1's bound", tuple(_bound_table(results, name) for name in results.bounds)),
        Section("ends", "Where the methods end", (_ends_table(results, Where(results.record, folder)),)),
        Section("forgetting", "What Sequential's second phase does", _blocks(_forgetting_table(results))),
        _problems(results),
        _settings(results),
    ]


def _rest(figure: Figure | None) -> Figure | None:
    """Leave out what the first screen shows, if more is there."""
    return replace(figure, main=()) if figure and figure.side else figure


def _blocks(*blocks: Block | None) -> tuple[Block, ...]:
    return tuple(block for block in blocks if block is not None)


def _mean(value: Mean) -> Cell:
    note = "" if math.isnan(value.error) else f"± {short(value.error)} (s.e., {value.n} seeds)"
    return Cell(short(value.value), note=note)


def _gap_table(results: ToyResults) -> Table:
    rows = []
    for name, runs in results.series.items():
        by_steps = {run.steps: run for run in runs}
        cells = [_mean(by_steps[steps].gap) if steps in by_steps else Cell(MISSING) for steps in results.horizons]
        rows.append(Row((Cell(name), *cells)))
    columns = (Column("Method", numeric=False), *(Column(f"T = {steps:,}") for steps in results.horizons))
    return Table("Gap to the best mixture (nats)", columns, tuple(rows))


def _bound_table(results: ToyResults, name: str) -> Table:
    pairs = results.bounds[name]
    rows = [
        Row((Cell(f"{run.steps:,}"), _mean(run.gap), Cell(short(most)), Cell(short(run.gap.value / most))))
        for run, most in pairs
    ]
    steps = [run.steps for run, _ in pairs]
    slopes = (
        ("measured", [run.gap.value for run, _ in pairs]),
        ("bound", [most for _, most in pairs]),
        ("log T / √T", [math.log(one) / math.sqrt(one) for one in steps]),
    )
    told = ", ".join(f"{words} {number(slope(steps, values), 2)}" for words, values in slopes)
    columns = (Column("T"), Column("E[G], measured"), Column("corrected bound"), Column("measured / bound"))
    notes = (
        f"Slopes on log-log axes, least squares over all T: {told}.",
        "The bound is Eq. 51 with its first term as Eq. 54 gives it and with M_λ² = λ M_1² + (1 − λ) M_2². A run takes T steps, "
        "Algorithm 2 as printed T − 1.",
    )
    return Table(f"{name}: mean gap under the bound (nats)", columns, tuple(rows), notes)


def _ends_table(results: ToyResults, where: Where) -> Table:
    nearest = min(run.distance.value for run in results.longest) if len(results.horizons) == 1 else -1.0
    rows = []
    for run in results.runs:
        theta = run.samples[0]["theta"]
        cells = (
            Cell(run.name, link=where.file(run.job.id, "spec.json")),
            Cell(f"{run.steps:,}"),
            Cell(f"({', '.join(number(entry, 3) for entry in theta)})"),
            _mean(run.objective("f_dpo")),
            _mean(run.objective("f_sft")),
            _mean(run.distance),
            Cell(number(run.taken("dpo"), 0)),
            Cell(number(run.taken("sft"), 0)),
        )
        rows.append(Row(cells, "best" if run.distance.value == nearest else ""))
    columns = (
        Column("Method", numeric=False),
        Column("T"),
        Column("θ, first seed"),
        Column("f_DPO (nats)"),
        Column("f_SFT (nats)"),
        Column("Ideal distance (nats)"),
        Column("DPO steps"),
        Column("SFT steps"),
    )
    ideal, first = results.runs[0].ideal, results.runs[0]
    reference = ", ".join(number(entry, 3) for entry in first.pair.theta_ref)
    notes = (
        f"θ_ref = ({reference}); the ideal point is ({ideal[0]:g}, {ideal[1]:g}). A step of Mix descends both objectives.",
    )
    return Table("", columns, tuple(rows), notes)


def _forgetting_table(results: ToyResults) -> Table | None:
    rows = []
    for run in results.runs:
        change = run.at_phase_change()
        if change is None:
            continue
        points = (run.path[0], change, run.path[-1])
        values = [Cell(short(row[f"f_{name}"])) for row in points for name, _ in run.phases]
        rows.append(Row((Cell(run.name), Cell(f"{run.steps:,}"), *values)))
    if not rows:
        return None
    phases = next(run.phases for run in results.runs if run.phases)
    groups = ("at the start", f"after {SHOWN[phases[0][0]]}", f"after {SHOWN[phases[1][0]]}")
    columns = (
        Column("Method", numeric=False),
        Column("T"),
        *(Column(f"f_{SHOWN[name]}", group=group) for group in groups for name, _ in phases),
    )
    return Table("Objectives between the phases (nats)", columns, tuple(rows))


def _problems(results: ToyResults) -> Section:
    rows = tuple(Row((Cell(one.job), Cell(one.state), Cell(one.message))) for one in results.problems)
    columns = tuple(Column(title, numeric=False) for title in ("Job", "State", "Message"))
    return Section(
        "missing", "Missing and failed jobs", (Table("Planned jobs without a result", columns, rows),) if rows else ()
    )


def _settings(results: ToyResults) -> Section:
    text = as_yaml(results.suite)
    return Section("settings", "Settings", (Details("The suite's resolved settings", (Code(text, "yaml"),)),))


# ---- for machines ----------------------------------------------------------------------------------------------------


def as_json(results: ToyResults) -> dict[str, Any]:
    """Return the report for machines; null is what does not apply."""
    return {
        "schema": 1,
        "suite": results.record.name,
        "toy": True,
        "smoke": results.smoke,
        "produced": results.record.info.get("produced", {}),
        "verdict": {"headline": headline(results), "sentences": sentences(results)},
        "gradients_inner_product": results.inner_product if results.runs else None,
        "runs": [_run_json(run) for run in results.runs],
        "theorem_4_1": {
            name: [{"steps": run.steps, "gap": run.gap.value, "bound": most} for run, most in pairs]
            for name, pairs in results.bounds.items()
        },
        "problems": [vars(problem) for problem in results.problems],
    }


def _run_json(run: ToyRun) -> dict[str, Any]:
    figures = {
        "f_dpo": run.objective("f_dpo"),
        "f_sft": run.objective("f_sft"),
        "ideal_distance": run.distance,
        "gap": run.gap,
    }
    return {
        "job": run.job.id,
        "method": run.method,
        "base_method": run.base_method,
        "lambda_dpo": run.lambda_dpo,
        "steps": run.steps,
        "theta": list(run.samples[0]["theta"]),
        "theta_ref": list(run.pair.theta_ref),
        "steps_taken": {name: run.taken(name) for name in SHOWN},
        "figures": {
            name: {"mean": one.value, "standard_error": None if math.isnan(one.error) else one.error, "n": one.n}
            for name, one in figures.items()
        },
    }
