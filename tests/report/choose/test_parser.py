"""The text of a choice: what it means, and that nothing but numbers, names and a few signs is ever read."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bench.errors import InputError
from report.choose.expression import Figure, evaluate, holds
from report.choose.parser import DEEPEST, LONGEST, parse

VALUES = {
    ("mmlu", "recipe"): 45.0,
    ("mmlu", "base"): 44.0,
    ("seconds", "recipe"): 12.0,
    ("seconds", "sequential"): 10.0,
    ("tokens", "recipe"): 0.0,
}


def look(figure: Figure) -> np.ndarray:
    return np.array([VALUES[figure.name, figure.of]])


def goal(text: str) -> float:
    return float(evaluate(parse(f"maximize {text}").goal, look).reshape(-1)[0])


def condition(text: str) -> bool:
    return all(bool(np.ravel(holds(part.node, look))[0]) for part in parse(f"{text}, maximize mmlu").conditions)


def test_the_example_reads_as_two_conditions_and_a_goal() -> None:
    read = parse("mmlu >= base - 1 and seconds <= 1.1 * sequential, maximize win_rate")
    assert [part.text for part in read.conditions] == ["mmlu >= base - 1", "seconds <= 1.1 * sequential"]
    assert (read.maximize, read.goal_text) == (True, "win_rate")
    asked = [(figure.of, figure.name) for figure in read.figures]
    assert asked == [
        ("recipe", "mmlu"),
        ("base", "mmlu"),
        ("recipe", "seconds"),
        ("sequential", "seconds"),
        ("recipe", "win_rate"),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mmlu + 2 * 3", 51.0),
        ("(mmlu + 2) * 3", 141.0),
        ("mmlu - 5 - 3", 37.0),
        ("mmlu / 5 / 3", 3.0),
        ("-mmlu - -1", -44.0),
        ("mmlu - base", 1.0),
        ("2e1 * mmlu", 900.0),
        ("mmlu × 2 − .5", 89.5),
    ],
)
def test_arithmetic_binds_as_in_school(text: str, value: float) -> None:
    assert goal(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mmlu >= base - 1", True),  # 45 >= 43
        ("seconds <= 1.1 * sequential", False),  # 12 <= 11
        ("seconds ≤ 1.2 * sequential", True),  # 12 <= 12
        ("40 < mmlu < 45", False),
        ("40 < mmlu <= 45", True),
        ("mmlu == 45 and seconds != 12", False),
        ("seconds > 20 and mmlu > 20 or mmlu > 40", True),  # `and` binds tighter than `or`
        ("seconds > 20 and (mmlu > 20 or mmlu > 40)", False),
        ("not seconds > 20 and mmlu > 40", True),  # `not` binds tighter than `and`
        ("not (seconds > 20 or mmlu > 40)", False),
        ("(mmlu + 1) * 2 > 91", True),
    ],
)
def test_conditions_bind_as_in_python(text: str, value: bool) -> None:
    assert condition(text) is value


def test_a_goal_needs_no_condition_and_may_be_minimized() -> None:
    read = parse("  minimize seconds - sequential ")
    assert (read.conditions, read.maximize, read.goal_text) == ((), False, "seconds - sequential")


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "is expected here, not the end"),
        ("mmlu > 1", 9, "a comma and maximize or minimize are expected"),
        ("mmlu > 1 maximize mmlu", 10, "a comma and maximize or minimize are expected"),
        ("mmlu > 1, mmlu", 11, "maximize or minimize is expected"),
        ("mmlu, maximize mmlu", 1, "a condition is expected here"),
        ("mmlu > 1 and 3, maximize mmlu", 14, "a condition is expected here"),
        ("(mmlu > 1) + 1 > 2, maximize mmlu", 1, "a number is expected here, not a condition"),
        ("maximize mmlu > 1", 15, "the end is expected here"),
        ("maximize (mmlu > 1)", 10, "a number is expected here, not a condition"),
        ("maximize 3", 10, "names no figure"),
        ("maximize base", 10, "none is compared here"),
        ("mmlu + tokens > base, maximize mmlu", 17, "several are compared here: mmlu, tokens"),
        ("(mmlu > 1, maximize mmlu", 10, "closing parenthesis"),
        ("maximize mmlu maximize", 15, "the end is expected"),
        ("mmlu > 1e999, maximize mmlu", 8, "too large"),
        ("maximize and", 10, "is expected here, not and"),
    ],
)
def test_an_error_is_one_line_that_names_the_column(text: str, column: int, message: str) -> None:
    with pytest.raises(InputError, match=f"column {column}: ") as caught:
        parse(text)
    assert message in str(caught.value)
    assert "▸" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true') > 0, maximize mmlu",
        "maximize mmlu.__class__",
        "maximize eval(mmlu)",
        "maximize (lambda: 1)()",
        "maximize [mmlu][0]",
        "maximize {mmlu}",
        "maximize mmlu ** 9 ** 9 ** 9",
        "maximize 9**9**9",
        "maximize mmlu if mmlu else 1",
        "maximize mmlu; import os",
        "maximize (x := mmlu)",
        'maximize f"{mmlu}"',
        "maximize `mmlu`",
        "maximize mmlu @ mmlu",
        "maximize mmlu % 2",
        "maximize mmlu // 2",
        "maximize mmlu << 99",
        "maximize mmlu\\\n.x",
        "maximize 0x10 * mmlu",
        "maximize 1_000 * mmlu",
        "maximize \x00mmlu\x00)",
        "maximize " + "(" * (DEEPEST + 1) + "mmlu" + ")" * (DEEPEST + 1),
        "maximize " + "-" * (DEEPEST + 1) + "mmlu",
        "not " * (DEEPEST + 1) + "mmlu > 1, maximize mmlu",
        "maximize mmlu" + " " * LONGEST,
    ],
)
def test_what_is_not_of_the_language_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^--choose") as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_long_flat_text_is_read_without_deep_recursion_trouble() -> None:
    """450 terms: 1 + 1 + … + mmlu is 449 + 45."""
    assert goal("1+" * 449 + "mmlu") == 494.0


def test_random_texts_are_read_or_refused_in_one_line() -> None:
    """No text whatever raises anything but InputError."""
    chance = random.Random(0)
    pieces = ["mmlu", "base", "seconds", "(", ")", "and", "or", "not", ",", "maximize", "minimize", "1", "2.5", ">="]
    pieces += ["<", "==", "+", "-", "*", "/", "**", ".", "'", "__class__", "\n", "λ", "\u202e", "1e400", "[", "lambda"]
    for _ in range(3000):
        text = " ".join(chance.choices(pieces, k=chance.randint(1, 8)))
        try:
            parse(text if chance.random() < 0.5 else f"{text}, maximize mmlu")
        except InputError as error:
            assert "\n" not in str(error)


def test_random_conditions_mean_what_they_mean_in_python() -> None:
    """Numbers, signs and words bind as Python's; Python's own evaluation of the same text is the expected value."""
    chance = random.Random(1)

    def term(depth: int) -> str:
        if depth == 0 or chance.random() < 0.3:
            return chance.choice(["mmlu", "seconds", str(chance.randint(1, 60)), "0.5"])
        made = f"{term(depth - 1)} {chance.choice('+-*/')} {term(depth - 1)}"
        return chance.choice([made, f"({made})", f"-{term(depth - 1)}"])

    def whole(depth: int) -> str:
        if depth == 0 or chance.random() < 0.3:
            signs = ["<", "<=", ">", ">=", "==", "!="]
            return f"{term(2)} {chance.choice(signs)} {term(2)}"
        made = f"{whole(depth - 1)} {chance.choice(['and', 'or'])} {whole(depth - 1)}"
        return chance.choice([made, f"({made})", f"not {whole(depth - 1)}"])

    for _ in range(500):
        text = whole(3)
        try:
            expected = eval(text, {}, {"mmlu": 45.0, "seconds": 12.0})  # noqa: S307
        except ZeroDivisionError:
            continue
        assert condition(text) is bool(expected), text
