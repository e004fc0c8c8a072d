"""Which commit of a hub's repository a branch or tag stands for now: what is loaded, and what results are of."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

_WAIT_SECONDS = 5


@lru_cache
def commit(name: str, revision: str | None, kind: Literal["model", "dataset"]) -> str | None:
    """Return the commit of a repository's branch or tag.

    The hub is asked first, once a process; where it cannot be, its cache on this machine says what was fetched last.

    Returns:
        None where neither can tell.
    """
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        try:
            api = HfApi()
            asked = api.model_info if kind == "model" else api.dataset_info
            found = asked(name, revision=revision, timeout=_WAIT_SECONDS).sha
            if found:
                return str(found)
        except Exception:  # offline, unknown, gated: whoever loads it will say so in words
            pass
    folder = f"{kind}s--{name.replace('/', '--')}"
    try:
        cached = (Path(constants.HF_HUB_CACHE) / folder / "refs" / (revision or "main")).read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return cached.strip() or None
