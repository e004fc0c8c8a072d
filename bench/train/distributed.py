"""The processes that `torchrun` starts for one job: which rows are whose, and what they add up. One by default."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor


class Processes:
    """Share a batch's rows out and add up what came of them, so that every process goes on alike."""

    def __init__(self, device: torch.device) -> None:
        self.accelerator = Accelerator(cpu=device.type == "cpu")
        self.device, self.alone = device, self.accelerator.num_processes == 1
        self.main = self.accelerator.is_main_process

    def own(self, rows: Sequence[int]) -> Sequence[int]:
        """Return this process's share of a batch's rows."""
        return rows[self.accelerator.process_index :: self.accelerator.num_processes]

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor up over all processes."""
        summed: Tensor = values if self.alone else self.accelerator.reduce(values, "sum")
        return summed

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Leave every process with the whole batch's gradient."""
        if self.alone:
            return
        for parameter in parameters:
            # A process that got none of a batch smaller than the number of processes has no gradient.
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.sum(own)

    def sum_counts(self, counts: dict[str, int]) -> dict[str, int]:
        """Add up counts over all processes, as one process would have counted."""
        if self.alone:
            return counts
        summed = self.sum(torch.tensor(list(counts.values()), device=self.device)).tolist()
        return dict(zip(counts, summed, strict=True))

    def any(self, told: bool) -> bool:
        """Say whether any process was told something."""
        return told if self.alone else bool(self.sum(torch.tensor(int(told), device=self.device)))

    def wait(self) -> None:
        """Wait for the others."""
        self.accelerator.wait_for_everyone()
