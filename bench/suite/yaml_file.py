"""Read a suite's YAML with line numbers, apply `--set`, and turn every mistake into one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bench import strict_yaml
from bench.errors import InputError, SuiteError, shortened, unknown_name
from bench.strict_yaml import Place, dotted
from bench.suite.suite import Experiment, Suite, suite_folder
from bench.suite.toy import ToySuite


def load(name: str, overrides: Sequence[str] = ()) -> Experiment:
    """Load a suite from a path, or from the shipped suites by name: a `ToySuite` where it has the key `problem`.

    Args:
        name: a path to a YAML file, or the name of a shipped suite.
        overrides: `KEY=VALUE` with a dotted key (`training.steps=20`, `methods.3.max_eval_every=5`) and a YAML value.

    Raises:
        SuiteError: with file, line, key, value and what is allowed.
    """
    return _read(name, overrides).suite()


@contextmanager
def located(name: str, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Put the place of a key before an error that begins with it, as errors do that are found after a suite is read."""
    try:
        yield
    except InputError as error:
        key = _KEY.match(str(error))
        document = _read(name, overrides)
        if key and _parsed(key.group())[0] in document.root.model_fields:
            error.args = (f"{document.where(_parsed(key.group()))}: {error}",)
        raise


_KEY = re.compile(r"\w+(?:\.\w+|\[\d+\])*(?= = |: )")


def _read(name: str, overrides: Sequence[str]) -> Document:
    document = Document(find(name))
    if not isinstance(document.value, dict):
        found = f"found {shortened(repr(document.value))}"
        raise SuiteError(f"{document.path}:1: a suite is a mapping of keys such as name, model, data; {found}")
    for override in overrides:
        document.set(override)
    return document


