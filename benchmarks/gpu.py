"""One GPU: training steps against TRL; and what `gpu_evaluation` has, so that each part ends within ten minutes.

Models have given shapes and random weights and are made on the card, so that neither a network nor a file of weights is needed;
rows are of the built-in world, as long as real ones. Every task has its own time: one that fails or runs out of it is on record
with the reason, and time that is left over goes to the next ones. `rows` takes `SECONDS` seconds at most in all.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import material, shapes, training
from benchmarks.rows import Context, Goal, Row, RowFailed, at_least, at_most
from benchmarks.sides import Side, call
from benchmarks.timing import alternate, ratios

SHIPPED = Path(__file__).resolve().parent.parent / "suites" / "llama3_8b.yaml"
SECONDS = 570.0
# Log-probabilities nearer than this are a tie: two logits of a bfloat16 model, each rounded to 8 bits.
TIE = 1 / 32


@dataclass(frozen=True)
class Size:
    """Say how large everything is.

    Attributes:
        device: torch's name of it.
        dtype: of weights and activations.
        large: the shape that answers, starts and is extrapolated; `small`: the others that take steps.
        batches: pairs and rows a step, by shape.
        rounds: turns that count, by shape; `warm_up`: those before.
        answers: prompts, tokens of an answer, prompts of a stock batch.
        subjects: every so many-th of MMLU's; `questions` of each.
        reference_pairs: of the reference pass.
        kind_steps: of each kind of work that is extrapolated.
        seconds: of each task, by name.
        shortest: whether rows are as short as they may be.
    """

    device: str = "cuda:0"
    dtype: str = "bfloat16"
    large: str = "Llama-3-8B"
    small: tuple[str, ...] = ("SmolLM2-135M", "Pythia-1B")
    batches: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: {"Llama-3-8B": (4, 16), "SmolLM2-135M": (8, 24), "Pythia-1B": (8, 24)}
    )
    rounds: Mapping[str, int] = field(default_factory=lambda: {"Llama-3-8B": 10, "SmolLM2-135M": 15, "Pythia-1B": 10})
    warm_up: Mapping[str, int] = field(default_factory=lambda: {"Llama-3-8B": 4, "SmolLM2-135M": 5, "Pythia-1B": 4})
    answers: tuple[int, int, int] = (640, 256, 16)
    subjects: int = 1
    questions: int = 8
    reference_pairs: int = 2000
    kind_steps: int = 4
    seconds: Mapping[str, float] = field(
        default_factory=lambda: {
            "prepare": 60,
            "dpo SmolLM2-135M": 75,
            "sft SmolLM2-135M": 65,
            "dpo Llama-3-8B": 100,
            "sft Llama-3-8B": 90,
            "training": 45,
            "dpo Pythia-1B": 70,
            "sft Pythia-1B": 60,
            "answers": 70,
            "questions Llama-3-8B": 75,
            "questions SmolLM2-135M": 60,
            "reference": 60,
            "start": 80,
        }
    )
    shortest: bool = False


@dataclass(frozen=True)
class Task:
    """A piece of the group.

    Attributes:
        name: what its seconds go by; `part`: the group it belongs to.
        work, against, goal: of its first row, for the record where it fails.
        make: measures it; gets a context whose sides give up in time.
    """

    name: str
    work: str
    against: str
    goal: Goal
    make: Callable[[Context, Size], Iterator[Row]]
    part: str = "evaluation"


def rows(context: Context) -> Iterator[Row]:
    """Measure training steps on this machine's first GPU."""
    return of_part(context, "steps")


def of_part(context: Context, part: str) -> Iterator[Row]:
    """Measure one part of the tasks: together they take longer than a machine may be lent for one command."""
    return measure(replace(context, preload="benchmarks.preload"), Size(), part)


def measure(context: Context, size: Size, part: str, total: float = SECONDS) -> Iterator[Row]:
    """Do every task of a part in its time."""
    context = replace(context, device=size.device)
    end = time.monotonic() + total
    if "prepare" in size.seconds:
        prepare(replace(context, until=time.monotonic() + size.seconds["prepare"]), size, part)
    spare = 0.0
    for task in (one for one in tasks(size) if one.part == part):
        started = time.monotonic()
        allowed = min(size.seconds[task.name] + spare, end - started)
        context.say(f"{task.work}: {allowed:.0f} s at most")
        yield from _in_time(task, replace(context, until=started + allowed), size)
        spare = max(0.0, allowed - (time.monotonic() - started))


