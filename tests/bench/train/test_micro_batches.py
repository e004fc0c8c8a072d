"""Where a suite leaves micro-batches open and memory runs out, a step is taken again with fewer rows at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from other_methods import Mgda

from bench.methods import METHODS, Objective
from bench.models import held_out, memory, objectives
from bench.records import record
from bench.run import handlers
from bench.settings import PerObjective
from bench.suite.suite import Suite
from bench.train.losses import Losses, Part
from bench.train.micro_batches import MicroBatches

TinySuite = Callable[..., Suite]
BATCH = PerObjective(dpo=6, sft=15)
DROPOUT = {"rank": 2, "alpha": 4, "dropout": 0.2, "targets": ["q_proj", "v_proj"]}


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a way to let passes of training run out of memory above a number of rows, before or after their forward pass.

    With activations forgotten, as many rows fit as `forgetting` says.
    """
    real = Losses.of

    def set_room(after_forward: bool = False, forgetting: int = 0, **most: int) -> None:
        def of(self: Losses, part: Part) -> Any:
            fits = len(part.rows) <= most.get(part.objective, 99)
            fits = fits or (self._policy.checkpointing and len(part.rows) <= forgetting)
            made = real(self, part) if fits or after_forward else None
            if not fits:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return made

        monkeypatch.setattr(Losses, "of", of)

    return set_room


def test_sizes_are_halved_to_divisors_of_the_batch() -> None:
    """15 → 5, as 7, 6 divide it no more; 5 → 1; 24 → 12 → 6 → 3 → 1."""
    assert [memory.fewer(size) for size in (15, 5, 24, 12, 6, 3)] == [5, 1, 12, 6, 3, 1]
    made = MicroBatches(None, BATCH)
    assert made.shrink([Objective.SFT])
    assert made.sizes == {Objective.DPO: 6, Objective.SFT: 5}
    assert made.shrink(Objective)
    assert made.sizes == {Objective.DPO: 3, Objective.SFT: 1}
    assert not made.shrink([Objective.SFT])
    resumed = MicroBatches(None, BATCH)
    resumed.restore(made.state())
    assert resumed.sizes == made.sizes
    made.reset()
    assert made.sizes == {Objective.DPO: 6, Objective.SFT: 15}


def test_a_size_that_the_suite_gives_stays() -> None:
    made = MicroBatches(PerObjective(dpo=2, sft=5), BATCH)
    made.restore({"dpo": 1, "sft": 1})
    assert not made.shrink(Objective)
    assert made.sizes == {Objective.DPO: 2, Objective.SFT: 5}


@pytest.mark.parametrize("after_forward", [False, True])
@pytest.mark.parametrize(
    "method",
    ["alright", {"name": "maxright", "max_eval_every": 2}, "mix", {"name": "mix", "backward": "accumulate"}, "mgda"],
    ids=["alright", "maxright", "mix", "mix_accumulate", "mgda"],
)
def test_a_run_that_memory_cut_equals_one_cut_from_the_start(
    method: Any, after_forward: bool, tiny: TinySuite, run_plan: Any, room_for: Callable[..., None], offer: Any
) -> None:
    """Room for 2 of 4 SFT rows: after the DPO half of a Mix step went back, or a pass drew its dropout, all is made again.

    So no gradient is added twice, no random number or row is drawn twice, and no token counted twice.
    """
    offer(METHODS, "mgda", Mgda)  # takes both gradients before it chooses
    changes: dict[str, Any] = {"methods": [method], "lora": DROPOUT}
    name = method if isinstance(method, str) else method["name"]
    cut = tiny().training.model_dump() | {"micro_batch_size": {"dpo": 2, "sft": 2}}
    expected = run_plan(tiny(name="cut", training=cut, **changes)).run(name)
    room_for(after_forward, sft=2)
    made = run_plan(tiny(name="open", **changes)).run(name)
    counted = ("losses", "weights", "tokens", "probe_tokens", "padding_tokens")
    for one, other in zip(made.rows("steps"), expected.rows("steps"), strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-5)
        assert [one[key] for key in counted[1:]] == [other[key] for key in counted[1:]]
    assert made.measurements["rows_drawn/sft"] == expected.measurements["rows_drawn/sft"]
    assert made.scores["f_sft/held_out"]["value"] == pytest.approx(expected.scores["f_sft/held_out"]["value"], rel=1e-4)
    sizes = {objective: made.measurements[f"micro_batch_size/{objective}"]["value"] for objective in Objective}
    assert sizes == {Objective.DPO: 2, Objective.SFT: 2}
    assert made.measurements["micro_batch_size/sft"]["unit"] == "rows"
    log = (made.path / "log.txt").read_text()
    assert log.count("out of memory: going on with 2 sft rows at once") == 1


