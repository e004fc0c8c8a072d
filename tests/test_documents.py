"""The documents say what is so: links and paths lead somewhere, examples run, the reference is what the code says."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main

from bench import errors
from bench.cli.main import EXIT_CODES, app
from bench.evaluators import EVALUATORS
from bench.judges import JUDGES
from bench.methods import METHODS, Choice, Objective, Setup
from bench.plan import planner
from bench.recipes import RECIPES
from bench.suite import yaml_file
from bench.suite.suite import Suite
from bench.suite.toy import ToySuite

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DECISIONS, GUIDE, REFERENCE = (ROOT / "docs" / name for name in ("decisions", "guide", "reference"))
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")})
SUITES = sorted((ROOT / "suites").glob("*.yaml"))
ROOMS = sorted(path.parent for top in ("bench", "report") for path in (ROOT / top).glob("*/__init__.py"))

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """Yield the file and the heading that each local link of a document leads to; "" for no heading."""
    for link in re.findall(r"\]\(([^)\s]+)\)", text(document)):
        if not link.startswith(("http://", "https://", "mailto:")):
            file, _, heading = link.partition("#")
            yield (document.parent / file).resolve() if file else document, heading


def headings(document: Path) -> set[str]:
    """Return the headings as GitHub names them in links: "Exit codes" is exit-codes."""
    told = re.findall(r"^#+ (.+)$", text(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in told}


def code(document: Path, language: str, number: int = 0) -> str:
    """Return a block of code as it is printed."""
    return re.findall(rf"```{language}\n(.*?)```", text(document), flags=re.DOTALL)[number]


def loaded(path: Path) -> ModuleType:
    """Import a file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- links, paths, indexes -------------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    assert len(text(README).splitlines()) <= 200


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    assert [str(file) for file, _ in links(document) if not file.exists()] == []
    assert [f"{file}#{heading}" for file, heading in links(document) if heading and heading not in headings(file)] == []


@each_document
def test_paths_lead_somewhere(document: Path) -> None:
    named = re.findall(
        r"\b(?:bench|benchmarks|docs|report|suites|tests)/[\w/.-]+\.(?:json|md|py|ya?ml)\b", text(document)
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_no_document_names_a_place_on_somebodys_machine() -> None:
    told = "".join(text(path) for path in [*DOCUMENTS, *SUITES])
    assert re.findall(r"(?:/home/|/root/|/Users/|/tmp/)\S*", told) == []


def test_every_decision_is_in_its_index() -> None:
    linked = {file for file, _ in links(DECISIONS / "README.md")}
    assert set(DECISIONS.glob("*.md")) - {DECISIONS / "README.md"} <= linked


def test_every_page_is_in_the_index_of_the_documentation() -> None:
    linked = {file for file, _ in links(ROOT / "docs" / "README.md")}
    assert {*GUIDE.glob("*.md"), *REFERENCE.glob("*.md")} <= linked


def test_every_shipped_suite_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", text(GUIDE / "suites.md"), flags=re.MULTILINE)
    assert sorted(rows) == [path.stem for path in SUITES]


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: f"{path.parent.name}.{path.name}")
def test_a_room_says_what_it_holds_and_has_a_line(room: Path) -> None:
    assert importlib.import_module(f"{room.parent.name}.{room.name}").__doc__
    part = text(README).split(f"\n{room.parent.name}/ ")[1]
    lines = part.split("\n")[1:]
    below = [line.split()[0] for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("  "))]]
    assert f"{room.name}/" in below


# ---- the reference ---------------------------------------------------------------------------------------------------


TABLES = "## Methods and recipes"  # where the part of a page begins that grows with the tables


def generator() -> ModuleType:
    """Load docs/generate.py, which is in no package."""
    return loaded(ROOT / "docs" / "generate.py")


def test_the_reference_is_what_the_code_says() -> None:
    """Where it is not: make reference. A new method, collector, evaluator or judge may wait for it; what is told must be so."""
    written = generator().pages()
    assert {path.name for path in REFERENCE.iterdir()} == set(written)
    for name, expected in written.items():
        told, now = text(REFERENCE / name).split(TABLES), expected.split(TABLES)
        assert told[0] == now[0] or name == "metrics.md", f"{name} is out of date: make reference"
        lines = iter(expected.splitlines())
        outdated = [
            line for line in text(REFERENCE / name).splitlines() if line not in lines
        ]  # in the order of the page
        assert outdated == [], f"{name} is out of date: make reference"


def test_code_that_a_page_shows_is_that_of_its_file() -> None:
    """Where it is not: make reference."""
    generate = generator()
    pages = {page.name: text(page) for page in generate.GUIDE.glob("*.md")}
    assert pages["extend.md"].count("<!-- examples/plugin/bench_example/") == 5
    assert [name for name, page in pages.items() if generate.with_code(page) != page] == []