def prepare(context: Context, size: Size, part: str) -> None:
    """Compile layers of all shapes, or the large one's beside writing its weights for a start: sides find both on the disk.

    One that fails, or is not over in time, is told and stops nothing: its row compiles by itself, or says what is missing.
    """
    context.say("preparing: compiled layers" + (", weights" if part == "evaluation" else ""))
    with ExitStack() as stack:
        compiled = (size.large, *size.small) if part == "steps" else (size.large,)
        wanted = {f"{shape}'s layers": _compiling(context, size, shape) for shape in compiled}
        if part == "evaluation":
            wanted |= {"weights": Side(context, "benchmarks.on_card:save", **_saved(context, size))}
        for side in wanted.values():
            stack.enter_context(side)
        for name, side in wanted.items():
            try:
                side.result() if name == "weights" else side.ready()
            except RowFailed as error:
                context.say(f"{name}: {error}")


def _compiling(context: Context, size: Size, shape: str) -> Side:
    folder = context.folder(f"gpu-prepare-{shape}")
    pairs, instructions = size.batches[shape]
    suite = suite_of(folder, size, shape, pairs, instructions)
    own: dict[str, Any] = {"suite": suite, "folder": f"{folder}/ours", "job": "sft-optimum"}
    return Side(context, "benchmarks.on_card:ours", shape=shape, device=size.device, **own)


def _saved(context: Context, size: Size) -> dict[str, Any]:
    folder = str(context.folder("gpu-start") / "model")
    return {"shape": size.large, "device": size.device, "dtype": size.dtype, "folder": folder}


def _in_time(task: Task, context: Context, size: Size) -> Iterator[Row]:
    """Yield a task's rows; where it fails, one that says why."""
    try:
        assert context.until is not None
        if context.until <= time.monotonic():
            raise RowFailed("no time was left for it")
        yield from task.make(context, size)
    except Exception as error:
        reason = str(error) if isinstance(error, RowFailed) else f"{type(error).__name__}: {error}"
        first = (reason.strip().splitlines() or ["no message"])[0][:300]
        yield Row(task.work, task.against, [], goal=task.goal, failed=first)


def tasks(size: Size) -> list[Task]:
    """List the tasks in their order: should time run out, what matters less is not measured."""
    goals = {"dpo": (at_least(3.0), at_least(5.0)), "sft": (at_least(2.0), at_least(4.0))}
    steps = [
        Task(
            f"{objective} {shape}",
            f"{objective.upper()} step, {shape} shapes",
            "TRL's best",
            goals[objective][shape != size.large],
            partial(_step, shape=shape, objective=objective, goal=goals[objective][shape != size.large]),
            "steps",
        )
        for shape in dict.fromkeys((size.small[0], size.large, *size.small))
        for objective in ("dpo", "sft")
    ]
    count, tokens, batch = size.answers
    asked = [
        Task(
            f"questions {shape}",
            f"MMLU 1-shot, {shape} shapes",
            "stock lm-eval HFLM, its automatic batch",
            at_least(2.0),
            partial(_questions, shape=shape),
        )
        for shape in dict.fromkeys((size.large, size.small[0]))
    ]
    training = Task("training", f"training of {SHIPPED.stem}, extrapolated", "", at_most(6.0), _training, "steps")
    answers = Task(
        "answers",
        f"{count} answers of {tokens} tokens, {size.large} shapes",
        f"`generate` at batch {batch}",
        at_least(10.0),
        _answers,
    )
    start = Task("start", f"from start to the first step, {size.large} shapes", "", at_most(40.0), _start)
    reference = Task(
        "reference",
        f"reference pass, {size.reference_pairs} pairs, {size.small[0]} shapes",
        "",
        at_most(10.0),
        _reference,
    )
    return [*steps[:4], training, *steps[4:], answers, *asked, reference, start]


def suite_of(folder: Path, size: Size, shape: str, pairs: int, rows: int, **changes: Any) -> dict[str, Any]:
    """Return a suite on rows of the built-in world, with everything left open that finds by itself what is fastest."""
    from bench.settings import Model

    dpo, sft = size.batches.get(shape, (4, 8))
    model: dict[str, Any] = {"source": "random", "dtype": size.dtype}
    if "compile" in Model.model_fields:
        model["compile"] = "auto"
    if size.shortest or not (folder / "pairs.jsonl").exists():
        shapes.write_rows(folder, pairs + 2, rows + 2, size.shortest)
    lora = {"rank": 16, "alpha": 16, "targets": shapes.targets(shape)}
    training_settings = {"batch_size": {"dpo": dpo, "sft": sft}}
    return material.suite(
        folder, size.dtype, pairs, rows, **{"model": model, "lora": lora, "training": training_settings} | changes
    )


