"""How many devices a job is given where the suite leaves it open, by sizes derived by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.plan import planner
from bench.run import devices, space
from bench.run.local_pool import LocalPool
from bench.suite.suite import Evaluation, Suite

TinySuite = Callable[..., Suite]
GIB = 1 << 30


def suite(tiny: TinySuite, full: bool = False, dtype: str = "bfloat16", **training: Any) -> Suite:
    own = {"epochs": 2, "batch_size": {"dpo": 2, "sft": 4}, "learning_rate": 1e-3, "devices": "auto"}
    model = {"source": "random", "dtype": dtype, "tuning": "full" if full else "lora"}
    return tiny(model=model, training=own | training)


@pytest.fixture
def eight_billion(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of 8e9 weights with adapters of 1e8 numbers, on GPUs of 80 GiB: 85.9e9 bytes, 0.8 of which are 68.7e9."""
    monkeypatch.setattr(space, "parameters", lambda model: 8 * 10**9)
    monkeypatch.setattr(space, "adapter_parameters", lambda model, lora: 10**8)
    monkeypatch.setattr(devices, "_memory", lambda: 80 * GIB)


@pytest.mark.usefixtures("eight_billion")
@pytest.mark.parametrize(
    ("full", "dtype", "largest", "expected"),
    [
        (False, "bfloat16", 8, 1),  # 2 · 8e9 + 16 · 1e8 = 17.6e9
        (True, "bfloat16", 8, 4),  # 18 · 8e9 = 144e9: of two 72e9 each, of four 36e9
        (True, "float32", 8, 2),  # 16 · 8e9 = 128e9: of two 64e9 each
        (True, "bfloat16", 2, 2),  # no more are there
    ],
)
def test_as_many_devices_as_hold_what_is_trained(
    tiny: TinySuite, full: bool, dtype: str, largest: int, expected: int
) -> None:
    settings = suite(tiny, full, dtype)
    made = devices.settled(planner.make(settings), settings, largest)
    assert {job.resources.devices for job in made.jobs.values() if job.kind == "train"} == {expected}


@pytest.mark.usefixtures("eight_billion")
@pytest.mark.parametrize(
    ("memory", "devices_given", "expected"),
    [
        (80, "auto", 1),  # 2 · 8e9 = 16e9 of 68.7e9
        (12, "auto", 2),  # of 10.3e9
        (4, "auto", 8),  # of 3.4e9: of four 4e9 each
        (4, 3, 3),
    ],
)
def test_evaluations_take_as_many_devices_as_hold_the_weights(
    tiny: TinySuite, monkeypatch: pytest.MonkeyPatch, memory: int, devices_given: Any, expected: int
) -> None:
    """Whatever training takes: nothing is kept of each weight there but itself."""
    monkeypatch.setattr(devices, "_memory", lambda: memory * GIB)
    asked = {"devices": devices_given, "lm_eval": {"tasks": ["world_questions"]}}
    settings = suite(tiny, full=True, devices=1).model_copy(update={"evaluation": Evaluation.model_validate(asked)})
    made = devices.settled(planner.make(settings), settings, 8)
    taken = {job.kind: job.resources.devices for job in made.jobs.values()}
    assert (taken["lm_eval"], taken["train"]) == (expected, 1)
    in_parts = devices.shards(settings, "cuda:0", trains=False)
    assert in_parts == (memory < 80)
    assert devices.shards(settings, "cuda:0")


@pytest.mark.usefixtures("eight_billion")
def test_weights_are_in_parts_where_all_are_trained_or_one_device_has_no_room(
    tiny: TinySuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert devices.shards(suite(tiny, full=True), "cuda:0")
    assert not devices.shards(suite(tiny), "cuda:0")
    assert devices.shards(suite(tiny, shard=True), "cuda:0")
    assert not devices.shards(suite(tiny, full=True, shard=False), "cuda:0")
    monkeypatch.setattr(devices, "_memory", lambda: 20 * GIB)  # 17.2e9 of 0.8 of it, and 17.6e9 are needed
    assert devices.shards(suite(tiny), "cuda:0")
    assert not devices.shards(suite(tiny), "cpu")


def test_where_nothing_is_known_a_job_takes_one_device(tiny: TinySuite) -> None:
    settings = suite(tiny, full=True)
    made = devices.settled(planner.make(settings), settings, 8)
    assert {job.resources.devices for job in made.jobs.values() if job.kind == "train"} == {1}


def test_without_gpus_ranks_share_the_slots_there_are(tiny: TinySuite, tmp_path: Any) -> None:
    """Four processes on a pool of two workers take both; on a machine with GPUs each would need one."""
    pool = LocalPool(suite(tiny), tmp_path, size=2, threads=1, threads_alone=2)
    made = planner.make(suite(tiny, devices=4))
    pool.check([job for job in made.jobs.values() if job.kind == "train"])
    assert pool._slots(4) == 2
    pool._gpus = ["GPU-1", "GPU-2"]
    assert pool._slots(4) == 4
