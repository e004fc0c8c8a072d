"""From rows of text to token ids and batches: formats, borders, cuts, places, errors word by word."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from bench import data
from bench.data import Cursor, InstructionRow, PreferenceRow, Tokenizing
from bench.errors import DataError, ModelError
from bench.methods import Objective
from bench.suite import Data, DataSource, InstructionData, PreferenceData

# One token per UTF-8 byte, so that every expected id can be read off: id = FIRST + position in `letters`.
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIAL = ["<pad>", "<s>", "</s>"]
BOS, EOS = 1, 2
CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def byte_tokenizer(*, bos: bool = False, eos: bool = True, merges: Sequence[tuple[str, str]] = ()) -> Any:
    """Make a byte tokenizer; `merges` adds tokens of two bytes, `bos` puts <s> before every text, as Llama's does."""
    tokens = [*SPECIAL, *LETTERS, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    names = {"pad_token": "<pad>", **({"bos_token": "<s>"} if bos else {}), **({"eos_token": "</s>"} if eos else {})}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=CHAT, **names)


TOKENIZER = byte_tokenizer()


def ids(text: str) -> tuple[int, ...]:
    """Return a text's ids by hand: printable ASCII is its own byte-level letter, a space is Ġ and a line end Ċ."""
    return tuple(len(SPECIAL) + LETTERS.index({" ": "Ġ", "\n": "Ċ"}.get(letter, letter)) for letter in text)


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pairs(path: Path, **settings: Any) -> PreferenceData:
    return PreferenceData.model_validate(
        {"source": "local", "path": str(path), "rows": 1, "test_split": None, **settings}
    )


def rows(path: Path, **settings: Any) -> InstructionData:
    return InstructionData.model_validate(
        {"source": "local", "path": str(path), "rows": 1, "test_split": None, **settings}
    )


def first(source: PreferenceData | InstructionData, tokenizer: Any = TOKENIZER) -> Any:
    return data.load_text(source, "train", 1, tokenizer, None)[0]


def refusal(source: PreferenceData | InstructionData, tokenizer: Any = TOKENIZER) -> str:
    with pytest.raises(DataError) as caught:
        data.load_text(source, "train", source.rows, tokenizer, None)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    assert tokenizing.answer("hi") == tokenizing.answer("hi</s>") == tokenizing.answer("hi</s>\n") == (*ids("hi"), EOS)


@pytest.mark.parametrize("text", ["abcdef", "<s>abcdef"])
def test_a_bos_the_model_expects_survives_the_cut_and_is_not_doubled(text: str) -> None:
    """Limit 4 with one place for <s> leaves three tokens of "abcdef": "def", written by a template or not."""
    tokenizing = Tokenizing(byte_tokenizer(bos=True), 4, 8)
    assert tokenizing.prompt(text) == (BOS, *ids("def"))
    assert tokenizing.prompt(text.replace("abcdef", "ab")) == (BOS, *ids("ab"))
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
    split = data.tokenize([InstructionRow("abcd", "x"), InstructionRow("ab", "wxyz")], TOKENIZER, settings)
    text = '[{"answer": "x", "prompt": "abcd"}, {"answer": "wxyz", "prompt": "ab"}]'
    assert split.facts == {
        "rows": 2,
        "cut_prompts": 1,
        "cut_answers": 1,
        "tokens": 10,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


# ---- formats --------------------------------------------------------------------------------------------------------


def test_plain_pairs_are_taken_as_they_are(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "Q: a ", "chosen": " yes", "rejected": "no "}])
    assert first(pairs(path)) == PreferenceRow("Q: a ", " yes", "no ")


