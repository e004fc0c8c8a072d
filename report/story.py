"""Put a suite's report together: banner, verdict, leaderboard, tables, figure, every run, what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from report import figures, judging, present, published
from report.document import Block, Cell, Code, Column, Details, Group, Report, Row, Section, Table, Text
from report.load import Results, Run
from report.numbers import number, series_digits
from report.panels import SPLIT_NAMES
from report.tables import Recipe, Tables
from report.verdict import Verdict

SMOKE = (
    "Smoke run with a random tiny model: it shows that the suite runs and measures nothing. No figure below "
    "means anything."
)
RUN_FIGURES = ("gap_dpo", "gap_sft", "ideal_distance")


def tell(tables: Tables, verdict: Verdict, folder: Path, linked: bool) -> Report:
    """Tell a suite's story; pictures go to `folder`/figures.

    Args:
        linked: whether the job folders lie beside the report, so that links to them work.
    """
    results = tables.results
    produced = results.record.info.get("produced", {})
    commit = str(produced.get("commit") or "")
    return Report(
        name=results.name,
        description=str(results.suite.get("description") or ""),
        smoke=results.smoke,
        banners=tuple(_banners(results)),
        headline=verdict.headline,
        sentences=verdict.sentences,
        key_figures=() if results.smoke else verdict.key_figures,
        sections=tuple(section for section in _sections(tables, folder, linked) if section.blocks),
        footer=" · ".join(
            part
            for part in (f"bench {produced.get('version', '')}", commit and f"commit {commit}", produced.get("time"))
            if part
        ),
        links=(("Markdown", "report.md"), ("JSON", "report.json")),
    )


def _banners(results: Results) -> list[Text]:
    found = [Text(SMOKE, "warning")] if results.smoke else []
    problems = results.problems
    if problems:
        failed = sum(problem.state == "failed" for problem in problems)
        parts = [f"{failed} failed"] if failed else []
        parts += [f"{len(problems) - failed} not finished"] if len(problems) > failed else []
        total = len(results.record.info["jobs"])
        found.append(
            Text(
                f"Partial results: of {total} planned jobs, {' and '.join(parts)}; they are listed at the end.",
                "warning",
            )
        )
    if len({run.conditions for run in results.runs}) > 1:
        found.append(
            Text(
                "Runs were made on different hardware or with different workers: costs compare only within one "
                "of these.",
                "warning",
            )
        )
    return found + [Text(str(note), "note") for note in results.suite.get("notes") or ()]


def _sections(tables: Tables, folder: Path, linked: bool) -> list[Section]:
    results = tables.results
    split = SPLIT_NAMES[results.split]
    seeds = len({run.seed for run in results.runs})
    spread = f"Figures are means ± sd over {seeds} seeds." if seeds > 1 else "One seed: figures have no spread."
    how = (
        f"Gaps and distances are measured on {split}, against f* of the same seed: what training on that "
        f"objective alone reached in as many steps. {spread}{_early(results)}"
    )
    drawn = figures.tradeoff(tables, folder / "figures")
    return [
        Section(
            "leaderboard",
            "Leaderboard",
            _blocks(Text(how), present.leaderboard(tables) if tables.recipes else None, present.best_seen(tables)),
        ),
        Section("scores", "Accuracy and win rate", _blocks(present.table_one(tables), judging.details(results))),
        Section("tradeoff", "Trade-off and cost", _blocks(_reading(tables) if drawn else None, drawn)),
        Section("forgetting", "Forgetting", _blocks(present.forgetting(tables), present.change_against_base(tables))),
        Section("cost", "Cost", _blocks(present.cost(tables) if tables.recipes else None)),
        Section(
            "splits",
            "Objective values on both splits",
            _blocks(present.both_splits(tables) if tables.recipes else None),
        ),
        Section("published", "Beside the published figures", published.blocks(tables)),
        Section("runs", "Every run", _every_run(tables, linked)),
        Section("missing", "Missing and failed jobs", _blocks(_problems(results, linked))),
        Section("settings", "Settings", _settings(results)),
    ]


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


# ---- every run -------------------------------------------------------------------------------------------------------


def _every_run(tables: Tables, linked: bool) -> tuple[Block, ...]:
    """Return a group per recipe with its runs, and one for the jobs that stand behind them all."""
    by_id = {run.id: run for run in tables.results.trained}
    common = _common([run for run in by_id.values() if run.trains])
    blocks: list[Block] = [_run_group(tables, recipe, by_id, common, linked) for recipe in tables.recipes]
    behind = [run for run in by_id.values() if "run" not in run.roles]
    if behind:
        folded = tuple(_run_details(tables.results, run, common, linked) for run in behind)
        blocks.append(Group("Optima and reference", "runs-behind", folded))
    if common and blocks:
        blocks.append(Details("Settings and environment shared by all training jobs", (Code(_yaml(common), "yaml"),)))
    return tuple(blocks)


def _run_group(tables: Tables, recipe: Recipe, by_id: dict[str, Run], common: dict[str, Any], linked: bool) -> Group:
    objectives = [f"f_{name}/{tables.results.split}" for name in ("dpo", "sft")]
    names = (*objectives, *RUN_FIGURES, *tables.scores, "training_seconds")
    shown = [present.spec(name, tables) for name in names]
    factors = [100.0 if one.unit == "share" else 1.0 for one in shown]
    values = {
        name: [value * factor for value in recipe.values(name).values()]
        for name, factor in zip(names, factors, strict=True)
    }
    digits = {name: series_digits(values[name]) for name in names}
    rows = []
    for place, (seed, job) in enumerate(recipe.jobs.items()):
        cells = [Cell(str(seed)), Cell(job, link=f"jobs/{job}/spec.json" if linked else "")]
        for name, one in zip(names, shown, strict=True):
            value = values[name][place]
            if value != value:
                cells.append(Cell("not measured", note=recipe.figures[seed][name].reason, missing=True))
            else:
                cells.append(Cell(number(value, digits[name], one.sign)))
        rows.append(Row(tuple(cells)))
    units = ["%" if one.unit == "share" else one.unit for one in shown]
    columns = (
        Column("Seed"),
        Column("Job", numeric=False),
        *(Column(f"{one.title} ({unit})" if unit else one.title) for one, unit in zip(shown, units, strict=True)),
    )
    details = tuple(_run_details(tables.results, by_id[job], common, linked) for job in recipe.jobs.values())
    ends = (Text(f"{job} {by_id[job].ending}.", "note") for job in recipe.jobs.values() if by_id[job].ending)
    return Group(recipe.name, recipe.anchor, (Table("", columns, tuple(rows)), *ends, *details))


def _run_details(results: Results, run: Run, common: dict[str, Any], linked: bool) -> Details:
    spec = run.job.spec
    facts: dict[str, Any] = {
        "job": run.id,
        "roles": list(run.roles),
        "labels": spec["labels"],
        "inputs": spec["inputs"],
        "first phase from": spec.get("prefix"),
        "end": run.ending or None,
        "data": spec.get("data"),
        "own settings": _differing(spec["settings"], common.get("settings", {})),
        "own environment": _differing(spec["environment"], common.get("environment", {})),
        "measurements": {name: _figure_words(entry) for name, entry in run.job.measurements.items()},
        "scores": {name: _figure_words(entry) for name, entry in run.job.scores.items()},
        "evaluations": {
            job.id: {name: _figure_words(entry) for name, entry in job.scores.items() if name.count("/") < 2}
            for job in results.evaluation_jobs(run.id)
        },
        "finished": run.job.status.get("finished"),
    }
    kept = {name: value for name, value in facts.items() if value not in (None, {}, [])}
    where = f"; files in jobs/{run.id}/" if linked else ""
    return Details(f"{run.id}: settings, inputs, data, environment, measurements{where}", (Code(_yaml(kept), "yaml"),))


def _figure_words(entry: dict[str, Any]) -> str:
    """Word an entry of measurements.json or scores.json on one line."""
    value = entry.get("value")
    if value is None:
        return f"not measured: {entry.get('reason') or 'no reason on record'}"
    skipped = ("value", "unit")
    rest = ", ".join(
        f"{name.replace('_', ' ')} {_plain(other)}"
        for name, other in entry.items()
        if name not in skipped and other is not None
    )
    return f"{_plain(value)} {entry.get('unit') or ''}".strip() + (f" ({rest})" if rest else "")


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _common(runs: list[Run]) -> dict[str, Any]:
    """Return the settings and environment entries that all training jobs share."""
    found = {}
    for part in ("settings", "environment"):
        specs = [run.job.spec[part] for run in runs]
        shared = {
            name: value
            for name, value in (specs[0] if specs else {}).items()
            if all(other.get(name) == value for other in specs)
        }
        if shared:
            found[part] = shared
    return found


def _differing(own: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in own.items() if name not in common or common[name] != value}


# ---- the rest --------------------------------------------------------------------------------------------------------


def _problems(results: Results, linked: bool) -> Table | None:
    if not results.problems:
        return None
    rows = []
    for problem in results.problems:
        link = f"jobs/{problem.job}/log.txt" if linked and problem.state == "failed" else ""
        rows.append(Row((Cell(problem.job, link=link), Cell(problem.state), Cell(problem.message))))
    columns = tuple(Column(title, numeric=False) for title in ("Job", "State", "Message"))
    return Table("Planned jobs without a result", columns, tuple(rows))


def _settings(results: Results) -> tuple[Block, ...]:
    return (Details("The suite's resolved settings", (Code(_yaml(results.suite), "yaml"),)),)


def _yaml(value: Any) -> str:
    # Through JSON, so that what YAML cannot say plainly (tuples, aliases to shared lists) is written out.
    plain = json.loads(json.dumps(value, default=str))
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)).rstrip()
