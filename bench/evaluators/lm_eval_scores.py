"""lm-eval's figures as scores: every metric and filter of a task named and described, and a number for each outcome."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.evaluators import lm_eval_tasks
from bench.records.metrics import Better, Metric

Scores = dict[str, dict[str, Any]]
Rows = list[dict[str, Any]]
Outcome = float | list[float]
"""A number, or [sum, weight] where the score is Σ sum / Σ weight; of a log metric, on the scale of its logarithm."""

_HASH_LETTERS = 16
# What the names of metrics between 0 and 1 are made of; f1 only where lm-eval itself computes it, others give it in percent.
_SHARES = re.compile(r"(^|_)(acc|accuracy|exact_match|em|mc1|mc2|pass|match|correct)(_|@|$)")
_RATIOS = {"perplexity": "log", "weighted_perplexity": "log", "bits_per_byte": "linear"}
_RANGES: dict[str, tuple[float | None, float | None]] = {
    **dict.fromkeys(("perplexity", "weighted_perplexity"), (1.0, None)),
    **dict.fromkeys(("bleu", "chrf"), (0.0, 100.0)),
    **dict.fromkeys(("bits_per_byte", "ter", "brier_score"), (0.0, None)),
    "matthews_corrcoef": (-1.0, 1.0),
}
_WORDS = {"acc": "Accuracy", "acc_norm": "Normalized accuracy"}


def describe(task_name: str, key: str, task: Any) -> Metric:
    """Describe a task's figure from what lm-eval says of it.

    Args:
        task_name: the task or group, as a suite names it.
        key: metric,filter as in lm-eval's results, such as exact_match,strict-match.
        task: a task that has the metric; of a group, any of its tasks.
    """
    metric, _, of_filter = key.partition(",")
    aggregation = aggregation_of(task, metric)
    better: Better | None = {True: "higher", False: "lower"}.get(task.higher_is_better().get(metric))  # type: ignore[assignment]
    is_share = bool(_SHARES.search(metric)) or (metric == "f1" and aggregation == "f1_score")
    low, high = (0.0, 1.0) if is_share else _RANGES.get(aggregation, (None, None))
    words = _WORDS.get(metric, metric.replace("_", " ").capitalize())
    of = task_name if of_filter == "none" else f"{task_name}, {of_filter}"
    return Metric(
        name=f"{task_name}/{metric if of_filter == 'none' else key}",
        title="MMLU" if (task_name, metric) == ("mmlu", "acc") else f"{words} ({of})",
        unit="share" if is_share else "",
        better=better,
        kind="score",
        meaning=f"lm-eval's {metric} of {of}",
        low=low,
        high=high,
        gate=better is not None,
        tolerance=0.01,
        relative=not is_share,
        item="document" if task.OUTPUT_TYPE == "loglikelihood_rolling" else "question",
        scale="log" if _RATIOS.get(aggregation) == "log" else "linear",
    )


def aggregation_of(task: Any, metric: str) -> str:
    """Name the function that makes a task's score of its outcomes."""
    return str(getattr(task.aggregation().get(metric), "__name__", ""))


# ---- scores ----------------------------------------------------------------------------------------------------------


def scores_of(name: str, loaded: Any, results: Any) -> tuple[Scores, list[Metric]]:
    """Name lm-eval's figures of a task, a group or a tag, and describe them.

    Of a group that lm-eval aggregates, its own figure comes first and those of its tasks are its parts, as in
    mmlu/acc/anatomy; the error of an average over tasks is clustered by task. The tasks of any other group or tag stand
    for themselves.
    """
    figures, tasks = results["results"], loaded["tasks"]
    scores: Scores = {}
    metrics: dict[str, Metric] = {}
    aggregated = _aggregated_by(name, loaded)
    if aggregated is not None:
        for key, one in _described(name, figures[name], next(iter(tasks.values()))).items():
            by_size = aggregated.get(key.split(",")[0], False)
            made = _aggregated(one, key, figures[name], by_size, results["samples"], tasks)
            of_tasks = [_chosen(task, results["samples"].get(task_name, ())) for task_name, task in tasks.items()]
            scores[one.name] = made | _together(of_tasks)
    for task_name, task in tasks.items():
        owner, part = (task_name, "") if aggregated is None else (name, f"/{subject_of(task_name, task)}")
        samples = results["samples"].get(task_name, ())
        chosen = _chosen(task, samples)
        for key, one in _described(owner, figures[task_name], task).items():
            metrics[one.name] = one
            found = _outcomes_of(task, key, samples)
            scores[f"{one.name}{part}"] = _entry(one, key, figures[task_name], found) | chosen
    return scores, list(metrics.values())


