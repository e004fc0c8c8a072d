"""What a long judging meets: faults at random, kills at random. Nothing is lost and nothing is paid for twice."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from loopback_judge import KEY, completion

from bench.errors import NoRoom
from bench.evaluators.win_rate import JOURNAL, judge
from bench.judges import JudgeSettings
from bench.judges.requests import Pair
from bench.records.record import read_jsonl

PAIRS = 1000
KILLED = """
import sys
from pathlib import Path
from bench.evaluators.win_rate import judge
from bench.judges.requests import Pair
from bench.judges import JudgeSettings
pairs = [Pair(number, f"Question {number}?", f"our answer {number}", f"their answer {number}") for number in range(40)]
settings = JudgeSettings(kind="openai", model="some-judge", base_url=sys.argv[1], key_variable="JUDGE_KEY", concurrency=4,
    configuration="weighted_alpaca_eval_gpt4_turbo")
judge(pairs, settings, Path(sys.argv[2]), None, lambda text: None)
"""


def pairs(count: int) -> list[Pair]:
    return [
        Pair(number, f"Question {number}?", f"our answer {number}", f"their answer {number}") for number in range(count)
    ]


def faults(endpoint: Any) -> list[Any]:
    other = {"content": [{"token": "The", "logprob": -0.1, "top_logprobs": [{"token": "The", "logprob": -0.1}]}]}
    return [
        endpoint.respond(status=429, headers={"Retry-After": "0"}, body=b'{"error": {"code": "rate_limit"}}'),
        endpoint.respond(status=500, body=b"{}"),
        endpoint.respond(status=503, body=f"<html>{KEY}</html>".encode()),
        endpoint.respond(cut=True),
        endpoint.respond(body=b"<html>busy</html>", headers={"Content-Type": "text/html"}),
        endpoint.respond(body=b""),
        endpoint.respond(body=completion(0.9, logprobs=None)),
        endpoint.respond(body=completion(0.9, logprobs=other)),
    ]


def run(
    endpoint: Any, folder: Path, judged: list[Pair], told: list[str] | None = None, **changes: Any
) -> dict[str, Any]:
    settings = JudgeSettings.model_validate(
        {
            "kind": "openai",
            "configuration": "weighted_alpaca_eval_gpt4_turbo",
            "model": "some-judge",
            "base_url": endpoint.url,
            "key_variable": "JUDGE_KEY",
            "first_pause_seconds": 0.001,
            **changes,
        }
    )
    scores, _ = judge(judged, settings, folder, None, (told if told is not None else []).append)  # type: ignore[arg-type]
    return scores["win_rate/some-judge"]


def test_a_thousand_pairs_through_faults_lose_nothing(endpoint: Any, tmp_path: Path) -> None:
    """16 requests at a time; a fifth of first requests meets a fault, chosen by the prompt's own seed.

    Ours are preferred with 0.9 in first place and 0.6 in second; the order is drawn, so the rate is the mean over the
    orders that the journal names: (0.9 a + 0.6 b) / 1000. A second run finds everything and asks for nothing.
    """
    good, bad = endpoint.like_ours, faults(endpoint)

    def sometimes(prompt: str, before: int) -> Any:
        chance = random.Random(f"{prompt}{before}")
        return chance.choice(bad) if chance.random() < 0.2 and before < 2 else good(prompt, before)

    endpoint.answer = sometimes
    told: list[str] = []
    score = run(endpoint, tmp_path, pairs(PAIRS), told, concurrency=16, orders="single")
    kept = [row for row in read_jsonl(tmp_path / JOURNAL) if row["usable"]]
    orders = Counter(row["order"] for row in kept)
    assert {row["pair"] for row in kept} == set(range(PAIRS))
    expected = (90 * orders["ours_first"] + 60 * orders["theirs_first"]) / PAIRS
    assert score["value"] == pytest.approx(expected, abs=1e-9)
    assert (score["n"], score["unjudged"]) == (PAIRS, 0)
    asked = len(endpoint.prompts)
    assert asked > 1.15 * PAIRS

    assert run(endpoint, tmp_path, pairs(PAIRS), told, concurrency=16, orders="single") == score
    assert len(endpoint.prompts) == asked
    assert KEY not in "".join([*told, *(path.read_text() for path in tmp_path.iterdir())])


def test_kills_at_random_points_cost_no_reply_that_was_kept(endpoint: Any, tmp_path: Path) -> None:
    """Kill −9 after 7 and 31 kept replies; each last line is then cut as a crash would leave it.

    What the journal held at a kill is never asked for again, and the end is the fault-free 75 %. Every process has a key
    of its own, by which its requests are known even where they are counted after its end; the endpoint falls silent a few
    replies after the goal, so that none gets past all 80.
    """
    good = endpoint.like_ours
    journal = tmp_path / JOURNAL
    command = [sys.executable, "-c", KILLED, endpoint.url, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    kept_before: dict[str, set[str]] = {}  # a process's key -> the prompts in the journal when it started
    for key, goal in (("first-key", 7), ("second-key", 31)):
        kept_before[key] = {row["prompt_sha256"] for row in answered(journal)}
        silent = threading.Semaphore(goal + 8)  # 8: what the process before it may have asked at the last moment

        def reply(prompt: str, before: int, silent: threading.Semaphore = silent) -> Any:
            silent.acquire()
            return good(prompt, before)

        endpoint.answer = reply
        process = subprocess.Popen(command, env=environment | {"JUDGE_KEY": key})
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b'"answered"') < goal):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        silent.release(100)
        assert goal <= len(answered(journal)) < 80
        with journal.open("ab") as file:
            file.write(b'{"key": "cut in the mid')

    kept_before[KEY] = {row["prompt_sha256"] for row in answered(journal)}
    endpoint.answer = good
    score = run(endpoint, tmp_path, pairs(40))
    assert score["value"] == pytest.approx(75)
    for prompt, key in zip(endpoint.prompts, endpoint.askers, strict=True):
        assert _hash(prompt) not in kept_before[key]
    assert len(kept_before["second-key"]) >= 7
    assert len(kept_before[KEY]) >= 31
    assert len(answered(journal)) == 80
    again = sum(count - 1 for count in endpoint.seen.values())  # a few were noted, but killed before they were sent
    assert 0 < again <= score["possibly_paid_twice"] <= again + 8
    assert score["unanswered"] == score["possibly_paid_twice"]


def answered(journal: Path) -> list[dict[str, Any]]:
    return [row for row in read_jsonl(journal) if row["state"] == "answered"]


def _hash(prompt: str) -> str:
    """Hash a prompt as the journal does: the template has a system and a user message."""
    import hashlib

    from bench.judges import alpaca

    system = (
        alpaca.configuration("weighted_alpaca_eval_gpt4_turbo")
        .messages({"instruction": "", "output_1": "", "output_2": ""})[0]
        .content
    )
    user = prompt.removeprefix(f"{system}\n")
    return hashlib.sha256(f"system\n{system}\nuser\n{user}".encode()).hexdigest()


def test_two_processes_at_once_ask_for_each_comparison_once(endpoint: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, endpoint.url, str(tmp_path)]
    root = str(Path(__file__).parents[3])
    endpoint.answer = endpoint.like_ours
    both = [subprocess.Popen(command, env=os.environ | {"PYTHONPATH": root}) for _ in range(2)]
    assert [process.wait(600) for process in both] == [0, 0]
    assert set(endpoint.seen.values()) == {1}
    assert len(endpoint.seen) == 80


def test_a_disk_without_room_is_not_asked_for(endpoint: Any, tmp_path: Path) -> None:
    """No file may pass 300 KiB. Some replies come and are kept; once there is more room, only the missing ones are asked for."""
    endpoint.answer = endpoint.like_ours
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300 * 1024, limits[1]))
    try:
        with pytest.raises(
            NoRoom, match=r"KiB more are needed \(File too large\); nothing further was asked; make room"
        ):
            run(endpoint, tmp_path, pairs(200), concurrency=8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    asked = len(endpoint.prompts)
    assert 10 < asked < 400
    assert len(answered(tmp_path / JOURNAL)) == asked
    score = run(endpoint, tmp_path, pairs(200))
    assert score["value"] == pytest.approx(75)
    assert len(endpoint.prompts) == 400
    assert (score["unanswered"], score["possibly_paid_twice"]) == (0, 0)


def test_without_room_for_the_first_replies_nothing_is_asked(endpoint: Any, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    try:
        with pytest.raises(NoRoom, match=f"{tmp_path}: the disk has no room for a judge's replies"):
            run(endpoint, tmp_path, pairs(40))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert endpoint.prompts == []
