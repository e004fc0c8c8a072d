"""The table of what other packages may bring: ours by name, theirs by entry point, whose code it is."""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.errors import InputError
from bench.registry import Origin, Registry, source_hash

OURS = {"square": "math:pow", "root": "math:sqrt"}


class Package(Distribution):
    """Stand in for an installed distribution."""

    def read_text(self, filename: str) -> str | None:
        return "Name: acme-methods\nVersion: 1.2\n" if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        return Path(path)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay a package `acme` with a method and a helper beside it, and offer it by an entry point."""
    folder = tmp_path / "acme"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "method.py").write_text("from acme.helper import SIGN\n\nclass Best:\n    sign = SIGN\n")
    (folder / "helper.py").write_text("SIGN = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("best", "acme.method:Best", "bench.methods")._for(Package())  # type: ignore[attr-defined]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: [point] if group == "bench.methods" else [])
    for name in ("acme", "acme.method", "acme.helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def test_ours_stand_before_those_of_other_packages(plugin: Path) -> None:
    table: Registry[Any] = Registry("method", "bench.methods", OURS)
    assert list(table) == ["square", "root", "best"]
    assert len(table) == 3
    assert "best" in table
    assert "nothing" not in table


def test_an_entry_is_imported_when_it_is_asked_for(plugin: Path) -> None:
    table: Registry[Any] = Registry("method", "bench.methods", OURS)
    assert list(table)
    assert "acme.method" not in sys.modules
    assert table["best"].sign == 1
    assert table["root"](9) == 3


def test_nobody_takes_the_name_of_one_of_ours(plugin: Path) -> None:
    table: Registry[Any] = Registry("method", "bench.methods", {"best": "math:sqrt"})
    assert table["best"](9) == 3
    assert list(table) == ["best"]
    assert table.origin("best") is None


def test_another_packages_code_has_an_origin_and_ours_has_none(plugin: Path) -> None:
    table: Registry[Any] = Registry("method", "bench.methods", OURS)
    assert table.origin("square") is None
    assert table.origin("best") == Origin("acme-methods", "1.2", source_hash("acme.method"))


def test_a_change_of_a_helper_changes_the_source_hash(plugin: Path) -> None:
    """The sign stands in a file beside the method's own."""
    before = source_hash("acme.method")
    assert source_hash("acme.method") == before
    (plugin / "helper.py").write_text("SIGN = -1\n")
    assert source_hash("acme.method") != before


def test_a_module_without_a_package_is_hashed_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lonely_module.py"
    file.write_text("SIGN = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = source_hash("lonely_module")
    file.write_text("SIGN = -1\n")
    assert source_hash("lonely_module") != before


def test_an_unknown_name_is_told_with_the_nearest_one() -> None:
    table: Registry[Any] = Registry("method", "nobody.offers.this", OURS)
    assert table.unknown("squar") == "unknown method 'squar'; did you mean 'square'? known: root, square"


def test_another_packages_code_that_cannot_be_loaded_is_one_line(plugin: Path) -> None:
    """The user did not write it, so there is no traceback of it either; an unknown name stays a KeyError."""
    (plugin / "method.py").write_text("import nothing_of_that_name\n")
    table: Registry[Any] = Registry("method", "bench.methods", OURS)
    with pytest.raises(InputError) as caught:
        table["best"]
    assert str(caught.value) == (
        "the method 'best' of acme-methods 1.2 cannot be loaded (ModuleNotFoundError: No module named "
        "'nothing_of_that_name'); mend that package, or uninstall it"
    )
    with pytest.raises(KeyError):
        table["other"]
