"""Say what of a results folder may go, or is gone."""

from __future__ import annotations

from typing import Any

from bench.run.cleaning import Found
from bench.run.space import in_words


def as_dict(found: Found, *, deleted: bool) -> dict[str, Any]:
    """Return it as JSON values."""
    items = [{"suite": one.suite, "path": str(one.path), "why": one.why, "size_bytes": one.size} for one in found.items]
    return {"schema": 1, "deleted": deleted, "items": items, "freed_bytes": found.freed, "kept": list(found.kept)}


def as_text(found: Found, *, deleted: bool) -> str:
    """Return it as lines, the largest first."""
    items = sorted(found.items, key=lambda one: -one.size)
    lines = [f"{in_words(one.size):>12}  {one.path}  ({one.why})" for one in items]
    lines += [f"kept: {one}" for one in found.kept]
    count = f"{len(items)} {'folder' if len(items) == 1 else 'folders'}"
    if not items:
        lines.append("Nothing to clean.")
    elif deleted:
        lines.append(f"{count} deleted, {in_words(found.freed)} freed.")
    else:
        lines.append(f"{count}, {in_words(found.freed)} to be freed. Nothing is deleted yet: --yes deletes them.")
    return "\n".join(lines)
