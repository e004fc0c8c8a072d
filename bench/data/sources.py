"""Data sets → rows of text. One code path for the hub, an offline mirror of it, local files and the built-in world."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from bench.data import files, world
from bench.data.rows import instruction_row, preference_row
from bench.errors import DataError
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
    """Name the content of a data set: sha256 of its files, or hub id and revision, or the world's version."""
    if source.source == "world":
        return f"world:{world.VERSION}"
    path = locate(source, mirror)
    if path is None:
        return f"hub:{source.path}@{source.revision or 'main'}"
    return f"sha256:{files_hash(path)}"


def files_hash(path: Path) -> str:
    """Hash a file, or every data file below a folder with its relative name, and a README that says which are read."""
    found = [path] if path.is_file() else files.data_files(path)
    if not found:
        raise DataError(f"{path}: holds no data file ({files.endings()})")
    if path.is_dir() and files.has_configs(path):
        found.append(path / "README.md")
    digest = hashlib.sha256()
    for file in found:
        digest.update(file.name.encode() if file == path else str(file.relative_to(path)).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
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
        return list(datasets.load_dataset(str(source.path), revision=source.revision, split=split))
    except (OSError, ConnectionError) as error:
        raise DataError(
            f"{source.path}: the hub cannot be reached and no mirror was given; go online, or pass --mirror DIR "
            f"(or BENCH_MIRROR) with DIR/datasets/{source.path} ({_first_line(error)})"
        ) from error
    except Exception as error:  # datasets raises many classes of its own for a broken file or an unknown split
        raise DataError(f"{source.path}: split {split!r} cannot be read: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def load_text(
    source: PreferenceData | InstructionData,
    split: str,
    count: int,
    tokenizer: Any,
    mirror: Path | None,
    lower: str = "rows or evaluation_rows",
) -> list[Any]:
    """Load `count` rows of the `train` or `held_out` split as PreferenceRow or InstructionRow.

    Args:
        source: which data set, and how its rows are to be read.
        split: `train` or `held_out`.
        count: rows.
        tokenizer: of the model, for chat messages; None looks at the rows of other formats only.
        mirror: folder of an offline mirror, or None.
        lower: the keys to lower where rows are too few.

    Raises:
        DataError: too few rows, a missing column, a row that does not fit the format.
    """
    if source.source == "world":
        make = world.preference_rows if isinstance(source, PreferenceData) else world.instruction_rows
        return list(make("train" if split == "train" else "test", count, lower))
    tail = split == "held_out" and source.test_split is None
    name = source.test_split if split == "held_out" and source.test_split else source.train_split
    rows = read_split(source, name, mirror)
    first = source.rows if tail else 0
    if len(rows) < first + count:
        after = f" after the {first} training rows" if first else ""
        raise DataError(f"{source.path}: {count} rows wanted{after}, but split {name!r} has {len(rows)}; lower {lower}")
    if tokenizer is None and source.format == "messages":
        return []
    convert = preference_row if isinstance(source, PreferenceData) else instruction_row
    return [
        convert(row, source, tokenizer, f"{source.path} {name!r} row {first + index}")  # type: ignore[arg-type]
        for index, row in enumerate(rows[first : first + count])
    ]
