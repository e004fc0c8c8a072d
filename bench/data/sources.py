"""Data sets → rows of text. One code path for the hub, an offline mirror of it, local files and the built-in world."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from bench.data import world
from bench.data.rows import instruction_row, preference_row
from bench.errors import DataError
from bench.settings import DataSource, InstructionData, PreferenceData

DATA_FILES = (".jsonl", ".json", ".csv", ".parquet")


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
    """Hash a file, or every data file below a folder with its relative name."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.suffix in DATA_FILES)
    if not files:
        raise DataError(f"{path}: holds no data file ({', '.join(DATA_FILES)})")
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() if file == path else str(file.relative_to(path)).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def read_split(source: DataSource, split: str, mirror: Path | None) -> list[dict[str, Any]]:
    """Read all rows of a split through `datasets`.

    Raises:
        DataError: the set cannot be reached, or lacks the split.
    """
    import datasets

    path = locate(source, mirror)
    if path is not None and path.is_file() and split != source.train_split:
        raise DataError(  # whatever the name, the rows would be the training rows
            f"{path}: a file has no split {split!r}; set test_split: null to hold out the rows after the training rows, "
            "or give a folder with a file per split"
        )
    datasets.disable_progress_bars()
    try:
        if path is None:
            loaded = datasets.load_dataset(str(source.path), revision=source.revision, split=split)
        elif path.is_file():
            kind = {".jsonl": "json"}.get(path.suffix, path.suffix.removeprefix("."))
            loaded = datasets.load_dataset(kind, data_files={split: str(path)}, split=split)
        else:
            loaded = datasets.load_dataset(str(path), split=split)
    except (OSError, ConnectionError) as error:
        if path is not None:
            raise DataError(f"{path}: cannot be read: {_first_line(error)}") from error
        raise DataError(
            f"{source.path}: the hub cannot be reached and no mirror was given; go online, or pass --mirror DIR "
            f"(or BENCH_MIRROR) with DIR/datasets/{source.path} ({_first_line(error)})"
        ) from error
    except Exception as error:  # datasets raises many classes of its own for a broken file or an unknown split
        raise DataError(f"{path or source.path}: split {split!r} cannot be read: {_first_line(error)}") from error
    return list(loaded)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def load_text(
    source: PreferenceData | InstructionData, split: str, count: int, tokenizer: Any, mirror: Path | None
) -> list[Any]:
    """Load `count` rows of the `train` or `held_out` split as PreferenceRow or InstructionRow.

    Raises:
        DataError: too few rows, a missing column, a row that does not fit the format.
    """
    if source.source == "world":
        make = world.preference_rows if isinstance(source, PreferenceData) else world.instruction_rows
        return list(make("train" if split == "train" else "test", count))
    tail = split == "held_out" and source.test_split is None
    name = source.test_split if split == "held_out" and source.test_split else source.train_split
    rows = read_split(source, name, mirror)
    first = source.rows if tail else 0
    if len(rows) < first + count:
        after = f" after the {first} training rows" if first else ""
        raise DataError(
            f"{source.path}: {count} rows wanted{after}, but split {name!r} has {len(rows)}; lower rows or evaluation_rows"
        )
    convert = preference_row if isinstance(source, PreferenceData) else instruction_row
    return [
        convert(row, source, tokenizer, f"{source.path} {name!r} row {first + index}")  # type: ignore[arg-type]
        for index, row in enumerate(rows[first : first + count])
    ]
