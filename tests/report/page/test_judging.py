from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.records import suite_record
from bench.records.record import write_json
from report.analysis.load import Results
from report.page import judging
from report.render.document import Table


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
