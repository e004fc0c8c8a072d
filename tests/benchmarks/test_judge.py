"""The campaign's books tell a lost reply from one that was under way, and a small campaign goes through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.judges.cost import Account
from benchmarks.campaigns import judge as judging
from benchmarks.campaigns.judge import Entry, Findings


def row(request: str, state: str) -> dict[str, Any]:
    return {"request": request, "state": state}


def kept(request: str) -> list[dict[str, Any]]:
    return [row(request, "sent"), row(request, "answered")]


def test_a_reply_that_is_kept_is_not_lost() -> None:
    entries = [Entry("one", "a", "p", "500"), Entry("one", "b", "p", "answered")]
    rows = [row("a", "sent"), row("a", "refused"), *kept("b")]
    assert judging.compare(entries, rows, set()) == Findings(0, 0, 0, 0)


def test_a_reply_that_is_not_kept_is_lost_unless_its_process_was_killed() -> None:
    entries = [Entry("one", "a", "p", "answered"), Entry("two", "a", "p", "answered")]
    rows = [row("a", "sent"), *kept("a")]
    assert judging.compare(entries, rows, {"one"}) == Findings(0, 1, 0, 0)
    assert judging.compare(entries, rows, set()) == Findings(1, 1, 0, 0)


def test_no_more_than_are_under_way_at_once_can_be_under_way_at_a_kill() -> None:
    names = [f"{number}" for number in range(judging.CONCURRENCY + 3)]
    entries = [Entry("one", name, name, "answered") for name in names]
    assert judging.compare(entries, [row(name, "sent") for name in names], {"one"}).lost == 3


def test_what_timed_out_is_not_lost_but_must_be_counted() -> None:
    """The same request again, which the journal does not note, is paid twice without being counted."""
    entries = [Entry("one", "a", "p", "slow"), Entry("one", "a", "p", "answered")]
    noted = [row("a", "sent"), row("a", "unanswered"), *kept("a")]
    assert judging.compare(entries, noted, set()) == Findings(0, 1, 0, 0)
    assert judging.compare(entries, kept("a"), set()) == Findings(0, 1, 1, 0)


def test_a_slow_machine_makes_a_time_out_of_any_answer() -> None:
    entries = [Entry("one", "a", "p", "answered"), Entry("one", "a", "p", "answered")]
    assert judging.compare(entries, [row("a", "sent"), row("a", "unanswered"), *kept("a")], set()).lost == 0


def test_what_is_asked_for_again_though_it_was_kept_is_found() -> None:
    entries = [
        Entry("one", "a", "p", "answered"),
        Entry("two", "b", "p", "answered"),
        Entry("two", "c", "q", "answered"),
    ]
    assert judging.compare(entries, [*kept("a"), *kept("b"), *kept("c")], set()).asked_again == 1


def test_a_small_campaign_loses_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    campaign, scores = judging.run(tmp_path, 40, 2, 1, lambda text: None)
    kept_rows = campaign.rows()
    found = judging.compare(campaign.books.entries, kept_rows, campaign.killed)
    assert (found.lost, found.not_counted, found.asked_again) == (0, 0, 0)
    assert (len(campaign.killed), campaign.stopped) == (2, [2])
    assert {name: (score["n"], score["unjudged"]) for name, score in scores.items()} == {
        f"win_rate/{judge}": (40, 0) for judge in judging.JUDGES
    }
    assert Account(kept_rows).possibly_paid_twice >= found.paid_twice > 0
