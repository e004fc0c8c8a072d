"""Find the files behind a figure, relative to the report that shows it."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from bench.records.suite_record import SuiteRecord
from report.analysis.load import Results, Run


class Where:
    """Know where a suite's records lie, seen from its report's folder."""

    def __init__(self, record: SuiteRecord, folder: Path) -> None:
        self.record, self.folder = record, folder

    @property
    def archive(self) -> tuple[tuple[str, str], ...]:
        """The name of and the link to the archive that holds the records; nothing for records in a folder."""
        return (("Records", self._link(self.record.archive)),) if self.record.archive else ()

    def file(self, job: str, name: str) -> str:
        """Return the relative link to a job's file; "" where there is no such file, or where it lies in an archive."""
        path = self.record.path / "jobs" / job / name
        return self._link(path) if isinstance(path, Path) and path.exists() else ""

    def _link(self, path: Path) -> str:
        return quote(Path(os.path.relpath(path, self.folder)).as_posix())

    def behind(self, results: Results, run: Run, figure: str) -> str:
        """Return the link to the file that holds a run's figure, or what it is derived from."""
        kind = results.metric(figure).kind
        if kind == "score":
            jobs = results.evaluation_jobs(run.id)
            job = next((one for one in jobs if one.complete and figure in one.scores), None)
            return self.file(job.id, "scores.json") if job is not None else ""
        name = "scores.json" if kind == "objective" else "measurements.json"
        return self.file(run.id, name) or self.file(run.id, "spec.json")
