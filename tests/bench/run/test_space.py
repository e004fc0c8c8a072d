"""How much room a run needs, from the shapes in a model's files, and what is said where there is less."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.errors import DiskFull
from bench.models.policy import load
from bench.plan import planner
from bench.run import space
from bench.settings import Lora, Model
from bench.suite.suite import Suite

TinySuite = Callable[..., Suite]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the untrained tiny model."""
    folder = tmp_path_factory.mktemp("base")
    load(Model(source="random"), torch.device("cpu")).model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("variant", ["lora", "dora"])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("all-linear",), ("nothing",)])
def test_an_adapter_is_counted_as_peft_makes_it(base: Path, targets: tuple[str, ...], variant: Any) -> None:
    model, lora = Model(source="local", path=str(base)), Lora(rank=3, alpha=6, targets=targets, variant=variant)
    found = space.adapter_parameters(model, lora)
    if targets == ("nothing",):
        assert found is None
        return
    policy = load(Model(source="random"), torch.device("cpu"))
    policy.attach(lora, seed=0)
    assert found == sum(one.numel() for one in policy.trainable().values())


def test_a_model_whose_files_are_not_here_is_not_guessed(tiny: TinySuite, tmp_path: Path) -> None:
    plan = planner.make(tiny())
    size, left_out = space.needed(plan, tmp_path, plan.jobs, 1)
    assert (
        size > 0
        and left_out == "without adapters and checkpoints: the model's shapes are not known before it is loaded"
    )


def test_what_is_left_to_do_is_what_counts(tiny: TinySuite, base: Path, tmp_path: Path) -> None:
    """A training job leaves its adapter; a running one has two checkpoints, each three times as large."""
    shutil.copyfile(base / "config.json", base / "tokenizer_config.json")
    plan = planner.make(tiny(model={"source": "local", "path": str(base)}, cost="off"))
    adapter = 4 * (space.adapter_parameters(plan.suite.model, plan.suite.lora) or 0)  # type: ignore[union-attr]
    mix = [one for one in plan.jobs if one.startswith("mix")]
    (size, _), (more, _) = (space.needed(plan, tmp_path, mix, workers) for workers in (1, 8))
    assert size == more == space._JOB + 6 * space._STEP + adapter + 2 * 3 * adapter
    assert space.needed(plan, tmp_path, [], 1) == (0, "")


@pytest.mark.parametrize(("dtype", "bytes_of_one"), [("float32", 4), ("bfloat16", 2)])
def test_a_whole_model_is_counted_in_its_own_type_and_its_checkpoints_in_float32(
    tiny: TinySuite, base: Path, tmp_path: Path, dtype: str, bytes_of_one: int
) -> None:
    """A checkpoint holds the weights and AdamW's two moments; two of the one running job are there at a time."""
    shutil.copyfile(base / "config.json", base / "tokenizer_config.json")
    model = {"source": "local", "path": str(base), "tuning": "full", "dtype": dtype}
    plan = planner.make(tiny(model=model, cost="off"))
    parameters = sum(one.numel() for one in load(Model(source="random"), torch.device("cpu")).model.parameters())
    mix = [one for one in plan.jobs if one.startswith("mix")]
    size, left_out = space.needed(plan, tmp_path, mix, 1)
    assert size == space._JOB + 6 * space._STEP + bytes_of_one * parameters + 2 * 3 * 4 * parameters
    assert left_out == ""


def test_pissa_leaves_twice_the_rank_and_checkpoints_of_one(tiny: TinySuite, base: Path, tmp_path: Path) -> None:
    shutil.copyfile(base / "config.json", base / "tokenizer_config.json")
    lora = {"rank": 2, "alpha": 4, "targets": ["q_proj"], "init": "pissa"}
    plan = planner.make(tiny(model={"source": "local", "path": str(base)}, cost="off", lora=lora))
    adapter = 4 * (space.adapter_parameters(plan.suite.model, plan.suite.lora) or 0)  # type: ignore[union-attr]
    size, _ = space.needed(plan, tmp_path, [one for one in plan.jobs if one.startswith("mix")], 1)
    assert size == space._JOB + 6 * space._STEP + 2 * adapter + 2 * 3 * adapter


def test_too_little_room_is_one_line_before_anything_is_trained(
    tiny: TinySuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planner.make(tiny())
    monkeypatch.setattr(space.shutil, "disk_usage", lambda place: SimpleNamespace(free=5_000))
    with pytest.raises(
        DiskFull, match=rf"^{tmp_path}/s: needs about [0-9.]+ kB, 5.0 kB are free; make room, or give ano"
    ):
        space.check(plan, tmp_path / "s", plan.jobs, 1)
    said = str(space.full(tmp_path / "s", 3_000_000_000))
    assert said.endswith(
        "the disk is full, 5.0 kB free; what is left to do needs about 3.0 GB: make room, then the same command goes on"
    )


def test_a_disk_that_cannot_be_asked_refuses_nothing(
    tiny: TinySuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(place: Path) -> Any:
        raise OSError("no such device")

    monkeypatch.setattr(space.shutil, "disk_usage", refuse)
    plan = planner.make(tiny())
    space.check(plan, tmp_path, plan.jobs, 1)


@pytest.mark.parametrize(
    ("size", "words"), [(12, "12 bytes"), (1_500, "1.5 kB"), (2_340_000, "2.3 MB"), (4 * 10**12, "4,000.0 GB")]
)
def test_sizes_for_people(size: int, words: str) -> None:
    assert space.in_words(size) == words
