"""Which commit a branch of the hub stands for: by the hub, or by its cache on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

from bench.data import sources
from bench.models.files import model_settings
from bench.plan import planner
from bench.records import hub
from bench.run import stale
from bench.settings import DataSource, Model
from bench.suite.suite import Suite

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    hub.commit.cache_clear()
    yield
    hub.commit.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache as an earlier run left it: main of a model at the old commit."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for folder in ("models--some--model", "datasets--some--pairs"):
        (tmp_path / folder / "refs").mkdir(parents=True)
        (tmp_path / folder / "refs" / "main").write_text(OLD)
    return tmp_path


def test_a_commit_is_itself(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.commit("some/model", NEW, "model") == NEW


def test_offline_the_cache_tells(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Results are of what was fetched last; a name that was never fetched stays a name."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert model_settings(Model(source="hub", path="some/model"))["revision"] == OLD
    assert sources.identity(DataSource(source="hub", path="some/pairs", rows=1), None) == f"hub:some/pairs@{OLD}"
    assert model_settings(Model(source="hub", path="other/model", revision="v1"))["revision"] == "v1"
    assert sources.identity(DataSource(source="hub", path="other/pairs", rows=1), None) == "hub:other/pairs@main"


def test_jobs_load_the_commits_that_the_plan_is_of(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """The branch may move between a plan and its workers: the suite that they are handed names commits."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    data = {"source": "hub", "path": "some/pairs", "rows": 4, "evaluation_rows": 1}
    suite = Suite.model_validate(
        {
            "name": "t",
            "model": {"source": "hub", "path": "some/model"},
            "lora": {"rank": 1, "alpha": 1},
            "data": {"preference": data, "instruction": data | {"path": "other/rows"}},
            "training": {"steps": 1, "batch_size": {"dpo": 1, "sft": 1}, "learning_rate": 0.1},
            "methods": ["mix"],
            "lambdas": [0.5],
        }
    )
    made = planner.make(suite)
    assert isinstance(made.suite, Suite)
    (tmp,) = {job.settings["model"]["revision"] for job in made.jobs.values() if "model" in job.settings}
    assert made.suite.model.revision == tmp == OLD
    assert (made.suite.data.preference.revision, made.suite.data.instruction.revision) == (OLD, None)
    assert {job.data.get("preference") for job in made.jobs.values()} <= {f"hub:some/pairs@{OLD}", None}


def test_the_hub_is_asked_first_and_once(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """A hub on loopback says that main has moved: a plan is of the new commit, and says what has changed."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = f'{{"id": "some/model", "sha": "{NEW}"}}'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        before = {"revision": OLD, "path": "some/model"}
        now = [model_settings(Model(source="hub", path="some/model")) for _ in range(2)]
    finally:
        server.shutdown()
        server.server_close()
    assert [one["revision"] for one in now] == [NEW, NEW]
    assert len(asked) == 1 and "/api/models/some/model" in asked[0]
    assert stale._settings(before, {name: now[0][name] for name in before}, str) == [f'revision "{OLD}" → "{NEW}"']
