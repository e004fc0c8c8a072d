from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.evaluators import lm_eval_index


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return tmp_path


def test_mmlu_and_the_world_are_known_without_the_index() -> None:
    """57 subjects, mmlu and its four groups, and the groups' four tags."""
    names = lm_eval_index.mmlu_names()
    assert len(names) == 57 + 5 + 4
    assert {"mmlu", "mmlu_stem", "mmlu_stem_tasks", "mmlu_anatomy"} <= names
    assert not lm_eval_index.needs_index("world_questions")
    assert not lm_eval_index.needs_index("mmlu_anatomy")
    assert lm_eval_index.needs_index("mmlu_anatmy")
    assert lm_eval_index.needs_index("hellaswag")


def test_the_index_is_read_once_and_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    told: list[str] = []

    def stand_in(folder: Path) -> dict[str, Any]:
        read.append(folder)
        return {"arc_easy": {"kind": "TASK", "file": "arc/arc_easy.yaml", "tags": []}}

    monkeypatch.setattr(lm_eval_index, "_read", stand_in)
    first = lm_eval_index.entries(told.append)
    assert lm_eval_index.entries(told.append) == first
    assert read == [lm_eval_index.tasks_folder()]
    assert told == ["reading lm-eval's index of tasks, about ten seconds, once per version"]
    (kept,) = cache.iterdir()
    assert lm_eval_index.lm_eval_version() in kept.name
    kept.write_text(kept.read_text()[:-9])
    assert lm_eval_index.entries(told.append) == first
    assert len(read) == 2


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "file").write_text("")
    monkeypatch.setenv("BENCH_CACHE", str(cache / "file"))
    monkeypatch.setattr(lm_eval_index, "_read", lambda folder: {"arc_easy": {}})
    assert lm_eval_index.entries() == {"arc_easy": {}}


@pytest.mark.slow
def test_the_kept_index_is_lm_evals_own(cache: Path) -> None:
    """Task, group and tag lead to the same files as in a TaskManager that has read everything itself."""
    from lm_eval.tasks import TaskManager

    own = TaskManager().task_index
    kept = lm_eval_index.manager().task_index
    assert list(kept) == list(own)
    for name in ("hellaswag", "mmlu", "ai2_arc", "mmlu_pro", "squadv2"):
        assert (kept[name].kind, kept[name].yaml_path, kept[name].tags) == (
            own[name].kind,
            own[name].yaml_path,
            own[name].tags,
        )
    assert lm_eval_index.mmlu_names() <= set(own)
    (file,) = cache.iterdir()
    assert len(json.loads(file.read_text())) == len(own)