# ---- training steps --------------------------------------------------------------------------------------------------


def _step(context: Context, size: Size, shape: str, objective: str, goal: Goal) -> Iterator[Row]:
    """Measure a step against TRL's, and what it comes to in tokens and model FLOPs a second."""
    rounds, batch = size.rounds[shape], size.batches[shape][objective == "sft"]
    warm_up = size.warm_up[shape]
    steps = warm_up + rounds + 1
    folder = context.folder(f"gpu-{objective}-{shape}")
    pairs, instructions = (steps * one for one in size.batches[shape])
    suite = suite_of(folder, size, shape, pairs, instructions)
    own: dict[str, Any] = {"shape": shape, "device": size.device}
    with ExitStack() as stack:
        ours = stack.enter_context(
            Side(
                context,
                "benchmarks.on_card:ours",
                suite=suite,
                folder=f"{folder}/ours",
                job=f"{objective}-optimum",
                **own,
            )
        )
        told = ours.ready()
        order = [row for one in told["batches"][objective][:steps] for row in one]
        trl = stack.enter_context(
            Side(
                context,
                "benchmarks.on_card:trl",
                dtype=size.dtype,
                objective=objective,
                rows=_rows_for_trl(folder, told, objective, order),
                batch_size=batch,
                folder=f"{folder}/trl",
                screened_steps=4,
                **own,
            )
        )
        best = trl.ready()
        context.say(f"{rounds} rounds of ours, TRL ({best['settings']})")
        taken = alternate({"ours": ours.turn, "TRL": trl.turn}, rounds, warm_up)
    yield from step_rows(size, shape, objective, goal, told, best, taken)


def _rows_for_trl(folder: Path, told: Mapping[str, Any], objective: str, order: Sequence[int]) -> list[dict[str, Any]]:
    if objective == "sft":
        return [training.for_trl(told["examples"]["sft"][row]) for row in order]
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    return [pairs[row] for row in order]


def step_rows(
    size: Size,
    shape: str,
    objective: str,
    goal: Goal,
    told: Mapping[str, Any],
    best: Mapping[str, Any],
    taken: Mapping[str, list[dict[str, Any]]],
) -> Iterator[Row]:
    """Turn what was taken into rows: the ratio; of SFT on the large shape tokens and model FLOPs a second, too."""
    work, ours = f"{objective.upper()} step, {shape} shapes", taken["ours"]
    difference = training.same_losses(dict(taken), "TRL", size.dtype)
    seconds = {name: [one["seconds"] for one in results] for name, results in taken.items()}
    tokens, forward = [one["tokens"] for one in ours], ours[-1]["forward"]
    facts = {
        "largest_loss_difference": difference,
        "batch": size.batches[shape][objective == "sft"],
        "tokens_a_step": tokens,
        "forward": forward,
        "peak_bytes": max(one["peak_bytes"] for one in ours),
        "trl": dict(best),
    }
    path = ", ".join(f"{name} {value}" for name, value in forward.items() if name != "notes")
    notes = [
        f"{work}: {facts['batch']} {'pairs' if objective == 'dpo' else 'rows'} a step; ours: {path}; TRL: {best['settings']}; "
        f"losses differ by {difference:.1e} at most."
    ]
    yield Row(
        work,
        "TRL's best",
        ratios(seconds["TRL"], seconds["ours"]),
        goal=goal,
        sides={"ours_seconds": seconds["ours"], "other_seconds": seconds["TRL"]},
        facts=facts,
        notes=[*notes, *(f"{work}: {note}." for note in forward["notes"])],
    )
    if objective != "sft" or shape != size.large:
        return
    yield Row(f"{work}: tokens a second", "", ratios(tokens, seconds["ours"]), unit="/s", goal=at_least(15_000))
    counted = [one["model_flops"] for one in ours]
    if None in counted:
        raise RowFailed("the model FLOPs of this shape are not counted")
    rates = ratios(counted, seconds["ours"])
    yield Row(
        f"{work}: model FLOPs a second",
        "the card's own matrix rate",
        [rate / told["matrix_rate"] for rate in rates],
        goal=at_least(0.55),
        sides={"model_flops_per_second": rates, "matmul_flops_per_second": [told["matrix_rate"]]},
    )


