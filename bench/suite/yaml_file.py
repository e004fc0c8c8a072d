"""Read a suite's YAML with line numbers, apply `--set`, and turn every mistake into one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from bench.errors import InputError, SuiteError, unknown_name
from bench.suite.suite import Experiment, Suite, suite_folder
from bench.suite.toy import ToySuite

Path_ = tuple[str | int, ...]


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
        found = f"found {document.value!r}"
        raise SuiteError(f"{document.path}:1: a suite is a mapping of keys such as name, model, data; {found}")
    for override in overrides:
        document.set(override)
    return document


def find(name: str) -> Path:
    """Resolve a suite's path or shipped name."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(suite_folder().glob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise SuiteError(f"{name}: is a folder; give a suite's YAML file, or one of: {', '.join(shipped)}")
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise SuiteError(f"{name}: no such file; shipped suites: {', '.join(shipped)}")
    raise SuiteError(f"{unknown_name('suite', name, shipped)} (or give a path to a YAML file; 'bench init' writes one)")


class Document:
    """A YAML document as plain values plus the line each key stands on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Path_, int | str] = {(): 1}
        try:
            node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise SuiteError(f"{path}:{line}: not valid YAML: {error.problem}") from None
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            problem = getattr(error, "strerror", None) or error
            raise SuiteError(f"{path}: cannot be read: {problem}") from None
        try:
            self.value = self._construct(node, ()) if node else {}
        except RecursionError:
            raise SuiteError(f"{path}: holds an alias of what it stands in, or is nested too deep") from None

    def _construct(self, node: yaml.Node, at: Path_) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self._construct(child, (*at, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        constructor = yaml.SafeLoader("")
        try:
            return constructor.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise SuiteError(f"{self.path}:{node.start_mark.line + 1}: {_dotted(at)}: {_problem(error)}") from None

    def _mapping(self, node: yaml.MappingNode, at: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in result:
                first = self.lines[(*at, key)]
                raise SuiteError(
                    f"{self.path}:{line}: {_dotted((*at, key))}: duplicate key (first on line {first}); keep one"
                )
            self.lines[(*at, key)] = line
            result[key] = self._construct(value_node, (*at, key))
        return result

    def set(self, override: str) -> None:
        """Apply one KEY=VALUE."""
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise SuiteError(f"--set {override}: write KEY=VALUE, such as --set training.steps=20")
        parts: Path_ = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        target = self.value
        for index, part in enumerate(parts[:-1]):
            if isinstance(target, dict) and target.get(str(part)) is None:
                target[str(part)] = {}
                self.lines[parts[: index + 1]] = f"--set {override}"
            elif isinstance(target, list) and isinstance(part, int) and part < len(target):
                target[part] = {"name": target[part]} if isinstance(target[part], str) else target[part]
            target = self._step(target, part, parts[: index + 1], override)
        self._assign(target, parts, self._parse(text, override), override)
        # What stood below the key in the file is gone, and its lines with it.
        self.lines = {at: line for at, line in self.lines.items() if at[: len(parts)] != parts}
        self.lines[parts] = f"--set {override}"

    def _parse(self, text: str, override: str) -> Any:
        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise SuiteError(f"--set {override}: the value is not valid YAML: {_problem(error)}") from None

    def _step(self, target: Any, part: str | int, path: Path_, override: str) -> Any:
        try:
            return target[part if isinstance(target, list) else str(part)]
        except (KeyError, IndexError, TypeError):
            raise SuiteError(f"--set {override}: there is no {_dotted(path)} in {self.path}") from None

    def _assign(self, target: Any, parts: Path_, value: Any, override: str) -> None:
        *path, part = parts
        try:
            target[part if isinstance(target, list) else str(part)] = value
        except (IndexError, TypeError):
            has = f"holds {len(target)} entries" if isinstance(target, list) else f"is {target!r}, which has no keys"
            raise SuiteError(f"--set {override}: cannot be set: {_dotted(tuple(path))} in {self.path} {has}") from None

    @property
    def root(self) -> type[Experiment]:
        """What the document is checked as."""
        return ToySuite if "problem" in self.value else Suite

    def suite(self) -> Experiment:
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
                "evaluator" if at[:-1] == ("evaluation",) else "key",
            )
            return f"{where}: {unknown_name(what, str(at[-1]), known) if known else f'unknown key {at[-1]!r}'}"
        message = details["msg"].removeprefix("Value error, ")
        message = re.sub(r"^\w+ should", "must", message)
        if details["type"] == "missing":
            return f"{where}: {_dotted(at)}: this key is missing"
        if details["type"] == "value_error" and isinstance(details["input"], (dict, BaseModel)):
            # A check of keys against each other names the key to change first.
            return f"{where}: {_dotted(at)}: {message}" if at else f"{self.where(_parsed(message))}: {message}"
        return f"{where}: {_dotted(at)} = {details['input']!r}: {message[0].lower()}{message[1:]}"

    def where(self, at: Path_) -> str:
        """Find the nearest place that exists: file:line, or the --set it came from."""
        while at not in self.lines:
            at = at[:-1]
        line = self.lines[at]
        return line if isinstance(line, str) else f"{self.path}:{line}"


def _problem(error: Exception) -> str:
    """Say what is wrong without the excerpt that YAML adds on further lines; a date such as 2024-13-01 is a ValueError."""
    return str(getattr(error, "problem", None) or error)


def _dotted(at: Path_) -> str:
    """Write a location as text: methods[2].max_eval_every."""
    text = ""
    for part in at:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the suite"


def _parsed(message: str) -> Path_:
    """Read the dotted key that a message starts with: "methods[1].threshold: it ends ..."."""
    parts = re.findall(r"[^.\[\]]+", message.split(":")[0])
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _known_keys(root: type[Experiment], at: Path_, value: Any) -> list[str]:
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
