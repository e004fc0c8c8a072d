"""Where the program keeps what it can make again: rebuilt models, lists of names. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return $BENCH_CACHE, or posttrain-bench in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "posttrain-bench"
    return Path(os.environ.get("BENCH_CACHE", str(default))).expanduser()
