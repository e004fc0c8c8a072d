"""Write files that are whole or not there, in a folder that others may have prepared. Standard library only.

A file is written under a name that nobody can foresee, opened so that no link is followed, and takes the place of the one
it replaces when it is on the disk. What a killed writer left behind is swept by the next one.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bench.errors import InputError

# `.status.json.2041-f3b1c9a07d21`: whose it is, so that a sweep leaves alone what is still being written.
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<process>[0-9]+)-[0-9a-f]{12}")
# How versions before named theirs: by `tempfile`, or by a suffix.
_OLDER = re.compile(r"\..+\.[a-z0-9_]{8}|\..+\.new|step-[0-9]+\.new|.+\.cut")
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when it is whole: a reader sees the old file or the new one.

    A link at `path` is replaced, and what it points to left alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o644)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_name(path: Path) -> Path:
    """Name what will take the place of a file or folder, beside it: nobody can foresee it, and a sweep knows whose it is."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(6)}")


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Make a folder beside another one, for what will take its place; it is gone at the end."""
    made = temporary_name(path)
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def opener(path: str, flags: int) -> int:
    """Open a file as `open(opener=...)` asks, but follow no link."""
    return os.open(path, flags | _NO_LINK, 0o644)


def flush(path: Path) -> None:
    """Have a file's content on the disk before anything is written that relies on it."""
    handle = os.open(path, os.O_RDONLY | _NO_LINK)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """Have a folder's names on the disk; not every file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def own_folder(folder: Path, *, may_be_link: bool = False) -> None:
    """Make a folder that belongs to the program, or take over the one that is there, without the links in it.

    Args:
        folder: which.
        may_be_link: whether the user may have put it elsewhere.

    Raises:
        InputError: something else stands in its place.
    """
    refuse_other(folder, may_be_link=may_be_link)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_symlink() and not (may_be_link and path.is_dir()):
            path.unlink()


def refuse_other(folder: Path, *, may_be_link: bool = False) -> None:
    """Refuse what stands in the place of a folder and is none, or none of the program's own; nothing may stand there.

    Raises:
        InputError: says what.
    """
    link = folder.is_symlink()
    if link and not may_be_link:
        raise InputError(f"{folder}: is a link, where a folder of the program's own belongs; remove it")
    if (link or folder.exists()) and not folder.is_dir():
        raise InputError(f"{folder}: is no folder, where one of the program's own belongs; remove it")


def drop_link(path: Path) -> None:
    """Remove a link where the program is about to make a folder of its own; what it points to is left alone."""
    if path.is_symlink():
        path.unlink()


def sweep(folders: Iterable[Path], *, older: bool = False) -> int:
    """Delete what killed writers left behind; return how many files and folders.

    Args:
        folders: where to look; not below them.
        older: also delete what versions before left, which does not say whose it is: nobody may be writing then.
    """
    swept = 0
    for folder in folders:
        try:
            paths = list(folder.iterdir())
        except OSError:
            continue
        for path in paths:
            found = _TEMPORARY.fullmatch(path.name)
            if not (_is_gone(int(found["process"])) if found else older and _OLDER.fullmatch(path.name)):
                continue
            with contextlib.suppress(OSError):
                mode = path.lstat().st_mode
                if stat.S_ISREG(mode):
                    path.unlink()
                elif stat.S_ISDIR(mode) and found:
                    shutil.rmtree(path)
                else:
                    continue
                swept += 1
    return swept


def _is_gone(process: int) -> bool:
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OverflowError, PermissionError):
        return False
    return False
