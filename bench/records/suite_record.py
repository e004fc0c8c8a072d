"""A suite's records: found in folders and archives, with every job that is sound, and every one that is not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.records import schema, seal
from bench.records.archive import SUFFIX, Archive, ArchivePath, RecordPath
from bench.records.record import Job, again, complete_trajectory, read_json


@dataclass(frozen=True)
class SuiteRecord:
    """Read one suite's records, from its folder or from its archive.

    Attributes:
        path: the folder, or the top of the archive.
        passed_over: archives of the same suite beside the folder, which are not read.
    """

    path: RecordPath
    info: dict[str, Any] = field(repr=False)
    passed_over: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        return str(self.info["name"])

    @property
    def archive(self) -> Path | None:
        """The archive's file; None for records in a folder."""
        return self.path.archive.file if isinstance(self.path, ArchivePath) else None

    @property
    def folder(self) -> Path:
        """Where reports go: the records' own folder, or the one that is named like the archive."""
        return self.path if isinstance(self.path, Path) else self.path.archive.file.with_suffix("")

    @property
    def note(self) -> str:
        """What a reader must know of where the records are from; "" where there is nothing to say."""
        if not self.passed_over:
            return ""
        names = ", ".join(one.name for one in self.passed_over)
        return f"These are the records of the folder {self.folder.name}. Archives of the same suite, not read: {names}."

    def check_settings(self) -> None:
        """See that the suite's settings are what a report relies on.

        Raises:
            InputError: they are not.
        """
        wrong, file = schema.wrong_settings(self.info["suite"]), self.path / "suite.json"
        if wrong:
            raise InputError(f"{file}: is not a record ({wrong}); {again(file)}")

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """Every job of the suite's current plan that has a sound record, by id, in the plan's order."""
        return {one.id: one for one in self._sound if isinstance(one, Job)}

    @cached_property
    def broken(self) -> dict[str, str]:
        """Jobs of the current plan whose record cannot be relied on -> what is wrong with it."""
        return {one.job: one.what for one in self._sound if isinstance(one, seal.Damage)}

    @cached_property
    def _sound(self) -> list[Job | seal.Damage]:
        folders = (self.path / "jobs" / job_id for job_id in self.info["jobs"])
        return [seal.examine(folder) for folder in folders if seal.is_begun(folder)]

    def trajectory(self, job: Job) -> list[dict[str, Any]]:
        """Return a training job's objective values, with f_DPO filled in where the reference came later than the job."""
        found = [one for one in self.jobs.values() if one.kind == "reference_logps" and one.complete]
        reference = read_json(found[0].path / "reference_logps.json") if found else {}
        return complete_trajectory(
            job.rows("trajectory"), job.rows("evaluation_logps"), reference, self.info["suite"]["objectives"]["beta"]
        )


def find_suites(results: Path) -> list[SuiteRecord]:
    """Find the suites in a results folder, which may be a root or one suite, or in an archive.

    Where a root holds both a suite's folder and its archive, the folder counts, and its record says so.

    Raises:
        InputError: the folder is missing or holds no suite, or an archive cannot be read.
    """
    if results.is_file():
        if results.suffix != SUFFIX:
            raise InputError(f"{results}: is a file; give a folder of results, or a {SUFFIX} archive")
        return [_read_suite(ArchivePath(Archive(results)))]
    if not results.is_dir():
        raise InputError(f"{results}: no such folder; 'bench run SUITE --results {results}' makes one")
    paths = [results / "suite.json", *results.glob("*/suite.json")]
    folders = [_read_suite(path.parent) for path in paths if path.exists()]
    archives = []
    passed_over: dict[Path, list[Path]] = {one.folder: [] for one in folders}
    for file in sorted(path for path in results.iterdir() if path.suffix == SUFFIX and path.is_file()):
        if file.with_suffix("") in passed_over:  # not even opened: broken, it does no harm here
            passed_over[file.with_suffix("")].append(file)
            continue
        archived = _read_suite(ArchivePath(Archive(file)))
        same = [one.folder for one in folders if one.name == archived.name]
        for folder in same:
            passed_over[folder].append(file)
        archives += [] if same else [archived]
    found = [replace(one, passed_over=tuple(passed_over[one.folder])) for one in folders]
    if not found and not archives:
        raise _no_suite(results)
    return sorted((*found, *archives), key=lambda one: one.folder)


def _read_suite(path: RecordPath) -> SuiteRecord:
    file = path / "suite.json"
    info = read_json(file)
    for name in (info["name"], *info["jobs"]):
        if not _is_part_of_a_path(name):
            raise InputError(f"{file}: {str(name)[:100]!r} is no name of a suite or a job; {again(file)}")
    return SuiteRecord(path, info)


def _is_part_of_a_path(name: Any) -> bool:
    """Say whether a name is one folder's, and leads nowhere else: reports are written to folders named like suites."""
    return isinstance(name, str) and name.isprintable() and name.strip(".") != "" and not {"/", "\\"} & {*name}


def _no_suite(results: Path) -> InputError:
    archive = results.with_name(f"{results.name}{SUFFIX}") if results.name else None
    if archive is not None and archive.is_file():
        return InputError(f"{results}: holds no suite; its records are in {archive}: give that")
    return InputError(
        f"{results}: holds no suite (no suite.json in it or one level below, no *{SUFFIX}); 'bench run' makes one"
    )
