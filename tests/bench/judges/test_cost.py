from __future__ import annotations

import threading
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bench.errors import JudgeStopped, SuiteError
from bench.evaluators.win_rate import JOURNAL, judge
from bench.judges import JudgeSettings, Message, Part, Request, trial
from bench.judges.cost import Account, Budget, bill
from bench.judges.prices import Rate, rate, shutdown
from bench.judges.requests import Pair
from bench.records.record import read_jsonl

PRICE = {"input_usd_per_million_tokens": 1000.0, "output_usd_per_million_tokens": 10000.0}
PAIRS = [Pair(number, f"Question {number}?", f"our answer {number}", f"their answer {number}") for number in range(4)]


def run(endpoint: Any, folder: Path, **changes: Any) -> dict[str, Any]:
    given = {"kind": "openai", "model": "some-judge", "base_url": endpoint.url, "key_variable": "JUDGE_KEY"}
    given |= {"configuration": "weighted_alpaca_eval_gpt4_turbo"}
    settings = JudgeSettings.model_validate(given | {"concurrency": 1} | changes)
    others = lambda: folder.parent.glob(f"*/{JOURNAL}")  # noqa: E731
    scores, _ = judge(PAIRS, settings, folder, None, lambda text: None, others)  # type: ignore[arg-type]
    return scores["win_rate/some-judge"]


def test_the_table_is_for_its_own_endpoint() -> None:
    """gpt-4.1 costs 2 dollars a million tokens in and 8 out: 1,000 in and 100 out are 0.0028 dollars."""
    found, _ = rate(JudgeSettings(kind="openai"), "gpt-4.1")
    assert found is not None
    assert found.of(1000, 100) == pytest.approx(0.0028)
    assert "2026-11" in found.source
    for settings, model, reason in (
        (
            JudgeSettings(kind="openai", base_url="http://127.0.0.1/v1"),
            "gpt-4.1",
            "no price is known for this endpoint",
        ),
        (JudgeSettings(kind="openai"), "my-model", "no price is known for my-model"),
        (JudgeSettings(kind="rule"), "rule", "a judge of kind rule has no price"),
    ):
        nothing, why = rate(settings, model)
        assert nothing is None
        assert reason in why
    own, _ = rate(
        JudgeSettings.model_validate({"kind": "openai", "base_url": "http://h/v1", "price": PRICE}), "my-model"
    )
    assert own == Rate(1000.0, 10000.0, "the suite's own price")


def test_retired_models_are_known() -> None:
    assert shutdown(JudgeSettings(kind="openai"), "gpt-4-1106-preview") == date(2026, 3, 26)
    assert shutdown(JudgeSettings(kind="openai"), "gpt-6-luna") is None
    assert shutdown(JudgeSettings(kind="openai", base_url="http://127.0.0.1/v1"), "gpt-4-1106-preview") is None


@pytest.mark.parametrize(
    ("today", "said"),
    [
        (date(2026, 10, 15), None),
        (date(2026, 10, 16), "will be shut down on 2027-01-14"),
        (date(2027, 1, 13), "will be shut down on 2027-01-14"),
        (date(2027, 1, 14), "is retired since 2027-01-14"),
        (date(2028, 1, 1), "is retired since 2027-01-14"),
    ],
)
def test_an_end_is_warned_of_ninety_days_before_and_ever_after(today: date, said: str | None) -> None:
    told = trial.warnings(JudgeSettings(kind="openai", model="gpt-4.1"), today)
    line = f"the judge gpt-4.1 {said}; set judge.model to one that lives longer, such as gpt-6-luna"
    assert [one for one in told if "price" not in one] == ([line] if said else [])


