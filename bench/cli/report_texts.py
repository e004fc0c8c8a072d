"""Read the prompts and reference answers of a suite's judged answers from its data, for a report that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.records.suite_record import SuiteRecord

if TYPE_CHECKING:
    from report.analysis.completions import Texts


def read(record: SuiteRecord, mirror: Path | None) -> Texts:
    """Return texts by the id of the answers; nothing, with the reason, where the data is not there or has changed."""
    from report.analysis.completions import Texts

    try:
        rows = _rows(record, mirror)
    except (BenchError, OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Texts({}, f"Prompts and targets cannot be shown: {first}")
    return Texts(dict(enumerate(rows)))


def _rows(record: SuiteRecord, mirror: Path | None) -> list[tuple[str, str]]:
    from bench.data import tokens
    from bench.evaluators.judging import Judging
    from bench.models import tokenizers
    from bench.suite.suite import Suite

    suite = Suite.model_validate(record.info["suite"])
    judging = next((one for one in suite.evaluation.chosen.values() if isinstance(one, Judging)), None)
    if judging is None:
        raise ValueError("the suite judges no answers")
    found = judging.prompt_set(mirror)
    if found is not None:
        return [(row.instruction, row.reference) for row in found.rows]
    data = tokens.load(suite.data, tokenizers.load(suite.model), mirror, judged=judging.pairs_wanted())
    return [(pair.prompt, pair.chosen) for pair in data.judged]
