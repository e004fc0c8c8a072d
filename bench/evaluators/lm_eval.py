"""Multiple-choice questions by lm-eval, asked of the model already in memory: its tasks, its figures, named for the record."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import ModelError, OutOfMemory
from bench.evaluators import lm_eval_index, lm_eval_tasks
from bench.evaluators.lm_eval_index import WORLD
from bench.evaluators.options import LmEval
from bench.models.policy import Policy
from bench.quiet import quiet

# lm-eval draws random shots (MMLU takes the first ones) with this seed by default
_SHOTS_SEED = 1234
# Means have a closed formula; only other metrics (F1, perplexity) are resampled for their standard error
_BOOTSTRAP_ITERATIONS = 1000
_HASH_LETTERS = 16

Scores = dict[str, dict[str, Any]]
Rows = list[dict[str, Any]]


def ask(policy: Policy, settings: LmEval, mirror: Path | None, tell: Callable[[str], None]) -> tuple[Scores, Rows]:
    """Ask every task of `settings` and score the answers.

    Returns:
        Scores by name (`mmlu/acc`, `mmlu/acc/<subject>`) and one row per question: subject, id, hashes of question and
        prompt, answer, choice, correct and the choices' log-probabilities in nats; never the prompts.

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
        loaded = _load(name, settings, mirror)
        results = _evaluate(policy, settings, loaded, None if name == WORLD else settings.limit, tell)
        scores |= _scores(name, loaded, results)
        task = {"task": name} if len(settings.tasks) > 1 else {}
        rows += [{**task, **row} for row in _rows(loaded, results["samples"])]
    return scores, rows


def facts(policy: Policy, settings: LmEval, mirror: Path | None, rows: Rows) -> dict[str, Any]:
    """Say what was asked, for the record: figures compare only where the hashes of questions and prompts are equal.

    Returns:
        lm-eval's version, the chat template's hash (null: none), and by task: version, shots, where its data is from,
        how many questions, hashes of all questions and of all prompts in their order.
    """
    template = policy.tokenizer.chat_template if settings.chat_template else None
    tasks = {}
    for name in settings.tasks:
        loaded = _load(name, settings, mirror)
        asked = [row for row in rows if row.get("task", name) == name]
        every = list(loaded["tasks"].values())
        tasks[name] = {
            "version": _only({str(task.VERSION) for task in every}),
            "shots": _only({task.config.num_fewshot or 0 for task in every}),
            "data": _only({lm_eval_tasks.data_identity(task, mirror) for task in every}),
            "questions": len(asked),
            **{f"{what}_hash": _hash("".join(row[f"{what}_hash"] for row in asked)) for what in ("question", "prompt")},
        }
    return {
        "lm_eval": lm_eval_index.lm_eval_version(),
        "chat_template_hash": None if template is None else _hash(str(template)),
        "tasks": tasks,
    }


def _only(values: set[Any]) -> Any:
    """Return what all tasks of a group have in common, or the list of what they have."""
    return next(iter(values)) if len(values) == 1 else sorted(values)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LETTERS]


def _load(name: str, settings: LmEval, mirror: Path | None) -> lm_eval_tasks.Tasks:
    return lm_eval_tasks.load(name, settings.shots, settings.limit if name == WORLD else None, mirror)


def clustered_standard_error(values: Mapping[str, Sequence[float]]) -> float:
    """Return the standard error of the mean over all values when those of one cluster may be correlated.

    arXiv 2411.00640, Eq. 4: sqrt(Σ_c (Σ_i (s_ic − s̄))²) / n.
    """
    every = [value for cluster in values.values() for value in cluster]
    mean = math.fsum(every) / len(every)
    sums = (math.fsum(value - mean for value in cluster) for cluster in values.values())
    return math.sqrt(math.fsum(total * total for total in sums)) / len(every)


def _evaluate(
    policy: Policy, settings: LmEval, loaded: lm_eval_tasks.Tasks, limit: int | None, tell: Callable[[str], None]
) -> Any:
    import torch
    from lm_eval.evaluator import evaluate

    from bench.evaluators.lm_eval_model import SharedContextLM

    tasks = list(loaded["tasks"].values())
    for task in tasks:
        task.set_fewshot_seed(_SHOTS_SEED)
    tokenizer, padding = policy.tokenizer, policy.tokenizer.pad_token
    template = (tokenizer.name_or_path, tokenizer.chat_template) if settings.chat_template else None
    try:
        with quiet("lm_eval"), lm_eval_tasks.keep_requests(tasks, (limit, template)):
            model = SharedContextLM(
                pretrained=policy.model, tokenizer=tokenizer, batch_size=settings.batch_size, tell=tell
            )
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
                clusters = _by_subject(key, results["samples"])
                # with one subject there is nothing to cluster by
                error = clustered_standard_error(clusters) if len(clusters) > 1 else None
                entry |= {"standard_error": error, **_interval(metric, entry["value"], error, len(clusters))}
    for task_name, task in loaded["tasks"].items():
        scores |= _figures(name, f"/{_subject(task_name, task)}", figures[task_name])
    return scores


def _by_subject(key: str, samples: Mapping[str, Rows]) -> dict[str, list[float]]:
    """Collect a metric's values, per subject."""
    metric, _, kind = key.split("/")[-1].partition(",")
    return {
        task: [float(row[metric]) for row in rows if row["filter"] == (kind or "none")]
        for task, rows in samples.items()
    }


def _interval(metric: str, value: float, error: float | None, independent: int) -> dict[str, float | None]:
    """Return the two-sided 95 % Student-t interval of a mean over `independent` questions or subjects.

    None where nothing can be said: without an error, or where no two answers differ and the error is 0. An accuracy's
    interval ends at 0 and 1.
    """
    from scipy import stats

    if not error or independent < 2:
        return {"low": None, "high": None}
    reach = float(stats.t.ppf(0.975, independent - 1)) * error
    least, most = (0.0, 1.0) if metric.startswith("acc") else (-math.inf, math.inf)
    return {"low": max(least, value - reach), "high": min(most, value + reach)}


def _figures(name: str, suffix: str, figures: Mapping[str, Any]) -> Scores:
    """Turn lm-eval's `metric,filter` figures of one task into entries; the filter `none` is left out of the name."""
    made = {}
    for key, value in figures.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = figures.get(f"{metric}_stderr,{kind}")
        shown = metric if kind == "none" else key
        known_error = float(error) if isinstance(error, int | float) else None
        made[f"{name}/{shown}{suffix}"] = {
            "value": float(value),
            "n": figures["sample_len"],
            "standard_error": known_error,
            **_interval(metric, float(value), known_error, figures["sample_len"]),
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
    row = {
        "subject": given if isinstance(given, str) else subject,
        "id": sample["doc"].get(lm_eval_tasks.WORLD_ID, sample["doc_id"]),
        "question_hash": sample["doc_hash"][:_HASH_LETTERS],
        "prompt_hash": sample["prompt_hash"][:_HASH_LETTERS],
    }
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