def test_a_budget_sets_aside_what_is_under_way() -> None:
    """40 letters are 11 tokens at most: 11 · 0.01 + 1 · 0.1 = 0.21 dollars each; the ceiling of 0.65 takes three.

    Once one has cost 0.05 only, 0.42 are set aside and 0.05 spent, so the next one does not fit: 0.68; a second that
    cost 0.05 makes room.
    """
    budget = Budget(Rate(10_000, 100_000, ""), 0.65, completion_tokens=lambda: 1)
    request = Request("", "", "", (Message("user", (Part("x" * 40, True),)),))
    for _ in range(3):
        budget.reserve(request)
    with pytest.raises(JudgeStopped, match=r"\$0\.0000 of evaluation\.win_rate\.judge\.max_cost_usd = 0\.65 are spent"):
        budget.reserve(request)
    budget.settle(request, 0.05)
    with pytest.raises(JudgeStopped):
        budget.reserve(request)
    budget.settle(request, 0.05)
    budget.reserve(request)


def test_the_bill_by_hand(endpoint: Any, tmp_path: Path) -> None:
    """8 comparisons of 300 tokens in and 1 out, at 0.001 and 0.01 dollars a token: 8 · 0.31 = 2.48 dollars.

    A further unusable reply to each costs as much.
    """
    good, unusable = endpoint.like_ours, endpoint.choose(logprobs=None)
    endpoint.answer = lambda prompt, before: good(prompt, before) if before else unusable
    made = run(endpoint, tmp_path / "one", price=PRICE)
    assert made["cost_usd"] == pytest.approx(4.96)
    assert (made["requests"], made["prompt_tokens"], made["completion_tokens"]) == (16, 4800, 16)
    assert made["price"] == "the suite's own price"
    replies = [row for row in read_jsonl(tmp_path / "one" / JOURNAL) if row["state"] == "answered"]
    assert [row["cost_usd"] for row in replies] == [pytest.approx(0.31)] * 16
    assert (made["unanswered"], made["unanswered_usd_at_most"], made["possibly_paid_twice"]) == (0, 0, 0)

    again = run(endpoint, tmp_path / "two", price=PRICE)
    assert len(endpoint.prompts) == 16
    assert (again["requests"], again["cost_usd"]) == (0, 0)
    assert again["value"] == made["value"]
    assert {row["from"] for row in read_jsonl(tmp_path / "two" / JOURNAL)} == {"one"}


def test_an_unknown_price_is_null_and_not_0(endpoint: Any, tmp_path: Path) -> None:
    endpoint.answer = endpoint.like_ours
    made = run(endpoint, tmp_path / "one")
    assert made["cost_usd"] is None
    assert made["cost_reason"].startswith("no price is known for this endpoint")
    assert made["prompt_tokens"] == 2400


def test_replies_without_token_counts_have_no_bill() -> None:
    rows = [{"reply": {}, "tokens": {"prompt": 3, "completion": 1}}, {"reply": {}, "tokens": None}, {"reply": None}]
    made = bill(rows, Rate(1, 1, "here"), "")
    assert made["cost_usd"] is None
    assert made["cost_reason"] == "the endpoint gave no token counts for 1 replies"


