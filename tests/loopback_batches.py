"""A loopback server that has files and batches of OpenAI's form, and counts what it answers, as it would bill it."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from loopback_judge import KEY, Endpoint, Response

NOT_THERE = Response(b'{"error": {"message": "Not Found"}}', 404)


@dataclass
class Hold:
    """Stop the server at a point until it is let go."""

    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


@dataclass
class BatchServer(Endpoint):
    """Beside an endpoint: its files and batches, and its faults.

    Attributes:
        files: what was uploaded, and what was written.
        batches: as they were made; those of others are `theirs`.
        billed: by prompt, how often it was answered, by itself or in a batch.
        looks: how often a batch is looked at before it ends.
        ends: how a batch ends, by its number.
        answered: whether a batch comes to a line before it ends, by the batch's and the line's number.
        lists: whether batches are listed; `page`: how many at a time.
        there: whether it has batches at all.
        on_create: what is answered to each request for a batch instead, and whether it is made all the same.
        errors: why a batch fails, by its number.
        holds: by point: upload, uploaded, create, created, listed, look, results.
        requests: every method and path.
        idempotent: whether two requests of one Idempotency-Key make one batch.
        asked_for: those of the requests that were carried out.
        direct: how many requests came by themselves.
        most_lines: of a batch, more are too much for the account.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    batches: list[dict[str, Any]] = field(default_factory=list)
    billed: Counter[str] = field(default_factory=Counter)
    looks: int = 2
    ends: Callable[[int], str] = lambda number: "completed"
    answered: Callable[[int, int], bool] = lambda number, line: True
    lists: bool = True
    page: int = 20
    there: bool = True
    on_create: list[tuple[Response, bool]] = field(default_factory=list)
    errors: Callable[[int], list[dict[str, Any]]] = lambda number: []
    holds: dict[str, Hold] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    idempotent: bool = False
    asked_for: list[str] = field(default_factory=list)
    direct: int = 0
    most_lines: int = 50_000

    def hold(self, point: str) -> None:
        held = self.holds.get(point)
        if held:
            held.reached.set()
            held.go.wait(60)

    @property
    def ours(self) -> list[dict[str, Any]]:
        return [one for one in self.batches if (one["metadata"] or {}).get("bench_batch")]

    def line_numbers(self) -> list[int]:
        """Count the requests of each batch of ours."""
        return [self.files[one["input_file_id"]].count(b"\n") for one in self.ours]

    def theirs(self, count: int) -> None:
        """Make batches of somebody else."""
        for _ in range(count):
            self.batches.append(self._made({"input_file_id": "file-x", "metadata": None}) | {"status": "completed"})

    def run_all(self) -> None:
        """Carry out what nobody looks at, as an endpoint does, and bill it."""
        for batch in self.ours:
            while batch["status"] in ("validating", "in_progress"):
                self._go_on(batch)

    def handle(self, method: str, path: str, query: dict[str, list[str]], body: bytes, headers: Any) -> Response:
        self.requests.append(f"{method} {path}")
        parts = path.removeprefix("/v1/").split("/")
        if not self.there:
            return NOT_THERE
        if parts == ["files"] and method == "POST":
            return self._upload(body, headers["Content-Type"])
        if parts[0] == "files" and parts[-1] == "content":
            self.hold("results")
            found = self.files.get(parts[1])
            return NOT_THERE if found is None else Response(found, headers={"Content-Type": "application/octet-stream"})
        if parts == ["batches"] and method == "POST":
            return self._create(json.loads(body), headers["Idempotency-Key"])
        if parts == ["batches"]:
            return self._list(query) if self.lists else NOT_THERE
        batch = next((one for one in self.batches if one["id"] == parts[1]), None)
        if batch is None:
            return NOT_THERE
        if parts[-1] == "cancel":
            batch["status"] = "cancelled"
            return _json(batch)
        self.hold("look")
        with self.lock:
            self._go_on(batch)
        return _json(batch)

    def _upload(self, body: bytes, kind: str) -> Response:
        self.hold("upload")
        boundary = re.search("boundary=(.*)", kind)
        assert boundary is not None
        parts = {}
        for part in body.split(b"--" + boundary[1].encode())[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            parts[re.search(b'name="(.*?)"', head)[1].decode()] = content[:-2]  # type: ignore[index]
        assert parts["purpose"] == b"batch"
        with self.lock:
            name = f"file-{len(self.files)}"
            self.files[name] = parts["file"]
        self.hold("uploaded")
        return _json({"id": name, "object": "file", "purpose": "batch", "bytes": len(parts["file"])})

    def _create(self, asked: dict[str, Any], mark: str) -> Response:
        if "input_file_id" not in asked:
            return Response(b'{"error": {"message": "input_file_id is missing", "param": "input_file_id"}}', 400)
        assert asked["completion_window"] == "24h"
        assert asked["endpoint"] == "/v1/chat/completions"
        self.hold("create")
        with self.lock:
            answer, is_made = self.on_create.pop(0) if self.on_create else (None, True)
            self.asked_for.append(mark)
            again = next((one for one in self.ours if one["mark"] == mark), None) if self.idempotent else None
            made = again or self._made(asked) | {"mark": mark}
            if is_made and not again:
                self.batches.append(made)
        self.hold("created")
        return answer or _json(made)

    def _made(self, asked: dict[str, Any]) -> dict[str, Any]:
        number = len(self.batches)
        return {
            "id": f"batch_{number}", "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "status": "validating", "created_at": 1_700_000_000 + number, "looks": 0, "output_file_id": None,
            "error_file_id": None, "errors": None, "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "input_file_id": asked["input_file_id"], "metadata": asked.get("metadata"),
        }  # fmt: skip

    def _list(self, query: dict[str, list[str]]) -> Response:
        newest = self.batches[::-1]
        after = query.get("after", [""])[0]
        start = next((place + 1 for place, one in enumerate(newest) if one["id"] == after), 0)
        size = min(self.page, int(query["limit"][0]))
        page = newest[start : start + size]
        self.hold("listed")
        return _json({"object": "list", "data": page, "has_more": start + size < len(newest)})

    def _go_on(self, batch: dict[str, Any]) -> None:
        batch["looks"] += 1
        batch["status"] = "in_progress"
        if batch["looks"] < self.looks or batch["output_file_id"] or batch["errors"]:
            batch["status"] = batch.get("ended") or "in_progress"
            return
        number = self.ours.index(batch)
        batch["ended"] = batch["status"] = self.ends(number)
        lines = self.files[batch["input_file_id"]].decode().splitlines()
        problems = self.errors(number)
        if problems or len(lines) > self.most_lines:
            problems = problems or [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]
            batch["ended"] = batch["status"] = "failed"
            batch["errors"] = {"object": "list", "data": problems}
            return
        good, bad = [], []
        for place, line in enumerate(map(json.loads, lines)):
            assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
            if not self.answered(number, place):
                bad += (
                    [_result(line, None, {"code": f"batch_{batch['status']}", "message": "not in time"})]
                    if place % 2
                    else []
                )
                continue
            response = self.reply(line["body"])
            made = _result(line, response)
            (good if response.status == 200 else bad).append(made)
        batch["request_counts"] = {"total": len(lines), "completed": len(good), "failed": len(bad)}
        for name, results in (("output_file_id", good[::-1]), ("error_file_id", bad)):  # in no order
            if results:
                batch[name] = f"file-{len(self.files)}"
                self.files[batch[name]] = "".join(f"{json.dumps(one)}\n" for one in results).encode()

    def reply(self, body: dict[str, Any]) -> Response:
        """Answer a request, by itself or in a batch, and bill it."""
        prompt = "\n".join(message["content"] for message in body["messages"])
        before = self.seen[prompt]
        self.seen[prompt] += 1
        self.prompts.append(prompt)
        self.bodies.append(body)
        response = self.answer(prompt, before)
        self.billed[prompt] += response.status == 200
        return response


def _result(line: dict[str, Any], response: Response | None, error: dict[str, Any] | None = None) -> dict[str, Any]:
    said = response and {"status_code": response.status, "request_id": "r", "body": json.loads(response.body)}
    return {"id": "batch_req", "custom_id": line["custom_id"], "response": said, "error": error}


def _json(value: Any) -> Response:
    return Response(json.dumps(value).encode())


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"] or 0)))

        def do_GET(self) -> None:
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            url = urlsplit(self.path)
            if url.path == "/v1/chat/completions":
                with made.lock:
                    made.direct += 1
                    response = made.reply(json.loads(body))
            else:
                response = made.handle(self.command, url.path, parse_qs(url.query), body, self.headers)
            if response.wait:
                response.wait.wait(60)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body[: len(response.body) // 2] if response.cut else response.body)
            self.close_connection = response.cut

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:  # a client that was killed
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    made = BatchServer(f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("JUDGE_KEY", KEY)
    yield made
    for held in made.holds.values():
        held.go.set()
    server.shutdown()
    server.server_close()
    thread.join()
