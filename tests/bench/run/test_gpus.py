"""A machine whose GPUs torch cannot use is refused before workers are started."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import InputError
from bench.run import gpus

CPU_BUILD = "cuda: Optional[str] = None\nhip: Optional[str] = None\n"
CUDA_BUILD = "cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n"


def torch_of(folder: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for an installed torch of some build, and a machine with one GPU."""
    (folder / "torch").mkdir(exist_ok=True)
    (folder / "torch" / "__init__.py").write_text("")
    (folder / "torch" / "version.py").write_text(version)
    found = gpus.importlib.util.spec_from_file_location(
        "torch", folder / "torch" / "__init__.py", submodule_search_locations=[str(folder / "torch")]
    )
    monkeypatch.setattr(gpus.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(gpus, "visible", lambda: ["GPU-1"])


def test_a_gpu_and_a_torch_for_cpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_of(tmp_path, CPU_BUILD, monkeypatch)
    with pytest.raises(InputError, match=r"^1 GPU is here, but the installed torch is a build for CPUs: .*CUDA_VIS"):
        gpus.check()


def test_a_gpu_with_its_torch_and_a_machine_without_a_gpu_are_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_of(tmp_path, CUDA_BUILD, monkeypatch)
    gpus.check()
    torch_of(tmp_path, CPU_BUILD, monkeypatch)
    monkeypatch.setattr(gpus, "visible", list)
    gpus.check()


def test_the_build_is_read_without_importing_torch() -> None:
    """The installed one says the same of itself."""
    import torch

    assert gpus._torch_has_cuda() == bool(torch.version.cuda or torch.version.hip)
