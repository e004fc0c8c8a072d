"""The group for one GPU: what is planned, what a failure leaves, and every side, on a CPU at the size of a test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import __main__ as runner
from benchmarks import gpu, on_card, results, shapes
from benchmarks.gpu import Size, Task
from benchmarks.rows import Context, Row, RowFailed, at_least
from benchmarks.sides import Side

SMALL = Size(
    device="cpu",
    dtype="float32",
    large="tiny",
    small=("tiny-neox",),
    batches={"tiny": (2, 4), "tiny-neox": (2, 4)},
    rounds={"tiny": 1, "tiny-neox": 2},
    warm_up={"tiny": 1, "tiny-neox": 1},
    answers=(6, 5, 2),
    subjects=28,
    questions=3,
    reference_pairs=6,
    kind_steps=2,
    seconds=dict.fromkeys(
        (
            *(f"{objective} {shape}" for objective in ("dpo", "sft") for shape in ("tiny", "tiny-neox")),
            *("prepare", "training", "answers", "questions tiny", "questions tiny-neox", "start", "reference"),
        ),
        300.0,
    ),
    shortest=True,
)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(False, tmp_path, tmp_path, False, 1, lambda text: None)


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_the_shipped_suites_steps_by_kind() -> None:
    """6,000 steps a run at λ 0.25, 0.5, 0.75, which add up to 1.5.

    DPO: its optimum 6,000, Sequential's second phases 1.5 · 6,000, ALRIGHT as many, MAXRIGHT half of 18,000: 33,000. SFT: its
    optimum 6,000, which is Sequential's first phases too, and 9,000 each of ALRIGHT and MAXRIGHT: 24,000. Every tenth step of
    MAXRIGHT looks at both.
    """
    suite = yaml.safe_load(gpu.SHIPPED.read_text(encoding="utf-8"))
    assert gpu.planned_work(suite) == {
        "dpo": 33_000, "sft": 24_000, "joint": 18_000, "probe_dpo": 1_800, "probe_sft": 1_800,
    }  # fmt: skip


def test_every_row_of_the_goals_has_a_task_and_all_of_them_fit_into_the_time() -> None:
    listed = gpu.tasks(Size())
    seconds = Size().seconds
    for part in ("steps", "evaluation"):
        of_part = sum(seconds[task.name] for task in listed if task.part == part)
        assert 200 < seconds["prepare"] + of_part <= gpu.SECONDS < 600
    assert {"prepare", *(task.name for task in listed)} == set(Size().seconds)
    goals = {task.name: (task.goal.at, task.goal.bound) for task in listed}  # type: ignore[union-attr]
    assert goals["dpo Llama-3-8B"] == ("least", 3) and goals["sft Llama-3-8B"] == ("least", 2)
    assert goals["dpo SmolLM2-135M"] == goals["dpo Pythia-1B"] == ("least", 5)
    assert goals["sft SmolLM2-135M"] == goals["sft Pythia-1B"] == ("least", 4)


def parameters(shape: str) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shapes.config(shape))
    return sum(value.numel() for value in model.parameters())


@pytest.mark.parametrize(
    ("shape", "wanted"), [("Llama-3-8B", 8_030_261_248), ("SmolLM2-135M", 134_515_008), ("Pythia-1B", 1_011_781_632)]
)
def test_shapes_have_the_parameters_of_the_models_they_are_named_for(shape: str, wanted: int) -> None:
    """As their authors count them."""
    assert parameters(shape) == wanted


# ---- time and failures -----------------------------------------------------------------------------------------------


def test_a_task_that_fails_or_has_no_time_is_on_record_and_ends_nothing(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 s, the first task gets its 30 and fails at once: the second gets 30 more than its own 20; then time is over."""
    now = 0.0
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now)
    allowed: dict[str, float] = {}

    def task(name: str, takes: float, error: Exception | None = None) -> Task:
        def make(given: Context, size: Size) -> Iterator[Row]:
            nonlocal now
            assert given.until is not None and given.device == "cpu"
            allowed[name] = given.until - now
            now += takes
            if error:
                raise error
            yield Row(name, "", [1.0])

        return Task(name, name, "another", at_least(2.0), make)

    listed = [task("breaks", 0, RowFailed("its process died")), task("slow", 100), task("late", 1)]
    monkeypatch.setattr(gpu, "tasks", lambda size: listed)
    size = replace(SMALL, seconds={"breaks": 30, "slow": 20, "late": 10})
    made = [row.as_dict() for row in gpu.measure(context, size, "evaluation", total=100)]
    assert allowed == {"breaks": 30, "slow": 50}
    assert [row.get("failed") for row in made] == ["its process died", None, "no time was left for it"]
    assert [row["holds"] for row in made] == [False, None, False]
    assert made[0]["spread"] is None and made[0]["goal"] == {"at": "least", "bound": 2.0}


def test_a_failed_row_is_shown_with_its_reason() -> None:
    row = Row("a step", "TRL", [], goal=at_least(3), failed="out of memory").as_dict()
    group = {
        "title": "T.", "command": "c", "finished": "now", "seconds": 1.0, "real_data": True, "commit": None, "threads": 1,
        "machine": {"cpu": "c", "cores": 1, "memory_bytes": 2**30, "gpus": ["Card A"]}, "python": "3", "packages": {},
        "rows": [row], "failed": None,
    }  # fmt: skip
    text = results.markdown({"groups": {"gpu": group}})
    assert "Missed: a step (not measured)." in text and "Card A" in text
    assert "| a step | TRL | not measured |  | ≥ 3.00× | **no** |" in text
    assert "- **Not measured:** a step: out of memory" in text


