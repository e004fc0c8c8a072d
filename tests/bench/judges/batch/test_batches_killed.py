"""A real process is killed, or stopped, at each point of a batch's life: what was paid for is paid once, and comes in."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from loopback_batches import BatchServer, Hold
from loopback_judge import Response, completion

from bench.evaluators.win_rate import JOURNAL, judge
from bench.judges import JudgeSettings
from bench.judges.requests import Pair
from bench.records.record import read_jsonl

ROOT = Path(__file__).parents[4]
SCRIPT = """
import sys
from pathlib import Path
from bench.evaluators.win_rate import judge
from bench.judges.requests import Pair
from bench.judges import JudgeSettings
pairs = [
    Pair(number, f"Question {number}?", f"our answer {number}", f"their answer {number}") for number in range(int(sys.argv[3]))
]
settings = JudgeSettings(
    kind="openai", model="some-judge", base_url=sys.argv[1], key_variable="JUDGE_KEY", batch=True, first_pause_seconds=0.01,
    configuration="weighted_alpaca_eval_gpt4_turbo",
)
judge(pairs, settings, Path(sys.argv[2]), None, lambda text: None)
"""


def start(server: BatchServer, folder: Path, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SCRIPT, server.url, str(folder), str(count)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})


def finish(server: BatchServer, folder: Path, count: int, **changes: Any) -> dict[str, Any]:
    pairs = [Pair(one, f"Question {one}?", f"our answer {one}", f"their answer {one}") for one in range(count)]
    given = {
        "kind": "openai",
        "model": "some-judge",
        "base_url": server.url,
        "key_variable": "JUDGE_KEY",
        "batch": True,
    }
    given |= {"configuration": "weighted_alpaca_eval_gpt4_turbo", "first_pause_seconds": 0.01}
    settings = JudgeSettings.model_validate(given | changes)
    scores, _ = judge(pairs, settings, folder, None, lambda text: None)  # type: ignore[arg-type]
    return scores["win_rate/some-judge"]


def kill(process: subprocess.Popen[bytes], server: BatchServer, point: str) -> None:
    """Kill it once the server has come to a point, and let the server go on."""
    held, made = server.holds[point], len(server.ours)
    while not held.reached.wait(0.05):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    del server.holds[point]
    held.go.set()
    while point == "create" and len(server.ours) == made:  # it has the whole request, and goes on with it
        time.sleep(0.01)


POINTS = ("upload", "uploaded", "listed", "create", "created", "look", "results")


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_it_is_paid_once(point: str, batches: BatchServer, tmp_path: Path) -> None:
    """5 pairs in both orders: one comparison by itself, 9 in a batch; each is answered, and billed, once.

    upload: the file is on its way; uploaded: it is there, and nobody was told; listed: our key was looked for; create: the
    batch is asked for, and not yet made; created: it is made, and nobody was told; look: it is waited for; results: they are
    on their way.
    """
    batches.answer = batches.like_ours
    batches.holds[point] = Hold()
    kill(start(batches, tmp_path, 5), batches, point)
    made = finish(batches, tmp_path, 5)
    batches.run_all()
    assert made["value"] == pytest.approx(75)
    assert set(batches.billed.values()) == {1}
    assert sum(batches.billed.values()) == 10
    assert (made["requests"], made["unanswered"], made["possibly_paid_twice"]) == (10, 0, 0)
    answered = [row for row in read_jsonl(tmp_path / JOURNAL) if row.get("state") == "answered"]
    assert len({row["key"] for row in answered}) == len(answered) == 10
    asked = len(batches.requests)
    assert finish(batches, tmp_path, 5) == made
    assert len(batches.requests) == asked


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_batch_that_is_made_only_after_the_next_process_has_looked(
    idempotent: bool, batches: BatchServer, tmp_path: Path
) -> None:
    """The killed process's request is carried out last of all. An endpoint that keeps to Idempotency-Key makes one batch of both.

    Elsewhere the second one is ended, and its 9 comparisons are said to be possibly paid twice.
    """
    batches.answer, batches.idempotent = batches.like_ours, idempotent
    batches.holds["create"] = held = Hold()
    process = start(batches, tmp_path, 5)
    while not held.reached.wait(0.05):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    del batches.holds["create"]
    handle = batches.handle

    def late(method: str, path: str, *rest: Any) -> Response:
        if "/v1/batches/" in path and not held.go.is_set():
            held.go.set()
            while len(batches.asked_for) < 2:
                time.sleep(0.01)
        return handle(method, path, *rest)

    batches.handle = late  # type: ignore[method-assign]
    made = finish(batches, tmp_path, 5)
    batches.run_all()
    assert made["value"] == pytest.approx(75)
    assert set(batches.billed.values()) == {1}
    assert [one["status"] for one in batches.ours] == ["completed"] + ["cancelled"] * (not idempotent)
    assert len(set(batches.asked_for)) == 1
    twice = 0 if idempotent else 9
    assert (made["unanswered"], made["possibly_paid_twice"]) == (twice, twice)


def test_killed_again_and_again_while_results_are_taken(batches: BatchServer, tmp_path: Path) -> None:
    """Of 60 results more are kept each time; after a kill the journal's last line is cut as a crash would leave it."""
    batches.answer, journal = batches.like_ours, tmp_path / JOURNAL
    for goal in (10, 30):
        process = start(batches, tmp_path, 30)
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b'"answered"') < goal):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with journal.open("ab") as file:
            file.write(b'{"key": "cut in the mid')
    made = finish(batches, tmp_path, 30)
    batches.run_all()
    assert made["value"] == pytest.approx(75)
    assert batches.line_numbers() == [59]
    assert set(batches.billed.values()) == {1}
    assert (made["requests"], made["possibly_paid_twice"]) == (60, 0)


