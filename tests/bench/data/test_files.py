"""Data files of every ending and place, and what is said of the damaged ones."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from byte_level import pairs, write_jsonl

from bench.data import files, sources
from bench.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"prompt": "a", "chosen": "null", "rejected": "12"},
    {"prompt": "b\u2028c\x0cd\x85e", "chosen": "2020-01-02", "rejected": "NA"},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        files.read_file(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def zstd(data: bytes) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def delimited(delimiter: str) -> str:
    """Write the rows by hand, every cell in quotes."""
    cells = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
    return "".join(delimiter.join(f'"{cell}"' for cell in line) + "\n" for line in cells)


TEXTS = {
    "p.jsonl": LINES,
    "P.JSONL": LINES,
    "p.ndjson": LINES,
    "blank.jsonl": LINES.replace("\n", "\r\n\n"),
    "array.jsonl": json.dumps(ROWS),
    "p.json": json.dumps(ROWS, indent=2),
    "lines.json": LINES,
    "wrapped.json": json.dumps({"data": ROWS}, indent=1),
    "mark.jsonl": "\ufeff" + LINES,
    "p.csv": delimited(","),
    "p.Tsv": delimited("\t"),
}
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
    ".GZ": gzip.compress,
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_come_out_as_they_stand(tmp_path: Path, name: str) -> None:
    """No word is a missing value, no number or date another type, and a line ends with its line feed alone."""
    (tmp_path / name).write_bytes(TEXTS[name].encode())
    assert files.read_file(tmp_path / name) == ROWS


@pytest.mark.parametrize("ending", COMPRESSED)
@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
def test_compressed_files(tmp_path: Path, name: str, ending: str) -> None:
    path = tmp_path / f"{name}{ending}"
    path.write_bytes(COMPRESSED[ending](TEXTS[name].encode()))
    assert files.read_file(path) == ROWS


def test_parquet_and_both_layouts_of_arrow(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile(str(tmp_path / "stream.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for name in ("p.parquet", "file.arrow", "stream.arrow"):
        assert files.read_file(tmp_path / name) == ROWS


def test_every_row_has_every_column(tmp_path: Path) -> None:
    """A column of some rows is None in the others, and an empty cell is None too; a quoted separator is text."""
    path = write_jsonl(tmp_path / "p.jsonl", [{"a": 1}, {"b": [2]}])
    assert files.read_file(path) == [{"a": 1, "b": None}, {"a": None, "b": [2]}]
    (tmp_path / "p.csv").write_text('a, b\n"x, ""y""\nz",\n', encoding="utf-8")
    assert files.read_file(tmp_path / "p.csv") == [{"a": 'x, "y"\nz', "b": None}]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("cut.jsonl", b'{"a": 1}\n\n{"a": "b', "reading failed at line 3, the last line: is the file cut off? "),
        ("bad.jsonl", b'{"a": 1}\n{a}\n{"a": 2}\n', "reading failed at line 2: "),
        ("list.jsonl", b'{"a": 1}\n3\n', "line 2: holds a number, not an object with a name for each column"),
        ("array.json", b'[{"a": 1}, null]', "row 1: holds null, not an object with a name for each column"),
        ("cut.json", b'[{"a": 1},', "reading failed: no whole JSON array of rows: "),
        ("empty.jsonl", b"", "holds no row"),
        ("blank.jsonl", b"\n \n", "holds no row"),
        ("empty.csv", b"", "holds no row"),
        ("head.csv", b"a,b\n", "holds no row"),
        ("wide.csv", b"a,b\n1,2\n1,2,3\n", "line 3: 3 cells, but the first line names 2 columns; "),
        ("twice.csv", b"a,a\n1,2\n", "line 1: two columns are called 'a'"),
        ("quote.csv", b'a,b\n1,"2\n', "reading failed at line 2: "),
        ("latin.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', "line 2: not UTF-8 (byte 0xe9); save the file as UTF-8"),
        ("p.jsonl.gz", b"no archive", "reading failed: "),
        ("cut.jsonl.gz", gzip.compress(b'{"a": 1}', mtime=0)[:-9], "reading failed: "),
        ("cut.jsonl.xz", lzma.compress(b'{"a": 1}')[:-9], "reading failed: "),
        ("p.jsonl.zst", b"no archive", "reading failed: "),
        ("p.parquet", b"no archive", "reading failed: "),
        ("p.arrow", b"no archive", "reading failed: "),
        ("p.txt", b"a", "not the ending of a data file; taken are .jsonl, .json, .ndjson, .csv, "),
        ("gz", b"a", "not the ending of a data file; "),
    ],
)
def test_what_cannot_be_read_names_the_line(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert refusal(tmp_path / name).startswith(f"{tmp_path / name}: {said}")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("TEST.JSONL.GZ", "test"),
        ("data/train_prefs-00000-of-00002.parquet", "train_prefs"),
        ("validation/rows.csv", "validation"),
        ("my-dev.json", "validation"),
        ("contest.jsonl", None),
        ("rows.jsonl", None),
    ],
)
def test_names_say_the_split(tmp_path: Path, name: str, split: str | None) -> None:
    """Files whose names say nothing are the training rows if no other file says so, and else no split's."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert files.splits(tmp_path) == {split or "train": [path]}
    (tmp_path / "eval.jsonl").touch()
    assert files.splits(tmp_path).get("test", []) == sorted(
        [tmp_path / "eval.jsonl", *([path] if split == "test" else [])]
    )
    assert ("train" in files.splits(tmp_path)) == (split == "train")


