"""The documents say what is there: links lead somewhere, every file has its line, every suite and key is explained."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from bench.methods import METHODS, Choice, Objective, Setup
from bench.recipes import RECIPES
from bench.settings import Model
from bench.suite.suite import Experiment, Suite
from bench.suite.toy import ToyMethod, ToySuite

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")})
SUITES = sorted((ROOT / "suites").glob("*.yaml"))


def section(title: str) -> str:
    """Return the README's text between a heading and the next one of its level."""
    return README.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def files() -> list[str]:
    """List the files that git tracks or would track."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: no list of its files")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(name for name in listed if (ROOT / name).is_file())


def tree() -> list[str]:
    """Read the README's tree: two more spaces are one folder deeper, a folder ends in /."""
    folders: list[str] = []
    paths = []
    for line in section("Every folder and file").split("```")[1].strip("\n").splitlines():
        name, *words = line.split()
        assert words, f"no description: {line}"
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name]
        paths.append("".join(folders))
    return paths


def test_every_file_has_a_line_of_its_own_or_of_its_folder() -> None:
    """A folder whose files are not listed one by one speaks for all of them."""
    told = tree()
    closed = [
        path for path in told if path.endswith("/") and not any(one != path and one.startswith(path) for one in told)
    ]
    missing = [name for name in files() if name not in told and not name.startswith(tuple(closed))]
    assert missing == []


def test_every_line_of_the_tree_is_a_file_or_folder() -> None:
    assert [path for path in tree() if not (ROOT / path).exists()] == []
    assert len(tree()) == len(set(tree()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith(("http://", "https://", "mailto:"))]
    assert [link for link in local if not (document.parent / link).exists()] == []


def test_every_decision_is_in_its_index() -> None:
    folder = ROOT / "docs" / "decisions"
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8")))
    assert linked == {path.name for path in folder.glob("*.md")} - {"README.md"}


def test_every_shipped_suite_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", section("Suites"), flags=re.MULTILINE)
    assert sorted(rows) == [path.stem for path in SUITES]


def keys(model: type[BaseModel], at: str = "") -> set[str]:
    """List the keys of a settings class, dotted; a judge's own model has those of `model`."""
    found = set()
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        found.add(f"{at}{name}")
        inner = settings_class(field.annotation)
        if inner and (inner is not Model or name == "model"):
            found |= keys(inner, f"{at}{name}.")
    return found


def settings_class(annotation: Any) -> type[BaseModel] | None:
    """Find the settings class in an annotation such as `Training | None` or `tuple[Method, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := settings_class(one))), None)


def test_every_key_of_a_suite_is_explained_and_no_other() -> None:
    rows = [row.split("|")[1] for row in section("A suite, key by key").splitlines() if row.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    kinds = [*METHODS.values(), *RECIPES.values()]
    assert told == keys(Suite).union(*(keys(kind.Options, "methods.") for kind in kinds))


def test_every_key_of_a_toy_suite_is_explained_and_no_other() -> None:
    """What it has in common with the other suites is explained there."""
    rows = [row.split("|")[1] for row in section("A toy suite, key by key").splitlines() if row.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    common = {"methods", "methods.name", "methods.label", "methods.lambdas", "order", "lambdas"}
    common |= set(Experiment.model_fields) - {"smoke"}
    found = keys(ToySuite)
    assert {"methods.threshold", "methods.seeds"} <= found
    assert told == found - common
    assert set(ToyMethod.model_fields) == {"name", "label", "lambdas", "threshold", "seeds"}


def test_the_readmes_method_works_as_printed() -> None:
    """It descends DPO on steps 1 and 3, SFT on 2 and 4."""
    code = section("Add a method").split("```python")[1].split("```")[0]
    space: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), space)
    setup = Setup(0.5, 4, 0, {Objective.DPO: 2, Objective.SFT: 2}, (Objective.SFT, Objective.DPO), {})
    method = space["RoundRobin"](setup, space["RoundRobin"].Options())
    chosen = [method.choose(step, lambda objective: 0.0) for step in (1, 2, 3, 4)]
    assert chosen == [Choice({one: 1.0}) for one in (Objective.DPO, Objective.SFT) * 2]
    method.observe({Objective.DPO: 0.7})
    method.restore(method.state())


def subcommands(group: Any) -> dict[str, Any]:
    """List a group's commands, those of a group inside it under both names."""
    found = {}
    for name, command in group.commands.items():
        inner = subcommands(command) if hasattr(command, "commands") else {}
        found |= {f"{name} {one}": command for one, command in inner.items()} or {name: command}
    return found


def test_the_readmes_commands_exist() -> None:
    """The table of commands is the program's own list, and every option it names belongs to one of them."""
    import typer.main

    from bench.cli.main import app

    commands = subcommands(typer.main.get_command(app))
    told = re.findall(r"^\| `bench ([a-z]+(?: [a-z]+)*)", section("Commands"), flags=re.MULTILINE)
    assert sorted(told) == sorted(commands)
    options = {name for command in commands.values() for one in command.params for name in one.opts}
    assert set(re.findall(r"(--[a-z]+(?:-[a-z]+)*)", section("Commands"))) <= options


def test_what_sharing_saves_is_what_the_plan_says() -> None:
    """The steps in the README and the decision come from `bench plan`, without sharing and with it."""
    from bench.plan import planner
    from bench.suite import yaml_file

    texts = [path.read_text(encoding="utf-8") for path in (README, ROOT / "docs" / "decisions" / "sharing.md")]
    told = [set(re.findall(r"`(\w+)`\s([\d,]+) → (\d+,\d+)", text)) for text in texts]
    expected = set()
    for name in ("pythia_1b_dpo_sft", "pythia_1b_sft_dpo", "pythia_1b_max_evaluation", "llama3_8b"):
        made = planner.make(yaml_file.load(name))
        expected.add((name, f"{made.unshared_steps:,}", f"{made.optimizer_steps:,}"))
        saved = f"{made.optimizer_steps:,} ({made.unshared_steps - made.optimizer_steps:,} saved)"
        assert saved in texts[0]
    assert told == [expected, expected]
    assert "75,000 optimizer steps (90,000 without sharing)" in texts[0]


def test_no_document_names_a_place_on_somebodys_machine() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in [*DOCUMENTS, *SUITES])
    assert re.findall(r"(?:/home/|/root/|/Users/|/tmp/)\S*", text) == []
