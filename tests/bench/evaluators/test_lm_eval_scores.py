"""lm-eval's figures as scores: names, descriptions, outcomes and intervals, against values worked out by hand."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lm_eval_mirror
import pytest
import torch

from bench.evaluators import lm_eval, lm_eval_scores, lm_eval_tasks
from bench.evaluators.lm_eval_scores import interval, outcome, ratio_error, wilson
from bench.evaluators.options import LmEval
from bench.models import policy as policies
from bench.models.policy import Policy
from bench.records.metrics import Metric
from bench.settings import Model

SHARE = Metric("t/acc", "t", "share", "higher", "score", low=0.0, high=1.0)
PERPLEXITY = Metric("t/perplexity", "t", "", "lower", "score", low=1.0, scale="log")
BITS = Metric("t/bits", "t", "", "lower", "score", low=0.0)

# ---- intervals -------------------------------------------------------------------------------------------------------


def test_a_shares_interval_is_wilsons_at_the_effective_number() -> None:
    """p = 0.5, error 0.1: effective n = 0.25 / 0.01 = 25. With quantile 2: centre (0.5 + 2/25) / (1 + 4/25) = 0.5, half
    2 √(0.01 + 4/2500) / 1.16 = 2 · 0.107703 / 1.16 = 0.185695."""
    assert wilson(0.5, 25, 2.0) == pytest.approx((0.314305, 0.685695), abs=1e-6)
    made = interval(SHARE, 0.5, 0.1, 4, 100)  # t(0.975, 3) = 3.182446
    assert (made["low"], made["high"]) == pytest.approx(wilson(0.5, 25, 3.182446), abs=1e-6)


@pytest.mark.parametrize(("value", "error"), [(0.25, 0.25), (0.0, 0.0), (1.0, 0.0), (0.98, 0.3), (0.02, None)])
def test_a_shares_interval_stays_between_0_and_1(value: float, error: float | None) -> None:
    """A quarter right of four questions has the error 0.25; t(0.975, 3) · 0.25 would reach from −0.55 to 1.05."""
    made = interval(SHARE, value, error, 4, 4)
    assert made["low"] is not None
    assert made["high"] is not None
    assert 0 <= made["low"] <= value <= made["high"] <= 1
    assert made["low"] < made["high"]


def test_a_perplexitys_interval_is_around_its_logarithm() -> None:
    """20 with error 2 has the error 0.1 in its logarithm; t(0.975, 3) = 3.182446: 20 / e^0.318245 to 20 · e^0.318245."""
    made = interval(PERPLEXITY, 20.0, 2.0, 4, 4)
    assert (made["low"], made["high"]) == pytest.approx((14.5484, 27.4944), abs=1e-3)


def test_an_interval_is_cut_to_the_range() -> None:
    """1.0 ± 3.182446 · 0.5: bits a byte are not negative."""
    assert interval(BITS, 1.0, 0.5, 4, 4) == {"low": 0.0, "high": pytest.approx(2.591223)}


def test_one_question_says_nothing() -> None:
    nothing = {"low": None, "high": None}
    assert interval(SHARE, 1.0, None, 1, 1) == interval(BITS, 0.5, 0.0, 4, 4) == nothing


def test_clustered_standard_error_by_hand() -> None:
    """Clusters (1, 0) and (1, 1): mean 0.75, deviations sum to −0.5 and 0.5; sqrt((0.25 + 0.25) · 2 / 1) / 4 = 0.25.

    One value per cluster is the plain case: (1, 0, 0, 1) has the sd 1 / √3, and 1 / √3 / √4 = 0.28868.
    """
    of = lm_eval_scores.clustered_standard_error
    assert of({"a": [1, 0], "b": [1, 1]}) == pytest.approx(0.25)
    single = {name: [value] for name, value in zip("abcd", (1.0, 0.0, 0.0, 1.0), strict=True)}
    assert of(single) == pytest.approx(1 / math.sqrt(12))


def test_the_error_of_a_ratio_by_hand() -> None:
    """Sums 1 and 3 over weights 1 and 1: ratio 2, departures −1 and 1, √(2 / 1 / 2) / 1 = 1. Weights that the sums follow
    leave no departure."""
    assert ratio_error([[1.0, 1.0], [3.0, 1.0]]) == pytest.approx(1.0)
    assert ratio_error([[2.0, 1.0], [6.0, 3.0]]) == pytest.approx(0.0)
    assert ratio_error([1.0]) is None


# ---- outcomes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "aggregation", "expected"),
    [
        (0.33, "mean", 0.33),
        (True, "mean", 1.0),
        (-2.0, "perplexity", 2.0),
        ((-6.0, 3), "weighted_perplexity", [6.0, 3.0]),
        ((-math.log(2), 4), "bits_per_byte", [1.0, 4.0]),
        ([True, False, True], "agg_inst_level_acc", [2.0, 3.0]),
        (("gold", "guess"), "f1_score", None),
    ],
)
def test_an_outcome_is_a_number_or_a_sum_with_its_weight(value: Any, aggregation: str, expected: Any) -> None:
    assert outcome(value, aggregation) == (pytest.approx(expected) if expected is not None else None)


# ---- tasks that people measure forgetting with -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy() -> Policy:
    return policies.load(Model(source="random"), torch.device("cpu"))


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mirror of invented rows, and a stand-in for NLTK's data, which the rows' instructions do not read."""
    nltk = tmp_path_factory.mktemp("nltk")
    (nltk / "tokenizers" / "punkt_tab" / "english").mkdir(parents=True)
    before = os.environ.get("NLTK_DATA")
    os.environ["NLTK_DATA"] = str(nltk)
    yield lm_eval_mirror.write(tmp_path_factory.mktemp("mirror"))
    if before is None:
        del os.environ["NLTK_DATA"]
    else:
        os.environ["NLTK_DATA"] = before


