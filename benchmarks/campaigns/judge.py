"""Is a paid reply ever lost, or paid for twice without a word? Two judges through faults, kills and a full disk.

python -m benchmarks --only judge

A server of our own plays the endpoint and bills every request that it answers, whether the answer arrives or not. Its
books are then compared with the journal.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.rows import SECONDS_AT_MOST, Context, Row, RowFailed, at_least, at_most

ROOT = Path(__file__).resolve().parents[2]
CONCURRENCY = 8
TIMEOUT_SECONDS = 1.5
# What the server does to one request in so many: only to the first two for a prompt, so that each is answered in the end
FAULTS = ("500", "429", "slow", "cut", "garbage", "busy inside a 200")
ONE_IN = 5
JUDGES = ("some-judge", "other-judge")
BILLED = ("answered", "slow", "cut", "garbage")
# Of lives that end by kill -9, one in so many is killed while it starts, the others among requests
BY_TIME = 8
# Beyond what the journal holds: enough for the first requests and some more, not for all
ROOM_BYTES = (208 * 1024, 256 * 1024)
_SEED = 0


@dataclass(frozen=True)
class Entry:
    """One request in the server's books: which process sent it, under which name and for what, and what it got."""

    life: str
    name: str
    prompt: str
    outcome: str


@dataclass
class Books:
    """What the server saw."""

    entries: list[Entry] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, life: str, name: str, prompt: str) -> tuple[str, float]:
        """Decide what a request gets, by its prompt and how often that came, and bill it; return that and a delay."""
        with self.lock:
            before = self.seen[prompt]
            self.seen[prompt] += 1
            chance = random.Random(f"{_SEED} {before} {prompt}")
            faulty = before < 2 and chance.random() * ONE_IN < 1
            outcome = chance.choice(FAULTS) if faulty else "answered"
            self.entries.append(Entry(life, name, prompt, outcome))
        return outcome, TIMEOUT_SECONDS + 1 if outcome == "slow" else chance.uniform(0.005, 0.04)


def completion() -> bytes:
    """Word a chat completion that prefers the first answer with probability 0.9."""
    top = [{"token": "m", "logprob": math.log(0.9)}, {"token": "M", "logprob": math.log(0.1)}]
    choice = {
        "index": 0,
        "finish_reason": "length",
        "message": {"role": "assistant", "content": "m"},
        "logprobs": {"content": [{**top[0], "top_logprobs": top}]},
    }
    body = {"id": "x", "object": "chat.completion", "model": "judge", "choices": [choice]}
    return json.dumps(body | {"usage": {"prompt_tokens": 300, "completion_tokens": 1, "total_tokens": 301}}).encode()


