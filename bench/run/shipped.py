"""What a suite changes of the shipped one of its name: what was said of that may not hold any more."""

from __future__ import annotations

from typing import Any

from bench.errors import BenchError
from bench.records.record import flat
from bench.suite import yaml_file
from bench.suite.suite import Experiment, suite_folder

# Words, how fast it goes and where it is kept: no figure changes with them. Branches of the hub are put as commits.
_NO_FIGURE = {"name", "description", "notes", "cost", "retries", "smoke", "tracker"}
_NO_FIGURE_LAST = {
    "checkpoint_every", "compile", "concurrency", "gradient_checkpointing", "max_retries",
    "micro_batch_size", "revision", "timeout_seconds",
}  # fmt: skip


def changes(suite: Experiment) -> dict[str, list[Any]] | None:
    """Return dotted key -> [as shipped, here]; None where no suite of this name is shipped."""
    name = suite.name.removesuffix("--smoke")
    if not (suite_folder() / f"{name}.yaml").exists():
        return None
    try:
        shipped = flat(yaml_file.load(name).model_dump(mode="json"))
    except BenchError:  # made with other code, which its file no longer fits
        return None
    here = flat(suite.model_dump(mode="json"))
    return {
        key: [shipped.get(key), here.get(key)]
        for key in [*here, *(key for key in shipped if key not in here)]
        if shipped.get(key) != here.get(key) and _matters(key)
    }


def _matters(key: str) -> bool:
    first, _, _ = key.partition(".")
    last = key.rpartition(".")[2]
    at_once = first == "evaluation" and last in ("batch_size", "devices")
    return first not in _NO_FIGURE and last not in _NO_FIGURE_LAST and not at_once
