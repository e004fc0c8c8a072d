from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from loopback_batches import BatchServer
from loopback_judge import KEY, Response, completion

from bench.errors import InputError, Interrupted, JudgeError
from bench.evaluators.win_rate import JOURNAL, judge
from bench.judges import JudgeSettings, trial
from bench.judges.batch import batches as asking_in_batches
from bench.judges.batch import endpoint as batch_endpoint
from bench.judges.requests import Pair
from bench.records.record import read_jsonl

PRICE = {"input_usd_per_million_tokens": 1000.0, "output_usd_per_million_tokens": 10000.0, "batch_factor": 0.5}


def pairs(count: int) -> list[Pair]:
    return [
        Pair(number, f"Question {number}?", f"our answer {number}", f"their answer {number}") for number in range(count)
    ]


def settings(server: BatchServer, **changes: Any) -> JudgeSettings:
    given = {
        "kind": "openai",
        "model": "some-judge",
        "base_url": server.url,
        "key_variable": "JUDGE_KEY",
        "batch": True,
        "configuration": "weighted_alpaca_eval_gpt4_turbo",
    }
    return JudgeSettings.model_validate(given | {"first_pause_seconds": 0.01} | changes)


def run(
    server: BatchServer,
    folder: Path,
    count: int = 4,
    told: list[str] | None = None,
    stopping: Any = None,
    **changes: Any,
) -> dict[str, Any]:
    scores, _ = judge(
        pairs(count),
        settings(server, **changes),
        folder,
        None,  # type: ignore[arg-type]
        (told if told is not None else []).append,
        **({"stopping": stopping} if stopping else {}),
    )
    return scores["win_rate/some-judge"]


def refused(status: int, message: str, **more: Any) -> Response:
    return Response(json.dumps({"error": {"message": message, **more}}).encode(), status)


def test_one_request_of_its_own_and_the_rest_by_batch_at_half_price(batches: BatchServer, tmp_path: Path) -> None:
    """4 pairs in both orders: 8 comparisons of 300 tokens in and 1 out, 0.31 dollars each; 7 of them at half of it.

    1 · 0.31 + 7 · 0.155 = 1.395 dollars; the rate is the 75 % of `like_ours`. The same comparisons asked by themselves
    are found in the journal.
    """
    batches.answer = batches.like_ours
    told: list[str] = []
    made = run(batches, tmp_path, told=told, price=PRICE)
    assert made["value"] == pytest.approx(75)
    assert made["cost_usd"] == pytest.approx(1.395)
    assert (made["requests"], made["in_batches"], made["prompt_tokens"]) == (8, 7, 2400)
    assert (made["unanswered"], made["possibly_paid_twice"]) == (0, 0)
    assert batches.direct == 1
    assert batches.line_numbers() == [7]
    assert set(batches.billed.values()) == {1}
    assert any("waiting for batch batch_0: 0 of 0 done" in line for line in told)
    sent = [{name: body[name] for name in body if name != "messages"} for body in batches.bodies]
    assert all(one == sent[0] for one in sent)  # by batch as by itself

    again = run(batches, tmp_path, price=PRICE, batch=False)
    assert (len(batches.prompts), again) == (8, made)
    rows = list(read_jsonl(tmp_path / JOURNAL))
    assert Counter(row.get("step") for row in rows if row.get("step")) == {"creating": 1, "created": 1, "ended": 1}
    assert KEY not in (tmp_path / JOURNAL).read_text()


def test_our_key_is_on_the_disk_before_the_batch_is_made_and_is_its_metadata(
    batches: BatchServer, tmp_path: Path
) -> None:
    seen: list[list[dict[str, Any]]] = []
    create = batches._create

    def look(asked: dict[str, Any], mark: str) -> Response:
        if "input_file_id" in asked:
            seen.append(list(read_jsonl(tmp_path / JOURNAL)))
        return create(asked, mark)

    batches._create = look  # type: ignore[method-assign]
    batches.answer = batches.like_ours
    run(batches, tmp_path, 2)
    (before,) = seen
    (key,) = {row["batch"] for row in before if row.get("batch")}
    assert [row["step"] for row in before if "step" in row] == ["creating"]
    assert sum(row.get("state") == "sent" and row.get("batch") == key for row in before) == 3
    assert batches.ours[0]["metadata"] == {"bench_batch": key}


