"""Say what a report says to machines: report.json by the schema beside this file, and runs.parquet, a row a run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.records.metrics import Metric, describe
from bench.records.safe_files import replacing
from report.analysis import fronts
from report.analysis.choices import Choices
from report.analysis.findings import Findings
from report.analysis.kept import Summary
from report.analysis.load import Results, Run
from report.analysis.statistics import Estimate
from report.analysis.tables import RecipeResults, Tables
from report.page import judging_json, published
from report.page.verdict import Verdict
from report.render.document import FirstScreen, Standing

JSON_SCHEMA = 1
SCHEMA_FILE = Path(__file__).parent / "schema" / "report.schema.json"


def as_json(tables: Findings, verdict: Verdict, screen: FirstScreen) -> dict[str, Any]:
    """Return a suite's report for machines; units are in the names or those of the records, null is not measured."""
    results = tables.results
    content = {
        "schema": JSON_SCHEMA,
        "suite": results.name,
        "smoke": results.smoke,
        "evaluation_split": results.split,
        "utilization": tables.utilization,
        "cost_source": results.cost_source,
        "produced": results.record.info.get("produced", {}),
        "recommendation": _recommendation(screen),
        "verdict": verdict.as_json(),
        "metrics": _metrics(tables),
        "recipes": [{"rank": tables.ranking.rank(recipe)} | _recipe(recipe) for recipe in tables.ranked],
        "context": [_recipe(recipe) for recipe in tables.context],
        "learned_against_kept": [_summary(one) for one in tables.kept],
        "forgetting": tables.forgetting.to_dict("records"),
        "forgetting_scores": tables.forgetting_scores.to_dict("records"),
        "against_sequential": tables.against_sequential.to_dict("records"),
        "fronts": fronts.frame(tables).to_dict("records"),
        "dominance": tables.dominance.to_dict("records"),
        **judging_json.as_json(tables.panel),
        "published": published.as_json(tables),
        "not_comparable": list(tables.comparable.warnings),
        "problems": [vars(problem) for problem in results.problems],
    }
    cleaned: dict[str, Any] = clean(content)
    return cleaned


def _recommendation(screen: FirstScreen) -> dict[str, Any]:
    """Say what the first screen says: by goal what to use, how sure that is, beside what, and what it loses."""
    goals = []
    for goal in screen.goals:
        entry: dict[str, Any] = {
            "goal": goal.name,
            "means": goal.words,
            "choose": goal.text or None,
            "unavailable": goal.why_not or None,
        }
        if not goal.why_not:
            names = [one.name for one in goal.holders]
            entry |= {
                "recommended": goal.recipe if goal.clear else None,
                "leads": None if goal.clear else goal.recipe or None,
                "how": goal.how or None,
                "confidence": goal.confidence,
                "overturn": goal.overturn,
                "caveat": goal.caveat,
                "equal_tokens": goal.budget or None,
                "table": [
                    {
                        "figure": row.title,
                        "unit": row.unit,
                        "better": "lower" if "lower is better" in row.better else "higher",
                    }
                    | {"values": {name: _standing(cell) for name, cell in zip(names, row.cells, strict=True)}}
                    for row in goal.rows
                ],
            }
        goals.append(entry)
    return {"default": screen.default or None, "state": screen.state, "goals": goals, "words": dict(screen.words)}


def _standing(cell: Standing) -> dict[str, Any]:
    found = {"text": cell.text, "interval": cell.spread or None, "against_recommended": cell.word or None}
    return found | ({"reason": cell.note} if cell.note else {})


def _metrics(tables: Findings) -> dict[str, Any]:
    """Describe every figure that a recipe has; means, sds and intervals of a log metric are of its logarithm."""
    names = dict.fromkeys(
        name for recipe in (*tables.recipes, *tables.context) for figures in recipe.figures.values() for name in figures
    )
    return describe(replace(tables.metric(name), name=name) for name in names)


def _recipe(recipe: RecipeResults) -> dict[str, Any]:
    names = dict.fromkeys(name for figures in recipe.figures.values() for name in figures)
    figures = {}
    for name in names:
        one = recipe.estimate(name)
        entry: dict[str, Any] = {"mean": one.mean, "sd": one.sd, "low": one.low, "high": one.high, "n": one.n}
        if one.n == 0:
            entry["reason"] = recipe.reason(name)
        if recipe.shared(name):
            entry["shared_machine"] = True
        figures[name] = entry | {"by_seed": {str(seed): value for seed, value in recipe.values(name).items()}}
    identity = {"method": recipe.method, "base_method": recipe.base_method, "lambda_dpo": recipe.lambda_dpo}
    return identity | {"jobs": {str(seed): job for seed, job in recipe.jobs.items()}, "figures": figures}


