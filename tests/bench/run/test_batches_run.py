"""A suite whose judge is asked in batches: stopped while it waits, and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loopback_batches import BatchServer

from bench.evaluators.judging import Judging
from bench.evaluators.options import WinRate
from bench.judges import JudgeSettings
from bench.judges.batch import notes as batch_notes
from bench.judges.journal import JOURNAL, Journal
from bench.records.record import read_json

SUITE = """
name: in_batches
model: {{source: random}}
lora: {{rank: 2, alpha: 4}}
data:
  preference: {{source: world, rows: 8, evaluation_rows: 4}}
  instruction: {{source: world, rows: 8, evaluation_rows: 4}}
training: {{steps: 1, batch_size: {{dpo: 4, sft: 4}}, learning_rate: 1.0e-3}}
methods: [mix]
lambdas: [0.5]
seeds: [0]
evaluation:
  win_rate:
    prompts: 4
    generation: {{max_new_tokens: 4}}
    judge:
      {{kind: openai, model: some-judge, base_url: "{url}", key_variable: JUDGE_KEY, batch: true, first_pause_seconds: 0.05,
       configuration: weighted_alpaca_eval_gpt4_turbo}}
"""
ROOT = Path(__file__).parents[3]


def test_an_interrupted_run_says_that_the_batch_goes_on_and_the_next_one_takes_it(
    batches: BatchServer, tmp_path: Path
) -> None:
    """The base is judged first: 4 pairs in both orders, one comparison by itself and 7 by batch; each is paid once."""
    batches.looks = 10**9
    (tmp_path / "s.yaml").write_text(SUITE.format(url=batches.url))
    command = [
        sys.executable,
        "-m",
        "bench.cli",
        "run",
        "s.yaml",
        "--results",
        "out",
        "--workers",
        "1",
        "--only",
        "judged-base*",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=said, stderr=said, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        while not (batches.ours and batches.ours[0]["looks"]):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(120) == 130
    assert (
        "interrupted; checkpoints are kept in out/in_batches, the same command goes on; "
        "the judge's batch goes on at its endpoint, "
        "and the same command takes its results"
    ) in (tmp_path / "said").read_text()
    batches.looks = 1
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (again.returncode, "Traceback" in again.stderr) == (0, False)
    assert batches.line_numbers() == [7]
    (folder,) = (tmp_path / "out" / "in_batches" / "jobs").glob("judged-base*")
    (score,) = read_json(folder / "scores.json").values()
    assert (score["in_batches"], score["requests"], score["unanswered"], score["possibly_paid_twice"]) == (7, 8, 0, 0)
    judged = [prompt for prompt in batches.billed if "Say hello" not in prompt]
    assert {batches.billed[prompt] for prompt in judged} == {1}
    assert len(judged) == 8


@pytest.mark.parametrize(("step", "goes_on"), [(None, False), ("creating", True), ("created", True), ("ended", False)])
def test_what_goes_on_is_what_was_made(step: batch_notes.Step | None, goes_on: bool, tmp_path: Path) -> None:
    judging = Judging(WinRate(prompts=4, judge=JudgeSettings(kind="rule")))
    assert judging.goes_on("judge", tmp_path) is None
    with Journal(tmp_path / JOURNAL) as journal:
        journal.send({"key": "k", "batch": "b"}, 0)
        if step:
            journal.add(batch_notes.row("b", step))
    assert (judging.goes_on("judge", tmp_path) is not None) == goes_on
    assert judging.goes_on("generate", tmp_path) is None