def test_what_a_failed_attempt_took_is_no_time_of_training(
    tiny: TinySuite, run_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands but for 100 s before memory runs out: no step, no probe and no run is charged for them."""
    runner = run_plan(tiny(methods=["alright"]))
    now = 0.0
    real = Losses.of

    def of(self: Losses, part: Part) -> Any:
        nonlocal now
        if len(part.rows) > 2:
            now += 100.0
            raise torch.OutOfMemoryError("CUDA out of memory")
        now += 1.0
        return real(self, part)

    monkeypatch.setattr(Losses, "of", of)
    runner.context.clock = lambda: now
    made = runner.run("alright")
    # A step on 2 pairs is one pass, one on 4 rows is two.
    passes = [1.0 if "dpo" in row["weights"] else 2.0 for row in made.rows("steps")]
    assert [row["seconds"] for row in made.rows("steps")] == passes
    assert made.measurements["training_seconds"]["value"] == sum(passes)
    assert now > 100.0


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (
            "mix",
            "out of memory at step 1: lower data.max_answer_tokens; or set model.gradient_checkpointing: true; "
            "or set backward: accumulate (option of mix), since both graphs are in memory at once",
        ),
        (
            {"name": "mix", "backward": "accumulate"},
            "out of memory at step 1: lower data.max_answer_tokens; or set model.gradient_checkpointing: true",
        ),
    ],
    ids=["joint", "accumulate"],
)
def test_where_one_row_is_too_much_the_line_says_what_is_left(
    method: Any, told: str, tiny: TinySuite, run_plan: Any, room_for: Callable[..., None]
) -> None:
    training = tiny().training.model_dump() | {"batch_size": {"dpo": 2, "sft": 1}, "epochs": None, "steps": 2}
    runner = run_plan(tiny(methods=[method], training=training))
    runner.needs("mix")
    room_for(dpo=0)
    status = handlers.run(runner.job("mix"), runner.context)
    assert (status["error"], status["message"]) == ("OutOfMemory", told)


def test_a_size_that_the_suite_gives_is_named_where_it_is_too_large(
    tiny: TinySuite, run_plan: Any, room_for: Callable[..., None]
) -> None:
    training = tiny().training.model_dump() | {"micro_batch_size": {"dpo": 2, "sft": 4}}
    runner = run_plan(tiny(methods=["alright"], training=training))
    runner.needs("alright")
    room_for(dpo=1, sft=1)
    status = handlers.run(runner.job("alright"), runner.context)
    assert status["message"].startswith(
        "out of memory at step 1: lower training.micro_batch_size (now dpo: 2, sft: 4); or"
    )


def test_an_evaluation_goes_on_with_fewer_rows(tiny: TinySuite, run_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for 4 sequences, two pairs: 6 pairs at once become 3, then 1, and the next call begins there."""
    runner = run_plan(tiny())
    policy = runner.context.base(runner.suite.model, None)
    examples = runner.context.datasets(policy.tokenizer, {}).train[Objective.DPO].examples
    expected = held_out.answer_logps(policy, examples, 6)
    passed: list[int] = []
    real = objectives.sequence_logps

    def starved(model: Any, batch: objectives.Batch) -> torch.Tensor:
        passed.append(batch.answers // 2)
        if batch.answers > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, batch)

    monkeypatch.setattr(objectives, "sequence_logps", starved)
    torch.testing.assert_close(held_out.answer_logps(policy, examples, 6), expected, rtol=1e-5, atol=1e-5)
    assert passed == [6, 3, 1, 1, 1, 1, 1, 1]
    passed.clear()
    held_out.answer_logps(policy, examples, 6)
    assert passed == [1] * 6
    assert policy.most_rows == {2: 1}
    assert policy.notes[-1] == "out of memory: going on with 1 rows of 2 answers at once where nothing is trained"


def test_a_resumed_run_goes_on_with_the_rows_that_fitted(
    tiny: TinySuite, run_plan: Any, room_for: Callable[..., None]
) -> None:
    """Stopped after step 2 with 2 rows at once; with room again it stays there, as without the stop."""
    runner = run_plan(tiny(methods=["mix"]))
    runner.needs("mix")
    room_for(sft=2)
    seen = {"step": 0}
    runner.context.tell = seen.update
    runner.context.stopping = lambda: seen["step"] == 2
    job = runner.job("mix")
    assert handlers.run(job, runner.context)["outcome"] == record.STOPPED
    runner.context.stopping = lambda: False
    room_for()
    assert handlers.run(job, runner.context)["outcome"] == record.COMPLETE
    made = record.read_job(runner.context.job_folder(job.id))
    assert made.measurements["micro_batch_size/sft"]["value"] == 2


# ---- gradient_checkpointing: auto ------------------------------------------------------------------------------------

AUTO = {"source": "random", "gradient_checkpointing": "auto"}


@pytest.mark.parametrize(
    ("method", "room", "checkpointing", "rows"),
    [
        ("alright", 2, False, 2),  # smaller parts do
        ("alright", 0, True, 4),  # not even one row fits; then whole batches do again
        ("mix", 2, True, 4),  # both graphs are alive: smaller parts would not help
        ({"name": "mix", "backward": "accumulate"}, 2, False, 2),
    ],
    ids=["parts", "one row", "joint", "accumulate"],
)
def test_activations_are_forgotten_once_smaller_parts_do_not_help(
    method: Any,
    room: int,
    checkpointing: bool,
    rows: int,
    tiny: TinySuite,
    run_plan: Any,
    room_for: Callable[..., None],
) -> None:
    name = method if isinstance(method, str) else method["name"]
    expected = run_plan(tiny(name="roomy", methods=[method])).run(name)
    runner = run_plan(tiny(name="auto", methods=[method], model=AUTO))
    runner.needs(name)
    room_for(sft=room, forgetting=4)
    made = runner.run(name)
    for one, other in zip(made.rows("steps"), expected.rows("steps"), strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-4)
    assert made.measurements["micro_batch_size/sft"]["value"] == rows
    assert record.read_json(made.path / "data.json")["forward"]["gradient_checkpointing"] is checkpointing
    assert ("going on with gradient checkpointing" in (made.path / "log.txt").read_text()) is checkpointing
    base = runner.context.base(runner.suite.model, None)
    base.attach(runner.suite.lora, 0)  # the next run begins without
    assert not base.checkpointing
    assert not base.model.get_base_model().model.gradient_checkpointing


def test_activations_stay_where_the_suite_says_so(
    tiny: TinySuite, run_plan: Any, room_for: Callable[..., None]
) -> None:
    runner = run_plan(tiny(methods=["mix"]))
    runner.needs("mix")
    room_for(sft=0, forgetting=4)
    assert handlers.run(runner.job("mix"), runner.context)["error"] == "OutOfMemory"


def test_a_resumed_run_goes_on_forgetting(tiny: TinySuite, run_plan: Any, room_for: Callable[..., None]) -> None:
    runner = run_plan(tiny(methods=["mix"], model=AUTO))
    runner.needs("mix")
    room_for(sft=2, forgetting=4)
    seen = {"step": 0}
    runner.context.tell = seen.update
    runner.context.stopping = lambda: seen["step"] == 2
    job = runner.job("mix")
    assert handlers.run(job, runner.context)["outcome"] == record.STOPPED
    runner.context.stopping = lambda: False
    room_for()
    assert handlers.run(job, runner.context)["outcome"] == record.COMPLETE
    made = record.read_json(runner.context.job_folder(job.id) / "data.json")
    assert made["forward"]["gradient_checkpointing"] is True


def test_auto_is_the_same_job_as_false_and_true_another(tiny: TinySuite, run_plan: Any) -> None:
    """Where memory suffices, `auto` does what `false` does, and elsewhere `false` leaves nothing complete behind."""
    ids = [
        set(run_plan(tiny(model=AUTO | {"gradient_checkpointing": value})).plan.jobs) for value in (False, "auto", True)
    ]
    assert ids[0] == ids[1]
    assert not ids[0] & ids[2]
