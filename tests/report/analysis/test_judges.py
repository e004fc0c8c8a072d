"""How far two judges agree: every figure worked out by hand from a table of a few pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from report.analysis import judges
from report.analysis.judges import DRAW, LOSS, WIN, Verdict


def said(decision: int) -> Verdict:
    return Verdict({WIN: 0.9, DRAW: 0.5, LOSS: 0.2}[decision])


def both(*decided: tuple[int, int], policies: int = 1) -> dict[str, dict[judges.PairKey, Verdict]]:
    """Return what judges a and b said of a prompt each, the same for every policy."""
    pairs = [((f"policy-{of}", prompt), one) for of in range(policies) for prompt, one in enumerate(decided)]
    return {
        "a": {pair: said(first) for pair, (first, _) in pairs},
        "b": {pair: said(second) for pair, (_, second) in pairs},
    }


@pytest.mark.parametrize(
    ("orders", "decision"),
    [
        ((0.9, 0.6), WIN),
        ((0.4, 0.1), LOSS),
        ((0.9, 0.1), DRAW),  # the mean is ½
        ((0.9, 0.2), DRAW),  # the mean is above ½, but the winner changes with the order
        ((0.5, 0.5), DRAW),
        ((0.5, 0.9), DRAW),  # drawn in one order, won in the other: not won in both
        ((), WIN),
    ],
)
def test_a_pair_is_won_where_every_order_says_so(orders: tuple[float, ...], decision: int) -> None:
    assert Verdict(0.55, orders).decision == decision


def test_agreement_is_that_of_the_decisions() -> None:
    """Ten pairs: both won 4, both lost 2, both drew 1; won/lost 2, drawn/won 1. p_o = 0.7.

    a: 6 won, 2 drawn, 2 lost. b: 5 won, 1 drawn, 4 lost. p_e = (30 + 2 + 8) / 100 = 0.4; κ = 0.3 / 0.6 = ½.
    """
    decided = [(WIN, WIN)] * 4 + [(LOSS, LOSS)] * 2 + [(DRAW, DRAW)] + [(WIN, LOSS)] * 2 + [(DRAW, WIN)]
    (found,) = judges.agreements(both(*decided), {})
    assert (found.judges, found.pairs, found.prompts) == (("a", "b"), 10, 10)
    assert found.raw.value == pytest.approx(0.7)
    assert found.kappa.value == pytest.approx(0.5)
    assert found.table == ((4, 0, 2), (1, 1, 0), (0, 0, 2))
    assert found.raw.low < 0.7 < found.raw.high
    assert found.kappa.low < 0.5 < found.kappa.high <= 1
    assert (found.firsts, found.same_first) == ((None, None), None)
    assert math.isnan(found.tau)


def test_the_pairs_that_part_most_come_first() -> None:
    found = {
        "a": {("p", 0): Verdict(0.9), ("p", 1): Verdict(0.6), ("q", 0): Verdict(1.0), ("q", 1): Verdict(0.9)},
        "b": {("p", 0): Verdict(0.1), ("p", 1): Verdict(0.4), ("q", 0): Verdict(0.0), ("q", 1): Verdict(0.6)},
    }
    (one,) = judges.agreements(found, {})
    assert [(pair.policy, pair.prompt, pair.preferences, pair.decisions) for pair in one.parting] == [
        ("q", 0, (1.0, 0.0), (WIN, LOSS)),
        ("p", 0, (0.9, 0.1), (WIN, LOSS)),
        ("p", 1, (0.6, 0.4), (WIN, LOSS)),
    ]


def test_pairs_that_one_judge_could_not_judge_do_not_count() -> None:
    found = both((WIN, WIN), (WIN, LOSS))
    del found["b"]["policy-0", 1]
    (one,) = judges.agreements(found, {})
    assert (one.pairs, one.raw.value) == (1, 1.0)
    del found["b"]["policy-0", 0]
    assert judges.agreements(found, {}) == []


def test_kappa_is_not_known_where_nothing_is_ever_decided_otherwise() -> None:
    (found,) = judges.agreements(both(*[(WIN, WIN)] * 12), {})
    assert found.raw.value == 1.0
    assert math.isnan(found.kappa.value)
    assert math.isnan(found.correlation)


def test_kappa_is_not_known_where_one_judge_decides_every_pair_the_same_way() -> None:
    """All draws beside 6 of 12 won: p_o is p_e whatever the other says; an interval of 0 to 0 would claim knowledge."""
    (found,) = judges.agreements(both(*[(WIN, DRAW), (DRAW, DRAW)] * 6), {})
    assert found.raw.value == 0.5
    assert math.isnan(found.kappa.value)
    assert math.isnan(found.kappa.low)


def test_a_judge_that_rates_all_recipes_alike_puts_none_first() -> None:
    rates = {"a": {"x": 60.0, "y": 55.0}, "b": {"x": 50.0, "y": 50.0}}
    (one,) = judges.agreements(both((WIN, WIN)), rates)
    assert (one.firsts, one.same_first) == (("x", None), None)


def test_kappa_is_that_of_scikit_learn() -> None:
    """A check against another implementation, on 500 drawn pairs."""
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(1)
    first = generator.choice([LOSS, DRAW, WIN], 500, p=[0.3, 0.2, 0.5])
    second = np.where(generator.random(500) < 0.4, first, generator.choice([LOSS, DRAW, WIN], 500))
    (found,) = judges.agreements(both(*zip(first.tolist(), second.tolist(), strict=True)), {})
    assert found.kappa.value == pytest.approx(metrics.cohen_kappa_score(first, second), abs=1e-12)


def test_intervals_draw_prompts_and_not_pairs() -> None:
    """The same 40 prompts for ten policies hold no more than for one: the interval must not shrink."""
    decided = [(WIN, WIN), (WIN, LOSS), (LOSS, LOSS), (LOSS, WIN)] * 10
    (once,) = judges.agreements(both(*decided), {})
    (often,) = judges.agreements(both(*decided, policies=10), {})
    assert often.pairs == 400
    assert (often.raw.low, often.raw.high) == pytest.approx((once.raw.low, once.raw.high))


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 200 samples of 60 prompts with a true agreement of 0.7, about 95 % of the intervals hold it; never below 90 %."""
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        alike = generator.random(60) < 0.7
        (found,) = judges.agreements(both(*((WIN, WIN if one else LOSS) for one in alike)), {})
        held += found.raw.low <= 0.7 <= found.raw.high
    assert 180 <= held <= 200


