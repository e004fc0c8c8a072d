"""A job's folder: its files, their schema, how they are written and read. Standard library only.

::

    RESULTS/<suite>.bench                  a suite's records as one file; see `archive`
    RESULTS/<suite>/suite.json             the resolved suite and the ids of the jobs of its plan
    RESULTS/<suite>/jobs/<job id>/
        spec.json          kind, labels, resolved settings, inputs by job id, data, environment
        steps.jsonl        one line per optimizer step (append-only)
        trajectory.jsonl   objective values along training, with step, seconds and tokens so far
        evaluation_logps.jsonl  answers' log-probabilities where the reference's did not exist yet
        stopping.json      where a run with a stopping rule ended, and why: {step, reason, early}
        samples.jsonl      what an evaluator saw: one line per question, answer or judged pair
        usage.jsonl        raw samples of the collectors: seconds since start, name, value
        measurements.json  name -> {value, unit} or {value: null, unit, reason}
        scores.json        name -> {value, n, standard_error} or {value: null, reason}; of questions also {low, high}
        metrics.json       name -> what the figure is (`metrics.Metric`): title, unit, direction, kind, range, …
        data.json          what was read: rows and sha256; of questions the task's version, hashes of questions and prompts
        status.json        schema, outcome; written last, atomically
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from bench.errors import InputError
from bench.records import optimum
from bench.records.archive import SUFFIX, Archive, ArchivePath, RecordPath
from bench.records.metrics import Metric, describe, find, from_dict, undescribed

SCHEMA = 1

COMPLETE, FAILED, STOPPED = "complete", "failed", "stopped"


def measured(value: float, unit: str, **extra: Any) -> dict[str, Any]:
    """Return a measurement as an entry of measurements.json."""
    return {"value": value, "unit": unit, **extra}


def not_measured(unit: str, reason: str) -> dict[str, Any]:
    """Return the entry of a figure that could not be measured: null and why, never 0."""
    return {"value": None, "unit": unit, "reason": reason}


def flat(nested: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted names."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        found |= flat(value, f"{at}{name}.") if isinstance(value, Mapping) else {f"{at}{name}": value}
    return found


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when it is whole: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    with replacing(path) as file:
        file.write(f"{text}\n".encode())


def read_json(path: RecordPath) -> Any:
    """Read JSON; a broken file is an error that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); {_again(path)}") from error


def _again(path: RecordPath) -> str:
    """Say how a broken file comes back; the whole suite's folder is never the one to delete."""
    if isinstance(path, ArchivePath):
        return "pack the suite's folder again"
    return "'bench run' writes it again" if path.name == "suite.json" else "delete its folder to make it again"


def write_metrics(folder: Path, metrics: Iterable[Metric]) -> None:
    """Write what a job's figures are."""
    write_json(folder / "metrics.json", describe(metrics))


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows, one line each."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def read_jsonl(path: RecordPath) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; a missing file has none, a cut last line is passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.endswith("\n"):
                    return
                yield _row(path, number, line)
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not UTF-8 ({error}); {_again(path)}") from error


