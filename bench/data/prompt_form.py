"""Put an instruction that comes from elsewhere into the form that a suite's own prompts have.

Instructions take the way that the suite's rows take: the dialogue or chat template of its preference pairs, whose held-out
prompts policies answer else; where those are plain texts, the template or chat form of its instruction rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.data.conversations import RowError
from bench.data.rows import ALPACA, ASSISTANT, HUMAN, InstructionReader, PreferenceReader
from bench.data.world import PROMPT
from bench.errors import DataError
from bench.settings import Data, InstructionColumns, PreferenceColumns

# Readers take whole rows; which answer follows a prompt does not change it.
_ANSWER = "Yes."


def stops(data: Data) -> tuple[str, ...]:
    """Return the strings that end an answer in this form: the next human turn of a dialogue."""
    return (HUMAN,) if data.preference.format == "hh_dialogue" else ()


def form(data: Data) -> dict[str, Any]:
    """Return what decides how an instruction becomes a prompt, for identities."""
    pairs, rows = data.preference, data.instruction
    made: dict[str, Any] = {"max_prompt_tokens": data.max_prompt_tokens}
    if pairs.source == "world":
        return made | {"template": PROMPT}
    if pairs.format != "plain" or rows.source == "chosen":
        return made | {"format": pairs.format}
    template = {"template": rows.template or ALPACA} if rows.format == "alpaca" else {}
    return made | {"format": rows.format, **template}


def prompts(instructions: Sequence[str], data: Data, tokenizer: Any, whose: str) -> list[str]:
    """Write each instruction as the suite's prompts are written.

    Args:
        instructions: as text.
        data: the suite's data settings.
        tokenizer: of the model, for its chat template and its control tokens.
        whose: what an error begins with, such as the name of the set.

    Raises:
        DataError: an instruction cannot be written so; says which, counted from 1.
    """
    if data.preference.source == "world":
        return [PROMPT.format(question=one) for one in instructions]
    write = _writer(data, tokenizer)
    made = []
    for place, instruction in enumerate(instructions, 1):
        try:
            made.append(write(instruction))
        except (RowError, DataError) as error:
            raise DataError(f"{whose}: row {place}: {error}") from None
    return made


def _writer(data: Data, tokenizer: Any) -> Any:
    pairs = data.preference.model_copy(update={"columns": PreferenceColumns()})
    rows = data.instruction.model_copy(update={"columns": InstructionColumns(input=None)})
    as_pair = pairs.format != "plain" or rows.source == "chosen"
    reader = PreferenceReader(tokenizer) if as_pair else InstructionReader(tokenizer)

    def write(instruction: str) -> str:
        if isinstance(reader, InstructionReader):
            row = reader.row({"instruction": instruction, "output": _ANSWER}, rows)
            reader.check(row)
            return row.prompt
        asked = f"{HUMAN} {instruction}{ASSISTANT}" if pairs.format == "hh_dialogue" else instruction
        pair = reader.pair({"prompt": asked, "chosen": _ANSWER, "rejected": _ANSWER}, pairs)
        reader.check(pair)
        return pair.prompt

    return write