@pytest.mark.parametrize(("point", "twice"), [("uploaded", 0), ("created", 9), ("look", 0), ("results", 0)])
def test_without_a_listing_what_may_be_paid_twice_is_counted(
    point: str, twice: int, batches: BatchServer, tmp_path: Path
) -> None:
    """Only between asking for a batch and knowing its name can nobody tell; before and after it is paid for once."""
    batches.answer, batches.lists = batches.like_ours, False
    batches.holds[point] = Hold()
    kill(start(batches, tmp_path, 5), batches, point)
    made = finish(batches, tmp_path, 5)
    batches.run_all()
    assert made["value"] == pytest.approx(75)
    assert len(batches.ours) == (2 if twice else 1)
    assert (made["unanswered"], made["possibly_paid_twice"]) == (twice, twice)
    assert sum(batches.billed.values()) == 10 + twice


def test_a_thousand_pairs_with_faults_and_kills_at_random(batches: BatchServer, tmp_path: Path) -> None:
    """A fifth of first answers is a fault of its line; three kills, at whatever the server is doing then."""
    good, chance = batches.like_ours, random.Random(7)
    bad = [
        Response(b'{"error": {"message": "busy"}}', 429),
        Response(b'{"error": {"message": "broken"}}', 500),
        Response(completion(0.9, logprobs=None)),
    ]

    def sometimes(prompt: str, before: int) -> Response:
        drawn = random.Random(f"{prompt}{before}")
        return drawn.choice(bad) if drawn.random() < 0.2 and before == 0 else good(prompt, before)

    batches.answer = sometimes
    for point in chance.sample(POINTS, 3):
        batches.holds[point] = Hold()
        process = start(batches, tmp_path, 500)
        kill(process, batches, point)
    made = finish(batches, tmp_path, 500)
    batches.run_all()
    assert made["value"] == pytest.approx(75)
    assert (made["unjudged"], made["unanswered"], made["possibly_paid_twice"]) == (0, 0, 0)
    usable = [row["key"] for row in read_jsonl(tmp_path / JOURNAL) if row["usable"]]
    assert len(set(usable)) == len(usable) == 1000
    assert sum(batches.billed.values()) == made["requests"]  # every reply that was paid for is in the journal


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    for name, word in (("ours", "our"), ("theirs", "their")):
        rows = [{"instruction": f"Question {one}?", "output": f"{word} answer {one}"} for one in range(5)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    return tmp_path


def command(server: BatchServer, folder: Path) -> list[str]:
    files = ["--outputs", str(folder / "ours.json"), "--reference", str(folder / "theirs.json")]
    where = ["--base-url", server.url, "--key-variable", "JUDGE_KEY", "--out", str(folder / "judged")]
    return [sys.executable, "-m", "bench.cli", "judge", "run", *files, *where, "--model", "some-judge", "--batch"]


def test_ctrl_c_says_in_one_line_that_the_batch_goes_on(batches: BatchServer, answers: Path) -> None:
    batches.answer, batches.looks = batches.like_ours, 10**9
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    process = subprocess.Popen(
        command(batches, answers),
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # tests that are run in the background are started with SIGINT ignored, and so would this be
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (batches.ours and batches.ours[0]["looks"]):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.splitlines() == [
        "bench: interrupted; what was made as a batch goes on at 127.0.0.1, and the same command takes its results"
    ]
    assert "Traceback" not in out
    batches.looks = 1
    again = subprocess.run(command(batches, answers), env=environment, text=True, capture_output=True, check=False)
    assert (again.returncode, again.stderr) == (0, "")
    assert "win rate 75.00 % by some-judge over 5 pairs" in again.stdout
    assert batches.line_numbers() == [9]
    assert set(batches.billed.values()) == {1}


def test_no_batches_at_the_endpoint_is_one_line_and_exit_code_2(batches: BatchServer, answers: Path) -> None:
    batches.there = False
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    made = subprocess.run(command(batches, answers), env=environment, text=True, capture_output=True, check=False)
    assert made.returncode == 2
    (line,) = made.stderr.splitlines()
    assert line.startswith(
        "bench: evaluation.win_rate.judge.batch: 127.0.0.1 has no batches of OpenAI's form (/batches answers 404)"
    )
    assert batches.direct == 0
