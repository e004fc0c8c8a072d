"""One table for everything that other packages may bring: methods, recipes, collectors, evaluators, judges.

A name leads to `module:attribute`, ours in the table beside the protocol, another package's through an entry point of
its own; either is imported when it is asked for, so that a table costs nothing to read.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from bench import plugins
from bench.errors import PluginError, unknown_name
from bench.plugins import ADVICE, Contract
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
        contract: what another package's class must bring; None: anything will do.
    """

    def __init__(self, kind: str, group: str, own: Mapping[str, str], contract: Contract | None = None) -> None:
        self.kind, self.group, self.contract = kind, group, contract
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
        if name in self._own:
            ours: T = point.load()
            return ours
        whose = self.whose(name)
        try:
            loaded = point.load()
        except Exception as error:
            raise PluginError(
                f"{whose} cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())}); {ADVICE}"
            ) from error
        problem = self.contract.misfit(loaded) if self.contract else None
        if problem:
            raise PluginError(f"{whose} ({point.value}) cannot be used: {problem}; {ADVICE}")
        theirs: Any = self.contract.watch(loaded, whose) if self.contract else loaded
        return cast(T, theirs)

    def ours(self, name: str) -> bool:
        """Say whether an entry comes with this package."""
        return name in self._own

    def whose(self, name: str) -> str:
        """Name an entry, with the distribution and the version that another package's comes with."""
        if name in self._own:
            return f"the {self.kind} {name!r}"
        point = self._points[name]
        return f"the {self.kind} {name!r} of " + (
            f"{point.dist.name} {point.dist.version}" if point.dist else point.module
        )

    def _blaming(self, name: str, where: str) -> AbstractContextManager[None]:
        """Say in one line whose an error is, where it is another package's; a wrong key is the suite's."""
        return nullcontext() if name in self._own else plugins.blaming(self.whose(name), where, ValidationError)

    def options(self, name: str, given: Any) -> dict[str, Any]:
        """Check the keys a suite gives an entry; an option that is not used has no place among a job's settings.

        Raises:
            ValidationError: a key is not known, or its value is not allowed.
            PluginError: another package's options cannot be checked, or not be written down.
        """
        with self._blaming(name, "`Options`"):
            kind: Any = self[name]
            made: dict[str, Any] = kind.Options.model_validate(given).model_dump(mode="json", exclude_none=True)
        return made

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
