"""What a step keeps for its backward pass: no method may hold more than ALRIGHT, except Mix with both graphs at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.methods import Choice, Objective
from bench.suite.suite import Suite
from tests.bench.train.test_proofs import Gradients

BOTH = {Objective.DPO: 0.5, Objective.SFT: 0.5}


class Kept:
    """Count the bytes that autograd has saved for backward, now and at the peak."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def __enter__(self) -> Kept:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda packed: packed[0])
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    def _pack(self, tensor: Tensor) -> Any:
        class Packed(list):  # type: ignore[type-arg]
            pass  # a plain list takes no weak reference

        size = tensor.numel() * tensor.element_size()
        self.now += size
        self.peak = max(self.peak, self.now)
        packed = Packed([tensor.detach()])
        weakref.finalize(packed, self._free, size)
        return packed

    def _free(self, size: int) -> None:
        self.now -= size


@pytest.fixture
def kept_by(tiny: Callable[..., Suite], run_plan: Any) -> Callable[..., int]:
    """Return a function: choice of objectives, which to probe before → bytes kept at the peak of the first step."""
    settings = tiny(methods=["mix"], lambdas=[0.5])
    made = Gradients(run_plan(settings), "mix")

    def measure(choice: Choice, probes: tuple[Objective, ...] = ()) -> int:
        made.restart()
        with Kept() as kept:
            for objective in probes:
                made.trainer.probe(objective)
            assert kept.peak == 0  # a probe keeps nothing
            made.trainer.descend(choice)
        assert kept.now == 0  # nor does a step that is over
        return kept.peak

    return measure


def test_mix_accumulate_and_maxright_keep_no_more_than_alright(kept_by: Callable[..., int]) -> None:
    """ALRIGHT's larger objective is the yardstick; Mix `joint` holds both graphs, which is the sum."""
    of_dpo, of_sft = (kept_by(Choice({objective: 1.0})) for objective in Objective)
    alright = max(of_dpo, of_sft)
    assert min(of_dpo, of_sft) > 0
    assert kept_by(Choice(BOTH, joint_backward=False)) <= 1.01 * alright
    for objective, alone in ((Objective.DPO, of_dpo), (Objective.SFT, of_sft)):
        assert kept_by(Choice({objective: 1.0}), tuple(Objective)) == alone
    assert kept_by(Choice(BOTH, joint_backward=True)) >= 0.99 * (of_dpo + of_sft)
