"""Multiple-choice questions: this project's way through lm-eval against stock lm-eval on the same ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.rows import Context, Row, RowFailed, at_least
from benchmarks.sides import Side, Turns
from benchmarks.timing import alternate, ratios

BATCH = 8
# Log-probabilities of float32; bfloat16 rounds differently in batches of another shape.
SAME_LOGPS = 1e-4


def rows(context: Context) -> Iterator[Row]:
    """Ask questions of three subjects, in float32, and in bfloat16 too unless it has to be quick."""
    # As in use: the more questions a subject has (250 on average), the more of them share its solved example.
    subjects = material.mmlu_subjects()[::28]
    limit = 14 if context.quick else 20
    for dtype in ("float32",) if context.quick else ("float32", "bfloat16"):
        settings: dict[str, Any] = {
            "source": material.smollm2(dtype),
            "mirror": str(context.mirror),
            "tasks": [f"mmlu_{subject}" for subject in subjects],
            "limit": limit,
        }
        with ExitStack() as stack:
            sides = {
                name: stack.enter_context(Side(context, f"benchmarks.evaluation:{function}", **settings))
                for name, function in (("ours", "ours"), ("lm-eval", "stock"))
            }
            for side in sides.values():
                side.ready()
            rounds = 1 if context.quick else 3 if dtype == "float32" else 2
            context.say(f"MMLU 1-shot, {dtype}: {rounds} rounds of ours, lm-eval on {len(subjects) * limit} questions")
            taken = alternate({name: side.turn for name, side in sides.items()}, rounds)
        yield _row(dtype, subjects, taken)


def _row(dtype: str, subjects: Sequence[str], taken: dict[str, list[dict[str, Any]]]) -> Row:
    ours, stock = taken["ours"][0]["answers"], taken["lm-eval"][0]["answers"]
    difference = max(
        abs(one - other) for key in stock for one, other in zip(ours[key]["logps"], stock[key]["logps"], strict=True)
    )
    accuracy = {name: _accuracy(taken[name][0]["answers"]) for name in taken}
    contexts = taken["ours"][0]["contexts"]
    if contexts == "stock":
        raise RowFailed("ours found that this model cannot share contexts, and asked as stock lm-eval does")
    if dtype == "float32" and difference > SAME_LOGPS:
        raise RowFailed(f"log-probabilities differ by {difference:.3g} (allowed {SAME_LOGPS:g})")
    if dtype == "float32" and accuracy["ours"] != accuracy["lm-eval"]:
        raise RowFailed(f"accuracies differ: {accuracy}")
    seconds = {name: [one["seconds"] for one in results] for name, results in taken.items()}
    return Row(
        f"MMLU 1-shot, {dtype}",
        "stock lm-eval HFLM, same questions",
        ratios(seconds["lm-eval"], seconds["ours"]),
        goal=at_least(2.5),
        sides={"ours_seconds": seconds["ours"], "other_seconds": seconds["lm-eval"]},
        facts={
            "accuracy": accuracy,
            "largest_logp_difference": difference,
            "subjects": list(subjects),
            "contexts": contexts,
        },
        notes=[
            f"{len(stock)} questions, the first of the subjects {', '.join(subjects)}; {dtype}: log-probabilities differ by "
            f"{difference:.1e} nats at most, accuracies are {accuracy['ours']:.4f} (ours) and {accuracy['lm-eval']:.4f}."
        ],
    )


def _accuracy(answers: dict[str, dict[str, Any]]) -> float:
    return float(sum(one["correct"] for one in answers.values()) / len(answers))


def ours(turns: Turns, source: dict[str, Any], mirror: str, tasks: Sequence[str], limit: int) -> None:
    """Ask all questions once a turn, this project's way."""
    import torch

    from bench.evaluators import lm_eval
    from bench.evaluators.options import LmEval
    from bench.models import policy
    from bench.settings import Model

    asked = policy.load(Model(**source), torch.device("cpu"))
    settings = LmEval(tasks=tuple(tasks), shots=1, limit=limit, batch_size=BATCH)
    turns.ready({})
    while True:
        turns.wait()
        started = time.perf_counter()
        _, found, _ = lm_eval.ask(asked, settings, Path(mirror), lambda text: None)
        seconds = time.perf_counter() - started
        answers = {
            f"{row.get('task')}/{row['id']}": {"logps": row["logps"], "correct": int(row["outcomes"]["acc"])}
            for row in found
        }
        turns.done({"seconds": seconds, "answers": answers, "contexts": asked.model.bench_contexts})


def stock(turns: Turns, source: dict[str, Any], mirror: str, tasks: Sequence[str], limit: int) -> None:
    """Load the tasks and ask all questions once a turn, as lm-eval does by itself."""
    model, tokenizer = material.stock_model(source)
    turns.ready({})
    while True:
        turns.wait()
        started = time.perf_counter()
        results = ask_stock(model, tokenizer, load_tasks(mirror, tasks), limit)
        seconds = time.perf_counter() - started
        turns.done({"seconds": seconds, "answers": answers_of(results)})


def answers_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what lm-eval's results say of each question: the choices' log-probabilities, and whether it was right."""
    return {
        f"{task}/{row['doc_id']}": {
            "logps": [float(reply[0]) for reply in row["filtered_resps"]],
            "correct": int(row["acc"]),
        }
        for task, found in results["samples"].items()
        for row in found
    }


def checkpoint(
    turns: Turns, begun: float, source: dict[str, Any], adapter: str, mirror: str, settings: dict[str, Any]
) -> Any:
    """Ask one checkpoint a suite's questions as a run of lm-eval does: seconds of all, and of asking alone."""
    import peft

    del turns
    base, tokenizer = material.stock_model(source)
    model = peft.PeftModel.from_pretrained(base, adapter)
    started = time.time()
    ask_stock(model, tokenizer, load_tasks(mirror, settings["tasks"]), settings["limit"])
    ended = time.time()
    return {"seconds": ended - begun, "work": ended - started}


def ask_stock(model: Any, tokenizer: Any, loaded: dict[str, Any], limit: int) -> Any:
    """Evaluate with lm-eval's own model class."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    return evaluate(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH), loaded, limit=limit)


def load_tasks(mirror: str, tasks: Sequence[str]) -> dict[str, Any]:
    """Load lm-eval's own MMLU tasks with one shot and the mirror as the data's place."""
    from tempfile import TemporaryDirectory

    import yaml
    from lm_eval.tasks import TaskManager

    stock_files = Path(material.package_folder("lm_eval")) / "tasks" / "mmlu" / "default"
    loaded: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        for task in tasks:
            place = {
                "include": str(stock_files / f"{task}.yaml"),
                "dataset_path": f"{mirror}/datasets/{material.QUESTIONS}",
            }
            (Path(folder) / f"{task}.yaml").write_text(yaml.safe_dump(place), encoding="utf-8")
        manager = TaskManager(include_defaults=False, include_path=folder)
        for task in tasks:
            loaded |= manager.load(task)["tasks"]
    for one in loaded.values():
        one.set_config("num_fewshot", 1)
        one.set_fewshot_seed(1234)  # lm-eval's default
    return loaded
