"""Imports run one way: no circle between files, none between rooms, and each room uses only what it may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for top in ("bench", "report")
    for path in sorted((ROOT / top).rglob("*.py"))
}

# What the rooms of `bench` may import, from the ground up; a room may always import from itself.
GROUND = {"errors", "frozen", "plugins", "registry", "settings", "strict_yaml", "quiet", "bench"}
MAY: dict[str, set[str]] = {
    "records": set(),
    "methods": {"records"},
    "collectors": {"records"},
    "data": {"methods", "records"},
    "models": {"data", "methods", "records"},
    "train": {"models", "data", "methods", "collectors", "records"},
    "recipes": {"train", "models", "data", "methods", "collectors", "records"},
    "judges": {"models", "data", "records"},
    "evaluators": {"judges", "models", "data", "records"},
    "trackers": {"records"},
    "suite": {"methods", "recipes", "evaluators", "judges", "train", "trackers"},
    "toy": {"suite", "methods", "records"},
    "plan": {"toy", "suite", "evaluators", "judges", "recipes", "train", "models", "data", "methods", "records"},
    "run": {
        *("plan", "toy", "suite", "evaluators", "judges", "recipes", "train", "models", "data"),
        *("methods", "collectors", "records"),
    },
    "export": {"plan", "suite", "models", "data", "records", "report"},
}


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of this project that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            named = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in FILES else node.module for name in named)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def edges() -> dict[str, set[str]]:
    """Return file -> files it imports."""
    return {name: {one for one in imports(path) if one in FILES} - {name} for name, path in FILES.items()}


def room(module: str) -> str:
    """Name a file's room: `bench/train/loop.py` is in bench.train, `bench/errors.py` is a room of its own."""
    return ".".join(module.split(".")[:2])


def assert_no_circle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(reversed(error.args[1]))}")


def test_no_circle_between_files() -> None:
    assert_no_circle(edges())


def test_no_circle_between_rooms() -> None:
    rooms: dict[str, set[str]] = {}
    for name, found in edges().items():
        rooms.setdefault(room(name), set()).update({room(one) for one in found} - {room(name)})
    assert_no_circle(rooms)


def test_a_room_of_bench_imports_only_what_it_may() -> None:
    broken = []
    for name, found in edges().items():
        top, _, rest = name.partition(".")
        own = rest.partition(".")[0]
        if top != "bench" or own not in MAY:
            continue
        for one in found:
            parts = one.split(".")
            other = "report" if parts[0] == "report" else "bench" if len(parts) == 1 else parts[1]
            if other not in MAY[own] | GROUND | {own}:
                broken.append(f"{name} imports {one}")
    assert broken == []


def test_every_room_of_bench_is_listed() -> None:
    rooms = {name.split(".")[1] for name in FILES if name.startswith("bench.")}
    assert rooms == {*MAY, "cli", *GROUND} - {"bench"}


def test_the_report_reads_records_only() -> None:
    allowed = ("bench.records", "bench.errors", "bench.frozen", "bench.strict_yaml", "report")
    broken = [
        f"{name} imports {one}"
        for name, found in edges().items()
        if name.startswith("report")
        for one in found
        if not one.startswith(allowed)
    ]
    assert broken == []
