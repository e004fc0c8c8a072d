"""Differences of one metric on two sides, by hand, and from single answers on record."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.records.metrics import Metric
from bench.records.record import append_jsonl, read_json, write_json
from report.analysis.checkpoints import Answers, of
from report.analysis.contrast import contrast, enough, line_up
from report.analysis.gate import Gate
from report.compare import compare
from report.compare.compare import Comparison, Row

ROOT = Path(__file__).parents[3]


def row(made: Comparison, name: str, metric: str) -> Row:
    return next(one for one in made.suites[0].rows if (one.name, one.metric) == (name, metric))


def run(base: Path, other: Path, **gate: Any) -> Comparison:
    return compare.compare(base, other, Gate.model_validate(gate))


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_seeds_that_move_alike_are_paired() -> None:
    """Differences 0.9, 1, 1.1 on seeds far apart: the paired test at a fifth of the level finds what the other cannot."""
    base, candidate = {0: 10.0, 1: 20.0, 2: 30.0}, {0: 10.9, 1: 21.0, 2: 31.1}
    made = contrast(base, candidate)
    paired = stats.ttest_1samp([0.9, 1.0, 1.1], 0.0, alternative="greater").pvalue
    assert (made.difference.mean, made.difference.n) == (pytest.approx(1.0), 3)
    assert made.p_above == pytest.approx(paired / 0.2)
    assert made.p_below > 0.5
    assert made.how == "paired over 3 seeds"


def test_seeds_that_do_not_move_alike_have_more_degrees_of_freedom_unpaired() -> None:
    """Both sides spread by 0.1 in opposite order: Student's two-sample test at four fifths of the level decides."""
    base, candidate = {0: 1.0, 1: 1.1, 2: 1.2}, {0: 2.2, 1: 2.1, 2: 2.0}
    made = contrast(base, candidate)
    apart = stats.ttest_ind(list(candidate.values()), list(base.values()), alternative="greater").pvalue
    assert made.p_above == pytest.approx(apart / 0.8)


def test_a_difference_of_shares_ends_at_one() -> None:
    """Differences 0, 0.5, 0.9 of a share: mean 0.46667, sd 0.45092, half width 1.12; the sides' own end at 0 and 1."""
    base, candidate = {0: 0.1, 1: 0.3, 2: 0.05}, {0: 0.1, 1: 0.8, 2: 0.95}
    free = contrast(base, candidate).difference
    assert (free.low, free.high) == pytest.approx((0.46667 - 1.12015, 0.46667 + 1.12015), abs=1e-4)
    made = contrast(base, candidate, metric=Metric("x", "X", "share", "higher", "score"))
    assert (made.difference.low, made.difference.high) == (free.low, 1.0)
    assert (made.base.low, made.candidate.high) == (0.0, 1.0)
    assert made.p_above == contrast(base, candidate).p_above


def test_other_seeds_have_the_whole_level() -> None:
    base, candidate = {0: 1.0, 1: 1.1, 2: 1.2}, {3: 1.9, 4: 2.1, 5: 2.3}
    made = contrast(base, candidate)
    apart = stats.ttest_ind(list(candidate.values()), list(base.values()), alternative="greater").pvalue
    welch = stats.ttest_ind(list(candidate.values()), list(base.values()), equal_var=False).confidence_interval()
    assert made.p_above == pytest.approx(apart)
    assert (made.difference.low, made.difference.high) == pytest.approx((welch.low, welch.high))
    assert contrast(base, candidate, alike=False).p_above == pytest.approx(
        stats.ttest_ind(list(candidate.values()), list(base.values()), equal_var=False, alternative="greater").pvalue
    )


def test_rounding_is_no_difference_and_a_missing_seed_is_one() -> None:
    base = {0: 1.0, 1: 1.1, 2: 1.2}
    assert contrast(base, {seed: value * (1 + 1e-12) for seed, value in base.items()}).identical
    assert not contrast(base, {seed: value * (1 + 1e-6) for seed, value in base.items()}).identical
    assert not contrast(base, {0: 1.0, 1: 1.1}).identical
    assert not contrast({}, {}).identical


def test_two_seeds_are_not_enough() -> None:
    made = contrast({0: 1.0, 1: 1.1, 2: math.nan}, {0: 2.0, 1: 2.1, 2: 2.2})
    assert (made.seeds, enough(made, 3)) == ((2, 2, 3), False)
    assert math.isnan(made.p_above)


