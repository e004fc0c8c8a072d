"""A loopback server that speaks as vLLM does, in its recorded forms, and answers by transformers and peft on a small model.

Adapters are read from the folder that a call names, so an answer is the policy's only if the right one was loaded. What vLLM does
wrong in the field can be switched on: it ignores an adapter, refuses one, or dies in the middle of its work.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.models.policy import Policy


@dataclass
class Vllm:
    """Hold what the server is, what it was asked, and how it errs.

    Attributes:
        policy: the base model, without an adapter; None: a server without a model, for what is asked before answers.
        calls: the paths and bodies of all posts, in order.
        loaded: the folders of the adapters by name.
        runtime_updating: whether VLLM_ALLOW_RUNTIME_LORA_UPDATING was set.
        max_lora_rank: what it was started with.
        ignores: whether adapters are loaded and then not used.
        dies_after: completions after which every connection is cut; None: never.
        refuses: a field that is answered with 400.
        sglang: whether it speaks as SGLang does: adapters by calls at the root, and by a field of the request.
        keeps: whether it fails to unload adapters.
    """

    url: str = ""
    policy: Policy | None = None
    name: str = "base"
    version: str = "0.28.0"
    max_model_len: int = 512
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    loaded: dict[str, Path] = field(default_factory=dict)
    runtime_updating: bool = True
    max_lora_rank: int = 16
    ignores: bool = False
    dies_after: int | None = None
    refuses: str | None = None
    sglang: bool = False
    keeps: bool = False
    completions: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for called, body in self.calls if called == path]

    # ---- the forms ---------------------------------------------------------------------------------------------------

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/get_server_info" and self.sglang:
            return 200, {"model_path": self.name, "version": self.version, "internal_states": []}
        if path == "/version" and not self.sglang:
            return 200, {"version": self.version}
        if path == "/v1/models":
            card = {"object": "model", "created": 1795000000, "owned_by": "sglang" if self.sglang else "vllm"}
            base = {"id": self.name, **card, "root": self.name, "parent": None, "max_model_len": self.max_model_len}
            adapters = [
                {"id": name, **card, "root": str(folder), "parent": self.name} for name, folder in self.loaded.items()
            ]
            return 200, {"object": "list", "data": [base, *adapters]}
        return 404, {"detail": "Not Found"}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/completions":
            return self._completion(body)
        root = "" if self.sglang else "/v1"
        if path in (f"{root}/load_lora_adapter", f"{root}/unload_lora_adapter") and self.runtime_updating:
            status, said = (self._load if "/load" in path else self._unload)(body)
            return status, ({"success": status == 200, "loaded_adapters": {}} if self.sglang else said)
        return 404, {"detail": "Not Found"}

    def _load(self, body: dict[str, Any]) -> tuple[int, Any]:
        if not {"lora_name", "lora_path"} <= body.keys():
            return error(
                400, "[{'type': 'missing', 'loc': ('body', 'lora_name'), 'msg': 'Field required'}]", "Bad Request"
            )
        name, folder = body["lora_name"], Path(body["lora_path"])
        if name in self.loaded:
            return error(400, f"The lora adapter '{name}' has already been loaded.", "InvalidUserInput")
        if not (folder / "adapter_config.json").exists():
            return error(404, f"Loading lora {name} failed: No adapter found for {folder}", "NotFoundError")
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if settings["use_dora"]:
            return error(400, "vLLM does not yet support DoRA.")
        if settings["r"] > self.max_lora_rank:
            return error(400, f"LoRA rank {settings['r']} is greater than max_lora_rank {self.max_lora_rank}.")
        self.loaded[name] = folder
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _unload(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = body["lora_name"]
        if self.keeps:
            return error(500, "internal")
        if self.loaded.pop(name, None) is None:
            return error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        return 200, f"Success: LoRA adapter '{name}' removed successfully."

    def _completion(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = body["model"]
        if name != self.name and name not in self.loaded:
            return error(404, f"The model `{name}` does not exist.", "NotFoundError")
        if self.refuses in body:
            return error(400, f"[{{'type': 'extra_forbidden', 'loc': ('body', '{self.refuses}')}}]", "Bad Request")
        prompt = body["prompt"]
        name = body.get("lora_path", name)
        text, ids, ended = self._generate(name, prompt, body) if isinstance(prompt, list) else (" x", [1], False)
        tokens = len(ids)
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop" if ended else "length"}
        choice |= {"token_ids": ids if body.get("return_token_ids") else None}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": tokens, "total_tokens": len(prompt) + tokens}
        made = {"id": "cmpl-1", "object": "text_completion", "created": 1795000000, "model": name}
        return 200, made | {"choices": [choice], "usage": usage}

    @torch.no_grad()
    def _generate(self, name: str, prompt: list[int], body: dict[str, Any]) -> tuple[str, list[int], bool]:
        """Generate token by token; the stop string is left out, as there."""
        import peft

        assert self.policy is not None
        folder = None if self.ignores else self.loaded.get(name)
        base = self.policy.model
        model = peft.PeftModel.from_pretrained(base, str(folder)) if folder else base
        chance = torch.Generator().manual_seed(body.get("seed", 0))
        ids, said, ended, text = list(prompt), [], False, ""
        try:
            for _ in range(body["max_tokens"]):
                logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
                if body["temperature"] > 0:
                    share = torch.softmax(logits / body["temperature"], -1)
                    token = int(torch.multinomial(share, 1, generator=chance))
                else:
                    token = int(logits.argmax())
                ids.append(token)
                said.append(token)
                ended = token in body.get("stop_token_ids", [])
                text = self.policy.tokenizer.decode(said[:-1] if ended else said, skip_special_tokens=True)
                stops = [one for one in body.get("stop", []) if one in text]
                if stops:
                    text, ended = text[: text.index(stops[0])], True
                if ended:
                    break
        finally:
            if folder:
                model.unload()
                if hasattr(base, "peft_config"):
                    del base.peft_config
        return text, said, ended


def error(status: int, message: str, kind: str = "BadRequestError") -> tuple[int, Any]:
    return status, {"error": {"message": message, "type": kind, "param": None, "code": status}}


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vllm]:
    """Return a server that runs; its model is to be given."""
    made = Vllm()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(*made.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with made.lock:  # one model, and peft changes it
                made.calls.append((self.path, body))
                made.completions += self.path == "/v1/completions"
                dead = made.dies_after is not None and made.completions > made.dies_after
                status, answer = (0, None) if dead else made.post(self.path, body)
            if dead:
                self.close_connection = True
                self.connection.close()
                return
            self._send(status, answer)

        def _send(self, status: int, answer: Any) -> None:
            text = answer if isinstance(answer, str) else json.dumps(answer)
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/v1"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield made
    server.shutdown()
    server.server_close()
    thread.join()
