"""A small language for choosing a recipe: `mmlu >= base - 1 and seconds <= 1.1 * sequential, maximize win_rate`.

::

    choice      = [condition ","] ("maximize" | "minimize") number
    condition   = condition "or" condition | condition "and" condition | "not" condition | "(" condition ")"
                | number (("<" | "<=" | ">" | ">=" | "==" | "!=") number)+
    number      = number ("+" | "-" | "*" | "/") number | "-" number | "(" number ")" | 1.5 | figure | held
    held        = "base" | "sequential" | "reference": that policy's value of the one figure in the same comparison

`expression_parser.py` reads the text by hand and makes these nodes; nothing is ever run as Python. To evaluate them is
arithmetic on NumPy arrays, one entry a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Truths: TypeAlias = NDArray[np.bool_]

COMPARE: dict[str, Callable[..., Truths]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}
COMPUTE: dict[str, Callable[..., Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}


@dataclass(frozen=True)
class Number:
    """Be a constant."""

    value: float
    at: int


@dataclass(frozen=True)
class Figure:
    """Be a recipe's value of a figure, or that of the policy it is held against (`of`)."""

    name: str
    at: int = field(compare=False)
    of: str = "recipe"


@dataclass(frozen=True)
class Arithmetic:
    """Join two numbers by + − × /."""

    sign: str
    left: Term
    right: Term
    at: int


@dataclass(frozen=True)
class Comparison:
    """Compare numbers in a chain, as a < b <= c."""

    terms: tuple[Term, ...]
    signs: tuple[str, ...]
    at: int
    end: int


@dataclass(frozen=True)
class Logic:
    """Join conditions by `and`, `or` or `not` (which has one part)."""

    word: str
    parts: tuple[Condition, ...]
    at: int
    end: int


Term: TypeAlias = Number | Figure | Arithmetic
Condition: TypeAlias = Comparison | Logic
Node: TypeAlias = Term | Condition
Look: TypeAlias = Callable[[Figure], Floats]


@dataclass(frozen=True)
class Part:
    """One of the conditions that must all hold, with its own text."""

    text: str
    node: Condition


@dataclass(frozen=True)
class Expression:
    """A parsed choice.

    Attributes:
        conditions: the parts that the outermost `and` joins; empty: every recipe may be chosen.
        goal: what is to be largest (`maximize`) or smallest.
    """

    text: str
    conditions: tuple[Part, ...]
    maximize: bool
    goal: Term
    goal_text: str

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Every value that the expression asks for, once each, in the order in which they stand."""
        nodes: tuple[Node, ...] = (*(part.node for part in self.conditions), self.goal)
        return tuple(dict.fromkeys(one for node in nodes for one in figures(node)))


def figures(node: Node) -> Iterator[Figure]:
    """Yield every value that a node asks for."""
    if isinstance(node, Figure):
        yield node
    elif isinstance(node, Arithmetic):
        yield from figures(node.left)
        yield from figures(node.right)
    elif isinstance(node, Comparison | Logic):
        for part in node.terms if isinstance(node, Comparison) else node.parts:
            yield from figures(part)


def comparisons(node: Condition) -> Iterator[Comparison]:
    """Yield every comparison of a condition."""
    if isinstance(node, Comparison):
        yield node
    else:
        for part in node.parts:
            yield from comparisons(part)


def evaluate(term: Term, look: Look) -> Floats:
    """Compute a number; NaN or infinite where it divides by 0.

    Args:
        look: returns a figure's values, one a draw.
    """
    if isinstance(term, Number):
        return np.asarray(term.value)
    if isinstance(term, Figure):
        return look(term)
    with np.errstate(all="ignore"):
        return COMPUTE[term.sign](evaluate(term.left, look), evaluate(term.right, look))


def holds(condition: Condition, look: Look) -> Truths:
    """Say where a condition holds; what compares NaN means nothing, see `defined`."""
    if isinstance(condition, Comparison):
        values = np.broadcast_arrays(*(evaluate(term, look) for term in condition.terms))
        found = np.ones(values[0].shape, dtype=np.bool_)
        for sign, left, right in zip(condition.signs, values[:-1], values[1:], strict=True):
            found &= COMPARE[sign](left, right)
        return found
    parts = np.broadcast_arrays(*(holds(part, look) for part in condition.parts))
    if condition.word == "not":
        return ~parts[0]
    return cast(Truths, np.all(parts, axis=0) if condition.word == "and" else np.any(parts, axis=0))


def defined(node: Node, look: Look) -> Truths:
    """Say where every number of a node is finite: nothing divides by 0 and nothing is missing."""
    if isinstance(node, Logic):
        return cast(Truths, np.all(np.broadcast_arrays(*(defined(part, look) for part in node.parts)), axis=0))
    terms = node.terms if isinstance(node, Comparison) else (node,)
    return cast(Truths, np.isfinite(np.broadcast_arrays(*(evaluate(term, look) for term in terms))).all(axis=0))