def find(name: str) -> Path:
    """Resolve a suite's path or shipped name."""
    path = Path(name)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:  # such as a name that is too long
        raise SuiteError(f"{shortened(name)}: cannot be read: {error.strerror}") from None
    if is_file:
        return path
    shipped = {file.stem: file for file in sorted(suite_folder().glob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    if is_folder:
        raise SuiteError(f"{name}: is a folder; give a suite's YAML file, or one of: {', '.join(shipped)}")
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise SuiteError(f"{name}: no such file; shipped suites: {', '.join(shipped)}")
    raise SuiteError(f"{unknown_name('suite', name, shipped)} (or give a path to a YAML file; 'bench init' writes one)")


class Document:
    """A YAML document as plain values plus the line each key stands on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            read = strict_yaml.read(path)
        except InputError as error:
            raise SuiteError(*error.args) from None
        self.value = {} if read.value is None else read.value
        self.lines: dict[Place, int | str] = {(): 1, **read.lines}

    def set(self, override: str) -> None:
        """Apply one KEY=VALUE."""
        key, separator, text = override.partition("=")
        names = key.split(".")
        said = f"--set {shortened(override)}"
        if not separator or not all(names):
            raise SuiteError(f"{said}: write KEY=VALUE, such as --set training.steps=20")
        if len(names) > strict_yaml.DEPTH:
            raise SuiteError(f"{said}: the key is nested deeper than {strict_yaml.DEPTH} levels")
        parts: Place = tuple(map(_part_of_key, names))
        try:
            value = strict_yaml.parse(text, lambda line: said, parts).value
        except InputError as error:
            raise SuiteError(*error.args) from None
        target = self.value
        for index, part in enumerate(parts[:-1]):
            if isinstance(target, dict) and target.get(str(part)) is None:
                target[str(part)] = {}
                self.lines[parts[: index + 1]] = said
            elif isinstance(target, list) and isinstance(part, int) and part < len(target):
                target[part] = {"name": target[part]} if isinstance(target[part], str) else target[part]
            target = self._step(target, part, parts[: index + 1], said)
        self._assign(target, parts, value, said)
        # What stood below the key in the file is gone, and its lines with it.
        self.lines = {at: line for at, line in self.lines.items() if at[: len(parts)] != parts}
        self.lines[parts] = said

    def _step(self, target: Any, part: str | int, path: Place, said: str) -> Any:
        try:
            return target[part if isinstance(target, list) else str(part)]
        except (KeyError, IndexError, TypeError):
            raise SuiteError(f"{said}: there is no {shortened(dotted(path))} in {self.path}") from None

    def _assign(self, target: Any, parts: Place, value: Any, said: str) -> None:
        *path, part = parts
        try:
            target[part if isinstance(target, list) else str(part)] = value
        except (IndexError, TypeError):
            has = f"is {shortened(repr(target))}, which has no keys"
            if isinstance(target, list):
                has = f"holds {len(target)} entries"
            place = shortened(dotted(tuple(path)))
            raise SuiteError(f"{said}: cannot be set: {place} in {self.path} {has}") from None

    @property
    def root(self) -> type[Experiment]:
        """What the document is checked as."""
        return ToySuite if "problem" in self.value else Suite

    def suite(self) -> Experiment:
        """Check the document.

        Raises:
            SuiteError: with file, line, key, value and what is allowed.
        """
        if "smoke" in self.value:
            raise SuiteError(f"{self.where(('smoke',))}: smoke is set by --smoke alone; delete it and run with --smoke")
        try:
            return self.root.model_validate(self.value)
        except ValidationError as error:
            raise SuiteError(self._explain(error)) from None

    def _explain(self, error: ValidationError) -> str:
        """Return the most telling of the errors: an unknown key first, since a typo also makes the right key missing."""
        errors = error.errors()
        details = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        at = details["loc"]
        where = self.where(at)
        if details["type"] == "extra_forbidden":
            known, what = (
                _known_keys(self.root, at[:-1], self.value),
                "evaluator or key" if at[:-1] == ("evaluation",) else "key",
            )
            return f"{where}: {unknown_name(what, str(at[-1]), known) if known else f'unknown key {at[-1]!r}'}"
        message = re.sub(r"^\w+ should", "must", details["msg"].removeprefix("Value error, "))
        if details["type"] == "missing":
            return f"{where}: {dotted(at)}: this key is missing"
        if details["type"] == "value_error" and isinstance(details["input"], (dict, BaseModel)):
            # A check of keys against each other names the key to change first.
            return f"{where}: {dotted(at)}: {message}" if at else f"{self.where(_parsed(message))}: {message}"
        given = shortened(repr(details["input"]))
        if details["type"] == "tuple_type":
            message = f"must be a list, such as [{shortened(str(details['input']))}]"
        return f"{where}: {dotted(at, 'the suite')} = {given}: {message[0].lower()}{message[1:]}"

    def where(self, at: Place) -> str:
        """Find the nearest place that exists: file:line, or the --set it came from."""
        while at not in self.lines:
            at = at[:-1]
        line = self.lines[at]
        return line if isinstance(line, str) else f"{self.path}:{line}"


def _part_of_key(name: str) -> str | int:
    """Take digits of a dotted key for an index."""
    return int(name) if re.fullmatch(r"\d{1,9}", name, re.ASCII) else name


def _parsed(message: str) -> Place:
    """Read the dotted key that a message starts with: "methods[1].threshold: it ends ..."."""
    parts = re.findall(r"[^.\[\]]+", message.split(":")[0])
    return tuple(map(_part_of_key, parts))


def _known_keys(root: type[Experiment], at: Place, value: Any) -> list[str]:
    """List the keys allowed at a place, by walking the models' annotations along with what is given there."""
    model: Any = root
    for part in at:
        if not isinstance(part, int):
            model = _model_in(_keys(model, value).get(part))
        if model is None:
            return []
        value = _part(value, part)
    return list(_keys(model, value))


def _keys(model: Any, value: Any) -> dict[str, Any]:
    """Return the keys that a model takes, with their annotations: its fields, and what a given name opens."""
    fields = {name: field.annotation for name, field in model.model_fields.items() if not field.exclude}
    return fields | (model.more_keys(value) if hasattr(model, "more_keys") and isinstance(value, Mapping) else {})


def _part(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None


def _model_in(annotation: Any) -> Any:
    """Find the settings class inside an annotation such as `Training | None` or `tuple[Method, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
