"""Set answers of several policies side by side, each with how it was judged, from the samples that evaluations keep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bench.records.record import Job
from report.analysis.load import Results, judge_of

EXAMPLES = 4
LONGEST = 320


@dataclass(frozen=True)
class Answer:
    """One answer of a policy.

    Attributes:
        text: as generated, cut after 320 characters.
        preference: share of the (main) judge's favour over the reference answer, 0 to 1; None where there is none.
        source: the job whose samples.jsonl holds the whole answer.
    """

    text: str
    preference: float | None
    source: str


@dataclass(frozen=True)
class Texts:
    """The prompts and targets of a suite's judged answers, by the answers' ids; `missing` says why there are none."""

    rows: Mapping[Any, tuple[str, str]]
    missing: str = ""


def parted(results: Results, of: str) -> dict[Any, bool]:
    """Say of the prompts to which two judges or more judged a policy's answers whether they prefer different sides."""
    sides: dict[Any, list[float]] = defaultdict(list)
    for job in results.evaluation_jobs(of):
        for row in job.rows("samples") if any(map(judge_of, job.scores)) else ():
            if row.get("preference") is not None:
                sides[row["id"]].append(row["preference"])
    return {prompt: min(found) < 0.5 < max(found) for prompt, found in sides.items() if len(found) > 1}


def changed(results: Results, of: str, texts: Texts) -> bool:
    """Say whether targets are not those of the record: a judged pair keeps how many characters longer our answer was."""
    job = _generation(results, of)
    answered = _by_id(job) if job else {}
    for judged in results.evaluation_jobs(of):
        for prompt, row in _by_id(judged).items() if any(map(judge_of, judged.scores)) else ():
            answer, longer = answered.get(prompt, {}).get("answer"), row.get("length_difference")
            if answer is None or longer is None:
                continue
            if prompt not in texts.rows or len(answer.strip()) - longer != len(texts.rows[prompt][1].strip()):
                return True
    return False


def prompts(
    results: Results, policies: list[str], most: int = EXAMPLES, first: Collection[Any] = frozenset()
) -> list[Any]:
    """Choose up to `most` prompts that every policy answered, evenly spaced over all of them, so that no one picks.

    Records that were given away without their answers have none to show.

    Args:
        first: prompts that up to half of those chosen are taken from.
    """
    jobs = [job for of in policies if (job := _generation(results, of)) is not None]
    answered = [{prompt for prompt, row in _by_id(job).items() if "answer" in row} for job in jobs]
    common = sorted(set.intersection(*answered), key=lambda one: (str(type(one)), one)) if answered else []
    chosen = _evenly([one for one in common if one in first], most // 2)
    return chosen + _evenly([one for one in common if one not in chosen], most - len(chosen))


def _evenly(every: list[Any], most: int) -> list[Any]:
    if len(every) <= most:
        return every
    return [every[place * (len(every) - 1) // max(1, most - 1)] for place in range(most)]


def answers(results: Results, of: str, wanted: list[Any]) -> dict[Any, Answer]:
    """Return a policy's answers to some prompts, each with its judgement.

    Args:
        of: a training job's id, or "base".
        wanted: ids of prompts.
    """
    generation = _generation(results, of)
    if generation is None:
        return {}
    judged = _judgements(results, of, generation.id)
    found = {}
    for prompt, row in _by_id(generation).items():
        if prompt in wanted:
            text = str(row.get("answer", ""))
            cut = text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"
            found[prompt] = Answer(cut, judged.get(prompt), generation.id)
    return found


def generation_of(results: Results, of: str) -> str:
    """Return the id of the job that made a policy's answers; "" where there is none."""
    job = _generation(results, of)
    return job.id if job is not None else ""


def _generation(results: Results, of: str) -> Job | None:
    return results.generations.get(of)


def _judgements(results: Results, of: str, generation: str) -> dict[Any, float]:
    for job in results.evaluation_jobs(of):
        judges = set(map(judge_of, job.scores)) - {""} if job.complete else set()
        by_main = not results.main_judge or results.main_judge in judges
        if judges and by_main and generation in job.spec["inputs"].values():
            rows = _by_id(job)
            return {
                prompt: float(row["preference"]) for prompt, row in rows.items() if row.get("preference") is not None
            }
    return {}


def _by_id(job: Job) -> dict[Any, dict[str, Any]]:
    return {row["id"]: row for row in job.rows("samples")}
