"""Hashes of files that are read once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bench.records import hashes


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_large_file_is_read_once_until_it_changes(tmp_path: Path, cache: Path) -> None:
    """2 MiB are remembered; one byte in the middle, which no sample of its ends would see, is another file."""
    file = tmp_path / "weights.safetensors"
    content = bytearray(2 << 20)
    file.write_bytes(content)
    first = hashes.file_hash(file)
    assert first == hashlib.sha256(content).hexdigest()
    (known,) = (cache / "hashes").iterdir()
    known.write_text("a" * 64)
    assert hashes.file_hash(file) == "a" * 64  # from the cache
    content[1_500_000] = 1
    file.write_bytes(content)
    assert hashes.file_hash(file) == hashlib.sha256(content).hexdigest()


def test_a_damaged_memory_is_made_anew(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(bytes(2 << 20))
    expected = hashes.file_hash(file)
    for known in (cache / "hashes").iterdir():
        known.write_text("half")
    assert hashes.file_hash(file) == expected
