"""The processes that compute one job together: which rows are whose, and what they add up. One by default."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

Item = TypeVar("Item")


class Processes:
    """Share a batch's rows out and add up what came of them, so that every process goes on alike.

    Attributes:
        alone: whether there is but this one.
        main: whether it is the one that writes.
        rank, count: which of how many it is.
    """

    def __init__(self, device: torch.device) -> None:
        self.accelerator = Accelerator(cpu=device.type == "cpu")
        self.device = device
        self.rank, self.count = int(self.accelerator.process_index), int(self.accelerator.num_processes)
        self.alone, self.main = self.count == 1, self.accelerator.is_main_process

    def own(self, rows: Sequence[Item]) -> Sequence[Item]:
        """Return this process's share of a batch's rows."""
        return rows[self.rank :: self.count]

    def own_batches(self, rows: Sequence[Item], size: int) -> list[Item]:
        """Return this process's share in whole batches, every so-many-th: those that one process would make of the rows."""
        starts = self.own(range(0, len(rows), size))
        return [row for start in starts for row in rows[start : start + size]]

    def most(self, rows: int) -> int:
        """Return how many of so many rows the process with the largest share has."""
        return math.ceil(rows / self.count)

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor up over all processes."""
        summed: Tensor = values if self.alone else self.accelerator.reduce(values, "sum")
        return summed

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Leave every process with the whole batch's gradient, in one exchange; gradients of shards have had theirs."""
        whole = [one for one in parameters if not is_shard(one)]
        if self.alone or not whole:
            return
        # A process that got none of a batch smaller than the number of processes has no gradient.
        own = [torch.zeros_like(one) if one.grad is None else one.grad for one in whole]
        summed = self.sum(torch.cat([one.flatten() for one in own]))
        for one, part in zip(whole, torch.split(summed, [one.numel() for one in whole]), strict=True):
            one.grad = part.view_as(one)

    def sum_counts(self, counts: dict[str, int]) -> dict[str, int]:
        """Add up counts over all processes, as one process would have counted."""
        if self.alone:
            return counts
        summed = self.sum(torch.tensor(list(counts.values()), device=self.device)).tolist()
        return dict(zip(counts, summed, strict=True))

    def any(self, told: bool) -> bool:
        """Say whether any process was told something."""
        return told if self.alone else bool(self.sum(torch.tensor(int(told), device=self.device)))

    def of_main(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the main one's tensors, in their place."""
        if not self.alone:
            for one in tensors:
                torch.distributed.broadcast(one, 0)

    def gathered(self, value: Item) -> list[Item]:
        """Return every process's value, in their order."""
        if self.alone:
            return [value]
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value)
        return found

    def joined(self, found: Mapping[int, Item]) -> dict[int, Item]:
        """Return what every process found, by place; their shares do not overlap."""
        return {place: one for part in self.gathered(found) for place, one in part.items()}

    def wait(self) -> None:
        """Wait for the others."""
        self.accelerator.wait_for_everyone()


@functools.cache
def _shard_type() -> type:
    from torch.distributed.tensor import DTensor

    return DTensor


def is_shard(value: Any) -> bool:
    """Say whether a tensor is this process's part of one that all have together."""
    return torch.distributed.is_available() and isinstance(value, _shard_type())


def whole(value: Tensor) -> Tensor:
    """Return all of a tensor of which this process may hold a part; to be called by every process at once."""
    made: Tensor = value.full_tensor() if is_shard(value) else value  # type: ignore[attr-defined]
    return made