@contextmanager
def server(books: Books) -> Iterator[str]:
    """Serve on a port of this machine; give the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = f"{body['model']} {body['messages'][-1]['content']}"
            life = self.headers["Authorization"].removeprefix("Bearer ")
            outcome, delay = books.enter(life, self.headers.get("Idempotency-Key", ""), prompt)
            time.sleep(delay)
            status = int(outcome) if outcome.isdigit() else 200
            inside = b'{"error": {"code": 429, "message": "busy, try again in 50ms"}}'
            bodies = {"garbage": b"<html>busy</html>", "busy inside a 200": inside}
            answer = bodies.get(outcome) or (completion() if status == 200 else b"{}")
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status == 429:
                self.send_header("Retry-After", "0.05")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer[: len(answer) // 2] if outcome == "cut" else answer)
            self.close_connection = outcome == "cut"

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:  # a client that was killed, or gave up waiting
            pass

    made = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}/v1"
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


@dataclass
class Campaign:
    """One judging by `bench judge run`, started over and over, by one judge and the other in turn.

    Attributes:
        killed: the processes that were killed, by the key each had.
        stopped: the exit codes of those that met a full disk.
    """

    folder: Path
    url: str
    books: Books
    chance: random.Random = field(default_factory=lambda: random.Random(_SEED))
    killed: set[str] = field(default_factory=set)
    stopped: list[int] = field(default_factory=list)
    lives: int = 0
    start_seconds: float = 2.0  # until the first request, as last seen

    @property
    def journal(self) -> Path:
        """Where the replies are kept."""
        return self.folder / "judged" / "journal.jsonl"

    def rows(self) -> list[dict[str, Any]]:
        """Return what was asked and came: comparisons, and the questions that the judges are tried with."""
        from bench.records.record import read_jsonl

        tried = self.folder / "judged" / "preflight" / "judge" / "journal.jsonl"
        return [row for path in (self.journal, tried) for row in (read_jsonl(path) if path.exists() else ())]

    def start(self, most_bytes: int | None = None) -> tuple[str, subprocess.Popen[bytes]]:
        """Start the command; no file that it writes may grow beyond `most_bytes`."""
        judge = JUDGES[self.lives % len(JUDGES)]
        self.lives += 1
        life = f"life-{self.lives:04d}"

        def limit() -> None:
            if most_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

        with (self.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.command", "judge", "run", "--judge", f"{judge}.yaml"),
                    *("--outputs", "ours.json", "--reference", "theirs.json", "--out", "judged"),
                ],
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(ROOT), "JUDGE_KEY": life, "NO_PROXY": "127.0.0.1"},
                stdout=log,
                stderr=log,
                preexec_fn=limit,
            )
        return life, process

    def to_its_end(self, most_bytes: int | None = None) -> int:
        """Run the command until it ends by itself; return its exit code."""
        _, process = self.start(most_bytes)
        try:
            return process.wait(SECONDS_AT_MOST)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RowFailed(f"bench judge run did not end within {SECONDS_AT_MOST:.0f} s") from None

    def kill(self, requests: int) -> bool:
        """Kill -9 at a random moment: among the next so many requests, or while it starts; False if it ended before."""
        life, process = self.start()
        by_time = self.lives % BY_TIME == 0
        started, before = time.monotonic(), len(self.books.entries)
        until = started + (self.chance.uniform(0, self.start_seconds) if by_time else SECONDS_AT_MOST)
        goal, first = before + self.chance.randint(1, requests), None
        while process.poll() is None and time.monotonic() < until:
            if first is None and len(self.books.entries) > before:
                first = time.monotonic()
                self.start_seconds = first - started
            if len(self.books.entries) >= goal:
                time.sleep(self.chance.uniform(0, 0.03))
                break
            time.sleep(0.002)
        if process.poll() is not None:
            return False
        process.kill()
        process.wait()
        self.killed.add(life)
        return True

    def fill_the_disk(self) -> None:
        """Run it where no file may grow far beyond what the journal holds."""
        held = self.journal.read_bytes().rfind(b"\n") + 1 if self.journal.exists() else 0  # without the room behind it
        self.stopped.append(self.to_its_end(held + self.chance.randint(*ROOM_BYTES)))


def write_pairs(folder: Path, pairs: int, url: str) -> None:
    """Write both sides' answers, and the judge's settings."""
    for name, word in (("ours", "our"), ("theirs", "their")):
        answers = [{"instruction": f"Question {at}?", "output": f"{word} answer {at}"} for at in range(pairs)]
        (folder / f"{name}.json").write_text(json.dumps(answers), encoding="utf-8")
    for judge in JUDGES:
        (folder / f"{judge}.yaml").write_text(
            f"model: {judge}\nbase_url: {url}\nkey_variable: JUDGE_KEY\nconcurrency: {CONCURRENCY}\n"
            f"timeout_seconds: {TIMEOUT_SECONDS}\nfirst_pause_seconds: 0.05\n",
            encoding="utf-8",
        )


@dataclass(frozen=True)
class Findings:
    """The server's books against the journal.

    Attributes:
        lost: replies that were paid for and are not in the journal, though their process was neither killed while they were
            under way nor timed out, nor cut off.
        paid_twice: bills beyond the first for a comparison.
        not_counted: such bills that the journal does not count as possible.
        asked_again: requests for what the journal had a usable reply to.
    """

    lost: int
    paid_twice: int
    not_counted: int
    asked_again: int


def compare(entries: Sequence[Entry], rows: Sequence[dict[str, Any]], killed: set[str]) -> Findings:
    """Compare the books with a journal's lines."""
    answered = Counter(row["request"] for row in rows if row["state"] == "answered")
    given_up = {row["request"] for row in rows if row["state"] == "unanswered"}
    states: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        states[row["request"]][row["state"]] += 1
    bills: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.outcome in BILLED:
            bills[entry.name].append(entry)
    lost, under_way = 0, Counter[str]()
    paid_twice = not_counted = 0
    for name, billed in bills.items():
        for entry in billed[: len(billed) - answered[name]]:
            if entry.outcome != "answered" or name in given_up:
                continue  # it timed out or was cut off, and the journal says so
            under_way[entry.life] += 1
        of = states[name]
        possible = max(0, of["sent"] - of["refused"] - 1)
        paid_twice += len(billed) - 1
        not_counted += max(0, len(billed) - 1 - possible)
    for life, count in under_way.items():
        lost += max(0, count - CONCURRENCY) if life in killed else count
    had: dict[str, str] = {}  # a prompt: the request that was answered; what follows it would have another name
    asked_again = 0
    for entry in entries:
        asked_again += had.get(entry.prompt, entry.name) != entry.name
        if answered[entry.name]:
            had.setdefault(entry.prompt, entry.name)
    return Findings(lost, paid_twice, not_counted, asked_again)


