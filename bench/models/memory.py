"""What to do when a device's memory runs out: fewer rows at once, and the pass made again."""

from __future__ import annotations

import gc

import torch


def fewer(rows: int) -> int:
    """Return the largest divisor of `rows` that is at most half of it: 24 → 12, 15 → 5, 3 → 1."""
    return next(size for size in range(rows // 2, 0, -1) if rows % size == 0)


def release(device: torch.device) -> None:
    """Give back what a failed pass or an earlier job left in torch's cache; a failed pass's peak does not count.

    To be called outside the `except` block, whose traceback holds the pass's tensors.
    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
