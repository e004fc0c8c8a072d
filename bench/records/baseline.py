"""What a comparison starts from: records on this machine, in a mirror of the hub, or in a data set on the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bench.errors import InputError, one_line
from bench.records.archive import SUFFIX

_ON_THE_HUB = re.compile(
    r"(?:hf://datasets/)?(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[\w.-]+\.bench))?"
)
_FORMS = "ORG/NAME, ORG/NAME@REVISION or hf://datasets/ORG/NAME@REVISION/FILE.bench"


@dataclass(frozen=True)
class Baseline:
    """Name the records to compare with.

    Attributes:
        path: a results folder, one suite, an archive, or a folder of archives.
        name: what a reader is told: a path as it was given, or the data set with its commit.
    """

    path: Path
    name: str


def find(wanted: str, mirror: Path | None = None) -> Baseline:
    """Find a baseline: a path if there is one of that name, else the archives of a data set on the hub.

    Args:
        wanted: a path, or a data set by ORG/NAME, with @REVISION (a branch, tag or commit) and /FILE.bench if one is meant.
        mirror: an offline mirror of the hub, DIR/datasets/ORG/NAME, which is asked instead of the hub; it knows no revisions.

    Raises:
        InputError: it is neither, or the data set cannot be had or holds no archive.
    """
    if Path(wanted).exists():
        return Baseline(Path(wanted), wanted)
    found = _ON_THE_HUB.fullmatch(wanted)
    if found is None or wanted.startswith((".", "/")):
        raise InputError(f"--baseline {wanted}: no such file or folder, and no data set of the hub, which is {_FORMS}")
    name, revision, file = found["name"], found["revision"], found["file"]
    if mirror is not None:
        return _chosen(_in_mirror(mirror, name, revision, wanted), name, file, wanted)
    folder = _download(name, revision, file, wanted)
    return _chosen(folder, f"{name}@{folder.name[:12]}", file, wanted)


def _in_mirror(mirror: Path, name: str, revision: str | None, wanted: str) -> Path:
    folder = mirror / "datasets" / name
    if not folder.is_dir():
        raise InputError(f"--baseline {wanted}: not in the mirror (no folder {folder}); add it or run without --mirror")
    if revision is not None:
        raise InputError(
            f"--baseline {wanted}: a mirror knows no revisions; leave @{revision} out, or run without --mirror"
        )
    return folder


def _download(name: str, revision: str | None, file: str | None, wanted: str) -> Path:
    """Fetch the archives at the top of a data set; return their folder in the hub's cache, which is named by the commit."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=file or f"*{SUFFIX}")
    except Exception as error:  # of many classes: offline, unknown, gated, a broken connection
        raise InputError(f"--baseline {wanted}: {_why(error)}") from error
    return Path(folder)


def _why(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "access to this data set must be asked for on the hub; then set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return "this data set has no such revision"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such file or folder, and no such data set on the hub (a private one needs HF_TOKEN)"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"no such file or folder, and the hub cannot be reached ({one_line(lines[0], 200)}); give an archive on this "
        "machine, or --mirror DIR"
    )


def _chosen(folder: Path, name: str, file: str | None, wanted: str) -> Baseline:
    if file is not None:
        if not (folder / file).is_file():
            raise InputError(f"--baseline {wanted}: the data set holds no {file}")
        return Baseline(folder / file, f"{name}/{file}")
    if not any(folder.glob(f"*{SUFFIX}")):
        raise InputError(f"--baseline {wanted}: the data set holds no {SUFFIX} archive; 'bench publish' writes one")
    return Baseline(folder, name)
