"""Which fields of a request a model takes: by its family, by the suite, and learned once from what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from bench.judges import JudgeSettings, alpaca
from bench.judges.dialects import MOST_CHANGES, Dialect, for_model, longest_reply

SENT = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 5}


@pytest.mark.parametrize("model", ["gpt-5", "gpt-5-mini", "gpt-5.6-luna", "gpt-6-luna", "openai/gpt-6-sol", "gpt-10"])
def test_reasoning_models_go_without_reasoning(model: str) -> None:
    assert for_model(SENT, model, {}) == {
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 5,
        "reasoning_effort": "none",
        "max_completion_tokens": 1,
    }


@pytest.mark.parametrize("model", ["gpt-4.1", "gpt-4o", "llama-3", "my-gpt-5-like", "gpt-50k-context-of-mine"])
def test_other_models_get_what_the_configuration_says(model: str) -> None:
    assert for_model(SENT, model, {}) == SENT


def test_the_suite_has_the_last_word() -> None:
    own = {"max_completion_tokens": None, "max_tokens": 32, "reasoning_effort": "low", "seed": 1}
    made = for_model(SENT, "gpt-5", own)
    assert made == {**SENT, "max_tokens": 32, "reasoning_effort": "low", "seed": 1}


def learn(dialect: Dialect, message: str, named: str | None = None) -> dict[str, Any] | None:
    return dict(dialect.sent) if dialect.learn(dict(dialect.sent), message, named) else None


def test_a_field_is_renamed_as_the_refusal_says() -> None:
    dialect = Dialect(dict(SENT))
    made = learn(dialect, "'max_tokens' is not supported. Use 'max_output_tokens' instead.", "max_tokens")
    assert made is not None and made["max_output_tokens"] == 1 and "max_tokens" not in made
    assert dialect.changes == ["max_tokens sent as max_output_tokens"]


def test_the_other_name_of_the_longest_reply_is_tried_without_being_told() -> None:
    dialect = Dialect(dict(SENT))
    made = learn(dialect, "extra fields not permitted: ['max_tokens']")
    assert made is not None and made["max_completion_tokens"] == 1
    assert learn(dialect, "unknown field max_completion_tokens") == {k: v for k, v in SENT.items() if k != "max_tokens"}


def test_what_needs_no_reasoning_is_tried_so_and_then_left_out() -> None:
    dialect = Dialect(dict(SENT))
    assert (learn(dialect, "logprobs is not supported") or {})["reasoning_effort"] == "none"
    without = learn(dialect, "unknown parameter: reasoning_effort", "reasoning_effort")
    assert without == SENT
    assert learn(dialect, "logprobs is not supported", "logprobs") == {"max_tokens": 1, "temperature": 0}
    assert dialect.changes[1:] == ["reasoning_effort left out", "logprobs left out"]


def test_what_a_reply_is_read_from_is_not_left_out() -> None:
    dialect = Dialect(dict(SENT) | {"reasoning_effort": "none"}, needed=("logprobs",))
    assert learn(dialect, "logprobs is not supported", "logprobs") is None


def test_a_refusal_that_names_no_field_teaches_nothing() -> None:
    assert learn(Dialect(dict(SENT)), "the model is overloaded with bad prompts") is None


def test_another_request_may_have_learned_it_meanwhile_and_nobody_learns_for_ever() -> None:
    dialect = Dialect(dict(SENT))
    assert dialect.learn(dict(SENT) | {"temperature": 1}, "temperature", "temperature") is True
    assert dialect.changes == []
    dialect.changes = ["something"] * MOST_CHANGES
    assert learn(dialect, "temperature", "temperature") is None


@pytest.mark.parametrize(("ours", "theirs"), [(" m", " M"), ("\u2581m", "\u2581M"), ("\u0120m", "\u0120M")])
def test_labels_with_a_space_before_them_are_read(ours: str, theirs: str) -> None:
    read = alpaca.configuration("weighted_alpaca_eval_gpt4_turbo").reader()
    top = [{"token": ours, "logprob": -0.3}, {"token": theirs, "logprob": -1.35}, {"token": "The", "logprob": -5.0}]
    form = read({"text": ours, "logprobs": {"content": [{"token": ours, "logprob": -0.3, "top_logprobs": top}]}})
    assert form is not None
    assert [one["token"] for one in form["logprobs"]["content"][0]["top_logprobs"]] == ["m", "M", "The"]


def test_a_reply_that_cannot_be_used_says_why() -> None:
    weighted, ranked = (
        alpaca.configuration(name) for name in ("weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_gpt4_turbo_fn")
    )
    assert weighted.why_unusable({"text": "m"}).reason.startswith("it came without log-probabilities, which the conf")
    thinks = {"text": "<think>", "logprobs": {"content": [{"token": "<think>", "logprob": 0.0, "top_logprobs": []}]}}
    assert "'<think>'" in weighted.why_unusable(thinks).reason
    assert ranked.why_unusable({"text": "Neither."}).reason.startswith("its text 'Neither.' is no ranking")


def test_estimates_count_the_longest_reply_that_is_asked_for() -> None:
    """One token of a label; 32 where the suite says so, under either name; what nothing bounds counts as one."""
    assert longest_reply(for_model(SENT, "gpt-4.1", {})) == longest_reply(for_model(SENT, "gpt-6-luna", {})) == 1
    assert longest_reply(for_model(SENT, "gpt-6-luna", {"max_completion_tokens": 32})) == 32
    assert longest_reply(for_model(SENT, "gpt-4.1", {"max_tokens": None})) == 1


def test_a_judge_that_sends_no_requests_takes_no_parameters() -> None:
    with pytest.raises(ValueError, match="parameters: a judge of kind 'rule' sends no requests; leave it out"):
        JudgeSettings(kind="rule", parameters={"seed": 1})
