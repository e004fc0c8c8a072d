"""The sha256 of files, remembered by size, time and inode, so that a plan need not read gigabytes each time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.records.cache import cache_folder

_SMALL = 1 << 20  # quicker read than looked up


def file_hash(file: Path) -> str:
    """Hash a file's content.

    A file is read again once its size, time of change or inode is another; what is remembered is in the user's cache folder, and
    may be deleted.
    """
    if file.stat().st_size <= _SMALL:
        return hashlib.sha256(file.read_bytes()).hexdigest()

    return remembered(["file", *stamp(file)], lambda: read_hash(file))


def read_hash(file: Path) -> str:
    """Hash a file's content as it is now on the disk."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def stamp(file: Path) -> list[str | int]:
    """Return what changes when a file does, short of reading it: place, size, time of change and inode."""
    stat = file.stat()
    return [str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino]


def remembered(key: Sequence[Any], make: Callable[[], str]) -> str:
    """Return a hash that was made before under a key of JSON values, or make it."""
    known = cache_folder() / "hashes" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}"
    with contextlib.suppress(OSError):
        found = known.read_text(encoding="ascii").strip()
        if len(found) == 64:
            return found
    made = make()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        known.parent.mkdir(parents=True, exist_ok=True)
        temporary = known.with_name(f".{known.name}.{os.getpid()}")
        temporary.write_text(made, encoding="ascii")
        temporary.replace(known)
    return made
