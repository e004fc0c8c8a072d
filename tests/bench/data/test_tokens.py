"""From rows of text to token ids and batches: borders, cuts, both sets."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from byte_level import BOS, EOS, TOKENIZER, byte_tokenizer, ids, pairs, rows, write_jsonl

from bench.data import tokens
from bench.data.markup import Markup
from bench.data.rows import InstructionRow, PreferenceRow
from bench.data.tokens import Tokenizing
from bench.errors import DataError, ModelError
from bench.methods import Objective
from bench.settings import Data

# ---- tokens ---------------------------------------------------------------------------------------------------------


def test_no_token_straddles_the_border_of_prompt_and_answer() -> None:
    """With the merge `: ` + `y` → one token, "a:" + "y" together would be (a, :y); apart it stays (a, :) and (y, EOS)."""
    merging = byte_tokenizer(merges=[(":", "y")])
    assert len(merging("a:y")["input_ids"]) == 2
    example = Tokenizing(merging, 8, 8).example(InstructionRow("a:", "y"))
    assert example.prompt == ids("a:")
    assert example.answers == ((*ids("y"), EOS),)


def test_prompts_lose_their_left_end_and_answers_their_right() -> None:
    """Limits 4 and 3: "abcdef" → "cdef"; "wxyz" + EOS → "wxy" (cut, so no EOS); "vw" + EOS is 3 tokens and stays whole."""
    tokenizing = Tokenizing(TOKENIZER, 4, 3)
    example = tokenizing.example(PreferenceRow("abcdef", "wxyz", "vw"))
    assert example.prompt == ids("cdef")
    assert example.answers == (ids("wxy"), (*ids("vw"), EOS))
    assert (tokenizing.cut_prompts, tokenizing.cut_answers) == (1, 1)


def test_an_answer_that_only_just_loses_its_end_of_turn_counts_as_cut() -> None:
    """ "xyz" is 3 tokens of 3: its EOS would be the fourth."""
    tokenizing = Tokenizing(TOKENIZER, 4, 3)
    assert tokenizing.answer("xyz") == ids("xyz")
    assert tokenizing.prompt("abcd") == ids("abcd")
    assert (tokenizing.cut_prompts, tokenizing.cut_answers) == (0, 1)


def test_an_answer_ends_its_turn_once() -> None:
    """A chat template has written the end of turn, and a line end behind it that is not the model's to say."""
    tokenizing = Tokenizing(TOKENIZER, 8, 8)
    assert (
        tokenizing.answer("hi")
        == tokenizing.answer(Markup("hi</s>"))
        == tokenizing.answer(Markup("hi</s>\n"))
        == (*ids("hi"), EOS)
    )


@pytest.mark.parametrize("text", ["abcdef", "<s>abcdef"])
def test_a_bos_the_model_expects_survives_the_cut_and_is_not_doubled(text: str) -> None:
    """Limit 4 with one place for <s> leaves three tokens of "abcdef": "def", written by a template or not."""
    tokenizing = Tokenizing(byte_tokenizer(bos=True), 4, 8)
    assert tokenizing.prompt(Markup(text)) == (BOS, *ids("def"))
    assert tokenizing.prompt(Markup(text.replace("abcdef", "ab"))) == (BOS, *ids("ab"))
    assert tokenizing.answer("hi") == (*ids("hi"), EOS)
    assert tokenizing.cut_prompts == 1


def test_an_empty_prompt_is_refused_unless_a_bos_can_predict_the_answer() -> None:
    assert Tokenizing(byte_tokenizer(bos=True), 4, 4).prompt("") == (BOS,)
    with pytest.raises(
        DataError, match=r"^a prompt is empty, so nothing predicts its answer's first token; drop such rows$"
    ):
        Tokenizing(TOKENIZER, 4, 4).prompt("")


def test_a_tokenizer_without_an_end_of_turn_is_refused() -> None:
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        Tokenizing(byte_tokenizer(eos=False), 4, 4)


