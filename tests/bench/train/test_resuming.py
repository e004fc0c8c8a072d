"""Whether a resumed run is bit for bit the one that nothing interrupted: what is promised, and what is on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import JobError
from bench.records import record
from bench.run import handlers
from bench.train import resuming

CPU = {"device": "cpu (AVX2)", "devices": 1, "torch": "2.0", "repeats": True}
GPU = CPU | {"device": "H100", "repeats": False}


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (CPU, CPU, None),
        (GPU | {"repeats": True}, GPU | {"repeats": True}, None),
        (GPU, GPU, "on a GPU without training.deterministic"),
        (GPU, GPU | {"repeats": True}, "on a GPU without training.deterministic"),
        (CPU, CPU | {"devices": 2}, "on 2 devices, after 1"),
        (CPU, CPU | {"torch": "2.1"}, "by torch 2.1, after 2.0"),
        (CPU, GPU, "on H100, after cpu (AVX2); on a GPU without training.deterministic"),
        (None, CPU, "its checkpoint does not say where it was made"),
    ],
)
def test_equal_bits_are_promised_under_equal_conditions_that_repeat(before: Any, now: Any, reason: str | None) -> None:
    found = resuming.went_on(7, before, now, "bfloat16")
    assert (found["step"], found["bit_equal"], found.get("reason")) == (7, reason is None, reason)
    assert found.get("loss_tolerance") == (reason and {"value": 0.02, "unit": "nats", "basis": "declared"})
    said = resuming.in_words(found)
    assert said == (
        f"resumed at step 7, not bit-equal ({reason}): losses to 0.02 nats, declared" if reason else "resumed at step 7"
    )


def test_deterministic_algorithms_are_on_while_a_run_trains_and_a_missing_one_names_the_key() -> None:
    with resuming.algorithms(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with resuming.algorithms(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    # What torch says of an operation that has none.
    said = "x does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True)'"
    told = r"^training.deterministic: x does not have .*; set it to false for this model$"
    with pytest.raises(JobError, match=told), resuming.algorithms(True):
        raise RuntimeError(said)
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match=r"^other$"), resuming.algorithms(True):
        raise RuntimeError("other")


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_resumed_job_says_so_and_ends_with_equal_bits(
    deterministic: bool, tiny: Any, run_plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CPUs, with the switch and without; as if on a GPU without it, the record says that bits may differ."""
    training = {"epochs": 2, "batch_size": {"dpo": 2, "sft": 4}, "learning_rate": 1e-3, "checkpoint_every": 2}
    settings = tiny(training=training | {"deterministic": deterministic})
    whole = run_plan(settings).run("sft-optimum")
    assert "resumed" not in whole.status
    assert whole.spec["environment"].get("deterministic", False) is deterministic

    def stopped(name: str) -> Any:
        runner = run_plan(settings.model_copy(update={"name": name}))
        seen: list[int] = []
        runner.context.tell = lambda message: seen.append(message.get("step", 0))
        runner.context.stopping = lambda: 3 in seen
        job = runner.job("sft-optimum")
        assert handlers.run(job, runner.context)["outcome"] == record.STOPPED
        runner.context.stopping = lambda: False
        return runner, job

    runner, job = stopped("again")
    status = handlers.run(job, runner.context)
    assert (status["outcome"], status["resumed"]) == (record.COMPLETE, [{"step": 3, "bit_equal": True}])
    resumed = record.read_job(runner.context.job_folder(job.id))
    weights = "adapter/adapter_model.safetensors"
    assert (resumed.path / weights).read_bytes() == (whole.path / weights).read_bytes()
    assert [one["losses"] for one in resumed.rows("steps")] == [one["losses"] for one in whole.rows("steps")]

    runner, job = stopped("elsewhere")
    plain = resuming.conditions
    monkeypatch.setattr(resuming, "conditions", lambda policy, processes: plain(policy, processes) | {"repeats": False})
    (one,) = handlers.run(job, runner.context)["resumed"]
    assert not one["bit_equal"] and one["reason"] == "on a GPU without training.deterministic"
    assert one["loss_tolerance"] == {"value": 1e-4, "unit": "nats", "basis": "declared"}
