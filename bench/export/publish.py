"""Make folders that are a hub's repositories: the recommended policy as a model, the suite's records as a data set.

The folders are written here and can be looked at; nothing leaves this machine unless `push` is called. They lie as in a mirror
of the hub, OUT/models/ORG/NAME and OUT/datasets/ORG/NAME, so that `--mirror OUT` reads them back.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.errors import InputError
from bench.export import eval_results, export, results_card
from bench.export.source import find
from bench.records import public, safe_files
from bench.records.archive import SUFFIX
from bench.records.suite_record import SuiteRecord, find_suites
from report import build
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.analysis.toy import is_toy
from report.choose.choose import choose_all
from report.page.verdict import Verdict

RECORDS, MODEL = "dataset", "model"
_TEXT = (".json", ".jsonl", ".md", ".html", ".yaml", ".txt", ".jinja", ".parquet")


@dataclass(frozen=True)
class Repository:
    """Name a folder that is to be a repository of the hub.

    Attributes:
        kind: `model` or `dataset`.
        name: ORG/NAME.
        says: what is in it.
    """

    kind: str
    name: str
    folder: Path
    says: str

    def __str__(self) -> str:
        size = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        return f"{self.folder}: {self.says}, {size / 1e6:,.1f} MB"


@dataclass(frozen=True)
class Published:
    """Say what was written.

    Attributes:
        note: why there is no model, or what it needs that is not in it.
    """

    repositories: tuple[Repository, ...]
    note: str


def publish(
    name: str,
    results: Path,
    out: Path,
    *,
    job: str = "",
    choose: str = "",
    merge: bool = False,
    answers: bool = False,
    force: bool = False,
) -> Published:
    """Write the folders of a suite's data set and, where a recipe is recommended, of its model.

    Args:
        name: ORG/NAME on the hub, of both.
        results: one suite's folder or archive, or a root that holds one.
        out: where the folders go.
        job: the run whose policy is the model; found as `bench export` finds it.
        choose: an expression that chooses the recipe; its first seed's run is taken.
        merge: the model is the whole one, not the adapter alone.
        answers: whether policies' answers and judges' raw replies go along.
        force: write over folders of an earlier call.

    Raises:
        InputError: the name is none of the hub's, a folder is in the way, several suites are there, the asked-for run cannot be
            exported, or something of this machine would go along.
        JobError: the exported model does not do what the trained policy does.
    """
    _check_name(name)
    suite = _only_suite(results)
    folders = {kind: out / f"{kind}s" / name for kind in (MODEL, RECORDS)}
    wanted, note = _wanted(suite, job, choose)
    for kind, folder in folders.items():
        _check_folder(folder, force)
        if kind == MODEL and wanted is None and folder.exists():
            shutil.rmtree(folder)  # of an earlier call; the one that --force is about
    if wanted is None:
        return Published((_records(suite, folders[RECORDS], name, None, answers),), note)
    model, needs = _model(suite, wanted, folders[MODEL], name, merge)
    return Published((model, _records(suite, folders[RECORDS], name, name, answers)), needs)


def _check_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if name.count("/") != 1:
        raise InputError("TARGET must be ORG/NAME: letters, digits, '-', '_' and '.', as the hub has it")


def _only_suite(results: Path) -> SuiteRecord:
    suites = find_suites(results)
    if len(suites) > 1:
        names = ", ".join(one.name for one in suites)
        raise InputError(f"{results}: holds {len(suites)} suites ({names}); give one of them")
    return suites[0]


def _check_folder(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give another --out")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise InputError(f"{folder}: is not empty; give another --out, or --force to write it anew")


# ---- the recommended run ---------------------------------------------------------------------------------------------


def _wanted(suite: SuiteRecord, job: str, choose: str) -> tuple[str | None, str]:
    """Name the run whose policy is published, or say why there is none."""
    if job and choose:
        raise InputError("--job and --choose both say which run; give one of them")
    if job:
        return job, ""
    if is_toy(suite):
        return None, f"{suite.name} is a toy, which has no weights: only its records were written"
    if choose:
        return _chosen(suite, choose), ""
    verdict = Verdict(Findings(Results(suite)))
    if suite.info.get("smoke") or verdict.best is None or verdict.ranking.winner is None:
        return (
            None,
            f"no recipe is recommended ({verdict.headline}) name one by --job or --choose; only the records were written",
        )
    run = next(iter(verdict.best.jobs.values()))
    try:
        find(suite.archive or suite.folder, run)
    except InputError as error:
        return None, f"only the records were written: {error}"
    return run, ""


def _chosen(suite: SuiteRecord, choose: str) -> str:
    (found,) = choose_all(suite.archive or suite.folder, choose)
    if found.choice is None or found.choice.best is None:
        raise InputError(f"--choose {choose}: {found.reason if found.choice is None else found.choice.headline}")
    return next(iter(found.choice.best.jobs.values()))


# ---- folders ---------------------------------------------------------------------------------------------------------


def _model(suite: SuiteRecord, run: str, folder: Path, name: str, merge: bool) -> tuple[Repository, str]:
    """Export the policy with its card, and say where its records are; return also what it needs that is not in it."""
    made = export.export(suite.archive or suite.folder, run, folder, merge=merge, force=True)
    for file in folder.glob("*.json"):
        told = json.loads(file.read_text(encoding="utf-8"))
        if (clean := public.cleaned(told)) != told:  # a base model's folder, and what a tokenizer was loaded from
            file.write_text(f"{json.dumps(clean, indent=2, ensure_ascii=False)}\n", encoding="utf-8")
    card = folder / "README.md"
    text = public.without_paths_by_line(card.read_text(encoding="utf-8"))
    card.write_text(f"{text}\n{_where_records_are(name)}", encoding="utf-8")
    shutil.rmtree(folder / ".eval_results", ignore_errors=True)
    eval_results.write(suite, suite.jobs[made.job], folder, name)
    _check(folder)
    return Repository(MODEL, name, folder, f"the {made.what} of {made.job} with its card"), made.note


def _where_records_are(name: str) -> str:
    return (
        "## Records\n\n"
        "Every figure above, step by step and beside the other recipes, is in the data set "
        f"[{name}](https://huggingface.co/datasets/{name}): `bench report` reads its archive, and "
        f"`bench compare RESULTS --baseline {name}` compares with it.\n"
    )


def _records(suite: SuiteRecord, folder: Path, name: str, model: str | None, answers: bool) -> Repository:
    """Write the archive, its report as a page, its runs as a table, and the card."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    safe_files.sweep([folder.parent])
    with safe_files.temporary_folder(folder) as new:
        file = new / f"{suite.name}{SUFFIX}"
        public.write(suite, file, answers=answers)
        _report(file, new)
        (written,) = find_suites(file)
        (new / "README.md").write_text(results_card.render(written, name, model, answers=answers), "utf-8")
        _check(new)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        for one in sorted(new.iterdir()):
            one.chmod(0o644)
            shutil.move(one, folder / one.name)
    return Repository(RECORDS, name, folder, f"the records of {suite.name} with report, table of runs and card")


def _report(archive: Path, folder: Path) -> None:
    """Make the report of what is given away, from what is given away, and keep its page and its table."""
    with safe_files.temporary_folder(folder / "report") as made:
        build.build([archive], made)
        (found,) = made.glob("*/report.html")
        for name in ("report.html", "runs.parquet"):
            if (found.parent / name).exists():
                shutil.move(found.parent / name, folder / name)


def _check(folder: Path) -> None:
    """See that nothing of this machine is in a folder's files."""
    for file in _files(folder):
        public.check(file.name, file.read_bytes(), (folder,))


def _files(folder: Path) -> Iterator[Path]:
    yield from (file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix in _TEXT)
