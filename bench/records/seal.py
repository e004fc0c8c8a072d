"""Say whether a job's files are those that it wrote: by their sha256 in status.json, and by what each must hold."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from bench.errors import InputError
from bench.records import hashes, safe_files, schema
from bench.records.archive import ArchivePath, RecordPath
from bench.records.record import ROWS, Job, again, read_job, read_json, read_jsonl

# Not what a job made known: its own words, what says by itself whether it is sound, and what is gone by the end.
_LEFT_OUT = (".*", "log.txt", "spec.json", "status.json", "*.cut", "*.lock")
_CHECKPOINTS = "checkpoints"  # each says by itself what it must hold
_WEIGHTS = ("adapter", "model")  # either; may be deleted whole, and are made again when a job needs them


@dataclass(frozen=True)
class Damage:
    """A job whose record cannot be relied on, and what is wrong with it."""

    job: str
    what: str

    def __str__(self) -> str:
        return f"{self.job}: {self.what}"


def tensors_of(path: Path) -> Path:
    """Return the folder beside a checkpoint where tensors lie that processes wrote together."""
    return path.with_suffix(".tensors")


def delete_checkpoint(path: Path) -> None:
    """Delete a checkpoint with all that goes with it."""
    for one in (path, path.with_suffix(".json")):
        one.unlink(missing_ok=True)
    shutil.rmtree(tensors_of(path), ignore_errors=True)


def weights_in(path: RecordPath) -> list[str]:
    """Name the folders of weights that a job's folder holds: `adapter`, or `model` where all weights are its own."""
    return [name for name in _WEIGHTS if (path / name).is_dir()]


def of_files(folder: Path) -> dict[str, str]:
    """Return name -> sha256 of what a job leaves behind, once it is on the disk."""
    found = {}
    for path in _files(folder):
        safe_files.flush(path)
        found[path.relative_to(folder).as_posix()] = hashes.file_hash(path)
    for name in weights_in(folder):
        safe_files.flush_folder(folder / name)
    safe_files.flush_folder(folder)
    return found


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.name != _CHECKPOINTS:
                yield from (one for one in sorted(path.rglob("*")) if one.is_file())
        elif path.is_file() and not any(fnmatchcase(path.name, pattern) for pattern in _LEFT_OUT):
            yield path


def clear(folder: Path) -> None:
    """Take away what an earlier attempt at a job left, but the rows that a checkpoint goes with, and others' files."""
    (folder / "status.json").unlink(missing_ok=True)  # first: the job is complete no longer
    for path in folder.iterdir():
        if path.name in _WEIGHTS and path.is_dir():
            shutil.rmtree(path)
        elif schema.is_known(path.name) and path.stem not in ROWS:
            path.unlink()


def is_begun(path: RecordPath) -> bool:
    """Say whether a job has left anything on record."""
    return any((path / name).exists() for name in ("spec.json", "status.json"))


def examine(path: RecordPath, *, weights: bool = False, thorough: bool = True, remembered: bool = True) -> Job | Damage:
    """Read a job's folder, and look through it where the job is complete.

    Args:
        path: the folder, on the disk or in an archive.
        weights: also compare adapters and models; an archive has none.
        thorough: also read every record through its schema where its sha256 is right.
        remembered: take the sha256 of a large file that has not been touched since from memory.
    """
    try:
        job = read_job(path)
        if not job.complete:
            return job
        kept = job.status.get("files") or {}
        what = _compare(path, kept, weights, hashes.file_hash if remembered else hashes.read_hash)
        what = what or _not_its_own(path, kept)
        if not what and (thorough or not kept):
            what = _look_through(job)
    except InputError as error:
        what = str(error).removeprefix(f"{path}/")
    except OSError as error:
        what = f"{Path(error.filename or '').name}: {error.strerror}"
    return Damage(path.name, what) if what else job


def wrong_checkpoint(path: Path, hash_of: Callable[[Path], str] = hashes.file_hash) -> str:
    """Compare a job's checkpoint with the note beside it; return what is wrong, "" if nothing is, or without a note."""
    note = path.with_suffix(".json")
    if not note.exists():
        return ""
    try:
        kept = read_json(note)
        if (kept["job"], f"step-{kept['step']:06d}") != (path.parent.parent.name, path.stem):
            return f"{path.name} is of another job"
        if kept["sha256"] != hash_of(path):
            return f"{path.name} is not as it was written"
        for name, expected in kept.get("tensors", {}).items():
            file = tensors_of(path) / name
            if not file.is_file() or hash_of(file) != expected:
                return f"{tensors_of(path).name}/{name} is {'not as it was written' if file.is_file() else 'missing'}"
        return ""
    except (InputError, LookupError, TypeError, ValueError):
        return f"{note.name} cannot be read"


def damaged_checkpoints(folder: Path, *, remembered: bool = True) -> dict[Path, str]:
    """Find the checkpoints that a job keeps for others and that are not as it wrote them -> what is wrong with each."""
    every = sorted((folder / _CHECKPOINTS).glob("step-*.pt"))
    found = {path: wrong_checkpoint(path, hashes.file_hash if remembered else hashes.read_hash) for path in every}
    return {path: what for path, what in found.items() if what}


def _compare(path: RecordPath, kept: Mapping[str, str], weights: bool, hash_of: Callable[[Path], str]) -> str:
    """Compare the files with their sha256; return what is wrong with the first that differs."""
    for name, expected in kept.items():
        top = name.split("/")[0]
        if top != name and (not weights or isinstance(path, ArchivePath) or not (path / top).is_dir()):
            continue
        file = path / name
        if not file.is_file():
            return f"{name} is missing; {again(path)}"
        found = hashlib.sha256(file.read_bytes()).hexdigest() if isinstance(file, ArchivePath) else hash_of(file)
        if found != expected:
            return f"{name} is not as it was written; {again(path)}"
    return ""


def _not_its_own(path: RecordPath, kept: Mapping[str, str]) -> str:
    """Name a record that somebody else put into the folder."""
    for file in path.iterdir() if kept else ():
        if schema.is_known(file.name) and file.name not in (*kept, "spec.json", "status.json"):
            return f"{file.name} was not written by the job; {again(path)}"
    return ""


def _look_through(job: Job) -> str:
    """Read every record through its schema; return what is missing, or does not go together."""
    for name in schema.needed(job.kind):
        if not (job.path / name).is_file():
            return f"{name} is missing; {again(job.path)}"
    for file in job.path.iterdir():
        if schema.is_known(file.name) and not file.name.endswith(".jsonl"):
            key = schema.missing_key(file.name, read_json(file))
            if key:
                return f"{file.name} has no {key}; {again(job.path)}"
    for name in schema.ROWS:
        rows = list(read_jsonl(job.path / name))
        key = next((key for row in rows if (key := schema.missing_key(name, row))), "")
        if key:
            return f"{name} has no {key} in a row; {again(job.path)}"
        if name == "steps.jsonl" and job.kind == "train":
            wrong = schema.wrong_steps(
                (row.get("step") for row in rows), job.measurements.get("steps", {}).get("value")
            )
            if wrong:
                return f"{name} {wrong}; {again(job.path)}"
    return ""
