"""The real servers that tests use do what the tests rely on."""

from __future__ import annotations

import json
from math import exp
from typing import Any

import pytest
from model_server import ModelServer, serve_by_llama
from openai import APIConnectionError, OpenAI

SCHEMA = {
    "name": "better",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"winner": {"type": "string", "enum": ["m", "M"]}},
        "required": ["winner"],
        "additionalProperties": False,
    },
}


def ask(server: ModelServer, **more: Any) -> Any:
    with OpenAI(api_key="none", base_url=server.url, max_retries=0, timeout=120) as client:
        question: Any = [{"role": "user", "content": "Which letter comes first, m or M?"}]
        return client.chat.completions.create(model=server.model, messages=question, temperature=0, **more).choices[0]


def test_llama_gives_log_probabilities(llama_server: ModelServer) -> None:
    (token,) = ask(llama_server, max_tokens=1, logprobs=True, top_logprobs=5).logprobs.content
    assert len(token.top_logprobs) == 5
    assert 0 < sum(exp(one.logprob) for one in token.top_logprobs) <= 1 + 1e-6


def test_llama_holds_a_reply_to_a_schema(llama_server: ModelServer) -> None:
    form = {"type": "json_schema", "json_schema": SCHEMA}
    said = ask(llama_server, max_tokens=40, response_format=form).message.content
    assert json.loads(said).keys() == {"winner"}
    free = ask(llama_server, max_tokens=40).message.content
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(free)


def test_transformers_ignores_both(transformers_server: ModelServer) -> None:
    form = {"type": "json_schema", "json_schema": SCHEMA}
    choice = ask(transformers_server, max_tokens=8, logprobs=True, top_logprobs=5, response_format=form)
    assert choice.logprobs is None
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(choice.message.content)


def test_a_server_that_was_killed_answers_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve_by_llama() as server:
        ask(server, max_tokens=1)
        server.kill()
        with pytest.raises(APIConnectionError):
            ask(server, max_tokens=1)
