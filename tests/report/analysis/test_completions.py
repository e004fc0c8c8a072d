"""Answers side by side, from the samples that the made-up suite keeps: six prompts a policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.records.record import append_jsonl, write_json
from bench.records.suite_record import find_suites
from report.analysis.completions import LONGEST, answers, parted, prompts
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.page.examples import side_by_side
from report.page.verdict import Verdict
from report.page.where import Where


def test_prompts_are_evenly_spaced_over_those_all_answered(full: Path) -> None:
    """Six prompts, four wanted: 0, 5/3, 10/3 and 5, cut down to 0, 1, 3, 5."""
    results = Results(find_suites(full)[0])
    assert prompts(results, ["base", "mix-l0.5-s0"]) == [0, 1, 3, 5]
    assert prompts(results, []) == []
    # Up to half are of those to come first, the ends of 2, 4, 5; then the ends of the others, 0, 1, 3, 4.
    assert prompts(results, ["base", "mix-l0.5-s0"], 4, {2, 4, 5}) == [2, 5, 0, 4]
    assert prompts(results, ["base", "mix-l0.5-s0"], 2, {4}) == [4, 0]


def test_judges_part_where_they_prefer_different_sides(
    writer: Callable[..., Any], fill_suite: Callable[..., Path]
) -> None:
    """The rule gives base's prompts (id + 4) mod 3, halved: ½, 1, 0, ½, 1, 0; another 0 for the first five: 1 and 4 part."""
    made = writer()
    fill_suite(made)
    again = made.job("again-base", "judge", {"of": "base", "judge": "b"}, inputs={"answers": "answers-base"})
    append_jsonl(again / "samples.jsonl", [{"id": place, "preference": 0.0} for place in range(5)])
    write_json(again / "scores.json", {"win_rate/b": {"value": 0.0, "n": 5, "standard_error": 0.0, "unjudged": 0}})
    made.finish()
    found = parted(Results(find_suites(made.folder)[0]), "base")
    assert found == {0: False, 1: True, 2: False, 3: False, 4: True}


def test_an_answer_with_its_judgement(full: Path) -> None:
    """The preference is (prompt + letters of the policy's name) mod 3, halved: "base" has four, so prompt 1 gets 1."""
    found = answers(Results(find_suites(full)[0]), "base", [1])
    assert (found[1].text, found[1].preference, found[1].source) == ("fine. (base, 1)", 1.0, "answers-base")


def test_long_answers_are_cut_and_unjudged_ones_say_so(writer: Callable[..., Any]) -> None:
    made = writer()
    folder = made.job("answers-base", "generate", {"of": "base"})
    append_jsonl(folder / "samples.jsonl", [{"id": 0, "answer": "x" * 1000, "tokens": 500, "ended": False}])
    made.finish()
    found = answers(Results(find_suites(made.folder)[0]), "base", [0])
    assert (len(found[0].text), found[0].text[-1], found[0].preference) == (LONGEST, "…", None)


def test_the_report_shows_the_best_beside_its_rivals(built: Path) -> None:
    page = (built / "report.html").read_text(encoding="utf-8")
    section = page[page.index('<details class="part" id="answers">') : page.index('<details class="part" id="judges">')]
    for policy in ("maxright-l0.5-s0", "alright-l0.5-s0", "sequential-l0.5-s0", "base"):
        assert f"({policy}, 5)" in section
    assert "jobs/answers-maxright-l0.5-s0/samples.jsonl" in section


def test_without_two_policies_there_is_nothing_to_compare(writer: Callable[..., Any]) -> None:
    """The run was not evaluated: the base model alone has answers."""
    made = writer()
    made.behind((0,))
    labels = {"method": "mix", "lambda_dpo": 0.5, "seed": 0, "phase_steps": {"dpo": 50, "sft": 50}}
    made.train("mix-s0", ["run"], labels, {"dpo": 0.4, "sft": 1.5}, 1.0)
    made.finish()
    record = find_suites(made.folder)[0]
    tables = Findings(Results(record))
    assert side_by_side(tables, Verdict(tables), Where(record, made.folder)) == ()
