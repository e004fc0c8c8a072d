"""Data sets → rows of text. One code path for the hub, an offline mirror of it, local files and the built-in world."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.data import files, world
from bench.data.conversations import RowError
from bench.data.gather import gather, gathered_from
from bench.data.rows import InstructionReader, InstructionRow, PreferenceReader, PreferenceRow, Reader
from bench.errors import DataError
from bench.records import hub
from bench.records.hashes import file_hash, remembered, stamp
from bench.settings import DataSource, InstructionData, PreferenceData


def locate(source: DataSource, mirror: Path | None) -> Path | None:
    """Find a data set's folder or file on this machine; None means it must come from the hub."""
    if source.source == "local":
        path = Path(source.path or "").expanduser()
        if not path.exists():
            raise DataError(f"{path}: no such data file or folder")
        return path
    if source.source == "hub" and mirror is not None:
        folder = mirror / "datasets" / str(source.path)
        if not folder.is_dir():
            raise DataError(f"{source.path}: not in the mirror (no folder {folder}); add it or run without --mirror")
        return folder
    return None


def identity(source: DataSource, mirror: Path | None) -> str:
    """Name the content of a data set: the hash of the rows that are read, or hub id and revision, or the world's version.

    Raises:
        DataError: rows on this machine cannot be read.
    """
    if source.source == "world":
        return f"world:{world.VERSION}"
    path = locate(source, mirror)
    if path is None:
        return f"hub:{source.path}@{revision(source) or 'main'}"
    names = [source.train_split, *([source.test_split] if source.test_split else [])]
    found = [path] if path.is_file() else files.parts(path)
    key = ["rows", _ROWS_VERSION, *names, *(stamp(file) for file in found)]
    return f"rows:{remembered(key, lambda: rows_hash(read_split(source, name, mirror) for name in names))[:16]}"


def files_identity(source: DataSource, mirror: Path | None) -> str:
    """Name the content of a data set of which another program reads what it likes: hash of its files, or hub id and commit."""
    path = locate(source, mirror)
    return identity(source, mirror) if path is None else f"sha256:{files_hash(path)}"


def revision(source: DataSource) -> str | None:
    """Return the commit that a hub's data set is read at; the branch or tag where nobody can tell."""
    return hub.commit(str(source.path), source.revision, "dataset") or source.revision


_ROWS_VERSION = 1  # of how files are read into rows: raise it where the same file gives others


