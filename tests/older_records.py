"""Make a record one of a version that noted no sha256, so that a test can put other content into it."""

from __future__ import annotations

import json
from pathlib import Path

from bench.records.record import SEAL


def unseal(folder: Path) -> None:
    """Take away what says how a job's files were written."""
    for name in ("spec.json", "status.json"):
        value = json.loads((folder / name).read_text(encoding="utf-8"))
        value = {key: one for key, one in value.items() if key not in (SEAL, "files")}
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    for path in (folder / "checkpoints").glob("*.json"):
        path.unlink()
