"""Say what of a model the runs trained, and which of them were resumed so that their bits may differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_VARIANTS = {"lora": "LoRA", "dora": "DoRA", "rslora": "rsLoRA"}


def what(settings: Mapping[str, Any]) -> str:
    """Name what is trained, from the settings of a job; "–" where they do not say."""
    if settings.get("tuning") == "full":
        return "all weights"
    lora = settings.get("lora")
    if not isinstance(lora, Mapping):
        return "–"
    kind = _VARIANTS.get(str(lora.get("variant", "lora")), str(lora.get("variant")))
    begun = f", begun by {lora['init']}" if lora.get("init", "default") != "default" else ""
    return f"{kind} adapter, rank {lora.get('rank', '?')}, alpha {lora.get('alpha', '?')}{begun}"


def as_read(suite: Mapping[str, Any]) -> dict[str, Any]:
    """Return a suite's settings without those that it does not read: an adapter's, where all weights are trained."""
    full = (suite.get("model") or {}).get("tuning") == "full"
    return {name: value for name, value in suite.items() if not (full and name == "lora")}


def resumed(statuses: Iterable[Mapping[str, Any]]) -> str:
    """Count the runs that went on from a checkpoint without the promise of equal bits, with why; "" for none."""
    every = list(statuses)
    apart = [[one for one in status.get("resumed", ()) if not one["bit_equal"]] for status in every]
    found = [one for one in apart if one]
    if not found:
        return ""
    reasons = list(dict.fromkeys(one["reason"] for run in found for one in run))
    widest = max((one["loss_tolerance"] for run in found for one in run), key=lambda one: float(one["value"]))
    return (
        f"{len(found)} of {len(every)} runs went on from a checkpoint without the promise of equal bits: {'; '.join(reasons)}; "
        f"losses may differ by {widest['value']:g} {widest['unit']} ({widest['basis']}, not measured)"
    )
