"""One row of a data set into text: the shapes of rows that are understood, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import DataError
from bench.settings import InstructionColumns, InstructionData, PreferenceData

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
ALPACA = "### Instruction:\n{prompt}\n\n### Response:\n"


@dataclass(frozen=True)
class PreferenceRow:
    """One preference pair as text."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class InstructionRow:
    """One instruction with its answer as text."""

    prompt: str
    answer: str


def _column(row: Mapping[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise DataError(f"{where}: no column {column!r}; it has: {', '.join(row)}; map them under 'columns'")
    return row[column]


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = _column(row, column, where)
    if isinstance(value, str):
        return value
    if value is None:
        raise DataError(f"{where}: column {column!r} is empty; fill it in, or take such rows out of the file")
    if isinstance(value, (list, dict)):
        kind = type(value).__name__
        raise DataError(f"{where}: column {column!r} holds {kind}, not text; for chat messages use format: messages")
    raise DataError(f"{where}: column {column!r} holds {value!r}, not text; write it in quotes")


def preference_row(row: Mapping[str, Any], source: PreferenceData, tokenizer: Any, where: str) -> PreferenceRow:
    """Read one preference pair; `where` names the row in an error."""
    columns = source.columns
    if source.format == "messages":
        parts = {"chosen": _column(row, columns.chosen, where), "rejected": _column(row, columns.rejected, where)}
        if columns.prompt:
            parts["prompt"] = _column(row, columns.prompt, where)
        made = _apply_chat_template(parts, tokenizer, where)
        return PreferenceRow(made["prompt"], made["chosen"], made["rejected"])
    chosen, rejected = _text(row, columns.chosen, where), _text(row, columns.rejected, where)
    if columns.prompt:
        prompt = _text(row, columns.prompt, where)
    else:
        from trl.data_utils import extract_prompt

        prompt = extract_prompt({"chosen": chosen, "rejected": rejected})["prompt"]
        if source.format == "hh_dialogue":  # two answers that begin alike share more than the dialogue
            prompt = prompt[: prompt.rfind(ASSISTANT) + len(ASSISTANT)] if ASSISTANT in prompt else prompt
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    if source.format == "hh_dialogue" and not (prompt.startswith(HUMAN) and prompt.endswith(ASSISTANT)):
        raise DataError(f"{where}: not an hh_dialogue prompt, which starts with {HUMAN!r} and ends with {ASSISTANT!r}")
    return PreferenceRow(prompt, chosen, rejected)


def instruction_row(row: Mapping[str, Any], source: InstructionData, tokenizer: Any, where: str) -> InstructionRow:
    """Read one instruction row; `where` names the row in an error."""
    columns = source.columns
    if source.format == "messages" and "messages" in row:
        *before, last = row["messages"]
        made = _apply_chat_template({"prompt": before, "completion": [last]}, tokenizer, where)
        return InstructionRow(made["prompt"], made["completion"])
    prompt = _text(row, columns.instruction, where)
    extra = _input(row, columns, where)
    prompt = f"{prompt}\n{extra}" if extra else prompt
    answer = source.answer_prefix + _text(row, columns.output, where)
    if source.format == "messages":
        turns = {
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        made = _apply_chat_template(turns, tokenizer, where)
        return InstructionRow(made["prompt"], made["completion"])
    if source.format == "alpaca":
        prompt = (source.template or ALPACA).replace("{prompt}", prompt)
    return InstructionRow(prompt, answer)


def _input(row: Mapping[str, Any], columns: InstructionColumns, where: str) -> str:
    """Return a row's input: the default column may be absent, a mapped one may not; null means none."""
    if columns.input is None or ("input" not in columns.model_fields_set and columns.input not in row):
        return ""
    return "" if row.get(columns.input, "") is None else _text(row, columns.input, where)


def _apply_chat_template(parts: dict[str, Any], tokenizer: Any, where: str) -> dict[str, str]:
    """Let TRL turn chat messages into text with the model's own template; plain strings are refused, never templated."""
    from trl.data_utils import extract_prompt, is_conversational, maybe_apply_chat_template

    if not is_conversational(parts):
        raise DataError(f"{where}: format messages needs lists of {{role, content}}; this row holds plain text")
    if tokenizer.chat_template is None:
        raise DataError(f"{where}: format messages needs a tokenizer with a chat template; this model has none")
    if "prompt" not in parts:
        parts = extract_prompt(parts)
    made: dict[str, str] = maybe_apply_chat_template(parts, tokenizer)
    return made
