"""Rows of data files on this machine. What a file says is what is read: no type is guessed, no word becomes "missing"."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.errors import DataError

Row = dict[str, Any]

_FOLDER_MARKS = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves: several splits, or one


def is_data_file(path: Path) -> bool:
    """Whether a file's name, in any capitalization, ends as one that is read."""
    return _format(path) is not None


def endings() -> str:
    """List the endings that are read, for messages."""
    return f"{', '.join(_READERS)}, each also with {', '.join(_COMPRESSIONS)}"


def data_files(folder: Path) -> list[Path]:
    """Find every data file below a folder, behind links too, in the order of their names."""
    found, seen = [], set()
    for place, inner, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above
            inner.clear()
            continue
        seen.add(real)
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".") and is_data_file(Path(name))]
    return sorted(found)


def parts(folder: Path) -> list[Path]:
    """List what a folder's rows come from: its data files, and what says which of them are read.

    Raises:
        DataError: it holds no data file.
    """
    found = data_files(folder)
    if not found:
        raise DataError(f"{folder}: holds no data file ({endings()})")
    said = [*(folder / mark for mark in _FOLDER_MARKS), *([folder / "README.md"] if has_configs(folder) else [])]
    return [*found, *(file for file in said if file.is_file())]


def read_file(path: Path) -> list[Row]:
    """Read a file's rows; a column that only other rows have is None.

    Raises:
        DataError: the ending is not one that is read, or the file is damaged, empty or no table; with its line if it has lines.
    """
    form = _format(path)
    if form is None:
        raise DataError(f"{path}: not the ending of a data file; taken are {endings()}")
    try:
        rows = list(_READERS[form](path))
    except DataError:
        raise
    except Exception as error:  # a damaged archive: each library has classes of its own
        raise DataError(f"{path}: reading failed: {_first_line(error)}") from error
    if not rows:
        raise DataError(f"{path}: holds no row")
    columns: dict[str, None] = dict.fromkeys(column for row in rows for column in row)
    return [{column: row.get(column) for column in columns} for row in rows]


def read_split(folder: Path, split: str) -> list[Row]:
    """Read the files of a folder's split: of a saved data set, as the README says, or by the files' and folders' names.

    Raises:
        DataError: there is no such split, or a file cannot be read.
    """
    if any((folder / mark).is_file() for mark in _FOLDER_MARKS):
        return _saved(folder, split)
    found = splits(folder)
    if split not in found:
        raise DataError(f"{folder}: no split {split!r}; it has: {', '.join(found)}")
    return [row for path in found[split] for row in read_file(path)]


def splits(folder: Path) -> dict[str, list[Path]]:
    """Say which files belong to which split of a folder.

    A README's `configs` decide, read by `datasets`. Without, a file belongs to the split whose name is a word of its own
    name or else of a folder's on the way to it, as `datasets` has it; where no file says so, all are `train`.

    Raises:
        DataError: no data file, or a README that asks for what is not there.
    """
    if has_configs(folder):
        return _configured(folder)
    found = data_files(folder)
    if not found:
        raise DataError(f"{folder}: holds no data file ({endings()})")
    named: dict[str, list[Path]] = {}
    for path in found:
        if (split := _split_of(path.relative_to(folder))) is not None:
            named.setdefault(split, []).append(path)
    return named or {"train": found}


def split_names(folder: Path) -> list[str]:
    """Name a folder's splits."""
    if not any((folder / mark).is_file() for mark in _FOLDER_MARKS):
        return list(splits(folder))
    import datasets

    saved = datasets.load_from_disk(str(folder))
    return [str(name) for name in saved] if isinstance(saved, datasets.DatasetDict) else ["train"]


_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def _split_of(path: Path) -> str | None:
    """Name the split of a relative path: `train-00000-of-00003.parquet`, `validation/rows.csv`, `test_prefs.jsonl`."""
    stem = _stem(path)
    if shard := re.fullmatch(r"(.+?)-\d{5}-of-\d{5}.*", stem):  # a shard says its split's whole name
        return shard.group(1)
    for part in (stem, *reversed(path.parts[:-1])):
        for split, words in _WORDS.items():
            if any(re.search(rf"(^|[^a-zA-Z]){word}($|[^a-zA-Z])", part, re.IGNORECASE) for word in words):
                return split
    return None


def has_configs(folder: Path) -> bool:
    """Whether a folder's README says which files are which split."""
    card = folder / "README.md"
    if not card.is_file():
        return False
    from huggingface_hub import metadata_load

    try:
        said = metadata_load(card)
    except Exception:  # no card of a data set but a README like any other, in whatever it breaks the reader's YAML
        return False
    return isinstance(said, dict) and bool(said.get("configs"))


