"""Which job is taken away: found by its id, with its weights at hand and its base model still the same."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import InputError, ModelError
from bench.models.files import model_settings
from bench.records import record, seal, suite_record
from bench.records.archive import RecordPath
from bench.records.spec import WITH_ADAPTER
from bench.settings import Model
from bench.suite.suite import suite_folder


@dataclass(frozen=True)
class Source:
    """A job whose weights are at hand, and what its base model is.

    Attributes:
        pretrained: the folder of the pre-training job that made the base model; None for every other base.
    """

    suite: suite_record.SuiteRecord
    job: record.Job
    model: Model
    pretrained: Path | None

    @property
    def folder(self) -> Path:
        """The job's folder with its weights, which no archive has."""
        assert isinstance(self.job.path, Path)
        return self.job.path

    @property
    def base_name(self) -> str:
        """What goes into adapter_config.json: a hub id, a folder, or a name that no hub or folder can have."""
        if self.model.source == "hub":
            return str(self.model.path)
        if self.model.source == "local":
            return str(Path(str(self.model.path)).expanduser().resolve())
        detail = {"world": self.job.spec["inputs"].get("pretrained"), "gguf_package": self.model.path}
        return ":".join(("bench", self.model.source, str(detail.get(self.model.source) or self.model.architecture)))

    @property
    def is_whole(self) -> bool:
        """Whether it is a model of its own, all of whose weights were trained, and no adapter."""
        return "model" in seal.weights_in(self.job.path)

    @property
    def self_contained(self) -> bool:
        """Whether others can get the base model without bench and this machine."""
        return self.model.source == "hub"


def find(results: Path, wanted: str) -> Source:
    """Find a job by its id, the beginning of its id, or a glob.

    Raises:
        InputError: none or several match, it is not complete, it has no weights, or its weights are not here.
    """
    suites = suite_record.find_suites(results)
    exporting = [(suite, job) for suite in suites for job in suite.jobs.values()]
    broken = {job: what for suite in suites for job, what in suite.broken.items()}
    ids = list(dict.fromkeys([*(job.id for _, job in exporting), *broken]))
    job_id = _match(wanted, ids, {job.id for _, job in exporting if job.kind in WITH_ADAPTER} | broken.keys(), results)
    if job_id in broken:
        raise InputError(f"{results}: {job_id} cannot be exported: {broken[job_id]}")
    found = [(suite, job) for suite, job in exporting if job.id == job_id]
    with_weights = [one for one in found if seal.weights_in(one[1].path)]
    suite, job = (with_weights or found)[0]  # an equal id is an equal job, whatever suite made it
    if not job.complete:
        state = {None: "not complete"}.get(job.status["outcome"], job.status["outcome"])
        raise InputError(f"{job.path}: this job is {state}; {_run_again(suite, job, results)} finishes it")
    if not with_weights:
        raise _no_weights(suite, job)
    _refuse_damaged(job.path)
    model = Model.model_validate(suite.info["suite"]["model"])
    if model.source == "hub":  # the branch may have moved since
        model = model.model_copy(update={"revision": job.spec["settings"]["model"].get("revision")})
    pretrained = job.spec["inputs"].get("pretrained")
    folder = suite.folder / "jobs" / pretrained if pretrained else None
    if folder is not None and not (folder / "model").is_dir():
        raise _no_weights(suite, suite.jobs[str(pretrained)])
    if folder is not None:
        _refuse_damaged(folder)
    _check_base(model, job)
    return Source(suite, job, model, folder)


def _refuse_damaged(path: RecordPath) -> None:
    """Refuse weights that are not those that their job wrote."""
    damage = seal.examine(path, weights=True, remembered=False)
    if isinstance(damage, seal.Damage):
        raise InputError(f"{path}: cannot be exported: {damage.what}")


def _match(wanted: str, ids: Sequence[str], exportable: set[str], results: Path) -> str:
    slugs = {one: one.rpartition("-")[0] for one in ids}
    rules: tuple[Callable[[str], bool], ...] = (
        lambda one: one == wanted,
        lambda one: slugs[one] == wanted,
        lambda one: one.startswith(wanted) or fnmatch.fnmatch(one, wanted),
    )
    for rule in rules:
        matches = [one for one in ids if rule(one)]
        with_weights = [one for one in matches if one in exportable]
        if len(with_weights) == 1:
            return with_weights[0]
        if len(with_weights) > 1:
            shown = ", ".join(with_weights[:4]) + (", …" if len(with_weights) > 4 else "")
            raise InputError(
                f"{results}: {wanted!r} matches {len(with_weights)} jobs: {shown}; give one id in full, or one suite's folder"
            )
        if matches:
            raise InputError(f"{matches[0]}: this job makes no weights; export the training job that it is about")
    near = difflib.get_close_matches(wanted, [*exportable, *(slugs[one] for one in exportable)], n=3, cutoff=0.4)
    known = ", ".join(sorted({slugs[one] for one in exportable})[:5]) or "none"
    hint = f"did you mean {' or '.join(near)}?" if near else f"jobs that can be exported: {known}, …"
    raise InputError(f"{results}: no job {wanted!r}; {hint}")


def _run_again(suite: suite_record.SuiteRecord, job: record.Job, results: Path | str) -> str:
    shipped = (suite_folder() / f"{suite.name}.yaml").exists()
    name = suite.name if shipped else f"<the file of suite {suite.name}>"
    smoke = " --smoke" if suite.info.get("smoke") else ""
    return f"'bench run {name}{smoke} --only {job.id} --results {results}'"


def _no_weights(suite: suite_record.SuiteRecord, job: record.Job) -> InputError:
    return InputError(
        f"{job.path}: the weights of this job are not here, only its records; "
        f"{_run_again(suite, job, 'A_NEW_FOLDER')} makes them again"
    )


def _check_base(model: Model, job: record.Job) -> None:
    """Refuse a local base model whose files are not those the adapter was trained on."""
    then, now = job.spec["settings"]["model"].get("content"), model_settings(model).get("content")
    if then != now:
        raise ModelError(
            f"model.path = {model.path}: these are not the weights that {job.id} was trained on (sha256 {now}, then "
            f"{then}); put them back, or train again"
        )


@dataclass(frozen=True)
class Written:
    """Say what the weights in a folder were made with.

    Attributes:
        revision: the base model's commit on the hub, where it has one.
        difference, largest: see `Exported`.
    """

    revision: str | None
    difference: float
    largest: float


# ---- writing ---------------------------------------------------------------------------------------------------------