def test_a_split_records_rows_cuts_tokens_and_the_hash_of_its_text() -> None:
    """Limits 3 and 3: prompts 3 (cut) + 2, answers 2 (with EOS) + 3 (cut) = 10 tokens."""
    settings = Data.model_validate(
        {
            "preference": {"source": "local", "path": "p", "rows": 1},
            "instruction": {"source": "local", "path": "i", "rows": 1},
            "max_prompt_tokens": 3,
            "max_answer_tokens": 3,
        }
    )
    split = tokens.tokenize([InstructionRow("abcd", "x"), InstructionRow("ab", "wxyz")], TOKENIZER, settings)
    text = '[{"answer": "x", "prompt": "abcd"}, {"answer": "wxyz", "prompt": "ab"}]'
    assert split.facts == {
        "duplicates": 0,
        "control_tokens_as_text": 0,
        "rows": 2,
        "cut_prompts": 1,
        "cut_answers": 1,
        "tokens": 10,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


# ---- both sets ------------------------------------------------------------------------------------------------------


def both(tmp_path: Path, **settings: Any) -> Data:
    write_jsonl(
        tmp_path / "pairs.jsonl",
        [{"prompt": f"p{number}", "chosen": f"c{number}", "rejected": "r"} for number in range(6)],
    )
    write_jsonl(tmp_path / "rows.jsonl", [{"instruction": f"i{number}", "output": "o"} for number in range(6)])
    values = {"rows": 3, "evaluation_rows": 1}
    return Data(
        preference=pairs(tmp_path / "pairs.jsonl", **values),
        instruction=rows(tmp_path / "rows.jsonl", **values, format="plain"),
        **settings,
    )


def test_load_gives_training_held_out_and_judged_rows(tmp_path: Path) -> None:
    """Three prompts are judged but only one pair is evaluated: the held-out objective must not depend on the judge."""
    loaded = tokens.load(both(tmp_path), TOKENIZER, None, judged=3)
    assert [one.prompt for one in loaded.train[Objective.DPO].examples] == [ids("p0"), ids("p1"), ids("p2")]
    assert [one.prompt for one in loaded.held_out[Objective.DPO].examples] == [ids("p3")]
    assert [one.prompt for one in loaded.held_out[Objective.SFT].examples] == [ids("i3")]
    assert [row.prompt for row in loaded.judged] == ["p3", "p4", "p5"]
    assert sorted(loaded.facts()) == ["dpo/held_out", "dpo/train", "sft/held_out", "sft/train"]
    assert loaded.stop == ()


def test_the_training_sample_is_the_head_of_the_training_rows(tmp_path: Path) -> None:
    loaded = tokens.load(both(tmp_path), TOKENIZER, None)
    assert loaded.sample("held_out", Objective.SFT) == loaded.held_out[Objective.SFT].examples
    assert loaded.sample("train", Objective.SFT) == loaded.train[Objective.SFT].examples[:1]


def test_a_reference_on_the_chosen_answers_trains_on_the_pairs(tmp_path: Path) -> None:
    loaded = tokens.load(both(tmp_path), TOKENIZER, None, sft_on_chosen=True)
    assert [one.answers for one in loaded.train[Objective.SFT].examples] == [((*ids(f"c{n}"), EOS),) for n in range(3)]
    assert [one.prompt for one in loaded.train[Objective.SFT].examples] == [ids("p0"), ids("p1"), ids("p2")]


def test_generation_stops_at_the_next_human_turn_of_a_dialogue(tmp_path: Path) -> None:
    turn = {"prompt": "\n\nHuman: a\n\nAssistant:", "chosen": " b", "rejected": " c"}
    settings = both(tmp_path).model_copy(
        update={
            "preference": pairs(write_jsonl(tmp_path / "hh.jsonl", [turn] * 2), format="hh_dialogue", evaluation_rows=1)
        }
    )
    assert tokens.load(settings, TOKENIZER, None).stop == ("\n\nHuman:",)
