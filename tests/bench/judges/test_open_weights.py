"""An open-weight model behind a real server judges end to end: by command, and as the judge of the shipped suite."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from math import exp
from pathlib import Path
from typing import Any

import pytest
from model_server import ModelServer

from bench.cli.main import main
from bench.records import record
from bench.run import preflight
from bench.suite import yaml_file
from bench.suite.suite import Suite

PAIRS = [
    ("What is the capital of France?", "The capital of France is Paris.", "I do not know."),
    ("Name a fruit.", "An apple is a fruit.", "Car."),
    ("How many legs has a dog?", "A dog has four legs.", "Nine."),
]


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Judge the pairs by a server, in one order each; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for place, name in ((1, "ours"), (2, "theirs")):
        rows = [{"instruction": pair[0], "output": pair[place]} for pair in PAIRS]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")

    def run(server: ModelServer, *more: str) -> tuple[int, str, str]:
        (tmp_path / "judge.yaml").write_text(
            f"base_url: {server.url}\nmodel: {server.model}\nkey_variable: JUDGE_KEY\norders: single\n"
            "configuration: weighted_alpaca_eval_gpt4_turbo\n"
            "parameters: {top_logprobs: 20}\nconcurrency: 2\nfirst_pause_seconds: 0.01\n",
            encoding="utf-8",
        )
        files = ("--outputs", "ours.json", "--reference", "theirs.json")
        monkeypatch.setattr(sys, "argv", ["bench", "judge", *more, *files])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    yield run


RUN = ("run", "--judge", "judge.yaml", "--out", "judged", "--json")


def test_pairs_are_judged_by_the_log_probabilities_of_a_real_server(judged: Any, llama_server: ModelServer) -> None:
    """A preference is p(m) / (p(m) + p(M)), worked out here from what the journal kept; a replay says the same."""
    code, out, _ = judged(llama_server, *RUN)
    made = json.loads(out)
    assert (code, made["judge"], made["n_total"], made["n_unjudged"]) == (0, "smollm2", 3, 0)
    preferences = []
    for row in record.read_jsonl(Path("judged/journal.jsonl")):
        if not row["usable"]:
            continue
        (token,) = row["reply"]["logprobs"]["content"]
        assert len(token["top_logprobs"]) == 20
        by_label = {one["token"]: exp(one["logprob"]) for one in token["top_logprobs"]}
        first = by_label["m"] / (by_label["m"] + by_label["M"])
        preferences.append(first if row["order"] == "ours_first" else 1 - first)
    assert len(preferences) == 3
    assert made["win_rate"] == pytest.approx(100 * sum(preferences) / 3)

    code, out, _ = judged(llama_server, "replay", "--annotations", "judged/journal.jsonl", "--json")
    again = json.loads(out)
    assert code == 0
    assert {name: made[name] for name in again} == again


def test_a_server_that_ignores_what_it_is_asked_for_is_refused(judged: Any, transformers_server: ModelServer) -> None:
    """It answers with status 200 and a text; the first question shows what is missing, before the pairs are asked."""
    code, out, err = judged(transformers_server, *RUN)
    assert (code, out) == (2, "")
    assert "without log-probabilities" in err
    assert not Path("judged/scores.json").exists()


def test_the_shipped_suite_is_judged_by_it(run_plan: Callable[[Suite], Any], llama_server: ModelServer) -> None:
    """On an untrained model instead of the built-in one, which takes a minute to pre-train; preflight first."""
    changes = [
        f"evaluation.win_rate.judge.base_url={llama_server.url}",
        "evaluation.win_rate.prompts=2",
        "model.source=random",
        "evaluation.win_rate.judge.orders=single",
    ]
    suite = yaml_file.load("open_judge", changes)
    assert isinstance(suite, Suite)
    runner = run_plan(suite)
    (said,) = preflight.try_out(suite, {"judge"}, runner.folder, None)
    assert said.startswith("the judge smollm2 at 127.0.0.1")
    assert "weighted_alpaca_eval_gpt4_turbo" in said
    job = runner.run("judged-base")
    (score,) = job.scores.values()
    assert 0 < score["value"] < 100
    assert (score["n"], score["unjudged"]) == (2, 0)
