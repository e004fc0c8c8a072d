from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.data.sources import files_hash
from bench.errors import DataError, SuiteError
from bench.evaluators import lm_eval, lm_eval_index, lm_eval_tasks
from bench.evaluators.options import LmEval
from bench.models import policy as policies
from bench.models.policy import Policy
from bench.settings import Model

CONTINUATION = "mmlu_continuation_anatomy"


@pytest.fixture(scope="module")
def policy() -> Policy:
    return policies.load(Model(source="random"), torch.device("cpu"))


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for lm-eval's index, which takes seconds to read: one of its real task files, under a name of its own."""
    entry = {"kind": "TASK", "file": "mmlu/continuation/mmlu_anatomy.yaml", "tags": []}
    monkeypatch.setattr(lm_eval_index, "entries", lambda: {CONTINUATION: entry})
    lm_eval_tasks.load.cache_clear()


@pytest.mark.usefixtures("index")
def test_any_task_is_read_from_the_mirror(policy: Policy, mirror: Path) -> None:
    """A task from outside MMLU's own folder, whose choices are the answers' texts."""
    settings = LmEval(tasks=(CONTINUATION,), shots=1, limit=4)
    scores, rows, _ = lm_eval.ask(policy, settings, mirror, lambda text: None)
    (entry,) = (one for name, one in scores.items() if name.endswith("/acc"))
    assert entry["n"] == len(rows) == 4
    asked = lm_eval.facts(policy, settings, mirror, rows)["tasks"][CONTINUATION]
    assert asked["data"] == f"sha256:{files_hash(mirror / 'datasets' / 'cais' / 'mmlu')}"
    assert (asked["version"], asked["shots"], asked["questions"]) == ("1.0", 1, 4)


@pytest.mark.usefixtures("index")
def test_a_mirror_without_a_tasks_data_is_an_error(tmp_path: Path) -> None:
    import datasets

    stock = datasets.load_dataset
    with pytest.raises(DataError, match="cais/mmlu: not in the mirror"):
        lm_eval_tasks.load(CONTINUATION, 1, None, tmp_path)
    assert datasets.load_dataset is stock


@pytest.mark.usefixtures("index")
def test_a_task_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SuiteError, match=r"knows no task 'mmlu_continuation_anatmy'; did you mean"):
        lm_eval_tasks.load("mmlu_continuation_anatmy", 1, None, None)


def test_requests_are_built_once_for_equal_keys(policy: Policy) -> None:
    """What the first policy answered is gone from them; other limits are other requests."""
    (task,) = lm_eval_tasks.load(lm_eval.WORLD, 1, None, None)["tasks"].values()
    built: list[Any] = []
    settings = [LmEval(tasks=(lm_eval.WORLD,), shots=1), LmEval(tasks=(lm_eval.WORLD,), shots=1)]
    for one in settings:
        rows = lm_eval.ask(policy, one, None, lambda text: None)[1]
        built.append(task.instances)
        assert {len(request.resps) for request in task.instances} == {1}
    assert built[0] is built[1]
    assert "build_all_requests" not in vars(task)
    with lm_eval_tasks.keep_requests([task], (3, None)):
        task.build_all_requests(limit=3)
    assert len({request.doc_id for request in task.instances}) == 3
    assert lm_eval.ask(policy, settings[0], None, lambda text: None)[1] == rows


def test_the_hubs_commit_is_read_from_the_addresses_of_its_files() -> None:
    address = "hf://datasets/cais/mmlu@c30699e8356da336a370243923dbaf21066bb9fe/anatomy/test-00000-of-00001.parquet"

    def task(*addresses: str) -> Any:
        info = SimpleNamespace(download_checksums={address: {} for address in addresses})
        config = SimpleNamespace(task="mmlu_anatomy", dataset_path="cais/mmlu")
        return SimpleNamespace(config=config, dataset={"test": SimpleNamespace(info=info)})

    assert lm_eval_tasks.data_identity(task(address), None) == "hub:cais/mmlu@c30699e8356da336a370243923dbaf21066bb9fe"
    assert lm_eval_tasks.data_identity(task(), None) == "hub:cais/mmlu@main"
