"""Take a trained policy out of a results folder, as files that plain `transformers` and `peft` load."""

from __future__ import annotations

import difflib
import fnmatch
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bench import identity, record
from bench.errors import InputError, JobError, ModelError
from bench.plan import WITH_ADAPTER
from bench.settings import Model
from bench.suite import suite_folder

if TYPE_CHECKING:
    import torch

    from bench.policy import Policy

# What an export writes: --force clears these from a folder, and nothing else. An adapter's files left beside a merged
# model would be loaded on top of it.
OURS = (
    "README.md",
    "adapter_*",
    "added_tokens.json",
    "chat_template*",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model*.safetensors*",
    "special_tokens_map.json",
    "tokenizer*",
    "vocab.*",
)
_CHECKED_TOKENS = 24


@dataclass(frozen=True)
class Source:
    """Hold a job whose weights are at hand, and what its base model is.

    Attributes:
        pretrained: the folder of the pre-training job that made the base model; None for every other base.
    """

    suite: record.SuiteRecord
    job: record.Job
    model: Model
    pretrained: Path | None

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
    def self_contained(self) -> bool:
        """Whether others can get the base model without bench and this machine."""
        return self.model.source == "hub"


@dataclass(frozen=True)
class Exported:
    """Say what was written.

    Attributes:
        difference: largest absolute difference between the reloaded logits and those of the policy in memory.
        largest: the largest of those logits, for scale.
    """

    folder: Path
    job: str
    merged: bool
    size_bytes: int
    difference: float
    largest: float
    note: str

    def __str__(self) -> str:
        size = f"{self.size_bytes / 1e6:,.1f} MB" if self.size_bytes >= 1e5 else f"{self.size_bytes / 1e3:,.0f} kB"
        what, by = ("merged model", "transformers") if self.merged else ("adapter", "peft")
        return (
            f"{self.folder}: {what} of {self.job}, {size}; reloaded by plain {by}, its logits are within "
            f"{self.difference:.1g} of the trained policy's (up to {self.largest:.2g})"
        )


# ---- which job -------------------------------------------------------------------------------------------------------


def find(results: Path, wanted: str) -> Source:
    """Find a job by its id, the beginning of its id, or a glob.

    Raises:
        InputError: none or several match, it is not complete, it has no weights, or its weights are not here.
    """
    exporting = [(suite, job) for suite in record.find_suites(results) for job in suite.jobs.values()]
    ids = list(dict.fromkeys(job.id for _, job in exporting))
    job_id = _match(wanted, ids, {job.id for _, job in exporting if job.kind in WITH_ADAPTER}, results)
    found = [(suite, job) for suite, job in exporting if job.id == job_id]
    with_weights = [one for one in found if (one[1].path / "adapter").is_dir()]
    suite, job = (with_weights or found)[0]  # an equal id is an equal job, whatever suite made it
    if not job.complete:
        state = {None: "not complete"}.get(job.status["outcome"], job.status["outcome"])
        raise InputError(f"{job.path}: this job is {state}; {_run_again(suite, job, results)} finishes it")
    if not with_weights:
        raise _no_weights(suite, job)
    model = Model.model_validate(suite.info["suite"]["model"])
    pretrained = job.spec["inputs"].get("pretrained")
    folder = suite.path / "jobs" / pretrained if pretrained else None
    if folder is not None and not (folder / "model").is_dir():
        raise _no_weights(suite, suite.jobs[str(pretrained)])
    _check_base(model, job)
    return Source(suite, job, model, folder)


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


def _run_again(suite: record.SuiteRecord, job: record.Job, results: Path | str) -> str:
    shipped = (suite_folder() / f"{suite.name}.yaml").exists()
    name = suite.name if shipped else f"<the file of suite {suite.name}>"
    smoke = " --smoke" if suite.info.get("smoke") else ""
    return f"'bench run {name}{smoke} --only {job.id} --results {results}'"


def _no_weights(suite: record.SuiteRecord, job: record.Job) -> InputError:
    return InputError(
        f"{job.path}: the weights of this job are not here, only its records; "
        f"{_run_again(suite, job, 'A_NEW_FOLDER')} makes them again"
    )


def _check_base(model: Model, job: record.Job) -> None:
    """Refuse a local base model whose files are not those the adapter was trained on."""
    then, now = job.spec["settings"]["model"].get("content"), identity.model_settings(model).get("content")
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


def export(results: Path, wanted: str, folder: Path, *, merge: bool = False, force: bool = False) -> Exported:
    """Write the adapter of a job, or with `merge` the whole model, with tokenizer and model card; reload and compare.

    Nothing is left in `folder` unless all of it could be written and reloads to the same logits.

    Raises:
        InputError: see `find`; or `folder` is a file, or holds something and `force` is not given.
        JobError: the reloaded logits differ.
    """
    _check_target(folder, force)
    source = find(results, wanted)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries', as in a worker
        new = Path(made)
        written = (_write_merged if merge else _write_adapter)(source, new)
        from bench import model_card

        (new / "README.md").write_text(model_card.render(source, written, merged=merge), encoding="utf-8")
        _move(new, folder)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return Exported(folder, source.job.id, merge, size, written.difference, written.largest, _needs(source, merge))


