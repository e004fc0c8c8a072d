"""The loop: equal to plain arithmetic, to itself when cut in pieces, and to itself when interrupted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from older_records import unseal
from small_runs import Bench, assert_same_run, suite

from bench.data.tokens import load as load_data
from bench.errors import JobError, OutOfMemory
from bench.methods import Objective
from bench.models import held_out, policy
from bench.records import record
from bench.run import handlers
from bench.train import checkpoint
from bench.train.batches import Cursor
from bench.train.loop import Trainer, TrainingRun, train
from bench.train.run_log import RunLog

CPU = torch.device("cpu")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(suite(), tmp_path)


def test_the_sft_phase_equals_a_loop_written_out_by_hand(bench: Bench) -> None:
    """Six steps of AdamW on the token mean of the whole model's own logits, batches from the cursor."""
    made = bench.run("sft-optimum")
    settings = bench.plan.suite
    plain = policy.load(settings.model, CPU)
    rows = load_data(settings.data, plain.tokenizer, None).train[Objective.SFT].examples
    plain.attach(settings.lora, 0)
    parameters = list(plain.trainable().values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    cursor = Cursor(Objective.SFT, 12, 4, 0)
    expected = []
    for _ in range(6):
        total, count = torch.zeros(()), 0
        for row in cursor.draw():
            prompt, answer = rows[row].prompt, rows[row].answers[0]
            ids = torch.tensor([[*prompt, *answer]])
            logps = plain.model(input_ids=ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
            total = total - logps.gather(1, torch.tensor(answer)[:, None]).sum()
            count += len(answer)
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        expected.append(float((total / count).detach()))
    assert [row["losses"]["sft"] for row in made.rows("steps")] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("method", ["sequential", "mix", "alright", "maxright"])
def test_a_run_interrupted_at_any_step_goes_on_to_the_same_end(bench: Bench, tmp_path: Path, method: str) -> None:
    whole = bench.run(method)
    cut = Bench(suite(), tmp_path / "cut")
    job = cut.job(method)
    for need in job.needs:
        cut.run(need)
    # Sequential's first three steps are the optimum's, so it can only be stopped after them.
    for step in (4, 5) if method == "sequential" else (1, 4):
        cut.seen, cut.stop_at = 0, step
        assert handlers.run(job, cut.context)["outcome"] == record.STOPPED
    cut.stop_at = None
    assert_same_run(whole, cut.run(method))


@pytest.mark.parametrize("order", ["sft_dpo", "dpo_sft"])
def test_a_shared_first_phase_equals_one_of_its_own(tmp_path: Path, order: str) -> None:
    settings = suite(order=order)
    shared, apart = Bench(settings, tmp_path / "shared"), Bench(settings, tmp_path / "apart")
    one = shared.run("sequential")
    own = apart.job("sequential")
    assert own.prefix is not None
    optimum = apart.run(own.prefix.job)
    checkpoint.prune(optimum.path, keep=())
    other = apart.run("sequential")
    assert one.rows("steps")[0] == shared.run(own.prefix.job).rows("steps")[0]
    assert other.rows("steps")[0] != optimum.rows("steps")[0]  # its seconds are its own
    assert_same_run(one, other)


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    """Token mean over the whole batch: cutting a batch into ones of 1 changes the loss by rounding only."""
    training = suite().training.model_dump()
    whole = Bench(suite(), tmp_path / "whole").run("mix")
    parts = Bench(suite(training=training | {"micro_batch_size": {"dpo": 1, "sft": 1}}), tmp_path / "parts").run("mix")
    for one, other in zip(whole.rows("steps"), parts.rows("steps"), strict=True):
        assert one["losses"] == pytest.approx(other["losses"], abs=1e-4)


def test_mix_joint_and_accumulate_have_the_same_gradient(tmp_path: Path) -> None:
    runs = []
    for backward in ("joint", "accumulate"):
        made = Bench(suite(methods=[{"name": "mix", "backward": backward}]), tmp_path / backward)
        runs.append(made.losses(made.run("mix")))
    for one, other in zip(*runs, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_mix_descends_the_weighted_sum(bench: Bench) -> None:
    """Its gradient is λ times DPO's plus (1 − λ) times SFT's, on the same batches (Eq. 6)."""
    bench.run("mix")
    gradients = {}
    from bench.methods import Choice

    for name, weights in {
        "dpo": {Objective.DPO: 1.0},
        "sft": {Objective.SFT: 1.0},
        "mix": {Objective.DPO: 0.25, Objective.SFT: 0.75},
    }.items():
        trainer = bench.trainer("mix")
        trainer.descend(Choice(weights))
        gradients[name] = [parameter.grad.clone() for parameter in trainer.parameters]  # type: ignore[union-attr]
    for dpo, sft, mix in zip(*gradients.values(), strict=True):
        torch.testing.assert_close(mix, 0.25 * dpo + 0.75 * sft, atol=1e-6, rtol=1e-4)


def test_maxright_descends_the_batch_it_probed(bench: Bench) -> None:
    """A probed step's loss before the update is the probe's own value; the other batch is dropped and counted."""
    job = bench.run("maxright")
    probed = [row for row in job.rows("steps") if "probes" in row]
    assert [row["step"] for row in probed] == [1, 2, 4, 6]
    for row in probed:
        ((objective, loss),) = row["losses"].items()
        assert loss == pytest.approx(row["probes"][objective], abs=1e-6)
    dropped = {name: job.measurements[f"rows_probed_only/{name}"]["value"] for name in ("dpo", "sft")}
    assert dropped["dpo"] / 2 + dropped["sft"] / 4 == 4
    assert job.measurements["probe_seconds"]["value"] > 0


def test_maxright_compares_with_the_optima_on_training_rows(bench: Bench) -> None:
    job = bench.job("maxright")
    bench.run("maxright")
    optima = {
        name: record.read_job(bench.context.job_folder(job.inputs.optimum[name])).scores[f"f_{name}/train"]["value"]
        for name in ("dpo", "sft")
    }
    first = record.read_job(bench.context.job_folder(job.id)).rows("steps")[0]
    gaps = {name: 0.5 * (first["probes"][name] - optima[name]) for name in ("dpo", "sft")}
    assert list(first["losses"]) == ["dpo" if gaps["dpo"] >= gaps["sft"] else "sft"]


def test_the_dpo_loss_starts_at_log_2_against_the_base(tmp_path: Path) -> None:
    """θ_1 = π_ref: the margin of Eq. 3 is 0 for every pair."""
    made = Bench(suite(reference={"policy": "base"}), tmp_path)
    job = made.run("dpo-optimum")
    assert job.rows("trajectory")[0]["f_dpo/held_out"] == pytest.approx(0.693147, abs=1e-5)
    assert job.rows("steps")[0]["losses"]["dpo"] == pytest.approx(0.693147, abs=1e-5)


def test_f_dpo_of_the_sft_optimum_is_filled_in_and_is_log_2_at_its_end(bench: Bench, tmp_path: Path) -> None:
    """The SFT optimum is the reference: at its own last step every margin is 0."""
    job = bench.run("sft-optimum")
    bench.run("reference-logps")
    logps = record.read_json(bench.context.job_folder(bench.job("reference-logps").id) / "reference_logps.json")
    rows = record.complete_trajectory(job.rows("trajectory"), job.rows("evaluation_logps"), logps, 0.1)
    assert rows[-1]["f_dpo/held_out"] == pytest.approx(0.693147, abs=1e-5)
    assert rows[-1]["f_dpo/train"] == pytest.approx(0.693147, abs=1e-5)
    assert rows[0]["f_dpo/held_out"] != pytest.approx(0.693147, abs=1e-5)


def test_a_reloaded_adapter_gives_the_trained_logits(bench: Bench) -> None:
    assert bench.run("sequential").measurements["reload_difference"]["value"] <= 1e-5


def test_a_loss_that_is_not_finite_is_one_clear_error(bench: Bench) -> None:
    bench.run("mix")
    trainer = bench.trainer("mix")
    with pytest.raises(JobError, match=r"not finite at step 1.*lower training.learning_rate"):
        trainer._gather({Objective.SFT: [torch.tensor(float("nan"))]})


def test_running_out_of_memory_names_the_key_to_lower(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run("mix")

    def starve(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    job = bench.job("alright")
    monkeypatch.setattr(Trainer, "descend", starve)
    base = bench.context.base(bench.plan.suite.model, None)
    reference = record.read_json(bench.context.job_folder(job.inputs.reference_logps) / "reference_logps.json")
    folder = bench.context.job_folder(job.id)
    folder.mkdir(parents=True)
    batch_size = bench.plan.suite.training.batch_size
    with pytest.raises(OutOfMemory, match=r"lower training.micro_batch_size"):
        train(
            TrainingRun(
                job, bench.plan.suite, folder, base, bench.context.datasets(base.tokenizer, {}), batch_size, reference
            )
        )


def test_records_say_what_was_charged(bench: Bench) -> None:
    """Tokens of a run are those of its steps; a Sequential run is charged for the phase it shares."""
    job = bench.run("sequential")
    steps = job.rows("steps")
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert [row["phase"] for row in steps] == [0, 0, 0, 1, 1, 1]
    assert job.measurements["tokens"]["value"] == sum(row["tokens"] for row in steps)
    assert job.measurements["training_seconds"]["value"] == pytest.approx(sum(row["seconds"] for row in steps))
    assert job.measurements["first_step_seconds"]["value"] == steps[0]["seconds"]  # which the shared phase took
    assert [row["step"] for row in job.rows("trajectory")] == [0, 2, 3, 4, 6]
    assert json.loads((job.path / "data.json").read_text())["sft/train"]["rows"] == 12


def test_one_row_of_all_examples_pads_nothing(bench: Bench) -> None:
    assert bench.run("sft-optimum").measurements["padding_share"] == {"value": 0.0, "unit": "share"}


def lie_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no model take more than a row an answer."""
    monkeypatch.setattr(policy.Policy, "layout_of", lambda self, examples: "plain")


def test_padding_is_on_record(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run: the sum of its steps' padding over all tokens forwarded. Of one step by hand: rows × longest − tokens.

    An SFT batch is four plain rows, so its padding is 4 times the longest less the sum of the four lengths.
    """
    lie_plain(monkeypatch)
    job = bench.run("maxright")
    steps = job.rows("steps")
    padding, tokens, probed = (sum(row[name] for row in steps) for name in ("padding_tokens", "tokens", "probe_tokens"))
    assert padding > 0
    assert probed > 0
    share = job.measurements["padding_share"]
    assert share == {"value": padding / (padding + tokens + probed), "unit": "share"}

    first = bench.run("sft-optimum").rows("steps")[0]
    base = bench.context.base(bench.plan.suite.model, None)
    rows = bench.context.datasets(base.tokenizer, {}).train[Objective.SFT].examples
    lengths = [rows[row].length for row in Cursor(Objective.SFT, 12, 4, 0).draw()]
    assert (first["padding_tokens"], first["tokens"]) == (4 * max(lengths) - sum(lengths), sum(lengths))


def test_steps_recorded_before_padding_was_counted_leave_its_share_open(bench: Bench) -> None:
    """A run that goes on from such steps is whole in every other figure."""
    bench.run("sft-optimum")
    job = bench.job("sequential")
    prefix = bench.context.job_folder(job.prefix.job) / "steps.jsonl"  # type: ignore[union-attr]
    rows = [
        {name: value for name, value in row.items() if name != "padding_tokens"} for row in record.read_jsonl(prefix)
    ]
    prefix.unlink()
    record.append_jsonl(prefix, rows)
    unseal(prefix.parent)
    made = bench.run("sequential").measurements
    assert made["padding_share"] == record.not_measured("share", "some of its steps did not count padding")
    assert made["tokens"]["value"] > 0


def test_batches_grouped_by_length_are_padded_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve rows in batches of 4, sorted before they are cut; everything else of the run is as before."""
    lie_plain(monkeypatch)
    training = suite().training.model_dump() | {"group_by_length": True}
    by_chance, grouped = (
        Bench(suite(**more), tmp_path / name) for name, more in (("a", {}), ("b", {"training": training}))
    )
    shares = [one.run("sft-optimum").measurements["padding_share"]["value"] for one in (by_chance, grouped)]
    assert 0 <= shares[1] < shares[0]


def test_the_untrained_policy_is_evaluated_once_for_all_runs(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All runs start at the same θ_1: taken over, its values equal those that each run computes itself, bit for bit.

    An optimum evaluates both splits: that of SFT at its start and end, after steps 2 and 4 and after step 3, where a phase
    ends: 5 · 2 = 10. DPO has no step 3 and takes the start over: 3 · 2 = 6. Mix evaluates one split on the way: 2 + 2 = 4.
    """
    counted: list[str] = []
    forward = held_out.split_logps

    def count(*given: Any) -> Any:
        counted.append(given[2])
        return forward(*given)

    monkeypatch.setattr(held_out, "split_logps", count)
    names, numbers = ("sft-optimum", "dpo-optimum", "mix"), []
    apart = Bench(suite(), tmp_path / "apart")
    for name in names:
        counted.clear()
        bench.run(name)
        numbers.append(len(counted))
        apart.context._base_logps.clear()
        assert_same_run(bench.run(name), apart.run(name))
    assert numbers == [10, 6, 4]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_evaluation_that_is_no_number_names_the_step_and_what_to_lower(tmp_path: Path, value: float) -> None:
    log = RunLog(tmp_path, writes=True)
    with pytest.raises(JobError, match=r"^f_sft/train is not finite after step 4; lower training\.learning_rate$"):
        log.evaluation(4, 0, {"f_dpo/train": {"value": None}, "f_sft/train": {"value": value}})
