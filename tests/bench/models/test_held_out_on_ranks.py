"""Held-out rows are split over the processes that compute a job: each passes its share, and together they are one's result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.methods import Objective
from bench.models import held_out, objectives


class Share:
    """One of several processes, whose sums a test makes afterwards."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    def own(self, rows: Sequence[Any]) -> Sequence[Any]:
        return rows[self.rank :: self.count]

    def most(self, rows: int) -> int:
        return -(-rows // self.count)

    def sum(self, values: Tensor) -> Tensor:
        return values


@pytest.mark.parametrize("count", [2, 4])
def test_each_process_passes_its_share_and_the_sum_is_what_one_process_finds(
    count: int, tiny: Any, run_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = run_plan(tiny())
    policy = runner.context.base_to_train(None)
    datasets = runner.context.datasets(policy.tokenizer, {})
    passed: list[int] = []
    plain = objectives.collate

    def collate(examples: Sequence[Any], *more: Any) -> Any:
        passed.append(len(examples))
        return plain(examples, *more)

    monkeypatch.setattr(objectives, "collate", collate)
    for objective in Objective:
        rows = datasets.train[objective].examples
        policy.processes = None
        alone = held_out.answer_logps(policy, rows, 4)
        parts, shares = [], []
        for rank in range(count):
            passed.clear()
            policy.processes = Share(rank, count)
            parts.append(held_out.answer_logps(policy, rows, 4))
            shares.append(sum(passed))
        policy.processes = None
        assert sum(shares) == len(rows) and max(shares) <= -(-len(rows) // count)
        together = torch.stack(parts).sum(0)
        assert torch.equal((torch.stack(parts) != 0).sum(0), torch.ones_like(alone, dtype=torch.long))
        assert torch.allclose(together, alone, rtol=1e-6, atol=1e-5)
        assert float(together.mean()) == pytest.approx(float(alone.mean()), rel=1e-6)
