"""What a figure says of itself, on its way through a record, and what is known of records that say nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench.records import record
from bench.records.metrics import Metric, describe, find, from_dict, undescribed

CARBON = Metric(
    "carbon_grams", "Carbon", "g", "lower", "cost", "by the grid's mean", low=0.0, tolerance=0.05, relative=True
)


def test_a_description_comes_back_as_it_was_written() -> None:
    """Only what differs from the defaults is written; the name is the key."""
    written = describe([CARBON])
    assert written == {
        "carbon_grams": {
            "title": "Carbon",
            "unit": "g",
            "better": "lower",
            "kind": "cost",
            "meaning": "by the grid's mean",
            "low": 0.0,
            "tolerance": 0.05,
            "relative": True,
        }
    }
    assert from_dict("carbon_grams", written["carbon_grams"]) == CARBON


def test_keys_of_a_newer_version_are_passed_over() -> None:
    assert from_dict("x", {"title": "X", "unit": "", "better": None, "kind": "count", "colour": "red"}).title == "X"


def test_words_of_another_version_claim_no_direction() -> None:
    read = from_dict("x", {"title": "X", "unit": "", "better": "smaller", "kind": "price", "scale": "dB"})
    assert (read.better, read.kind, read.scale) == (None, "count", "linear")


def test_where_means_and_their_differences_can_lie() -> None:
    """As declared; of a score in shares 0 to 1, of seconds from 0; of a log metric the logarithms: ln 1 = 0."""
    share = Metric("x", "X", "share", "higher", "score")
    seconds = Metric("x", "X", "s", "lower", "cost")
    perplexity = Metric("x", "X", "", "lower", "score", low=1.0, scale="log")
    assert (share.range, share.reach) == ((0.0, 1.0), 1.0)
    assert (replace(share, low=-1.0).range, replace(share, low=-1.0).reach) == ((-1.0, 1.0), 2.0)
    assert (seconds.range, seconds.reach) == ((0.0, math.inf), math.inf)
    assert replace(CARBON, kind="count", low=None).range == (0.0, math.inf)
    assert (CARBON.range, replace(CARBON, low=None).range) == ((0.0, math.inf), (-math.inf, math.inf))
    assert (perplexity.range, perplexity.reach) == ((0.0, math.inf), math.inf)
    assert replace(perplexity, low=0.0).range == (-math.inf, math.inf)


def test_a_part_belongs_to_the_longest_name_that_is_described() -> None:
    known = {name: Metric(name, name, "share", "higher", "score") for name in ("mmlu/acc", "mmlu")}
    for name, of in (("mmlu/acc/anatomy", "mmlu/acc"), ("mmlu/acc", "mmlu/acc"), ("mmlu/f1", "mmlu")):
        found = find(name, known)
        assert found is not None
        assert found.name == of
    assert find("hellaswag/acc", known) is None


def test_a_name_for_choose_is_letters_digits_and_underscores() -> None:
    assert undescribed("gsm8k/exact_match,strict-match").choose_name == "gsm8k_exact_match_strict_match"
    assert undescribed("peak_memory_bytes", "B").choose_name == "memory"


@pytest.mark.parametrize(
    ("name", "unit", "title", "better", "kind"),
    [
        ("f_dpo/held_out", "", "f_DPO held-out", "lower", "objective"),
        ("mmlu/acc", "", "MMLU", "higher", "score"),
        ("mmlu/acc/anatomy", "", "MMLU", "higher", "score"),
        ("arc_easy/acc_norm", "", "Accuracy (arc_easy)", "higher", "score"),
        ("win_rate/rule", "", "Win rate", "higher", "score"),
        ("gsm8k/exact_match,strict-match", "", "Gsm8k exact match,strict-match", None, "score"),
        ("training_seconds", "s", "Training", "lower", "cost"),
        ("gpu_utilization_percent", "%", "GPU utilization", None, "cost"),
        ("tokens", "tokens", "Tokens", None, "count"),
    ],
)
def test_a_record_without_descriptions_is_read_by_its_names(
    name: str, unit: str, title: str, better: str | None, kind: str
) -> None:
    found = undescribed(name, unit)
    assert (found.title, found.better, found.kind) == (title, better, kind)


def test_a_job_says_what_its_figures_are(tmp_path: Path) -> None:
    """Described: what its metrics.json says. Not described: what the name and the entry's unit tell."""
    record.write_json(tmp_path / "spec.json", {"id": tmp_path.name, "kind": "pretrain", "labels": {}})
    entries = {"carbon_grams": {"value": 2.0, "unit": "g"}, "energy_joules": {"value": 3.0, "unit": "J"}}
    record.write_json(tmp_path / "measurements.json", entries)
    record.write_metrics(tmp_path, [CARBON])
    job = record.read_job(tmp_path)
    assert job.metric("carbon_grams") == CARBON
    assert job.metric("energy_joules").title == "Energy"
