from __future__ import annotations

import json
import math
from collections.abc import Callable
from html import escape
from typing import Any

import jsonschema
import pytest

from bench.records import suite_record
from bench.records.record import append_jsonl, write_json
from report.analysis import judge_bias, judges
from report.analysis.judges import Agreement, Share, Verdict
from report.analysis.load import Results
from report.analysis.panel import Beside, JudgeSummary
from report.build import build
from report.page import judging
from report.page.report_json import SCHEMA_FILE
from report.render.document import Table


def html_escape(text: str) -> str:
    """Write a text as the page's template does: escaped, a number and its sign unbroken."""
    return escape(text).replace("&#x27;", "&#39;").replace(" %", "\N{NO-BREAK SPACE}%")


def results(made: Any) -> Results:
    (suite,) = suite_record.find_suites(made.finish())
    return Results(suite)


def rows(made: Any) -> list[tuple[Any, ...]]:
    found = judging.details(results(made))
    assert found is not None
    (table,) = found.blocks
    assert isinstance(table, Table)
    return [row.cells for row in table.rows]


def test_a_judging_tells_position_length_and_cost(writer: Callable[..., Any]) -> None:
    made = writer()
    made.behind((0,))
    folder = made.job("judged-again", "judge", {"of": "base", "judge": "paid"})
    score = {
        "value": 12.34, "standard_error": 2.0, "interval_95": [8.42, 16.26], "n": 50, "unjudged": 2,
        "position_bias": -0.0625, "mean_length_ours": 174.2, "mean_length_theirs": 151.0,
        "length_controlled_win_rate": 15.5, "length_controlled_standard_error": 2.25, "cost_usd": 0.0304,
        "unanswered": 3, "possibly_paid_twice": 2, "in_batches": 95, "cached_tokens": None, "reasoning_tokens": 64,
    }  # fmt: skip
    write_json(folder / "scores.json", {"win_rate/paid": score})
    (cells,) = [cells for cells in rows(made) if cells[1].text == "paid"]
    assert [cell.text for cell in cells] == [
        "base", "paid", "12.3", "50", "−0.062", "174", "151", "15.5", "0.0304",
    ]  # fmt: skip
    assert [cells[place].note for place in (2, 3, 7)] == ["8.4 to 16.3", "2 unjudged", "± 2.2"]
    said = "95 by batch; 64 tokens of reasoning; 3 requests without an answer, 2 possibly paid twice"
    assert cells[8].note == said


def test_what_is_not_known_is_marked_with_its_reason(writer: Callable[..., Any]) -> None:
    """Records made before these figures were taken have none of them."""
    made = writer()
    made.behind((0,))
    folder = made.job("judged-again", "judge", {"of": "base", "judge": "paid"})
    score = {
        "value": None, "reason": "3 of 50 unjudged", "n": 50, "unjudged": 3, "cost_usd": None, "cost_reason": "no price"
    }  # fmt: skip
    write_json(folder / "scores.json", {"win_rate/paid": score})
    (cells,) = [cells for cells in rows(made) if cells[1].text == "paid"]
    assert [cell.text for cell in cells] == ["base", "paid", "–", "50", "–", "–", "–", "–", "–"]
    assert (cells[2].note, cells[8].note) == ("3 of 50 unjudged", "no price")
    assert all(cell.missing for cell in (cells[2], *cells[4:]))


def test_without_a_judge_there_is_nothing(writer: Callable[..., Any]) -> None:
    made = writer()
    made.run("sequential", 0.5, 0)
    folder = made.finish()
    for judged in (folder / "jobs").glob("judged-*/scores.json"):
        judged.unlink()
    assert judging.details(results(made)) is None


# ---- several judges --------------------------------------------------------------------------------------------------


def verdict(preference: float, longer: int = 5) -> Verdict:
    return Verdict(preference, (preference, preference), preference, longer)


def agreement(*pairs: tuple[float, float], first: str = "x", other: str = "x") -> Agreement:
    found = {
        name: {("p", place): verdict(pair[at]) for place, pair in enumerate(pairs)}
        for at, name in enumerate(("a", "b"))
    }
    rates = {"a": {"x": 2.0 if first == "x" else 0.0, "y": 1.0}, "b": {"x": 2.0 if other == "x" else 0.0, "y": 1.0}}
    (made,) = judges.agreements(found, rates)
    return made


def test_agreement_is_a_sentence() -> None:
    """Two of four alike; each says won twice and lost twice: by chance ½, κ = 0. Ten and more prompts bring intervals."""
    found = agreement((0.9, 0.9), (0.9, 0.1), (0.1, 0.9), (0.1, 0.1))
    assert judging.agreement_in_words(found) == (
        "a and b decide alike on 50.0 % of the 4 pairs that both judged; beyond chance the agreement is no more than chance "
        "gives: Cohen's κ = 0.00. Both put x first."
    )
    many = judging.agreement_in_words(agreement(*[(0.9, 0.9), (0.1, 0.1)] * 8, *[(0.9, 0.1)] * 2, other="y"))
    assert "on 88.9 % of the 18 pairs that both judged (95 % CI " in many
    assert many.endswith(". They do not put the same recipe first: a puts x, b y.")
    alike = judging.agreement_in_words(agreement(*[(0.9, 0.8)] * 3))
    assert "; how much of it is chance cannot be told, as one decides every pair the same way. " in alike


