"""Weights that lie in parts on several processes (FSDP2 on gloo): really in parts, with the gradients of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from weights_in_parts import LORA, ROWS

from bench.models import policy
from bench.models.objectives import collate, sft_sum
from bench.settings import Model

PROGRAM = Path(__file__).resolve().parents[2] / "weights_in_parts.py"
ROOT = Path(__file__).resolve().parents[3]


def launch(folder: Path, count: int, *arguments: str) -> list[dict[str, Any]]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    done = subprocess.run(
        [*torchrun, str(PROGRAM), str(folder), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"told-{rank}.json").read_text()) for rank in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "dtype", "tuning"),
    [(2, "float32", "full"), (4, "float32", "full"), (2, "bfloat16", "full"), (2, "float32", "lora")],
)
def test_weights_lie_in_parts_and_get_the_gradients_of_one_process(
    count: int, dtype: str, tuning: str, tmp_path: Path
) -> None:
    """Three rows: of two processes one has two, of four one has none. Libraries were seen to train plain parameters on gloo and
    say nothing, so each parameter is asked whether it is one of parts, and each part whether it is smaller than the whole."""
    told = launch(tmp_path, count, dtype, tuning)
    for one in told:
        assert one["backend"] == "gloo"
        assert one["in_parts"] and all(one["in_parts"].values())
        assert all(part <= -(-size // count) + size // 8 for size, part in one["numbers"].values())
        assert set(one["trained_in_parts"]) == {tuning == "full"}  # an adapter is whole on each
        assert one["dtypes"] == ["torch.float32"]
    sizes = [sum(part for _, part in one["numbers"].values()) for one in told]
    assert sum(sizes) == sum(size for size, _ in told[0]["numbers"].values())

    settings = Model.model_validate({"source": "random", "dtype": dtype, "tuning": tuning})
    alone = policy.load(settings, torch.device("cpu"))
    alone.attach(None if tuning == "full" else LORA, seed=0)
    alone.model.train()
    total = 0.0
    for row in ROWS:  # one by one, as processes have them: bfloat16 rounds each
        loss = sft_sum(alone.model, collate([row], "plain", torch.device("cpu")))
        loss.backward()
        total += float(loss.detach())
    share = 1e-5 if dtype == "float32" else 0.03
    assert all(one["loss"] == pytest.approx(total, rel=share) for one in told)
    found = torch.load(tmp_path / "gradients.pt")
    expected = {name: one.grad for name, one in alone.trainable().items()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient is not None
        assert float((found[name] - gradient).norm()) <= share * float(gradient.norm()) + 1e-6, name
