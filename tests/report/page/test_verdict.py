"""The verdict's words are no surer than the figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.records.suite_record import find_suites
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.page.verdict import CLEAR, TOO_FEW, UNCLEAR, Verdict


def verdict(folder: Path) -> Verdict:
    return Verdict(Findings(Results(find_suites(folder)[0])))


def test_a_clear_lead(full: Path) -> None:
    """Leads of MAXRIGHT over ALRIGHT at λ 0.5 are 0.045, 0.05, 0.055: mean 0.05, half width 4.303 · 0.005 / √3 = 0.0124."""
    made = verdict(full)
    assert made.headline == "maxright at λ = 0.5 is clearly ahead of every other recipe by ideal distance."
    rival = made.runner_up
    assert rival is not None
    assert (rival.other.key, rival.verdict) == (("alright", 0.5), CLEAR)
    assert (rival.lead.low, rival.lead.high) == (pytest.approx(0.0376, abs=1e-4), pytest.approx(0.0624, abs=1e-4))
    assert rival.share == pytest.approx(0.5)
    assert "0.0500 nats (50 %) smaller, 95 % CI 0.0376 to 0.0624, paired over 3 seeds" in rival.words


def test_the_lead_over_matching_sequential(full: Path) -> None:
    """0.5 − 0.05 at the same λ."""
    rival = verdict(full).sequential
    assert rival is not None
    assert rival.other.key == ("sequential", 0.5)
    assert rival.lead.mean == pytest.approx(0.45)


def test_score_and_cost_are_said(full: Path) -> None:
    text = " ".join(verdict(full).sentences)
    assert "MMLU 56.1 % (base model 50.0 %)" in text
    assert "win rate by judge rule 66.0 % (base model 40.0 %)" in text
    assert "10.0 % more than the matching Sequential run (Eq. 57" in text
    assert "smallest of 12 means" in text


def suite_of_two(writer: Callable[..., Any], distances: dict[str, list[float]]) -> Path:
    """Write ALRIGHT and MAXRIGHT at λ = 0.5 with these ideal distances by seed, all of it in f_SFT."""
    made = writer()
    seeds = range(len(distances["alright"]))
    made.suite["seeds"] = list(seeds)
    made.behind(tuple(seeds))
    for method, values in distances.items():
        for seed, value in enumerate(values):
            if math.isnan(value):  # a run that is not there
                continue
            labels = {"method": method, "lambda_dpo": 0.5, "seed": seed, "phase_steps": {"dpo": 50, "sft": 50}}
            final = {"dpo": 0.2 + 0.01 * seed, "sft": 1.0 + 0.02 * seed + value}
            made.train(f"{method}-s{seed}", ["run"], labels, final, 1.0)
    return Path(made.finish())


def test_an_interval_over_zero_is_no_difference_seen(writer: Callable[..., Any]) -> None:
    """Leads 0.1, −0.1, 0.15: mean 0.05, sd √((0.05² + 0.15² + 0.1²) / 2) = 0.1323, half width 4.303 · 0.1323 / √3 = 0.3286."""
    made = verdict(suite_of_two(writer, {"alright": [0.3, 0.2, 0.35], "maxright": [0.2, 0.3, 0.2]}))
    rival = made.runner_up
    assert rival is not None
    assert rival.verdict == UNCLEAR
    assert "not clearly ahead of alright" in made.headline
    assert rival.words.startswith("No difference seen between maxright at λ = 0.5 and alright at λ = 0.5")
    assert "up to ±0.3786" in rival.words


@pytest.mark.parametrize(("seeds", "words"), [(1, "One seed: no interval"), (2, "2 seeds: no interval")])
def test_few_seeds_give_no_interval(writer: Callable[..., Any], seeds: int, words: str) -> None:
    made = verdict(suite_of_two(writer, {"alright": [0.3, 0.31][:seeds], "maxright": [0.2, 0.22][:seeds]}))
    rival = made.runner_up
    assert rival is not None
    assert rival.verdict == TOO_FEW
    assert words in rival.words
    assert "may be noise" in made.headline


def test_what_rounding_sets_apart_is_equal(writer: Callable[..., Any]) -> None:
    """MAXRIGHT's ends lie 10⁻⁷ below ALRIGHT's in every seed: one recipe, and no rival; the suite's order names it."""
    distances = [0.2, 0.22, 0.24]
    near = [value - 1e-7 for value in distances]
    made = verdict(suite_of_two(writer, {"alright": distances, "maxright": near}))
    assert made.best is not None
    assert made.best.method == "alright"
    assert made.runner_up is None
    assert [one.method for one in made.tables.twins["alright", 0.5]] == ["maxright"]
    assert made.ranking.rank(made.best) == 1


def test_below_the_optimum_is_no_loss(writer: Callable[..., Any]) -> None:
    """f_SFT: f* 1.0, ALRIGHT 0.8 is better than the optimum: its distance is 0, MAXRIGHT's (1.1) is 0.1."""
    made = verdict(suite_of_two(writer, {"alright": [-0.2], "maxright": [0.1]}))
    assert made.best is not None
    assert made.best.method == "alright"
    assert made.best.estimate("ideal_distance").mean == 0


def test_nothing_to_rank(writer: Callable[..., Any]) -> None:
    made = writer()
    made.run("mix", 0.5, 0, outcome="failed")
    found = verdict(made.finish(missing=["maxright-l0.5-s0"]))
    assert found.headline == "No recipe can be ranked yet."
    assert found.sentences == ("No run is complete: 2 of 2 jobs are not done.",)


def test_a_recipe_that_lost_a_seed_has_no_place(writer: Callable[..., Any]) -> None:
    """MAXRIGHT's two seeds are closer than all three of ALRIGHT's, but the third could be anywhere."""
    made = verdict(suite_of_two(writer, {"alright": [0.2, 0.22, 0.24], "maxright": [0.1, 0.1, math.nan]}))
    assert made.best is not None
    assert made.best.method == "alright"
    (maxright,) = (one for one in made.tables.recipes if one.method == "maxright")
    assert made.tables.why_unranked(maxright) == "2 of 3 seeds have an ideal distance"


def test_a_winner_is_ahead_of_every_other_recipe(writer: Callable[..., Any]) -> None:
    """The runner-up is beaten in every seed alike, and the third is only on average: one seed puts it in front."""
    made = verdict(
        suite_of_two(
            writer,
            {"maxright": [0.10, 0.12, 0.14], "alright": [0.20, 0.22, 0.24], "mix": [0.05, 0.5, 0.9]},
        )
    )
    assert made.runner_up is not None
    assert [one.method for one in made.level] == ["mix"]
    assert (
        made.headline == "maxright at λ = 0.5 came closest to the ideal point, but not clearly ahead of mix at λ = 0.5."
    )


def test_where_nothing_was_learned_nothing_is_ranked(writer: Callable[..., Any]) -> None:
    """The DPO optimum of either seed never falls below its start: no distance, no rank, and the headline says why."""
    folder = suite_of_two(writer, {"alright": [0.2, 0.22], "maxright": [0.1, 0.12]})
    for path in folder.glob("jobs/dpo*/trajectory.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        low = min(row["f_dpo/held_out"] for row in rows)
        rows[0]["f_dpo/held_out"] = low - 0.1
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = verdict(folder)
    why = "nothing was learned of DPO alone that holds on held-out rows (f* is not below f(θ_1))"
    assert made.best is None
    assert made.headline == f"Not enough to rank: {why}."
    assert made.sentences == (f"No recipe is ranked: no ideal distance: {why}.",)
