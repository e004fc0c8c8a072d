"""One training step: DPO against TRL and the authors' way, SFT against TRL, and the DPO step's rate of model FLOPs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import flops, material
from benchmarks.rows import Context, Row, RowFailed, at_least
from benchmarks.sides import Side, call
from benchmarks.timing import alternate, ratios

DPO_BATCH, SFT_BATCH = 4, 8
# Longest prompt, longest answer of a pair and of a row.
LIMITS: dict[str, Any] = {"prompt_tokens": 192, "answer_tokens": {"dpo": 96, "sft": 160}}
# Turns before those that count: memory grows until the largest rows have been seen.
WARM_UP, QUICK_WARM_UP = 2, 1
# The same work: losses of both sides, step by step. TRL rounds what it logs to four digits after the point or so.
SAME_LOSS = {"float32": 1e-3, "bfloat16": 5e-2}


def rows(context: Context) -> Iterator[Row]:
    """Measure every step in float32, and in bfloat16 too unless it has to be quick."""
    folder = context.folder("training")
    counts = {"pairs": 16, "rows": 64} if context.quick else {"pairs": 96, "rows": 192}
    call(
        context,
        "benchmarks.material:write",
        mirror=str(context.mirror),
        folder=str(folder),
        pairs=counts["pairs"] + 2,
        rows=counts["rows"] + 2,
        **LIMITS,
    )
    tokens = {"max_prompt_tokens": LIMITS["prompt_tokens"], "max_answer_tokens": LIMITS["answer_tokens"]["sft"]}
    for dtype in ("float32",) if context.quick else ("float32", "bfloat16"):
        suite = material.suite(folder, dtype, counts["pairs"], counts["rows"], data=tokens)
        yield from _dpo(context, folder, dtype, suite)
        if dtype == "float32" and not context.quick:
            yield _held_rate(context, folder, suite)
        for grouped in (False,) if context.quick else (False, True):
            yield _sft(context, folder, dtype, suite, grouped)


def _dpo(context: Context, folder: Path, dtype: str, suite: dict[str, Any]) -> Iterator[Row]:
    rounds, warm_up = (2, QUICK_WARM_UP) if context.quick else (7 if dtype == "float32" else 5, WARM_UP)
    with ExitStack() as stack:
        ours = stack.enter_context(
            Side(context, "benchmarks.ours:steps", suite=suite, folder=f"{folder}/dpo-{dtype}", job="dpo-optimum")
        )
        told = ours.ready()
        order = [row for batch in told["batches"]["dpo"][: warm_up + rounds + 1] for row in batch]
        examples = told["examples"]["dpo"]
        pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
        trl = {
            name: stack.enter_context(
                Side(
                    context,
                    "benchmarks.with_trl:dpo",
                    source=suite["model"],
                    pairs=[pairs[row] for row in order],
                    batch_size=DPO_BATCH,
                    folder=f"{folder}/trl-dpo-{dtype}-{precompute}",
                    precompute=precompute,
                )
            )
            for name, precompute in (("TRL", True), ("TRL, reference at each step", False))
            if precompute or (dtype == "float32" and not context.quick)
        }
        authors = stack.enter_context(
            Side(
                context,
                "benchmarks.by_hand:authors_way",
                source=suite["model"],
                examples=[examples[row] for row in order],
                batch_size=DPO_BATCH,
            )
        )
        matmul = stack.enter_context(Side(context, "benchmarks.ours:matmul", dtype=dtype))
        sides = {"ours": ours, **trl, "authors": authors, "matmul": matmul}
        for name, side in sides.items():
            if name != "ours":
                side.ready()
        context.say(f"DPO step, {dtype}: {rounds} rounds of {', '.join(sides)}")
        taken = alternate({name: side.turn for name, side in sides.items()}, rounds, warm_up)
    seconds = {name: [one["seconds"] for one in results] for name, results in taken.items()}
    difference = max(same_losses(taken, name, dtype) for name in sides if name not in ("ours", "matmul"))
    facts = {"largest_loss_difference": difference, "pairs_a_step": DPO_BATCH}
    yield _row(f"DPO step, {dtype}", "TRL DPOTrainer, reference precomputed", seconds, "TRL", 4.0, facts)
    yield _row(f"DPO step, {dtype}", "the authors' way, reference at each step", seconds, "authors", 3.8, facts)
    if "TRL, reference at each step" in seconds:
        name = "TRL, reference at each step"
        yield _row(f"DPO step, {dtype}", f"{name} (its default)", seconds, name, None, facts)
    yield _rate(dtype, told, warm_up, suite, taken, goal=0.7 if dtype == "float32" else None)


def _row(
    work: str, against: str, seconds: dict[str, list[float]], other: str, goal: float | None, facts: dict[str, Any]
) -> Row:
    return Row(
        work,
        against,
        ratios(seconds[other], seconds["ours"]),
        goal=at_least(goal) if goal else None,
        sides={"ours_seconds": seconds["ours"], "other_seconds": seconds[other]},
        facts=facts,
    )


def _held_rate(context: Context, folder: Path, suite: dict[str, Any]) -> Row:
    """Measure the rate with matrix products held to AVX2, as on a CPU that multiplies more slowly beside its memory."""
    rounds, environment = 10, {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    steps: dict[str, Any] = {"suite": suite, "folder": f"{folder}/dpo-avx2", "job": "dpo-optimum"}
    with (
        Side(context, "benchmarks.ours:steps", environment, **steps) as ours,
        Side(context, "benchmarks.ours:matmul", environment, dtype="float32") as matmul,
    ):
        told = ours.ready()
        matmul.ready()
        context.say(f"DPO step, float32, matrix products held to AVX2: {rounds} rounds")
        taken = alternate({"ours": ours.turn, "matmul": matmul.turn}, rounds, WARM_UP)
    row = _rate("float32, products held to AVX2", told, WARM_UP, suite, taken, goal=None)
    note = "Held to AVX2: MKL_ENABLE_INSTRUCTIONS=AVX2 on both sides; MKL heeds it on CPUs of Intel."
    return Row(**{**vars(row), "notes": [note]})


def _rate(
    how: str,
    told: dict[str, Any],
    warm_up: int,
    suite: dict[str, Any],
    taken: dict[str, list[dict[str, Any]]],
    goal: float | None,
) -> Row:
    """The DPO step's model FLOPs a second against the machine's own matrix multiply in the same round."""
    seconds = [one["seconds"] for one in taken["ours"]]
    model = flops.Shape(**flops.SMOLLM2, rank=suite["lora"]["rank"])
    pairs, batches = told["examples"]["dpo"], told["batches"]["dpo"][warm_up : warm_up + len(seconds)]
    counted = [flops.dpo_step(model, [pairs[row] for row in batch]) for batch in batches]
    rates = ratios(counted, seconds)
    speeds = [one["flops_per_second"] for one in taken["matmul"]]
    return Row(
        f"DPO step's model FLOPs a second, {how}",
        "this machine's own matrix multiply, same rounds",
        ratios(rates, speeds),
        goal=at_least(goal) if goal else None,
        sides={"model_flops_per_second": rates, "matmul_flops_per_second": speeds},
        facts={"model_flops_a_step": counted},
    )


def _sft(context: Context, folder: Path, dtype: str, suite: dict[str, Any], grouped: bool) -> Row:
    """Measure a step on batches as they are drawn, or of rows of like length, of which TRL has little to pad."""
    rounds, warm_up = (2, QUICK_WARM_UP) if context.quick else (5, WARM_UP)
    suite = suite | {"training": suite["training"] | {"group_by_length": grouped}}
    work = f"SFT step, {dtype}" + (", batches grouped by length" if grouped else "")
    place = f"sft-{dtype}" + ("-grouped" if grouped else "")
    with (
        Side(context, "benchmarks.ours:steps", suite=suite, folder=f"{folder}/{place}", job="sft-optimum") as ours,
        ExitStack() as stack,
    ):
        told = ours.ready()
        order = [row for batch in told["batches"]["sft"][: warm_up + rounds + 1] for row in batch]
        examples = told["examples"]["sft"]
        trl = stack.enter_context(
            Side(
                context,
                "benchmarks.with_trl:sft",
                source=suite["model"],
                examples=[for_trl(examples[row]) for row in order],
                batch_size=SFT_BATCH,
                folder=f"{folder}/trl-{place}",
            )
        )
        trl.ready()
        context.say(f"{work}: {rounds} rounds of ours, TRL")
        taken = alternate({"ours": ours.turn, "TRL": trl.turn}, rounds, warm_up)
    seconds = {name: [one["seconds"] for one in results] for name, results in taken.items()}
    facts = {"largest_loss_difference": same_losses(taken, "TRL", dtype), "rows_a_step": SFT_BATCH}
    return _row(work, "TRL SFTTrainer, completion-only", seconds, "TRL", 2.0, facts)


def for_trl(example: dict[str, Any]) -> dict[str, list[int]]:
    """Write a tokenized row as SFTTrainer takes it."""
    answer = example["answers"][0]
    return {
        "input_ids": example["prompt"] + answer,
        "completion_mask": [0] * len(example["prompt"]) + [1] * len(answer),
    }


def same_losses(taken: dict[str, list[dict[str, Any]]], other: str, dtype: str) -> float:
    """Return the largest difference of two sides' losses.

    Raises:
        RowFailed: it is so large that they did not do the same work.
    """
    pairs = zip(taken["ours"], taken[other], strict=True)
    difference: float = max(abs(sum(a["losses"].values()) - sum(b["losses"].values())) for a, b in pairs)
    if not difference <= SAME_LOSS[dtype]:
        raise RowFailed(f"losses of ours and {other} differ by {difference:.3g} (allowed {SAME_LOSS[dtype]:g})")
    return difference