@pytest.mark.parametrize("lists", [True, False])
def test_it_is_made_once_though_the_answer_to_it_is_lost(lists: bool, batches: BatchServer, tmp_path: Path) -> None:
    """The endpoint makes the batch and cuts the connection. Listed behind 45 batches of others it is found again.

    Where batches are not listed it is made again, and all of its 3 comparisons may be paid twice.
    """
    batches.theirs(25)
    batches.on_create = [(Response(cut=True), True)]
    batches.answer, batches.lists = batches.like_ours, lists
    made = run(batches, tmp_path, 2)
    batches.theirs(25)
    assert made["value"] == pytest.approx(75)
    batches.run_all()
    twice = 0 if lists else 3
    assert sum(batches.billed.values()) == 4 + twice
    assert len(batches.ours) == (1 if lists else 2)
    assert (made["unanswered"], made["possibly_paid_twice"]) == (twice, twice)


def test_a_batch_that_was_not_made_is_made_the_next_time(batches: BatchServer, tmp_path: Path) -> None:
    batches.on_create = [(Response(b"{}", 503), False), (Response(cut=True), False)]
    batches.answer = batches.like_ours
    made = run(batches, tmp_path, 2)
    assert made["value"] == pytest.approx(75)
    assert len(batches.ours) == 1
    assert (made["unanswered"], made["possibly_paid_twice"]) == (0, 0)


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_came_in_time_is_taken_and_the_rest_is_asked_again(end: str, batches: BatchServer, tmp_path: Path) -> None:
    """Of 11 lines the first batch comes to 5; the second asks for 6."""
    batches.answer = batches.like_ours
    batches.ends = lambda number: "completed" if number else end
    batches.answered = lambda number, line: number > 0 or line < 5
    made = run(batches, tmp_path, 6, price=PRICE)
    assert made["value"] == pytest.approx(75)
    assert batches.line_numbers() == [11, 6]
    assert set(batches.billed.values()) == {1}
    assert made["cost_usd"] == pytest.approx(0.31 + 11 * 0.155)
    assert (made["unanswered"], made["possibly_paid_twice"]) == (0, 0)


def test_batches_that_never_come_to_their_lines_end_with_a_reason(batches: BatchServer, tmp_path: Path) -> None:
    batches.ends, batches.answered = (lambda number: "expired"), (lambda number, line: False)
    made = run(batches, tmp_path, 2)
    assert made["value"] is None
    assert batches.line_numbers() == [3] * asking_in_batches.ATTEMPTS
    errors = {row["error"] for row in read_jsonl(tmp_path / JOURNAL) if row.get("error")}
    assert any("expired" in error for error in errors)


def test_lines_that_fail_are_asked_again_and_a_filtered_one_is_not(batches: BatchServer, tmp_path: Path) -> None:
    """Question 1 meets a 429 and a 500 first; question 2 is filtered; question 3 has no label at first."""
    good = batches.like_ours

    def answer(prompt: str, before: int) -> Response:
        if "Question 1?" in prompt and before < 2:
            return refused(429 + 71 * before, "busy")
        if "Question 2?" in prompt:
            return refused(400, "filtered", code="content_filter")
        if "Question 3?" in prompt and before < 1:
            return batches.choose(logprobs=None)
        return good(prompt, before)

    batches.answer = answer
    made = run(batches, tmp_path, max_unjudged_share=0.25)
    assert made["value"] == pytest.approx(75)
    assert (made["n"], made["unjudged"]) == (4, 1)
    assert batches.line_numbers() == [7, 4, 2]
    assert (made["requests"], made["unanswered"]) == (6 + 2, 0)


def test_a_field_that_lines_are_refused_for_is_left_out_of_the_next_batch(batches: BatchServer, tmp_path: Path) -> None:
    """The request by itself is taken as it is; in batches `top_p` is refused, for each line, with or without reasoning."""
    good = batches.like_ours

    def answer(prompt: str, before: int) -> Response:
        if "top_p" in batches.bodies[-1] and len(batches.bodies) > 1:
            return refused(400, "Unsupported parameter: 'top_p'", param="top_p", code="unsupported_parameter")
        return good(prompt, before)

    batches.answer = answer
    made = run(batches, tmp_path)
    assert made["value"] == pytest.approx(75)
    assert batches.line_numbers() == [7, 7, 7]
    rows = [row for row in read_jsonl(tmp_path / JOURNAL) if row["usable"]]
    assert ["top_p" in row["parameters"] for row in rows] == [True] + [False] * 7


