"""Read YAML that a person wrote: plain values and the line of each, within limits, every fault one line.

PyYAML alone expands aliases without bound, ends in a RecursionError where lists are nested deep, and lets the last of
equal keys win.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.errors import InputError, shortened

Place = tuple[str | int, ...]
"""Keys and list indices that lead to a value."""

BYTES = 1 << 20
DEPTH = 32
VALUES = 50_000  # with what aliases repeat
KEY = 200  # characters
INT_BITS = 63

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# YAML can write them as "\0" or "\ud800", but no name, path or text here can hold them.
_UNUSABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_TAG = "tag:yaml.org,2002:"


@dataclass
class Yaml:
    """A YAML document as plain values, and the line that each key or entry stands on; None where it is empty."""

    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)


def read(path: Path) -> Yaml:
    """Read a file.

    Raises:
        InputError: one line with file, line, key and what is allowed.
    """
    try:
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
    except (OSError, ValueError) as error:  # a ValueError is of a path that no system can have
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > BYTES:
        line = _lines(content.decode("utf-8", "replace"))
        raise InputError(f"{path}:{line}: the file is longer than {BYTES >> 20} MiB; is it YAML that you mean?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _lines(content[: error.start].decode("utf-8", "replace"))
        byte = f"0x{content[error.start]:02x}"
        raise InputError(f"{path}:{line}: the byte {byte} is no UTF-8; save the file as UTF-8") from None
    return parse(text, lambda line: f"{path}:{line}")


def parse(text: str, where: Callable[[int], str], at: Place = ()) -> Yaml:
    """Read a text.

    Args:
        text: one YAML document.
        where: says in errors where a line is.
        at: the keys that lead to the text, where it is one value of a larger whole.

    Raises:
        InputError: one line that begins with the place.
    """
    found = _UNUSABLE.search(text)
    if found:
        line = _lines(text[: found.start()])
        raise InputError(f"{where(line)}: the character {_code(found)} has no place in YAML; delete it")
    try:
        loader = _Loader(text)
        node: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{where(line)}: not valid YAML: {_problem(error)}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where(1)}: not valid YAML: {_problem(error)}") from None
    made = _Maker(where)
    value = made.value(node, at) if node else None
    return Yaml(value, made.lines)


class _Loader(yaml.SafeLoader):
    """Stop early where a document is nested too deep or holds too much."""

    depth = values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        self.values += not (isinstance(parent, yaml.MappingNode) and index is None)  # which is a key
        for count, bound, what in (
            (self.depth, DEPTH, f"nested deeper than {DEPTH} levels"),
            (self.values, VALUES, f"more than {VALUES} values"),
        ):
            if count > bound:
                raise yaml.composer.ComposerError(None, None, what, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        made: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return made


class _Maker:
    """Make plain values of nodes."""

    def __init__(self, where: Callable[[int], str]) -> None:
        self.where = where
        self.lines: dict[Place, int] = {}
        self._scalars = yaml.constructor.SafeConstructor()
        self._inside: set[int] = set()  # the nodes around the one that is made
        self._made = 0

    def value(self, node: yaml.Node, at: Place) -> Any:
        self.lines.setdefault(at, _line(node))
        self._made += 1
        if self._made > VALUES:
            raise self._fault(node, at, f"more than {VALUES} values, counting what aliases repeat")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        if id(node) in self._inside:
            raise self._fault(node, at, "an alias of what it stands in")
        if len(self._inside) >= DEPTH:
            raise self._fault(node, at, f"nested deeper than {DEPTH} levels through aliases")
        self._inside.add(id(node))
        made: Any
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            made = [self.value(child, (*at, index)) for index, child in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            made = self._mapping(node, at)
        else:
            raise self._fault(node, at, f"the tag {shortened(repr(node.tag))} is not known here; leave it out")
        self._inside.remove(id(node))
        return made

    def _mapping(self, node: yaml.MappingNode, at: Place) -> dict[str, Any]:
        made: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._fault(key_node, at, "a key must be a word, not a list or a mapping")
            key = str(key_node.value)
            if len(key) > KEY:
                raise self._fault(key_node, at, f"a key of {len(key)} characters; at most {KEY}")
            if key in made:
                raise self._fault(key_node, (*at, key), f"duplicate key (first on line {first[key]}); keep one")
            self._refuse_unusable(key, key_node, at)
            first[key] = self.lines[(*at, key)] = _line(key_node)
            made[key] = self.value(value_node, (*at, key))
        return made

    def _scalar(self, node: yaml.ScalarNode, at: Place) -> Any:
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            long = "integer string conversion" in str(error)
            raise self._fault(node, at, _TOO_LARGE if long else _problem(error)) from None
        except (KeyError, IndexError, AttributeError, OverflowError):  # `!!bool maybe`, `!!int ""`
            raise self._fault(node, at, f"{shortened(repr(node.value))} is no {node.tag.removeprefix(_TAG)}") from None
        if isinstance(value, str):
            self._refuse_unusable(value, node, at)
        if isinstance(value, int) and not -(2**INT_BITS) <= value < 2**INT_BITS:
            raise self._fault(node, at, _TOO_LARGE)
        return value

    def _refuse_unusable(self, text: str, node: yaml.Node, at: Place) -> None:
        found = _UNUSABLE.search(text)
        if found:
            raise self._fault(node, at, f"the character {_code(found)} has no place in a text here; delete it")

    def _fault(self, node: yaml.Node, at: Place, message: str) -> InputError:
        return InputError(f"{self.where(_line(node))}: {dotted(at)}: {message}")


_TOO_LARGE = f"a whole number must be from -2^{INT_BITS} to 2^{INT_BITS} - 1"


def dotted(at: Place, whole: str = "the file") -> str:
    """Write a place as text: methods[2].max_eval_every."""
    text = ""
    for part in at:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or whole


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _lines(text: str) -> int:
    """Return the number of the line that comes after a text, as PyYAML counts."""
    return len(_LINE_BREAK.findall(text)) + 1


def _code(found: re.Match[str]) -> str:
    return f"U+{ord(found.group()):04X}"


def _problem(error: Exception) -> str:
    """Say what is wrong without the excerpt that YAML adds on further lines; a date such as 2024-13-01 is a ValueError."""
    problem = str(getattr(error, "problem", None) or error)
    if problem.startswith("but "):  # the second half of a sentence
        problem = f"{getattr(error, 'context', None) or ''}, {problem}"
    return shortened(problem)
