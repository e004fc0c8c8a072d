"""A message is one line, whatever it quotes."""

from __future__ import annotations

from bench.errors import InputError, shortened, unknown_name


def test_a_message_that_quotes_a_line_break_or_a_terminal_code_is_one_printable_line() -> None:
    assert str(InputError("a\nb\x1b[31m\ud800: λ × 2")) == "a\\nb\\x1b[31m\\ud800: λ × 2"


def test_what_is_quoted_is_cut() -> None:
    assert shortened("x" * 200) == "x" * 200
    assert shortened("x" * 201) == "x" * 200 + "… (201 characters)"
    assert unknown_name("key", "x" * 5000, ["a"]) == f"unknown key '{'x' * 199}… (5002 characters); known: a"
