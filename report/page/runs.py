"""Show every run: its figures with the files behind them, its choices, and what it was made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, TypeAlias

import yaml

from bench.records import row_counts
from bench.records.record import Job
from report.analysis import completions
from report.analysis.choices import Choices
from report.analysis.load import Measured, Results, Run, missing
from report.analysis.metrics import SIGNED
from report.analysis.tables import RecipeResults, Tables
from report.page import trained
from report.page.where import Where
from report.render.document import LONG, Block, Cell, Code, Column, Details, Group, Row, Strip, Strips, Table, Text
from report.render.shown import Shown, shown

RUN_FIGURES = ("gap_dpo", "gap_sft", "ideal_distance")
Log = dict[str, "Choices | None"]


def every_run(tables: Tables, where: Where, log: Log) -> tuple[Block, ...]:
    """Return what all runs share, a group per recipe, and one each for what stands behind them and the base model.

    Args:
        log: the choices of every run, by job id.
    """
    results = tables.results
    by_id = {run.id: run for run in results.trained}
    common = _common([run for run in by_id.values() if run.trains])
    made_with = provenance(results, where)
    blocks: list[Block] = [made_with] if made_with is not None else []
    if common and made_with is not None:
        blocks.append(Details("Settings and environment shared by all training jobs", (Code(as_yaml(common), "yaml"),)))
    behind = [run for run in by_id.values() if "run" not in run.roles]
    if len(results.runs) > LONG:
        blocks.append(_all_runs(tables, by_id, behind, common, where, log))
        behind = []
    else:
        blocks += [_run_group(tables, recipe, by_id, common, where, log) for recipe in tables.recipes]
    if behind:
        folded = tuple(_run_details(results, run, common, where) for run in behind)
        blocks.append(Group("Optima and reference", "runs-behind", folded))
    base = results.evaluation_jobs("base")
    if base:
        blocks.append(Group("Base model", "runs-base", (_evaluations(base, where),)))
    return tuple(blocks)


# ---- what all share --------------------------------------------------------------------------------------------------


def provenance(results: Results, where: Where) -> Table | None:
    """Return what the figures were made with: model, data hashes, judge, questions, versions, commit and hardware."""
    runs = results.runs
    if not runs:
        return None
    jobs = [run.job for run in runs]
    environments = [job.spec["environment"] for job in jobs]
    packages = [environment.get("packages", {}) for environment in environments]
    facts: list[tuple[str, Iterable[str]]] = [
        ("Base model", [f"{base_name(results)}: {_words(job.spec['settings'].get('model'))}" for job in jobs]),
        ("Trained", [trained.what(job.spec["settings"]) for job in jobs if job.kind == "train"] or ["–"]),
        *(
            (f"Data: {name} rows", [str((job.spec.get("data") or {}).get(name, "–")) for job in jobs])
            for name in dict.fromkeys(name for job in jobs for name in job.spec.get("data") or {})
        ),
        *_rows(results),
        *_evaluators(results),
        ("Versions", (", ".join(f"{name} {version}" for name, version in one.items()) for one in packages)),
        ("Python", (str(environment.get("python", "–")) for environment in environments)),
        ("Commit", (str(environment.get("commit") or "not in a git checkout") for environment in environments)),
        ("Hardware", (_hardware(environment) for environment in environments)),
    ]
    resumed = trained.resumed(job.status for job in jobs)
    facts += [("Resumed", [resumed])] if resumed else []
    rows = []
    for name, found in facts:
        values = list(dict.fromkeys(found))
        text = values[0] if len(values) == 1 else " / ".join(values[:3]) + (" / …" if len(values) > 3 else "")
        note = "" if len(values) == 1 else f"differs between runs: {len(values)} kinds"
        rows.append(Row((Cell(name, link=where.file(runs[0].id, "spec.json")), Cell(text, note=note))))
    columns = (Column("Made with", numeric=False), Column("", numeric=False, prose=True))
    notes = (
        "A job's spec.json holds all of its settings; a hash names the rows' text, so equal hashes are equal data.",
    )
    return Table("What the runs were made with", columns, tuple(rows), notes)


def device(results: Results) -> str:
    """Name what the runs were trained on: the GPU, or the processor."""
    found = []
    for run in results.runs:
        environment = run.job.spec["environment"]
        gpus = environment.get("hardware", {}).get("gpus") or []
        names = [str(gpu.get("name", "GPU")) if isinstance(gpu, dict) else str(gpu) for gpu in gpus]
        trained_on = str(environment.get("device", "?"))
        found.append(trained_on if trained_on == "cpu" or not names else names[0])
    kinds = list(dict.fromkeys(found))
    return kinds[0].replace("cpu", "CPU") if len(kinds) == 1 else f"{len(kinds)} devices"


def base_name(results: Results) -> str:
    """Name the base model as the suite does; of a folder its own name, not where it lies."""
    model = results.suite.get("model") or {}
    path = str(model.get("path") or f"built-in ({model.get('source')})")
    return PurePath(path).name if model.get("source") == "local" else path


def _rows(results: Results) -> Iterable[tuple[str, Iterable[str]]]:
    """Return how many rows of each set there were, and what became of them."""
    for name in row_counts.SETS:
        found = row_counts.splits(results.data_facts, name)
        if found:
            shape = found[0].get("shape")
            yield (
                f"{name.capitalize()} rows",
                [row_counts.in_words(row_counts.totals(found)) + (f"; {shape}" if shape else "")],
            )


def _evaluators(results: Results) -> Iterable[tuple[str, Iterable[str]]]:
    """Return what the scores were made with, by kind of job."""
    titles = {"lm_eval": "Questions", "judge": "Judge"}
    by_kind: dict[str, list[Job]] = {}
    for job in results.record.jobs.values():
        if job.complete and job.scores and "of" in job.labels:
            by_kind.setdefault(job.kind, []).append(job)
    for kind, jobs in by_kind.items():
        settings = [job.spec["settings"].get("lm_eval") or job.spec["settings"] for job in jobs]
        # A judge's model is its own; any other one is the suite's, which is named above.
        kept = ({name: value for name, value in one.items() if name != "model" or kind == "judge"} for one in settings)
        yield titles.get(kind, kind), map(_words, kept)


def _hardware(environment: dict[str, Any]) -> str:
    hardware = environment.get("hardware", {})
    gpus = hardware.get("gpus") or []
    parts = [f"{hardware.get('cpu', 'unknown processor')}, {hardware.get('cores', '?')} cores"]
    parts.append(", ".join(_words(gpu) for gpu in gpus) if gpus else "no GPU")
    parts.append(f"trained on {environment.get('device', '?')}")
    parts += [
        f"{environment[name]} {name}" for name in ("devices", "workers", "threads") if environment.get(name) is not None
    ]
    return "; ".join(parts)


def _words(value: Any) -> str:
    """Write settings on one line: what is not set is left out."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(one)}" for name, one in value.items() if one is not None) or "–"
    if isinstance(value, list | tuple):
        return " ".join(map(_words, value))
    return "–" if value is None else str(value)


