"""KL from the base: the base answers once for all policies, and each is read at every token against the formula written out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bench.errors import DataError
from bench.evaluators.base_kl import _score, _until_end
from bench.evaluators.options import FORGETTING, LmEval
from bench.models import divergence
from bench.records import record
from bench.suite.suite import Suite

OPTIONS = {"prompts": 3, "max_new_tokens": 5}


@pytest.fixture
def runner(tiny: Callable[..., Suite], run_plan: Any) -> Any:
    return run_plan(tiny(evaluation={"base_kl": OPTIONS}))


def test_the_base_answers_once_and_every_policy_is_read_on_it(runner: Any) -> None:
    jobs = runner.plan.jobs.values()
    (answers,) = (job for job in jobs if job.kind == "base_answers")
    read = [job for job in jobs if job.kind == "base_kl"]
    assert len(read) == 1 + 3  # base, both optima, Mix
    assert all(job.inputs.stages == {"answers": answers.id} for job in read)


def test_the_base_is_0_from_itself_and_a_trained_policy_is_not(runner: Any) -> None:
    base, mix = runner.run("kl-base"), runner.run("kl-mix")
    assert [one["value"] for one in base.scores.values()] == [0.0, 0.0]
    for name in ("base_kl/answers", "base_kl/text"):
        score = mix.scores[name]
        assert score["value"] > 0 and score["standard_error"] > 0
        rows = [row["outcomes"][name] for row in _rows(runner, mix) if name in row["outcomes"]]
        assert score["value"] == pytest.approx(sum(nats for nats, _ in rows) / sum(tokens for _, tokens in rows))
        assert score["n"] == len(rows)


def _rows(runner: Any, job: record.Job) -> list[dict[str, Any]]:
    return list(record.read_jsonl(runner.folder / "jobs" / job.id / "samples.jsonl"))


def test_it_is_the_sum_over_the_vocabulary_at_every_token(runner: Any) -> None:
    """Against both models' whole rows, one answer at a time: Σ_v p_base (log p_base − log p_π) at each token of the answer."""
    runner.run("kl-mix")
    job = runner.job("kl-mix")
    policy = runner.context.policy_of(job)
    examples = runner.context.datasets(policy.tokenizer, {}).held_out["sft"].examples
    found = divergence.from_base(policy, examples, 2)
    for example, (nats, tokens) in zip(examples, found, strict=True):
        ids = torch.tensor([[*example.prompt, *example.answers[0]]])
        with torch.no_grad():
            own = policy.model(input_ids=ids).logits[0].double().log_softmax(-1)
            with policy.model.disable_adapter():
                base = policy.model(input_ids=ids).logits[0].double().log_softmax(-1)
        places = range(len(example.prompt) - 1, ids.shape[1] - 1)
        expected = sum(float((base[at].exp() * (base[at] - own[at])).sum()) for at in places)
        assert tokens == len(places)
        assert nats == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_general_text_is_read_from_a_file(tiny: Callable[..., Suite], run_plan: Any, tmp_path: Path) -> None:
    """One row a text, the first of its tokens given; a text of one token has nothing to predict."""
    texts = ("The cat sits here.", "A dog runs and runs.")
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
    options = OPTIONS | {"text": {"path": str(tmp_path / "text.jsonl"), "rows": 2}}
    runner = run_plan(tiny(evaluation={"base_kl": options}))
    made = runner.run("kl-mix")
    assert made.scores["base_kl/text"]["n"] == 2
    assert {row["id"] for row in _rows(runner, made)} >= {"text/0", "text/1"}


def test_text_that_is_not_there_or_has_another_column_is_one_line(
    tiny: Callable[..., Suite], run_plan: Any, tmp_path: Path
) -> None:
    options = OPTIONS | {"text": {"path": str(tmp_path / "none.jsonl")}}
    with pytest.raises(DataError, match=r"evaluation\.base_kl\.text\.path: .*none\.jsonl is not there"):
        run_plan(tiny(evaluation={"base_kl": options}))


def test_an_answer_ends_with_its_end_and_not_with_what_fills_the_row() -> None:
    assert _until_end([5, 6, 2, 2, 2], {2}) == [5, 6, 2]
    assert _until_end([5, 6], {2}) == [5, 6]
    assert _until_end([], {2}) == []


def test_a_score_is_a_ratio_of_sums_with_its_error() -> None:
    """3 nats over 6 tokens: 0.5 a token. Departures 1 − 0.5 · 4 = −1 and 2 − 0.5 · 2 = 1: sd √2, error √2 / √2; 3 a row."""
    made = _score([(1.0, 4), (2.0, 2)])
    assert (made["value"], made["n"]) == (0.5, 2)
    assert made["standard_error"] == pytest.approx(math.sqrt(2 / 2) / 3)
    assert _score([])["value"] is None


def test_forgetting_stands_for_its_tasks() -> None:
    assert LmEval(tasks=("forgetting",)).tasks == FORGETTING
    assert LmEval.model_validate({"tasks": "forgetting"}).tasks == FORGETTING
    assert LmEval.model_validate({"tasks": ["arc_easy", "mmlu", "forgetting"]}).tasks[:3] == (
        "arc_easy",
        "mmlu",
        "hellaswag",
    )
    assert len(FORGETTING) == 8
    with pytest.raises(ValidationError):
        LmEval.model_validate({"tasks": [3]})
