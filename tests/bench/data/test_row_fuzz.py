"""Rows of any nesting, type and text: each becomes a row or a refusal in lines that name file and row."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from byte_level import byte_tokenizer, pairs, rows, write_jsonl

from bench.data import sources, tokens
from bench.errors import DataError
from bench.settings import Data

WORDS = [
    "",
    " ",
    "a",
    "Grüße",
    "日本 語",
    "</s>",
    "<s>x",
    "e\u0301",
    "\ud800",
    "\U000f0000",
    "[{",
    '[{"role": "user"}]',
    "\n\nHuman:",
]
NAMES = [
    *("prompt", "chosen", "rejected", "messages", "conversations", "instruction", "input", "output", "system"),
    *("question", "completion", "answers", "rank", "score", "message_id", "parent_id", "role", "text"),
]
ROLES = ["user", "assistant", "system", "human", "gpt", "USER", "tool", "robot", None, 3, ["user"]]


def value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.randrange(9 if depth < 3 else 5)
    if kind < 3:
        return draw.choice(WORDS)
    if kind < 5:
        return draw.choice([None, 0, -1.5, True, 10**400, float("nan"), float("inf")])
    if kind == 5:
        return {draw.choice(NAMES): value(draw, depth + 1) for _ in range(draw.randrange(3))}
    if kind == 6:
        return [value(draw, depth + 1) for _ in range(draw.randrange(4))]
    return [
        {**dict([draw.choice([("role", draw.choice(ROLES)), ("from", draw.choice(ROLES))])]), name: value(draw, 2)}
        for name in draw.choices(["content", "value", "weight"], k=draw.randrange(4))
    ]


@pytest.mark.parametrize("drop", [False, True])
def test_any_row_becomes_text_or_a_refusal(tmp_path: Path, drop: bool) -> None:
    """Any other error than a DataError fails the test with its traceback; the seed is the case's number."""
    tokenizers = [byte_tokenizer(), byte_tokenizer(bos=True)]
    for seed in range(500):
        draw = random.Random(seed)
        names = draw.sample(NAMES, draw.randrange(1, 8))
        if draw.random() < 0.15:
            names = ["message_id", "parent_id", "role", "text", "rank"]
        made = [{name: value(draw) for name in names} for _ in range(3)]
        path = write_jsonl(tmp_path / f"{seed}.jsonl", made)
        source: Any
        if draw.random() < 0.5:
            columns = draw.choice([{}, {"prompt": None}, {"answers": "answers", "ranking": "rank"}])
            source = pairs(path, format=draw.choice(["plain", "hh_dialogue", "messages"]), columns=columns)
        else:
            source = rows(path, format=draw.choice(["plain", "alpaca", "messages"]))
        tokenizer = draw.choice(tokenizers)
        settings = Data.model_construct(max_prompt_tokens=8, max_answer_tokens=8)
        try:
            loaded = sources.load_rows(source, "train", draw.randrange(1, 4), tokenizer, None, drop=drop)
            split = tokens.tokenize(loaded.rows, tokenizer, settings, loaded)
        except DataError as error:
            assert error.exit_code == 2, seed
            assert str(path) in str(error), seed
            assert all(line.strip() for line in str(error).splitlines()), seed
            continue
        assert all(example.prompt and all(example.answers) for example in split.examples), seed