def _check_target(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder to be made")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise InputError(f"{folder}: is not empty; give a new folder, or --force to write over an earlier export")


def _move(new: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for pattern in OURS:
        for old in folder.glob(pattern):
            if old.is_file():
                old.unlink()
    for file in sorted(new.iterdir()):
        file.chmod(0o644)  # safetensors writes for its owner alone
        shutil.move(file, folder / file.name)


def _needs(source: Source, merge: bool) -> str:
    if merge or source.self_contained:
        return ""
    return f"the adapter needs its base model, {source.base_name}; --merge writes a model that needs nothing else"


# ---- weights ---------------------------------------------------------------------------------------------------------


def _write_adapter(source: Source, folder: Path) -> Written:
    """Copy the adapter as it was trained, name its base model in its settings, and reload it with peft alone."""
    import peft

    policy, ids, expected = _trained(source)
    revision = _revision(source)
    for file in (source.job.path / "adapter").iterdir():
        if file.name.startswith("adapter_"):
            shutil.copy(file, folder / file.name)
    settings = record.read_json(folder / "adapter_config.json")
    settings |= {"base_model_name_or_path": source.base_name, "revision": revision}
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    policy.tokenizer.save_pretrained(folder)
    policy.detach()
    reloaded = peft.PeftModel.from_pretrained(policy.model, str(folder)).eval()
    return Written(revision, _compare(reloaded, ids, expected, source), float(expected.abs().max()))


def _write_merged(source: Source, folder: Path) -> Written:
    """Add the adapter's product to the base model's weights in float32, save in the suite's dtype, and reload that."""
    import torch
    from transformers import AutoModelForCausalLM

    policy, ids, expected = _trained(source)
    revision = _revision(source)
    if source.model.dtype != "float32":
        policy.detach()
        policy.model.float()
        policy.attach_saved(source.job.path)
    _untie(policy.model.get_base_model())
    merged = policy.model.merge_and_unload().to(getattr(torch, source.model.dtype))
    merged.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    del policy, merged
    reloaded = AutoModelForCausalLM.from_pretrained(folder, dtype=source.model.dtype).eval()
    return Written(revision, _compare(reloaded, ids, expected, source), float(expected.abs().max()))


def _untie(model: Any) -> None:
    """Give adapted output embeddings weights of their own, so that merging leaves the input embeddings as they are."""
    import torch

    outer, inner = model.get_output_embeddings(), model.get_input_embeddings()
    weights = [getattr(layer, "base_layer", layer) for layer in (outer, inner)]
    if (weights[0] is not outer or weights[1] is not inner) and weights[0].weight is weights[1].weight:
        weights[0].weight = torch.nn.Parameter(weights[0].weight.detach().clone())
        model.config.get_text_config().tie_word_embeddings = False
        model.config.tie_word_embeddings = False


def _trained(source: Source) -> tuple[Policy, torch.Tensor, torch.Tensor]:
    """Return the policy in memory, a few tokens and its logits of them."""
    import torch

    from bench import policy

    loaded = policy.load(source.model, torch.device("cpu"), source.pretrained)
    # A plain tokenizer hands out token_type_ids, which no causal model takes.
    loaded.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    loaded.attach_saved(source.job.path)
    size = loaded.model.config.get_text_config().vocab_size
    ids = torch.tensor([[(7 + 131 * place) % size for place in range(_CHECKED_TOKENS)]])
    return loaded, ids, loaded.logits(ids)


def _revision(source: Source) -> str | None:
    """Return the commit of the hub's base model that was loaded, or the revision that the suite names."""
    from huggingface_hub import try_to_load_from_cache

    if source.model.source != "hub":
        return None
    file = try_to_load_from_cache(str(source.model.path), "config.json", revision=source.model.revision)
    return Path(file).parent.name if isinstance(file, str) else source.model.revision


def _compare(reloaded: Any, ids: torch.Tensor, expected: torch.Tensor, source: Source) -> float:
    """Return the largest absolute difference of the logits; beyond rounding it is an error, as after training."""
    import torch

    with torch.no_grad():
        difference = float((reloaded(input_ids=ids).logits.float() - expected).abs().max())
    allowed = (1e-4 if source.model.dtype == "float32" else 0.05) * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:
        raise JobError(
            f"{source.job.id}: the exported model's logits differ from the policy's by {difference:.3g} (allowed "
            f"{allowed:.3g}); nothing was written"
        )
    return difference
