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


def test_what_a_refusal_lists_as_taken_is_not_what_it_is_about() -> None:
    """Of several fields it is about the first that it names, before a list of what would be taken."""
    dialect = Dialect(dict(SENT))
    made = learn(dialect, "unsupported argument temperature; supported arguments: max_tokens, logprobs, top_logprobs")
    assert made is not None and made["max_tokens"] == 1
    assert learn(Dialect(dict(SENT) | {"reasoning_effort": "none"}), "top_logprobs, not logprobs, is refused") == {
        **{name: value for name, value in SENT.items() if name != "top_logprobs"},
        "reasoning_effort": "none",
    }


def test_a_field_is_set_to_what_the_refusal_says_once() -> None:
    dialect = Dialect(dict(SENT), needed=("tools",))
    told = (
        "Function tools with reasoning_effort are not supported. Use /v1/responses or set reasoning_effort to 'none'."
    )
    assert learn(dialect, told, "reasoning_effort") == {**SENT, "reasoning_effort": "none"}
    assert (learn(dialect, told, "reasoning_effort") or {}).get("reasoning_effort") is None


def test_fewer_alternatives_are_asked_for_where_that_is_the_bound() -> None:
    dialect = Dialect(dict(SENT), needed=("logprobs", "top_logprobs"))
    assert learn(dialect, "Requested sample logprobs of 5, which is greater than max allowed: 3") == {
        **SENT,
        "top_logprobs": 3,
    }


def test_an_error_of_a_template_teaches_that_it_takes_no_system_message() -> None:
    """Other errors of a server's own teach nothing: the same request may be answered later."""
    dialect = Dialect(dict(SENT))
    assert not dialect.learn_no_system("internal system error: message queue is full")
    assert dialect.learn_no_system("Jinja Exception: System role not supported")
    assert (dialect.system, dialect.changes) == (False, ["the system message put at the head of the user's"])
    assert dialect.learn_no_system("Jinja Exception: System role not supported")  # sent before that was known
    assert not dialect.learn_no_system("Jinja Exception: System role not supported", system=False)


def test_the_longest_reply_is_lengthened_under_whatever_name_it_has() -> None:
    dialect = Dialect({"max_tokens": 16})
    assert learn(dialect, "unknown setting max_tokens, use 'replyAmount' instead", "max_tokens") == {"replyAmount": 16}
    assert dialect.allow_longer(dict(dialect.sent)) and dialect.sent == {"replyAmount": 2048}


@pytest.mark.parametrize(
    ("message", "named", "change"),
    [
        ("Invalid 'max_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.", "max_tokens",
         {"max_tokens": 16}),
        ("top_logprobs must be less than or equal to 3", None, {"top_logprobs": 3}),
        ("max_tokens must be a string", None, {"max_tokens": "1"}),
        ("Unknown parameter 'max_tokens'. Did you mean 'output_token_limit'?", None,
         {"max_tokens": None, "output_token_limit": 1}),
        ("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", None, {"temperature": None}),
    ],
)  # fmt: skip
def test_other_values_and_names_are_taken_from_the_refusal(
    message: str, named: str | None, change: dict[str, Any]
) -> None:
    made = learn(Dialect(dict(SENT)), message, named)
    assert made == {name: value for name, value in {**SENT, **change}.items() if value is not None}


def test_a_value_of_a_choice_is_taken_from_the_refusal() -> None:
    """The least effort that is offered; the other form of JSON before none; a function asked for in other words."""
    dialect = Dialect({"reasoning_effort": "none"})
    offered = "'reasoning_effort' does not support 'none'. Supported values are: 'high', 'low', 'minimal'."
    assert learn(dialect, offered, "reasoning_effort") == {"reasoning_effort": "minimal"}

    dialect = Dialect({"response_format": {"type": "json_schema", "json_schema": {}}})
    assert learn(dialect, "This response_format type is unavailable now") == {
        "response_format": {"type": "json_object"}
    }
    assert learn(dialect, "This response_format type is unavailable now") == {}

    dialect = Dialect({"tools": [], "tool_choice": {"type": "function"}}, needed=("tools",))
    assert learn(dialect, "tool_choice must be one of auto, required, none") == {"tools": [], "tool_choice": "required"}
    assert learn(dialect, "tools are not supported") is None


def test_a_system_message_that_is_refused_goes_to_the_head_of_the_users() -> None:
    dialect = Dialect({"temperature": 0})
    given = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert dialect.messages(given) == given
    assert dialect.learn({"temperature": 0}, "messages[0].role does not support 'system' with this model.", "messages")
    assert dialect.messages(given) == [{"role": "user", "content": "S\n\nU"}]
    assert dialect.changes == ["the system message put at the head of the user's"]


def test_a_field_that_is_missing_is_added() -> None:
    dialect = Dialect({"max_tokens": 16, "temperature": 0})
    assert learn(dialect, "field required: max_new_tokens") == {
        "max_tokens": 16,
        "temperature": 0,
        "max_new_tokens": 16,
    }


def test_replies_that_reasoning_ate_may_be_longer_twice() -> None:
    dialect = Dialect({"max_completion_tokens": 32})
    assert dialect.allow_longer({"max_completion_tokens": 32})
    assert dialect.sent == {"max_completion_tokens": 2048}
    assert dialect.allow_longer({"max_completion_tokens": 32})  # another thread's, of before
    assert dialect.sent == {"max_completion_tokens": 2048}
    assert dialect.allow_longer(dict(dialect.sent))
    assert not dialect.allow_longer(dict(dialect.sent))
    assert not Dialect({"temperature": 0}).allow_longer({"temperature": 0})


@pytest.mark.parametrize(
    ("message", "longest"),
    [
        ("max_tokens must be greater than 63", {"max_tokens": 64}),
        ("max_tokens > 99 is wanted", {"max_tokens": 100}),
        ("max_tokens out of range [64, 4096]", {"max_tokens": 64}),
        ("max_tokens: allowed are values from 32 to 8192", {"max_tokens": 32}),
        ("max_tokens is called token_ceiling here", {"token_ceiling": 1}),
        ("max_tokens -> replyTokens", {"replyTokens": 1}),
        ("please do not send max_tokens; it was renamed 'budget'", {"budget": 1}),
    ],
)
def test_more_words_for_a_bound_or_another_name(message: str, longest: dict[str, Any]) -> None:
    rest = {name: value for name, value in SENT.items() if name != "max_tokens"}
    assert learn(Dialect(dict(SENT)), message) == rest | longest


def test_a_temperature_outside_its_bounds_is_left_out() -> None:
    dialect = Dialect({"temperature": 0}, _tried={"reasoning_effort"})
    assert learn(dialect, "temperature must be greater than 0") == {}


def test_a_number_that_is_to_be_a_text_keeps_to_bounds_as_one() -> None:
    dialect = Dialect({"max_tokens": 1})
    assert learn(dialect, "max_tokens: Input should be a valid string") == {"max_tokens": "1"}
    assert learn(dialect, "max_tokens must be at least 64") == {"max_tokens": "64"}
