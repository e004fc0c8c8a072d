"""litellm's price map, where the extra `litellm` is installed: for models that `prices.yaml` does not know.

The file that the package brings is read; the package itself is not imported, which takes seconds and would look for a newer
map on the network.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

_FILE = "model_prices_and_context_window_backup.json"
# Whose prices an endpoint asks, by its host; no other host's are known, whatever its models are called
_PROVIDERS = {
    "api.openai.com": "openai",
    "openrouter.ai": "openrouter",
    "api.anthropic.com": "anthropic",
    "api.mistral.ai": "mistral",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.x.ai": "xai",
    "api.together.xyz": "together_ai",
    "api.fireworks.ai": "fireworks_ai",
    "generativelanguage.googleapis.com": "gemini",
}
_PER = 1e6


def find(host: str, model: str) -> tuple[dict[str, Any], str] | None:
    """Return what a model costs at an endpoint, and where that stands; None where it is not known or litellm not there.

    Returns:
        `input`, `output` and, where they are known, `cached_input` and `cache_write` in US dollars a million tokens;
        `batch_factor`: what a batch costs of that.
    """
    provider = "azure" if host.endswith(".openai.azure.com") else _PROVIDERS.get(host)
    prices, version = _read()
    if provider is None:
        return None
    for name in (f"{provider}/{model}", model):
        entry = prices.get(name)
        if isinstance(entry, dict) and entry.get("litellm_provider") == provider and (made := _of(entry)):
            return made, f"the price map of litellm {version}"
    return None


def _of(entry: dict[str, Any]) -> dict[str, Any] | None:
    paid_in, paid_out = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
    if paid_in is None or paid_out is None or not _is_price(paid_in) or not _is_price(paid_out):
        return None
    made: dict[str, Any] = {"input": paid_in * _PER, "output": paid_out * _PER}
    for ours, theirs in (
        ("cached_input", "cache_read_input_token_cost"),
        ("cache_write", "cache_creation_input_token_cost"),
    ):
        if _is_price(entry.get(theirs)):
            made[ours] = entry[theirs] * _PER
    batch = [
        entry[f"{one}_cost_per_token_batches"] / entry[f"{one}_cost_per_token"]
        for one in ("input", "output")
        if _is_price(entry.get(f"{one}_cost_per_token_batches")) and entry[f"{one}_cost_per_token"]
    ]
    made |= {"batch_factor": min(1.0, max(batch))} if len(batch) == 2 else {}
    return {name: round(value, 9) for name, value in made.items()}


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


@lru_cache
def _read() -> tuple[dict[str, Any], str]:
    """Return the installed package's map and its version; empty where there is none."""
    found = util.find_spec("litellm")  # imports nothing
    for folder in (found.submodule_search_locations or ()) if found else ():
        try:
            prices = json.loads((Path(folder) / _FILE).read_text(encoding="utf-8"))
            return (prices if isinstance(prices, dict) else {}), metadata.version("litellm")
        except (OSError, ValueError, metadata.PackageNotFoundError):  # another layout, or a broken installation
            continue
    return {}, ""
