"""How many threads compute a job: chosen once for a folder of results, since another number changes the last bits of figures."""

from __future__ import annotations

import os
from pathlib import Path

from bench.errors import InputError
from bench.records import record

VARIABLE = "OMP_NUM_THREADS"


def of_folder(folder: Path, workers: int, asked: int | None = None, cores: int | None = None) -> tuple[int, int]:
    """Return the threads of a job, and of one that has the machine for itself.

    Args:
        folder: the suite's results; what its first run chose counts.
        workers: processes that share the machine's processors, where nothing is chosen yet.
        asked: what the user asks for by name.
        cores: processors that they share; this machine's when left out.

    Raises:
        InputError: the user asks for another number than the folder's records were made with.
    """
    cores = cores or os.cpu_count() or 1
    by_name, name = (asked, "--threads") if asked else (_of_environment(), VARIABLE)
    chosen = kept(folder)
    if chosen and by_name and by_name != chosen:
        raise InputError(
            f"{name} = {by_name}: {folder} was made with {chosen} {'thread' if chosen == 1 else 'threads'} a job, and with "
            f"another number figures differ in their last digits; leave it out, or begin anew with another --results"
        )
    return chosen or by_name or max(1, cores // workers), by_name or cores


def _of_environment() -> int | None:
    """Read $OMP_NUM_THREADS, of whose levels the first counts; None where it is not set to a number."""
    first = os.environ.get(VARIABLE, "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def kept(folder: Path) -> int | None:
    """Return what the folder's first run chose, by suite.json, or by the jobs of a version that did not note it there."""
    for path in (folder / "suite.json", *sorted((folder / "jobs").glob("*/spec.json"))):
        try:
            value = record.read_json(path) if path.is_file() else {}
        except InputError:  # damaged: the next one says the same
            continue
        if value.get("kind") == "cost":
            continue
        found = value.get("threads") or value.get("environment", {}).get("threads")
        if type(found) is int and found > 0 and (path.name == "suite.json" or value.get("kind") == "train"):
            return found
    return None
