"""A suite's records for others to read: nothing of this machine, of its user or of private texts is left in them.

Paths become the names of their files, answers and judges' raw replies are left out unless asked for; whatever is changed gets
its sha256 and seal anew, so that the copy is whole by itself. Only jobs of the suite's current plan are in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.records import archive, record
from bench.records.archive import ArchivePath
from bench.records.suite_record import SuiteRecord

# A folder of this or another machine, and the last part of it, which says what it was: /home/me/pairs.jsonl, ~/pairs.jsonl,
# ../pairs.jsonl, C:\\Users\\me\\pairs.jsonl. No fraction and no score's name: those have no slash and two parts at their start.
_PATH = re.compile(
    r"(?<![\w:/.~<-])(?:~[\w.-]*/|\.{1,2}/|/(?=[^\s/]+/)|[A-Za-z]:\\)(?:[^\s/\\\"'`<>|:*?,;()]+[/\\])*([^\s/\\\"'`<>|:*?,;()]*)"
)
_WHOLE = re.compile(r"(?:~|/|\.{1,2}/|[A-Za-z]:\\).*[/\\]([^/\\]+)[/\\]*", re.DOTALL)
# Keys of settings that name a file or folder, also where it is given from the folder that a command ran in.
_FILE_KEYS = ("journal", "configuration")
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|_KEY$|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 8


def write(suite: SuiteRecord, target: Path, *, answers: bool) -> None:
    """Write a suite's public archive.

    Args:
        suite: its records, from a folder or an archive.
        target: the new file.
        answers: whether what policies answered, and judges replied, goes along.

    Raises:
        InputError: something of this machine is left, or the records are more than an archive may hold.
    """
    files = list(_files(suite, answers))
    for name, content in files:
        check(name, content)
    with target.open("wb") as file:
        archive.write_files(files, file, target)


def _files(suite: SuiteRecord, answers: bool) -> Iterator[tuple[str, bytes]]:
    """Yield name and content, sorted by name."""
    found: dict[str, bytes] = {"suite.json": _text("suite.json", cleaned(suite.info))}
    for job in suite.jobs.values():
        made = {file.name: file.read_bytes() for file in _records_of(job)}
        kept = {
            name: _cleaned_file(name, content, answers)
            for name, content in made.items()
            if answers or name != "journal.jsonl"
        }
        status = json.loads(kept["status.json"]) if "status.json" in kept else None
        if status and "files" in status:
            known = {name: digest for name, digest in status["files"].items() if "/" not in name and name in kept}
            status["files"] = known | {name: hashlib.sha256(kept[name]).hexdigest() for name in known}
        if status:
            kept["status.json"] = _text("status.json", status)
        found |= {f"jobs/{job.id}/{name}": content for name, content in kept.items()}
    yield from sorted(found.items())


def _records_of(job: record.Job) -> Iterator[Path | ArchivePath]:
    for file in job.path.iterdir():
        linked = isinstance(file, Path) and file.is_symlink()
        if file.is_file() and not linked and not any(fnmatchcase(file.name, one) for one in archive.LEFT_OUT):
            yield file


def _cleaned_file(name: str, content: bytes, answers: bool) -> bytes:
    """Clean what can be read as records; anything else is left out by not being read, and is checked all the same."""
    if name.endswith(".json"):
        value = json.loads(content)
        new = cleaned(value)
        return content if new == value else _text(name, new)
    if name.endswith(".jsonl"):
        lines = content.decode("utf-8").split("\n")
        return "\n".join(_cleaned_line(line, answers or name != "samples.jsonl") for line in lines).encode()
    return content


def _cleaned_line(line: str, answers: bool) -> str:
    """Clean a row; one of an answer keeps how long it is and whether it ended, not its text or tokens."""
    try:
        value = json.loads(line)
    except ValueError:  # an empty last line
        return line
    new = cleaned(value)
    if not answers and isinstance(new, dict):
        if isinstance(new.get("answer"), str):
            del new["answer"]
        if isinstance(new.get("tokens"), list):
            new["tokens"] = len(new["tokens"])
    return line if new == value else json.dumps(new, ensure_ascii=False)


def _text(name: str, value: Any) -> bytes:
    return record.json_text(name, value).encode()


def cleaned(value: Any) -> Any:
    """Return a JSON value with every path in its texts made the name of its file."""
    if isinstance(value, Mapping):
        local = value.get("source") == "local"
        return {key: _named(one) if _is_file(key, one, local) else cleaned(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(one) for one in value]
    return without_paths(value) if isinstance(value, str) else value


def _is_file(key: str, value: Any, local: bool) -> bool:
    return isinstance(value, str) and (key in _FILE_KEYS or (local and key == "path"))


def _named(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path


def without_paths(text: str) -> str:
    """Return a text with every path in it made the name of its file."""
    if "\n" not in text and (whole := _WHOLE.fullmatch(text)):
        return whole[1]
    for folder in _folders():
        text = text.replace(f"{folder}/", "./")
    return _PATH.sub(lambda found: found[1] or "…", text)


def without_paths_by_line(text: str) -> str:
    """Return a text of several lines with every path in it made the name of its file."""
    return "\n".join(map(without_paths, text.split("\n")))


def _folders() -> list[str]:
    """List the folders of this machine that a text may begin with: the longest first, so that no end of one is left."""
    known = {str(folder) for folder in (Path.home(), Path.home().resolve(), Path.cwd(), Path.cwd().resolve())}
    return sorted((one for one in known if len(one) > 1), key=len, reverse=True)


def check(name: str, content: bytes, folders: tuple[Path, ...] = ()) -> None:
    """See that a file names no folder of this machine and holds nothing that the environment keeps secret.

    Args:
        name: the file, for the message.
        content: what is in it.
        folders: further folders that must not be named.

    Raises:
        InputError: it does.
    """
    for folder in {*_folders(), *(str(one.resolve()) for one in folders)} - {"/", ""}:
        if re.search(rb"(?<![\w.-])" + re.escape(folder.encode()) + rb"(?![\w.-])", content):
            raise InputError(
                f"{name}: names {folder}, a folder of this machine; take it out of the suite's texts before it is given away"
            )
    for variable, value in os.environ.items():
        if _SECRET.search(variable) and len(value) >= _SHORTEST_SECRET and value.encode() in content:
            raise InputError(f"{name}: holds the value of ${variable}; it is not given away")
