"""Multiple-choice questions by lm-eval, asked of the model already in memory.

MMLU goes through lm-eval's own task files with one key overridden: where the data is (the hub, or an offline mirror).
The built-in world's questions are one more task of the same kind. Every other task comes from lm-eval's index.
lm-eval's answer cache is never used: its key does not name the model.
"""

from __future__ import annotations

import difflib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.errors import DataError, ModelError, OutOfMemory, SuiteError
from bench.evaluators.quiet import quiet
from bench.policy import Policy
from bench.settings import DataSource, LmEval
from bench.sources import locate

WORLD = "world_questions"
MMLU_DATA = "cais/mmlu"
_MMLU_SOURCE = DataSource(source="hub", path=MMLU_DATA, rows=1)
# lm-eval draws random shots (MMLU takes the first ones) with this seed by default
_SHOTS_SEED = 1234
# Means have a closed formula; only other metrics (F1, perplexity) are resampled for their standard error
_BOOTSTRAP_ITERATIONS = 1000

Scores = dict[str, dict[str, Any]]
Rows = list[dict[str, Any]]


def ask(policy: Policy, settings: LmEval, mirror: Path | None, tell: Callable[[str], None]) -> tuple[Scores, Rows]:
    """Ask every task of `settings` and score the answers.

    Returns:
        Scores by name (`mmlu/acc`, `mmlu/acc/<subject>`) and one row per question: subject, id, answer, choice, correct
        and the choices' log-probabilities in nats; never the prompts.

    Raises:
        SuiteError: lm-eval knows no such task.
        DataError: the questions cannot be reached.
        ModelError: a chat template is wanted and the tokenizer has none.
        OutOfMemory: `batch_size` is too large.
    """
    if settings.chat_template and policy.tokenizer.chat_template is None:
        raise ModelError(
            "evaluation.lm_eval.chat_template = true: this model's tokenizer has no chat template; set it to false"
        )
    scores: Scores = {}
    rows: Rows = []
    for name in settings.tasks:
        tell(f"asking {name}")
        loaded = _load(name, settings.shots, settings.limit if name == WORLD else None, mirror)
        results = _evaluate(policy, settings, loaded, None if name == WORLD else settings.limit)
        scores |= _scores(name, loaded, results)
        task = {"task": name} if len(settings.tasks) > 1 else {}
        rows += [{**task, **row} for row in _rows(loaded, results["samples"])]
    return scores, rows


def clustered_standard_error(values: Mapping[str, Sequence[float]]) -> float:
    """Return the standard error of the mean over all values when those of one cluster may be correlated.

    arXiv 2411.00640, Eq. 4: sqrt(Σ_c (Σ_i (s_ic − s̄))²) / n.
    """
    every = [value for cluster in values.values() for value in cluster]
    mean = math.fsum(every) / len(every)
    sums = (math.fsum(value - mean for value in cluster) for cluster in values.values())
    return math.sqrt(math.fsum(total * total for total in sums)) / len(every)


def _evaluate(policy: Policy, settings: LmEval, loaded: Any, limit: int | None) -> Any:
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    for task in loaded["tasks"].values():
        task.set_fewshot_seed(_SHOTS_SEED)
    tokenizer, padding = policy.tokenizer, policy.tokenizer.pad_token
    try:
        with quiet("lm_eval"):
            model = HFLM(pretrained=policy.model, tokenizer=tokenizer, batch_size=settings.batch_size)
            return evaluate(
                model,
                loaded,
                limit=limit,
                bootstrap_iters=_BOOTSTRAP_ITERATIONS,
                apply_chat_template=settings.chat_template,
                fewshot_as_multiturn=settings.chat_template,
            )
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"out of memory asking questions; lower evaluation.lm_eval.batch_size ({settings.batch_size})"
        ) from error
    finally:
        # lm-eval gives a tokenizer without a padding token one; the policy's tokenizer stays as it was
        tokenizer.pad_token = padding


# ---- tasks -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _load(name: str, shots: int, limit: int | None, mirror: Path | None) -> Any:
    """Build a task, or a group of tasks, once per process: lm-eval's {"tasks", "groups", "group_map"}."""
    with quiet("lm_eval", "datasets", "huggingface_hub"), TemporaryDirectory() as made:
        folder = Path(made)
        if name == WORLD:
            _write_world(folder, limit)
        else:
            _write_mmlu(folder, mirror)
        loaded = _load_from(folder, name, mirror)
        for task in loaded["tasks"].values():
            if task.config.num_fewshot != 0:  # a task that fixes 0 shots keeps them, as in lm-eval itself
                task.set_config("num_fewshot", shots)
    return loaded


