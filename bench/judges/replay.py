"""The replay judge: gives the replies that an earlier judging was given, without a network, a key or a model.

It reads journals of this project, and AlpacaEval's annotation files, which hold a judge's raw replies too.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from bench.errors import InputError
from bench.judges import Judge, JudgeSettings, Receive, Reply, Request, Setup, annotation_files
from bench.judges.journal import JOURNAL
from bench.judges.journal import rows as rows_of
from bench.records.archive import SUFFIX, Archive, ArchivePath, RecordPath
from bench.settings import Frozen, PathText

if TYPE_CHECKING:
    from bench.judges.configurations import Configuration

JOURNALS = f"**/{JOURNAL}"


class ReplayOptions(Frozen):
    """Say where the replies are."""

    journal: PathText
    """A journal.jsonl, or a folder or .bench archive with some in it, such as `results/SUITE`."""

    @property
    def path(self) -> Path:
        """Where that is."""
        return Path(self.journal).expanduser()


class ReplayJudge(Judge):
    """Look replies up by their prompt: the same template, instruction and answers in the same order."""

    Options: ClassVar[type[BaseModel]] = ReplayOptions
    asks: ClassVar[bool] = False
    journaled = False

    def __init__(self, setup: Setup) -> None:
        path = setup.settings.options.path
        self._annotations = annotation_files.read(path, setup.configuration) if annotation_files.is_one(path) else None
        self._lacking = "there is no reply to it among the annotations"
        self.host = "replay"
        self.parameters: dict[str, Any] = {}
        if self._annotations is not None:
            self.model = setup.settings.asked_model
            return
        self.model = model_of(path, setup.settings.model)
        self._replies = {row["prompt_sha256"]: row for row in journal_rows(path) if named(row) == self.model}
        asked_by = {str(row.get("configuration") or setup.configuration.name) for row in self._replies.values()}
        others = (
            ""
            if setup.configuration.name in asked_by
            else f"; its replies came by configuration: {', '.join(asked_by)}"
        )
        self._lacking = f"there is no reply to it in the journal{others}"

    @staticmethod
    def name(settings: JudgeSettings, configuration: Configuration) -> str:
        path = settings.options.path
        if not annotation_files.is_one(path):
            return model_of(path, settings.model)
        return settings.asked_model.replace("/", "-")

    @staticmethod
    def identity(options: ReplayOptions) -> dict[str, Any]:
        return {"journal": content_hash(options.path)}

    @staticmethod
    def kept(
        settings: JudgeSettings, configuration: Configuration
    ) -> Mapping[annotation_files.Shown, annotation_files.Kept]:
        path = settings.options.path
        return annotation_files.read(path, configuration) if annotation_files.is_one(path) else {}

    def ask(self, requests: Sequence[Request], receive: Receive) -> None:
        """Answer every request; one that was never judged has no reply."""
        for request in requests:
            completion = self._completion(request)
            receive(
                request,
                Reply(completion, None if completion else self._lacking, kind="" if completion else "no reply kept"),
            )

    def _completion(self, request: Request) -> dict[str, Any] | None:
        from bench.judges.asking import prompt_hash

        if self._annotations is not None:
            first = self._annotations.get(annotation_files.shown(request.instruction, request.first, request.second))
            second = self._annotations.get(annotation_files.shown(request.instruction, request.second, request.first))
            found = (
                kept
                for kept, order in ((first, "ours_first"), (second, "theirs_first"))
                if kept and kept.order == order
            )
            return next((kept.reply for kept in found), None)
        row = self._replies.get(prompt_hash(request))
        return row["reply"] if row else None


def journals(path: Path) -> Sequence[RecordPath]:
    """List the journals at a path: the file itself, all below a folder, or all in an archive.

    Raises:
        InputError: there is none.
    """
    found: Sequence[RecordPath]
    if path.is_file() and path.suffix == SUFFIX:
        every = ArchivePath(Archive(path)) / "jobs"
        found = [file for job in every.iterdir() if (file := job / JOURNAL).is_file()]
    else:
        found = [path] if path.is_file() else sorted(path.glob(JOURNALS))
    if not found:
        raise InputError(
            f"{path}: no such journal; give a journal.jsonl, or a folder or archive with some in it, such as results/SUITE"
        )
    return found


def content_hash(path: Path) -> str:
    """Hash what a journal says, for the identity of a judging that replays it."""
    digest = hashlib.sha256()
    for file in journals(path):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def journal_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the usable replies of the journals at a path."""
    for file in journals(path):
        for row in rows_of(file.read_bytes()):
            if row["usable"] and "prompt_sha256" in row:
                yield row


@dataclass(frozen=True)
class Stored:
    """Say under which configuration and in which orders replies were given, as far as their file tells."""

    configuration: str | None
    orders: str


def stored(path: Path, chosen: bool = False) -> Stored:
    """Look into annotations or a journal.

    Args:
        path: of the file.
        chosen: whether it is known already which annotator of several is meant.

    Raises:
        InputError: it is neither, or empty, or one of several annotators must be chosen.
    """
    if not annotation_files.is_one(path):
        rows = list(journal_rows(path))
        orders = {row["order"] for row in rows}
        ((name, _),) = Counter(row.get("configuration") for row in rows).most_common(1) or ((None, 0),)
        return Stored(name, "both" if len(orders) > 1 else "single")
    names = annotation_files.annotators(path)
    if len(names) > 1 and not chosen:
        raise InputError(f"{path}: holds annotations by {', '.join(names)}; choose one by --judge")
    return Stored(names[0] if names else None, "single")


def named(row: Mapping[str, Any]) -> str:
    """Name the judge of a journal's row as scores do."""
    name = str(row["model"]).replace("/", "-")
    return f"local:{name}" if row["host"] == "local" else name


def model_of(path: Path, wanted: str | None) -> str:
    """Name the judge whose replies a journal holds.

    Raises:
        InputError: it holds none, those of several, or none of the one wanted.
    """
    names = sorted({named(row) for row in journal_rows(path)})
    if wanted is not None:
        wanted = wanted.replace("/", "-")
    if not names or (wanted or names[0]) not in names:
        raise InputError(
            f"{path}: holds no reply of {wanted or 'any judge'}" + (f"; it has: {', '.join(names)}" if names else "")
        )
    if wanted is None and len(names) > 1:
        raise InputError(f"{path}: holds replies of {', '.join(names)}; choose one by evaluation.win_rate.judge.model")
    return wanted or names[0]
