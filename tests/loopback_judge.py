"""A loopback server that plays the paid endpoint, faults included."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

KEY = "sk-planted-0123456789"


def completion(preference: float = 1.0, **changes: Any) -> bytes:
    """Word a chat completion whose labels m (the first answer) and M have the probabilities p and 1 − p."""
    p = min(max(preference, 1e-12), 1 - 1e-12)
    top = [{"token": "m", "logprob": math.log(p)}, {"token": "M", "logprob": math.log(1 - p)}]
    choice = {
        "index": 0,
        "finish_reason": "length",
        "message": {"role": "assistant", "content": "m" if p > 0.5 else "M"},
        "logprobs": {"content": [{"token": "m", "logprob": math.log(p), "top_logprobs": top}]},
    }
    body = {"id": "x", "object": "chat.completion", "model": "judge", "choices": [choice | changes]}
    return json.dumps(body | {"usage": {"prompt_tokens": 300, "completion_tokens": 1, "total_tokens": 301}}).encode()


@dataclass
class Response:
    """Say what the server does: sends a body, or cuts the connection in its middle."""

    body: bytes = field(default_factory=completion)
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    cut: bool = False
    wait: threading.Event | None = None


@dataclass
class Endpoint:
    """Hold what the server was asked, by which key, and what it is to answer: `answer(prompt, times asked before)`."""

    url: str
    answer: Callable[[str, int], Response] = lambda prompt, before: Response()
    prompts: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    askers: list[str] = field(default_factory=list)
    marks: list[str | None] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def respond(self, **changes: Any) -> Response:
        return Response(**changes)

    def choose(self, preference: float = 1.0, **changes: Any) -> Response:
        """Prefer the first answer with a probability; `changes` replace parts of the choice."""
        return Response(completion(preference, **changes))

    def like_ours(self, prompt: str, before: int) -> Response:
        """Prefer the answer that says "our" with probability 0.9 where it comes first and 0.6 where second."""
        if "our answer" not in prompt:  # what a judge is tried with
            return self.choose()
        return self.choose(0.9 if prompt.index("our answer") < prompt.index("their answer") else 0.4)

    @property
    def comparisons(self) -> list[str]:
        """The prompts beside those that a judge is tried with."""
        return [prompt for prompt in self.prompts if "Say hello. It is " not in prompt]

    def times(self, prompt: str) -> int:
        return self.seen[prompt]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = "\n".join(message["content"] for message in body["messages"])
            with made.lock:
                before = made.times(prompt)
                made.prompts.append(prompt)
                made.seen[prompt] += 1
                made.bodies.append(body)
                made.askers.append(self.headers["Authorization"].removeprefix("Bearer "))
                made.marks.append(self.headers["Idempotency-Key"])
            response = made.answer(prompt, before)
            if response.wait:
                response.wait.wait(60)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body[: len(response.body) // 2] if response.cut else response.body)
            self.close_connection = response.cut

        def do_GET(self) -> None:
            found = self.path == "/v1/models" and made.models
            body = json.dumps({"object": "list", "data": made.models} if found else {}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:  # a client that gave up waiting
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    made = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("JUDGE_KEY", KEY)
    yield made
    server.shutdown()
    server.server_close()
    thread.join()