def run(
    folder: Path, pairs: int, kills: int, full_disks: int, say: Callable[[str], None]
) -> tuple[Campaign, dict[str, Any]]:
    """Judge pairs by both judges through kills and full disks to the end; return the campaign and each judge's score."""
    books = Books()
    with server(books) as url:
        write_pairs(folder, pairs, url)
        campaign = Campaign(folder, url, books)
        between = max(2, int(2 * 2 * len(JUDGES) * pairs * 0.6 / (kills + 3 * full_disks)))
        every = max(1, kills // full_disks)
        while len(campaign.killed) < kills:
            if (
                len(campaign.stopped) < full_disks
                and len(campaign.killed) >= every * len(campaign.stopped) + every // 2
            ):
                campaign.fill_the_disk()
            if not campaign.kill(between):
                raise RowFailed(
                    f"all was judged after {len(campaign.killed)} of {kills} kills; see {folder / 'log.txt'}"
                )
            if len(campaign.killed) % 8 == 0:
                say(f"{len(campaign.killed)} kills, {len(books.entries)} requests")
        scores: dict[str, Any] = {}
        for _ in range(5 * len(JUDGES)):
            if campaign.to_its_end() == 0:
                scores |= json.loads((folder / "judged" / "scores.json").read_text(encoding="utf-8"))
            if len(scores) == len(JUDGES):
                break
    return campaign, scores


def rows(context: Context) -> Iterator[Row]:
    """Judge 1,000 pairs in both orders by two judges; 48 kills and 6 full disks on the way."""
    from bench.judges.cost import Account

    pairs, kills, full_disks = (100, 4, 1) if context.quick else (1000, 48, 6)
    folder = context.folder("judge")
    shutil.rmtree(folder / "judged", ignore_errors=True)  # an earlier campaign's replies are in no book
    (folder / "log.txt").unlink(missing_ok=True)
    context.say(f"{pairs} pairs, {len(JUDGES)} judges, {kills} kills, {full_disks} full disks")
    campaign, scores = run(folder, pairs, kills, full_disks, context.say)
    kept = campaign.rows()
    found = compare(campaign.books.entries, kept, campaign.killed)
    outcomes = Counter(entry.outcome for entry in campaign.books.entries)
    what = f"{pairs} pairs, {len(JUDGES)} judges, {len(campaign.killed)} kills, {len(campaign.stopped)} full disks"
    notes = [
        f"A server of our own answered {len(campaign.books.entries)} requests: "
        + ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        + f"; all but 429, 500 and errors inside a 200 are billed, also what came after the time-out of {TIMEOUT_SECONDS:g} s.",
        f"Processes were killed with kill -9 at random moments (seed {_SEED}); full disks are a limit on a file's size.",
    ]
    facts = {"pairs": pairs, "kills": len(campaign.killed), "exit_codes_on_full_disks": campaign.stopped}
    judged = sum(1 - score["unjudged"] / pairs for score in scores.values()) / len(JUDGES)
    yield Row(f"pairs judged in the end: {what}", "", [judged], unit="%", goal=at_least(1.0), facts=facts, notes=notes)
    counts = {
        "paid for, not in the journal, and neither under way at a kill nor timed out or cut off": found.lost,
        "paid for more than once without being counted as possible": found.not_counted,
        "asked for again though the journal had them": found.asked_again,
        "full disks that did not end with exit code 2": sum(code != 2 for code in campaign.stopped),
    }
    for work, count in counts.items():
        yield Row(work, "", [float(count)], unit="stops" if "disks" in work else "replies", goal=at_most(0.0))
    yield Row(
        "possibly paid twice, as the journals say",
        f"in the server's books: {found.paid_twice}",
        [float(Account(kept).possibly_paid_twice)],
        unit="replies",
        goal=at_least(float(found.paid_twice)),
    )
