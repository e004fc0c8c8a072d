"""Comparisons of our own: one prompt, four forms of the reply, with ties; every form that a verdict may come in is read."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bench.errors import SuiteError
from bench.judges.named import configuration
from bench.judges.pairwise import CONFIGURATIONS

FIELDS = {"instruction": "Say {output_2}.", "output_1": "first", "output_2": "second"}


def top(**logprobs: float) -> dict[str, Any]:
    """A completion whose first token has these alternatives."""
    alternatives = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    return {"text": "", "logprobs": {"content": [{"token": "", "logprob": 0.0, "top_logprobs": alternatives}]}}


def read(name: str, completion: dict[str, Any]) -> float | None:
    form = configuration(name).reader()(completion)
    return None if form is None else form["preference"]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_instruction_and_answers_are_data(name: str) -> None:
    """A placeholder inside an instruction stays as it is, and what is filled in is marked as such."""
    system, user = configuration(name).messages(FIELDS)
    assert [part.text for part in user.parts if part.filled] == ["Say {output_2}.", "first", "second"]
    assert not any(part.filled for part in system.parts)
    assert "{instruction}" in configuration(name).template
    assert not configuration(name).of_alpaca_eval


@pytest.mark.parametrize(
    ("text", "preference"),
    [
        ('{"better": "1"}', 1.0),
        ('```json\n{"better": "2"}\n```', 2.0),
        ('{"better": "equal"}', 1.5),
        ('{"better": 2}', 2.0),
        ('{"better": "Answer 1"}', 1.0),
        ('I weighed {both}. {"better": "1"} is my verdict', 1.0),
        ('<think>{"better": "1"}? No.</think>{"better": "2"}', 2.0),
        ("2", 2.0),
        ("tie", 1.5),
        ('{"better": "3"}', None),
        ('{"best": "1"}', None),
        ("Answer 1 is better than answer 2.", None),
        ("", None),
    ],
)
def test_a_verdict_in_json(text: str, preference: float | None) -> None:
    assert read("pairwise_json_schema", {"text": text}) == preference
    assert read("pairwise_function", {"text": text}) == preference


@pytest.mark.parametrize(
    ("text", "preference"),
    [
        ("1", 1.0),
        (" 2.\n", 2.0),
        ("0", 1.5),
        ("**2**", 2.0),
        ("Verdict: 1", 1.0),
        ("Answer 1 is wrong, so:\n2", 2.0),
        ("thinking of 2 all along</think>1", 1.0),
        ("<think>is it 1 or 2", None),
        ("1 or 2", None),
        ("10/10", None),
        ("1.5", None),
        ("neither", 1.5),
        ("", None),
    ],
)
def test_a_verdict_as_one_number(text: str, preference: float | None) -> None:
    assert read("pairwise_number", {"text": text}) == preference


def test_a_verdict_by_log_probabilities_is_their_mean_with_ties_in_the_middle() -> None:
    """0.6 for the first, 0.2 each for the second and for neither: (0.6 · 1 + 0.2 · 2 + 0.2 · 1.5) / 1 = 1.3.

    Without a label for neither 0.6 and 0.2 stand as 3 : 1, so 1.25; a label with a space before it is the same label.
    """
    log = math.log
    whole = top(**{"1": log(0.6), " 2": log(0.2), "0": log(0.2)})
    assert read("pairwise_logprobs", whole) == pytest.approx(1.3)
    assert read("pairwise_logprobs", top(**{"1": log(0.6), "2": log(0.2), "The": log(0.1)})) == pytest.approx(1.25)
    assert read("pairwise_logprobs", top(**{"1": log(0.6), "0": log(0.2)})) is None
    assert read("pairwise_logprobs", {"text": "1"}) is None


def test_why_a_reply_cannot_be_used() -> None:
    def kind(name: str, completion: dict[str, Any]) -> str:
        return configuration(name).why_unusable(completion).kind

    assert kind("pairwise_logprobs", {"text": "1"}) == "no log-probabilities"
    assert kind("pairwise_logprobs", top(A=-1.0)) == "labels missing"
    assert kind("pairwise_json_schema", {"text": "The first."}) == "no JSON as asked for"
    assert kind("pairwise_function", {"text": "The first."}) == "no function call"
    assert kind("pairwise_number", {"text": "The first."}) == "no number"
    assert kind("pairwise_number", {"text": ""}) == "empty"
    assert kind("pairwise_number", {"text": "Let me see", "finish_reason": "length"}) == "cut off"
    refusal = {"text": "", "message": {"refusal": "I cannot compare these."}}
    assert kind("pairwise_json_schema", refusal) == "refused by the model"


def test_equal_answers_are_not_asked_for_and_the_rest_keeps_its_places() -> None:
    """Three comparisons, the second of equal answers: two are asked, and the last has no usable reply."""
    same = {"instruction": "i", "output_1": "x", "output_2": "x"}
    asked: list[Any] = []

    def complete(requests: Any) -> list[Any]:
        asked.extend(requests)
        return [{"text": "2"}, None]

    assert configuration("pairwise_number").annotate([FIELDS, same, FIELDS], complete) == [2.0, 1.5, None]
    assert [(one.first, one.second) for one in asked] == [("first", "second")] * 2


def test_labels_are_those_of_log_probabilities_alone() -> None:
    assert configuration("pairwise_logprobs").labels() == ("1", "2")
    with pytest.raises(SuiteError, match="reads written replies"):
        configuration("pairwise_number").labels()
    with pytest.raises(SuiteError, match="did you mean 'pairwise_number'"):
        configuration("pairwise_numbr")
