"""Every side of a comparison takes the same steps: their losses agree on a tiny model, from the first step to the last.

Step 1 is at the base model for all; later steps agree only if adapter, optimizer, clipping and batches do.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench.data import world
from benchmarks import by_hand, material, ours, training, with_trl
from benchmarks.run_by_run import Work

SOURCE = {"source": "random", "dtype": "float32"}
STEPS = 3

pytestmark = pytest.mark.filterwarnings("ignore")  # of TRL's own


class Recorder:
    """Stand where the parent is: every turn comes at once."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.results: list[dict[str, Any]] = []

    def ready(self, facts: dict[str, Any]) -> None:
        self.facts = facts

    def wait(self) -> None:
        """Come at once."""

    def done(self, result: dict[str, Any]) -> None:
        self.results.append(result)

    @property
    def losses(self) -> list[float]:
        return [sum(one["losses"].values()) for one in self.results]


@pytest.fixture
def suite(tmp_path: Path) -> dict[str, Any]:
    """Write pairs and rows of the built-in world, and return a suite of 3 steps on them."""
    pairs = [json.dumps(vars(row)) for row in world.preference_rows("train", 14)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(pairs), encoding="utf-8")
    rows = [
        json.dumps({"instruction": row.prompt, "output": row.answer}) for row in world.instruction_rows("train", 26)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    made = material.suite(tmp_path, "float32", 12, 24, training={"steps": STEPS, "evaluate_every": 2})
    return made | {"model": SOURCE}


def our_side(suite: dict[str, Any], folder: Path, job: str) -> Recorder:
    recorder: Any = Recorder()
    ours.steps(recorder, suite, str(folder), job)
    return recorder


def order(recorder: Recorder, objective: str) -> tuple[list[int], list[dict[str, Any]]]:
    rows = [row for batch in recorder.facts["batches"][objective][:STEPS] for row in batch]
    return rows, [recorder.facts["examples"][objective][row] for row in rows]


def test_a_dpo_step_is_the_same_work_on_every_side(suite: dict[str, Any], tmp_path: Path) -> None:
    """The first loss is log 2: policy and reference are the base model."""
    mine = our_side(suite, tmp_path / "ours", "dpo-optimum")
    rows, examples = order(mine, "dpo")
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    trl: Any = Recorder()
    with_trl.dpo(trl, SOURCE, [pairs[row] for row in rows], training.DPO_BATCH, str(tmp_path / "trl"), True)
    authors: Any = Recorder()
    by_hand.authors_way(authors, SOURCE, examples, training.DPO_BATCH)
    assert mine.losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert len(mine.losses) == STEPS
    assert authors.losses == pytest.approx(mine.losses, abs=1e-4)
    assert trl.losses == pytest.approx(mine.losses, abs=1e-3)
    assert training.same_losses({"ours": mine.results, "TRL": trl.results}, "TRL", "float32") < 1e-3


def test_an_sft_step_is_the_same_work_on_both_sides(suite: dict[str, Any], tmp_path: Path) -> None:
    mine = our_side(suite, tmp_path / "ours", "sft-optimum")
    _, examples = order(mine, "sft")
    trl: Any = Recorder()
    rows = [training.for_trl(one) for one in examples]
    with_trl.sft(trl, SOURCE, rows, training.SFT_BATCH, str(tmp_path / "trl"))
    assert len(mine.losses) == STEPS
    assert trl.losses == pytest.approx(mine.losses, abs=1e-3)


def test_other_work_is_refused() -> None:
    taken = {"ours": [{"losses": {"dpo": 0.69}}], "TRL": [{"losses": {"": 0.71}}]}
    with pytest.raises(training.RowFailed, match=r"differ by 0\.02"):
        training.same_losses(taken, "TRL", "float32")


@pytest.mark.parametrize("kind", ["sft", "dpo", "sequential", "mix", "alright", "maxright"])
def test_every_run_by_hand_evaluates_where_ours_does(
    suite: dict[str, Any], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3 steps, every second, on training rows too where the run starts and ends; phases of 1 and 2 steps likewise."""
    both_splits: list[bool] = []
    once = Work.evaluation

    def counted(self: Work, reference: Any = None) -> Any:
        evaluate = once(self, reference)
        return lambda model, both: (both_splits.append(both), evaluate(model, both))

    monkeypatch.setattr(Work, "evaluation", counted)
    work = Work(suite, str(tmp_path / kind))
    alone = {"sft": work.sft, "dpo": work.dpo, "sequential": work.sequential}
    seconds = alone[kind]() if kind in alone else work.joint(kind, {"dpo": 0.6, "sft": 1.0})
    assert both_splits == [True, False, True]
    assert seconds > 0
    assert (tmp_path / kind / "adapter" / "adapter_model.safetensors").exists()


class Enough(Exception):
    """End a side that would go on."""


def test_the_bare_loop_takes_the_harness_steps(suite: dict[str, Any], tmp_path: Path) -> None:
    """Same batches, same losses of both objectives, step by step."""
    suite |= {"methods": [{"name": "mix", "backward": "accumulate"}]}
    mine = our_side(suite, tmp_path / "ours", "mix")

    class Bounded(Recorder):
        def wait(self) -> None:
            if len(self.results) == STEPS:
                raise Enough

    bare: Any = Bounded()
    with pytest.raises(RuntimeError, match="Enough"):  # a job that breaks says how
        ours.bare_loop(bare, suite, str(tmp_path / "bare"), "mix")
    assert bare.facts == mine.facts
    for one, other in zip(bare.results, mine.results, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], abs=1e-6)


def test_evaluations_along_a_run_are_clocked_by_split(suite: dict[str, Any], tmp_path: Path) -> None:
    """3 steps, evaluated every second: at 0, 2 and 3 on held-out rows, at 0 and 3 on training rows too."""
    recorder: Any = Recorder()
    made = ours.trajectory(recorder, suite, str(tmp_path / "ours"), str(tmp_path), ["mix"])
    ((name, run),) = made.items()
    assert name.startswith("mix-l0.5-s0")
    assert run["evaluations"] == {"held_out": 3, "train": 2}
    assert run["seconds"]["held_out"] > 0
    assert run["training_seconds"] > 0


def test_jobs_are_run_and_told_by_id(suite: dict[str, Any], tmp_path: Path) -> None:
    recorder: Any = Recorder()
    made = ours.run_jobs(recorder, suite, str(tmp_path / "ours"), ["mix-l"], again=True)
    ((name, run),) = made.items()
    assert name.startswith("mix-l0.5-s0")
    assert run["measurements"]["peak_memory_bytes"]["value"] > 2**20