def two_judges(writer: Callable[..., Any], example: str = "I'd say <b>M</b> | \n*both*") -> Any:
    """Write a suite of Mix at one λ with two judges, the second of which is the policies' own base."""
    made = writer(
        evaluation={"win_rate": {"judge": [{"kind": "rule"}, {"kind": "local"}]}},
        model={"source": "world"},
        seeds=[0],
        lambdas=[0.5],
    )
    made.behind((0,))
    for of in ("base", made.run("mix", 0.5, 0)):
        settings = {"kind": "local", "local_model": {"source": "world"}}
        labels = {"of": of, "judge": "local:world"}
        folder = made.job(f"again-{of}", "judge", labels, settings=settings, inputs={"answers": f"answers-{of}"})
        append_jsonl(
            folder / "samples.jsonl",
            [
                {
                    "id": place,
                    "preference": 0.9,
                    "orders": {"ours_first": 0.9, "theirs_first": 0.9},
                    "length_difference": 3,
                }
                for place in range(6)
            ],
        )
        lost = [{"kind": "no label", "count": 2, "example": example}]
        score = {"value": 90.0, "standard_error": 1.0, "n": 6, "unjudged": 0, "unusable_replies": lost}
        write_json(folder / "scores.json", {"win_rate/local:world": score})
    return made


def test_the_page_says_what_the_judges_are_worth(writer: Callable[..., Any]) -> None:
    """Sentence, tables, warning and unusable replies in page, Markdown and JSON; what others wrote is escaped and one line."""
    folder = two_judges(writer).finish()
    build(folder)
    page, text = (folder / "report.html").read_text("utf-8"), (folder / "report.md").read_text("utf-8")
    said = json.loads((folder / "report.json").read_text("utf-8"))
    jsonschema.validate(said, json.loads(SCHEMA_FILE.read_text("utf-8")))
    (agreed,) = said["judge_agreement"]
    assert agreed["judges"] == ["rule", "local:world"]
    assert agreed["pairs"] == 12
    assert sum(sum(row.values()) for row in agreed["decisions"].values()) == 12
    assert agreed["decided_differently"] == 12 - agreed["decisions"]["won"]["won"]
    assert html_escape(agreed["sentence"]) in page
    assert "rule and local:world decide alike on" in text
    first, second = said["judges"]
    assert (first["main"], second["main"]) == (True, False)
    assert second["kinship"] == "is the policies' own base model"
    assert second["against_other_judges"][0]["judge"] == "rule"
    assert second["longer_won"]["value"] == 1.0
    assert first["longer_won"]["value"] is None
    assert said["unusable_replies"] == [
        {"judge": "local:world", "kind": "no label", "count": 4, "example": "I'd say <b>M</b> |  *both*"}
    ]
    for title in (
        "Agreement between judges",
        "What each judge&#39;s preference hangs on",
        "Replies that could not be used",
    ):
        assert title in page
    assert "<b>M</b>" not in page
    assert "\\<b\\>M" in text
    assert "The judge local:world is the policies&#39; own base model" in page


def test_an_example_is_cut_to_a_line() -> None:
    assert judging.example("one\ntwo\x1b[31m") == "one two"
    assert judging.example("x" * 200) == f"{'x' * 159}…"


def test_one_judge_brings_no_agreement(built: Any) -> None:
    said = json.loads((built / "report.json").read_text("utf-8"))
    assert said["judge_agreement"] == []
    assert said["unusable_replies"] == []
    page = (built / "report.html").read_text("utf-8")
    assert "Agreement between judges" not in page
    assert "Replies that could not be used" not in page
    assert "What each judge&#39;s preference hangs on" in page


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ((), " No judge of another kind judged the same pairs, so how much of its preference that is cannot be told."),
        (
            (Beside("b", Share(0.123, 0.05, 0.2), 40),),
            " It prefers the policies' answers by +12.3 points against b over 40 pairs (95 % CI 5.0 to 20.0): that "
            "taste, and all else in which they differ.",
        ),
    ],
)
def test_a_judge_of_the_policies_kind_is_warned_of(beside: tuple[Beside, ...], words: str) -> None:
    bias = judge_bias.bias("llama-x", {("p", 0): verdict(0.9)})
    kin = "shares the name 'llama' with the policies' base"
    said = judging.kinship_in_words(JudgeSummary("llama-x", False, bias, math.nan, kin, beside))
    assert said == (
        "The judge llama-x shares the name 'llama' with the policies' base: models are known to prefer what is written like "
        f"their own answers.{words}"
    )
    assert judging.kinship_in_words(JudgeSummary("gpt", False, bias, math.nan, "", ())) == ""
