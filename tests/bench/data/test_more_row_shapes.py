"""More row shapes: dialogues, rankings, trees, tools, names that files use, and values of the wrong kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from byte_level import TOKENIZER, pairs, rows, write_jsonl

from bench.data import sources
from bench.errors import DataError

HH = "\n\nHuman: q\n\nAssistant:"
U, A, B = ({"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "yes"), ("assistant", "no")))
ASKED = "[user]q</s>[assistant]"
M: dict[str, Any] = {"format": "messages"}
DIALOGUE: dict[str, Any] = {"format": "hh_dialogue"}
Expected = Any


def answers(**columns: Any) -> dict[str, Any]:
    return {"columns": {"answers": "answers", "ranking": "score", **columns}}


def preferred(**columns: Any) -> dict[str, Any]:
    return {"columns": {"chosen": "a", "rejected": "b", "preference": "winner", **columns}}


PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any], Expected]] = {
    "dialogue": (DIALOGUE, {"prompt": HH, "chosen": " a", "rejected": " b"}, (HH, " a", " b")),
    "dialogue without a prompt": (DIALOGUE, {"chosen": HH + " a", "rejected": HH + " b"}, (HH, " a", " b")),
    "dialogue of two turns, parted in the last": (
        DIALOGUE,
        {"chosen": f"{HH} x{HH} a", "rejected": f"{HH} x{HH} b"},
        (f"{HH} x{HH}", " a", " b"),
    ),
    "dialogue parted in the first turn keeps what follows": (
        DIALOGUE,
        {"chosen": f"{HH} x{HH} a", "rejected": f"{HH} y{HH} b"},
        (HH, f" x{HH} a", f" y{HH} b"),
    ),
    "dialogue with a space behind the prompt": (
        DIALOGUE,
        {"prompt": HH + " ", "chosen": "a", "rejected": "b"},
        (HH, " a", " b"),
    ),
    "dialogue that is none": (DIALOGUE, {"chosen": "a b", "rejected": "a c"}, "not an hh_dialogue prompt"),
    "equal dialogues": (DIALOGUE, {"chosen": HH + " a", "rejected": HH + " a"}, (HH, " a", " a")),
    "question": ({}, {"question": "q", "chosen": "a", "rejected": "b"}, ("q", "a", "b")),
    "instruction": ({}, {"instruction": "q", "chosen": "a", "rejected": "b"}, ("q", "a", "b")),
    "chosen_response": ({}, {"prompt": "q", "chosen_response": "a", "rejected_response": "b"}, ("q", "a", "b")),
    "response_chosen": ({}, {"prompt": "q", "response_chosen": "a", "response_rejected": "b"}, ("q", "a", "b")),
    "a column that the suite names and is not there": (
        {"columns": {"prompt": "ask"}},
        {"question": "q", "chosen": "a", "rejected": "b"},
        "no column 'ask'; it has: question, chosen, rejected",
    ),
    "a system column that is named, in plain text": (
        {"columns": {"system": "sys"}},
        {"sys": "be kind", "prompt": "q", "chosen": "a", "rejected": "b"},
        ("be kind\n\nq", "a", "b"),
    ),
    "a system column that nobody names stays out of plain text": (
        {},
        {"system": "s", "prompt": "q", "chosen": "a", "rejected": "b"},
        ("q", "a", "b"),
    ),
    "a system column beside a conversation that has one": (
        M,
        {"system": "other", "chosen": [{"role": "system", "content": "s"}, U, A], "rejected": [U, B]},
        "their prompts differ",
    ),
    "other prompt beside the conversation": (
        M,
        {"prompt": "Q!", "chosen": [U, A], "rejected": [U, B]},
        (ASKED, "yes</s>", "no</s>"),
    ),
    "scores": (
        answers(),
        {"prompt": "q", "answers": [{"text": "b", "score": 1}, {"text": "c", "score": 2}, {"text": "a", "score": 3}]},
        ("q", "a", "b"),
    ),
    "scores as text": (
        answers(),
        {"prompt": "q", "answers": [{"text": "b", "score": "1.5"}, {"text": "a", "score": "20"}]},
        ("q", "a", "b"),
    ),
    "numbers beside texts": (answers(), {"prompt": "q", "answers": ["b", "a"], "score": [1, 2]}, ("q", "a", "b")),
    "the lowest is best": (
        answers(best="lowest"),
        {"prompt": "q", "answers": ["a", "b"], "score": [1, 2]},
        ("q", "a", "b"),
    ),
    "a tie": (
        answers(),
        {"prompt": "q", "answers": ["a", "b"], "score": [1, 1]},
        "all answers to its prompt have the same",
    ),
    "one answer": (answers(), {"prompt": "q", "answers": ["a"], "score": [1]}, "has one answer in column 'answers'"),
    "fewer numbers than texts": (
        answers(),
        {"prompt": "q", "answers": ["a", "b"], "score": [1]},
        "not one number for each",
    ),
    "no number": (
        answers(),
        {"prompt": "q", "answers": [{"text": "a", "score": None}, {"text": "b", "score": 1}]},
        "'score' is None, not a number",
    ),
    "a ranking that is not there": (
        answers(),
        {"prompt": "q", "answers": [{"text": "a", "rank": 1}, {"text": "b", "rank": 2}]},
        "no 'score' to rank an answer by; it has: text, rank",
    ),
    "answers without a text": (
        answers(),
        {"prompt": "q", "answers": [{"said": "a", "score": 1}, {"said": "b", "score": 2}]},
        "has none of answer, response, text",
    ),
    "the winner's column": (preferred(), {"prompt": "q", "a": "x", "b": "y", "winner": "b"}, ("q", "y", "x")),
    "model_a": (preferred(), {"prompt": "q", "a": "x", "b": "y", "winner": "model_a"}, ("q", "x", "y")),
    "a strength below 0": (preferred(), {"prompt": "q", "a": "x", "b": "y", "winner": -2}, ("q", "x", "y")),
    "a strength as text": (preferred(), {"prompt": "q", "a": "x", "b": "y", "winner": "1"}, ("q", "y", "x")),
    "no preference": (preferred(), {"prompt": "q", "a": "x", "b": "y", "winner": 0}, "prefers neither answer (0)"),
    "tie": (preferred(), {"prompt": "q", "a": "x", "b": "y", "winner": "tie"}, "prefers neither answer ('tie')"),
    "a preference of another kind": (preferred(), {"prompt": "q", "a": "x", "b": "y", "winner": [1]}, "holds [1]"),
    "arena conversations": (
        M | preferred(),
        {"a": [U, A], "b": [U, B], "winner": "model_b"},
        (ASKED, "no</s>", "yes</s>"),
    ),
    "a dict for text": ({}, {"prompt": "q", "chosen": {"x": 1}, "rejected": "b"}, "holds dict, not text"),
    "true for text": ({}, {"prompt": "q", "chosen": True, "rejected": "b"}, "holds True, not text"),
    "an empty prompt": ({}, {"prompt": "", "chosen": "a", "rejected": "b"}, "the prompt is empty"),
    "an empty prompt in messages": (M, {"prompt": " ", "chosen": "a", "rejected": "b"}, "column 'prompt' is empty"),
    "texts without a prompt in messages": (M, {"chosen": "a b", "rejected": "a c"}, "no prompt before the answer"),
}
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], Expected]] = {
    "question and answer": ({"format": "plain"}, {"question": "q", "answer": "a"}, ("q", "a")),
    "prompt and response": ({"format": "plain"}, {"prompt": "q", "response": "a"}, ("q", "a")),
    "query and response": (M, {"query": "q", "response": "yes"}, (ASKED, "yes</s>")),
    "orca, with its system prompt": (
        M,
        {"system_prompt": "s", "question": "q", "response": "yes"},
        ("[system]s</s>" + ASKED, "yes</s>"),
    ),
    "a prefix goes before the answer": (
        {"format": "plain", "answer_prefix": " "},
        {"instruction": "q", "output": "a"},
        ("q", " a"),
    ),
    "instruction empty, input not": (
        {"format": "plain"},
        {"instruction": "", "input": "i", "output": "a"},
        ("\ni", "a"),
    ),
    "neither": ({"format": "plain"}, {"instruction": "", "input": "", "output": "a"}, "column 'instruction' is empty"),
    "sharegpt with a system turn": (
        M,
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "yes"},
            ]
        },
        ("[system]s</s>" + ASKED, "yes</s>"),
    ),
    "sharegpt that begins with an answer": (
        M,
        {
            "conversations": [
                {"from": "gpt", "value": "x"},
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "yes"},
            ]
        },
        ("[assistant]x</s>" + ASKED, "yes</s>"),
    ),
    "a tool's turn": (
        M,
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": "f()"},
                {"from": "observation", "value": "3"},
                {"from": "gpt", "value": "yes"},
            ]
        },
        (ASKED + "f()</s>[tool]3</s>[assistant]", "yes</s>"),
    ),
    "a call without words": (
        M,
        {
            "messages": [
                U,
                {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]},
                {"role": "tool", "content": "3"},
                A,
            ]
        },
        (ASKED + "</s>[tool]3</s>[assistant]", "yes</s>"),
    ),
    "another column of messages": (
        M | {"columns": {"messages": "talk"}},
        {"talk": [U, A], "messages": "not this"},
        (ASKED, "yes</s>"),
    ),
    "JSON in a cell": (
        M,
        {"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "yes"}]'},
        (ASKED, "yes</s>"),
    ),
    "an image": (
        M,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, A]},
        "parts other than text",
    ),
    "a text for a list": (M | {"columns": {"messages": "messages"}}, {"messages": "hi"}, "holds str, not a list of"),
    "a number for a message": (M, {"messages": [U, 3]}, "message 1 of 'messages' is int"),
    "messages in a format of text": ({"format": "plain"}, {"messages": [U, A]}, "no column"),
    "a number for an answer": (
        {"format": "plain"},
        {"instruction": "q", "output": 4},
        "holds 4, not text; write it in quotes",
    ),
    "a column that is not there": ({"format": "plain"}, {"text": "q"}, "no column 'instruction'; it has: text"),
    "a completion of messages": (M, {"prompt": "q", "completion": [A]}, (ASKED, "yes</s>")),
}


def check(source: Any, expected: Expected) -> None:
    if isinstance(expected, str):
        with pytest.raises(DataError) as caught:
            sources.load_rows(source, "train", 1, TOKENIZER, None)
        message = str(caught.value)
        assert "'train' row 0: " in message and expected in message and "\n" not in message
    else:
        (made,) = sources.load_rows(source, "train", 1, TOKENIZER, None).rows
        assert tuple(map(str, vars(made).values())) == expected


@pytest.mark.parametrize(("settings", "row", "expected"), PAIRS.values(), ids=PAIRS.keys())
def test_pairs(tmp_path: Path, settings: dict[str, Any], row: dict[str, Any], expected: Expected) -> None:
    check(pairs(write_jsonl(tmp_path / "p.jsonl", [row]), **settings), expected)


@pytest.mark.parametrize(("settings", "row", "expected"), ROWS.values(), ids=ROWS.keys())
def test_instructions(tmp_path: Path, settings: dict[str, Any], row: dict[str, Any], expected: Expected) -> None:
    check(rows(write_jsonl(tmp_path / "i.jsonl", [row]), **settings), expected)


def test_trees_of_messages_give_conversations_and_pairs(tmp_path: Path) -> None:
    """The best answer (rank 0) is followed to its own best answer; every message with two ranked answers is a pair."""
    made = [
        {"message_id": "1", "parent_id": None, "role": "prompter", "text": "q", "rank": None},
        {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "worse", "rank": 1},
        {"message_id": "3", "parent_id": "1", "role": "assistant", "text": "best", "rank": 0},
        {"message_id": "4", "parent_id": "3", "role": "prompter", "text": "r", "rank": None},
        {"message_id": "5", "parent_id": "4", "role": "assistant", "text": "b0", "rank": 0},
        {"message_id": "6", "parent_id": "4", "role": "assistant", "text": "b1", "rank": 1},
        {"message_id": "7", "parent_id": None, "role": "prompter", "text": "alone", "rank": None},
        {"message_id": "8", "parent_id": "7", "role": "assistant", "text": "gone", "rank": 0, "deleted": True},
    ]
    path = write_jsonl(tmp_path / "t.jsonl", made)
    conversations = sources.load_rows(rows(path, **M), "train", 1, TOKENIZER, None)
    assert [tuple(vars(one).values()) for one in conversations.rows] == [
        (f"{ASKED}best</s>[user]r</s>[assistant]", "b0</s>")
    ]
    assert conversations.shape == "trees of messages"
    ranked = sources.load_rows(pairs(path, rows=2, **M), "train", 2, TOKENIZER, None)
    assert [tuple(vars(one).values()) for one in ranked.rows] == [
        (ASKED, "best</s>", "worse</s>"),
        (f"{ASKED}best</s>[user]r</s>[assistant]", "b0</s>", "b1</s>"),
    ]
