"""What all tests share: quiet libraries, one thread, the same random numbers, and data that may lie beside the checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before any test imports the libraries, which read these once; subprocesses inherit them.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # workers have a thread a core; beside other tests, none should spin
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "agg"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Return an offline mirror of the hub."""
    return _beside("BENCH_MIRROR", "hub", "datasets")


@pytest.fixture(scope="session")
def judgements() -> Path:
    """Return published AlpacaEval outputs with their judge's replies."""
    return _beside("BENCH_JUDGEMENTS", "judge", "reference_outputs.json")


@pytest.fixture(scope="session")
def public_cases() -> Path:
    """Return public failures rebuilt small."""
    return _beside("BENCH_CASES", "cases", "_models")


def _beside(variable: str, name: str, holds: str) -> Path:
    folder = Path(os.environ.get(variable) or ROOT.parent / "shared" / name)
    if not (folder / holds).exists():
        pytest.skip(f"no {holds} in {variable} or in ../shared/{name}")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests with the marker `gpu` where torch sees no CUDA device; it is asked before any test hides the GPUs."""
    wanted = [item for item in items if item.get_closest_marker("gpu")]
    if not wanted:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanted:
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


@pytest.fixture(autouse=True)
def _without_gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the machine's GPUs from every other test, and from the processes that it starts."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Seed torch and keep it to one thread; where no test has imported it yet, OMP_NUM_THREADS holds."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
