"""Errors in every form that endpoints give them: their words, the field, whether they pass, how long to wait."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from bench.judges.faults import Fault, inside, of_error


def fault(status: int, body: Any, headers: dict[str, str] | None = None) -> Fault:
    text = body if isinstance(body, str) else json.dumps(body)
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    response: Any = SimpleNamespace(status_code=status, text=text, headers=lower, request=None)
    return of_error(openai.APIStatusError("said by the SDK", response=response, body=None))


@pytest.mark.parametrize(
    ("body", "words", "code", "field"),
    [
        ({"error": {"message": "no max_tokens", "code": "unsupported_parameter", "param": "max_tokens"}},
         "no max_tokens", "unsupported_parameter", "max_tokens"),
        ({"error": {"message": "bad", "type": "invalid_request_error", "param": "tools[0].function.strict"}},
         "bad", "invalid_request_error", "tools"),
        ({"error": "model is loading"}, "model is loading", "", None),
        ({"object": "error", "message": "too long", "code": 400}, "too long", "", None),
        ({"detail": [{"loc": ["body", "top_logprobs"], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}]},
         "top_logprobs: Extra inputs are not permitted", "extra_forbidden", "top_logprobs"),
        ({"detail": "Unexpected fields in the request: {'reasoning_effort'}"},
         "Unexpected fields in the request: {'reasoning_effort'}", "", None),
        ([{"error": {"code": 400, "message": "Unknown name", "status": "INVALID"}}], "Unknown name", "INVALID", None),
        ("<style>b{}</style><b>Bad  Request</b>", "Bad Request", "", None),
        ("plain words", "plain words", "", None),
        ("", "said by the SDK", "", None),
    ],
)  # fmt: skip
def test_the_endpoints_own_words(body: Any, words: str, code: str, field: str | None) -> None:
    made = fault(400, body)
    assert (made.words, made.code, made.field) == (words, code, field)
    assert not made.passes


@pytest.mark.parametrize(
    ("body", "status", "passes"),
    [
        ({"error": {"code": 429, "message": "Rate limit reached"}}, 429, True),
        ({"error": {"message": "Provider is overloaded, try again later"}}, 503, True),
        ({"error": {"message": "something"}}, 500, True),
        ({"error": {"code": "insufficient_quota", "message": "pay"}}, 429, False),
        ({"error": {"code": "400", "message": "no such field"}}, 400, False),
        ({"choices": [{"error": {"code": 502, "message": "upstream"}, "message": None}]}, 502, True),
        ([{"error": {"status": "RESOURCE_EXHAUSTED", "message": "slow down"}}], 429, True),
        ({"object": "error", "message": "Unknown parameter: 'x'"}, 400, False),
    ],
)
def test_an_error_inside_a_200(body: Any, status: int, passes: bool) -> None:
    made = inside(body, json.dumps(body))
    assert made is not None
    assert (made.status, made.passes) == (status, passes)


@pytest.mark.parametrize(
    "body", [{"choices": [{"message": {"content": "1"}}]}, {"choices": [], "error": None}, None, []]
)
def test_no_error_inside(body: Any) -> None:
    assert inside(body, json.dumps(body)) is None


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        ({}, {"Retry-After": "7"}, 7.0),
        ({"error": {"message": "Please try again in 2.5s."}}, {}, 2.5),
        ({"error": {"message": "Please try again in 300ms."}}, {}, 0.3),
        ([{"error": {"details": [{"retryDelay": "17s"}]}}], {}, 17.0),
        ({"error": {"metadata": {"headers": {"Retry-After": 4}}}}, {}, 4.0),
        ({"error": {"message": "busy"}}, {}, None),
        ({}, {"Retry-After": "inf"}, None),
    ],
)
def test_how_long_to_wait(body: Any, headers: dict[str, str], seconds: float | None) -> None:
    assert fault(429, body, headers).wait == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "context_length_exceeded", "message": "x"}},
        {"error": {"code": "content_filter", "message": "x"}},
        {
            "error": {
                "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."
            }
        },
        {
            "error": {
                "code": 400,
                "type": "exceed_context_size_error",
                "message": "request exceeds the available context size",
            }
        },
        {"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}},
        {"error": {"message": "The response was filtered due to the prompt triggering our content management policy"}},
    ],
)
def test_a_refusal_of_one_prompt_is_no_refusal_of_all(body: Any) -> None:
    made = fault(400, body)
    assert made.concerns_one_prompt
    assert made.kind == "prompt refused"
    assert not fault(400, {"error": {"message": "max_tokens is not supported"}}).concerns_one_prompt


def test_a_gateway_that_gave_up_may_have_been_billed_for() -> None:
    assert (fault(504, "").state, fault(500, "").state, fault(408, "").state) == ("unanswered", "refused", "unanswered")
