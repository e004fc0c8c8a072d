"""Judges of many kinds of endpoints, by their names alone: what is adapted, what the win rate is, what the screen says."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_dialects import DIALECTS, Served
from loopback_judge import KEY

from bench.cli.main import main

PAIRS = 3
Serve = Callable[[str], Served]


@pytest.fixture
def judged(
    dialect: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[Served, int, dict[str, Any], str]]]:
    """Judge three pairs by an endpoint of a name: what it was asked, the exit code, the score, all that was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("bench.judges.openai.random.uniform", lambda low, high: 0.01)  # pauses are not waited for
    for name, word in (("ours", "our"), ("theirs", "their")):
        rows = [{"instruction": f"Question {one}?", "output": f"{word} answer {one}"} for one in range(PAIRS)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    handler = signal.getsignal(signal.SIGTERM)

    def run(name: str, key: str | None = None) -> tuple[Served, int, dict[str, Any], str]:
        served = dialect(name)
        monkeypatch.setenv("OPENAI_API_KEY", key or KEY)
        files = ["--outputs", "ours.json", "--reference", "theirs.json"]
        arguments = [*files, "--model", served.model, "--base-url", served.url, "--json"]
        monkeypatch.setattr(sys, "argv", ["bench", "judge", "run", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return served, int(ended.value.code or 0), json.loads(out) if out.strip() else {}, err

    yield run
    signal.signal(signal.SIGTERM, handler)


ALPACA, SCHEMA, NUMBER = "weighted_alpaca_eval_gpt4_turbo", "pairwise_json_schema", "pairwise_number"
# What each is asked by in the end, and how much its judge is for ours: 0.9/0.99 in first place and 0.6/0.99 in second where
# log-probabilities are read, else all of it
BY_LOGPROBS = 100 * (0.9 + 0.6) / 0.99 / 2
EXPECTED: dict[str, tuple[str, float]] = {
    "gpt_5": (SCHEMA, 100),
    "gpt_5_forbidding": (SCHEMA, 100),
    "gpt_6": (ALPACA, BY_LOGPROBS),
    "azure": (SCHEMA, 100),
    "anthropic": (SCHEMA, 100),
    "anthropic_without_temperature": (SCHEMA, 100),
    "gemini": (SCHEMA, 100),
    "mistral": (SCHEMA, 100),
    "openrouter": (SCHEMA, 100),
    "overloaded": (ALPACA, BY_LOGPROBS),
    "vllm": (ALPACA, BY_LOGPROBS),
    "vllm_with_few_logprobs": (ALPACA, BY_LOGPROBS),
    "gemma_by_vllm": (ALPACA, BY_LOGPROBS),
    "gemma_by_llama_cpp": (ALPACA, BY_LOGPROBS),
    "ollama": (SCHEMA, 100),
    "lm_studio": (SCHEMA, 100),
    "transformers_serve": (SCHEMA, 100),
    "harbour": (NUMBER, 100),
    "lantern": (SCHEMA, 100),
    "ember": (SCHEMA, 100),
}
MINIMAL = ["reasoning_effort: minimal", "temperature left out"]
IN_THE_USERS = "the system message put at the head of the user's"
AS_CUT = "as a reply was cut off before it said anything"
# What the requests that are judged by had to be changed in; nothing where a family is known, or takes all of them
CHANGES: dict[str, list[str]] = {
    "gpt_5": MINIMAL,
    "gpt_5_forbidding": MINIMAL,
    "azure": ["max_tokens sent as max_completion_tokens", "reasoning_effort: none added", *MINIMAL],
    "anthropic_without_temperature": ["reasoning_effort: none added", "temperature left out"],
    "gemini": [f"max_tokens: 2048, {AS_CUT}"],
    "vllm_with_few_logprobs": ["top_logprobs: 3"],
    "gemma_by_vllm": [IN_THE_USERS],
    "gemma_by_llama_cpp": [IN_THE_USERS],
    "harbour": ["max_tokens sent as reply_token_limit", IN_THE_USERS, "reply_token_limit: 64"],
    "lantern": [
        "response_format: json_object",
        "response_format left out",
        "max_tokens sent as maxOutputLength",
        "temperature: 0",
        f"maxOutputLength: 2048, {AS_CUT}",
    ],
    "ember": [
        "max_tokens sent as out_limit",
        "reasoning_effort: none added",
        "temperature left out",
        "response_format: json_object",
        "response_format left out",
        "reasoning_effort left out",
        IN_THE_USERS,
        f"out_limit: 2048, {AS_CUT}",
    ],
}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_kind_of_endpoint_judges_by_its_name_alone(name: str, judged: Any) -> None:
    """A win rate over all pairs in both orders, by the first form that the endpoint answers to; the screen says which."""
    _, code, score, said = judged(name)
    configuration, rate = EXPECTED[name]
    assert code == 0, said
    assert (score["n_total"], score["n_unjudged"]) == (PAIRS, 0)
    assert score["configuration"] == configuration, said
    assert score["win_rate"] == pytest.approx(rate)
    assert score["of_alpaca_eval"] is (configuration == ALPACA)
    assert configuration in said
    assert score.get("request_changes", []) == CHANGES.get(name, [])
    assert all(change in said for change in CHANGES.get(name, ()))
    assert "Cannot find" not in said  # what alpaca-eval's parsers write of a form that they do not read


def test_a_known_family_is_refused_nothing(judged: Any) -> None:
    """The sixth generation by its name: no request too many, and without reasoning, so that it has log-probabilities."""
    served, _, _, _ = judged("gpt_6")
    assert served.statuses == [200] * (1 + 2 * PAIRS)
    assert all(body["reasoning_effort"] == "none" and "max_tokens" not in body for body in served.asked)


@pytest.mark.parametrize(
    ("name", "model", "key", "said"),
    [
        ("azure", "no-such-deployment", None, "404.*deployment for this resource does not exist"),
        ("azure", None, "sk-another-0123456789", "does not accept the key in OPENAI_API_KEY"),
    ],
)
def test_what_no_change_of_a_request_can_mend_is_one_line(
    name: str, model: str | None, key: str | None, said: str, judged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DIALECTS, name, (model or DIALECTS[name][0], DIALECTS[name][1]))
    served, code, score, printed = judged(name, key)
    assert (code, score) == (2, {})
    assert re.search(said, printed), printed
    assert len(printed.strip().splitlines()) == 1
    assert len(served.asked) == 1
