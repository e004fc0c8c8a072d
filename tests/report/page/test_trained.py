"""What a report says of what was trained, and of runs that were resumed."""

from __future__ import annotations

from typing import Any

import pytest

from report.page import trained

LORA = {"rank": 8, "alpha": 16, "targets": ["all-linear"]}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lora": LORA}, "LoRA adapter, rank 8, alpha 16"),
        ({"lora": LORA | {"variant": "dora"}}, "DoRA adapter, rank 8, alpha 16"),
        ({"lora": LORA | {"variant": "rslora", "init": "pissa"}}, "rsLoRA adapter, rank 8, alpha 16, begun by pissa"),
        ({"tuning": "full"}, "all weights"),
        ({}, "–"),
    ],
)
def test_what_is_trained_is_named(settings: dict[str, Any], expected: str) -> None:
    assert trained.what(settings) == expected


def test_settings_of_an_adapter_are_not_shown_where_there_is_none() -> None:
    lora = {"model": {"tuning": "lora"}, "lora": LORA, "seeds": [0]}
    assert trained.as_read(lora) == lora
    assert trained.as_read({"model": {"tuning": "full"}, "lora": LORA, "seeds": [0]}) == {
        "model": {"tuning": "full"},
        "seeds": [0],
    }


def test_runs_whose_bits_may_differ_are_counted_with_why() -> None:
    told = {"unit": "nats", "basis": "declared"}
    first = {"step": 4, "bit_equal": False, "reason": "on a GPU", "loss_tolerance": told | {"value": 1e-4}}
    second = {
        "step": 8,
        "bit_equal": False,
        "reason": "on 2 devices, after 1",
        "loss_tolerance": told | {"value": 0.02},
    }
    whole = {"resumed": [{"step": 4, "bit_equal": True}]}
    assert trained.resumed([{}, whole]) == ""
    assert trained.resumed([{}, whole, {"resumed": [first, second]}, {"resumed": [first]}]) == (
        "2 of 4 runs went on from a checkpoint without the promise of equal bits: on a GPU; on 2 devices, after 1; "
        "losses may differ by 0.02 nats (declared, not measured)"
    )