# ---- a whole suite's training, from its kinds of steps ---------------------------------------------------------------


def _training(context: Context, size: Size) -> Iterator[Row]:
    """Clock each kind of step alone and multiply with how often the shipped suite takes it."""
    import yaml

    shipped = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    work = planned_work(shipped)
    folder = context.folder("gpu-training")
    count = 4 * (size.kind_steps + 2)
    pairs, instructions = (count * one for one in size.batches[size.large])
    # Adapter, micro-batches and what is kept of activations as the suite has them
    suite = suite_of(folder, size, size.large, pairs, instructions, lora=shipped["lora"])
    suite["model"] |= {name: shipped["model"][name] for name in ("gradient_checkpointing",) if name in shipped["model"]}
    suite["training"] |= {name: shipped["training"].get(name) for name in ("micro_batch_size",)}
    seconds = call(
        context,
        "benchmarks.on_card:kinds",
        shape=size.large,
        device=size.device,
        suite=suite,
        folder=f"{folder}/results",
        work=sorted(work),
        steps=size.kind_steps,
    )
    hours = sum(count * seconds[one] for one, count in work.items()) / 3600
    parts = ", ".join(f"{one} {seconds[one]:.3g} s × {count:,.0f}" for one, count in sorted(work.items()))
    yield Row(
        f"training of {SHIPPED.stem}, extrapolated",
        "",
        [hours],
        unit="GPU-hours",
        goal=at_most(6.0),
        facts={"seconds": seconds, "steps": work},
        notes=[
            f"{SHIPPED.stem}: {parts}; no run ends early, MAXRIGHT takes half its steps on either objective, and rows "
            "are as long as the real sets' on average."
        ],
    )


def planned_work(suite: dict[str, Any]) -> dict[str, float]:
    """Count how often a suite's runs are expected to take each kind of step, its shared phases once."""
    from bench.plan import planner
    from bench.suite.suite import Suite

    plan = planner.make(Suite.model_validate(suite), None)
    counted: Counter[str] = Counter()
    for job in plan.jobs.values():
        if job.kind == "train":
            shared = job.prefix.step if job.prefix else 0
            counted.update(_work_of(job.run_labels, job.steps, shared))
    return {one: float(count) for one, count in counted.items() if count}


def _work_of(labels: Any, steps: int, shared: int) -> dict[str, float]:
    options, share = labels.options, labels.lambda_dpo
    if labels.base_method == "mix":
        return {"joint" if options.get("backward", "joint") == "joint" else "accumulate": steps}
    if labels.base_method == "alright":
        return {"dpo": share * steps, "sft": (1 - share) * steps}
    if labels.base_method == "maxright":
        looks = steps / options.get("max_eval_every", 1)
        return {"dpo": steps / 2, "sft": steps / 2, "probe_dpo": looks, "probe_sft": looks}
    phases: dict[str, float] = dict(labels.phase_steps)
    phases[labels.order.split("_")[0]] -= shared
    return phases


# ---- answers, questions, start, reference ----------------------------------------------------------------------------


def _answers(context: Context, size: Size) -> Iterator[Row]:
    count, tokens, batch = size.answers
    found = call(
        context,
        "benchmarks.on_card:answers",
        shape=size.large,
        device=size.device,
        dtype=size.dtype,
        prompts=shapes.prompts(count, (10, 30) if size.shortest else (60, 180)),
        new_tokens=tokens,
        batch_size=batch,
        stock_prompts=batch,
    )
    # By tokens: an answer may end early, and the stock side answered one batch of them.
    stock = found["stock_seconds"] / found["stock_tokens"] * found["tokens"]
    facts = found["facts"]
    how = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "notes")
    yield Row(
        f"{count} answers of {tokens} tokens, {size.large} shapes",
        f"`generate` at batch {batch}",
        [stock / found["seconds"]],
        goal=at_least(10.0),
        sides={"ours_seconds": [found["seconds"]], "other_seconds": [stock]},
        facts=found,
        notes=[
            f"Answers: {how}; `generate` answered {batch} prompts with the adapter beside the weights, and its seconds a token "
            "are those of all answers.",
            *(f"Answers: {note}." for note in facts.get("notes", ())),
        ],
    )


