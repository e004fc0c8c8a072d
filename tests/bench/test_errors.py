from __future__ import annotations

import pytest

from bench.errors import InputError, JudgeStopped, one_line, shortened, unknown_name


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain  text, twice spaced – 95 % of λ", "plain  text, twice spaced – 95 % of λ"),
        ("two\nlines\tand\u2028three\r\n", "two lines and three"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;bm8=", "52;c;bm8="),  # never ended: nothing of the message may vanish with it
        ("\x1bc\x1b(Breset", "reset"),
        ("\x9b2Jcleared", "2Jcleared"),
        ("back\x08\x08\x00\x7f bell\x07", "back bell"),
        ("\u202egnp.exe\u200b\ufeff", "gnp.exe"),
        ("half \ud800 a pair", "half  a pair"),
        ("\x1b", ""),
    ],
)
def test_what_others_wrote_does_nothing_to_a_terminal(text: str, line: str) -> None:
    assert one_line(text) == line


def test_a_long_text_is_cut_after_it_was_cleaned() -> None:
    assert one_line("\x1b[31m" * 100 + "abcdef", 4) == "abcd"


@pytest.mark.parametrize("kind", [InputError, JudgeStopped])
def test_every_message_is_one_clean_line(kind: type[Exception]) -> None:
    assert str(kind("the hub says: \x1b[2Jgone\nfor good")) == "the hub says: gone for good"


def test_what_is_quoted_is_cut() -> None:
    assert shortened("x" * 200) == "x" * 200
    assert shortened("a\nb\x1b[31m\ud800: λ × 2") == "a\\nb\\x1b[31m\\ud800: λ × 2"
    assert shortened("x" * 201) == "x" * 200 + "… (201 characters)"
    assert unknown_name("key", "x" * 5000, ["a"]) == f"unknown key '{'x' * 199}… (5002 characters); known: a"
