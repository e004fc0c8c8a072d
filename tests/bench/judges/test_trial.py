"""Which configuration a judge answers to: tried one by one, kept in the results folder, and told with what was changed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from model_server import ModelServer

from bench.errors import JudgeError, JudgeRefused, JudgeStopped
from bench.evaluators.win_rate import judge
from bench.judges import AUTOMATIC, JudgeSettings, trial
from bench.judges.named import configuration
from bench.judges.requests import Pair
from bench.records.record import read_jsonl

PAIRS = [Pair(number, f"Question {number}?", f"our answer {number}", f"their answer {number}") for number in range(3)]


def settings(endpoint: Any, **changes: Any) -> JudgeSettings:
    given = {"kind": "openai", "model": "some-judge", "base_url": endpoint.url, "key_variable": "JUDGE_KEY"}
    return JudgeSettings.model_validate(given | {"first_pause_seconds": 0, "concurrency": 2} | changes)


def run(endpoint: Any, folder: Path, **changes: Any) -> dict[str, Any]:
    scores, _ = judge(PAIRS, settings(endpoint, **changes), folder, lambda model: None, lambda text: None)  # type: ignore[arg-type]
    return scores["win_rate/some-judge"]


def taking(endpoint: Any, takes: Callable[[dict[str, Any]], str | None]) -> None:
    """Let the endpoint answer in text, without log-probabilities; `takes` sees what was sent, and refuses by None."""

    def answer(prompt: str, before: int) -> Any:
        said = takes(endpoint.bodies[-1])
        if said is None:
            refusal = {"error": {"message": "no such feature here", "code": "invalid_request"}}
            return endpoint.respond(status=400, body=json.dumps(refusal).encode())
        return endpoint.choose(logprobs=None, finish_reason="stop", message={"role": "assistant", "content": said})

    endpoint.answer = answer


def test_a_judge_with_log_probabilities_gets_alpaca_evals_configuration(endpoint: Any, tmp_path: Path) -> None:
    answered = trial.ask(settings(endpoint), tmp_path, lambda: ())
    assert answered is not None
    assert (answered.configuration, answered.passed_over) == (AUTOMATIC[0], {})
    assert answered.in_words == f"the judge some-judge at 127.0.0.1 answers to {AUTOMATIC[0]} (AlpacaEval's)"
    assert trial.known(settings(endpoint), tmp_path, tmp_path) == AUTOMATIC[0]


def test_one_without_them_gets_the_first_of_ours_that_it_answers_to_and_keeps_it(endpoint: Any, tmp_path: Path) -> None:
    """It ignores what it does not know: JSON comes because the prompt asks for it. Three pairs, both orders: six questions.

    It always prefers the first answer, so every pair is a draw, 50 %.
    """
    taking(endpoint, lambda body: '{"better": "1"}' if "JSON" in body["messages"][0]["content"] else "Answer 1.")
    score = run(endpoint, tmp_path)
    assert score["value"] == pytest.approx(50)
    assert (score["configuration"], score["of_alpaca_eval"]) == ("pairwise_json_schema", False)
    assert len(endpoint.comparisons) == 6
    kept = json.loads((tmp_path / trial.FOLDER / trial.FOUND).read_text())
    (one,) = kept.values()
    assert one["configuration"] == "pairwise_json_schema"
    assert list(one["passed_over"]) == [AUTOMATIC[0]]
    assert one["passed_over"][AUTOMATIC[0]].startswith("it came without log-probabilities")
    asked = len(endpoint.prompts)
    assert run(endpoint, tmp_path)["value"] == pytest.approx(50)
    assert len(endpoint.prompts) == asked


def test_what_is_lost_of_the_folder_is_found_in_the_replies(endpoint: Any, tmp_path: Path) -> None:
    taking(endpoint, lambda body: "2" if "one number" in body["messages"][0]["content"] else None)
    assert run(endpoint, tmp_path)["configuration"] == "pairwise_number"
    (tmp_path / trial.FOLDER / trial.FOUND).unlink()
    asked = len(endpoint.prompts)
    assert run(endpoint, tmp_path)["configuration"] == "pairwise_number"
    assert len(endpoint.prompts) == asked


def test_labels_beside_the_point_are_no_answer_unless_they_are_asked_for(endpoint: Any, tmp_path: Path) -> None:
    """A tenth of the first token's probability is the labels': noise. A suite that names the configuration gets it."""
    top = [{"token": "The", "logprob": -0.105}, {"token": "m", "logprob": -2.99}, {"token": "M", "logprob": -2.99}]
    logprobs = {"content": [{"token": "The", "logprob": -0.105, "top_logprobs": top}]}
    endpoint.answer = lambda prompt, before: endpoint.choose(logprobs=logprobs, message={"content": '{"better": "2"}'})
    answered = trial.ask(settings(endpoint), tmp_path, lambda: ())
    assert answered is not None
    assert answered.configuration == "pairwise_json_schema"
    assert answered.passed_over[AUTOMATIC[0]] == "answers, but gives the labels no more than 10% of its first token"
    assert trial.ask(settings(endpoint, configuration=AUTOMATIC[0]), tmp_path, lambda: ()) is not None


@pytest.mark.parametrize("space", ["", " ", "\u2581", "\u0120"])
def test_a_verdict_that_both_are_equal_and_spaces_of_tokenizers_count_as_labels(space: str) -> None:
    """0.8 for neither, 0.05 each for both answers: 0.9 of the first token is a verdict."""
    form = configuration("pairwise_logprobs")
    shares = {"0": 0.8, "1": 0.05, "2": 0.05, "The": 0.1}
    top = [{"token": space + token, "logprob": math.log(share)} for token, share in shares.items()]
    reply = {"logprobs": {"content": [{"token": space + "0", "logprob": math.log(0.8), "top_logprobs": top}]}}
    assert trial.label_share(form, reply) == pytest.approx(0.9)
    assert trial.label_share(configuration("pairwise_number"), {"text": "1"}) == 1.0


def test_a_judge_that_answers_to_nothing_says_why_for_each(endpoint: Any, tmp_path: Path) -> None:
    taking(endpoint, lambda body: "I would rather not.")
    with pytest.raises(JudgeRefused) as raised:
        trial.ask(settings(endpoint), tmp_path, lambda: ())
    said = str(raised.value)
    assert said.startswith("the judge some-judge answers to none of the configurations, choose another judge.model (")
    assert all(f"{name}: " in said for name in AUTOMATIC)
    assert not (tmp_path / trial.FOLDER / trial.FOUND).exists()
    with pytest.raises(JudgeError, match="answers to none of the configurations"):
        run(endpoint, tmp_path)


@pytest.mark.parametrize(("status", "says"), [(401, "does not accept the key"), (404, "retired or unknown there")])
def test_a_judge_that_cannot_be_asked_at_all_is_asked_once(
    status: int, says: str, endpoint: Any, tmp_path: Path
) -> None:
    endpoint.answer = lambda prompt, before: endpoint.respond(status=status, body=b'{"error": {"message": "no"}}')
    with pytest.raises(JudgeStopped, match=says):
        trial.ask(settings(endpoint), tmp_path, lambda: ())
    assert len(endpoint.prompts) == 1


def test_what_was_changed_is_told_and_kept_in_the_score(endpoint: Any, tmp_path: Path) -> None:
    """The endpoint refuses max_tokens by its name, in a list of errors, and system messages."""

    def answer(prompt: str, before: int) -> Any:
        body = endpoint.bodies[-1]
        if "max_tokens" in body:
            said: Any = {"detail": [{"loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted"}]}
            return endpoint.respond(status=422, body=json.dumps(said).encode())
        if body["messages"][0]["role"] == "system":
            said = [{"error": {"message": "role 'system' is not supported by this model"}}]
            return endpoint.respond(status=400, body=json.dumps(said).encode())
        return endpoint.choose(0.9)

    endpoint.answer = answer
    answered = trial.ask(settings(endpoint), tmp_path, lambda: ())
    assert answered is not None
    changes = ["max_tokens sent as max_completion_tokens", "the system message put at the head of the user's"]
    assert list(answered.changes) == changes
    assert answered.in_words.endswith(f"; changed in the request: {', '.join(changes)}")
    score = run(endpoint, tmp_path)
    assert score["request_changes"] == changes
    assert "unusable_replies" not in score  # refusals that taught something are none
    assert {row["kind"] for row in read_jsonl(tmp_path / "journal.jsonl") if row["state"] == "refused"} == {"adapted"}


@pytest.mark.parametrize("said", ["2027-01-14", "2027-01-14T00:00:00Z", 1799884800])
def test_the_endpoint_says_when_its_model_ends(said: Any, endpoint: Any, tmp_path: Path) -> None:
    """2027-01-14 is 90 days after 2026-10-16, and 91 after the day before. It refuses nothing."""
    endpoint.models = [{"id": "other", "shutdown_date": "2026-01-01"}, {"id": "some-judge", "shutdown_date": said}]

    def ends(*today: int) -> str:
        answered = trial.ask(settings(endpoint), tmp_path, lambda: (), date(*today))
        assert answered is not None
        return answered.ends

    assert ends(2026, 10, 15) == ""
    assert ends(2026, 10, 16) == "the endpoint says that some-judge will be shut down on 2027-01-14"
    assert ends(2027, 2, 1) == "the endpoint says that some-judge is retired since 2027-01-14"
    endpoint.models = [{"id": "some-judge"}]
    assert ends(2027, 2, 1) == ""


def test_unusable_replies_are_counted_by_kind_with_an_example(endpoint: Any, tmp_path: Path) -> None:
    """Question 1 is never answered in JSON, three times in both orders; question 2 meets a 500 once in each."""

    def answer(prompt: str, before: int) -> Any:
        if "Question 2?" in prompt and before == 0:
            return endpoint.respond(status=500, body=b'{"error": {"message": "worker died"}}')
        said = "well" if "Question 1?" in prompt else '{"better": "1"}'
        return endpoint.choose(logprobs=None, finish_reason="stop", message={"content": said})

    endpoint.answer = answer
    score = run(endpoint, tmp_path, configuration="pairwise_json_schema")
    kinds = {one["kind"]: (one["count"], one["example"]) for one in score["unusable_replies"]}
    assert kinds["error 500"] == (2, "500: worker died")
    count, example = kinds["no JSON as asked for"]
    assert count == 6
    assert example.startswith("its text 'well' is not the JSON that was asked for")
    assert score["reason"].startswith(
        "1 of 3 unjudged; replies that could not be used: 6 × no JSON as asked for, 2 × error 500"
    )


def test_replies_that_reasoning_ate_are_given_more_room(endpoint: Any, tmp_path: Path) -> None:
    def answer(prompt: str, before: int) -> Any:
        if endpoint.bodies[-1]["max_tokens"] < 2000:
            return endpoint.choose(logprobs=None, finish_reason="length", message={"content": "<think>so"})
        return endpoint.choose(logprobs=None, finish_reason="stop", message={"content": "<think>so</think>1"})

    endpoint.answer = answer
    score = run(endpoint, tmp_path, configuration="pairwise_number")
    assert score["value"] == pytest.approx(50)
    assert score["request_changes"] == ["max_tokens: 2048, as a reply was cut off before it said anything"]


def test_an_error_inside_a_200_is_paused_for_like_one_beside_it(endpoint: Any, tmp_path: Path) -> None:
    """The pause is as long as the body says, nothing here; each comparison meets one 429 and is asked once more."""
    busy = {"error": {"code": 429, "message": "Rate limit, try again in 1ms"}}
    endpoint.answer = lambda prompt, before: (
        endpoint.choose(0.9) if before else endpoint.respond(body=json.dumps(busy).encode())
    )
    score = run(endpoint, tmp_path, configuration=AUTOMATIC[0])
    assert score["value"] == pytest.approx(50)
    assert score["unusable_replies"] == [
        {"kind": "error 429", "count": 6, "example": "429: Rate limit, try again in 1ms"}
    ]


@pytest.mark.parametrize("name", ["pairwise_json_schema", "pairwise_logprobs"])
def test_a_real_model_behind_a_real_server_is_read(name: str, llama_server: ModelServer, tmp_path: Path) -> None:
    """Every comparison of one pair has a verdict: forced by the schema, or read from the labels' probabilities."""
    one = JudgeSettings(
        kind="openai", model=llama_server.model, base_url=llama_server.url, key_variable="JUDGE_KEY", configuration=name
    )
    pairs = [Pair(0, "Is 7 a prime number? Say 1 for yes.", "1", "No.")]
    scores, (row,) = judge(pairs, one, tmp_path, lambda model: None, lambda text: None)  # type: ignore[arg-type]
    (score,) = scores.values()
    if score["value"] is None:  # the model need not have both labels among its five likeliest tokens
        assert name == "pairwise_logprobs"
        assert {one["kind"] for one in score["unusable_replies"]} == {"labels missing"}
    else:
        assert 0 <= row["preference"] <= 1
    assert (score["configuration"], score["of_alpaca_eval"]) == (name, False)
