"""What a job's hash is made of: canonical settings, and the content of models and files instead of their paths."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bench.models.files import model_settings
from bench.settings import Judge, Training
from bench.suite.suite import Suite

# Raise when a change to the code alters numbers: every job is then a new one.
SEMANTICS = 1


def content_hash(value: Any) -> str:
    """Hash JSON values; equal content gives equal hashes whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def data_settings(suite: Suite) -> dict[str, Any]:
    """Return the data settings that decide numbers; the content stands in the job's data identities instead of paths."""
    settings = suite.data.model_dump(mode="json")
    for source in ("preference", "instruction"):
        for name in ("source", "path", "revision"):
            settings[source].pop(name)
    return settings


def training_settings(settings: Training) -> dict[str, Any]:
    """Return what decides the steps of a training job; not its length, which stands beside it.

    A setting younger than the first records is left out at its default, so that their ids stay what they were.
    """
    made = settings.model_dump(mode="json", exclude={"epochs", "steps", "budget", "checkpoint_every", "stopping"})
    if not settings.group_by_length:
        del made["group_by_length"]
    return made


def preference_settings(suite: Suite) -> dict[str, Any]:
    """Return those of them that decide the preference pairs' token ids."""
    settings = data_settings(suite)
    return {name: settings[name] for name in ("preference", "max_prompt_tokens", "max_answer_tokens")}


# What a judge is asked with decides its replies; how fast, how patiently and for how much money does not.
_NO_PART_OF_A_JUDGE = {
    *("key_variable", "concurrency", "timeout_seconds", "first_pause_seconds"),
    *("max_unjudged_share", "max_cost_usd", "price", "local_model", "journal"),
}


def judge_settings(judge: Judge) -> dict[str, Any]:
    """Return what decides a judge's replies: of a replayed judging, the content of its journal.

    Raises:
        ModelError: a local model is not there.
        InputError: a journal is not there.
    """
    settings = judge.model_dump(mode="json", exclude=_NO_PART_OF_A_JUDGE)
    if judge.local_model:
        settings["local_model"] = model_settings(judge.local_model)
    if judge.kind == "replay" and judge.journal:
        from bench.judges.replay import content_hash as journal_hash

        settings["journal"] = journal_hash(Path(judge.journal).expanduser())
    return settings
