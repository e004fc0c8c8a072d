"""What of an evaluator's outcome can be put on record, and whose it is where it cannot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from other_evaluators import WORDS, Words

from bench.evaluators import EVALUATORS, Outcome, Stage, StageContext, outcomes
from bench.records.metrics import Metric
from bench.run import handlers
from bench.suite.suite import Suite

TinySuite = Callable[..., Suite]
Offer = Callable[..., None]

SHARE = Metric("style/stops", "Stops", "share", "higher", "score", low=0.0, high=1.0, item="answer")
SCORE = {"value": 0.5, "n": 2, "standard_error": None}


def outcome(**parts: Any) -> Outcome:
    rows = [{"id": 0, "outcomes": {"style/stops": 0.0}}, {"id": 1, "outcomes": {"stops": [1.0, 1.0]}}]
    return replace(Outcome(rows, {"style/stops": SCORE}, (SHARE,)), **parts)


def test_an_outcome_may_name_its_score_or_what_follows_the_slash() -> None:
    """So may a part of a figure be a score, such as one subject's."""
    assert outcomes.wrong(outcome()) is None
    assert outcomes.wrong(Outcome([{"said": "yes"}])) is None
    assert outcomes.wrong(outcome(scores={"style/stops": SCORE, "style/stops/first": SCORE})) is None
    assert outcomes.wrong(outcome(scores={"style/stops": {"value": None, "reason": "no answer"}}, rows=[])) is None


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ({"style/stops": SCORE}, "`run` returned {'style/stops': "),
        (outcome(metrics=()), "the score 'style/stops' has no Metric among the Outcome's metrics"),
        (outcome(metrics=("style/stops",)), "the Outcome's metrics hold 'style/stops', which is no Metric"),
        (
            outcome(metrics=(replace(SHARE, kind="cost"),)),
            "the score 'style/stops' has a Metric of kind 'cost'; what an evaluator finds is of kind 'score'",
        ),
        (outcome(scores={"style/stops": {"n": 2}}), "the score 'style/stops' is {'n': 2}; it is a mapping with value"),
        (outcome(scores={"style/stops": 0.5}), "the score 'style/stops' is 0.5; it is a mapping with value"),
        (outcome(scores={"style/stops": {"value": None}}), "the score 'style/stops' is null without a reason"),
        (
            outcome(scores={"style/stops": {"value": math.nan}}),
            "the score 'style/stops' has the value nan; it is a finite",
        ),
        (
            outcome(scores={"style/stops": {"value": True}}),
            "the score 'style/stops' has the value True; it is a finite",
        ),
        (
            outcome(scores={"style/stops": {"value": 50.0}}),
            "the score 'style/stops' has the value 50, which its Metric's low = 0.0 and high = 1.0 leave out",
        ),
        (outcome(scores={"style/stops": SCORE | {"seen": {1}}}), "the score 'style/stops' cannot be written as JSON"),
        (
            outcome(rows=[{"id": 0, "outcomes": {"style/full_stops": 1.0}}]),
            "row 0 has an outcome of 'style/full_stops', which is no score of the Outcome: stops, style/stops",
        ),
        (outcome(rows=[{"outcomes": {"style/stops": 1.0}}]), "row 0 has outcomes, but no id by which"),
        (outcome(rows=[{"id": 0, "outcomes": {"style/stops": "yes"}}]), "row 0 has the outcome 'yes' of 'style/stops'"),
        (outcome(rows=[{"id": 0, "outcomes": 1.0}]), "row 0 has the outcomes 1.0; they are a mapping"),
        (outcome(rows=["yes"]), "row 0 is 'yes', not a mapping of JSON values"),
        (outcome(rows=[{"id": 0, "said": {1}}]), "row 0 cannot be written as JSON (Object of type set"),
    ],
)
def test_an_outcome_that_is_none(made: Any, problem: str) -> None:
    found = outcomes.wrong(made)
    assert found is not None
    assert found.startswith(problem)


def test_a_figure_that_nobody_could_compare_is_none() -> None:
    with pytest.raises(ValueError, match="Metric 'words': better = 'smaller': must be 'lower' or 'higher' or None"):
        replace(WORDS, better="smaller")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Metric 'words': kind = 'price': must be 'objective' or 'score' or "):
        replace(WORDS, kind="price")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Metric 'words': low = 2 must lie below high = 1"):
        replace(WORDS, low=2.0, high=1.0)


class Undescribed(Words):
    """Describe no score."""

    def run(self, kind: str, context: StageContext) -> Outcome:
        return replace(super().run(kind, context), metrics=())


class Raising(Words):
    """Break after the answers are there."""

    def run(self, kind: str, context: StageContext) -> Outcome:
        if kind == "words":
            raise KeyError("said")
        return super().run(kind, context)


@pytest.mark.parametrize(
    ("kind", "error", "problem"),
    [
        (
            Undescribed,
            "JobError",
            "the score 'words' has no Metric among the Outcome's metrics; give it one of that name",
        ),
        (Raising, "PluginError", "`run` raised KeyError: 'said'"),
    ],
)
def test_a_job_fails_with_whose_it_is(
    kind: type, error: str, problem: str, tiny: TinySuite, run_plan: Any, offer: Offer
) -> None:
    offer(EVALUATORS, "words", kind)
    runner = run_plan(tiny(evaluation={"words": {"prompts": 2}}))
    runner.needs("words-base")
    status = handlers.run(runner.job("words-base"), runner.context)
    assert status["error"] == error
    assert status["message"].startswith(
        f"the evaluator 'words' of {__name__}: {problem}; mend that package, or uninstall"
    )


def test_two_evaluators_with_one_score_are_told_apart_by_nothing(tiny: TinySuite, run_plan: Any, offer: Offer) -> None:
    """The one that comes first keeps it; the other's job fails, whoever it is of."""

    class Again(Words):
        def stages(self) -> tuple[Stage, ...]:
            said, words = super().stages()
            return replace(said, kind="said_again", slug="said-again"), replace(words, kind="again")

        def run(self, kind: str, context: StageContext) -> Outcome:
            return super().run({"said_again": "words_said", "again": "words"}[kind], context)

    offer(EVALUATORS, "words", Words)
    offer(EVALUATORS, "again", Again)
    runner = run_plan(tiny(evaluation={"words": {"prompts": 2}, "again": {"prompts": 2}}))
    runner.run("words-base")
    runner.needs("again-base")
    status = handlers.run(runner.job("again-base"), runner.context)
    assert status["error"] == "JobError"
    assert status["message"] == (
        f"the evaluator 'again' of {__name__}: the score 'words' is one of the evaluator 'words' of other_evaluators too; "
        "rename one, or leave one out"
    )
