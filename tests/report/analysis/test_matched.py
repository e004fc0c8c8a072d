"""One pair of the table against Sequential."""

from __future__ import annotations

from pathlib import Path

from bench.records.suite_record import find_suites
from report.analysis.findings import Findings
from report.analysis.load import Results


def test_a_pair_of_the_table_is_found_in_either_order(full: Path) -> None:
    """Mix at 0.5 against Sequential at 0.5, turned round with the sign of its difference; other pairs are not in the table."""
    tables = Findings(Results(find_suites(full)[0]))
    recipes = {one.key: one for one in tables.recipes}
    mix, sequential = recipes["mix", 0.5], recipes["sequential", 0.5]
    name = tables.distance
    rows = tables.against_sequential
    rows = rows[rows["metric"] == name]
    (row,) = rows[(rows["method"] == "mix") & (rows["lambda_dpo"] == 0.5)].to_dict("records")
    found, turned = (tables.ranking.table.find(*pair, name) for pair in ((mix, sequential), (sequential, mix)))
    assert found is not None and turned is not None
    assert (found.size.mean, found.p, found.comparisons) == (row["difference"], row["p_holm"], len(rows))
    assert (turned.size.mean, turned.size.low, turned.p) == (-row["difference"], -row["high"], row["p_holm"])
    assert tables.ranking.table.find(mix, recipes["sequential", 0.25], name) is None
    assert tables.ranking.table.find(mix, recipes["maxright", 0.5], name) is None