# ---- a recipe's runs -------------------------------------------------------------------------------------------------


def _run_group(
    tables: Tables, recipe: RecipeResults, by_id: dict[str, Run], common: dict[str, Any], where: Where, log: Log
) -> Group:
    runs = [by_id[job] for job in recipe.jobs.values()]
    strips = tuple(_strip(run, log[run.id], where) for run in runs if log.get(run.id) is not None)
    writes = _written(tables, recipe.figures.values())
    rows = tuple(Row(_run_cells(tables, run, recipe.figures[run.seed], writes, where)) for run in runs)
    blocks: list[Block] = [Table("", _run_columns(writes), rows)]
    if strips:
        blocks.append(Details("Step schedule: which objective each step took", (Strips("", strips),)))
    blocks += [Text(f"{run.id} {run.ending}.", "note") for run in runs if run.ending]
    details = [_run_details(tables.results, run, common, where) for run in runs]
    return Group(recipe.name, recipe.anchor, (*blocks, *details))


def _strip(run: Run, choices: Choices | None, where: Where) -> Strip:
    assert choices is not None
    return Strip(f"seed {run.seed}", choices.bins, choices.words, where.file(run.id, "steps.jsonl"))


def _all_runs(
    tables: Tables, by_id: dict[str, Run], behind: list[Run], common: dict[str, Any], where: Where, log: Log
) -> Details:
    """Return all runs in one long table: what a group per recipe says of few runs, a row says of each of many."""
    named = [
        (recipe.name, recipe.anchor, recipe, [by_id[job] for job in recipe.jobs.values()]) for recipe in tables.recipes
    ]
    figures = {run.id: recipe.figures[run.seed] for _, _, recipe, runs in named for run in runs}
    figures |= {run.id: tables.figures(run) for run in behind}
    writes = _written(tables, figures.values())
    rows = []

    def add(name: str, run: Run, anchor: str, tags: tuple[tuple[str, str], ...]) -> None:
        cells = (Cell(name), *_run_cells(tables, run, figures[run.id], writes, where))
        facts = _run_facts(tables.results, run, common)
        choices = log.get(run.id)
        facts |= {"steps": choices.words} if choices is not None else {}
        rows.append(Row(cells, "" if tags else "context", tags, anchor, as_yaml(facts)))

    for name, anchor, recipe, runs in named:
        lambda_dpo = "no λ" if recipe.lambda_dpo is None else f"{recipe.lambda_dpo:g}"
        for place, run in enumerate(runs):
            tags = (("method", recipe.method), ("λ", lambda_dpo), ("seed", str(run.seed)))
            add(name, run, "" if place else anchor, tags)
    for place, run in enumerate(behind):
        add(_role(run), run, "" if place else "runs-behind", ())
    columns = (Column("Recipe", numeric=False), *_run_columns(writes))
    note = "A row opens with its settings, inputs, environment, measurements and scores."
    title = f"{len(rows):,} runs: figures, files and settings"
    return Details(title, (Table("Every run", columns, tuple(rows), (note,), sortable=True),), page_only=True)