def test_fewer_than_ten_prompts_give_no_interval() -> None:
    (found,) = judges.agreements(both(*[(WIN, WIN), (WIN, LOSS), (LOSS, LOSS)] * 3), {})
    assert found.raw.value == pytest.approx(2 / 3)
    assert math.isnan(found.raw.low)


def test_correlation_is_spearmans() -> None:
    """Ranks 1 2 3 4 against 2 1 4 3: d² sum to 4, ρ = 1 − 6·4 / (4·15) = 0.6."""
    assert judges.spearman(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.4, 0.9, 0.8])) == pytest.approx(0.6)
    assert math.isnan(judges.spearman(np.array([0.1, 0.2]), np.array([0.1, 0.2])))


def test_recipes_are_ranked_by_both() -> None:
    """a: x > y > z. b: y > x > z. Two of three pairs of recipes stand alike: τ = (2 − 1) / 3. The firsts differ."""
    found = both((WIN, WIN))
    rates = {"a": {"x": 60.0, "y": 55.0, "z": 40.0}, "b": {"x": 50.0, "y": 52.0, "z": 30.0}}
    (one,) = judges.agreements(found, rates)
    assert one.tau == pytest.approx(1 / 3)
    assert (one.firsts, one.same_first) == (("x", "y"), False)
    rates["b"]["x"] = 52.0  # level with y: x is among those that b puts first
    (one,) = judges.agreements(found, rates)
    assert (one.firsts, one.same_first) == (("x", "x"), True)
    rates["b"]["y"] = math.nan  # two recipes: no τ, but a first
    (one,) = judges.agreements(found, rates)
    assert math.isnan(one.tau)
    assert one.same_first is True


def test_three_judges_are_compared_two_by_two() -> None:
    found = both((WIN, WIN))
    found["c"] = found["a"]
    assert [one.judges for one in judges.agreements(found, {})] == [("a", "b"), ("a", "c"), ("b", "c")]