def rows_hash(splits: Iterable[Iterable[Mapping[str, Any]]]) -> str:
    """Hash rows by what they say: in which file, format or order of columns they came does not count, and null is absent."""
    digest = hashlib.sha256()
    for rows in splits:
        digest.update(b"split\n")
        for row in rows:
            said = {name: value for name, value in row.items() if value is not None}
            digest.update(json.dumps(said, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()


def files_hash(path: Path) -> str:
    """Hash a file, or every data file below a folder with its relative name, and a README that says which are read."""
    found = [path] if path.is_file() else files.parts(path)
    digest = hashlib.sha256()
    for file in found:
        digest.update(file.name.encode() if file == path else str(file.relative_to(path)).encode())
        digest.update(bytes.fromhex(file_hash(file)))
    return digest.hexdigest()[:16]


def read_split(source: DataSource, split: str, mirror: Path | None) -> list[dict[str, Any]]:
    """Read all rows of a split, or of a slice of one such as `train[:50%]`.

    Raises:
        DataError: the set cannot be reached, or lacks the split.
    """
    path = locate(source, mirror)
    if path is None:
        return _read_hub(source, split)
    if path.is_file() and _names(split) != _names(source.train_split):
        raise DataError(  # whatever the name, the rows would be the training rows
            f"{path}: a file has no split {split!r}; set test_split: null to hold out the rows after the training rows, "
            "or give a folder with a file per split"
        )
    found = {name: files.read_file(path) if path.is_file() else files.read_split(path, name) for name in _names(split)}
    return _slice(found, split, path)


def _names(split: str) -> set[str]:
    """Name the splits that an instruction such as `train[:10]+test` asks for."""
    return {part.partition("[")[0].strip() for part in split.split("+")}


def _slice(found: dict[str, list[dict[str, Any]]], split: str, path: Path) -> list[dict[str, Any]]:
    if set(found) == {split}:
        return found[split]
    import datasets

    try:
        wanted = datasets.ReadInstruction.from_spec(split).to_absolute(
            {name: len(rows) for name, rows in found.items()}
        )
    except (ValueError, AssertionError) as error:
        raise DataError(
            f"{path}: split {split!r} is neither a split nor a slice of one, such as train, train[:1000] or train[50%:] "
            f"({_first_line(error)})"
        ) from None
    return [row for part in wanted for row in found[part.splitname][part.from_ : part.to]]


def _read_hub(source: DataSource, split: str) -> list[dict[str, Any]]:
    import datasets

    datasets.disable_progress_bars()
    try:
        return list(datasets.load_dataset(str(source.path), revision=revision(source), split=split))
    except (OSError, ConnectionError) as error:
        raise DataError(
            f"{source.path}: the hub cannot be reached and no mirror was given; go online, or pass --mirror DIR "
            f"(or BENCH_MIRROR) with DIR/datasets/{source.path} ({_first_line(error)})"
        ) from error
    except Exception as error:  # datasets raises many classes of its own for a broken file or an unknown split
        raise DataError(f"{source.path}: split {split!r} cannot be read: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


@dataclass
class Loaded:
    """Rows of a split as text, and what became of the others.

    Attributes:
        rows: in the order of the file.
        numbers: of each, counted from 0 in what was read of the split; a ranking's or a tree's is that of its first row.
        refused: rows that cannot be used, by kind: numbers and the sentence.
        reader: what it counted: shapes, columns, what was put right; None for the built-in world.
        columns: names of what was read.
        gathered: what each row was made of, if not of one row.
    """

    rows: list[Any]
    numbers: list[int]
    refused: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    reader: Reader | None = None
    columns: tuple[str, ...] = ()
    gathered: str | None = None

    @property
    def shape(self) -> str:
        """In what shape the rows came; the most frequent first."""
        if self.reader is None:
            return "built-in world"
        if self.gathered:
            return self.gathered
        shapes = sorted(self.reader.shapes.items(), key=lambda one: -one[1])
        return shapes[0][0] if len(shapes) == 1 else "; ".join(f"{name} ({count})" for name, count in shapes)


def load_rows(
    source: PreferenceData | InstructionData,
    split: str,
    count: int,
    tokenizer: Any,
    mirror: Path | None,
    *,
    lower: str = "rows or evaluation_rows",
    drop: bool = False,
) -> Loaded:
    """Load `count` rows of the `train` or `held_out` split as PreferenceRow or InstructionRow.

    Args:
        source: which data set, and how its rows are to be read.
        split: `train` or `held_out`.
        count: rows.
        tokenizer: of the model, for its chat template and its control tokens.
        mirror: folder of an offline mirror, or None.
        lower: the keys to lower where rows are too few.
        drop: leave out rows that cannot be used, and go on to the next.

    Raises:
        DataError: too few rows, a missing column, a row that does not fit the format.
    """
    if source.source == "world":
        make = world.preference_rows if isinstance(source, PreferenceData) else world.instruction_rows
        return Loaded(list(make("train" if split == "train" else "test", count, lower)), list(range(count)))
    tail = split == "held_out" and source.test_split is None
    name = source.test_split if split == "held_out" and source.test_split else source.train_split
    read = read_split(source, name, mirror)
    found = list(gather(read, source))
    where = f"{source.path} {name!r}"
    first = source.rows if tail else 0
    if not drop:
        _enough(len(found), first, count, 0, f"{source.path}", name, lower)
        found, first = found[first : first + count], 0
    loaded = _loaded(source, tokenizer, read)
    _convert_into(loaded, found, source, where, first + count)
    if loaded.refused and not drop:
        raise DataError(_refusals(where, loaded.refused, len(found)))
    if drop:
        refused = sum(map(len, loaded.refused.values()))
        problem = f" ({_refusals(where, loaded.refused, len(found))})" if refused else ""
        _enough(len(loaded.rows), first, count, refused, f"{source.path}", name, lower, problem)
    if first:
        last = loaded.numbers[first - 1]  # what was refused before it is the training rows' to tell
        later = {kind: [one for one in rows if one[0] > last] for kind, rows in loaded.refused.items()}
        loaded.refused = {kind: rows for kind, rows in later.items() if rows}
    loaded.rows, loaded.numbers = loaded.rows[first:], loaded.numbers[first:]
    return loaded


def load_all(source: PreferenceData | InstructionData, split: str, tokenizer: Any, mirror: Path | None) -> Loaded:
    """Load all rows of a split by its own name that can be used, and say what is wrong with the others."""
    read = read_split(source, split, mirror)
    loaded = _loaded(source, tokenizer, read)
    _convert_into(loaded, gather(read, source), source, f"{source.path} {split!r}", None)
    return loaded


def split_names(source: str, path: str, mirror: Path | None) -> list[str]:
    """Name the splits of a local file, a folder or a hub's data set."""
    place = locate(DataSource.model_validate({"source": source, "path": path, "rows": 1}), mirror)
    if place is None:
        import datasets
        from huggingface_hub import HfApi

        try:
            HfApi().dataset_info(path, timeout=10)  # without the retries of the next line
            return [str(name) for name in datasets.get_dataset_split_names(path)]
        except Exception as error:  # offline, unknown, gated: each has classes of its own
            raise DataError(f"{path}: neither a file here nor a data set of the hub: {_first_line(error)}") from error
    return ["train"] if place.is_file() else files.split_names(place)


def _loaded(source: PreferenceData | InstructionData, tokenizer: Any, read: Sequence[Mapping[str, Any]]) -> Loaded:
    reader = PreferenceReader(tokenizer) if isinstance(source, PreferenceData) else InstructionReader(tokenizer)
    made, of_columns = gathered_from(read, source) or (None, ())
    reader.read.update(of_columns)
    return Loaded([], [], reader=reader, columns=tuple(read[0]) if read else (), gathered=made)


def _convert_into(
    loaded: Loaded,
    found: Iterable[Any],
    source: PreferenceData | InstructionData,
    where: str,
    count: int | None,
) -> None:
    """Convert rows until `count` can be used; None converts all."""
    assert loaded.reader is not None
    for number, row in found:
        if len(loaded.rows) == count:
            break
        try:
            loaded.rows.append(_converted(loaded.reader, row, source))
            loaded.numbers.append(number)
        except RowError as error:
            loaded.refused.setdefault(error.kind, []).append((number, str(error)))
        except DataError as error:
            raise DataError(f"{where} row {number}: {error}") from None


def _enough(
    there: int, first: int, count: int, refused: int, path: str, name: str, lower: str, problem: str = ""
) -> None:
    if there < first + count:
        after = f" after the {first} training rows" if first else ""
        usable = f" of which {there} can be used" if refused else ""
        raise DataError(
            f"{path}: {count} rows wanted{after}, but split {name!r} has {there + refused}{usable}; lower {lower}{problem}"
        )


def _converted(reader: Reader, row: Any, source: PreferenceData | InstructionData) -> PreferenceRow | InstructionRow:
    if isinstance(row, RowError):
        raise row
    if isinstance(reader, PreferenceReader):
        assert isinstance(source, PreferenceData)
        made: PreferenceRow | InstructionRow = reader.pair(row, source)
    else:
        assert isinstance(reader, InstructionReader) and isinstance(source, InstructionData)
        made = reader.row(row, source)
    reader.check(made)
    return made


_NAMED = 10  # refused rows that are named one by one


def _refusals(where: str, refused: Mapping[str, Sequence[tuple[int, str]]], looked_at: int) -> str:
    """Name the first refused rows, those of one sentence together, and how many there are in all."""
    found = sorted(one for rows in refused.values() for one in rows)
    by_sentence: dict[str, list[int]] = {}
    for number, sentence in found[:_NAMED]:
        by_sentence.setdefault(sentence, []).append(number)
    lines = [
        f"{where} row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}: {sentence}"
        for sentence, numbers in by_sentence.items()
    ]
    if len(found) == looked_at > 1:
        lines.append(f"none of the {looked_at} rows can be used")
    elif len(found) < looked_at:
        lines.append(f"{len(found)} of {looked_at} rows cannot be used, and data.bad_rows: drop leaves them out")
    return "; ".join(lines)
