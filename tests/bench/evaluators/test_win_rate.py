from __future__ import annotations

from typing import Any

import pytest

from bench.evaluators.win_rate import score
from bench.judges.requests import Pair


def rows(*preferences: float | None) -> list[dict[str, Any]]:
    return [{"id": number, "preference": one, "orders": {"ours_first": one}} for number, one in enumerate(preferences)]


def pairs(count: int) -> list[Pair]:
    return [Pair(number, "q", "abc", "a") for number in range(count)]


def test_the_interval_by_hand() -> None:
    """Preferences 1, 0.5, 0, 0.9: mean 60 %, standard error 22.730 %; 60 ± 1.96 · 22.730 is 15.45 to 104.55, cut at 100."""
    made = score(rows(1, 0.5, 0, 0.9), pairs(4))
    assert made["interval_95"] == [pytest.approx(15.45, abs=0.01), 100]
    assert (made["mean_length_ours"], made["mean_length_theirs"]) == (3, 1)


def test_one_pair_has_no_interval() -> None:
    made = score(rows(1), pairs(1))
    assert (made["value"], made["standard_error"], made["interval_95"]) == (100, None, None)


def test_wins_are_counted_although_the_rate_is_null() -> None:
    made = score(rows(1, 0.5, None, 0, 0.9), pairs(5))
    assert (made["value"], made["reason"]) == (None, "1 of 5 unjudged")
    assert (made["n"], made["unjudged"]) == (5, 1)
    assert (made["n_wins"], made["n_wins_base"], made["n_draws"], made["discrete_win_rate"]) == (2, 1, 1, None)


@pytest.mark.parametrize(("share", "value"), [(0.19, None), (0.2, 60)])
def test_the_allowed_share_is_of_all_pairs(share: float, value: float | None) -> None:
    """One of five is a share of 0.2; the mean of the other four is 60 %."""
    assert score(rows(1, 0.5, None, 0, 0.9), pairs(5), share)["value"] == (value and pytest.approx(value))


def test_no_share_excuses_a_judge_that_was_stopped() -> None:
    made = score(rows(1, None), pairs(2), 1.0, "the quota is exhausted")
    assert (made["value"], made["reason"]) == (None, "1 of 2 unjudged: the quota is exhausted")


@pytest.mark.parametrize(("count", "reason"), [(0, "no pairs"), (2, "2 of 2 unjudged")])
def test_nothing_judged_is_null_whatever_is_allowed(count: int, reason: str) -> None:
    made = score(rows(*[None] * count), pairs(count), 1.0)
    assert (made["value"], made["reason"], made["n_wins"]) == (None, reason, 0)
