"""lm-eval's tasks, groups and tags by name. Its own index takes seconds to read, so it is kept on disk by version.

Imports lm-eval only where the kept index is missing; never torch.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.errors import InputError, SuiteError
from bench.records import record
from bench.records.cache import cache_folder

WORLD = "world_questions"
_MMLU_FEWEST = 100  # questions of its smallest subjects
_KEYED = re.compile(r"""^["']?(task|tag)["']?: *["']?(\w+)["']? *$""", re.MULTILINE)
_NAME = re.compile(r"""^["']?(?:task|group|tag)["']?: *["']?(\w+)["']? *$""", re.MULTILINE)


def lm_eval_version() -> str:
    """Return the installed lm-eval's version, without importing it."""
    return version("lm_eval")


def tasks_folder() -> Path:
    """Return the folder of lm-eval's task files, without importing lm-eval."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "tasks"


def mmlu_folder() -> Path:
    """Return the folder of MMLU's own task files."""
    return tasks_folder() / "mmlu" / "default"


@lru_cache
def mmlu_names() -> frozenset[str]:
    """List what MMLU's own files define: mmlu, its four groups, their tags, 57 subjects."""
    files = mmlu_folder().glob("*.yaml")
    return frozenset(name for file in files for name in _NAME.findall(file.read_text(encoding="utf-8")))


def count_of(name: str, limit: int | None) -> int | None:
    """Count a task's questions as far as files tell: the world's, and with a limit those of MMLU's subjects; else None."""
    if name == WORLD:
        from bench.data import world

        counts = Counter(row["subject"] for row in world.questions("test")).values()
        return sum(count if limit is None else min(limit, count) for count in counts)
    if limit is None or name not in mmlu_names():  # each subject of MMLU has 100 questions or more
        return None
    subjects = _mmlu_subjects().get(name, 0)
    return subjects * limit if subjects and limit <= _MMLU_FEWEST else None


@lru_cache
def _mmlu_subjects() -> Counter[str]:
    """Count the subjects below each of MMLU's names: a subject's own, its group's, mmlu's."""
    found: Counter[str] = Counter()
    for file in mmlu_folder().glob("mmlu_*.yaml"):
        subject = dict(_KEYED.findall(file.read_text(encoding="utf-8")))
        if "task" in subject and "tag" in subject:
            tag = subject["tag"]
            found.update({subject["task"], tag, tag.removesuffix("_tasks"), "mmlu"})
    return found


def needs_index(name: str) -> bool:
    """Say whether only lm-eval's whole index can tell if a task exists."""
    return name != WORLD and name not in mmlu_names()


def unknown(name: str, known: Iterable[str]) -> SuiteError:
    """Return the error for a task that lm-eval does not know, with the nearest names."""
    near = difflib.get_close_matches(name, [WORLD, *known], n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "'lm-eval ls tasks' lists what it knows"
    return SuiteError(f"evaluation.lm_eval.tasks: lm-eval {lm_eval_version()} knows no task {name!r}; {hint}")


def entries(tell: Callable[[str], None] = lambda text: None) -> dict[str, dict[str, Any]]:
    """Return lm-eval's index: name -> {kind, file (below the tasks folder, or null), tags}.

    Args:
        tell: hears that reading takes a while, the first time.
    """
    folder = tasks_folder()
    # Somebody's own tasks are new folders beside the shipped ones: the folder's date changes with them.
    kept = cache_folder() / f"lm-eval-{lm_eval_version()}-{int(folder.stat().st_mtime)}.json"
    try:
        found: dict[str, dict[str, Any]] = record.read_json(kept)
        return found
    except InputError:  # not there yet, or cut off
        tell("reading lm-eval's index of tasks, about ten seconds, once per version")
    made = _read(folder)
    with contextlib.suppress(OSError):  # a home that cannot be written to: read again next time
        record.write_json(kept, made)
    return made


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    from lm_eval.tasks import TaskManager

    from bench.quiet import quiet

    with quiet("lm_eval"):
        index = TaskManager().task_index
    return {
        name: {
            "kind": entry.kind.name,
            "file": str(entry.yaml_path.relative_to(folder)) if entry.yaml_path else None,
            "tags": sorted(entry.tags),
        }
        for name, entry in index.items()
    }


def manager() -> Any:
    """Return lm-eval's TaskManager over the whole index, from what is kept on disk."""
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Entry, Kind

    made, folder = TaskManager(include_defaults=False), tasks_folder()
    for name, entry in entries().items():
        file = folder / entry["file"] if entry["file"] else None
        made.task_index[name] = Entry(name, Kind[entry["kind"]], file, tags=set(entry["tags"]))
    return made