def test_every_key_has_a_description() -> None:
    generate = generator()
    options = [
        kind.Options for registry in (METHODS, RECIPES, EVALUATORS, JUDGES) for _, kind in generate.own(registry)
    ]
    rows = [row for model in (Suite, ToySuite, *options) for row in generate.keys(model)]
    assert {"training.budget", "shots", "journal", "problem.beta", "max_eval_every"} <= {row[0] for row in rows}
    assert [key for key, _, _, meaning in rows if not meaning] == []


def test_every_figure_has_a_meaning() -> None:
    described = generator().described()
    assert {"f_dpo/held_out", "training_seconds", "energy_joules"} <= {one.name for one in described}
    assert [one.name for one in described if not one.meaning] == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "exclusiveMinimum": 0}, "whole number > 0"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "number ≥ 0 and ≤ 1"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text or `null`"),
        ({"enum": ["a", "b", "c"]}, "`a`, `b` or `c`"),
        ({"type": "array", "items": {"type": "boolean"}}, "list of `true` or `false`"),
        ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "integer"}]}, "[number, whole number]"),
        ({"type": "array", "items": {"$ref": "#/$defs/Method"}}, "list of entries"),
    ],
)
def test_what_a_key_allows_in_words(schema: dict[str, Any], words: str) -> None:
    assert generator().in_words(schema) == words


def test_the_exit_codes_are_those_of_the_errors() -> None:
    """0 and 3 are answers, not errors."""
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.BenchError)]
    assert {one.exit_code for one in kinds} | {0, 3} == set(EXIT_CODES)
    told = text(README).split("Exit codes: ")[1].split("\n\n")[0]
    assert {int(one) for one in re.findall(r"(?:^|; )(\d+) ", told.replace("\n", " "))} == set(EXIT_CODES)


# ---- what the README shows -------------------------------------------------------------------------------------------


def test_the_readmes_suite_is_one(tmp_path: Path) -> None:
    """Four methods by three λ by three seeds, 300 steps each."""
    path = tmp_path / "suite.yaml"
    path.write_text(code(README, "yaml"), encoding="utf-8")
    assert yaml_file.load(str(path)).size == "4 methods × 3 λ × 3 seeds, 300 steps a run"


@pytest.mark.parametrize(
    ("document", "name", "options", "turns"),
    [
        (README, "RoundRobin", {}, [Objective.DPO, Objective.SFT] * 2),
        (GUIDE / "extend.md", "Turns", {"turn": 2}, [Objective.DPO, Objective.DPO, Objective.SFT, Objective.SFT]),
    ],
    ids=["readme", "guide"],
)
def test_a_printed_method_works(
    document: Path, name: str, options: dict[str, Any], turns: list[Objective], tmp_path: Path, monkeypatch: Any
) -> None:
    """One takes turns of one step and DPO first; the other of two."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"printed_{name.lower()}.py").write_text(code(document, "python"), encoding="utf-8")
    kind = getattr(importlib.import_module(f"printed_{name.lower()}"), name)
    given = kind.Options(**options)
    assert kind.needs(given) == frozenset()
    assert kind.batches_per_step(0.5, given) == {Objective.DPO: 0.5, Objective.SFT: 0.5}
    assert [row[0] for row in generator().keys(kind.Options) if row[3]] == list(options)  # described
    method = kind(Setup(0.5, 4, 0, {Objective.DPO: 2, Objective.SFT: 2}, (Objective.SFT, Objective.DPO), {}), given)
    assert [method.choose(step, lambda objective: 0.0) for step in (1, 2, 3, 4)] == [
        Choice({one: 1.0}) for one in turns
    ]
    method.observe({Objective.DPO: 0.7})
    method.restore(method.state())


def test_the_readmes_commands_exist() -> None:
    """The table of commands is the program's own list, and every option it names belongs to one of them."""
    commands = dict(generator().commands(typer.main.get_command(app)))
    section = text(README).split("\n## Commands\n")[1].split("\n## ")[0]
    told = re.findall(r"^\| `(bench [a-z-]+(?: [a-z]+)*)", section, flags=re.MULTILINE)
    assert sorted(told) == sorted(commands)
    options = {name for command in commands.values() for one in command.params for name in one.opts}
    assert set(re.findall(r"(--[a-z]+(?:-[a-z]+)*)", section)) <= options


def test_what_sharing_saves_is_what_the_plan_says() -> None:
    """The steps in the guide and the decision come from `bench plan`, without sharing and with it."""
    texts = [text(GUIDE / "suites.md"), text(DECISIONS / "sharing.md")]
    told = [set(re.findall(r"`(\w+)`\s([\d,]+) → (\d+,\d+)", one)) for one in texts]
    expected = set()
    for name in ("pythia_1b_dpo_sft", "pythia_1b_sft_dpo", "pythia_1b_max_evaluation", "llama3_8b"):
        plan = planner.make(yaml_file.load(name))
        expected.add((name, f"{plan.unshared_steps:,}", f"{plan.optimizer_steps:,}"))
        assert f"{plan.optimizer_steps:,} ({plan.unshared_steps - plan.optimizer_steps:,} saved)" in texts[0]
    assert told == [expected, expected]
    assert "75,000 optimizer steps (90,000 without sharing)" in text(GUIDE / "real-run.md")
