"""A suite's records as one file: a `.bench` archive, which is a zip of the records without weights. Standard library only.

::

    suite.json
    jobs/<job id>/spec.json, steps.jsonl, ...      the files that lie directly in a job's folder

An archive is read in place, nothing is unpacked to the disk. It may come from a stranger, so its whole list of files is
checked before any of them is read.
"""

from __future__ import annotations

import io
import stat
import struct
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO

from bench.errors import InputError

SUFFIX = ".bench"

# What a job's folder holds besides records. Weights lie in folders of their own, which are left out like every folder.
LEFT_OUT = (".*", "log.txt", "*.cut", "*.lock", "*.pt", "*.safetensors")

# What an archive may come to when it is read, in bytes: records shrink 3 to 20 times, a zip bomb a thousand times.
MOST_FILES = 500_000
MOST_OF_A_FILE = 512 * 2**20
MOST_IN_ALL = 8 * 2**30
MOST_TIMES_SMALLER = 200
_SMALL = 2**20  # below this no ratio is asked for

_CHUNK = 2**16
# Everything that `zipfile` and `zlib` raise on a file that is no sound zip.
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(NotImplementedError, OverflowError, RuntimeError, ValueError),
)


class Archive:
    """Read the files of an archive by their names.

    Args:
        file: the archive.

    Attributes:
        files: name -> entry, of every file.

    Raises:
        InputError: it is no zip, holds no suite, or has an entry that no archive of records has.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            # Kept open: the archive stays what it was when its list was read, even if another one takes its place.
            opened = file.open("rb")
            weakref.finalize(self, opened.close)  # also where what was read of it refers to itself in a circle
            self._zip = zipfile.ZipFile(opened)
            packed = file.stat().st_size
        except _BROKEN as error:
            raise InputError(f"{file}: cannot be read as a {SUFFIX} archive ({error}); {_AGAIN}") from error
        self.files = {one.filename: one for one in _checked(file, self._zip.infolist(), packed)}
        if "suite.json" not in self.files:
            raise InputError(f"{file}: is no {SUFFIX} archive, which holds a suite.json; {_AGAIN}")

    @cached_property
    def folders(self) -> dict[str, set[str]]:
        """The names directly below each folder; the top is ""."""
        found: dict[str, set[str]] = {}
        for name in self.files:
            while name:
                above, _, last = name.rpartition("/")
                found.setdefault(above, set()).add(last)
                name = above
        return found

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            InputError: the archive has no such file, or it is broken there.
        """
        try:
            with self._zip.open(self.files[name]) as file:
                # By pieces: asked for all at once, `zipfile` unpacks first and looks at the length it was told after.
                return b"".join(iter(partial(file.read, _CHUNK), b""))
        except KeyError:
            raise InputError(f"{self.file}: holds no {name}; {_AGAIN}") from None
        except _BROKEN as error:
            raise InputError(f"{self.file}/{name}: cannot be read ({error}); {_AGAIN}") from error


_AGAIN = "take one that 'bench pack' wrote"


@dataclass(frozen=True)
class ArchivePath:
    """Name a file or folder in an archive: the part of pathlib's `Path` that reading records needs.

    Attributes:
        inside: names below the top, joined by "/"; "" is the top.
    """

    archive: Archive
    inside: str = ""

    def __str__(self) -> str:
        return f"{self.archive.file}/{self.inside}" if self.inside else str(self.archive.file)

    def __truediv__(self, name: str) -> ArchivePath:
        return ArchivePath(self.archive, f"{self.inside}/{name}" if self.inside else name)

    @property
    def name(self) -> str:
        """The last part."""
        return self.inside.rpartition("/")[2]

    def is_file(self) -> bool:
        """Say whether there is such a file."""
        return self.inside in self.archive.files

    def is_dir(self) -> bool:
        """Say whether there is such a folder."""
        return self.inside in self.archive.folders

    def exists(self) -> bool:
        """Say whether there is such a file or folder."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[ArchivePath]:
        """Yield what lies directly in this folder, by name."""
        return (self / name for name in sorted(self.archive.folders.get(self.inside, ())))

    def read_bytes(self) -> bytes:
        """Return a file's content; `Archive.read` says what it raises."""
        return self.archive.read(self.inside)

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return a file's text."""
        with self.open(encoding=encoding) as file:
            return file.read()

    def open(self, *, encoding: str = "utf-8") -> io.TextIOWrapper:
        """Open a file for reading as text."""
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding=encoding)