def test_pairs_with_mapped_columns(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", [{"question": "Q", "better": "b", "worse": "w"}])
    columns = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    assert first(pairs(path, columns=columns)) == PreferenceRow("Q", "b", "w")


def test_plain_pairs_without_a_prompt_column_share_one(tmp_path: Path) -> None:
    """What both texts begin with is the prompt, up to the space before they part (TRL's `extract_prompt`)."""
    path = write_jsonl(tmp_path / "p.jsonl", [{"chosen": "The sky is blue.", "rejected": "The sky is green."}])
    assert first(pairs(path, columns={"prompt": None})) == PreferenceRow("The sky is", " blue.", " green.")


def test_dialogues_with_a_prompt_column(tmp_path: Path) -> None:
    row = {"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": " yes", "rejected": " no"}
    path = write_jsonl(tmp_path / "p.jsonl", [row])
    assert first(pairs(path, format="hh_dialogue")) == PreferenceRow(**row)


def test_dialogues_without_a_prompt_column_part_at_the_last_common_turn(tmp_path: Path) -> None:
    """Both answers begin with " I l", which belongs to the answers; the first of two shared turns stays in the prompt."""
    shared = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    row = {"chosen": f"{shared} I like it", "rejected": f"{shared} I loathe it"}
    source = pairs(write_jsonl(tmp_path / "p.jsonl", [row]), format="hh_dialogue", columns={"prompt": None})
    assert first(source) == PreferenceRow(shared, " I like it", " I loathe it")


def test_what_is_no_dialogue_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "hi", "chosen": "a", "rejected": "b"}])
    assert refusal(pairs(path, format="hh_dialogue")) == (
        f"{path} 'train' row 0: not an hh_dialogue prompt, which starts with '\\n\\nHuman:' and ends with '\\n\\nAssistant:'"
    )


def test_alpaca_rows_go_into_the_template_with_their_input(tmp_path: Path) -> None:
    """The input stands on the line below the instruction; an empty one, or null, leaves no line."""
    path = write_jsonl(
        tmp_path / "i.jsonl",
        [
            {"instruction": "Add.", "input": "1 2", "output": "3"},
            {"instruction": "Sing.", "input": "", "output": "la"},
            {"instruction": "Hum.", "input": None, "output": "mm"},
        ],
    )
    own = rows(path, template="\n\nHuman: {prompt}\n\nAssistant:", answer_prefix=" ", rows=3)
    assert data.load_text(own, "train", 3, TOKENIZER, None) == [
        InstructionRow("\n\nHuman: Add.\n1 2\n\nAssistant:", " 3"),
        InstructionRow("\n\nHuman: Sing.\n\nAssistant:", " la"),
        InstructionRow("\n\nHuman: Hum.\n\nAssistant:", " mm"),
    ]
    assert first(rows(path)) == InstructionRow("### Instruction:\nAdd.\n1 2\n\n### Response:\n", "3")


def test_a_template_leaves_braces_in_the_row_alone(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "i.jsonl", [{"instruction": "{x} {prompt}", "output": "{}"}])
    assert first(rows(path, template="<{prompt}>")) == InstructionRow("<{x} {prompt}>", "{}")


def test_plain_rows_with_mapped_columns(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "i.jsonl", [{"q": "1+1=", "a": "2", "input": "not this"}])
    columns = {"instruction": "q", "output": "a", "input": None}
    assert first(rows(path, format="plain", columns=columns)) == InstructionRow("1+1=", "2")


def test_a_mapped_input_column_must_be_there(tmp_path: Path) -> None:
    """The default column `input` may be absent; one that the suite names may not."""
    path = write_jsonl(tmp_path / "i.jsonl", [{"instruction": "a", "output": "b"}])
    assert first(rows(path, format="plain")) == InstructionRow("a", "b")
    assert refusal(rows(path, format="plain", columns={"input": "contxt"})) == (
        f"{path} 'train' row 0: no column 'contxt'; it has: instruction, output; map them under 'columns'"
    )


def test_messages_are_templated_by_the_models_own_template(tmp_path: Path) -> None:
    """The prompt ends with the generation prompt; the answers carry the end of turn, which tokenizing keeps once."""
    user, good, bad = (
        {"role": role, "content": text} for role, text in (("user", "hi"), ("assistant", "yo"), ("assistant", "no"))
    )
    expected = PreferenceRow("[user]hi</s>[assistant]", "yo</s>", "no</s>")
    explicit = write_jsonl(tmp_path / "p.jsonl", [{"prompt": [user], "chosen": [good], "rejected": [bad]}])
    assert first(pairs(explicit, format="messages")) == expected
    implicit = write_jsonl(tmp_path / "q.jsonl", [{"chosen": [user, good], "rejected": [user, bad]}])
    assert first(pairs(implicit, format="messages", columns={"prompt": None})) == expected
    example = Tokenizing(TOKENIZER, 99, 99).example(expected)
    assert example.answers == ((*ids("yo"), EOS), (*ids("no"), EOS))