def test_links_are_followed_once(tmp_path: Path) -> None:
    real = write_jsonl(tmp_path / "real" / "train.jsonl", ROWS)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "data").symlink_to(real.parent)
    (real.parent / "up").symlink_to(folder)
    assert files.read_split(folder, "train") == ROWS
    assert sources.identity(pairs(folder), None).startswith("rows:")


def test_a_readme_says_which_files_are_read_and_counts_in_the_identity(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "one.jsonl", ROWS[:1])
    write_jsonl(tmp_path / "two.jsonl", ROWS[1:])
    seen = []
    for name in ("one", "two"):
        (tmp_path / "README.md").write_text(
            f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {name}.jsonl\n---\n",
            "utf-8",
        )
        seen.append((files.read_split(tmp_path, "train"), sources.identity(pairs(tmp_path), None)))
    assert [rows for rows, _ in seen] == [ROWS[:1], ROWS[1:]]
    assert seen[0][1] != seen[1][1]


def test_saved_data_sets(tmp_path: Path) -> None:
    """With splits and without, as `save_to_disk` leaves them."""
    import datasets

    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": saved, "test": saved.select([1])}).save_to_disk(str(tmp_path / "both"))
    assert files.read_split(tmp_path / "one", "train") == ROWS
    assert files.read_split(tmp_path / "both", "test") == ROWS[1:]
    with pytest.raises(DataError, match="no split 'dev'; it has: train, test"):
        files.read_split(tmp_path / "both", "dev")
    with pytest.raises(DataError, match="saved without splits has no split 'test'"):
        files.read_split(tmp_path / "one", "test")
    with_test = pairs(tmp_path / "both", test_split="test")
    assert sources.identity(pairs(tmp_path / "one"), None) == sources.identity(pairs(tmp_path / "both"), None)
    assert sources.identity(with_test, None) != sources.identity(pairs(tmp_path / "both"), None)


def test_a_changed_archive_is_other_data(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    seen = set()
    for rows in (ROWS[:1], ROWS[1:]):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
        seen.add(sources.identity(pairs(tmp_path, test_split="test"), None))
    assert len(seen) == 2


def test_the_rows_are_the_identity_and_not_the_file(tmp_path: Path) -> None:
    """The same rows as JSONL, as CSV with its columns in another order, compressed, under another name; null is absent."""
    rows = [{"prompt": "p", "chosen": "c", "rejected": "r"}, {"prompt": "q", "chosen": "d", "rejected": "s"}]
    files = [write_jsonl(tmp_path / "a.jsonl", [row | {"note": None} for row in rows])]
    files.append(tmp_path / "b.csv")
    files[1].write_text("rejected,chosen,prompt\nr,c,p\ns,d,q\n", encoding="utf-8")
    files.append(tmp_path / "c.jsonl.gz")
    files[2].write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    assert len({sources.identity(pairs(file), None) for file in files}) == 1
    other = write_jsonl(tmp_path / "d.jsonl", rows[::-1])
    assert sources.identity(pairs(other), None) != sources.identity(pairs(files[0]), None)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("train[:50%]", [0, 1, 2, 3]),
        ("train[6:]", [6, 7]),
        ("train[:2]+train[-1:]", [0, 1, 7]),
    ],
)
def test_slices_of_a_file_and_of_a_folder(tmp_path: Path, split: str, expected: list[int]) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", [{"number": number} for number in range(8)])
    for place in (path, tmp_path):
        source = pairs(place, train_split=split)
        assert [row["number"] for row in sources.read_split(source, split, None)] == expected


@pytest.mark.parametrize("split", ["train[:50", "train[a:]", "train[]"])
def test_what_is_no_slice_is_refused(tmp_path: Path, split: str) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", ROWS)
    with pytest.raises(DataError, match="neither a split nor a slice of one, such as train"):
        sources.read_split(pairs(path, train_split=split), split, None)


def test_another_slice_of_the_same_file_may_be_held_out(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", [{"number": number} for number in range(8)])
    source = pairs(path, train_split="train[:75%]", test_split="train[75%:]")
    assert [row["number"] for row in sources.read_split(source, "train[75%:]", None)] == [6, 7]
