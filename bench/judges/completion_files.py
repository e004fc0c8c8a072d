"""Files of answers as AlpacaEval keeps them: rows of instruction and output, in JSON or JSON lines."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.judges.requests import Pair


def pairs(outputs: Path, reference: Path) -> list[Pair]:
    """Put two files of answers to the same instructions side by side.

    Rows are matched by their instruction; instructions that repeat are matched in their order.

    Raises:
        InputError: a file that cannot be read, or an instruction that only one of them answers.
    """
    ours, theirs = read(outputs), read(reference)
    waiting: dict[str, deque[str]] = defaultdict(deque)
    for row in theirs:
        waiting[row["instruction"]].append(row["output"])
    made = []
    for place, row in enumerate(ours):
        if not waiting[row["instruction"]]:
            raise InputError(
                f"{outputs}: row {place + 1}: {reference} has no answer to {_shortened(row['instruction'])}; both files "
                "must answer the same instructions"
            )
        made.append(Pair(place, row["instruction"], row["output"], waiting[row["instruction"]].popleft()))
    left = next((instruction for instruction, answers in waiting.items() if answers), None)
    if left is not None:
        raise InputError(
            f"{reference}: {outputs} has no answer to {_shortened(left)}; both files must answer the same instructions"
        )
    return made


def read(path: Path) -> list[dict[str, str]]:
    """Read the rows of a file of instructions and outputs.

    Raises:
        InputError: it cannot be read, is empty, or a row lacks a text.
    """
    read = rows(path)
    for place, row in enumerate(read, 1):
        for name in ("instruction", "output"):
            _check(path, place, row, name)
    return read


def rows(path: Path) -> list[Any]:
    """Read the rows of a file: a JSON array, or one JSON object a line.

    Raises:
        InputError: it is neither, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        lines = (line for line in text.split("\n") if line.strip())  # texts hold U+2028 and form feeds
        read = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in lines]
    except ValueError as error:
        raise InputError(f"{path}: neither a JSON array nor JSON lines: {error}") from None
    if not read:
        raise InputError(f"{path}: holds no answer")
    return list(read)


def _check(path: Path, place: int, row: Any, name: str) -> None:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, str):
        has = f"it has {', '.join(map(str, row))}" if isinstance(row, dict) else f"it is {row!r:.40}"
        raise InputError(f"{path}: row {place}: no text under {name!r}, as AlpacaEval has it; {has}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}: row {place}: {name!r} holds half of a surrogate pair, which is no text") from None


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
