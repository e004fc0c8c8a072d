"""A suite's judges from its records: who is the main one, what each said, what could not be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.records.record import append_jsonl, write_json
from bench.records.suite_record import find_suites
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.choose.figures import named_figures
from report.page.present import score_title
from report.page.verdict import Verdict

TWO = {"win_rate": {"judge": [{"kind": "rule"}, {"kind": "openai"}]}}


def second_judge(writer: Any, of: str, rate: float, preferences: list[float | None], **score: Any) -> None:
    """Write the judging of a policy by the judge `second`, in both orders alike."""
    inputs = {"answers": f"answers-{of}"}
    folder = writer.job(f"judged-{of}-again", "judge", {"of": of, "judge": "second"}, inputs=inputs)
    rows = [
        {"id": place, "preference": one, "orders": {"ours_first": one, "theirs_first": one}, "length_difference": 5}
        for place, one in enumerate(preferences)
    ]
    append_jsonl(folder / "samples.jsonl", rows)
    write_json(folder / "scores.json", {"win_rate/second": {"value": rate, "n": len(rows), "unjudged": 0} | score})


@pytest.fixture
def two(writer: Callable[..., Any]) -> Any:
    """Two recipes of three seeds; the main judge puts Mix before Sequential by 5 points, the second Sequential by 10."""
    made = writer(evaluation=TWO, seeds=[0, 1, 2], lambdas=[0.5])
    made.behind((0, 1, 2))
    for seed in (0, 1, 2):
        for method, rate in (("sequential", 60.0), ("mix", 50.0)):
            second_judge(made, made.run(method, 0.5, seed), rate, [0.9, 0.1, None, 0.5, 0.9, 0.4])
    return made


def findings(made: Any) -> Findings:
    (suite,) = find_suites(made.finish())
    return Findings(Results(suite))


def test_the_main_judge_is_the_first_of_the_suite(two: Any) -> None:
    tables = findings(two)
    assert tables.results.judges == ("rule", "second")
    assert tables.results.main_judge == "rule"
    assert tables.scores == ("mmlu/acc", "win_rate/rule", "win_rate/second")


def test_it_stays_the_main_one_where_its_judging_of_the_base_failed(two: Any) -> None:
    """The base's judging by the main judge stands in the plan without a result: the second's comes first on record."""
    write_json(two.folder / "jobs" / "judged-base" / "status.json", {"schema": 1, "outcome": "failed", "message": "no"})
    second_judge(two, "base", 40.0, [0.5] * 6)
    two.jobs.remove("judged-base-again")
    two.jobs.insert(two.jobs.index("judged-base") + 1, "judged-base-again")
    tables = findings(two)
    assert tables.results.main_judge == "rule"
    assert tables.scores.index("win_rate/rule") < tables.scores.index("win_rate/second")
    assert tables.results.score("base", "win_rate/rule").reason == "judged-base failed"


def test_only_the_main_judge_leads_ranks_and_gates(two: Any) -> None:
    tables = findings(two)
    assert "win_rate/second" not in (*tables.main_scores, *tables.ranking_scores)
    assert "win_rate/rule" in tables.ranking_scores
    assert not tables.metric("win_rate/second").gate
    assert [tables.metric(name).title for name in ("win_rate/rule", "win_rate/second")] == [
        "Win rate",
        "Win rate, second",
    ]
    assert [score_title(name, tables) for name in ("win_rate/rule", "win_rate/second")] == [
        "Win rate, rule (%)", "Win rate, second (%)",
    ]  # fmt: skip
    assert named_figures(tables)["win_rate"].figure == "win_rate/rule"
    assert "win_rate/second" in named_figures(tables)


def test_judges_that_no_list_names_stand_side_by_side(two: Any) -> None:
    """Records put together by hand: none of their judges is the main one, and the short name is refused as before."""
    del two.suite["evaluation"]
    tables = findings(two)
    assert tables.results.main_judge == ""
    assert {"win_rate/rule", "win_rate/second"} <= set(tables.main_scores)
    assert "win_rate" not in named_figures(tables)


def test_agreement_is_over_the_pairs_that_both_judged(two: Any) -> None:
    """Six runs × six prompts, one of which the second judge could not judge."""
    (found,) = findings(two).panel.agreements
    assert found.judges == ("rule", "second")
    assert (found.pairs, found.prompts) == (30, 5)
    assert found.firsts == ("mix at λ = 0.5", "sequential at λ = 0.5")
    assert found.same_first is False


def test_the_verdict_says_that_another_judge_puts_another_recipe_first(two: Any) -> None:
    said = Verdict(findings(two)).sentences
    assert "By win rate mix at λ = 0.5 is first by the main judge, sequential at λ = 0.5 by second." in said
    assert not any("win rate by judge second" in one.lower() for one in said)


def test_replies_that_could_not_be_used_are_added_up(two: Any) -> None:
    def lost(count: int, example: str) -> dict[str, Any]:
        return {"kind": "no log-probabilities", "count": count, "example": example}

    other = {"kind": "not a chat completion", "count": 4, "example": "<html>"}
    second_judge(two, "base", 40.0, [0.5] * 6, unusable_replies=[lost(1, "M"), other])
    second_judge(two, "sft-optimum-s0", 40.0, [0.5] * 6, unusable_replies=[lost(2, "m")])
    found = findings(two).panel.unusable
    assert [(one.judge, one.kind, one.count, one.example) for one in found] == [
        ("second", "not a chat completion", 4, "<html>"),
        ("second", "no log-probabilities", 3, "M"),
    ]


def test_they_are_told_of_a_judging_that_failed_for_them(writer: Callable[..., Any]) -> None:
    made = writer(seeds=[0], lambdas=[0.5])
    made.behind((0,))
    folder = made.job("judged-all-lost", "judge", {"of": "base", "judge": "mute"}, outcome="failed")
    lost = [{"kind": "an error in the body", "count": 10, "example": "overloaded"}]
    score = {"value": None, "reason": "6 of 6 unjudged", "n": 6, "unusable_replies": lost}
    write_json(folder / "scores.json", {"win_rate/mute": score})
    panel = findings(made).panel
    assert [one.name for one in panel.judges] == ["rule"]
    assert [(one.judge, one.count) for one in panel.unusable] == [("mute", 10)]


def test_one_judge_has_nobody_to_agree_with(full: Any) -> None:
    (suite,) = find_suites(full)
    panel = Findings(Results(suite)).panel
    assert panel.agreements == ()
    assert [(one.name, one.main) for one in panel.judges] == [("rule", False)]
