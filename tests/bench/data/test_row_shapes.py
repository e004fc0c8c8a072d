"""Row shapes with the prompt, the answers or the refusal that each must give, written by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from byte_level import TOKENIZER, pairs, rows, write_jsonl

from bench.data import sources
from bench.errors import DataError

# The tests' template writes [role]content</s> and, ready for the answer, [assistant].
U, A, B = ({"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "yes"), ("assistant", "no")))
S = {"role": "system", "content": "s"}
ASKED = "[user]q</s>[assistant]"
PAIR = (ASKED, "yes</s>", "no</s>")


def common(one: str, other: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"columns": {"prompt": None}}, {"chosen": one, "rejected": other}


M: dict[str, Any] = {"format": "messages"}
PREFERENCE: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, str, str] | str]] = [
    ("text", {}, {"prompt": "q", "chosen": "a", "rejected": "b"}, ("q", "a", "b")),
    ("lists", M, {"prompt": [U], "chosen": [A], "rejected": [B]}, PAIR),
    ("one message each", M, {"prompt": U, "chosen": A, "rejected": B}, PAIR),
    ("text in messages", M, {"prompt": "q", "chosen": "yes", "rejected": "no"}, PAIR),
    ("text prompt beside whole lists", M, {"prompt": "q", "chosen": [U, A], "rejected": [U, B]}, PAIR),
    ("no prompt column", M, {"chosen": [U, A], "rejected": [U, B]}, PAIR),
    ("list prompt, text answers", M, {"prompt": [U], "chosen": "yes", "rejected": "no"}, PAIR),
    (
        "orca",
        M,
        {"system": "s", "question": "q", "chosen": "yes", "rejected": "no"},
        ("[system]s</s>" + ASKED, *PAIR[1:]),
    ),
    ("orca, empty system", M, {"system": "", "question": "q", "chosen": "yes", "rejected": "no"}, PAIR),
    (
        "openai",
        M,
        {"input": {"messages": [U]}, "preferred_output": [A], "non_preferred_output": [B]},
        PAIR,
    ),
    (
        "llama-factory",
        M,
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "yes"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        PAIR,
    ),
    (
        "json in cells",
        M,
        {"chosen": '[{"role":"user","content":"q"},{"role":"assistant","content":"yes"}]', "rejected": [U, B]},
        PAIR,
    ),
    ("other prompts", M, {"chosen": [U, A], "rejected": [{**U, "content": "r"}, B]}, "their prompts differ"),
    ("begins with the answer", M, {"chosen": [A], "rejected": [B]}, "no prompt before the answer"),
    ("no answer", M, {"chosen": [U], "rejected": [U, B]}, "no assistant's turn"),
    ("empty list", M, {"prompt": [U], "chosen": [], "rejected": [B]}, "empty list of messages"),
    ("null", {}, {"prompt": "q", "chosen": None, "rejected": "b"}, "'chosen' is empty"),
    ("blank", {}, {"prompt": "q", "chosen": "a", "rejected": " \n"}, "'rejected' is empty"),
    ("number", {}, {"prompt": "q", "chosen": 3, "rejected": "b"}, "holds 3, not text"),
    ("lists in plain", {}, {"prompt": "q", "chosen": [A], "rejected": [B]}, "format: messages"),
    ("no column", {}, {"prompt": "q", "chosen": "a"}, "no column 'rejected'"),
    ("word's end", *common("the cat sat", "the car sat"), ("the", " cat sat", " car sat")),
    ("apostrophe", *common("We don't", "We don’s"), ("We", " don't", " don’s")),
    ("number's point", *common("It is 3.14", "It is 3.15"), ("It is", " 3.14", " 3.15")),
    ("line end", *common("Q\nyes", "Q\nno"), ("Q\n", "yes", "no")),
    ("CJK", *common("天気は晴", "天気は雨"), ("天気は", "晴", "雨")),
    ("combining", *common("a e\u0301", "a e\u0300"), ("a", " e\u0301", " e\u0300")),
    ("equal", *common("a b", "a b"), "same text"),
    ("nothing in common", *common("yes", "no"), "common prompt"),
    (
        "answers with ranks",
        {"columns": {"answers": "answers", "ranking": "rank"}},
        {"prompt": "q", "answers": [{"answer": "b", "rank": 2}, {"answer": "a", "rank": 1}]},
        ("q", "a", "b"),
    ),
    (
        "completions with scores",
        {"columns": {"prompt": "instruction", "answers": "completions", "ranking": "overall_score"}},
        {
            "instruction": "q",
            "completions": [{"response": "b", "overall_score": 2.5}, {"response": "a", "overall_score": 9}],
        },
        ("q", "a", "b"),
    ),
    (
        "strength",
        {"columns": {"chosen": "response_1", "rejected": "response_2", "preference": "preference_strength"}},
        {"prompt": "q", "response_1": "b", "response_2": "a", "preference_strength": 2},
        ("q", "a", "b"),
    ),
]
INSTRUCTION: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, str] | str]] = [
    ("messages", M, {"messages": [U, A]}, PAIR[:2]),
    ("sharegpt", M, {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "yes"}]}, PAIR[:2]),
    ("capitals", M, {"messages": [{**U, "role": "User"}, {**A, "role": "ASSISTANT"}]}, PAIR[:2]),
    ("ends with the user", M, {"messages": [U, A, U]}, PAIR[:2]),
    ("empty system", M, {"messages": [{**S, "content": ""}, U, A]}, PAIR[:2]),
    ("parts", M, {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, A]}, PAIR[:2]),
    ("TRL text", M, {"prompt": "q", "completion": "yes"}, PAIR[:2]),
    ("TRL lists", M, {"prompt": [U], "completion": [A]}, PAIR[:2]),
    ("last of two", M, {"messages": [U, B, U, A]}, (ASKED + "no</s>" + ASKED, "yes</s>")),
    ("all of two", {**M, "train_on": "all"}, {"messages": [U, B, U, A]}, (ASKED, "no</s>" + ASKED + "yes</s>")),
    ("weight 0", M, {"messages": [U, A, U, {**B, "weight": 0}]}, PAIR[:2]),
    ("all weights 0", M, {"messages": [U, {**A, "weight": 0}]}, "weight other than 0"),
    ("unknown role", M, {"messages": [{**U, "role": "robot"}, A]}, "'robot'"),
    ("no role", M, {"messages": [{"content": "q"}, A]}, "no 'role'"),
    ("null content", M, {"messages": [U, {**A, "content": None}]}, "null"),
    ("blank content", M, {"messages": [U, {**A, "content": " "}]}, "empty"),
    ("only the assistant", M, {"messages": [A]}, "no prompt before the answer"),
    ("alpaca, null input", {"format": "plain"}, {"instruction": "q", "input": None, "output": "a"}, ("q", "a")),
    ("alpaca, input", {"format": "plain"}, {"instruction": "q", "input": "i", "output": "a"}, ("q\ni", "a")),
]


def read(source: Any, expected: tuple[str, ...] | str) -> None:
    if isinstance(expected, str):
        with pytest.raises(DataError, match="row 0") as caught:
            sources.load_rows(source, "train", 1, TOKENIZER, None)
        assert expected in str(caught.value) and "\n" not in str(caught.value)
        return
    made = sources.load_rows(source, "train", 1, TOKENIZER, None).rows[0]
    assert tuple(map(str, vars(made).values())) == expected


@pytest.mark.parametrize(
    ("settings", "row", "expected"), [one[1:] for one in PREFERENCE], ids=[one[0] for one in PREFERENCE]
)
def test_pairs(tmp_path: Path, settings: dict[str, Any], row: dict[str, Any], expected: tuple[str, ...] | str) -> None:
    read(pairs(write_jsonl(tmp_path / "p.jsonl", [row]), **settings), expected)


@pytest.mark.parametrize(
    ("settings", "row", "expected"), [one[1:] for one in INSTRUCTION], ids=[one[0] for one in INSTRUCTION]
)
def test_instructions(
    tmp_path: Path, settings: dict[str, Any], row: dict[str, Any], expected: tuple[str, ...] | str
) -> None:
    read(rows(write_jsonl(tmp_path / "i.jsonl", [row]), **settings), expected)


def test_one_answer_a_row_is_grouped_by_a_prompt_column_that_no_suite_names(tmp_path: Path) -> None:
    """Two questions with two answers each are two pairs, not one of all four answers."""
    made = [
        {"question": asked, "response": answer, "score": score}
        for asked, answer, score in (("q", "b", 1), ("q", "a", 4), ("r", "c", 0), ("r", "d", 9))
    ]
    source = pairs(write_jsonl(tmp_path / "p.jsonl", made), rows=2, columns={"answers": "response", "ranking": "score"})
    found = sources.load_rows(source, "train", 2, TOKENIZER, None).rows
    assert [tuple(vars(one).values()) for one in found] == [("q", "a", "b"), ("r", "d", "c")]


def test_the_order_of_hashes_changes_nothing(tmp_path: Path) -> None:
    """Two interpreters whose sets are ordered otherwise write the same rows."""
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "q", "chosen": [U, A], "rejected": [U, B], "score": 1.5}])
    program = (
        "import sys; from byte_level import TOKENIZER, pairs; from bench.data.sources import load_rows\n"
        "source = pairs(sys.argv[1], format='messages')\n"
        "print([vars(one) for one in load_rows(source, 'train', 1, TOKENIZER, None).rows])"
    )
    written = [
        subprocess.run(
            [sys.executable, "-c", program, str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert written[0] == written[1] and "[user]q</s>[assistant]" in written[0]