def test_answers_line_up_by_question_or_not_at_all() -> None:
    """Two recipes, right on both and on one of two questions: means 1 and 0.5 by question."""
    first, second = of({("a", 0): 1.0, ("b", 0): 1.0}), of({("b", 0): 0.0, ("a", 0): 1.0})
    sides = [{0: 0.75}, {0: 0.75}]
    made = line_up([[{0: first}, {0: second}]] * 2, sides)
    assert made is not None
    assert made[0][0].tolist() == [1.0, 0.5]
    assert made[2] == ["a", "b"]
    assert line_up([[{0: first}], [{0: of({("a", 0): 1.0})}]], sides) is None
    assert line_up([[{0: first}], [{0: Answers(reason="not evaluated")}]], sides) is None


# ---- single answers on record ----------------------------------------------------------------------------------------


def asked(writer: Any, job: str, share: float, rng: np.random.Generator) -> None:
    """Write a policy's answers to 2,000 questions of 57 subjects, right with probability `share`, and their mean."""
    right = (rng.random(2000) < share).astype(int).tolist()
    folder = writer.folder / "jobs" / f"questions-{job}"
    rows = [{"subject": f"subject {place % 57}", "id": place // 57, "correct": one} for place, one in enumerate(right)]
    (folder / "samples.jsonl").unlink(missing_ok=True)
    append_jsonl(folder / "samples.jsonl", rows)
    write_json(folder / "scores.json", {"mmlu/acc": {"value": sum(right) / 2000, "n": 2000, "standard_error": 0.011}})


@pytest.mark.parametrize(("share", "code"), [(0.40, 1), (0.45, 0)])
def test_five_points_of_mmlu_over_2000_questions_and_3_seeds(
    new_writer: type[Any], tmp_path: Path, share: float, code: int
) -> None:
    """45 % right against 40 %: 5 points with a standard error of √(2 · 0.245 / 2000 / 3) = 0.9; against 45 % nothing."""
    rng = np.random.default_rng(3)
    folders = []
    for name, seeds, right in (("base", (0, 1, 2), 0.45), ("other", (3, 4, 5), share)):
        writer = new_writer(tmp_path / name, "mmlu")
        writer.behind(seeds)
        for seed in seeds:
            labels = {"method": "mix", "lambda_dpo": 0.5, "seed": seed, "phase_steps": None}
            noise = rng.normal(0, 0.005, 2)
            final = {"dpo": 0.3 + float(noise[0]), "sft": 1.2 + float(noise[1])}
            writer.train(f"mix-s{seed}", ["run"], labels, final, 10.0)
            writer.evaluate(f"mix-s{seed}", 0.5, 50.0 + float(rng.normal(0, 1)))
            asked(writer, f"mix-s{seed}", right, rng)
        folders.append(writer.finish())
    gates = {"metrics": {"ideal_distance": {"gate": False}}}  # f* of the made-up optima rises with the seed's number
    made = run(*folders, **gates)
    one = row(made, "mix at λ = 0.5", "mmlu/acc")
    assert one.contrast is not None
    assert one.contrast.how == "3 against 3 other seeds and the questions"
    assert made.exit_code == code


# ---- committed records -----------------------------------------------------------------------------------------------


def test_five_points_less_on_the_committed_quickstart(tmp_path: Path) -> None:
    """Six questions of 120 answered wrong instead of right by every MAXRIGHT run: worse, single answers counted."""
    base, other = ROOT / "results" / "quickstart.bench", tmp_path / "quickstart"
    zipfile.ZipFile(base).extractall(other)
    for path in other.glob("jobs/questions-maxright-*/samples.jsonl"):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        right = [place for place, one in enumerate(lines) if one["outcomes"]["acc"]][::19][:6]
        for place in right:
            lines[place]["outcomes"]["acc"] = 0.0
        path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
        scores = read_json(path.with_name("scores.json"))
        scores["world_questions/acc"]["value"] = sum(one["outcomes"]["acc"] for one in lines) / len(lines)
        write_json(path.with_name("scores.json"), scores)
    made = run(base, other)
    assert made.exit_code == 1
    one = row(made, "maxright", "world_questions/acc")
    assert one.contrast is not None
    assert (one.verdict, one.contrast.how) == (compare.WORSE, "paired over 3 seeds and the questions")
    assert one.worsening == pytest.approx(0.05)
