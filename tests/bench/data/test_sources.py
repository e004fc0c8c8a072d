"""From data sets to rows of text: formats, places, errors word by word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from byte_level import EOS, TOKENIZER, byte_tokenizer, ids, pairs, rows, write_jsonl

from bench.data import sources
from bench.data.rows import InstructionRow, PreferenceRow
from bench.data.tokens import Tokenizing
from bench.errors import DataError
from bench.settings import DataSource, InstructionData, PreferenceData


def first(source: PreferenceData | InstructionData, tokenizer: Any = TOKENIZER) -> Any:
    return sources.load_rows(source, "train", 1, tokenizer, None).rows[0]


def refusal(source: PreferenceData | InstructionData, tokenizer: Any = TOKENIZER) -> str:
    with pytest.raises(DataError) as caught:
        sources.load_rows(source, "train", source.rows, tokenizer, None)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    assert sources.load_rows(own, "train", 3, TOKENIZER, None).rows == [
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
    example = Tokenizing(TOKENIZER, 99, 99).example(first(pairs(explicit, format="messages")))
    assert example.answers == ((*ids("yo"), EOS), (*ids("no"), EOS))


def test_instruction_rows_as_messages(tmp_path: Path) -> None:
    """TRL's `messages` column, or instruction and output that become one turn each."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    expected = InstructionRow("[user]hi</s>[assistant]", "yo</s>")
    assert first(rows(write_jsonl(tmp_path / "m.jsonl", [{"messages": turns}]), format="messages")) == expected
    columns = write_jsonl(tmp_path / "c.jsonl", [{"instruction": "hi", "output": "yo"}])
    assert first(rows(columns, format="messages")) == expected


def test_text_is_templated_only_where_the_suite_says_messages(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    assert first(pairs(path)) == PreferenceRow("a", "b", "c")
    assert first(pairs(path, format="messages")) == PreferenceRow("[user]a</s>[assistant]", "b</s>", "c</s>")


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
    return [row.prompt for row in sources.load_rows(source, split, count, TOKENIZER, mirror).rows]


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
    assert sources.identity(hub, tmp_path) == sources.identity(local, None)


def test_the_identity_is_the_content(tmp_path: Path) -> None:
    """The same bytes in another folder are the same data; one changed byte is another; the hub has no bytes to hash yet."""
    for name in ("a", "b", "c"):
        write_jsonl(tmp_path / name / "train.jsonl", PAIRS if name != "c" else PAIRS[:5])
    same, again, other = (sources.identity(pairs(tmp_path / name), None) for name in ("a", "b", "c"))
    assert same == again != other
    assert same.startswith("rows:")
    hub = {"source": "hub", "path": "some/pairs", "rows": 1}
    assert sources.identity(DataSource.model_validate(hub), None) == "hub:some/pairs@main"
    assert sources.identity(DataSource.model_validate({**hub, "revision": "v2"}), None) == "hub:some/pairs@v2"


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
        sources.load_rows(source, "held_out", 1, TOKENIZER, None)
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
        sources.load_rows(pairs(tmp_path / "p.jsonl", rows=4), "held_out", 3, TOKENIZER, None)
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
        sources.load_rows(hub, "train", 1, TOKENIZER, tmp_path)
    assert str(caught.value) == (
        f"some/pairs: not in the mirror (no folder {tmp_path}/datasets/some/pairs); add it or run without --mirror"
    )
    with pytest.raises(DataError) as caught:
        sources.files_hash(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds no data file (.jsonl, .json, .ndjson, .csv, .tsv, .parquet, .arrow, each also with "
        ".gz, .bz2, .xz, .zst)"
    )


def test_an_unknown_split_and_a_broken_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a" / "train.jsonl", PAIRS)
    source = pairs(tmp_path / "a", train_split="trian")
    assert refusal(source) == f"{tmp_path}/a: no split 'trian'; it has: train"
    broken = tmp_path / "b.jsonl"
    broken.write_text('{"prompt": "a", \n', encoding="utf-8")
    assert refusal(pairs(broken)).startswith(
        f"{broken}: reading failed at line 1, the last line: is the file cut off? "
    )


def test_the_hub_out_of_reach_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*given: Any, **settings: Any) -> None:
        raise ConnectionError("Couldn't reach 'some/pairs' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    assert refusal(PreferenceData(source="hub", path="some/pairs", rows=1)) == (
        "some/pairs: the hub cannot be reached and no mirror was given; go online, or pass --mirror DIR (or BENCH_MIRROR) "
        "with DIR/datasets/some/pairs (Couldn't reach 'some/pairs' on the Hub)"
    )


@pytest.mark.parametrize("name", ["Dahoas/rm-hh-rlhf"])
def test_real_dialogues_fit_their_format(mirror: Path, name: str) -> None:
    source = PreferenceData(source="hub", path=name, rows=200, format="hh_dialogue")
    assert len(sources.load_rows(source, "train", 200, TOKENIZER, mirror).rows) == 200
