"""One GPU, beside the steps: answers against `generate`, questions against lm-eval, start and reference pass."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import gpu
from benchmarks.rows import Context, Row


def rows(context: Context) -> Iterator[Row]:
    """Measure what is not a training step on this machine's first GPU."""
    return gpu.of_part(context, "evaluation")