def test_instruction_rows_as_messages(tmp_path: Path) -> None:
    """TRL's `messages` column, or instruction and output that become one turn each."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    expected = InstructionRow("[user]hi</s>[assistant]", "yo</s>")
    assert first(rows(write_jsonl(tmp_path / "m.jsonl", [{"messages": turns}]), format="messages")) == expected
    columns = write_jsonl(tmp_path / "c.jsonl", [{"instruction": "hi", "output": "yo"}])
    assert first(rows(columns, format="messages")) == expected


def test_text_is_never_templated_silently(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    assert refusal(pairs(path, format="messages")) == (
        f"{path} 'train' row 0: format messages needs lists of {{role, content}}; this row holds plain text"
    )


def test_messages_need_a_chat_template(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    path = write_jsonl(tmp_path / "m.jsonl", [{"messages": turns}])
    bare = byte_tokenizer()
    bare.chat_template = None
    assert refusal(rows(path, format="messages"), bare) == (
        f"{path} 'train' row 0: format messages needs a tokenizer with a chat template; this model has none"
    )


def test_messages_in_a_text_format_are_refused(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "p.jsonl", [{"prompt": "a", "chosen": [{"role": "user", "content": "x"}], "rejected": "b"}]
    )
    assert refusal(pairs(path)) == (
        f"{path} 'train' row 0: column 'chosen' holds list, not text; for chat messages use format: messages"
    )


# ---- places ---------------------------------------------------------------------------------------------------------

PAIRS = [{"prompt": f"p{number}", "chosen": "c", "rejected": "r"} for number in range(6)]


def prompts(source: PreferenceData, split: str, count: int, mirror: Path | None = None) -> list[str]:
    return [row.prompt for row in data.load_text(source, split, count, TOKENIZER, mirror)]


def test_without_a_test_split_the_held_out_rows_follow_the_training_rows(tmp_path: Path) -> None:
    source = pairs(write_jsonl(tmp_path / "p.jsonl", PAIRS), rows=4)
    assert prompts(source, "train", 4) == ["p0", "p1", "p2", "p3"]
    assert prompts(source, "held_out", 2) == ["p4", "p5"]


def test_a_folder_has_a_file_per_split(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", PAIRS[:4])
    write_jsonl(tmp_path / "test.jsonl", PAIRS[4:])
    source = pairs(tmp_path, rows=4, test_split="test")
    assert prompts(source, "train", 4) == ["p0", "p1", "p2", "p3"]
    assert prompts(source, "held_out", 2) == ["p4", "p5"]


def test_a_mirror_holds_the_hubs_sets_by_name(tmp_path: Path) -> None:
    """Hub id and mirror give the rows that a local folder of the same files gives: one code path."""
    folder = tmp_path / "datasets" / "some" / "pairs"
    write_jsonl(folder / "train.jsonl", PAIRS[:4])
    write_jsonl(folder / "test.jsonl", PAIRS[4:])
    hub = PreferenceData(source="hub", path="some/pairs", rows=4)
    local = pairs(folder, rows=4, test_split="test")
    for split, count in (("train", 4), ("held_out", 2)):
        assert prompts(hub, split, count, tmp_path) == prompts(local, split, count)
    assert data.identity(hub, tmp_path) == data.identity(local, None)


def test_the_identity_is_the_content(tmp_path: Path) -> None:
    """The same bytes in another folder are the same data; one changed byte is another; the hub has no bytes to hash yet."""
    for name in ("a", "b", "c"):
        write_jsonl(tmp_path / name / "train.jsonl", PAIRS if name != "c" else PAIRS[:5])
    same, again, other = (data.identity(pairs(tmp_path / name), None) for name in ("a", "b", "c"))
    assert same == again != other
    assert same.startswith("sha256:")
    hub = {"source": "hub", "path": "some/pairs", "rows": 1}
    assert data.identity(DataSource.model_validate(hub), None) == "hub:some/pairs@main"
    assert data.identity(DataSource.model_validate({**hub, "revision": "v2"}), None) == "hub:some/pairs@v2"


def test_csv_and_parquet_files_are_read_too(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_list(PAIRS)
    table.to_csv(str(tmp_path / "p.csv"), index=False)
    table.to_parquet(str(tmp_path / "p.parquet"))
    for name in ("p.csv", "p.parquet"):
        assert prompts(pairs(tmp_path / name), "train", 2) == ["p0", "p1"]


def test_a_file_has_no_second_split(tmp_path: Path) -> None:
    """Read under another name it would give the training rows, and held-out figures would be training figures."""
    source = pairs(write_jsonl(tmp_path / "p.jsonl", PAIRS), test_split="test")
    with pytest.raises(DataError) as caught:
        data.load_text(source, "held_out", 1, TOKENIZER, None)
    assert str(caught.value) == (
        f"{tmp_path}/p.jsonl: a file has no split 'test'; set test_split: null to hold out the rows after the training "
        "rows, or give a folder with a file per split"
    )


def test_too_few_rows(tmp_path: Path) -> None:
    source = pairs(write_jsonl(tmp_path / "p.jsonl", PAIRS), rows=7)
    assert refusal(source) == (
        f"{tmp_path}/p.jsonl: 7 rows wanted, but split 'train' has 6; lower rows or evaluation_rows"
    )
    with pytest.raises(DataError) as caught:
        data.load_text(pairs(tmp_path / "p.jsonl", rows=4), "held_out", 3, TOKENIZER, None)
    assert str(caught.value) == (
        f"{tmp_path}/p.jsonl: 3 rows wanted after the 4 training rows, but split 'train' has 6; "
        "lower rows or evaluation_rows"
    )


def test_a_missing_column_names_those_that_are_there(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "a", "better": "b", "worse": "c"}])
    assert refusal(pairs(path)) == (
        f"{path} 'train' row 0: no column 'chosen'; it has: prompt, better, worse; map them under 'columns'"
    )


def test_a_missing_file_or_mirror_folder(tmp_path: Path) -> None:
    assert refusal(pairs(tmp_path / "none.jsonl")) == f"{tmp_path}/none.jsonl: no such data file or folder"
    hub = PreferenceData(source="hub", path="some/pairs", rows=1)
    with pytest.raises(DataError) as caught:
        data.load_text(hub, "train", 1, TOKENIZER, tmp_path)
    assert str(caught.value) == (
        f"some/pairs: not in the mirror (no folder {tmp_path}/datasets/some/pairs); add it or run without --mirror"
    )
    with pytest.raises(DataError) as caught:
        data.files_hash(tmp_path)
    assert str(caught.value) == f"{tmp_path}: holds no data file (.jsonl, .json, .csv, .parquet)"


def test_an_unknown_split_and_a_broken_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a" / "train.jsonl", PAIRS)
    source = pairs(tmp_path / "a", train_split="trian")
    assert refusal(source).startswith(f"{tmp_path}/a: split 'trian' cannot be read: ")
    broken = tmp_path / "b.jsonl"
    broken.write_text('{"prompt": "a", \n', encoding="utf-8")
    assert refusal(pairs(broken)).startswith(f"{broken}: split 'train' cannot be read: ")


def test_the_hub_out_of_reach_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*given: Any, **settings: Any) -> None:
        raise ConnectionError("Couldn't reach 'some/pairs' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    assert refusal(PreferenceData(source="hub", path="some/pairs", rows=1)) == (
        "some/pairs: the hub cannot be reached and no mirror was given; go online, or pass --mirror DIR (or BENCH_MIRROR) "
        "with DIR/datasets/some/pairs (Couldn't reach 'some/pairs' on the Hub)"
    )


# ---- both sets ------------------------------------------------------------------------------------------------------


def both(tmp_path: Path, **settings: Any) -> Data:
    write_jsonl(tmp_path / "pairs.jsonl", [{**row, "chosen": f"c{number}"} for number, row in enumerate(PAIRS)])
    write_jsonl(tmp_path / "rows.jsonl", [{"instruction": f"i{number}", "output": "o"} for number in range(6)])
    values = {"rows": 3, "evaluation_rows": 1}
    return Data(
        preference=pairs(tmp_path / "pairs.jsonl", **values),
        instruction=rows(tmp_path / "rows.jsonl", **values, format="plain"),
        **settings,
    )


def test_load_gives_training_held_out_and_judged_rows(tmp_path: Path) -> None:
    """Three prompts are judged but only one pair is evaluated: the held-out objective must not depend on the judge."""
    loaded = data.load(both(tmp_path), TOKENIZER, None, judged=3)
    assert [one.prompt for one in loaded.train[Objective.DPO].examples] == [ids("p0"), ids("p1"), ids("p2")]
    assert [one.prompt for one in loaded.held_out[Objective.DPO].examples] == [ids("p3")]
    assert [one.prompt for one in loaded.held_out[Objective.SFT].examples] == [ids("i3")]
    assert [row.prompt for row in loaded.judged] == ["p3", "p4", "p5"]
    assert sorted(loaded.facts()) == ["dpo/held_out", "dpo/train", "sft/held_out", "sft/train"]
    assert loaded.stop == ()


def test_the_training_sample_is_the_head_of_the_training_rows(tmp_path: Path) -> None:
    loaded = data.load(both(tmp_path), TOKENIZER, None)
    assert loaded.sample("held_out", Objective.SFT) == loaded.held_out[Objective.SFT].examples
    assert loaded.sample("train", Objective.SFT) == loaded.train[Objective.SFT].examples[:1]


def test_a_reference_on_the_chosen_answers_trains_on_the_pairs(tmp_path: Path) -> None:
    loaded = data.load(both(tmp_path), TOKENIZER, None, sft_on_chosen=True)
    assert [one.answers for one in loaded.train[Objective.SFT].examples] == [((*ids(f"c{n}"), EOS),) for n in range(3)]
    assert [one.prompt for one in loaded.train[Objective.SFT].examples] == [ids("p0"), ids("p1"), ids("p2")]


def test_generation_stops_at_the_next_human_turn_of_a_dialogue(tmp_path: Path) -> None:
    turn = {"prompt": "\n\nHuman: a\n\nAssistant:", "chosen": " b", "rejected": " c"}
    settings = both(tmp_path).model_copy(
        update={
            "preference": pairs(write_jsonl(tmp_path / "hh.jsonl", [turn] * 2), format="hh_dialogue", evaluation_rows=1)
        }
    )
    assert data.load(settings, TOKENIZER, None).stop == ("\n\nHuman:",)


@pytest.mark.parametrize("name", ["Dahoas/rm-hh-rlhf"])
def test_real_dialogues_fit_their_format(mirror: Path, name: str) -> None:
    source = PreferenceData(source="hub", path=name, rows=200, format="hh_dialogue")
    assert len(data.load_text(source, "train", 200, TOKENIZER, mirror)) == 200


# ---- the cursor -----------------------------------------------------------------------------------------------------


def draws(cursor: Cursor, count: int) -> list[list[int]]:
    return [cursor.draw() for _ in range(count)]


def test_an_epoch_deals_every_row_once_and_epochs_differ() -> None:
    """12 rows in batches of 4: three batches are an epoch."""
    cursor = Cursor(Objective.DPO, 12, 4, seed=0)
    epochs = [sum(draws(cursor, 3), []) for _ in range(4)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 4
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert cursor.rows_drawn == 48


def test_rows_that_do_not_fill_a_batch_sit_the_epoch_out() -> None:
    """11 rows in batches of 4: two batches, eight different rows, three left; other ones in other epochs."""
    cursor = Cursor(Objective.SFT, 11, 4, seed=0)
    epochs = [sum(draws(cursor, 2), []) for _ in range(6)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert set().union(*epochs) == set(range(11))


def test_the_order_depends_on_seed_and_objective() -> None:
    orders = [draws(Cursor(objective, 12, 4, seed), 6) for objective in Objective for seed in (0, 1)]
    assert len({str(order) for order in orders}) == 4
    assert draws(Cursor(Objective.DPO, 12, 4, 0), 6) == orders[0]


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 7])
def test_a_cursor_goes_on_where_its_state_was_taken(taken: int) -> None:
    """Batches of 4 of 11 rows, so that the states lie at an epoch's start, inside one and at its end."""
    whole = draws(Cursor(Objective.DPO, 11, 4, seed=5), 12)
    cursor = Cursor(Objective.DPO, 11, 4, seed=5)
    draws(cursor, taken)
    resumed = Cursor(Objective.DPO, 11, 4, seed=5)
    resumed.restore(json.loads(json.dumps(cursor.state())))
    assert resumed.rows_drawn == taken * 4
    assert draws(resumed, 12 - taken) == whole[taken:]


def test_a_batch_is_cut_into_micro_batches() -> None:
    assert [list(part) for part in data.in_parts([5, 3, 8, 1, 7], 2)] == [[5, 3], [8, 1], [7]]
