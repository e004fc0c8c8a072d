"""Read the text of a choice into an `Expression`, by hand: numbers, names and a few signs, and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bench.errors import InputError
from report.choose.expression import (
    COMPARE,
    Arithmetic,
    Comparison,
    Condition,
    Expression,
    Figure,
    Logic,
    Node,
    Number,
    Part,
    Term,
    figures,
)

EXAMPLE = "mmlu >= base - 1 and seconds <= 1.1 * sequential, maximize win_rate"
HELD = ("base", "sequential", "reference")
GOALS = ("maximize", "minimize")
_SPELLED = {"maximise": "maximize", "minimise": "minimize", "max": "maximize", "min": "minimize"}
LONGEST, DEEPEST = 1000, 30

_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)|(?P<sign><=|>=|==|!=|[-+*/<>(),])"
)
_WRITTEN = str.maketrans({"≤": "<=", "≥": ">=", "≠": "!=", "−": "-", "×": "*"})


def parse(text: str, names: Iterable[str] = ()) -> Expression:
    """Read a choice.

    Args:
        text: the choice.
        names: figures whose names hold signs, such as mmlu/acc, which as a whole go before a division.

    Raises:
        InputError: one line that says at which column what is wrong, and what is allowed there.
    """
    if len(text) > LONGEST:
        raise InputError(f"--choose: {len(text)} characters; at most {LONGEST} are read")
    shown = "".join(letter if letter.isprintable() else " " for letter in text.translate(_WRITTEN))
    return _Parser(shown, names).choice()


def wrong(text: str, at: int, message: str) -> InputError:
    """Return the error for a place in the text: its column, what is wrong, and the text with a mark before the place."""
    start, end = max(0, at - 20), at + 20
    shown = f"{'…' if start else ''}{text[start:at]}▸{text[at:end]}{'…' if end < len(text) else ''}"
    return InputError(f"--choose, column {at + 1}: {message} ({shown})")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


class _Parser:
    """Read a choice by recursive descent; every method reads one rule of the grammar, from loosest to tightest."""

    def __init__(self, text: str, names: Iterable[str] = ()) -> None:
        self.text, self.place, self.depth = text, 0, 0
        self.names = sorted(names, key=len, reverse=True)
        self.tokens = list(self._split())

    def _split(self) -> Iterator[_Token]:
        at = 0
        while at < len(self.text):
            if self.text[at].isspace():
                at += 1
                continue
            if named := next((one for one in self.names if self._stands(one, at)), ""):
                yield _Token("name", named, at)
                at += len(named)
                continue
            found = _TOKEN.match(self.text, at)
            if self.text[at] == "%":
                raise wrong(self.text, at, "percentages are written as a number alone, such as mmlu >= 40")
            if found is None:
                raise wrong(self.text, at, f"{self.text[at]!r} means nothing here; for instance: {EXAMPLE}")
            yield _Token(str(found.lastgroup), found.group(), at)
            at = found.end()
        yield _Token("end", "the end", len(self.text))

    def _stands(self, name: str, at: int) -> bool:
        """Say whether a name stands at a place, and ends there."""
        after = self.text[at + len(name) : at + len(name) + 1]
        return self.text.startswith(name, at) and not (after.isalnum() or after == "_")

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    @property
    def read_to(self) -> int:
        """Where the last token that was read ends."""
        last = self.tokens[self.place - 1]
        return last.at + len(last.text)

    def take(self, *texts: str) -> _Token | None:
        """Read the next token if it is one of these."""
        token = self.next
        if token.text not in texts or token.kind == "end":
            return None
        self.place += 1
        return token

    def wrong(self, at: int, message: str) -> InputError:
        return wrong(self.text, at, message)

    def _hint(self) -> str:
        """Name the word that was meant, where another spelling of it stands."""
        meant = next((_SPELLED[token.text] for token in self.tokens if token.text in _SPELLED), None)
        return f"; did you mean {meant!r}?" if meant else ""

    # ---- the rules --------------------------------------------------------------------------------------------------

    def choice(self) -> Expression:
        parts: tuple[Condition, ...] = ()
        if self.next.text not in GOALS:
            whole = self.condition(self.alternative)
            parts = whole.parts if isinstance(whole, Logic) and whole.word == "and" else (whole,)
            if not self.take(","):
                raise self.wrong(self.next.at, f"a comma and {' or '.join(GOALS)} are expected here{self._hint()}")
        word = self.take(*GOALS)
        if word is None:
            raise self.wrong(self.next.at, f"{' or '.join(GOALS)} is expected here, and then of what{self._hint()}")
        start = self.next.at
        goal = self.bind(self.number(self.sum), start)
        if self.next.kind != "end":
            raise self.wrong(self.next.at, "the end is expected here; conditions stand before the comma")
        shown = tuple(Part(self.text[part.at : part.end], part) for part in parts)
        return Expression(self.text, shown, word.text == "maximize", goal, self.text[start:].strip())

    def alternative(self) -> Node:
        return self.joined("or", self.conjunction)

    def conjunction(self) -> Node:
        return self.joined("and", self.negation)

    def joined(self, word: str, rule: Callable[[], Node]) -> Node:
        start = self.next.at
        found = rule()
        if self.next.text != word:
            return found
        parts = [self.as_condition(found, start)]
        while self.take(word):
            parts.append(self.condition(rule))
        return Logic(word, tuple(parts), start, self.read_to)

    def negation(self) -> Node:
        token = self.take("not")
        if token is None:
            return self.comparison()
        with self.deeper(token.at):
            return Logic("not", (self.condition(self.negation),), token.at, self.read_to)

    def comparison(self) -> Node:
        start = self.next.at
        found = self.sum()
        if self.next.text not in COMPARE:
            return found
        terms, signs = [self.as_number(found, start)], []
        while sign := self.take(*COMPARE):
            signs.append(sign.text)
            terms.append(self.number(self.sum))
        return self.bind_comparison(tuple(terms), tuple(signs), start)

    def sum(self) -> Node:
        return self.computed(("+", "-"), self.product)

    def product(self) -> Node:
        return self.computed(("*", "/"), self.signed)

    def computed(self, signs: tuple[str, ...], rule: Callable[[], Node]) -> Node:
        start = self.next.at
        found = rule()
        while sign := self.take(*signs):
            found = Arithmetic(sign.text, self.as_number(found, start), self.number(rule), start)
        return found

    def signed(self) -> Node:
        token = self.take("-")
        if token is None:
            return self.atom()
        with self.deeper(token.at):
            return Arithmetic("-", Number(0.0, token.at), self.number(self.signed), token.at)

    def atom(self) -> Node:
        token = self.next
        if opened := self.take("("):
            with self.deeper(opened.at):
                found = self.alternative()
            if not self.take(")"):
                raise self.wrong(self.next.at, "a closing parenthesis is expected here")
            return found
        if token.kind == "number":
            self.place += 1
            if not math.isfinite(float(token.text)):
                raise self.wrong(token.at, "this number is too large")
            return Number(float(token.text), token.at)
        if token.kind == "name" and token.text not in ("and", "or", "not", *GOALS):
            self.place += 1
            return Figure("", token.at, token.text) if token.text in HELD else Figure(token.text, token.at)
        raise self.wrong(token.at, f"a number, or the name of a figure, is expected here, not {token.text}")

    # ---- what kind of thing was read --------------------------------------------------------------------------------

    def number(self, rule: Callable[[], Node]) -> Term:
        start = self.next.at
        return self.as_number(rule(), start)

    def condition(self, rule: Callable[[], Node]) -> Condition:
        start = self.next.at
        return self.as_condition(rule(), start)

    def as_number(self, node: Node, at: int) -> Term:
        if isinstance(node, Comparison | Logic):
            raise self.wrong(at, "a number is expected here, not a condition")
        return node

    def as_condition(self, node: Node, at: int) -> Condition:
        if not isinstance(node, Comparison | Logic):
            raise self.wrong(at, f"a condition is expected here, such as mmlu >= 40, not a number alone{self._hint()}")
        return node

    def bind_comparison(self, terms: tuple[Term, ...], signs: tuple[str, ...], at: int) -> Comparison:
        made = Comparison(terms, signs, at, self.read_to)
        name = self.compared(made, at)
        return replace(made, terms=tuple(_bound(term, name) for term in terms))

    def bind(self, goal: Term, at: int) -> Term:
        name = self.compared(goal, at)
        if not name:
            raise self.wrong(at, "this names no figure, so every recipe would be equal")
        return _bound(goal, name)

    def compared(self, node: Node, at: int) -> str:
        """Return the one figure whose value `base` and the like stand for; "" where nothing stands for one."""
        names = list(dict.fromkeys(one.name for one in figures(node) if one.of == "recipe"))
        held = next((one for one in figures(node) if one.of != "recipe"), None)
        if held is not None and len(names) != 1:
            which = f"several are compared here: {', '.join(names)}" if names else "none is compared here"
            raise self.wrong(
                held.at, f"{held.of!r} stands for that policy's value of the one figure compared, but {which}"
            )
        return names[0] if names else ""

    @contextmanager
    def deeper(self, at: int) -> Iterator[None]:
        """Count how deep the text is nested: beyond what anyone writes by hand it is refused."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.wrong(at, f"nested more than {DEEPEST} deep")
        yield
        self.depth -= 1


def _bound(term: Term, name: str) -> Term:
    """Tell `base` and the like which figure they stand for."""
    if isinstance(term, Arithmetic):
        return replace(term, left=_bound(term.left, name), right=_bound(term.right, name))
    if isinstance(term, Figure) and not term.name:
        return replace(term, name=name)
    return term