def _load_from(folder: Path, name: str, mirror: Path | None) -> Any:
    """Load a task from the files written for it, or from lm-eval's own index (which takes seconds to read)."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False, include_path=str(folder))
    if name not in manager.all_tasks:
        manager = TaskManager()
    elif name != WORLD:
        locate(_MMLU_SOURCE, mirror)  # a mirror without these questions is an error, as for every other data set
    if name not in manager.all_tasks:
        near = difflib.get_close_matches(name, [WORLD, *manager.all_tasks], n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "'lm-eval ls tasks' lists them"
        raise SuiteError(f"evaluation.lm_eval.tasks: lm-eval knows no task {name!r}; {hint}")
    try:
        return manager.load(name)
    except (OSError, ConnectionError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        data = f" with DIR/datasets/{MMLU_DATA}" if name.startswith("mmlu") else ""
        raise DataError(
            f"the questions of {name!r} cannot be reached: the hub is offline and no mirror holds them; go online, or "
            f"pass --mirror DIR (or BENCH_MIRROR){data} ({first})"
        ) from error


def _write_mmlu(folder: Path, mirror: Path | None) -> None:
    """Write a task file for each of lm-eval's MMLU files: the stock one, with the data's place overridden."""
    import lm_eval.tasks

    data = str(mirror / "datasets" / MMLU_DATA) if mirror else MMLU_DATA
    stock = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"
    for file in sorted(stock.glob("*.yaml")):
        is_group = file.name.startswith("_")
        _write_yaml(folder / file.name, {"include": str(file)} | ({} if is_group else {"dataset_path": data}))


def _write_world(folder: Path, limit: int | None) -> None:
    """Write the world's questions and their task file; `limit` is questions per subject."""
    from bench import world

    for split in ("dev", "test"):
        kept: dict[str, Rows] = defaultdict(list)
        for row in world.questions(split):
            if split == "dev" or limit is None or len(kept[row["subject"]]) < limit:
                kept[row["subject"]].append(row)
        lines = [json.dumps(row) + "\n" for rows in kept.values() for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    task = {
        "task": WORLD,
        "dataset_path": "json",
        # read into memory, as the folder does not outlive the loading
        "dataset_kwargs": {
            "data_files": {split: str(folder / f"{split}.jsonl") for split in ("dev", "test")},
            "cache_dir": str(folder / "cache"),
            "keep_in_memory": True,
        },
        "test_split": "test",
        "fewshot_split": "dev",
        "fewshot_config": {"sampler": "first_n"},
        "output_type": "multiple_choice",
        "doc_to_text": world.PROMPT.replace("{question}", "{{question}}"),
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": world.VERSION},
    }
    _write_yaml(folder / f"{WORLD}.yaml", task)


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    import yaml

    path.write_text(yaml.safe_dump(content), encoding="utf-8")


# ---- results ---------------------------------------------------------------------------------------------------------


def _scores(name: str, loaded: Any, results: Any) -> Scores:
    """Name lm-eval's figures; the error of an average over subjects is clustered by subject."""
    figures, group = results["results"], loaded.get("groups", {}).get(name)
    if group is None:
        return {key: value for task in loaded["tasks"] for key, value in _figures(task, "", figures[task]).items()}
    scores = _figures(name, "", figures[name])
    for metric in (entry.metric for entry in group.aggregate_metric_list or () if entry.weight_by_size):
        for key, entry in scores.items():
            if key.split("/")[-1].split(",")[0] == metric:
                entry["standard_error"] = _clustered(key, results["samples"])
    for task_name, task in loaded["tasks"].items():
        scores |= _figures(name, f"/{_subject(task_name, task)}", figures[task_name])
    return scores


def _clustered(key: str, samples: Mapping[str, Rows]) -> float | None:
    """Cluster a metric's values by subject; with one subject there is nothing to cluster by."""
    metric, _, kind = key.split("/")[-1].partition(",")
    chosen = {
        task: [float(row[metric]) for row in rows if row["filter"] == (kind or "none")]
        for task, rows in samples.items()
    }
    return clustered_standard_error(chosen) if len(chosen) > 1 else None


def _figures(name: str, suffix: str, figures: Mapping[str, Any]) -> Scores:
    """Turn lm-eval's `metric,filter` figures of one task into entries; the filter `none` is left out of the name."""
    made = {}
    for key, value in figures.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = figures.get(f"{metric}_stderr,{kind}")
        shown = metric if kind == "none" else key
        made[f"{name}/{shown}{suffix}"] = {
            "value": float(value),
            "n": figures["sample_len"],
            "standard_error": float(error) if isinstance(error, int | float) else None,
        }
    return made


def _subject(task_name: str, task: Any) -> str:
    return str(task.config.task_alias or task_name)


def _rows(loaded: Any, samples: Mapping[str, Rows]) -> Rows:
    """Shorten lm-eval's samples to what a paired comparison of two runs needs."""
    return [
        _row(loaded["tasks"][name], _subject(name, loaded["tasks"][name]), sample)
        for name, of_task in samples.items()
        for sample in of_task
    ]


def _row(task: Any, subject: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    given = sample["doc"].get("subject")
    row = {"subject": given if isinstance(given, str) else subject, "id": sample["doc_id"]}
    if task.OUTPUT_TYPE != "multiple_choice":
        kind = {} if sample["filter"] == "none" else {"filter": sample["filter"]}
        return (
            row
            | kind
            | {metric: sample[metric] for metric in sample["metrics"] if isinstance(sample[metric], int | float)}
        )
    choices, answer = task.doc_to_choice(sample["doc"]), sample["target"]
    logps = [float(reply[0]) for reply in sample["filtered_resps"]][: len(choices)]
    return row | {
        "answer": choices.index(answer) if isinstance(answer, str) and answer in choices else answer,
        "choice": max(range(len(logps)), key=logps.__getitem__),
        "correct": int(sample["acc"]) if "acc" in sample else None,
        "logps": [round(value, 6) for value in logps],
    }