def test_the_fields_are_learned_before_a_batch_is_made(batches: BatchServer, tmp_path: Path) -> None:
    good = batches.like_ours

    def answer(prompt: str, before: int) -> Response:
        if "max_tokens" in batches.bodies[-1]:
            return refused(400, "Unsupported parameter: use 'max_completion_tokens' instead", param="max_tokens")
        return good(prompt, before)

    batches.answer = answer
    assert run(batches, tmp_path)["value"] == pytest.approx(75)
    assert batches.line_numbers() == [7]
    assert batches.direct == 2


def test_lines_refused_for_what_concerns_all_stop_it(batches: BatchServer, tmp_path: Path) -> None:
    good = batches.like_ours
    batches.answer = lambda prompt, before: (
        good(prompt, before) if len(batches.bodies) == 1 else refused(400, "no judging")
    )
    made = run(batches, tmp_path)
    assert made["reason"].startswith("4 of 4 unjudged: the judge some-judge at 127.0.0.1 refuses the request (400: ")
    assert "no judging" in made["reason"]
    assert batches.line_numbers() == [7]


def test_useless_replies_are_all_kept_and_no_further_batch_is_made(batches: BatchServer, tmp_path: Path) -> None:
    """The first reply is good and the 19 of the batch are not: ten in a row stop it, after all 19 are in the journal."""
    good, bad = batches.like_ours, batches.choose(logprobs=None)
    batches.answer = lambda prompt, before: good(prompt, before) if len(batches.bodies) == 1 else bad
    made = run(batches, tmp_path, 10, price=PRICE)
    assert "10 replies in a row could not be used: it came without log-probabilities" in made["reason"]
    assert batches.line_numbers() == [19]
    assert made["cost_usd"] == pytest.approx(0.31 + 19 * 0.155)


