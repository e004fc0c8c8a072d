"""Evaluators of another package: their jobs in the plan, what a worker writes of them, whose judge is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from other_evaluators import LengthJudge, Words

from bench.cli import plan_view
from bench.errors import InputError
from bench.evaluators import EVALUATORS, Stage
from bench.judges import JUDGES
from bench.plan import planner
from bench.records import record
from bench.run import standing
from bench.suite.suite import Suite

TinySuite = Callable[..., Suite]
Offer = Callable[..., None]


def test_an_evaluator_of_two_stages_asks_every_policy(
    tiny: TinySuite, run_plan: Any, offer: Offer, tmp_path: Any
) -> None:
    """Base, two optima (one is the reference) and Mix: four policies, two jobs each; what one leaves the next one finds."""
    offer(EVALUATORS, "words", Words)
    runner = run_plan(tiny(evaluation={"words": {"prompts": 2, "word": "no"}}))
    jobs = [job for job in runner.plan.jobs.values() if job.kind.startswith("words")]
    assert [job.kind for job in jobs] == ["words_said", "words"] * 4
    said, counted = jobs[0], jobs[1]
    assert (said.id.rsplit("-", 1)[0], counted.id.rsplit("-", 1)[0]) == ("said-base", "words-base")
    assert counted.inputs.as_dict() == {"said": said.id}
    assert (said.settings["prompts"], said.settings["word"]) == (2, "no")
    assert set(said.settings) == {"prompts", "word", "model", "data"}
    assert counted.settings == {}
    assert set(said.data) == {"preference"}

    made = runner.run("words-base")
    assert made.labels["of"] == "base"
    (score,) = made.scores.values()
    lengths = [len(row["said"].split()) for row in runner.run("said-base").rows("samples")]
    assert score == {"value": sum(lengths) / 2, "n": 2, "standard_error": None}
    assert record.read_json(made.path / "metrics.json") == {
        "words": {
            "title": "Words", "unit": "words", "better": "lower", "kind": "score", "meaning": "words of an answer",
            "low": 0.0, "item": "answer",
        }
    }  # fmt: skip
    assert record.read_json(made.path / "data.json") == {"counted": 2}
    assert [row["outcomes"]["words"] for row in made.rows("samples")] == lengths
    assert not (runner.run("said-base").path / "scores.json").exists()

    states = standing.look(runner.plan, tmp_path / "none").states
    text = plan_view.as_text(runner.plan, states, set(runner.plan.jobs))
    assert "4 × said words: 4 pending" in text
    assert "4 × counted words: 4 pending" in text


def test_what_decides_no_number_is_in_no_id(tiny: TinySuite, offer: Offer) -> None:
    offer(EVALUATORS, "words", Words)
    plans = [
        planner.make(tiny(evaluation={"words": {"prompts": 2, **changes}}))
        for changes in ({}, {"batch_size": 1}, {"word": "no"})
    ]
    of_words = [{name for name, job in made.jobs.items() if job.kind == "words_said"} for made in plans]
    assert of_words[0] == of_words[1]
    assert not of_words[0] & of_words[2]


def test_a_kind_of_job_that_is_taken_is_refused(tiny: TinySuite, offer: Offer) -> None:
    class Copy(Words):
        def stages(self) -> tuple[Stage, ...]:
            return (Stage("lm_eval", {}),)

    offer(EVALUATORS, "copy", Copy)
    with pytest.raises(InputError) as caught:
        planner.make(tiny(evaluation={"copy": {"prompts": 2}, "lm_eval": {}}))
    assert str(caught.value) == (
        "evaluation.copy: its jobs are of the kind 'lm_eval', which those of evaluation.lm_eval have already; "
        "its package must call them otherwise"
    )


def test_another_packages_judge_judges(tiny: TinySuite, run_plan: Any, offer: Offer) -> None:
    """It likes the first answer whichever it is: 50 % in both orders, and a position bias of ½."""
    offer(JUDGES, "length", LengthJudge)
    judge = {"kind": "length", "likes": "anything"}
    win_rate = {"prompts": 2, "generation": {"max_new_tokens": 4}, "judge": judge}
    runner = run_plan(tiny(evaluation={"win_rate": win_rate}))
    job = runner.job("judged-base")
    assert job.labels.as_dict() == {"of": "base", "judge": "length"}
    assert job.settings["likes"] == "anything"
    made = runner.run("judged-base")
    assert made.scores["win_rate/length"]["value"] == 50.0
    assert made.scores["win_rate/length"]["position_bias"] == 0.5
    assert list(record.read_json(made.path / "metrics.json")) == ["win_rate/length"]
