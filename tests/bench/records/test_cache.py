from __future__ import annotations

from pathlib import Path

import pytest

from bench.records.cache import cache_folder


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "posttrain-bench"
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
