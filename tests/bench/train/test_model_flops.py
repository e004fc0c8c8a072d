"""Which passes a step's model FLOPs are made of, and what a job keeps of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.data.tokens import Example
from bench.methods import Objective
from bench.models import flops
from bench.models.flops import Sizes
from bench.records import record
from bench.train.model_flops import ModelFlops

SIZES = Sizes(weights=100, lowest=20, adapter=10, adapter_lowest=3, layers=2, queries=4, vocabulary=30)
PAIR, ROW = Example((1, 2), ((3,), (4, 5))), Example((1,), ((2, 3),))
# tests/bench/models/test_flops.py works the pair out. The row: 3 tokens, pairs 1 + (2 + 3) = 6.
# Forward 2·110·3 + 4·2·4·6 + 2·30·2 = 660 + 192 + 120 = 972; backward 2·80·3 + 384 − 48 + 34·3 + 120 = 1038.
PAIR_FORWARD, PAIR_BOTH, ROW_FORWARD, ROW_BOTH = 1696, 1696 + 1878, 972, 972 + 1038


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> ModelFlops:
    monkeypatch.setattr(flops, "sizes_of", lambda model: SIZES)
    train = {Objective.DPO: SimpleNamespace(examples=[PAIR]), Objective.SFT: SimpleNamespace(examples=[ROW, ROW])}
    made: Any = ModelFlops(SimpleNamespace(model=None), SimpleNamespace(train=train))  # type: ignore[arg-type]
    return made


LAST = {Objective.DPO: [0], Objective.SFT: [1, 0]}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"weights": {"dpo": 1.0}}, PAIR_BOTH),
        ({"weights": {"dpo": 0.5, "sft": 0.5}}, PAIR_BOTH + 2 * ROW_BOTH),
        ({"weights": {"sft": 1.0}, "probes": {"dpo": 1.0, "sft": 2.0}}, PAIR_FORWARD + 2 * ROW_FORWARD + 2 * ROW_BOTH),
        ({"weights": {"sft": 1.0}, "gradients": {}, "on_gradients": True}, PAIR_BOTH + 2 * ROW_BOTH),
        ({"probes": {"dpo": 1.0}}, PAIR_FORWARD),
        ({"weights": {"sft": 1.0}, "on_gradients": True}, 0),
    ],
)
def test_a_step_is_its_passes(counter: ModelFlops, row: dict[str, Any], wanted: int) -> None:
    """A probe is one pass forward; a step, or a gradient taken before it, goes back too, and no row goes back twice."""
    assert counter.of_step(row, LAST) == wanted


def test_tokens_that_are_not_learned_need_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the row's two answer tokens one is a user's: 2 · 30 less, each way."""
    monkeypatch.setattr(flops, "sizes_of", lambda model: SIZES)
    row = Example((1,), ((2, 3),), (frozenset({0}),))
    train = {Objective.DPO: SimpleNamespace(examples=[]), Objective.SFT: SimpleNamespace(examples=[row])}
    counter: Any = ModelFlops(SimpleNamespace(model=None), SimpleNamespace(train=train))  # type: ignore[arg-type]
    assert counter.of_step({"weights": {"sft": 1.0}}, {Objective.SFT: [0]}) == ROW_BOTH - 120


def test_a_model_of_other_matrices_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flops, "sizes_of", lambda model: None)
    counter: Any = ModelFlops(SimpleNamespace(model=None), SimpleNamespace(train={}))  # type: ignore[arg-type]
    assert counter.of_step({"weights": {"dpo": 1.0}}, LAST) is None


def test_a_run_adds_its_steps_up(tiny: Any, run_plan: Any) -> None:
    job: record.Job = run_plan(tiny()).run("mix-l0.5")
    steps = [row["model_flops"] for row in job.rows("steps")]
    assert len(steps) == job.measurements["steps"]["value"] and all(steps)
    assert job.measurements["model_flops"] == {"value": sum(steps), "unit": "FLOP"}
    rate = job.measurements["matrix_flops_per_second"]
    assert rate == {"value": None, "unit": "FLOP/s", "reason": "measured on a GPU only"}
