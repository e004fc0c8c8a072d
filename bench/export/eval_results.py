"""A model's scores in the form in which the hub collects them for its benchmarks' leaderboards: `.eval_results/TASK.yaml`.

Only tasks that have a leaderboard there, and only where all of a task's questions were asked as lm-eval asks them: a part of a
benchmark is no score of it. The card's `model-index` has every figure.

The hub's documentation (huggingface/hub-docs, docs/hub/eval-results.md) names both data sets as benchmarks; the task ids, and
percent as the unit, are as other projects quote the data sets' eval.yaml, which were not read here. Those ask by inspect-ai:
`notes` say that a score here is lm-eval's, and the hub calls none verified that its own jobs did not make.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.records.record import Job
from bench.records.suite_record import SuiteRecord

if TYPE_CHECKING:
    from huggingface_hub import EvalResultEntry

# lm-eval's task -> the benchmark's data set, its id for the task, and the figure that is its score
LEADERBOARDS = {
    "gsm8k": ("openai/gsm8k", "gsm8k", "gsm8k/exact_match,strict-match"),
    "mmlu_pro": ("TIGER-Lab/MMLU-Pro", "mmlu_pro", "mmlu_pro/exact_match,custom-extract"),
}


def write(suite: SuiteRecord, job: Job, folder: Path, records: str) -> list[Path]:
    """Write a file a benchmark; return them.

    Args:
        suite: the suite's records.
        job: the training job whose policy is the model.
        folder: the model's folder.
        records: the data set on the hub that holds the records, which is named as the source.
    """
    import yaml
    from huggingface_hub import eval_result_entries_to_yaml

    written = []
    for task, entry in _entries(suite, job, records):
        path = folder / ".eval_results" / f"{task}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False), encoding="utf-8")
        written.append(path)
    return written


def _entries(suite: SuiteRecord, job: Job, records: str) -> Iterator[tuple[str, EvalResultEntry]]:
    from huggingface_hub import EvalResultEntry

    if suite.info.get("smoke"):
        return
    for asked in suite.jobs.values():
        if asked.kind != "lm_eval" or asked.labels.get("of") != job.id or not asked.complete:
            continue
        settings = asked.spec["settings"]["lm_eval"]
        for task, (data_set, task_id, figure) in LEADERBOARDS.items():
            facts = asked.data.get("tasks", {}).get(task)
            if facts is None or settings.get("limit") is not None or figure not in asked.scores:
                continue
            yield (
                task,
                EvalResultEntry(
                    dataset_id=data_set,
                    task_id=task_id,
                    value=round(100 * asked.scores[figure]["value"], 4),  # leaderboards are in percent
                    dataset_revision=_revision(data_set, facts),
                    date=str(asked.status["finished"])[:10],
                    source_url=f"https://huggingface.co/datasets/{records}",
                    source_name="Records",
                    notes=f"lm-eval {asked.data.get('lm_eval')}, {figure.partition('/')[2]}, {facts['shots']}-shot",
                ),
            )


def _revision(data_set: str, facts: dict[str, Any]) -> str | None:
    """Return the commit that the questions were read at; None where they came from a mirror."""
    name, _, commit = str(facts.get("data", "")).removeprefix("hub:").partition("@")
    return commit if name == data_set and len(commit) == 40 else None
