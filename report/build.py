"""Build the reports of a results folder: HTML, Markdown and JSON per suite, and the page that leads to them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.record import SuiteRecord, find_suites, write_json
from report import html, markdown, published, story, toy_page
from report.document import Cell, Column, Row, Table
from report.load import Results, is_accuracy, is_win_rate
from report.numbers import number, plus_minus, series_digits
from report.tables import Recipe, Tables
from report.toy_load import ToyResults, is_toy
from report.verdict import Verdict

JSON_SCHEMA = 1


@dataclass(frozen=True)
class _Built:
    """Hold a suite after its report was written; a toy suite has no tables and no place on the leaderboard."""

    results: Results
    folder: Path
    headline: str
    tables: Tables | None = None
    verdict: Verdict | None = None


def build(results: Path, out: Path | None = None) -> Path:
    """Write every suite's report.html, report.md, report.json and figures, and index.html.

    Args:
        results: a folder of suites, or one suite's folder.
        out: where reports go; beside the records when left out (then `<suite>/report.html`).

    Returns:
        The path of index.html.

    Raises:
        InputError: the folder is missing, holds no suite, or a record cannot be read.
    """
    built = [
        _suite(record, record.path if out is None else out / record.name, linked=out is None)
        for record in find_suites(results)
    ]
    root = results if out is None else out
    index = root / "index.html"
    _write(index, _index(built, root))
    return index


def _suite(record: SuiteRecord, folder: Path, linked: bool) -> _Built:
    results = Results(record)
    folder.mkdir(parents=True, exist_ok=True)
    if is_toy(record):
        toy = ToyResults(record)
        told, content = toy_page.tell(toy, folder, linked), _clean(toy_page.as_json(toy))
        built = _Built(results, folder, told.headline)
    else:
        tables = Tables(results)
        verdict = Verdict(tables)
        told, content = story.tell(tables, verdict, folder, linked), as_json(tables, verdict)
        built = _Built(results, folder, verdict.headline, tables, verdict)
    _write(folder / "report.html", html.render(told))
    _write(folder / "report.md", markdown.render(told))
    write_json(folder / "report.json", content)
    return built


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


# ---- for machines ----------------------------------------------------------------------------------------------------


def as_json(tables: Tables, verdict: Verdict) -> dict[str, Any]:
    """Return a suite's report for machines; units are in the names or those of the records, null is not measured."""
    results = tables.results
    content = {
        "schema": JSON_SCHEMA,
        "suite": results.name,
        "smoke": results.smoke,
        "evaluation_split": results.split,
        "utilization": tables.utilization,
        "produced": results.record.info.get("produced", {}),
        "verdict": verdict.as_json(),
        "recipes": [_recipe_json(recipe) for recipe in tables.ranked],
        "context": [_recipe_json(recipe) for recipe in tables.context],
        "forgetting": tables.forgetting.to_dict("records"),
        "published": published.as_json(tables),
        "problems": [vars(problem) for problem in results.problems],
    }
    cleaned: dict[str, Any] = _clean(content)
    return cleaned


def _recipe_json(recipe: Recipe) -> dict[str, Any]:
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


def _clean(value: Any) -> Any:
    """Turn what is not measured (NaN) into null, and what pandas made of numbers back into numbers."""
    if isinstance(value, dict):
        return {str(name): _clean(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- the index -------------------------------------------------------------------------------------------------------


def _index(built: list[_Built], root: Path) -> str:
    suites = []
    for one in built:
        undone = len(one.results.problems)
        suites.append(
            {
                "name": one.results.name,
                "href": Path(os.path.relpath(one.folder / "report.html", root)).as_posix(),
                "summary": one.headline,
                "smoke": one.results.smoke,
                "state": f"{undone} of {len(one.results.record.info['jobs'])} jobs not complete" if undone else "",
            }
        )
    return html.render_index(suites=suites, leaderboard=_leaderboard(built, root))


def _leaderboard(built: list[_Built], root: Path) -> Table | None:
    """Return each method's best recipe per suite, ranked inside its suite: distances do not compare across suites."""
    rows = []
    for one in built:
        if one.results.smoke or one.tables is None or one.verdict is None or one.verdict.best is None:
            continue
        href = Path(os.path.relpath(one.folder / "report.html", root)).as_posix()
        firsts: dict[str, Recipe] = {}
        for recipe in one.tables.ranked:
            if recipe.estimate("ideal_distance").n:
                firsts.setdefault(recipe.method, recipe)
        digits = series_digits([recipe.estimate("ideal_distance").mean for recipe in firsts.values()])
        for rank, recipe in enumerate(firsts.values(), 1):
            rows.append(_leaderboard_row(one.tables, recipe, rank, digits, href))
    if not rows:
        return None
    columns = (
        Column("Suite", numeric=False),
        Column("Rank"),
        Column("Method", numeric=False),
        Column("Best λ"),
        Column("Ideal distance (nats)"),
        Column("Accuracy", numeric=False),
        Column("Win rate", numeric=False),
        Column("Runtime (%)", meaning="increase against the matching Sequential run (Eq. 57)"),
        Column("Seeds"),
    )
    notes = (
        "Each method at its best λ, ranked by mean ideal distance inside its suite. Distances compare only "
        "inside one suite, win rates only "
        "under one judge. Smoke runs are left out.",
    )
    return Table("Every method's best recipe, suite by suite", columns, tuple(rows), notes)


def _leaderboard_row(tables: Tables, recipe: Recipe, rank: int, digits: int, href: str) -> Row:
    distance, runtime = recipe.estimate("ideal_distance"), recipe.estimate("runtime_increase_percent")
    link = f"{href}#{recipe.anchor}"

    def scores(names: list[str]) -> str:
        parts = []
        for name in names:
            found = recipe.estimate(name)
            factor = 100.0 if is_accuracy(name) else 1.0
            label = name.removesuffix("/acc").removeprefix("win_rate/")
            parts.append(
                f"{plus_minus(found.mean * factor, found.sd * factor, 1)} % ({label})"
                if found.n
                else f"not measured ({label})"
            )
        return ", ".join(parts) or "not evaluated"

    cells = (
        Cell(tables.results.name, link=href),
        Cell(str(rank)),
        Cell(recipe.method, link=link),
        Cell("–" if recipe.lambda_dpo is None else f"{recipe.lambda_dpo:g}"),
        Cell(plus_minus(distance.mean, distance.sd, digits)),
        Cell(scores([name for name in tables.scores if is_accuracy(name)])),
        Cell(scores([name for name in tables.scores if is_win_rate(name)])),
        Cell(plus_minus(runtime.mean, runtime.sd, 1, sign=True))
        if runtime.n
        else Cell("not measured", note=recipe.reason("runtime_increase_percent"), missing=True),
        Cell(number(float(distance.n), 0)),
    )
    return Row(cells, "best" if rank == 1 else "")
