"""Data sets → rows of text. One code path for the hub, an offline mirror of it, local files and the built-in world."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import DataError
from bench.settings import DataSource, InstructionColumns, InstructionData, PreferenceData

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
ALPACA = "### Instruction:\n{prompt}\n\n### Response:\n"
DATA_FILES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class PreferenceRow:
    """Hold one preference pair as text."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class InstructionRow:
    """Hold one instruction with its answer as text."""

    prompt: str
    answer: str


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
        from bench.world import VERSION

        return f"world:{VERSION}"
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
        from bench import world

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
    convert = _preference_row if isinstance(source, PreferenceData) else _instruction_row
    return [
        convert(row, source, tokenizer, f"{source.path} {name!r} row {first + index}")  # type: ignore[arg-type]
        for index, row in enumerate(rows[first : first + count])
    ]


def _column(row: Mapping[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise DataError(f"{where}: no column {column!r}; it has: {', '.join(row)}; map them under 'columns'")
    return row[column]


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = _column(row, column, where)
    if not isinstance(value, str):
        raise DataError(
            f"{where}: column {column!r} holds {type(value).__name__}, not text; for chat messages use format: messages"
        )
    return value


def _preference_row(row: Mapping[str, Any], source: PreferenceData, tokenizer: Any, where: str) -> PreferenceRow:
    columns = source.columns
    if source.format == "messages":
        parts = {"chosen": _column(row, columns.chosen, where), "rejected": _column(row, columns.rejected, where)}
        if columns.prompt:
            parts["prompt"] = _column(row, columns.prompt, where)
        made = _apply_chat_template(parts, tokenizer, where)
        return PreferenceRow(made["prompt"], made["chosen"], made["rejected"])
    chosen, rejected = _text(row, columns.chosen, where), _text(row, columns.rejected, where)
    if columns.prompt:
        prompt = _text(row, columns.prompt, where)
    else:
        from trl.data_utils import extract_prompt

        prompt = extract_prompt({"chosen": chosen, "rejected": rejected})["prompt"]
        if source.format == "hh_dialogue":  # two answers that begin alike share more than the dialogue
            prompt = prompt[: prompt.rfind(ASSISTANT) + len(ASSISTANT)] if ASSISTANT in prompt else prompt
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    if source.format == "hh_dialogue" and not (prompt.startswith(HUMAN) and prompt.endswith(ASSISTANT)):
        raise DataError(f"{where}: not an hh_dialogue prompt, which starts with {HUMAN!r} and ends with {ASSISTANT!r}")
    return PreferenceRow(prompt, chosen, rejected)


def _instruction_row(row: Mapping[str, Any], source: InstructionData, tokenizer: Any, where: str) -> InstructionRow:
    columns = source.columns
    if source.format == "messages" and "messages" in row:
        *before, last = row["messages"]
        made = _apply_chat_template({"prompt": before, "completion": [last]}, tokenizer, where)
        return InstructionRow(made["prompt"], made["completion"])
    prompt = _text(row, columns.instruction, where)
    extra = _input(row, columns, where)
    prompt = f"{prompt}\n{extra}" if extra else prompt
    answer = source.answer_prefix + _text(row, columns.output, where)
    if source.format == "messages":
        turns = {
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        made = _apply_chat_template(turns, tokenizer, where)
        return InstructionRow(made["prompt"], made["completion"])
    if source.format == "alpaca":
        prompt = (source.template or ALPACA).replace("{prompt}", prompt)
    return InstructionRow(prompt, answer)


def _input(row: Mapping[str, Any], columns: InstructionColumns, where: str) -> str:
    """Return a row's input: the default column may be absent, a mapped one may not; null means none."""
    if columns.input is None or ("input" not in columns.model_fields_set and columns.input not in row):
        return ""
    return "" if row.get(columns.input, "") is None else _text(row, columns.input, where)


def _apply_chat_template(parts: dict[str, Any], tokenizer: Any, where: str) -> dict[str, str]:
    """Let TRL turn chat messages into text with the model's own template; plain strings are refused, never templated."""
    from trl.data_utils import extract_prompt, is_conversational, maybe_apply_chat_template

    if not is_conversational(parts):
        raise DataError(f"{where}: format messages needs lists of {{role, content}}; this row holds plain text")
    if tokenizer.chat_template is None:
        raise DataError(f"{where}: format messages needs a tokenizer with a chat template; this model has none")
    if "prompt" not in parts:
        parts = extract_prompt(parts)
    made: dict[str, str] = maybe_apply_chat_template(parts, tokenizer)
    return made
