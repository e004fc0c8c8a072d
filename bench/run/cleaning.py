"""What of a results folder nothing needs any more, by rule: found first, and deleted only when told to.

A record of a complete job of the present plan is never among it, nor what an unfinished job goes on from, nor replies that
were paid for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.records import record, safe_files, seal
from bench.records.suite_record import SuiteRecord, find_suites
from bench.run import space, standing

CHECKPOINTS = "checkpoints that nothing starts from any more"
OLDER = "a job of an older plan"
ADAPTERS = "weights of a further seed"
_PAID = "journal.jsonl"


@dataclass(frozen=True)
class Item:
    """A folder that may go.

    Attributes:
        why: by which rule.
        size: bytes of its files.
    """

    suite: str
    path: Path
    why: str
    size: int


@dataclass(frozen=True)
class Found:
    """What may go.

    Attributes:
        freed: bytes that the disk gets back; a file that another suite shares by a hard link gives none.
        kept: what looks as if it could go and stays, and why.
    """

    items: tuple[Item, ...]
    freed: int
    kept: tuple[str, ...]


def find(results: Path, *, adapters: bool = False) -> Found:
    """Look through every suite of a results folder.

    Args:
        results: a root, or one suite.
        adapters: also thin the runs' weights: the first seed's of each recipe and λ stay.

    Raises:
        InputError: the folder is missing, or holds no suite's folder.
    """
    suites = [one for one in find_suites(results) if isinstance(one.path, Path)]
    if not suites:
        raise InputError(
            f"{results}: holds archives only, which have neither weights nor checkpoints; nothing to clean"
        )
    needed = _needed_elsewhere(suites)
    items: list[Item] = []
    kept: list[str] = []
    for suite in suites:
        items += _of_suite(suite, needed, kept, adapters)
    return Found(tuple(items), _freed(one.path for one in items), tuple(kept))


def delete(results: Path, *, adapters: bool = False) -> Found:
    """Delete what may go; look again first, so that nothing goes that came to be needed.

    Raises:
        InputError: as `find` does, or a run is at work in one of the suites.
    """
    with ExitStack() as stack:
        for suite in find_suites(results):
            if isinstance(suite.path, Path):
                stack.enter_context(standing.held(suite.path))
        found = find(results, adapters=adapters)
        for item in found.items:
            gone = safe_files.temporary_name(item.path)
            item.path.rename(gone)  # at once: a kill leaves no half of a job, and the next run sweeps what is left
            shutil.rmtree(gone)
    return found


def _of_suite(suite: SuiteRecord, needed: set[tuple[str, str]], kept: list[str], adapters: bool) -> Iterator[Item]:
    """Yield what of one suite may go."""
    assert isinstance(suite.path, Path)
    planned = suite.info["jobs"]
    jobs = {path.name: path for path in _folders(suite.path)}
    paid = []
    for name in sorted(set(jobs) - set(planned)):
        if (suite.path.name, name) in needed:
            kept.append(f"{jobs[name]}: another suite has it to do, or takes its policy over")
        elif (jobs[name] / _PAID).exists():
            paid.append(jobs[name])
        else:
            yield _item(suite, jobs[name], OLDER)
    if paid:
        kept.append(
            f"{suite.path}: {len(paid)} {'job' if len(paid) == 1 else 'jobs'} of older plans with replies of a judge "
            f"({paid[0].name}{', …' if len(paid) > 1 else ''}), {space.in_words(sum(map(_size, paid)))}; delete them by hand"
        )
    records = {name: found for name in planned if name in jobs and (found := _complete(jobs[name]))}
    if len(records) < len(planned):  # what is still to be done may start from any of it
        whole = [jobs[name] for name in records if (jobs[name] / "checkpoints").is_dir()]
        if whole:
            undone = len(planned) - len(records)
            kept.append(f"{suite.path}: checkpoints stay while {undone} of its {len(planned)} jobs are not complete")
        return
    thin = _thinned(records) if adapters else set()
    for name, found in records.items():
        path = found.path
        assert isinstance(path, Path)
        if (path / "checkpoints").is_dir() and not (path / "checkpoints").is_symlink():
            yield _item(suite, path / "checkpoints", CHECKPOINTS)
        if name in thin and (suite.path.name, name) not in needed:
            yield from (_item(suite, path / weights, ADAPTERS) for weights in seal.weights_in(path))


def _folders(suite: Path) -> Iterator[Path]:
    """Yield the folders of jobs that have begun; what else lies there is the user's."""
    jobs = suite / "jobs"
    for path in sorted(jobs.iterdir()) if jobs.is_dir() and not jobs.is_symlink() else ():
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".") and seal.is_begun(path):
            yield path


def _complete(path: Path) -> record.Job | None:
    """Read a complete job's record; None for any other, and for one that cannot be read."""
    try:
        found = record.read_job(path)
        return found if found.complete else None
    except InputError:
        return None


def _thinned(records: dict[str, record.Job]) -> set[str]:
    """Name the runs that are a recipe's further seeds at a λ; references, optima and pre-trained models are none."""
    first: dict[str, int] = {}
    runs: dict[str, tuple[str, int]] = {}
    for name, found in records.items():
        labels = dict(found.labels)
        if found.spec.get("roles") == ["run"] and "seed" in labels:
            seed = int(labels.pop("seed"))
            recipe = repr(sorted(record.flat(labels).items()))
            runs[name] = recipe, seed
            first[recipe] = min(seed, first.get(recipe, seed))
    return {name for name, (recipe, seed) in runs.items() if seed > first[recipe]}


def _needed_elsewhere(suites: Iterable[SuiteRecord]) -> set[tuple[str, str]]:
    """Return (suite, job) that other suites beside these still need: to take over, or as their reference."""
    folders = {one.path.absolute().parent for one in suites if isinstance(one.path, Path)}
    beside = [one for folder in folders for one in _readable(folder)]
    needed: set[tuple[str, str]] = set()
    for one in beside:
        assert isinstance(one.path, Path)
        undone = {job for job in one.info["jobs"] if _complete(one.path / "jobs" / job) is None}
        needed |= {(other.path.name, job) for other in beside if other.path != one.path for job in undone}
        reference: Any = one.info.get("suite", {}).get("reference") or {}
        policy = str(reference.get("policy", "") if isinstance(reference, dict) else "")
        if "/" in policy and undone:
            name, _, job = policy.partition("/")
            needed.add((name, job))
    return needed


def _readable(root: Path) -> Iterator[SuiteRecord]:
    """Yield the suites' folders of a root that can be read."""
    for path in sorted(root.glob("*/suite.json")):
        try:
            yield from (one for one in find_suites(path.parent) if one.path == path.parent)
        except InputError:
            continue


def _item(suite: SuiteRecord, path: Path, why: str) -> Item:
    return Item(suite.name, path, why, _size(path))


def _files(path: Path) -> Iterator[os.stat_result]:
    for folder, _, names in os.walk(path):
        for name in names:
            yield (Path(folder) / name).lstat()


def _size(path: Path) -> int:
    return sum(one.st_size for one in _files(path))


def _freed(paths: Iterable[Path]) -> int:
    """Return the bytes of files all of whose names are among these folders."""
    names: dict[tuple[int, int], list[int]] = {}
    for path in paths:
        for one in _files(path):
            names.setdefault((one.st_dev, one.st_ino), [one.st_nlink, one.st_size, 0])[2] += 1
    return sum(size for links, size, here in names.values() if here >= links)