def _role(run: Run) -> str:
    """Name what is trained behind the runs."""
    alone = [role.removeprefix("optimum_").upper() for role in run.roles if role.startswith("optimum_")]
    return (
        f"{alone[0]} alone (f*)" if alone else "reference (π_ref)" if "reference" in run.roles else ", ".join(run.roles)
    )


Written: TypeAlias = "dict[str, Shown]"


def _written(tables: Tables, figures: Iterable[Mapping[str, Measured]]) -> Written:
    """Choose how the figures of some runs are written."""
    objectives = [f"f_{name}/{tables.results.split}" for name in ("dpo", "sft")]
    names = (*objectives, *RUN_FIGURES, *tables.scores, "training_seconds")
    found = list(figures)
    return {name: shown(tables.metric(name), [one[name].compared for one in found if name in one]) for name in names}


def _run_columns(writes: Written) -> tuple[Column, ...]:
    figures = (Column(one.title) for one in writes.values())
    return Column("Seed"), Column("Job", numeric=False), *figures, Column("Answers", numeric=False)


def _run_cells(
    tables: Tables, run: Run, figures: Mapping[str, Measured], writes: Written, where: Where
) -> tuple[Cell, ...]:
    cells = [Cell(str(run.seed)), Cell(run.id, link=where.file(run.id, "spec.json"))]
    for name, one in writes.items():
        figure, link = figures.get(name, missing("not evaluated")), where.behind(tables.results, run, name)
        if figure.compared != figure.compared:
            cells.append(Cell("missing", link=link, note=figure.reason, missing=True))
        else:
            cells.append(Cell(one.text(figure.compared, name in SIGNED), link=link))
    generation = completions.generation_of(tables.results, run.id)
    answers = where.file(generation, "samples.jsonl") if generation else ""
    return (*cells, Cell("samples" if generation else "–", link=answers))


def _run_details(results: Results, run: Run, common: dict[str, Any], where: Where) -> Details:
    blocks = (_files(run.job, where), Code(as_yaml(_run_facts(results, run, common)), "yaml"))
    return Details(f"{run.id}: settings, inputs, data, environment, measurements", blocks)


def _run_facts(results: Results, run: Run, common: dict[str, Any]) -> dict[str, Any]:
    """Return what a run was made of and what came of it, but for what all runs share."""
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
            job.id: {name: _figure_words(entry) for name, entry in job.scores.items() if job.metric(name).name == name}
            for job in results.evaluation_jobs(run.id)
        },
        "finished": run.job.status.get("finished"),
    }
    return {name: value for name, value in facts.items() if value not in (None, {}, [])}


def _files(job: Job, where: Where) -> Table:
    """Link every file of a job."""
    names = sorted(path.name for path in job.path.iterdir() if path.is_file() and not path.name.startswith("."))
    rows = tuple(Row((Cell(name, link=where.file(job.id, name)),)) for name in names)
    return Table("", (Column("Files", numeric=False),), rows)


def _evaluations(jobs: list[Job], where: Where) -> Table:
    rows = []
    for job in jobs:
        for name, entry in job.scores.items():
            if job.metric(name).name == name:
                cells = (
                    Cell(job.id, link=where.file(job.id, "spec.json")),
                    Cell(name),
                    Cell(_figure_words(entry), link=where.file(job.id, "scores.json")),
                )
                rows.append(Row(cells))
    columns = tuple(Column(title, numeric=False) for title in ("Job", "Score", "Value"))
    return Table("", columns, tuple(rows))


def _figure_words(entry: dict[str, Any]) -> str:
    """Write an entry of measurements.json or scores.json on one line."""
    value = entry.get("value")
    if value is None:
        return f"missing: {entry.get('reason') or 'no reason on record'}"
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


def as_yaml(value: Any) -> str:
    """Write plain values as YAML; libyaml's writer is many times as fast as the one in Python."""
    # Through JSON, so that what YAML cannot say plainly (tuples, aliases to shared lists) is written out.
    plain = json.loads(json.dumps(value, default=str))
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(plain, Dumper=dumper, sort_keys=False, allow_unicode=True, width=100)).rstrip()
