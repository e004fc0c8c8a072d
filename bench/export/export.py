"""Take a trained policy out of a results folder, as files that plain `transformers` and `peft` load."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError, JobError
from bench.export.source import Source, Written, find
from bench.records import record, safe_files

if TYPE_CHECKING:
    import torch

    from bench.models.policy import Policy

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
class Exported:
    """Say what was written.

    Attributes:
        merged: whether it is a whole model and not an adapter.
        trained_whole: whether it was trained as one, so that nothing was merged.
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
    trained_whole: bool = False

    @property
    def what(self) -> str:
        """What was written, in words."""
        return "model" if self.trained_whole else "merged model" if self.merged else "adapter"

    def __str__(self) -> str:
        size = f"{self.size_bytes / 1e6:,.1f} MB" if self.size_bytes >= 1e5 else f"{self.size_bytes / 1e3:,.0f} kB"
        by = "transformers" if self.merged else "peft"
        return (
            f"{self.folder}: {self.what} of {self.job}, {size}; reloaded by plain {by}, its logits are within "
            f"{self.difference:.1g} of the trained policy's (up to {self.largest:.2g})"
        )


def export(results: Path, wanted: str, folder: Path, *, merge: bool = False, force: bool = False) -> Exported:
    """Write the adapter of a job, or with `merge` the whole model, with tokenizer and model card; reload and compare.

    A policy that is a whole model is written as one either way. Nothing is left in `folder` unless all of it could be written
    and reloads to the same logits.

    Raises:
        InputError: see `find`; or `folder` is a file, or holds something and `force` is not given.
        JobError: the reloaded logits differ.
    """
    _check_target(folder, force)
    source = find(results, wanted)
    merge = merge or source.is_whole
    folder.parent.mkdir(parents=True, exist_ok=True)
    safe_files.sweep([folder.parent])
    with safe_files.temporary_folder(folder) as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries', as in a worker
        written = (_write_merged if merge else _write_adapter)(source, new)
        from bench.export import model_card

        (new / "README.md").write_text(model_card.render(source, written, merged=merge), encoding="utf-8")
        _move(new, folder)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    note = _needs(source, merge)
    return Exported(folder, source.job.id, merge, size, written.difference, written.largest, note, source.is_whole)


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
    for file in (source.folder / "adapter").iterdir():
        if file.name.startswith("adapter_"):
            shutil.copy(file, folder / file.name)
    settings = record.read_json(folder / "adapter_config.json")
    settings |= {"base_model_name_or_path": source.base_name, "revision": revision}
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    policy.tokenizer.save_pretrained(folder)
    policy.detach()
    _with_ends(policy).save_pretrained(folder)
    reloaded = peft.PeftModel.from_pretrained(policy.model, str(folder)).eval()
    return Written(revision, _compare(reloaded, ids, expected, source), float(expected.abs().max()))


def _write_merged(source: Source, folder: Path) -> Written:
    """Add the adapter's product to the base model's weights in float32, save in the suite's dtype, and reload that.

    Of a policy that is a whole model there is nothing to add.
    """
    import torch
    from transformers import AutoModelForCausalLM

    policy, ids, expected = _trained(source)
    revision = _revision(source)
    if policy.has_adapter and source.model.dtype != "float32":
        policy.detach()
        policy.model.float()
        policy.attach_saved(source.folder)
    settings = _with_ends(policy)
    merged = policy.model
    if policy.has_adapter:
        _untie(policy.model_alone())
        merged = policy.model.merge_and_unload().to(getattr(torch, source.model.dtype))
    merged.generation_config = settings
    merged.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    del policy, merged
    reloaded = AutoModelForCausalLM.from_pretrained(folder, dtype=source.model.dtype).eval()
    return Written(revision, _compare(reloaded, ids, expected, source), float(expected.abs().max()))


def _with_ends(policy: Policy) -> Any:
    """Return the model's generation settings with every end of turn that ours stops at, so that plain generate() does, too."""
    import copy

    from transformers import GenerationConfig

    settings = copy.deepcopy(getattr(policy.model_alone(), "generation_config", None)) or GenerationConfig()
    ends = policy.end_of_turn_ids()
    settings.eos_token_id = ends if len(ends) != 1 else ends[0]
    if settings.pad_token_id is None:
        settings.pad_token_id = policy.tokenizer.pad_token_id
    return settings


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

    from bench.models import policy

    loaded = policy.load(source.model, torch.device("cpu"), source.pretrained)
    # A plain tokenizer hands out token_type_ids, which no causal model takes.
    loaded.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    loaded.attach_saved(source.folder)
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