def _questions(context: Context, size: Size, shape: str) -> Iterator[Row]:
    mirror = material.make_mirror(context.folder("gpu-questions"))
    settings: dict[str, Any] = {
        "shape": shape,
        "device": size.device,
        "dtype": size.dtype,
        "mirror": str(mirror),
        "tasks": [f"mmlu_{subject}" for subject in material.mmlu_subjects()[:: size.subjects]],
        "limit": size.questions,
    }
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(Side(context, f"benchmarks.on_card:{function}", **settings))
            for name, function in (("ours", "our_questions"), ("lm-eval", "stock_questions"))
        }
        for side in sides.values():
            side.ready()
        taken = alternate({name: side.turn for name, side in sides.items()}, rounds=1)
    yield questions_row(shape, taken)


def questions_row(shape: str, taken: Mapping[str, list[dict[str, Any]]]) -> Row:
    """Compare both sides' seconds; their accuracies must be the same but for ties.

    Raises:
        RowFailed: they are not.
    """
    ours, stock = taken["ours"][0]["answers"], taken["lm-eval"][0]["answers"]
    clear = [key for key, one in stock.items() if _lead(one["logps"]) > TIE]
    if clear:
        accuracies = [sum(side[key]["correct"] for key in clear) / len(clear) for side in (ours, stock)]
        if abs(accuracies[0] - accuracies[1]) > 0.003:
            raise RowFailed(f"accuracies differ, ties aside: {accuracies[0]:.4f} (ours) and {accuracies[1]:.4f}")
    seconds = {name: [one["seconds"] for one in results] for name, results in taken.items()}
    last = taken["ours"][-1]
    return Row(
        f"MMLU 1-shot, {shape} shapes",
        "stock lm-eval HFLM, its automatic batch",
        ratios(seconds["lm-eval"], seconds["ours"]),
        goal=at_least(2.0),
        sides={"ours_seconds": seconds["ours"], "other_seconds": seconds["lm-eval"]},
        facts={
            "contexts": last["contexts"],
            "rows_at_once": last["rows"],
            "questions": len(stock),
            "clear": len(clear),
        },
        notes=[
            "Questions: both sides load model and tasks before the clock starts and have asked once before; stock lm-eval finds "
            "its batch and tokenizes in each turn, as it does for each policy, and ours keeps the tokens between policies.",
            f"MMLU, {shape} shapes: {len(stock)} generated questions, {len(clear)} of them with a best answer that leads by more "
            f"than {TIE:g} nats, where accuracies agree to 3 in 1,000; {last['contexts']} contexts, {last['rows']} rows at once.",
        ],
    )


def _lead(logps: Sequence[float]) -> float:
    best, second = sorted(logps, reverse=True)[:2]
    return best - second


def _start(context: Context, size: Size) -> Iterator[Row]:
    """Clock a process from its start to the end of the first step, its weights on a disk that has just written them."""
    folder = context.folder("gpu-start")
    batches = size.batches[size.large]
    suite = suite_of(folder, size, size.large, 8 * batches[0], 8 * batches[1])
    weights = folder / "model"
    if not any(weights.glob("*.safetensors")):
        raise RowFailed("its weights were not written in time")
    suite["model"] |= {"source": "local", "path": str(weights)}
    started = time.perf_counter()
    with Side(
        replace(context, preload=""),
        "benchmarks.on_card:first_step",
        suite=suite,
        folder=f"{folder}/results",
        job="sft-optimum",
        device=size.device,
    ) as side:
        side.first()
        seconds = time.perf_counter() - started
    yield Row(
        f"from start to the first step, {size.large} shapes",
        "",
        [seconds],
        unit="s",
        goal=at_most(40.0),
        facts={"bytes": sum(file.stat().st_size for file in weights.iterdir())},
        notes=[
            "Start: a process from its start to the end of its first SFT step; an earlier row has compiled its shapes."
        ],
    )


def _reference(context: Context, size: Size) -> Iterator[Row]:
    shape, folder = size.small[0], context.folder("gpu-reference")
    suite = suite_of(folder, size, shape, size.reference_pairs, 2 * size.batches[shape][1])
    found = call(
        context,
        "benchmarks.on_card:reference",
        shape=shape,
        device=size.device,
        suite=suite,
        folder=f"{folder}/results",
    )
    yield Row(
        f"reference pass, {size.reference_pairs} pairs, {shape} shapes",
        "",
        [found["seconds"]],
        unit="s",
        goal=at_most(10.0),
        facts=found,
        notes=[f"Reference: {note}." for note in found["notes"]],
    )