def waiting(turns: Any) -> None:
    """Be a side that never answers."""
    time.sleep(60)


def test_a_side_is_given_up_when_its_rows_time_is_over(context: Context) -> None:
    with (
        Side(replace(context, until=time.monotonic() + 0.2), f"{__name__}:waiting") as side,
        pytest.raises(RowFailed, match="no answer before the row's time was over"),
    ):
        side.ready()


def test_without_a_gpu_the_group_is_skipped_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "has_gpu", lambda: False)
    assert runner.main(["--only", "gpu", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        "gpu: skipped, as torch sees no CUDA device here; its last results stay as they are\n"
    )
    assert not list(tmp_path.iterdir())


# ---- what sides hand back --------------------------------------------------------------------------------------------


@dataclass
class OldSettings:
    gradient_checkpointing: bool = True
    beta: float = 0.1


def test_settings_that_a_version_does_not_know_are_left_out() -> None:
    given = {"activation_checkpointing": False, "beta": 0.2, "train_sampling_strategy": "sequential"}
    assert on_card.known_to(OldSettings, given) == {"gradient_checkpointing": False, "beta": 0.2}
    assert {one.name for one in fields(OldSettings)} == {"gradient_checkpointing", "beta"}


def answers(*logps: list[float], wrong: int | None = None) -> dict[str, Any]:
    return {f"q{place}": {"logps": one, "correct": int(place != wrong)} for place, one in enumerate(logps)}


def test_accuracies_must_agree_but_for_ties() -> None:
    """The second question's best answers lie 0.01 nats apart: there the sides may differ; on the first they may not."""
    clear, tie = [-1.0, -2.0, -3.0, -4.0], [-1.0, -1.01, -3.0, -4.0]

    def taken(wrong: int) -> dict[str, list[dict[str, Any]]]:
        ours = {"answers": answers(clear, tie, wrong=wrong), "seconds": 2.0, "contexts": "packed", "rows": 512}
        return {"ours": [ours], "lm-eval": [{"answers": answers(clear, tie), "seconds": 5.0}]}

    row = gpu.questions_row("tiny", taken(1))
    assert row.values == [2.5] and row.facts["clear"] == 1
    with pytest.raises(RowFailed, match=r"accuracies differ, ties aside: 0\.0000 \(ours\) and 1\.0000"):
        gpu.questions_row("tiny", taken(0))


def step(seconds: float, loss: float = 1.0) -> dict[str, Any]:
    forward = {"layout": "shared_prompt", "notes": ["cannot"]}
    more = {"tokens": 30_000, "model_flops": 6e14, "forward": forward, "peak_bytes": 5}
    return {"seconds": seconds, "losses": {"sft": loss}, **more}


def test_a_steps_rows() -> None:
    """1.5 s against 3 s: twice; 30,000 tokens in 1.5 s: 20,000 a second; 6e14 in 1.5 s: 4e14, of 8e14 the half."""
    taken = {"ours": [step(1.5)], "TRL": [{"seconds": 3.0, "losses": {"": 1.0001}}]}
    size = replace(SMALL, large="tiny", dtype="float32")
    told, best = {"matrix_rate": 8e14}, {"settings": "Liger", "tried": {}}
    made = list(gpu.step_rows(size, "tiny", "sft", at_least(2), told, best, taken))
    assert [row.values[0] for row in made] == [2.0, 20_000, 0.5]
    assert "TRL: Liger" in made[0].notes[0] and made[0].notes[1] == "SFT step, tiny shapes: cannot."
    assert len(list(gpu.step_rows(size, "tiny", "dpo", at_least(2), told, best, taken))) == 1
    taken["TRL"][0]["losses"] = {"": 1.1}
    with pytest.raises(RowFailed, match=r"losses of ours and TRL differ by 0\.1"):
        next(gpu.step_rows(size, "tiny", "sft", at_least(2), told, best, taken))


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        pytest.param("cpu", "float32", marks=pytest.mark.slow),
        pytest.param("cuda:0", "bfloat16", marks=pytest.mark.gpu),
    ],
)
def test_all_of_it_on_a_tiny_model(context: Context, device: str, dtype: str) -> None:
    """Every side of every task, in processes of their own as on a card; losses and accuracies are held against each other."""
    size, context = replace(SMALL, device=device, dtype=dtype), replace(context, preload="benchmarks.preload")
    made = [row.as_dict() for part in ("steps", "evaluation") for row in gpu.measure(context, size, part, total=3000)]
    assert [row["failed"] for row in made if "failed" in row] == []
    works = [row["work"] for row in made]
    assert works == list(dict.fromkeys(works))
    assert len(made) == len(gpu.tasks(SMALL)) + 2  # tokens and FLOPs a second beside the large SFT step
    by_work: dict[str, Callable[[], float]] = {row["work"]: row for row in made}
    assert by_work["6 answers of 5 tokens, tiny shapes"]["facts"]["tokens"] <= 30  # type: ignore[index]
