"""One table for everything that other packages may bring: methods, recipes, collectors, evaluators, judges.

A name leads to `module:attribute`, ours in the table beside the protocol, another package's through an entry point of
its own; either is imported when it is asked for, so that a table costs nothing to read.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import InputError, unknown_name
from bench.settings import Frozen

T = TypeVar("T")


class NoOptions(Frozen):
    """Take no options."""


@dataclass(frozen=True)
class Origin:
    """Say whose code an entry is: the distribution it came with, its version, and the hash of its sources."""

    distribution: str
    version: str
    source: str

    def as_dict(self) -> dict[str, str]:
        """Return it as JSON values."""
        return asdict(self)


class Registry(Mapping[str, T]):
    """Look one kind of thing up by name.

    Args:
        kind: what its entries are called in an error, such as method.
        group: the group of entry points in which other packages offer theirs, such as bench.methods.
        own: name -> `module:attribute` of the ones that come with this package; they go before another package's.
    """

    def __init__(self, kind: str, group: str, own: Mapping[str, str]) -> None:
        self.kind, self.group = kind, group
        self._own = {name: EntryPoint(name, value, group) for name, value in own.items()}
        self._loaded: dict[str, T] = {}

    @cached_property
    def _points(self) -> dict[str, EntryPoint]:
        return {**{point.name: point for point in entry_points(group=self.group)}, **self._own}

    def __getitem__(self, name: str) -> T:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> T:
        point = self._points[name]
        try:
            loaded: T = point.load()
        except Exception as error:
            if name in self._own:
                raise
            whose = f"{point.dist.name} {point.dist.version}" if point.dist else point.module
            raise InputError(
                f"the {self.kind} {name!r} of {whose} cannot be loaded ({type(error).__name__}: {error}); "
                "mend that package, or uninstall it"
            ) from error
        return loaded

    def __contains__(self, name: object) -> bool:
        return name in self._points  # without loading it

    def __iter__(self) -> Iterator[str]:
        return iter([*self._own, *(name for name in self._points if name not in self._own)])

    def __len__(self) -> int:
        return len(self._points)

    def unknown(self, name: str) -> str:
        """Return the error message for a name that is not in the table."""
        return unknown_name(self.kind, name, self)

    def origin(self, name: str) -> Origin | None:
        """Say whose code an entry is; None for what comes with this package."""
        if name in self._own:
            return None
        point = self._points[name]
        dist = point.dist
        return Origin(
            dist.name if dist else point.module.partition(".")[0],
            dist.version if dist else "unknown",
            source_hash(point.module),
        )


def source_hash(module: str) -> str:
    """Hash the Python sources of the top-level package that a module is in; of a module alone, its file.

    A helper beside the module decides its numbers as much as the module itself, so all of the package counts.
    """
    top = module.partition(".")[0]
    spec = importlib.util.find_spec(top)
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    if not folders and spec and spec.origin:
        files = [Path(spec.origin)]
    digest = hashlib.sha256()
    for file in files:
        name = next((file.relative_to(one) for one in folders if file.is_relative_to(one)), Path(file.name))
        digest.update(f"{name.as_posix()}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def options_of(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the keys a suite gives an entry; an option that is not used has no place among a job's settings."""
    made: dict[str, Any] = kind.Options.model_validate(given).model_dump(mode="json", exclude_none=True)
    return made