# Where a record lies: in a folder, or in an archive.
RecordPath = Path | ArchivePath


# ---- what an archive may hold ----------------------------------------------------------------------------------------


def _checked(file: Path, entries: Iterable[zipfile.ZipInfo], packed: int) -> list[zipfile.ZipInfo]:
    """Return the entries that are files.

    Args:
        file: the archive, for messages.
        entries: its list.
        packed: the archive's size in bytes.

    Raises:
        InputError: an entry, or all of them together, are not what an archive of records may hold.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        wrong = _wrong(entry) or ("is there twice" if entry.filename in found else "")
        if wrong:
            raise InputError(f"{file}: {entry.orig_filename[:100]!r} {wrong}; {_AGAIN}")
        if not entry.is_dir():
            found[entry.filename] = entry
    total = sum(entry.file_size for entry in found.values())
    if len(found) > MOST_FILES:
        raise InputError(f"{file}: holds {len(found):,} files, more than the {MOST_FILES:,} that are read; {_AGAIN}")
    if total > min(MOST_IN_ALL, max(_SMALL, MOST_TIMES_SMALLER * packed)):
        raise InputError(
            f"{file}: {packed:,} bytes that would become {total:,}; at most {MOST_TIMES_SMALLER} times as many, and "
            f"{MOST_IN_ALL:,}, are read; {_AGAIN}"
        )
    if sum(entry.compress_size for entry in found.values()) > packed:
        raise InputError(f"{file}: its files lie on top of each other; {_AGAIN}")
    return list(found.values())


def _wrong(entry: zipfile.ZipInfo) -> str:
    """Say what is wrong with an entry; "" if nothing is."""
    name = entry.orig_filename  # as it is written; `filename` is cut at a zero byte
    parts = name.removesuffix("/").split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or ":" in parts[0] or not name.isprintable():
        return "is no plain relative name"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in another way than deflate"
    if entry.file_size > MOST_OF_A_FILE:
        return f"has {entry.file_size:,} bytes, more than the {MOST_OF_A_FILE:,} that are read"
    return ""


# ---- writing ---------------------------------------------------------------------------------------------------------


def records(folder: Path) -> dict[str, Path]:
    """Find what belongs into the archive of a suite's folder: name in the archive -> file, sorted by name."""
    found = {"suite.json": folder / "suite.json"}
    for path in (folder / "jobs").glob("*/*"):
        # A link may lead to what is not meant to be given away.
        if (
            path.is_file()
            and not path.is_symlink()
            and not any(fnmatchcase(path.name, pattern) for pattern in LEFT_OUT)
        ):
            found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def write(folder: Path, target: BinaryIO) -> None:
    """Write the records of a suite's folder. Equal records give equal bytes: no times, owners or permissions of theirs.

    Raises:
        InputError: the records are more than an archive may hold.
    """
    write_files(((name, path.read_bytes()) for name, path in records(folder).items()), target, folder)


def write_files(files: Iterable[tuple[str, bytes]], target: BinaryIO, where: Path) -> None:
    """Write files by their names in the archive, which are to come sorted.

    Args:
        files: name and content.
        target: the new archive.
        where: what the records are of, for messages.

    Raises:
        InputError: the records are more than an archive may hold.
    """
    with zipfile.ZipFile(target, "w") as made:
        for name, content in files:
            entry = zipfile.ZipInfo(name)  # of 1 January 1980
            entry.create_system = 3  # Unix, whatever this machine is
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            made.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=9)
    _checked(where, made.infolist(), target.tell())
