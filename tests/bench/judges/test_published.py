from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.evaluators.win_rate import judge
from bench.judges import JudgeSettings
from bench.judges.requests import Pair


def test_the_published_win_rate_comes_out_of_the_real_replies(endpoint: Any, judgements: Path, tmp_path: Path) -> None:
    """Serve the 805 stored replies of GPT-4-Turbo as the endpoint would: alpaca-7b's published figures come out.

    The replies were given in alpaca-eval's random order, so the test also fails if our order differs for any pair.
    """
    rows = json.loads((judgements / "alpaca-7b" / "annotations_weighted_alpaca_eval_gpt4_turbo.json").read_text())
    replies = {row["instruction"].strip(): row["raw_completion"] for row in rows}

    def stored(prompt: str, before: int) -> Any:
        instruction = prompt.split('"instruction": """', 1)[1].split('""",\n}\n\n## Model Outputs', 1)[0]
        return endpoint.respond(body=json.dumps({"choices": [replies[instruction.strip()]]}).encode())

    endpoint.answer = stored
    pairs = [Pair(number, row["instruction"], row["output_2"], row["output_1"]) for number, row in enumerate(rows)]
    settings = JudgeSettings(
        kind="openai",
        configuration="weighted_alpaca_eval_gpt4_turbo",
        base_url=endpoint.url,
        key_variable="JUDGE_KEY",
        orders="single",
        concurrency=4,
        timeout_seconds=60,
    )
    scores, judged = judge(pairs, settings, tmp_path, None, lambda text: None)  # type: ignore[arg-type]
    score = scores["win_rate/gpt-4-1106-preview"]
    assert score["value"] == pytest.approx(2.591450540344603, abs=1e-8)
    assert score["standard_error"] == pytest.approx(0.4870855382635108, abs=1e-8)
    assert score["discrete_win_rate"] == pytest.approx(2.298136645962733, abs=1e-8)
    assert (score["n_wins"], score["n_wins_base"], score["n_draws"], score["n"]) == (17, 785, 3, 805)
    assert [row["preference"] for row in judged] == pytest.approx([row["preference"] - 1 for row in rows], abs=1e-9)