def test_a_file_takes_so_many_requests(batches: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches.answer = batches.like_ours
    monkeypatch.setattr(asking_in_batches, "MOST_REQUESTS", 3)
    made = run(batches, tmp_path)
    assert made["value"] == pytest.approx(75)
    assert batches.line_numbers() == [3, 3, 1]


def test_a_file_takes_so_many_bytes(batches: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is below the limit, which two requests fit in and three do not."""
    batches.answer = batches.like_ours
    monkeypatch.setattr(asking_in_batches, "MOST_BYTES", 6000)
    made = run(batches, tmp_path)
    assert made["value"] == pytest.approx(75)
    sizes = [len(batches.files[one["input_file_id"]]) for one in batches.ours]
    assert max(sizes) <= 6000 < min(a + b for a, b in pairwise(sizes[:-1]))
    assert sum(batches.line_numbers()) == 7


def test_a_batch_that_is_too_much_for_the_account_is_made_smaller(batches: BatchServer, tmp_path: Path) -> None:
    """2 lines are all that may wait: 7 are refused, then 3, then one by one."""
    batches.answer, batches.most_lines = batches.like_ours, 2
    made = run(batches, tmp_path)
    assert made["value"] == pytest.approx(75)
    assert batches.line_numbers()[0] == 7
    assert set(batches.billed.values()) == {1}
    assert (made["unanswered"], made["possibly_paid_twice"]) == (0, 0)


def test_a_batch_that_is_refused_says_why(batches: BatchServer, tmp_path: Path) -> None:
    batches.answer = batches.like_ours
    batches.errors = lambda number: [{"code": "model_not_found", "message": "The model is not there for the Batch API"}]
    made = run(batches, tmp_path)
    assert made["reason"] == (
        "4 of 4 unjudged: the judge some-judge at 127.0.0.1 refuses the batch (The model is not there for the Batch API); set "
        "judge.batch: false, or change the judge's settings"
    )
    assert len(batches.ours) == 1
    assert made["unanswered"] == 0


def test_an_endpoint_without_batches_is_refused_before_it_is_asked(batches: BatchServer, tmp_path: Path) -> None:
    batches.there = False
    line = r"evaluation\.win_rate\.judge\.batch: 127\.0\.0\.1 has no batches of OpenAI's form \(/batches answers 404\); set it"
    with pytest.raises(InputError, match=line):
        run(batches, tmp_path)
    with pytest.raises(InputError, match=line):
        trial.ask(settings(batches), tmp_path, lambda: ())
    with pytest.raises(InputError, match=line):
        trial.ask(settings(batches, configuration=None), tmp_path, lambda: ())
    assert batches.direct == 0
    assert run(batches, tmp_path, batch=False)["n"] == 4


def test_the_trial_asks_one_question_and_makes_no_batch(batches: BatchServer, tmp_path: Path) -> None:
    assert trial.ask(settings(batches), tmp_path, lambda: ()) is not None
    assert (batches.direct, batches.batches) == (1, [])


def test_a_ceiling_makes_batches_of_what_it_allows(batches: BatchServer, tmp_path: Path) -> None:
    """A comparison by batch costs 0.155 dollars and is set aside with about 0.25; the first, by itself, costs 0.31.

    Of 1.0 dollar 0.69 are left: 2 fit, then 1, then none. More money goes on where it stopped.
    """
    batches.answer = batches.like_ours
    made = run(batches, tmp_path, price=PRICE, max_cost_usd=1.0)
    assert "the next comparison may pass the ceiling" in made["reason"]
    assert made["cost_usd"] == pytest.approx(0.31 + sum(batches.line_numbers()) * 0.155)
    assert made["cost_usd"] <= 1.0
    assert len(batches.line_numbers()) > 1
    assert run(batches, tmp_path, price=PRICE, max_cost_usd=10)["value"] == pytest.approx(75)
    assert set(batches.billed.values()) == {1}


def test_a_stopped_process_leaves_its_batch_and_the_next_one_takes_it(batches: BatchServer, tmp_path: Path) -> None:
    batches.answer, batches.looks = batches.like_ours, 10**9
    line = "interrupted; what was made as a batch goes on at 127.0.0.1, and the same command takes its results"
    with pytest.raises(Interrupted) as raised:
        run(batches, tmp_path, stopping=lambda: bool(batches.ours))
    assert str(raised.value) == line
    batches.looks = 1
    made = run(batches, tmp_path, price=PRICE, max_cost_usd=2)
    assert made["value"] == pytest.approx(75)
    assert batches.line_numbers() == [7]
    assert set(batches.billed.values()) == {1}
    assert made["cost_usd"] == pytest.approx(0.31 + 7 * 0.155)


def test_a_batch_begun_is_taken_though_batches_are_not_wanted_any_more(batches: BatchServer, tmp_path: Path) -> None:
    """Its results come first; only what it left out is asked by itself."""
    batches.answer, batches.looks = batches.like_ours, 10**9
    batches.ends, batches.answered = (lambda number: "cancelled"), (lambda number, line: line < 4)
    with pytest.raises(Interrupted):
        run(batches, tmp_path, stopping=lambda: bool(batches.ours))
    batches.looks = 1
    made = run(batches, tmp_path, batch=False)
    assert made["value"] == pytest.approx(75)
    assert batches.direct == 1 + 3
    assert len(batches.ours) == 1
    assert set(batches.billed.values()) == {1}


def test_fewer_pairs_the_next_time_leave_the_rest_of_a_batch_for_later(batches: BatchServer, tmp_path: Path) -> None:
    batches.answer, batches.looks = batches.like_ours, 10**9
    with pytest.raises(Interrupted):
        run(batches, tmp_path, 6, stopping=lambda: bool(batches.ours))
    batches.looks = 1
    assert run(batches, tmp_path, 2)["value"] == pytest.approx(75)
    assert run(batches, tmp_path, 6)["value"] == pytest.approx(75)
    assert batches.line_numbers() == [11]
    assert set(batches.billed.values()) == {1}


def test_results_that_are_gone_are_counted_and_asked_again(batches: BatchServer, tmp_path: Path) -> None:
    batches.answer = batches.like_ours
    content = batches.handle

    def gone(method: str, path: str, *rest: Any) -> Response:
        if path.endswith("/content") and len(batches.ours) == 1:
            return Response(b"{}", 404)
        return content(method, path, *rest)

    batches.handle = gone  # type: ignore[method-assign]
    made = run(batches, tmp_path, 2)
    assert made["value"] == pytest.approx(75)
    assert batches.line_numbers() == [3, 3]
    assert (made["unanswered"], made["possibly_paid_twice"]) == (3, 3)


def test_faults_while_waiting_are_waited_out(batches: BatchServer, tmp_path: Path) -> None:
    """Every second answer about files and batches is a fault: busy, cut, or a page of HTML's status 502."""
    batches.answer, handle, counted = batches.like_ours, batches.handle, Counter[str]()
    bad = [Response(b"{}", 429, {"Retry-After": "0"}), Response(cut=True), Response(b"<html>", 502)]

    def sometimes(method: str, path: str, *rest: Any) -> Response:
        counted[path] += 1
        if method == "GET" and counted[path] % 2:
            return bad[counted[path] // 2 % 3]
        return handle(method, path, *rest)

    batches.handle = sometimes  # type: ignore[method-assign]
    made = run(batches, tmp_path)
    assert made["value"] == pytest.approx(75)
    assert (len(batches.ours), made["unanswered"]) == (1, 0)


def test_an_endpoint_that_goes_down_while_a_batch_runs_is_not_asked_for_another(
    batches: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_endpoint, "LONGEST_PAUSE_SECONDS", 0.01)
    batches.answer, handle = batches.like_ours, batches.handle
    batches.handle = lambda method, path, *rest: (  # type: ignore[method-assign]
        Response(b"{}", 503) if path.startswith("/v1/batches/") else handle(method, path, *rest)
    )
    made = run(batches, tmp_path)
    assert "a batch that was made goes on there" in made["reason"]
    batches.handle = handle  # type: ignore[method-assign]
    assert run(batches, tmp_path)["value"] == pytest.approx(75)
    assert batches.line_numbers() == [7]


def test_a_batch_that_never_ends_is_left_to_the_next_run(
    batches: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches.answer, batches.looks = batches.like_ours, 3
    monkeypatch.setattr(asking_in_batches, "LONGEST_WAIT_SECONDS", -1.0)
    made = run(batches, tmp_path)
    assert "does not end its batch (batch_0: 0 of 0 done, in_progress); it goes on there" in made["reason"]
    monkeypatch.undo()
    monkeypatch.setenv("JUDGE_KEY", KEY)
    assert run(batches, tmp_path)["value"] == pytest.approx(75)
    assert batches.line_numbers() == [7]


def test_a_key_that_is_refused_is_said_so(batches: BatchServer, tmp_path: Path) -> None:
    handle = batches.handle
    batches.handle = lambda method, path, *rest: (  # type: ignore[method-assign]
        refused(401, f"Incorrect API key {KEY}")
        if method == "POST" and "files" in path
        else handle(method, path, *rest)
    )
    made = run(batches, tmp_path)
    assert "does not accept the key in JUDGE_KEY" in made["reason"]
    assert (made["unanswered"], batches.ours) == (0, [])


def test_a_thousand_pairs_with_faults_in_the_batches(batches: BatchServer, tmp_path: Path) -> None:
    """A fifth of first answers is a fault of its line; nothing is lost, and nothing that came is paid for twice.

    Ours are preferred with 0.9 in first place and 0.6 in second, in the orders that the journal names.
    """
    good, other = batches.like_ours, completion(0.9, logprobs=None)
    bad = [refused(429, "busy"), refused(500, "broken"), Response(other), Response(b'{"choices": []}')]

    def sometimes(prompt: str, before: int) -> Response:
        chance = random.Random(f"{prompt}{before}")
        return chance.choice(bad) if chance.random() < 0.2 and before < 2 else good(prompt, before)

    batches.answer = sometimes
    made = run(batches, tmp_path, 1000, orders="single")
    kept = [row for row in read_jsonl(tmp_path / JOURNAL) if row["usable"]]
    orders = Counter(row["order"] for row in kept)
    assert {row["pair"] for row in kept} == set(range(1000))
    assert made["value"] == pytest.approx((90 * orders["ours_first"] + 60 * orders["theirs_first"]) / 1000, abs=1e-9)
    first, second, *_ = batches.line_numbers()
    assert first > 990 and 150 < second < 250
    assert max(Counter(row["key"] for row in kept).values()) == 1


def test_other_kinds_take_no_batches() -> None:
    with pytest.raises(ValueError, match="batch: a judge of kind 'rule' is not asked in batches; leave it out"):
        JudgeSettings(kind="rule", batch=True)
    assert JudgeSettings(kind="openai", batch=True).identity() == JudgeSettings(kind="openai").identity()
    assert issubclass(Interrupted, Exception) and not issubclass(Interrupted, JudgeError)
