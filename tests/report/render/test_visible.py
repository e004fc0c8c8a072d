"""Characters that nobody sees are shown, in every text of a page and of Markdown."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest

from report.build import build
from report.render.markdown import escape
from report.render.visible import visible

OVERRIDE, ISOLATE, ZERO_WIDTH, ESCAPE, TAG = "\u202e", "\u2066", "\u200b", "\x1b", "\U000e0041"
HIDDEN = f"safe{OVERRIDE}txt{ISOLATE}.exe{ZERO_WIDTH} {ESCAPE}[31mred\x9b0m \x00 | `a` <b>{TAG}</b> \u2028end\ufeff"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\x1b[31m", "⟨U+001B⟩[31m"),
        ("a\u200bb\ufeff", "a⟨U+200B⟩b⟨U+FEFF⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("one\r\ntwo\tthree\rfour", "one\ntwo\tthree⟨U+000D⟩four"),
        ("שלום، 你好, é, λ ± −", "שלום، 你好, é, λ ± −"),
        ("👩\u200d💻 می\u200cخواهم", "👩\u200d💻 می\u200cخواهم"),
        ("a\u200db", "a⟨U+200D⟩b"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_every_control_and_format_character_is_shown() -> None:
    """What Unicode itself calls a control, a format character or a separator of lines; numbers signs of Arabic are printed."""
    unseen = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp")]
    printed = {
        one
        for one in unseen
        if unicodedata.name(one, "").startswith(("ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN", "SHORTHAND"))
    }
    left = {one for one in unseen if visible(one) == one}
    assert left - printed == {"\t", "\n"}
    assert "\u061c" not in left


def test_escape_shows_before_it_joins_lines() -> None:
    assert escape(f"a{OVERRIDE}b | c\u2028d") == "a⟨U+202E⟩b \\| c⟨U+2028⟩d"


def test_no_unseen_character_reaches_a_page(writer: Callable[..., Any]) -> None:
    """A label, a description, a note, answers and an error message with all kinds of them."""
    made = writer(description=HIDDEN, notes=[HIDDEN], methods=[{"name": "mix", "label": HIDDEN}])
    made.behind((0,))
    labels = {
        "method": HIDDEN,
        "base_method": "mix",
        "lambda_dpo": 0.5,
        "seed": 0,
        "phase_steps": {"dpo": 50, "sft": 50},
    }
    made.train("mix-s0", ["run"], labels, {"dpo": 0.4, "sft": 1.5}, 1.0)
    made.evaluate("mix-s0", 0.5, 50.0, answer=HIDDEN)
    folder = made.job("mix-s1", "train", labels | {"seed": 1}, roles=["run"], outcome="failed")
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    (folder / "status.json").write_text(json.dumps(status | {"message": HIDDEN}), encoding="utf-8")
    made.finish()
    build(made.folder)
    for name in ("report.html", "report.md", "index.html"):
        text = (made.folder / name).read_text(encoding="utf-8")
        unseen = {one for one in text if unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn")} - {
            "\n",
            "\t",
        }
        assert unseen == set(), name
        assert "⟨U+202E⟩" in text or name == "index.html"
