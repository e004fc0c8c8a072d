"""lm-eval's task objects: from the hub or an offline mirror, built once per process, their requests kept between policies.

The task files are lm-eval's own; only where their data is read can change. The built-in world's questions are one more
task of the same kind. lm-eval's request and answer caches stay off: the latter's key does not name the model.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.data import sources
from bench.errors import DataError, SuiteError
from bench.evaluators import lm_eval_index
from bench.evaluators.lm_eval_index import WORLD
from bench.quiet import quiet
from bench.settings import DataSource

WORLD_ID = "world_id"
# A task whose path is one of these reads files that its own settings name.
_FORMATS = ("json", "csv", "parquet", "text", "arrow")

Tasks = Mapping[str, Any]


@cache  # without a bound: a suite may name each of MMLU's 57 subjects, and every policy is asked all of them
def load(name: str, shots: int, limit: int | None, mirror: Path | None) -> Tasks:
    """Build a task, or a group or tag of tasks: lm-eval's {"tasks", "groups", "group_map"}.

    Args:
        name: one that lm-eval knows, or `world_questions`.
        shots: solved examples before a question; a task that fixes 0 keeps them, as in lm-eval itself.
        limit: questions per subject, of the world only.
        mirror: an offline mirror of the hub.

    Raises:
        DataError: the questions cannot be reached.
        SuiteError: lm-eval knows no such task.
    """
    with quiet("lm_eval", "datasets", "huggingface_hub"), TemporaryDirectory() as folder, _data_from(mirror, name):
        manager = _manager(name, Path(folder), limit)
        if name not in manager.task_index:
            raise lm_eval_index.unknown(name, manager.task_index)
        loaded: Tasks = manager.load(name)
        for task in loaded["tasks"].values():
            if task.config.num_fewshot != 0:
                task.set_config("num_fewshot", shots)
    return loaded


def check_needs(name: str, shots: int, mirror: Path | None) -> None:
    """Load a task as a run will, to see that its data and what its own code needs are there.

    Raises:
        SuiteError: a package or data of a package that the task's code uses is missing.
        DataError: the questions cannot be reached.
    """
    key = f"evaluation.lm_eval.tasks: {name}"
    try:
        load(name, shots, None, mirror)
    except ImportError as error:
        missing = error.name or str(error)
        raise SuiteError(
            f"{key} needs the package {missing!r}, which is not installed: pip install {missing}"
        ) from None
    # Tasks that split text into sentences fetch NLTK's data when they are imported, and go on without where they cannot.
    uses_nltk = any(hasattr(module, "download_nltk_resources") for module in _task_modules())
    if uses_nltk and not _nltk_has("tokenizers/punkt_tab"):
        raise SuiteError(
            f"{key} needs NLTK's data 'punkt_tab', which is not here: python -m nltk.downloader punkt_tab, or set NLTK_DATA to a "
            "folder that has tokenizers/punkt_tab"
        )


def _task_modules() -> list[Any]:
    return [module for name, module in tuple(sys.modules.items()) if name.startswith("lm_eval.tasks.")]


def _nltk_has(resource: str) -> bool:
    import nltk

    try:
        nltk.data.find(resource)
    except LookupError:
        return False
    return True


def _manager(name: str, folder: Path, limit: int | None) -> Any:
    if lm_eval_index.needs_index(name):
        return lm_eval_index.manager()
    if name != WORLD:
        return _manager_of(lm_eval_index.mmlu_folder())
    _write_world(folder, limit)
    return _manager_of.__wrapped__(folder)


@cache
def _manager_of(folder: Path) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=False, include_path=str(folder))


@contextmanager
def _data_from(mirror: Path | None, name: str) -> Iterator[None]:
    """Let lm-eval read data sets from the mirror; what cannot be reached is an error that says what to do."""
    import datasets

    stock = datasets.load_dataset

    def load_dataset(path: str, *names: Any, **settings: Any) -> Any:
        source = DataSource(source="hub", path=path, rows=1)
        here = None if path in _FORMATS or Path(path).exists() else sources.locate(source, mirror)
        try:
            return stock(str(here or path), *names, **settings)
        except (OSError, ConnectionError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise DataError(
                f"the questions of {name!r} cannot be reached: the hub is offline and no mirror holds them; go online, "
                f"or pass --mirror DIR (or BENCH_MIRROR) with DIR/datasets/{path} ({first})"
            ) from error

    datasets.load_dataset = load_dataset
    try:
        yield
    finally:
        datasets.load_dataset = stock


@contextmanager
def keep_requests(tasks: Iterable[Any], key: tuple[Any, ...]) -> Iterator[None]:
    """Let tasks ask again what they asked under an equal `key`: building requests costs more than a small model's answers."""
    tasks = list(tasks)
    for task in tasks:
        kept = getattr(task, "bench_requests", None)
        if kept and kept[0] == key:
            for request in kept[1]:
                request.resps, request.filtered_resps = [], {}
            task._instances = kept[1]
            task.build_all_requests = lambda **settings: None
    try:
        yield
        for task in tasks:
            task.bench_requests = (key, task.instances)
    finally:
        for task in tasks:
            task.__dict__.pop("build_all_requests", None)


def data_identity(task: Any, mirror: Path | None) -> str:
    """Name the data a task was read from: the world's version, a hub id with its commit, or sha256 of the mirror's files."""
    from bench.data.world import VERSION

    path = str(task.config.dataset_path or "")
    if task.config.task == WORLD:
        return f"world:{VERSION}"
    if path in _FORMATS or Path(path).exists() or not path:
        return "named by the task file"
    return _mirrored(path, mirror) if mirror else f"hub:{path}@{_commit(task)}"


@lru_cache
def _mirrored(path: str, mirror: Path) -> str:
    return sources.files_identity(DataSource(source="hub", path=path, rows=1), mirror)


def _commit(task: Any) -> str:
    """Find the hub's commit in the addresses that `datasets` keeps of what it read."""
    for split in task.dataset.values():
        for address in split.info.download_checksums or ():
            found = re.search(r"@([0-9a-f]{40})/", address)
            if found:
                return found[1]
    return "main"


def _write_world(folder: Path, limit: int | None) -> None:
    """Write the world's questions and their task file; `limit` is questions per subject."""
    import yaml

    from bench.data import world

    for split in ("dev", "test"):
        by_subject: dict[str, list[Any]] = defaultdict(list)
        for row in world.questions(split):
            by_subject[row["subject"]].append(row)
        numbers = itertools.count()  # over all questions, so that an id is the same whatever the limit
        numbered = [[row | {WORLD_ID: next(numbers)} for row in rows] for rows in by_subject.values()]
        kept = [row for rows in numbered for row in (rows if split == "dev" else rows[:limit])]
        lines = [json.dumps(row) + "\n" for row in kept]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    task = {
        "task": WORLD,
        "dataset_path": "json",
        # read into memory, as the folder does not outlive the loading
        "dataset_kwargs": {
            "data_files": {split: str(folder / f"{split}.jsonl") for split in ("dev", "test")},
            "cache_dir": str(folder / "cache"),
            "keep_in_memory": True,
        },
        "test_split": "test",
        "fewshot_split": "dev",
        "fewshot_config": {"sampler": "first_n"},
        "output_type": "multiple_choice",
        "doc_to_text": world.PROMPT.replace("{question}", "{{question}}"),
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": world.VERSION},
    }
    (folder / f"{WORLD}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