NAMES = {
    "gsm8k": ("exact_match,strict-match", "exact_match,flexible-extract"),
    "ifeval": tuple(f"{level}_level_{how}_acc" for how in ("strict", "loose") for level in ("prompt", "inst")),
    "truthfulqa_mc2": ("acc",),
    "hellaswag": ("acc", "acc_norm"),
    "winogrande": ("acc",),
    "wikitext": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("task", lm_eval_mirror.TASKS)
def test_every_metric_and_filter_of_a_task_is_a_described_score(policy: Policy, invented: Path, task: str) -> None:
    """And the outcomes of its ten rows add up to the score: their plain or weighted mean, of a perplexity in logarithms."""
    lm_eval_tasks.load.cache_clear()
    scores, rows, metrics = lm_eval.ask(policy, LmEval(tasks=(task,), shots=0), invented, lambda text: None)
    assert set(scores) == {f"{task}/{name}" for name in NAMES[task]} == {one.name for one in metrics}
    assert len(rows) == lm_eval_mirror.ROWS
    for metric in metrics:
        entry = scores[metric.name]
        found = [row["outcomes"][metric.name.partition("/")[2]] for row in rows]
        pairs = [one if isinstance(one, list) else [one, 1.0] for one in found]
        mean = math.fsum(total for total, _ in pairs) / math.fsum(weight for _, weight in pairs)
        expected = math.exp(mean) if metric.scale == "log" else mean
        assert entry["value"] == pytest.approx(expected, rel=1e-6)
        assert metric.better == ("lower" if task == "wikitext" else "higher")
        assert (metric.kind, metric.gate) == ("score", True)
        assert (metric.unit, metric.low, metric.high) == (
            ("share", 0.0, 1.0) if task != "wikitext" else ("", *_ends(metric))
        )
        assert entry["low"] is None or entry["low"] <= entry["value"] <= entry["high"]
    assert not any(isinstance(value, str) and " " in value for row in rows for value in row.values())


def _ends(metric: Metric) -> tuple[float, None]:
    return (0.0 if metric.name.endswith("bits_per_byte") else 1.0), None


def test_how_a_group_was_answered_is_the_sum_of_its_tasks() -> None:
    of = lm_eval_scores._together
    first, second = {"ties": 1, "chosen": [3, 1], "right": [2, 2]}, {"ties": 2, "chosen": [0, 4], "right": [1, 3]}
    assert of([first, {}, second]) == {"ties": 3, "chosen": [3, 5], "right": [3, 5]}
    assert of([first, {"ties": 0, "chosen": [1, 1, 1], "right": [1, 1, 1]}]) == {"ties": 1}
    assert of([{}, {}]) == {}
