"""Write docs/reference/ from the code, and the code into docs/guide/: `make reference`, or `python docs/generate.py`.

Keys come from the suite's models and the options of what comes with this package, figures from their `Metric`s, commands
from the command line itself. tests/test_documents.py holds the committed pages against what this file writes.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from bench.collectors import COLLECTORS
from bench.evaluators import EVALUATORS
from bench.judges import JUDGES, JudgeSettings
from bench.methods import METHODS
from bench.recipes import RECIPES
from bench.records.metrics import Metric
from bench.registry import Registry
from bench.settings import Model
from bench.suite.suite import Suite
from bench.suite.toy import ToySuite
from report.analysis.metrics import DERIVED

ROOT = Path(__file__).resolve().parents[1]
FOLDER, GUIDE = ROOT / "docs" / "reference", ROOT / "docs" / "guide"
MARK = "<!-- Written by `make reference` from the code; change it there. -->"


def pages() -> dict[str, str]:
    """Return file name -> text of every page."""
    return {
        "suite.md": suite_page(),
        "toy_suite.md": toy_page(),
        "metrics.md": metrics_page(),
        "commands.md": commands_page(),
    }


def with_code(text: str) -> str:
    """Fill the Python blocks of a page that a comment above them names a file for."""
    block = re.compile(r"(<!-- (\S+\.py) -->\n```python\n).*?(?=```\n)", re.DOTALL)
    return block.sub(lambda found: found[1] + (ROOT / found[2]).read_text(encoding="utf-8"), text)


def write(folder: Path = FOLDER) -> None:
    """Write every page, and the code into those that show some."""
    for page in GUIDE.glob("*.md"):
        page.write_text(with_code(page.read_text(encoding="utf-8")), encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


# ---- keys of a suite -------------------------------------------------------------------------------------------------

SUITE_INTRODUCTION = """\
A suite is a YAML file; [quickstart](../../suites/quickstart.yaml) is the one to read first, and `bench init` writes a commented
one for your own model and data. Unknown and duplicate keys are refused with the nearest known name, and `bench validate` checks a
suite without running it. Any key can be changed for one run: `--set training.steps=20`, `--set methods.3.max_eval_every=5`.
Relative paths start where you run the command. Equations and algorithms are those of arXiv 2410.15483."""

TOY_INTRODUCTION = """\
A suite with the key `problem` runs the same methods on softmax policies of a few parameters, in double precision and with exact
gradients (the paper's Appendices A.2 and D.1). A job holds all seeds of a method at one λ and length. Methods and their keys are
those of [other suites](suite.md#methods-and-recipes)."""


def suite_page() -> str:
    """Return the page on every key that a suite may have."""
    parts = ["# Every key of a suite", MARK, SUITE_INTRODUCTION, *sections(Suite)]
    parts += ["## Methods and recipes", "What `methods.name` may say, and the further keys that each takes."]
    parts += [*entries(METHODS, "methods."), *entries(RECIPES, "methods.")]
    parts += ["## `evaluation`", "The evaluators, and the keys of each."]
    parts += entries(EVALUATORS, "evaluation.{name}.")
    parts += ["## Judges", "What `evaluation.win_rate.judge.kind` may say."]
    parts += entries(JUDGES, "evaluation.win_rate.judge.")
    return "\n\n".join(parts) + "\n"


def toy_page() -> str:
    """Return the page on every key that a toy suite may have."""
    return "\n\n".join(["# Every key of a toy suite", MARK, TOY_INTRODUCTION, *sections(ToySuite)]) + "\n"


def sections(model: type[BaseModel]) -> Iterator[str]:
    """Yield a table of the keys at the top, then one of the keys below each of these."""
    yield table(keys(model, deep=False))
    for name, field in model.model_fields.items():
        inner = settings_class(field.annotation)
        if inner and inner.model_fields:
            yield f"## `{name}`"
            yield table(keys(inner, f"{name}."))


def entries(registry: Registry[Any], prefix: str) -> Iterator[str]:
    """Yield a section for each entry that comes with this package: what it is, and the keys it takes."""
    for name, kind in own(registry):
        yield f"### `{name}`"
        yield description(kind)
        options = getattr(kind, "Options", None)
        if options and options.model_fields:
            yield table(keys(options, prefix.format(name=name)))


def own(registry: Registry[Any]) -> Iterator[tuple[str, Any]]:
    """Yield what comes with this package; other packages may be installed beside it."""
    yield from ((name, kind) for name, kind in registry.items() if registry.origin(name) is None)


def description(kind: Any) -> str:
    """Return a docstring without its list of attributes."""
    text = inspect.getdoc(kind) or ""
    return plain(text.split("\n\nAttributes:")[0].split("\n\nArgs:")[0])


Row = tuple[str, str, str, str]
"""A key: its name, what is allowed, its default and its meaning."""


def keys(model: type[BaseModel], prefix: str = "", deep: bool = True) -> Iterator[Row]:
    """Yield the keys of a settings class, dotted, each before those below it.

    A judge's own model has the keys of `model`, which are explained once.
    """
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        schema, inner = properties[name], settings_class(field.annotation)
        explained_above = inner is Model and name != "model"
        allowed = "keys of `model`" if explained_above else in_words(schema)
        given = schema.get("default")
        default = "required" if field.is_required() else "" if isinstance(given, dict) else literal(given)
        yield f"{prefix}{name}", allowed, default, " ".join((field.description or "").split())
        if inner and deep and not explained_above:
            yield from keys(inner, f"{prefix}{name}.")


def settings_class(annotation: Any) -> type[BaseModel] | None:
    """Find the settings class in an annotation such as `Training | None` or `tuple[Method, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := settings_class(one))), None)


def in_words(schema: Mapping[str, Any]) -> str:
    """Tell what a JSON Schema allows."""
    if "anyOf" in schema:
        return listed(in_words(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return "keys below"
    if "enum" in schema or "const" in schema:
        return listed(literal(one) for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return "[{}]".format(", ".join(in_words(one) for one in schema["prefixItems"]))
        return "list of entries" if "$ref" in schema["items"] else f"list of {in_words(schema['items'])}"
    words = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "null": "`null`",
        "boolean": "`true` or `false`",
        "object": "any keys",
    }
    return " ".join([words[schema["type"]], *bounds(schema)])


def listed(words: Iterable[str]) -> str:
    """Join alternatives: a, b or c."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def bounds(schema: Mapping[str, Any]) -> list[str]:
    """Tell the range of a number, as in ≥ 0 and < 1."""
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {schema[name]:g}" for name, sign in words.items() if name in schema]
    return [" and ".join(told)] if told else []


def literal(value: Any) -> str:
    """Write a value as a suite would."""
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value, ensure_ascii=False)}`"


def plain(text: str) -> str:
    """Keep Markdown from reading a placeholder such as <suite> as HTML."""
    return re.sub(r"<(?=\w)", r"\<", text)


def table(rows: Iterable[Row]) -> str:
    """Write keys as a Markdown table."""
    return grid(("key", "allowed", "default", "meaning"), ((f"`{key}`", *rest) for key, *rest in rows))


def grid(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a Markdown table."""
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| {} |".format(" | ".join(plain(cell).replace("|", "\\|") for cell in line)) for line in lines)


# ---- figures ---------------------------------------------------------------------------------------------------------

METRICS_INTRODUCTION = """\
A figure describes itself: its `Metric` stands beside what measures it. *Gate*: whether `bench compare` fails when the figure gets
worse and no gate file says otherwise, and by how much a mean may be worse without counting as worse. A figure that could not be
measured is null with the reason, never 0."""

KINDS = {
    "objective": "Objectives compare at equal reference, β, reduction, template, evaluation rows and dtype.",
    "score": "Scores are of what a policy answers. Other tasks of lm-eval are described by what lm-eval says of them.",
    "cost": "Costs compare at equal hardware and workers.",
    "count": "Counts say what was done.",
}


def metrics_page() -> str:
    """Return the page on every figure."""
    parts = ["# Every figure", MARK, METRICS_INTRODUCTION]
    for kind, words in KINDS.items():
        parts += [f"## Kind: {kind}", words, metrics_table(one for one in described() if one.kind == kind)]
    parts += ["## Collectors", "What is watched while a job trains."]
    parts += entries(COLLECTORS, "")
    return "\n\n".join(parts) + "\n"


def described() -> list[Metric]:
    """Return the figures that come with this package; those of lm-eval's tasks are described when they are asked."""
    from bench.evaluators import win_rate
    from bench.toy import runs
    from bench.train import cost, run_log

    judged = replace(
        win_rate.metric(JudgeSettings(kind="rule")), name="win_rate/JUDGE", meaning="against the chosen answers"
    )
    of_training = run_log.metrics()
    of_cost = [one for one in cost.metrics() if one not in of_training]
    return [*of_training, *of_cost, *runs.METRICS, judged, *DERIVED.values()]


def metrics_table(described: Iterable[Metric]) -> str:
    """Write figures as a Markdown table."""
    head = ("name", "title", "unit", "better", "range", "gate", "meaning")
    return grid(head, ((f"`{one.name}`", one.title, *direction(one), one.meaning) for one in described))


def direction(metric: Metric) -> tuple[str, str, str, str]:
    """Tell a figure's unit, better direction, range and gate."""
    ends = {"minimum": metric.low, "maximum": metric.high}
    allowed = bounds({name: end for name, end in ends.items() if end is not None})
    tolerance = f"{metric.tolerance:.0%}" if metric.relative else f"{metric.tolerance:g}"
    gate = ("yes" if metric.gate else "no") + (f", {tolerance}" if metric.tolerance else "")
    return metric.unit, metric.better or "neither", " ".join(allowed) or "any", gate


# ---- commands --------------------------------------------------------------------------------------------------------

COMMANDS_INTRODUCTION = """\
`bench COMMAND --help` says the same in a terminal. Every setting of an experiment is [a key of the suite](suite.md)."""


def commands_page() -> str:
    """Return the page on every command."""
    import typer.main

    from bench.cli.main import EXIT_CODES, app

    parts = ["# Every command", MARK, COMMANDS_INTRODUCTION]
    for name, command in commands(typer.main.get_command(app)):
        parts += [f"## `{name}`", plain(inspect.cleandoc(command.help or "")), f"    {usage(name, command)}"]
        parts.append(grid(("argument or option", "default", "meaning"), map(parameter, command.params)))
    parts += ["## Exit codes", grid(("code", "meaning"), ((str(code), words) for code, words in EXIT_CODES.items()))]
    parts.append("An error is one line on the screen; `BENCH_TRACEBACK=1` shows where an internal one was raised.")
    return "\n\n".join(parts) + "\n"


def commands(group: Any, name: str = "bench") -> Iterator[tuple[str, Any]]:
    """Yield the commands of a group and of the groups in it, by full name."""
    for own_name, command in group.commands.items():
        inner = hasattr(command, "commands")
        yield from commands(command, f"{name} {own_name}") if inner else [(f"{name} {own_name}", command)]


def usage(name: str, command: Any) -> str:
    """Write the line that a command is called by."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    required = [f"{one.opts[0]} {placeholder(one)}" for one in command.params if one not in arguments and one.required]
    shown = [f"{placeholder(one)}{' …' if one.nargs == -1 else ''}" for one in arguments]
    told = [text if one.required else f"[{text}]" for one, text in zip(arguments, shown, strict=True)]
    return " ".join([name, *told, *required, "[OPTIONS]"])


def parameter(one: Any) -> tuple[str, str, str]:
    """Tell a parameter's name, default and meaning."""
    is_option = one.param_type_name == "option"
    is_flag = is_option and one.is_flag
    words = [*([one.opts[0]] if is_option else []), *([] if is_flag else [placeholder(one)])]
    text, told_default, *_ = [*re.split(r" [\[(]default: (.+)[\])]$", one.help or ""), ""]
    default = "required" if one.required else told_default or shown_default(one)
    more = [*(["Repeatable."] if one.multiple and "Repeatable" not in text else [])]
    more += [f"Environment variable: `{one.envvar}`."] if one.envvar else []
    return f"`{' '.join(words)}`", default, " ".join([text, *more])


def shown_default(one: Any) -> str:
    """Write a parameter's default, where it has one worth telling."""
    return "" if one.default is None or one.default is False else f"`{one.default}`"


def placeholder(one: Any) -> str:
    """Name the value of a parameter."""
    return str(one.metavar or one.name.upper())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
