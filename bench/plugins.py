"""Another package's class behind one of our protocols: does it fit, and whose is what goes wrong in it?"""

from __future__ import annotations

import functools
import inspect
import json
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from bench.errors import BenchError, PluginError, is_out_of_memory

Problem = str | None
Check = Callable[[Any], Problem]

_NOTHING = object()

ADVICE = "mend that package, or uninstall it"


@dataclass(frozen=True)
class Contract:
    """Say what a class must bring to stand in a table.

    Attributes:
        protocol: has all that is asked of it; what it gives a default, a class may leave out.
        parts: what the protocol has no default of.
        values: attribute of the class -> what is wrong with its value.
        returns: function -> what is wrong with what it returned.
        watched: whether what its functions raise is put into words here; not so where the caller does.
    """

    protocol: type
    parts: tuple[str, ...]
    values: Mapping[str, Check] = field(default_factory=dict)
    returns: Mapping[str, Check] = field(default_factory=dict)
    watched: bool = True

    @property
    def functions(self) -> list[str]:
        """The functions that are called from outside."""
        found = ((name, getattr(one, "__func__", one)) for name, one in vars(self.protocol).items())
        return [name for name, one in found if inspect.isfunction(one) and (name == "__init__" or name[0] != "_")]

    def misfit(self, kind: Any) -> Problem:
        """Say why something cannot stand in the table; None: it can, as far as can be seen without calling it."""
        if not isinstance(kind, type):
            return f"is a {type(kind).__name__}, not a class"
        lacks = [name for name in self.parts if getattr(kind, name, _NOTHING) is getattr(self.protocol, name, _NOTHING)]
        lacks += [name for name in self.parts if name not in lacks and not hasattr(kind, name)]
        lacks = lacks or [name for name in self.functions if not hasattr(kind, name)]
        if lacks:
            base = f"{self.protocol.__module__}.{self.protocol.__name__}"
            return f"{kind.__name__} has no {_listed(lacks)}; the entry must name a subclass of {base} that has"
        broken = [name for name in self.functions if not callable(getattr(kind, name))]
        if broken:
            return f"{kind.__name__}.{broken[0]} is no function"
        return self._wrong_options(kind) or self._wrong_value(kind)

    def _wrong_options(self, kind: type) -> Problem:
        """Say what is wrong with the keys that a suite may give it; one that lets any key pass would hide a typo."""
        options = getattr(kind, "Options", None)
        if "Options" not in self.protocol.__annotations__:
            return None
        if not (isinstance(options, type) and issubclass(options, BaseModel)):
            return f"{kind.__name__}.Options is no class of settings; give it a subclass of bench.settings.Frozen"
        if options.model_config.get("extra") != "forbid":
            return f"{kind.__name__}.Options lets misspelt keys pass; make it a subclass of bench.settings.Frozen"
        return None

    def _wrong_value(self, kind: type) -> Problem:
        found = ((name, check(getattr(kind, name))) for name, check in self.values.items())
        return next((f"{kind.__name__}.{name} {problem}" for name, problem in found if problem), None)

    def watch(self, kind: type, whose: str) -> type:
        """Return a subclass whose errors, and whose wrong results, are one line that says whose they are."""
        if not self.watched:
            return kind
        made: dict[str, Any] = {
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__doc__": kind.__doc__,
        }
        for name in self.functions:
            found = inspect.getattr_static(kind, name)
            wrapped = _watched(getattr(found, "__func__", found), name, whose, self.returns.get(name))
            made[name] = type(found)(wrapped) if isinstance(found, staticmethod | classmethod) else wrapped
        return types.new_class(kind.__name__, (kind,), exec_body=lambda space: space.update(made))


@contextmanager
def blaming(whose: str, where: str, *passing: type[Exception]) -> Iterator[None]:
    """Say in one line whose an error is. What is raised on purpose passes, `passing` too, and memory that runs out.

    Raises:
        PluginError: anything else was raised.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (BenchError, *passing)) or is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:300]
        raise PluginError(
            f"{whose}: {where} raised {type(error).__name__}{': ' if said else ''}{said}; {ADVICE}"
        ) from error


def wrong(whose: str, problem: str) -> PluginError:
    """Return the error for what another package's code does not do as its protocol says."""
    return PluginError(f"{whose}: {problem}; {ADVICE}")


def not_json(value: Any) -> Problem:
    """Say why a value cannot be written as JSON."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _watched(function: Callable[..., Any], name: str, whose: str, check: Check | None) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with blaming(whose, f"`{name}`"):
            made = function(*args, **kwargs)
            problem = check(made) if check else None
        if problem:
            raise wrong(whose, f"`{name}` returned {problem}")
        return made

    return call


def _listed(names: list[str]) -> str:
    return " and no ".join(f"`{name}`" for name in names)
