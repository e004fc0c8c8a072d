"""The GPUs of this machine, found through NVML without torch, and whether the installed torch can use them."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from bench.errors import InputError


def default_workers() -> int:
    """Return one worker a GPU, or one on a machine without."""
    return max(1, len(visible()))


def check() -> None:
    """Refuse a machine whose GPUs would be used by a torch that knows none.

    Raises:
        InputError: says what to install, or how to leave the GPUs alone.
    """
    gpus = visible()
    if gpus and not _torch_has_cuda():
        count = f"{len(gpus)} {'GPU is' if len(gpus) == 1 else 'GPUs are'}"
        raise InputError(
            f"{count} here, but the installed torch is a build for CPUs: install one that fits the GPU's driver "
            "(https://pytorch.org/get-started/locally), or set CUDA_VISIBLE_DEVICES= (empty) to train on the CPU"
        )


def _torch_has_cuda() -> bool:
    """Say whether torch was built for CUDA or ROCm, without importing it."""
    spec = importlib.util.find_spec("torch")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [Path(folder) / "version.py" for folder in folders]
    texts = [file.read_text(encoding="utf-8") for file in files if file.exists()]
    return any(re.search(r"^(cuda|hip)\b[^=\n]*= *['\"]", text, flags=re.MULTILINE) for text in texts)


def visible() -> list[str]:
    """List the GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip() not in ("", "-1")]
    from bench.collectors import nvml

    return nvml.uuids()
