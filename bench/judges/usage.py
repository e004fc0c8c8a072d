"""The tokens that an endpoint counts: what of a prompt came from its cache or went there, what of a reply was reasoning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Beside OpenAI's own name: OpenRouter's, litellm's and Anthropic's for the same
_CACHE_WRITES = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")


def tokens(usage: Any) -> dict[str, int] | None:
    """Read the `usage` of a chat completion.

    Returns:
        `prompt` and `completion`, each with all that is part of it; of the prompt `cached` and `cache_written`, of the
        completion `reasoning`, as far as the endpoint counts them. None where it counts nothing.
    """
    if not isinstance(usage, Mapping):
        return None
    prompt, completion = _within(usage, "prompt_tokens_details"), _within(usage, "completion_tokens_details")
    found = {
        "prompt": _count(usage, "prompt_tokens"),
        "completion": _count(usage, "completion_tokens"),
        "cached": _count(prompt, "cached_tokens")
        if "cached_tokens" in prompt
        else _count(usage, "prompt_cache_hit_tokens"),
        "cache_written": next((_count(prompt, name) for name in _CACHE_WRITES if name in prompt), None),
        "reasoning": _count(completion, "reasoning_tokens"),
    }
    made = {name: count for name, count in found.items() if count is not None}
    apart = made.get("reasoning", 0)
    if apart and _count(usage, "total_tokens") == made.get("prompt", 0) + made.get("completion", 0) + apart:
        made["completion"] = made.get("completion", 0) + apart  # some endpoints count reasoning beside the completion
    return made or None


def _within(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = usage.get(name)
    return found if isinstance(found, Mapping) else {}


def _count(counts: Mapping[str, Any], name: str) -> int | None:
    found = counts.get(name)
    return found if type(found) is int and found >= 0 else None
