"""Build the reports of results folders: HTML, Markdown, JSON and Parquet per suite, and the page that leads to them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.errors import InputError
from bench.records.record import write_json
from bench.records.safe_files import drop_link, sweep, write_text
from bench.records.suite_record import SuiteRecord, find_suites
from report import lm_eval_files
from report.analysis import choices
from report.analysis.completions import Texts
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.analysis.toy import ToyResults, is_toy
from report.page import first_screen, index, report_json, sections
from report.page.index import Built
from report.page.verdict import Verdict
from report.render import html, markdown
from report.render.document import FirstScreen
from report.toy import page, words


def build(
    results: Path | Sequence[Path],
    out: Path | None = None,
    *,
    lm_eval: bool = False,
    choose: str = "",
    texts: Callable[[SuiteRecord], Texts] | None = None,
) -> Path:
    """Write every suite's report.html, report.md, report.json, runs.parquet and figures, and index.html.

    Args:
        results: folders of suites, single suites' folders, or archives.
        out: where reports go; beside the records when left out (then `<suite>/report.html`), with the index in the
            first folder. An archive's report goes to the folder that is named like it.
        choose: the goal that pages open with: one of theirs by name, or words of the language of --choose.
        texts: reads the prompts and targets of a suite, which pages then show beside its answers; they show none by default.
        lm_eval: also write what was asked of every policy in lm-eval's form, to `<suite>/lm_eval`.

    Returns:
        The path of index.html.

    Raises:
        InputError: a folder is missing, holds no suite, or a record cannot be read; or an archive's report would take
            the place of that of the records beside it.
    """
    folders = [results] if isinstance(results, Path) else list(dict.fromkeys(results))
    records = list({place(record).resolve(): record for one in folders for record in find_suites(one)}.values())
    for record in records if out is None else ():
        if record.archive and (record.folder / "suite.json").exists():
            raise InputError(
                f"{record.archive}: its report would take the place of that of the records in {record.folder}; give --out"
            )
    built = [
        _suite(record, record.folder if out is None else out / label, label, choose, texts)
        for record, label in zip(records, labels(records), strict=True)
    ]
    if lm_eval:
        for one in built:
            lm_eval_files.write(one.results.record, one.folder / "lm_eval")
    root = out or (folders[0] if folders[0].is_dir() else records[0].folder)
    path = root / "index.html"
    write_text(path, index.page(built, root))
    return path


def place(record: SuiteRecord) -> Path:
    """Return where a suite's records lie: a folder, or an archive."""
    return record.archive or record.folder


def labels(records: list[SuiteRecord]) -> list[str]:
    """Name each suite; one that shares its name with another is told apart by where it lies."""
    counts = Counter(record.name for record in records)
    if max(counts.values()) == 1:
        return [record.name for record in records]
    paths = [record.folder.resolve() for record in records]
    if len(set(paths)) < len(paths):  # a folder, and the archive that is named like it
        paths = [place(record).resolve() for record in records]
    common = os.path.commonpath([path.parent for path in paths])
    return [
        record.name if counts[record.name] == 1 else Path(os.path.relpath(path, common)).as_posix()
        for record, path in zip(records, paths, strict=True)
    ]


def _caveat(screen: FirstScreen) -> str:
    """Say what the recommended recipe loses, beside its name."""
    return next((goal.caveat for goal in screen.goals if goal.name == screen.default and goal.clear), "")


def _suite(
    record: SuiteRecord, folder: Path, label: str, choose: str, texts: Callable[[SuiteRecord], Texts] | None
) -> Built:
    results = Results(record)
    folder.mkdir(parents=True, exist_ok=True)
    drop_link(folder / "figures")
    sweep((folder, folder.parent, folder / "figures"))
    if is_toy(record):
        toy = ToyResults(record)
        told, content = page.tell(toy, folder), report_json.clean(page.as_json(toy))
        built = Built(label, results, folder, words.headline(toy))
    else:
        tables = Findings(results)
        verdict = Verdict(tables)
        screen = first_screen.make(tables, choose)
        log = {run.id: choices.read(results, run) for run in results.runs}
        told, content = (
            sections.tell(tables, verdict, folder, log, screen, texts(record) if texts else None),
            report_json.as_json(tables, verdict, screen),
        )
        report_json.write_runs(folder / "runs.parquet", tables, log)
        built = Built(label, results, folder, verdict.headline, _caveat(screen), tables, verdict)
    write_text(folder / "report.html", html.render(told))
    write_text(folder / "report.md", markdown.render(told))
    write_json(folder / "report.json", content)
    return built
