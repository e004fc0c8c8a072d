"""A loopback server that plays the hub: repositories are made, written by commits, listed and downloaded."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_planted0123456789"


@dataclass
class Repository:
    """Hold a repository's files at its only commit."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        content = b"".join(name.encode() + data for name, data in sorted(self.files.items()))
        return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@dataclass
class Hub:
    """Hold what the server has, by kind and name such as datasets/some/results, and what it was asked."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def add(self, name: str, **files: bytes) -> Repository:
        self.repositories[name] = Repository(files={one.replace("__", "."): data for one, data in files.items()})
        return self.repositories[name]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._asked()
        path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if path[0] == "api":
            self._information(path[1:])
        else:
            self._file(path)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._asked()
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid user token."}, 401)
        elif path == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif path[1] == "validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path[-2] == "preupload":
            told = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in told]}
            )
        elif path[-2] == "commit":
            self._commit("/".join(path[1:4]), body)
        else:
            self._answer({"error": f"not played: {self.path}"}, 404)

    def _create(self, told: dict[str, Any]) -> None:
        name = f"{told.get('type') or 'model'}s/{told.get('organization') or 'me'}/{told['name']}"
        status = 409 if name in self.hub.repositories else 200
        if status == 200:
            self.hub.repositories[name] = Repository(bool(told.get("private") or told.get("visibility") == "private"))
        self._answer({"url": f"{self.hub.url}/{name.removeprefix('models/')}"}, status)

    def _commit(self, name: str, body: bytes) -> None:
        repository = self.hub.repositories[name]
        for line in map(json.loads, body.decode().splitlines()):
            if line["key"] == "file":
                repository.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            if line["key"] == "deletedFile":
                repository.files.pop(line["value"]["path"], None)
        url = f"{self.hub.url}/{name.removeprefix('models/')}/commit/{repository.commit}"
        self._answer({"commitUrl": url, "commitOid": repository.commit, "pullRequestUrl": None})

    def _information(self, path: list[str]) -> None:
        if path[0] == "whoami-v2":
            self._answer({"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})
            return
        found = self._readable("/".join(path[:3]))
        if found is None:
            return
        if len(path) > 3 and path[3] == "tree":
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha256(data).hexdigest()[:40]}
                for name, data in found.files.items()
            ]
            self._answer(entries)
            return
        if len(path) > 4 and path[3] == "revision" and path[4] not in ("main", found.commit):
            self._answer({"error": "no such revision"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return
        files = [{"rfilename": name, "size": len(data)} for name, data in found.files.items()]
        known = {"id": "/".join(path[1:3]), "sha": found.commit, "private": found.private, "siblings": files}
        self._answer(known | {"tags": [], "downloads": 0, "likes": 0})

    def _file(self, path: list[str]) -> None:
        kind = [] if path[0] == "datasets" else ["models"]
        name, rest = "/".join([*kind, *path[: 3 - len(kind)]]), path[3 - len(kind) :]
        found = self._readable(name)
        if found is None:
            return
        data = found.files.get("/".join(rest[2:]))
        if data is None:
            self._answer({"error": "no such file"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        tag = hashlib.sha256(data).hexdigest()
        self._answer(data, 200, {"ETag": f'"{tag}"', "X-Repo-Commit": found.commit})

    def _readable(self, name: str) -> Repository | None:
        """Return a repository; a private one only to whoever shows the token."""
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self._answer({"error": "no such repository"}, 401, {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def _asked(self) -> None:
        self.hub.asked.append((self.command, self.path, self.headers.get("Authorization")))

    def _answer(self, told: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Play the hub for this process and for those that it starts, with a cache of its own and no token."""
    from huggingface_hub import constants

    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    handler.hub = made = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    cache = tmp_path_factory.mktemp("hub")
    changes: dict[str, Any] = {"HF_HUB_OFFLINE": False, "ENDPOINT": made.url, "HF_HUB_CACHE": str(cache)}
    changes["HUGGINGFACE_CO_URL_TEMPLATE"] = made.url + "/{repo_id}/resolve/{revision}/{filename}"
    changes |= {"HF_TOKEN_PATH": str(cache / "token"), "HF_STORED_TOKENS_PATH": str(cache / "tokens")}
    for name, value in changes.items():
        monkeypatch.setattr(constants, name, value)
    for name, value in (("HF_ENDPOINT", made.url), ("HF_HOME", str(cache)), ("HF_HUB_OFFLINE", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield made
    server.shutdown()
    server.server_close()
    thread.join()
