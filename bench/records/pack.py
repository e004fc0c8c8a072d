"""Pack folders of records into archives: one file a suite, beside its folder unless another place is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.errors import InputError
from bench.records import archive
from bench.records.safe_files import replacing, sweep
from bench.records.suite_record import SuiteRecord, find_suites


@dataclass(frozen=True)
class Packed:
    """Say what was written.

    Attributes:
        jobs: how many have a record in it.
        planned: how many the suite has.
        complete: how many are complete.
    """

    file: Path
    jobs: int
    planned: int
    complete: int
    size_bytes: int

    def __str__(self) -> str:
        size = f"{self.size_bytes / 1e6:,.1f} MB" if self.size_bytes >= 1e5 else f"{self.size_bytes / 1e3:,.1f} kB"
        missing = self.planned - self.complete
        partial = f"; {missing} of {self.planned} planned are not complete" if missing else ""
        return f"{self.file}: {self.jobs} {'job' if self.jobs == 1 else 'jobs'}, {size}{partial}"


def pack(results: Path, out: Path | None = None) -> list[Packed]:
    """Write the archive of a suite, or of each suite in a root.

    Args:
        results: a suite's folder, or a root of several.
        out: the archive of one suite; RESULTS/SUITE.bench when left out.

    Raises:
        InputError: no suite's folder is there, several are and `out` is one file, or something else is in the way.
    """
    suites = [one for one in find_suites(results) if one.archive is None]
    if not suites:
        raise InputError(f"{results}: holds no suite's folder to pack, only archives")
    if out is not None and len(suites) > 1:
        names = ", ".join(one.folder.name for one in suites)
        raise InputError(
            f"--out {out}: is one file, but {results} holds {len(suites)} suites ({names}); give one's folder"
        )
    targets = [out or _beside(one.folder) for one in suites]
    for target in targets:
        _check(target)
    return [_pack(one, target) for one, target in zip(suites, targets, strict=True)]


def _beside(folder: Path) -> Path:
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f"{named.name}{archive.SUFFIX}")


def _check(target: Path) -> None:
    """Refuse a name that no report would find, and to write over what is no archive."""
    if target.suffix != archive.SUFFIX:
        raise InputError(f"--out {target}: must end in {archive.SUFFIX}, by which an archive is found")
    if target.is_dir():
        raise InputError(f"{target}: is a folder; name another file by --out")
    if target.exists():
        try:
            archive.Archive(target)
        except InputError as error:
            raise InputError(f"{target}: is no archive, so it is not written over; name another by --out") from error


def _pack(suite: SuiteRecord, target: Path) -> Packed:
    sweep([target.parent])
    with replacing(target) as file:
        archive.write(suite.folder, file)
    complete = sum(job.complete for job in suite.jobs.values())
    jobs = {name.split("/")[1] for name in archive.Archive(target).files if name.startswith("jobs/")}
    return Packed(target, len(jobs), len(suite.info["jobs"]), complete, target.stat().st_size)
