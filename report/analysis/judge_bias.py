"""What a judge's preference hangs on beside the answers' worth: their place, their length, and whose family wrote them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from report.analysis.judges import DRAW, WIN, PairKey, Share, Verdict, mean


@dataclass(frozen=True)
class Bias:
    """What a judge's preference hangs on beside the answers' worth, over every pair that it judged.

    Attributes:
        rate: mean preference for the policies' answers, 0 to 1; of the policies, not of one recipe.
        first: how much more than half of the preference falls to the answer shown first; NaN where pairs were shown once.
        flips: share of the pairs whose winner changes with the order.
        longer: share in which the longer answer won, of the pairs with a winner and unequal lengths.
        decided: how many those are.
        ours_longer: share of these in which the policy's answer is the longer one.
    """

    judge: str
    policies: int
    pairs: int
    prompts: int
    rate: Share
    first: Share
    flips: float
    longer: Share
    decided: int
    ours_longer: float


def bias(judge: str, found: Mapping[PairKey, Verdict]) -> Bias:
    """Sum up what one judge said of every pair that it judged."""
    nan = math.nan
    prompts = {prompt for _, prompt in found}
    won = {
        pair: float((one.decision == WIN) == (one.longer > 0))
        for pair, one in found.items()
        if one.longer and one.decision != DRAW
    }
    flipped = [one.flips for one in found.values() if one.first is not None]
    return Bias(
        judge,
        len({policy for policy, _ in found}),
        len(found),
        len(prompts),
        mean({pair: one.preference for pair, one in found.items()}),
        mean({pair: one.first - 0.5 for pair, one in found.items() if one.first is not None}),
        sum(flipped) / len(flipped) if flipped else nan,
        mean(won),
        len(won),
        sum((found[pair].longer or 0) > 0 for pair in won) / len(won) if won else nan,
    )


def against(found: Mapping[PairKey, Verdict], other: Mapping[PairKey, Verdict]) -> tuple[Share, int]:
    """Return how much more a judge prefers the policies' answers than another on the same pairs, and how many these are."""
    apart = {pair: one.preference - other[pair].preference for pair, one in found.items() if pair in other}
    return mean(apart), len(apart)


# ---- self-preference -------------------------------------------------------------------------------------------------

# Of a model's name: what is no family
_SIZES = re.compile(r"a?[\d.]+(x[\d.]+)?[bmk]?|v\d.*")
_COMMON = {
    *(
        "base",
        "chat",
        "instruct",
        "it",
        "hf",
        "model",
        "models",
        "tiny",
        "small",
        "mini",
        "nano",
        "large",
        "medium",
        "turbo",
    ),
    *("meta", "local", "random", "sft", "dpo", "preview", "the", "gguf", "awq", "gptq", "fp8", "int4", "int8", "open"),
}
_BETWEEN = re.compile(r"(?:[^a-z0-9.]|\.(?!\d)|(?<!\d)\.)+")
_ONE_WORD = re.compile(r"(?<=gpt)[-_](?=neo|j\b)|(?<=neo)[-_](?=x)")


def families(name: str) -> set[str]:
    """Return the words of a model's name that tell its family: `SmolLM2-135M-Instruct` gives {"smollm"}."""
    last = _ONE_WORD.sub("", name.lower().rsplit("/", 1)[-1])
    words = (word for word in _BETWEEN.split(last) if word and not _SIZES.fullmatch(word))
    plain = (re.sub(r"[\d.]+$", "", word) for word in words)
    return {word for word in plain if len(word) > 1 and word not in _COMMON}


def kinship(judge: str, settings: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """Say what a judge and the policies' base have in common; "" where nothing tells that they do.

    Args:
        judge: its name.
        settings: of a judging.
        model: the suite's base model.
    """
    source, path = str(model.get("source") or ""), str(model.get("path") or "")
    local = settings.get("local_model") or {}
    if local and local.get("source") == source and str(local.get("path") or "") == path:
        return "is the policies' own base model"
    asked = str(local.get("path") or settings.get("model") or judge)
    shared = sorted((families(asked) | families(judge)) & families(path))
    return f"shares the name {shared[0]!r} with the policies' base" if shared else ""
