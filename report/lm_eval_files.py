"""Write what lm-eval's tasks were answered in lm-eval's own form: results_DATE.json and samples_TASK_DATE.jsonl.

lm-eval's tools, and others that read its output, read these as they read its own. What the records do not hold is not in
them: texts of questions, prompts, targets and generated answers are empty, hashes stand for them (16 letters of lm-eval's
64). Names of a group's parts are GROUP_PART, as lm-eval has them for MMLU; groups inside groups are flat.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.records.metrics import Metric
from bench.records.record import Job
from bench.records.safe_files import write_text
from bench.records.suite_record import SuiteRecord

KIND = "lm_eval"
NO_FILTER = "none"
_NATS_A_BIT = math.log(2)


def write(record: SuiteRecord, folder: Path) -> list[Path]:
    """Write a folder a policy, named like lm-eval names it; return the results files.

    Args:
        record: a suite's records.
        folder: where the folders go.
    """
    written = []
    for job in record.jobs.values():
        if job.kind == KIND and job.complete:
            written.append(_write(_Asked(record, job), folder))
    return written


def _write(asked: _Asked, folder: Path) -> Path:
    place = folder / re.sub(r"[\"<>:/|\\?*\[\]]+", "__", asked.model)
    place.mkdir(parents=True, exist_ok=True)
    for task, rows in asked.samples().items():
        lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        write_text(place / f"samples_{task}_{asked.date_id}.jsonl", lines)
    path = place / f"results_{asked.date_id}.json"
    write_text(path, f"{json.dumps(asked.results(), indent=2, ensure_ascii=False)}\n")
    return path


class _Asked:
    """Tell one evaluation of one policy.

    Attributes:
        model: SUITE/POLICY.
        groups: group -> its parts, of groups that lm-eval aggregates.
    """

    def __init__(self, record: SuiteRecord, job: Job) -> None:
        self.record, self.job = record, job
        of = str(job.labels.get("of", "base"))
        self.model = f"{record.name}/{of.rpartition('-')[0] or of}"
        self.rows = list(job.rows("samples"))
        self.settings = dict(job.spec["settings"].get("lm_eval") or {})
        self.facts = dict(job.data.get("tasks") or {})
        self.groups: dict[str, list[str]] = {}
        for name in job.scores:
            group, _, rest = name.partition("/")
            part = rest.partition("/")[2]
            if part and part not in self.groups.setdefault(group, []):
                self.groups[group].append(part)

    @property
    def date_id(self) -> str:
        """When it ended, as lm-eval writes it into names of files; the same records give the same names."""
        return self._ended.replace(tzinfo=None).isoformat(timespec="microseconds").replace(":", "-")

    @property
    def _ended(self) -> datetime:
        return datetime.fromisoformat(str(self.job.status["finished"]))

    # ---- results -----------------------------------------------------------------------------------------------------

    def results(self) -> dict[str, Any]:
        """Return the file of results."""
        every: dict[str, dict[str, Any]] = {}
        better: dict[str, dict[str, bool | None]] = {}
        for name, score in self.job.scores.items():
            metric = self.job.metric(name)
            if metric.kind != "score":
                continue
            task, key = self._placed(name)
            one = every.setdefault(task, {"name": task, "alias": self._alias(task), "sample_len": score.get("n")})
            figure, _, of_filter = key.partition(",")
            one[f"{figure},{of_filter}"] = score["value"]
            error = score.get("standard_error")
            one[f"{figure}_stderr,{of_filter}"] = "N/A" if error is None else error
            better.setdefault(task, {})[figure] = {"higher": True, "lower": False}.get(metric.better or "")
        counts = {task: one["sample_len"] for task, one in every.items() if task not in self.groups}
        groups = {name: every[name] for name in self.groups if name in every}
        return {
            "results": every,
            **({"groups": groups} if groups else {}),
            "group_subtasks": {
                group: [self._task(group, one) for one in parts] for group, parts in self.groups.items()
            },
            "configs": {task: self._config(task, better[task]) for task in counts},
            "versions": {task: self._fact(task, "version") for task in every},
            "n-shot": {task: self._fact(task, "shots") for task in every},
            "higher_is_better": better,
            "n-samples": {
                task: {"original": None if self.settings.get("limit") else count, "effective": count}
                for task, count in counts.items()
            },
            **self._how(),
        }

    def _placed(self, name: str) -> tuple[str, str]:
        """Return a score's task and its metric,filter as lm-eval has them: mmlu/acc/anatomy is acc,none of mmlu_anatomy."""
        task, _, rest = name.partition("/")
        key, _, part = rest.partition("/")
        return self._task(task, part), key if "," in key else f"{key},{NO_FILTER}"

    @staticmethod
    def _task(task: str, part: str) -> str:
        return f"{task}_{part}" if part else task

    def _owner(self, task: str) -> str:
        """Return the group that a part is of; a task that is none is its own."""
        return next((g for g, parts in self.groups.items() for one in parts if self._task(g, one) == task), task)

    def _alias(self, task: str) -> str:
        owner = self._owner(task)
        return task if owner == task else task.removeprefix(f"{owner}_")

    def _fact(self, task: str, name: str) -> Any:
        return self.facts.get(self._owner(task), {}).get(name)

    def _config(self, task: str, better: Mapping[str, bool | None]) -> dict[str, Any]:
        owner = self._owner(task)
        return {
            "task": task,
            **({"group": owner} if owner != task else {}),
            "dataset_path": str(self._fact(task, "data") or ""),
            "output_type": self._output_type(owner),
            "num_fewshot": self._fact(task, "shots"),
            "metric_list": [{"metric": name, "higher_is_better": higher} for name, higher in better.items()],
            "metadata": {"version": self._fact(task, "version")},
        }

    def _output_type(self, owner: str) -> str:
        if any("logps" in row for row in self.rows if row["task"] == owner):
            return "multiple_choice"
        documents = any(
            self.job.metric(name).item == "document" for name in self.job.scores if name.startswith(f"{owner}/")
        )
        return "loglikelihood_rolling" if documents else "generate_until"

    def _how(self) -> dict[str, Any]:
        """Say what was evaluated, when and with what."""
        environment = self.job.spec.get("environment", {})
        packages = environment.get("packages", {})
        base = self.job.spec["settings"].get("model", {})
        name, revision = base.get("path") or base.get("source"), base.get("revision")
        seconds = float(self.job.status.get("seconds") or 0.0)
        arguments = [f"pretrained={name}", *([f"revision={revision}"] if revision else [])]
        arguments += [f"dtype={base['dtype']}"] if "dtype" in base else []
        arguments += [] if self.job.labels.get("of", "base") == "base" else [f"peft={self.model}"]
        return {
            "config": {
                "model": "hf",
                "model_args": ",".join(arguments),
                "batch_size": None,
                "device": environment.get("device"),
                "limit": self.settings.get("limit"),
            },
            "git_hash": environment.get("commit"),
            "date": self._ended.timestamp() - seconds,
            "transformers_version": packages.get("transformers"),
            "lm_eval_version": self.job.data.get("lm_eval"),
            "task_hashes": {},  # lm-eval hashes whole hashes and targets
            "model_source": "hf",
            "model_name": self.model,
            "model_name_sanitized": self.model.replace("/", "__"),
            "system_instruction": None,
            "system_instruction_sha": None,
            "fewshot_as_multiturn": bool(self.settings.get("chat_template")),
            "chat_template": None,
            "chat_template_sha": self.job.data.get("chat_template_hash"),
            "total_evaluation_time_seconds": str(seconds),
        }

    # ---- samples -----------------------------------------------------------------------------------------------------

    def samples(self) -> dict[str, list[dict[str, Any]]]:
        """Return task -> rows: one a question and filter, numbered within the task."""
        made: dict[str, list[dict[str, Any]]] = {}
        counts: dict[str, int] = {}
        for row in self.rows:
            task = self._task(row["task"], row["subject"]) if row["task"] in self.groups else row["task"]
            place = counts.get(task, 0)
            counts[task] = place + 1
            made.setdefault(task, []).extend(self._sample(row, place))
        return made

    def _sample(self, row: Mapping[str, Any], place: int) -> Iterator[dict[str, Any]]:
        by_filter: dict[str, dict[str, Any]] = {}
        for key, outcome in row["outcomes"].items():
            figure, _, of_filter = key.partition(",")
            by_filter.setdefault(of_filter or NO_FILTER, {})[figure] = _native(figure, self._metric(row, key), outcome)
        target = "" if row.get("answer") is None else str(row["answer"])
        logps = row.get("logps") or []
        for of_filter, outcomes in by_filter.items():
            yield {
                "doc_id": place,
                "doc": {"id": row["id"], "subject": row["subject"]},
                "target": target,
                "arguments": {f"gen_args_{n}": {"arg_0": "", "arg_1": ""} for n in range(max(1, len(logps)))},
                "resps": [[[str(one), "False"]] for one in logps] or [[""]],
                "filtered_resps": [[str(one), "False"] for one in logps] or [""],
                "filter": of_filter,
                "metrics": list(outcomes),
                "doc_hash": row["question_hash"],
                "prompt_hash": row["prompt_hash"],
                "target_hash": hashlib.sha256(target.encode()).hexdigest(),
                **outcomes,
            }

    def _metric(self, row: Mapping[str, Any], key: str) -> Metric:
        return self.job.metric(f"{row['task']}/{key}")


def _native(figure: str, metric: Metric, outcome: Any) -> Any:
    """Return an outcome as lm-eval has it: of likelihoods, the log-likelihood in nats instead of a loss."""
    if isinstance(outcome, list) and (metric.scale == "log" or figure == "bits_per_byte"):
        total, weight = outcome
        return [-total * (_NATS_A_BIT if figure == "bits_per_byte" else 1.0), weight]
    return -outcome if metric.scale == "log" and not isinstance(outcome, list) else outcome