def _summary(one: Summary) -> dict[str, Any]:
    """Say what a recipe learned (shares) and kept (changes of scores, in the score's own unit)."""

    def written(value: Estimate) -> dict[str, Any]:
        return {"mean": value.mean, "sd": value.sd, "low": value.low, "high": value.high, "n": value.n}

    return {
        "method": one.recipe.method,
        "lambda_dpo": one.recipe.lambda_dpo,
        "learned": written(one.learned),
        "kept": written(one.kept),
        "base_kl": written(one.moved),
        "against_base": {name: written(value) for name, value in one.changes.items()},
        "against_first_alone": {name: written(value) for name, value in one.after_first.items()},
    }


def clean(value: Any) -> Any:
    """Turn what is not measured (NaN) into null, and what pandas made of numbers back into numbers."""
    if isinstance(value, dict):
        return {str(name): clean(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [clean(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- a row a run -----------------------------------------------------------------------------------------------------


_UNITS = {"s": "seconds", "B": "bytes", "J": "joules", "%": "percent"}


def column(metric: Metric) -> str:
    """Name a figure as a column of runs.parquet: letters, digits and underscores, with its unit at the end."""
    unit = _UNITS.get(metric.unit, metric.unit)
    task, _, rest = metric.name.partition("/")
    name = _plain(f"{task}_accuracy" if rest == "acc" else metric.name)
    return name if not unit or unit in name.split("_") else f"{name}_{_plain(unit)}"


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def write_runs(path: Path, tables: Tables, log: dict[str, Choices | None]) -> None:
    """Write runs.parquet: who a run is, what it was made with, every figure (null: not measured), and why figures miss.

    Args:
        log: the choices of every run, by job id.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    by_id = {run.id: run for run in tables.results.runs}
    rows = []
    for recipe in tables.recipes:
        for seed, job in recipe.jobs.items():
            figures = recipe.figures[seed]
            columns = {name: column(tables.metric(name)) for name in figures}
            reasons = {columns[name]: one.reason for name, one in figures.items() if one.value is None}
            row = _identity(tables.results, by_id[job]) | _choices(log.get(job))
            row |= {columns[name]: one.value for name, one in figures.items()}
            rows.append(row | {"missing_reasons_json": json.dumps(reasons, ensure_ascii=False)})
    names = dict.fromkeys(name for row in rows for name in row)
    by_column = {name: [row.get(name) for row in rows] for name in names}
    # A figure that no run has is a column of numbers all the same.
    kinds = {name: pa.float64() if all(one is None for one in values) else None for name, values in by_column.items()}
    table = pa.table({name: pa.array(values, type=kinds[name]) for name, values in by_column.items()})
    with replacing(path) as file:
        pq.write_table(table, file)


def _identity(results: Results, run: Run) -> dict[str, Any]:
    spec, environment = run.job.spec, run.job.spec["environment"]
    return {
        "suite": results.name,
        "job": run.id,
        "method": run.method,
        "base_method": run.base_method,
        "lambda_dpo": None if math.isnan(run.lambda_dpo) else run.lambda_dpo,
        "seed": run.seed,
        "smoke": results.smoke,
        "data_json": json.dumps(spec.get("data") or {}, sort_keys=True),
        "settings_json": json.dumps(spec["settings"], sort_keys=True),
        "hardware_json": json.dumps(environment.get("hardware", {}), sort_keys=True),
        "device": str(environment.get("device", "")),
        "commit": str(environment.get("commit") or ""),
        "finished": str(run.job.status.get("finished", "")),
    }


def _choices(choices: Choices | None) -> dict[str, Any]:
    if choices is None:
        return {"dpo_steps": None, "sft_steps": None, "negative_gaps_share": None}
    share = choices.negative_share
    return {
        "dpo_steps": choices.taken["dpo"],
        "sft_steps": choices.taken["sft"],
        "negative_gaps_share": None if math.isnan(share) else share,
    }