def _chosen(task: Any, samples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Say how a multiple-choice task was answered: what chance or a habit may have decided; nothing of other tasks.

    Returns:
        ties: questions whose best choices are equally likely, the first of which counts as chosen; chosen, right: how often each
        place of a choice was chosen, and is right.
    """
    if task.OUTPUT_TYPE != "multiple_choice":
        return {}
    first = {one["doc_id"]: one for one in samples}.values()
    logps = [_logps_of(task, one) for one in first]
    right = [_right_choice(task, one, task.doc_to_choice(one["doc"])) for one in first]
    places = range(max(map(len, logps), default=0))
    chosen = [max(range(len(one)), key=one.__getitem__) for one in logps]
    return {
        "ties": sum(map(_is_tied, logps)),
        "chosen": [chosen.count(place) for place in places],
        "right": [right.count(place) for place in places],
    }


def _together(of_tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up how the tasks of a group were answered; places only where all have as many choices."""
    known = [one for one in of_tasks if one]
    if not known:
        return {}
    made: dict[str, Any] = {"ties": sum(one["ties"] for one in known)}
    if len({len(one["chosen"]) for one in known if one["chosen"]}) == 1:
        full = [one for one in known if one["chosen"]]
        made |= {
            name: [sum(places) for places in zip(*(one[name] for one in full), strict=True)]
            for name in ("chosen", "right")
        }
    return made


def _logps_of(task: Any, sample: Mapping[str, Any]) -> list[float]:
    """Return the log-probability of each choice of a question, in nats."""
    return [float(reply[0]) for reply in sample["filtered_resps"]][: len(task.doc_to_choice(sample["doc"]))]


def _is_tied(logps: Sequence[float]) -> bool:
    return logps.count(max(logps)) > 1


def _aggregated_by(name: str, loaded: Any) -> dict[str, bool] | None:
    """Return the metrics that lm-eval aggregates for a group, and whether by size; None for what is no such group."""
    group = loaded.get("groups", {}).get(name)
    entries = (group.aggregate_metric_list or ()) if group is not None else ()
    return {entry.metric: bool(entry.weight_by_size) for entry in entries} or None


def _described(name: str, figures: Mapping[str, Any], task: Any) -> dict[str, Metric]:
    """Describe each figure of one task's or group's results: `metric,filter` -> description."""
    return {key: describe(name, key, task) for key, value in figures.items() if _is_figure(key, value)}


def _is_figure(key: str, value: Any) -> bool:
    metric, comma, _ = key.partition(",")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return bool(comma) and number and not metric.endswith("_stderr")


def _entry(metric: Metric, key: str, figures: Mapping[str, Any], outcomes: Sequence[Outcome] = ()) -> dict[str, Any]:
    """Return a score's entry; where lm-eval gives no error, that of a ratio of sums over the outcomes."""
    name, _, of_filter = key.partition(",")
    value, n = float(figures[key]), figures["sample_len"]
    error = figures.get(f"{name}_stderr,{of_filter}")
    if not isinstance(error, int | float):
        error = ratio_error(outcomes)
        error = error * value if error is not None and metric.scale == "log" else error
    known = None if error is None else float(error)
    return {"value": value, "n": n, "standard_error": known, **interval(metric, value, known, n, n)}


def ratio_error(outcomes: Sequence[Outcome]) -> float | None:
    """Return the standard error of Σ sum / Σ weight over outcomes; None for fewer than two."""
    pairs = [one if isinstance(one, list) else [one, 1.0] for one in outcomes]
    n = len(pairs)
    if n < 2:
        return None
    ratio = math.fsum(total for total, _ in pairs) / math.fsum(weight for _, weight in pairs)
    departures = math.fsum((total - ratio * weight) ** 2 for total, weight in pairs)
    return math.sqrt(departures / (n - 1) / n) / (math.fsum(weight for _, weight in pairs) / n)


def _aggregated(
    metric: Metric, key: str, figures: Mapping[str, Any], by_size: bool, samples: Mapping[str, Rows], tasks: Any
) -> dict[str, Any]:
    """Return a group's entry; where it is the mean over all questions, with the error clustered by task."""
    made = _entry(metric, key, figures)
    if not by_size:
        return made
    clusters = _by_task(key, samples, tasks)
    # with one task there is nothing to cluster by
    error = clustered_standard_error(clusters) if len(clusters) > 1 else None
    return made | {"standard_error": error, **interval(metric, made["value"], error, len(clusters), made["n"])}


def _by_task(key: str, samples: Mapping[str, Rows], tasks: Any) -> dict[str, list[float]]:
    """Collect a metric's outcomes, per task of a group."""
    metric, _, of_filter = key.partition(",")
    return {
        name: [float(row[metric]) for row in rows if row["filter"] == of_filter and metric in row]
        for name, rows in samples.items()
        if name in tasks
    }


def clustered_standard_error(values: Mapping[str, Sequence[float]]) -> float:
    """Return the standard error of the mean over all values when those of one cluster may be correlated.

    arXiv 2411.00640, Eq. 4: sqrt(Σ_c (Σ_i (s_ic − s̄))²) / n; times √(G / (G − 1)) of G clusters, as the departures are from
    their own mean. So it is the error that the report finds over subjects.
    """
    every = [value for cluster in values.values() for value in cluster]
    mean = math.fsum(every) / len(every)
    sums = (math.fsum(value - mean for value in cluster) for cluster in values.values())
    count = len(values)
    return math.sqrt(math.fsum(total * total for total in sums) * count / (count - 1)) / len(every)


def interval(metric: Metric, value: float, error: float | None, independent: int, n: int) -> dict[str, float | None]:
    """Return a two-sided 95 % interval that stays inside the metric's range; None where nothing can be said.

    Of a share, Wilson's (1927) at the effective number of questions p (1 − p) / error², with Student's t for the normal
    quantile; where all answers are alike, at their number. Of a log metric, Student's t around the logarithm. Else
    Student's t, cut to the range.

    Args:
        independent: questions, or clusters of them, behind the error; its degrees of freedom are one less.
        n: questions in all.
    """
    from scipy import stats

    if independent < 2 or n < 2:
        return {"low": None, "high": None}
    quantile = float(stats.t.ppf(0.975, independent - 1))
    if metric.unit == "share":
        low, high = wilson(value, value * (1 - value) / error**2 if error and 0 < value < 1 else float(n), quantile)
        return {"low": low, "high": high}
    if not error:
        return {"low": None, "high": None}
    if metric.scale == "log":
        reach = quantile * error / value
        low, high = value * math.exp(-reach), value * math.exp(reach)
    else:
        low, high = value - quantile * error, value + quantile * error
    least, most = (-math.inf if metric.low is None else metric.low), (math.inf if metric.high is None else metric.high)
    return {"low": max(least, low), "high": min(most, high)}


def wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's interval of a share over `n` independent answers; it lies between 0 and 1."""
    squared = quantile**2
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    half = quantile * math.sqrt(share * (1 - share) / n + squared / (4 * n * n)) / (1 + squared / n)
    return max(0.0, centre - half), min(1.0, centre + half)


# ---- outcomes --------------------------------------------------------------------------------------------------------


def rows_of(name: str, loaded: Any, samples: Mapping[str, Rows]) -> Rows:
    """Shorten lm-eval's samples to what a paired comparison of two policies needs, a row a question.

    A question that several filters read has the outcomes of all of them in its row.
    """
    rows: Rows = []
    aggregated = _aggregated_by(name, loaded) is not None
    for task_name, of_task in samples.items():
        task = loaded["tasks"][task_name]
        by_question: dict[Any, dict[str, Any]] = {}
        for sample in of_task:
            row = by_question.setdefault(sample["doc_id"], {})
            if not row:
                row["task"] = name if aggregated else task_name
                row.update(_question(task, subject_of(task_name, task), sample))
            row["outcomes"].update(_outcomes(task, sample))
        rows += by_question.values()
    return rows


def subject_of(task_name: str, task: Any) -> str:
    """Name a task among those of its group."""
    return str(task.config.task_alias or task_name)


def _question(task: Any, subject: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    given = sample["doc"].get("subject")
    row = {
        "subject": given if isinstance(given, str) else subject,
        "id": sample["doc"].get(lm_eval_tasks.WORLD_ID, sample["doc_id"]),
        "question_hash": sample["doc_hash"][:_HASH_LETTERS],
        "prompt_hash": sample["prompt_hash"][:_HASH_LETTERS],
        "outcomes": {},
    }
    if task.OUTPUT_TYPE != "multiple_choice":
        return row
    choices = task.doc_to_choice(sample["doc"])
    logps = _logps_of(task, sample)
    return row | {
        "answer": _right_choice(task, sample, choices),
        "choice": max(range(len(logps)), key=logps.__getitem__),
        "logps": [round(value, 6) for value in logps],
        **({"tied": True} if _is_tied(logps) else {}),
    }


def _outcomes_of(task: Any, key: str, samples: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Collect the outcomes of a task's figure."""
    metric, _, of_filter = key.partition(",")
    rows = (row for row in samples if row["filter"] == of_filter and metric in row)
    found = (outcome(row[metric], aggregation_of(task, metric)) for row in rows)
    return [one for one in found if one is not None]


def _right_choice(task: Any, sample: Mapping[str, Any], choices: Sequence[str]) -> int | None:
    """Return the place of the right choice; of a task whose choices are contexts, as its doc_to_text says. Never its text."""
    answer = sample["target"]
    if isinstance(answer, str):
        answer = choices.index(answer) if answer in choices else task.doc_to_text(sample["doc"])
    return answer if isinstance(answer, int) else None


def _outcomes(task: Any, sample: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return what a question came to under one filter: metric (with its filter) -> outcome."""
    made = {}
    for metric in sample["metrics"]:
        found = outcome(sample[metric], aggregation_of(task, metric))
        if found is not None:
            made[metric if sample["filter"] == "none" else f"{metric},{sample['filter']}"] = found
    return made


def outcome(value: Any, aggregation: str) -> Outcome | None:
    """Return one question's part of a score; None for what is no number.

    A log-likelihood in nats becomes a loss, and a list of right and wrong (instructions that an answer follows) their
    sum with their number, so that a score is the plain or weighted mean of its outcomes.
    """
    if hasattr(value, "item"):
        value = value.item()  # numpy's
    if isinstance(value, int | float):
        return -float(value) if aggregation == "perplexity" else float(value)
    if aggregation in ("weighted_perplexity", "bits_per_byte"):
        likelihood, weight = value
        return [-float(likelihood) / (math.log(2) if aggregation == "bits_per_byte" else 1.0), float(weight)]
    if isinstance(value, list | tuple) and value and all(isinstance(one, int | float) for one in value):
        return [math.fsum(value), float(len(value))]
    return None


def hashed(text: str) -> str:
    """Return a short hash of text that does not go on record itself."""
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LETTERS]
