"""NVIDIA's management library, through `pynvml`: which GPUs are watched, and why one cannot be."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from bench.collectors import Unavailable, Watched


def gpus(watched: Watched) -> list[Any]:
    """Return the NVML handles of the watched GPUs.

    They are found by UUID: CUDA may number GPUs otherwise than NVML (fastest first, or after CUDA_VISIBLE_DEVICES).

    Raises:
        Unavailable: no GPU is watched, NVML does not work, or a GPU is cut into MIG instances, for which NVML counts
            neither utilization nor energy.
    """
    uuids = watched.gpu_uuids or _cuda_uuids(watched.device)
    import pynvml

    found = []
    try:
        pynvml.nvmlInit()
        for uuid in uuids:
            handle = None if uuid.startswith("MIG-") else pynvml.nvmlDeviceGetHandleByUUID(uuid)
            if handle is None or _is_cut(handle):
                raise Unavailable(f"MIG: NVML does not count the use of a part of a GPU ({uuid})")
            found.append(handle)
    except pynvml.NVMLError as error:
        raise Unavailable(f"NVML: {error}") from None
    return found


def names() -> list[str]:
    """List this machine's GPUs by their product names; none without a working NVML."""
    import pynvml

    return _of_all(pynvml.nvmlDeviceGetName)


def uuids() -> list[str]:
    """List this machine's GPUs by their UUIDs; none without a working NVML."""
    import pynvml

    return _of_all(pynvml.nvmlDeviceGetUUID)


def memory_bytes() -> list[int]:
    """List the memory of this machine's GPUs; none without a working NVML."""
    import pynvml

    return [int(one) for one in _of_all(lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).total)]


def _of_all(ask: Callable[[Any], Any]) -> list[str]:
    import pynvml

    try:
        pynvml.nvmlInit()
        return [str(ask(pynvml.nvmlDeviceGetHandleByIndex(index))) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _cuda_uuids(device: str) -> tuple[str, ...]:
    """Ask torch for the UUID of a device such as cuda:0."""
    if not device.startswith("cuda"):
        raise Unavailable(f"no GPU: trained on {device}")
    import torch

    if not torch.cuda.is_available():
        raise Unavailable("no GPU: torch sees no CUDA device")
    index = torch.device(device).index or 0
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if index < len(visible) and visible[index].startswith("MIG-"):
        return (visible[index],)
    return (f"GPU-{torch.cuda.get_device_properties(index).uuid}",)


def _is_cut(handle: Any) -> bool:
    import pynvml

    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:  # a GPU that does not know MIG says "not supported"
        return False
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)
