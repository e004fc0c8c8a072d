"""`bench init DATA`: from files of the usual public shapes to a suite that reads them, and from one to a report."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from byte_level import byte_tokenizer

from bench.cli import init
from bench.data import tokens
from bench.errors import DataError, InputError
from bench.methods import Objective
from bench.suite import yaml_file
from bench.suite.suite import Suite

WORDS = ["red", "blue", "cat", "dog", "river", "stone", "light", "moon", "seven", "garden", "walk", "sing"]
Rows = list[dict[str, Any]]


def said(chance: random.Random, count: int) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(count))


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def ultrafeedback(chance: random.Random) -> Rows:
    made = []
    for number in range(100):
        asked = f"{said(chance, 4)} {number}?"
        pair = {name: turns(asked, said(chance, 5) + name[0]) for name in ("chosen", "rejected")}
        made.append({"prompt": asked, "prompt_id": str(number), **pair, "score_chosen": 8.0})
    return made


def helpsteer(chance: random.Random) -> Rows:
    """Two answers to each prompt, a row each; the second is the more helpful one."""
    return [
        {"prompt": f"Say {number // 2}", "response": f"{said(chance, 5)} {number % 2}", "helpfulness": number % 2}
        for number in range(100)
    ]


def nectar(chance: random.Random) -> Rows:
    """Seven ranked answers, 1 the best, in any order; the prompt is a dialogue with a space behind it."""
    return [
        {
            "prompt": f"\n\nHuman: {said(chance, 4)} {number}\n\nAssistant: ",
            "answers": [
                {"answer": f"{said(chance, 4)} {rank}", "model": "m", "rank": float(rank)}
                for rank in chance.sample(range(1, 8), 7)
            ],
        }
        for number in range(100)
    ]


def orca(chance: random.Random) -> Rows:
    return [
        {"system": "Be kind.", "question": f"{said(chance, 3)} {number}", "chosen": f"{number} c", "rejected": "no r"}
        for number in range(100)
    ]


def oasst(chance: random.Random) -> Rows:
    """25 questions with three ranked answers each, 0 the best."""
    made: Rows = []
    for number in range(25):
        question = {"message_id": f"q{number}", "parent_id": None, "role": "prompter", "rank": None}
        made.append({**question, "text": f"{said(chance, 4)} {number}"})
        for rank in (2, 0, 1):
            answer = {"message_id": f"a{number}-{rank}", "parent_id": f"q{number}", "role": "assistant", "rank": rank}
            made.append({**answer, "text": f"{said(chance, 3)} {rank}"})
    return made


def sharegpt(chance: random.Random) -> Rows:
    talk = (("human", 3), ("gpt", 4), ("human", 3), ("gpt", 5))
    return [
        {"conversations": [{"from": who, "value": f"{said(chance, count)} {number}"} for who, count in talk]}
        for number in range(100)
    ]


def text_of(tokenizer: Any, ids: tuple[int, ...]) -> str:
    return str(tokenizer.decode(list(ids)))


def write(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("make", "pairs", "ends"),
    [
        (ultrafeedback, 100, ("c", "r")),
        (helpsteer, 50, ("1", "0")),  # two rows a prompt
        (nectar, 100, ("1", "7")),
        (orca, 100, ("c", "r")),
        (oasst, 25, ("0", "2")),
    ],
)
def test_a_file_of_pairs_is_enough_for_a_suite(
    make: Callable[[random.Random], Rows], pairs: int, ends: tuple[str, str], tmp_path: Path
) -> None:
    """A fifth is held out, the rest trained on; the better answer of each pair ends as `make` says, and so the worse one."""
    data = write(tmp_path / "data.jsonl", make(random.Random(0)))
    text, found = init.for_data("mine", [data], None, None)
    assert found[0].startswith(f"preference: {data}: {pairs} rows")
    path = tmp_path / "mine.yaml"
    init.write(path, text)
    suite = yaml_file.load(str(path))
    assert isinstance(suite, Suite)
    assert suite.data.preference.rows == pairs - pairs // 5
    chat = byte_tokenizer()
    read = tokens.load(suite.data, chat, None)
    for one in (*read.train[Objective.DPO].examples, *read.held_out[Objective.DPO].examples):
        assert [text_of(chat, answer).removesuffix("</s>")[-1] for answer in one.answers] == list(ends)
    imitated = {text_of(chat, one.answers[0]).removesuffix("</s>")[-1] for one in read.train[Objective.SFT].examples}
    assert imitated == {ends[0]}


def test_pairs_and_conversations_make_one_suite_and_a_report(tmp_path: Path) -> None:
    """The command itself, as a user types it, on a tiny model in a folder; only what takes time is made shorter."""
    import torch
    import transformers

    torch.manual_seed(0)
    model, tokenizer = tmp_path / "model", byte_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.LlamaForCausalLM(config).save_pretrained(model)
    tokenizer.save_pretrained(model)
    chance = random.Random(0)
    write(tmp_path / "pairs.jsonl", orca(chance)), write(tmp_path / "chats.jsonl", sharegpt(chance))

    def bench(*words: str) -> str:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        made = subprocess.run(
            [sys.executable, "-m", "bench.cli", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert made.returncode == 0, made.stdout + made.stderr
        return made.stdout

    assert "instruction: chats.jsonl: 100 rows, conversations as from and value" in bench(
        "init", "my.yaml", "pairs.jsonl", "chats.jsonl", "--model", "model"
    )
    shown = json.loads(bench("data", "my.yaml", "--json"))
    assert shown["preference"]["rows"][0]["prompt"].startswith("[system]Be kind.</s>[user]")
    assert shown["preference"]["rows"][0]["chosen"] == "0 c</s>"
    assert shown["instruction"]["rows"][0]["answer"].endswith(" 0</s>")
    assert shown["instruction"]["counts"]["rows"] == 100
    short = ("cost=off", "seeds=[0]", "training.steps=2", "methods=[{name: mix}]")
    bench("run", "my.yaml", "--results", "out", *(word for one in short for word in ("--set", one)))
    bench("report", "out")
    page = (tmp_path / "out" / "my" / "report.md").read_text(encoding="utf-8")
    assert "100 rows; conversations as from and value" in page


def test_instructions_alone_are_no_suite(tmp_path: Path) -> None:
    data = write(tmp_path / "chats.jsonl", sharegpt(random.Random(0)))
    with pytest.raises(InputError, match=r"instruction rows, but no preference pairs .* give their file, too"):
        init.for_data("mine", [data], None, None)


def test_rows_of_no_known_kind_name_their_columns(tmp_path: Path) -> None:
    data = write(tmp_path / "x.jsonl", [{"foo": "a", "bar": "b"}] * 3)
    with pytest.raises(
        DataError, match=r"x\.jsonl: neither preference pairs nor .* columns: foo, bar\. Write a suite by"
    ):
        init.for_data("mine", [data], None, None)


def test_rows_that_cannot_be_used_are_left_out_and_told(tmp_path: Path) -> None:
    """One of five answers is empty: four rows, one of them held out."""
    rows = [{"prompt": f"p{number}", "chosen": "c" if number else "", "rejected": "r"} for number in range(5)]
    text, found = init.for_data("mine", [write(tmp_path / "p.jsonl", rows)], None, None)
    assert "4 rows" in found[0] and "1 cannot be used (1 empty) and are left out" in found[0]
    path = tmp_path / "mine.yaml"
    init.write(path, text)
    suite = yaml_file.load(str(path))
    assert isinstance(suite, Suite)
    assert suite.data.bad_rows == "drop"
    assert (suite.data.preference.rows, suite.data.preference.evaluation_rows) == (3, 1)


def test_every_key_of_a_made_suite_has_a_comment(tmp_path: Path) -> None:
    import re

    data = write(tmp_path / "p.jsonl", nectar(random.Random(0)))
    text, _ = init.for_data("mine", [data], None, None)
    keys = [line for line in text.splitlines() if re.match(r"\s*(- )?\w+:", line)]
    assert len(keys) > 50
    assert [line for line in keys if " # " not in line] == []


def test_a_second_file_of_the_same_kind_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    first, second = (write(tmp_path / f"{name}.jsonl", orca(random.Random(0))) for name in "ab")
    _, found = init.for_data("mine", [first, second], None, None)
    assert found[-1] == f"{second}: not used as preference rows, since {first} has them already"


def test_bad_rows_of_the_held_out_split_are_left_out_too(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{number}", "chosen": "c", "rejected": "r"} for number in range(4)]
    write(tmp_path / "train.jsonl", rows), write(tmp_path / "test.jsonl", [*rows[:2], rows[0] | {"chosen": None}])
    text, found = init.for_data("mine", [str(tmp_path)], None, None)
    assert "4 rows and 2 held-out ones" in found[0] and "1 cannot be used (1 empty)" in found[0]
    assert "bad_rows: drop" in text
