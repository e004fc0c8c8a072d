"""Tables of verdicts and fronts say what the statistics say, in the reader's units."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.records.suite_record import find_suites
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.page.present_statistics import forgetting_scores, fronts, verdicts


@pytest.fixture(scope="module")
def tables(full: Path) -> Findings:
    return Findings(Results(find_suites(full)[0]))


def test_verdicts_stand_beside_their_recipe(tables: Findings) -> None:
    """Three methods × three λ beside Sequential.

    MAXRIGHT at λ = 0.5 is 0.05 from the ideal point in seed 1, Sequential 0.5, 10 % less and more in the other seeds: the
    differences are −0.405, −0.45 and −0.495, mean −0.45, half width 4.3027 · 0.045 / √3 = 0.1118.
    """
    table = verdicts(tables)
    assert table is not None
    assert len(table.rows) == 9
    row = next(row for row in table.rows if row.cells[0].text == "maxright at λ = 0.5")
    assert row.cells[0].link == "runs-maxright-0_5"
    assert row.cells[1].note == "−0.450, −0.499 to −0.401"
    assert dict(row.tags) == {"method": "maxright", "λ": "0.5"}
    assert [column.title for column in table.columns][1:] == [
        "Ideal distance (nats)",
        "MMLU (points)",
        "Win rate (points)",
    ]
    assert "over 9 comparisons of a column" in table.notes[0]


def test_fronts_by_method(tables: Findings) -> None:
    """MAXRIGHT is closest at every λ and dominates all others at λ = 0.5; of Sequential no recipe is left on the front."""
    table = fronts(tables)
    assert table is not None
    by_method = {row.cells[0].text: row for row in table.rows}
    assert by_method["maxright"].cells[-1].text == "λ = 0.5"
    assert by_method["sequential"].cells[-1].text == "none: each is dominated"
    assert [cell.text for cell in by_method["mix"].cells[1:3]] == ["3", "3"]
    assert " to " in by_method["mix"].cells[3].note


def test_no_checkpoint_at_the_change_no_table(tables: Findings) -> None:
    assert forgetting_scores(tables) is None