def _configured(folder: Path) -> dict[str, list[Path]]:
    import datasets

    try:
        found = datasets.load_dataset_builder(str(folder)).config.data_files
    except Exception as error:  # datasets raises many classes of its own for what a README says wrongly
        raise DataError(f"{folder}: {_first_line(error)}") from error
    return {str(split): [Path(str(path)) for path in paths] for split, paths in (found or {}).items()}


def _saved(folder: Path, split: str) -> list[Row]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # as above
        raise DataError(f"{folder}: a saved data set that cannot be read: {_first_line(error)}") from error
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(f"{folder}: no split {split!r}; it has: {', '.join(map(str, saved))}")
        saved = saved[split]
    elif split != "train":
        raise DataError(f"{folder}: a data set saved without splits has no split {split!r}; its rows are 'train'")
    return list(saved)


# ---- formats --------------------------------------------------------------------------------------------------------


def _json_lines(path: Path) -> Iterator[Row]:
    text = _text(path)
    if text.lstrip().startswith("["):
        yield from _json_array(path, text)
        return
    lines = text.split("\n")  # a line ends with \n alone: texts hold U+2028, U+0085 and form feeds
    last = max((number for number, line in enumerate(lines, 1) if line.strip()), default=0)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            cut = ", the last line: is the file cut off?" if number == last else ":"
            raise DataError(f"{path}: reading failed at line {number}{cut} {error}") from None
        yield _object(path, f"line {number}", row)


def _json(path: Path) -> Iterator[Row]:
    """An array of rows, one object that holds one such array, or one object a line."""
    text = _text(path)
    if not text.lstrip().startswith("{"):
        yield from _json_array(path, text)
        return
    try:
        whole = json.loads(text)
    except ValueError:
        yield from _json_lines(path)
        return
    arrays = [
        value for value in whole.values() if isinstance(value, list) and all(isinstance(row, dict) for row in value)
    ]
    if len(whole) == len(arrays) == 1:
        yield from arrays[0]
        return
    yield whole


def _json_array(path: Path, text: str) -> Iterator[Row]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: reading failed: no whole JSON array of rows: {error}") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: holds {_kind(rows)}, not rows")
    for number, row in enumerate(rows):
        yield _object(path, f"row {number}", row)


def _object(path: Path, where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{path}: {where}: holds {_kind(row)}, not an object with a name for each column")
    return row


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")


def _commas(path: Path) -> Iterator[Row]:
    return _table(path, ",")


def _tabs(path: Path) -> Iterator[Row]:
    return _table(path, "\t")


def _table(path: Path, delimiter: str) -> Iterator[Row]:
    """All cells are text, since the format knows no types; an empty cell is None."""
    text = _text(path)
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:  # a line without anything on it
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if twice := sorted({name for name in header if header.count(name) > 1}):
                    raise DataError(f"{path}: line 1: two columns are called {twice[0]!r}")
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}: line {reader.line_num}: {len(cells)} cells, but the first line names {len(header)} columns; "
                    "put texts that hold separators in double quotes"
                )
            yield {name: cell or None for name, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise DataError(f"{path}: reading failed at line {reader.line_num}: {error}") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    yield from pyarrow.parquet.read_table(io.BytesIO(_bytes(path))).to_pylist()


def _arrow(path: Path) -> Iterator[Row]:
    """Both layouts of Arrow's: the file and the stream, which `datasets` writes."""
    import pyarrow as pa

    data = pa.py_buffer(_bytes(path))
    try:
        table = pa.ipc.open_file(data).read_all()
    except pa.ArrowInvalid:
        table = pa.ipc.open_stream(data).read_all()
    yield from table.to_pylist()


# ---- bytes ----------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    data = _bytes(path)
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}: line {line}: not UTF-8 (byte {data[error.start]:#04x}); save the file as UTF-8"
        ) from None


def _bytes(path: Path) -> bytes:
    """Return a file's bytes, decompressed if its name ends so."""
    decompress = _COMPRESSIONS.get(path.suffix.lower(), bytes)
    return decompress(path.read_bytes())


def _zstd(data: bytes) -> bytes:
    import pyarrow as pa

    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        return bytes(stream.read())


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".ndjson": _json_lines,
    ".csv": _commas,
    ".tsv": _tabs,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
_COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": _zstd,
}


def _format(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in _READERS else None


def _stem(path: Path) -> str:
    name = path.name
    if path.suffix.lower() in _COMPRESSIONS:
        name = Path(name).stem
    return Path(name).stem


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