def _row(path: RecordPath, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{number}: cannot be read as JSON ({error}); {_again(path)}") from error


def cut_jsonl(path: Path, *, last_step: int) -> None:
    """Drop the rows after `last_step`, as a resumed run will write them again."""
    kept = [row for row in read_jsonl(path) if row["step"] <= last_step]
    if path.exists():
        temporary = path.with_suffix(".cut")
        temporary.write_text("", encoding="utf-8")
        append_jsonl(temporary, kept)
        os.replace(temporary, path)


ROWS = ("steps", "trajectory", "evaluation_logps", "usage")


def cut_rows(folder: Path, *, last_step: int) -> None:
    """Cut a training job's append-only files back to a checkpoint's step."""
    for name in ROWS:
        cut_jsonl(folder / f"{name}.jsonl", last_step=last_step)


def clear_rows(folder: Path) -> None:
    """Delete a training job's append-only files, as before its first step."""
    for name in ROWS:
        (folder / f"{name}.jsonl").unlink(missing_ok=True)


@dataclass(frozen=True)
class Job:
    """Read one job's folder, on the disk or in an archive. Files are read when they are asked for."""

    path: RecordPath
    spec: dict[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        return str(self.spec["id"])

    @property
    def kind(self) -> str:
        return str(self.spec["kind"])

    @property
    def labels(self) -> dict[str, Any]:
        return dict(self.spec["labels"])

    @cached_property
    def status(self) -> dict[str, Any]:
        path = self.path / "status.json"
        return _with_keys(path, "outcome") if path.exists() else {"outcome": None}

    @property
    def complete(self) -> bool:
        return bool(self.status["outcome"] == COMPLETE)

    @cached_property
    def measurements(self) -> dict[str, dict[str, Any]]:
        path = self.path / "measurements.json"
        return dict(read_json(path)) if path.exists() else {}

    @cached_property
    def scores(self) -> dict[str, dict[str, Any]]:
        path = self.path / "scores.json"
        return dict(read_json(path)) if path.exists() else {}

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """What the job's figures are, as it describes them; empty in a record older than such descriptions."""
        path = self.path / "metrics.json"
        return {name: from_dict(name, value) for name, value in (read_json(path) if path.exists() else {}).items()}

    def metric(self, name: str) -> Metric:
        """Return what one of the job's figures is."""
        unit = str({**self.scores, **self.measurements}.get(name, {}).get("unit", ""))
        return find(name, self.metrics) or undescribed(name, unit)

    @cached_property
    def data(self) -> dict[str, Any]:
        """What was read: rows, cuts and hashes by objective and split; empty where nothing is on record."""
        path = self.path / "data.json"
        return dict(read_json(path)) if path.exists() else {}

    @cached_property
    def stopping(self) -> dict[str, Any]:
        """Where a run with a stopping rule ended, and why; empty for a run without one."""
        path = self.path / "stopping.json"
        return dict(read_json(path)) if path.exists() else {}

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Read an append-only file by its stem: steps, trajectory, samples, usage."""
        return list(read_jsonl(self.path / f"{name}.jsonl"))


def read_job(path: RecordPath) -> Job:
    """Read a job's folder.

    Raises:
        InputError: no readable spec, or a schema newer than this version knows.
    """
    return Job(path, _with_keys(path / "spec.json", "id", "kind", "labels"))


def _with_keys(path: RecordPath, *keys: str) -> dict[str, Any]:
    value = read_json(path)
    if isinstance(value, dict) and value.get("schema", 0) > SCHEMA:
        raise InputError(
            f"{path}: schema {value['schema']} is newer than {SCHEMA}, the last this version reads; upgrade bench"
        )
    if not isinstance(value, dict) or any(key not in value for key in keys):
        raise InputError(f"{path}: is not a record, which holds {', '.join(keys)}; {_again(path)}")
    return value


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

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """Every job of the suite's current plan that has a folder, by id, in the plan's order."""
        folders = (self.path / "jobs" / job_id for job_id in self.info["jobs"])
        return {folder.name: read_job(folder) for folder in folders if (folder / "spec.json").exists()}

    def trajectory(self, job: Job) -> list[dict[str, Any]]:
        """Return a training job's objective values, with f_DPO filled in where the reference came later than the job."""
        found = [one for one in self.jobs.values() if one.kind == "reference_logps" and one.complete]
        reference = read_json(found[0].path / "reference_logps.json") if found else {}
        return complete_trajectory(
            job.rows("trajectory"), job.rows("evaluation_logps"), reference, self.info["suite"]["objectives"]["beta"]
        )


def dpo_losses(policy: Mapping[str, list[float]], reference: Mapping[str, list[float]], beta: float) -> list[float]:
    """Return −log σ(h_β) of each pair (Eq. 1 to 3) from summed log-probabilities of chosen and rejected answers, in nats.

    Double precision and no torch, so that a value filled in later equals one computed in the run, bit for bit.
    """
    losses = []
    for chosen, rejected, reference_chosen, reference_rejected in zip(
        policy["chosen"], policy["rejected"], reference["chosen"], reference["rejected"], strict=True
    ):
        margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
        # -log sigmoid(m), without overflow on either side
        losses.append(max(-margin, 0.0) + math.log1p(math.exp(-abs(margin))))
    return losses


def complete_trajectory(
    trajectory: list[dict[str, Any]],
    policy_logps: list[dict[str, Any]],
    reference_logps: Mapping[str, Any],
    beta: float,
) -> list[dict[str, Any]]:
    """Fill f_DPO into the rows of a run that was made before its reference's log-probabilities were known."""
    values: dict[int, dict[str, float]] = {}
    halves: dict[int, dict[str, list[float]]] = {}
    for row in policy_logps:
        reference = reference_logps.get(row["split"])
        if reference:
            rows = len(row["chosen"])
            of_split = {answer: reference[answer][:rows] for answer in ("chosen", "rejected")}
            losses, name = dpo_losses(row, of_split, beta), f"f_dpo/{row['split']}"
            values.setdefault(row["step"], {})[name] = math.fsum(losses) / len(losses)
            found = optimum.halves(losses, [1.0] * rows)
            if found is not None:
                halves.setdefault(row["step"], {})[name] = list(found)
    return [_with(row, values.get(row["step"], {}), halves.get(row["step"], {})) for row in trajectory]


def _with(row: dict[str, Any], values: Mapping[str, float], halves: Mapping[str, list[float]]) -> dict[str, Any]:
    made = {**row, **values}
    return made | {optimum.HALVES: {**row.get(optimum.HALVES, {}), **halves}} if halves else made


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
    info = _with_keys(file, "name", "suite", "jobs")
    if not isinstance(info["jobs"], list):
        raise InputError(f"{file}: jobs is no list; {_again(file)}")
    for name in (info["name"], *info["jobs"]):
        if not _is_part_of_a_path(name):
            raise InputError(f"{file}: {str(name)[:100]!r} is no name of a suite or a job; {_again(file)}")
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
