"""What a step's row tells of its work, and how often a run did each kind."""

from __future__ import annotations

from typing import Any

import pytest

from bench.records.work import Work, count, of_step

BOTH = {"dpo": 0.5, "sft": 0.5}
ROWS: dict[str, tuple[dict[str, Any], list[Work]]] = {
    "one objective": ({"weights": {"dpo": 1.0}}, [Work.DPO]),
    "both graphs at once": ({"weights": BOTH, "joint_backward": True}, [Work.JOINT]),
    "one graph after the other": ({"weights": BOTH, "joint_backward": False}, [Work.ACCUMULATE]),
    "chosen answers": ({"weights": {"dpo": 0.5}, "chosen_sft": 0.4}, [Work.DPO_WITH_CHOSEN]),
    "two probes and a step": (
        {"weights": {"sft": 1.0}, "probes": {"dpo": 0.7, "sft": 3.0}},
        [Work.PROBE_DPO, Work.PROBE_SFT, Work.SFT],
    ),
    "a step on gradients": (
        {"weights": BOTH, "gradients": {"seconds": 1.0}, "on_gradients": True},
        [Work.GRADIENTS, Work.ON_GRADIENTS],
    ),
    "gradients that were only looked at": (
        {"weights": {"dpo": 1.0}, "gradients": {"seconds": 1.0}},
        [Work.GRADIENTS, Work.DPO],
    ),
}


@pytest.mark.parametrize(("row", "work"), ROWS.values(), ids=ROWS.keys())
def test_a_row_tells_its_work(row: dict[str, Any], work: list[Work]) -> None:
    assert of_step(row) == work


def test_a_run_is_counted_by_hand() -> None:
    """Three steps, two of them on SFT, with two probes before the first."""
    first = {"weights": {"sft": 1.0}, "probes": {"dpo": 0.7, "sft": 3.0}}
    counted = count([first, {"weights": {"dpo": 1.0}}, {"weights": {"sft": 1.0}}])
    assert counted == {Work.SFT: 2, Work.DPO: 1, Work.PROBE_DPO: 1, Work.PROBE_SFT: 1}


def test_a_row_that_does_not_tell_makes_no_count() -> None:
    """Rows of older versions do not say how both objectives' graphs were kept; chosen answers beside SFT are no known kind."""
    assert count([{"weights": {"sft": 1.0}}, {"weights": BOTH}]) is None
    assert of_step({"weights": BOTH, "chosen_sft": 0.1}) is None
