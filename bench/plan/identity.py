"""What a job's hash is made of: canonical settings, and the content of models and files instead of their paths."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from bench.registry import Origin
from bench.settings import Training, TrainingParts
from bench.suite.suite import Suite

# Raise when a change to the code alters numbers: every job is then a new one.
SEMANTICS = 2


# No suite can hold it. In the order of keys it stands where `front_1` and so on do.
FRONT = "front\0"


def content_hash(value: Any, front: str | None = None) -> str:
    """Hash JSON values; equal content gives equal hashes whatever the order of keys.

    Args:
        value: what is hashed.
        front: what `as_json` makes of a mapping of thousands of jobs that many jobs have in common. Its members are hashed
            in place of the member `FRONT`, as if they stood there, without being written anew for each of these jobs.
    """
    text = as_json(value)
    if front is not None:
        text = text.replace(as_json({FRONT: None})[1:-1], front[1:-1])
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def as_json(value: Any) -> str:
    """Write JSON values in the one way that hashes are made of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def plugins(origins: Iterable[Origin | None]) -> tuple[dict[str, str], ...]:
    """Return whose code decides a job's numbers besides ours, each package once; None is ours, which adds nothing."""
    found = {origin.distribution: origin.as_dict() for origin in origins if origin}
    return tuple(found[name] for name in sorted(found))


def data_settings(suite: Suite) -> dict[str, Any]:
    """Return the data settings that decide numbers; the content stands in the job's data identities instead of paths."""
    settings = suite.data.model_dump(mode="json", exclude={"bad_rows"})  # where it matters, one way has no numbers
    for source in ("preference", "instruction"):
        for name in ("source", "path", "revision"):
            settings[source].pop(name)
    return settings


def training_settings(settings: Training) -> dict[str, Any]:
    """Return what decides the steps of a training job; not its length, which stands beside it.

    A setting younger than the first records is left out at its default, so that their ids stay what they were.
    """
    # On how many devices it is computed, and in which order sums are made, changes its numbers by rounding only.
    left_out = {"epochs", "steps", "budget", "checkpoint_every", "stopping", "devices", "shard", "deterministic"}
    made = settings.model_dump(mode="json", exclude=left_out)
    for name in ("group_by_length", "model_dropout"):
        if not made[name]:
            del made[name]
    return made


def tuning_settings(suite: TrainingParts) -> dict[str, Any]:
    """Return what is trained: the adapter's settings, younger ones where they are not at their default; or all weights."""
    if suite.adapter is None:
        return {"tuning": "full"}
    made = suite.adapter.model_dump(mode="json")
    for name, default in (("variant", "lora"), ("init", "default")):
        if made[name] == default:
            del made[name]
    return {"lora": made}


def settings_of(suite: Suite, data: tuple[str, ...]) -> dict[str, Any]:
    """Return what decides the token ids of the data sets that an evaluation reads; nothing for one that reads none."""
    if not data:
        return {}
    return {"data": preference_settings(suite) if data == ("preference",) else data_settings(suite)}


def preference_settings(suite: Suite) -> dict[str, Any]:
    """Return those of them that decide the preference pairs' token ids."""
    settings = data_settings(suite)
    return {name: settings[name] for name in ("preference", "max_prompt_tokens", "max_answer_tokens")}