def test_the_ceiling_keeps_what_came_and_more_money_goes_on(endpoint: Any, tmp_path: Path) -> None:
    """A comparison costs 0.31 dollars and is set aside with about 0.5: of a ceiling of 1.2 three are asked.

    0 + 0.5, 0.31 + 0.5 and 0.62 + 0.5 stay below it, 0.93 + 0.5 does not. A ceiling of 10 lets the other five through;
    another judging of the suite then counts what is spent: 2.48 dollars.
    """
    endpoint.answer = endpoint.like_ours
    made = run(endpoint, tmp_path / "one", price=PRICE, max_cost_usd=1.2)
    assert made["value"] is None
    assert made["reason"].startswith("3 of 4 unjudged: the next comparison may pass the ceiling: $0.9300 of ")
    assert made["cost_usd"] == pytest.approx(0.93)
    assert len(endpoint.prompts) == 3

    made = run(endpoint, tmp_path / "one", price=PRICE, max_cost_usd=10)
    assert made["value"] == pytest.approx(75)
    assert made["cost_usd"] == pytest.approx(2.48)
    assert len(endpoint.prompts) == 8

    made = run(endpoint, tmp_path / "two", price=PRICE, max_cost_usd=2.5, model="some-judge", orders="both")
    assert made["value"] == pytest.approx(75)
    (tmp_path / "three").mkdir()
    (tmp_path / "two" / JOURNAL).unlink()
    changed = [Pair(9, "Another?", "our answer", "their answer")]
    settings = JudgeSettings.model_validate(
        {
            "kind": "openai", "model": "some-judge", "base_url": endpoint.url, "key_variable": "JUDGE_KEY",
            "configuration": "weighted_alpaca_eval_gpt4_turbo",
            "price": PRICE, "max_cost_usd": 2.5,
        }
    )  # fmt: skip
    scores, _ = judge(
        changed,
        settings,
        tmp_path / "three",
        None,
        lambda text: None,
        lambda: tmp_path.glob(f"*/{JOURNAL}"),  # type: ignore[arg-type]
    )
    assert "$2.4800 of" in scores["win_rate/some-judge"]["reason"]
    assert len(endpoint.prompts) == 8


def line(state: str, request: str, **more: Any) -> dict[str, Any]:
    return {"key": "k", "request": request, "state": state, "usable": False, **more}


def test_an_account_by_hand() -> None:
    """Request a: sent, killed, sent again, timed out, refused, answered: 2 unanswered, 2 + 1 − 1 paid twice at most.

    Request b, after an unusable answer to a: sent alone; what was taken over is another journal's to pay.
    """
    account = Account()
    for state in ("sent", "sent", "unanswered", "sent", "refused"):
        account.add(line(state, "a", cost_usd_at_most=0.5))
    assert account.unanswered_request("k") == "a"
    account.add(line("sent", "a", cost_usd_at_most=0.5))
    account.add(line("answered", "a", cost_usd=0.25))
    assert (account.unanswered, account.possibly_paid_twice) == (2, 2)
    assert account.unanswered_usd_at_most == 1.0
    assert account.spent == 1.25
    account.add(line("sent", "b", cost_usd_at_most=None))
    account.add({"key": "k", "usable": True, "from": "elsewhere", "cost_usd": 8.0})
    account.add({"key": "k", "usable": True, "cost_usd": 2.0})  # from before requests were noted
    assert (account.unanswered, account.possibly_paid_twice) == (3, 2)
    assert account.unanswered_usd_at_most is None
    assert account.spent == 3.25
    assert account.unanswered_request("k") == "b"
    assert account.unanswered_request("another") is None


def test_what_may_be_paid_counts_towards_the_ceiling(endpoint: Any, tmp_path: Path) -> None:
    """Two requests time out, at 0.36 dollars each at most; a third could pass the ceiling of 1, then and later."""
    never = threading.Event()
    endpoint.answer = lambda prompt, before: endpoint.respond(wait=never)
    made = run(endpoint, tmp_path / "one", price=PRICE, max_cost_usd=1, timeout_seconds=0.2, first_pause_seconds=0)
    assert "the next comparison may pass the ceiling" in made["reason"]
    assert (len(endpoint.prompts), made["unanswered"], made["cost_usd"]) == (2, 2, 0)
    assert 0.6 < made["unanswered_usd_at_most"] < 1
    never.set()
    made = run(endpoint, tmp_path / "one", price=PRICE, max_cost_usd=1)
    assert "the next comparison may pass the ceiling" in made["reason"]
    assert len(endpoint.prompts) == 2


def test_a_ceiling_without_a_price_is_refused(endpoint: Any, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="max_cost_usd: no price is known for this endpoint; give evaluation"):
        run(endpoint, tmp_path, max_cost_usd=1)
    assert endpoint.prompts == []
