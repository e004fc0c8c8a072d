"""A run whose layers are compiled: the same job with the same numbers, and what compiling took told apart."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.models import compiled
from bench.records import record
from bench.suite.suite import Suite


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore:The .grad attribute of a Tensor:UserWarning",
    "ignore:`is_gradient_checkpointing`:FutureWarning",
)
def test_a_run_with_compiled_layers_has_the_numbers_of_one_without(
    tiny: Callable[..., Suite], run_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are one job by its id. Only traced and not turned into code, which tests of the layers do."""
    import torch._dynamo

    monkeypatch.setattr(compiled, "install", functools.partial(compiled.install, backend="eager"))
    jobs = {}
    for wanted in ("off", "layers"):
        torch._dynamo.reset()
        runner = run_plan(tiny(name=wanted, model={"source": "random", "compile": wanted}))
        jobs[wanted] = runner.run("mix")
    plain, fast = jobs["off"], jobs["layers"]
    assert plain.id == fast.id
    assert "compile_seconds" not in plain.measurements
    assert fast.measurements["compile_seconds"]["value"] > 0
    assert [_forward(one.path)["compiled"] for one in (plain, fast)] == ["nothing", "layers"]
    losses = [[row["losses"] for row in record.read_jsonl(one.path / "steps.jsonl")] for one in (plain, fast)]
    assert len(losses[0]) == 6
    for row, other in zip(*losses, strict=True):
        assert other == pytest.approx(row, rel=1e-4)
    torch._dynamo.reset()


def _forward(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = record.read_json(folder / "data.json")["forward"]
    return made
