"""Rows that cannot be used: named and counted, or left out; and what is counted of those that can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from byte_level import TOKENIZER, pairs, rows, write_jsonl

from bench.data import sources, tokens
from bench.errors import DataError
from bench.methods import Objective
from bench.records import row_counts
from bench.settings import Data

GOOD = {"prompt": "p", "chosen": "c", "rejected": "r"}


def pair(number: int, **changes: Any) -> dict[str, Any]:
    return {"prompt": f"p{number}", "chosen": "c", "rejected": "r"} | changes


def test_one_bad_row_is_one_line_with_how_many_there_are(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", [pair(0), pair(1, chosen=None), pair(2)])
    with pytest.raises(DataError) as caught:
        sources.load_rows(pairs(path, rows=3), "train", 3, TOKENIZER, None)
    assert str(caught.value) == (
        f"{path} 'train' row 1: column 'chosen' is empty; fill it in, or take such rows out of the file; 1 of 3 rows cannot be "
        "used, and data.bad_rows: drop leaves them out"
    )


def test_the_first_ten_are_named_those_of_one_kind_together(tmp_path: Path) -> None:
    """Of 15 rows 0 to 11 are bad in two ways; the tenth that is named is row 9."""
    bad = [pair(number, **({"chosen": ""} if number % 2 else {"rejected": 5})) for number in range(12)]
    path = write_jsonl(tmp_path / "p.jsonl", [*bad, *map(pair, range(3))])
    with pytest.raises(DataError) as caught:
        sources.load_rows(pairs(path, rows=15), "train", 15, TOKENIZER, None)
    told = str(caught.value)
    assert told.startswith(f"{path} 'train' rows 0, 2, 4, 6, 8: column 'rejected' holds 5, not text")
    assert f"; {path} 'train' rows 1, 3, 5, 7, 9: column 'chosen' is empty" in told
    assert told.endswith("; 12 of 15 rows cannot be used, and data.bad_rows: drop leaves them out")


def test_dropped_rows_are_counted_and_held_out_rows_follow_the_good_training_rows(tmp_path: Path) -> None:
    """Rows 1 and 4 are bad: 0, 2 and 3 are trained on, 5 and 6 held out."""
    made = [pair(number, **({"chosen": None} if number in (1, 4) else {})) for number in range(7)]
    source = pairs(write_jsonl(tmp_path / "p.jsonl", made), rows=3)
    train = sources.load_rows(source, "train", 3, TOKENIZER, None, drop=True)
    held_out = sources.load_rows(source, "held_out", 2, TOKENIZER, None, drop=True)
    assert (train.numbers, held_out.numbers) == ([0, 2, 3], [5, 6])
    assert [row.prompt for row in held_out.rows] == ["p5", "p6"]
    assert {kind: [number for number, _ in found] for kind, found in train.refused.items()} == {"empty": [1]}
    assert {kind: [number for number, _ in found] for kind, found in held_out.refused.items()} == {"empty": [4]}
    with pytest.raises(
        DataError, match=r"3 rows wanted after the 3 training rows, but split 'train' has 7 of which 5 can be"
    ):
        sources.load_rows(source, "held_out", 3, TOKENIZER, None, drop=True)


def test_what_is_counted_over_both_splits(tmp_path: Path) -> None:
    """Limit 3 of answers: "abcd" and "abce" are cut to the same. Row 1 is row 0 again, row 2 is equal, row 4 (held out) is
    row 0 but for case and space, row 5 a new one."""
    made = [
        pair(0, prompt="x y"),
        pair(0, prompt="x y"),
        pair(2, rejected="c"),
        pair(3, chosen="abcd", rejected="abce"),
        pair(0, prompt="X  y"),
        pair(5, chosen="</s>"),
    ]
    write_jsonl(tmp_path / "i.jsonl", [{"instruction": f"i{number}", "output": "o"} for number in range(2)])
    data = Data(
        preference=pairs(write_jsonl(tmp_path / "p.jsonl", made), rows=4, evaluation_rows=2),
        instruction=rows(tmp_path / "i.jsonl", format="plain", evaluation_rows=1),
        max_answer_tokens=3,
    )
    read = tokens.load(data, TOKENIZER, None)
    facts = [read.train[Objective.DPO].facts, read.held_out[Objective.DPO].facts]
    total = row_counts.totals(facts)
    names = ("rows", "cut_answers", "duplicates", "equal", "equal_after_cut", "overlap", "overlap_folded")
    # cut: both answers of row 3, and "</s>" of row 5, which is four letters as text
    assert [total[name] for name in names] == [6, 3, 1, 1, 2, 0, 1]
    assert total["control_tokens_as_text"] == 1
    assert row_counts.in_words(total) == (
        "6 rows, 3 answers cut at the right end, end of turn included, 1 row seen before, 1 pair of equal answers, 1 pair made "
        "equal by the cut, 1 held-out row trained on, too, 1 row with a control token as text"
    )
    assert row_counts.warnings(*facts) == [
        "1 of 2 held-out rows trained on, too, 0 of them to the letter: held-out figures say little about new rows",
        "2 of 6 pairs with equal answers once cut, which teach nothing",
    ]


def test_instruction_rows_may_be_the_chosen_answers(tmp_path: Path) -> None:
    made = [pair(number, chosen=f"c{number}") for number in range(5)]
    data = Data.model_validate(
        {
            "preference": pairs(write_jsonl(tmp_path / "p.jsonl", made), rows=3, evaluation_rows=1).model_dump(),
            "instruction": {"source": "chosen", "rows": 2, "evaluation_rows": 2},
        }
    )
    read = tokens.load(data, TOKENIZER, None)
    shown = {
        name: [TOKENIZER.decode(one.prompt + one.answers[0]) for one in splits[Objective.SFT].examples]
        for name, splits in (("train", read.train), ("held_out", read.held_out))
    }
    assert shown == {"train": ["p0c0</s>", "p1c1</s>"], "held_out": ["p3c3</s>", "p4c4</s>"]}
    assert len(read.held_out[Objective.DPO].examples) == 1
    with pytest.raises(ValueError, match=r"instruction.rows: with source 'chosen' at most preference.rows \(3\)"):
        Data.model_validate(data.model_dump() | {"instruction": {"source": "chosen", "rows": 4}})
