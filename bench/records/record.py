"""A job's folder: its files, their schema, how they are written and read.

::

    RESULTS/<suite>.bench                  a suite's records as one file; see `archive`
    RESULTS/<suite>/suite.json             the resolved suite, the ids of the jobs of its plan and their kinds
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
        status.json        schema, outcome, the sha256 of the files above; written last, atomically
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.records import hashes, optimum, safe_files, schema
from bench.records.archive import ArchivePath, RecordPath
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


# These say by themselves whether they are as they were written; of a job's other files status.json does.
SEALED = ("suite.json", "spec.json", "status.json")
SEAL = "seal"


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    safe_files.write_text(path, json_text(path.name, value))


def json_text(name: str, value: Any) -> str:
    """Return the text of a JSON file of that name, with its seal where it has one."""
    if name in SEALED:
        value = {**value, SEAL: _seal(value)}
    return f"{json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)}\n"


def _seal(value: Mapping[str, Any]) -> str:
    """Return the sha256 of everything else in a file, whatever the order of its keys."""
    rest = {key: one for key, one in value.items() if key != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_json(path: RecordPath) -> Any:
    """Read JSON through its schema; a broken file is an error that names it."""
    _refuse_special(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); {again(path)}") from error
    if isinstance(value, dict) and path.name in SEALED:
        _refuse_newer(path, value)
        if SEAL in value and value[SEAL] != _seal(value):
            raise InputError(f"{path}: is not as it was written; {again(path)}")
    wrong = schema.wrong(path.name, value)
    if wrong:
        raise InputError(f"{path}: is not a record ({wrong}); {again(path)}")
    return value


def _refuse_special(path: RecordPath) -> None:
    """Refuse what could be read for ever, such as a pipe or a device in a stranger's folder."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no plain file; {again(path)}")


def _refuse_newer(path: RecordPath, value: Mapping[str, Any]) -> None:
    version = value.get("schema", 0)
    if type(version) is int and version > SCHEMA:
        raise InputError(f"{path}: schema {version} is newer than {SCHEMA}, the last this version reads; upgrade bench")


def again(path: RecordPath) -> str:
    """Say how a broken file comes back."""
    if isinstance(path, ArchivePath):
        return "pack the suite's folder again"
    return f"'bench run' {'writes it' if path.name == 'suite.json' else 'makes its job'} again"


def write_metrics(folder: Path, metrics: Iterable[Metric]) -> None:
    """Write what a job's figures are."""
    write_json(folder / "metrics.json", describe(metrics))


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows, one line each."""
    with open(path, "a", encoding="utf-8", opener=safe_files.opener) as file:
        file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def read_jsonl(path: RecordPath) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; a missing file has none, a cut last line is passed over."""
    if not path.exists():
        return
    _refuse_special(path)
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.endswith("\n"):
                    return
                yield _row(path, number, line)
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not UTF-8 ({error}); {again(path)}") from error


def _row(path: RecordPath, number: int, line: str) -> Any:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{number}: cannot be read as JSON ({error}); {again(path)}") from error
    wrong = schema.wrong(path.name, row)
    if wrong:
        raise InputError(f"{path}:{number}: is not a record ({wrong}); {again(path)}")
    return row


def cut_jsonl(path: Path, *, last_step: int) -> None:
    """Drop the rows after `last_step`, as a resumed run will write them again."""
    if path.exists():
        kept = [row for row in read_jsonl(path) if row["step"] <= last_step]
        safe_files.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


ROWS = ("steps", "trajectory", "evaluation_logps", "usage")


def cut_rows(folder: Path, *, last_step: int) -> None:
    """Cut a training job's append-only files back to a checkpoint's step."""
    for name in ROWS:
        cut_jsonl(folder / f"{name}.jsonl", last_step=last_step)


def flush_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Have a training job's rows on the disk; return how far each file reaches: name -> {bytes, sha256}."""
    found = {}
    for name in ROWS:
        path = folder / f"{name}.jsonl"
        if path.exists():
            safe_files.flush(path)
            found[name] = {"bytes": path.stat().st_size, "sha256": hashes.read_hash(path)}
    return found


def wrong_rows(folder: Path, rows: Mapping[str, Mapping[str, Any]] | None, step: int) -> str:
    """Say which file no longer has what it had at a checkpoint; "" if all do.

    Args:
        rows: how far each reached, by `flush_rows`; None: not known, so that the steps are counted.
        step: the checkpoint's.
    """
    if rows is None:
        steps = [row["step"] for row in read_jsonl(folder / "steps.jsonl") if row["step"] <= step]
        wrong = schema.wrong_steps(steps, step)
        return f"steps.jsonl {wrong}" if wrong else ""
    for name, kept in rows.items():
        path = folder / f"{name}.jsonl"
        if not path.is_file():
            return f"{path.name} is missing"
        with path.open("rb") as file:
            begin = file.read(kept["bytes"])
        if len(begin) < kept["bytes"]:
            return f"{path.name} was cut short"
        if hashlib.sha256(begin).hexdigest() != kept["sha256"]:
            return f"{path.name} is not as it was written"
    return ""


def restore_rows(folder: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Cut a training job's append-only files back to where they reached at a checkpoint."""
    for name in ROWS:
        path = folder / f"{name}.jsonl"
        if name not in rows:
            path.unlink(missing_ok=True)
        elif path.stat().st_size > rows[name]["bytes"]:
            with path.open("rb") as file:
                begin = file.read(rows[name]["bytes"])
            with safe_files.replacing(path) as file:
                file.write(begin)


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
        return dict(read_json(path)) if path.exists() else {"outcome": None}

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
        InputError: no readable spec, one of another job, or a schema newer than this version knows.
    """
    file = path / "spec.json"
    job = Job(path, read_json(file))
    if job.id != path.name:
        raise InputError(f"{file}: is of another job ({job.id[:100]!r}); {again(file)}")
    wrong = schema.wrong_labels(job.kind, job.labels)
    if wrong:
        raise InputError(f"{file}: is not a record ({wrong}); {again(file)}")
    return job


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
