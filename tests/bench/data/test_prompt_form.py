from __future__ import annotations

from typing import Any

import pytest
from byte_level import TOKENIZER

from bench.data import prompt_form
from bench.errors import DataError
from bench.settings import Data

ASKED = "What is 2 + 2?"


def data(preference: dict[str, Any], instruction: dict[str, Any] | None = None) -> Data:
    source = {"source": "local", "path": "rows.jsonl", "rows": 4}
    return Data.model_validate({"preference": source | preference, "instruction": source | (instruction or {})})


@pytest.mark.parametrize(
    ("preference", "instruction", "prompt"),
    [
        ({"format": "hh_dialogue"}, {}, f"\n\nHuman: {ASKED}\n\nAssistant:"),
        ({"format": "messages"}, {}, f"[user]{ASKED}</s>[assistant]"),
        ({}, {}, f"### Instruction:\n{ASKED}\n\n### Response:\n"),
        ({}, {"template": "User: {prompt}\nAssistant:"}, f"User: {ASKED}\nAssistant:"),
        ({}, {"template": "User: {prompt}\nAssistant:", "answer_prefix": " "}, f"User: {ASKED}\nAssistant:"),
        ({}, {"format": "messages"}, f"[user]{ASKED}</s>[assistant]"),
        ({}, {"format": "plain"}, ASKED),
        ({}, {"source": "chosen", "path": None}, ASKED),
        (
            {"source": "world", "path": None},
            {"source": "world", "path": None},
            f"Question: {ASKED}\nAnswer:",
        ),
        # the suite's own names of columns say nothing of instructions from elsewhere
        ({"columns": {"prompt": "q"}}, {"columns": {"instruction": "q", "output": "a", "system": "s"}},
         f"### Instruction:\n{ASKED}\n\n### Response:\n"),
    ],
)  # fmt: skip
def test_an_instruction_takes_the_form_of_the_suites_rows(
    preference: dict[str, Any], instruction: dict[str, Any], prompt: str
) -> None:
    settings = data(preference, instruction)
    assert prompt_form.prompts([ASKED], settings, TOKENIZER, "set") == [prompt]


def test_what_decides_the_form_is_its_identity() -> None:
    """The template counts where it is used, and alone there; so does the limit that cuts prompts."""
    chat, plain = data({"format": "messages"}), data({})
    other = {"template": "{prompt}"}
    assert prompt_form.form(chat) == prompt_form.form(data({"format": "messages"}, other))
    assert prompt_form.form(plain) != prompt_form.form(data({}, other))
    assert prompt_form.form(plain) != prompt_form.form(plain.model_copy(update={"max_prompt_tokens": 7}))


def test_only_a_dialogue_ends_at_the_next_human_turn() -> None:
    assert prompt_form.stops(data({"format": "hh_dialogue"})) == ("\n\nHuman:",)
    assert prompt_form.stops(data({})) == ()


def test_an_instruction_that_cannot_be_written_is_named() -> None:
    with pytest.raises(DataError, match=r"^my set: row 2: column 'instruction' is empty"):
        prompt_form.prompts([ASKED, " "], data({}), TOKENIZER, "my set")
