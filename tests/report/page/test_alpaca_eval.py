from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from report.page import alpaca_eval
from report.render.document import Table, Text


def results(*scores: dict[str, Any], base_url: str | None = None) -> Any:
    spec = {"settings": {"base_url": base_url}}
    jobs = {
        str(number): SimpleNamespace(
            kind="judge", labels={"of": f"run-{number}"}, scores={"win_rate/judge": score}, spec=spec
        )
        for number, score in enumerate(scores)
    }
    return SimpleNamespace(record=SimpleNamespace(jobs=jobs))


OURS = {
    "value": 10.0,
    "standard_error": 1.0,
    "mean_length_ours": 900.0,
    "length_controlled_win_rate": 12.0,
    "published_compares": True,
}


def test_published_win_rates_stand_beside_ours_by_rank() -> None:
    """10 % lies between Mistral-7B-Instruct's 14.7 and phi-2's 7.8; neither side has the other's length control."""
    (table,) = alpaca_eval.blocks(results(OURS))
    assert isinstance(table, Table)
    names = [row.cells[0].text for row in table.rows]
    place = names.index("run-0")
    assert (names[place - 1], names[place + 1]) == ("vicuna-33b-v1.3", "phi-2-dpo")
    assert [cell.text for cell in table.rows[place].cells] == ["run-0", "here", "10.0", "12.0", "–", "900"]
    alpaca = next(row for row in table.rows if row.cells[0].text == "alpaca-7b")
    assert [cell.text for cell in alpaca.cells] == ["alpaca-7b", "published", "2.6", "–", "5.9", "396"]
    assert any("no figure of AlpacaEval's" in note for note in table.notes)


def test_another_endpoint_is_named() -> None:
    (table,) = alpaca_eval.blocks(results(OURS, base_url="http://127.0.0.1:1/v1"))
    assert isinstance(table, Table)
    assert any("asked at http://127.0.0.1:1/v1" in note for note in table.notes)


def test_a_sentence_says_why_they_do_not_compare() -> None:
    """Once, for all policies; prompts from elsewhere are not spoken of."""
    apart = {"published_compares": False, "published_reason": "judged by x, published by y"}
    assert alpaca_eval.blocks(results(apart, apart)) == (
        Text("AlpacaEval 2's published win rates do not compare with these: judged by x, published by y."),
    )
    assert alpaca_eval.blocks(results({"value": 1.0})) == ()


def test_what_has_no_win_rate_says_so() -> None:
    unjudged = {"published_compares": True, "value": None, "reason": "3 of 805 unjudged"}
    (said,) = alpaca_eval.blocks(results(unjudged))
    assert isinstance(said, Text)
    assert said.text.endswith("do not compare with these: 3 of 805 unjudged.")
