from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.data import world
from bench.errors import SuiteError
from bench.evaluators.win_rate import JOURNAL, judge
from bench.judges import JudgeSettings
from bench.judges.requests import Pair


def rows(count: int) -> list[Any]:
    return world.preference_rows("test", count)


def test_right_and_courteous_wins_and_equals_draw(tmp_path: Path) -> None:
    """Against a courteous right answer: the curt one loses, itself draws, an empty one loses: (0 + 0.5 + 0) / 3 = 1/6.

    Against a curt right answer the courteous one wins.
    """
    one, two, three, four = rows(4)
    pairs = [
        Pair(0, one.prompt, one.rejected, one.chosen),
        Pair(1, two.prompt, two.chosen, two.chosen),
        Pair(2, three.prompt, "", three.chosen),
    ]
    scores, judged = judge(pairs, JudgeSettings(kind="rule"), tmp_path, no_model, lambda text: None)
    assert [row["preference"] for row in judged] == [0, 0.5, 0]
    assert scores["win_rate/rule"]["value"] == pytest.approx(100 / 6)
    assert scores["win_rate/rule"]["position_bias"] == 0
    assert not (tmp_path / JOURNAL).exists()

    won = [Pair(0, four.prompt, four.chosen, four.rejected)]
    scores, _ = judge(won, JudgeSettings(kind="rule", orders="single"), tmp_path, no_model, lambda text: None)
    assert scores["win_rate/rule"]["value"] == 100
    assert scores["win_rate/rule"]["standard_error"] is None  # one pair has no spread


def no_model(model: Any) -> Any:
    raise AssertionError("the rule judge loads no model")


def test_a_configuration_that_reads_sentences_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="log-probabilities of two labels"):
        judge(
            [],
            JudgeSettings(kind="rule", configuration="alpaca_eval_gpt4_turbo_fn"),
            tmp_path,
            no_model,
            lambda text: None,
        )
