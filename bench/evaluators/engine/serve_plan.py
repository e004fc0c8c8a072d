"""The command lines by which servers serve what a suite's `generation.engine: endpoint` needs. Loads no model."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.errors import InputError
from bench.evaluators.engine.server import KEY
from bench.evaluators.options import Endpoint
from bench.settings import Lora, Model

# What `--max-lora-rank` may be in vLLM
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
PORTS = {"vllm": 8000, "sglang": 30000}


@dataclass(frozen=True)
class ServePlan:
    """How to start a server.

    Attributes:
        server: vllm or sglang.
        command: its arguments.
        environment: what must be set.
        notes: what a reader has to know.
    """

    server: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The command line for a shell."""
        return " ".join(
            [*(f"{name}={shlex.quote(value)}" for name, value in self.environment.items()), shlex.join(self.command)]
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "server": self.server,
            "command": list(self.command),
            "environment": self.environment,
            "line": self.line,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Needs:
    """What a server has to serve.

    Attributes:
        model: the suite's base model.
        lora: its adapters; None: whole models are trained.
        endpoint: how it will be asked; None: the suite names none yet.
        tokens: of the longest prompt and answer together.
        at_once: adapters that are asked at once: one a worker.
    """

    model: Model
    lora: Lora | None
    endpoint: Endpoint | None
    tokens: int
    at_once: int


def plans(needs: Needs) -> list[ServePlan]:
    """Return how to start vLLM and SGLang, or the one that the suite names.

    Raises:
        InputError: the model is none that a server could load, or its adapters are of a rank that none takes.
    """
    declared = needs.endpoint.server if needs.endpoint else None
    if declared == "llama.cpp":
        raise InputError(f"{KEY}.server: llama.cpp serves GGUF files; a plan is made for vllm and sglang")
    made = {"vllm": _vllm, "sglang": _sglang}
    return [plan(needs, _where(needs.model)) for name, plan in made.items() if declared in (None, name)]


def _where(model: Model) -> str:
    """Name the model as a server loads it."""
    if model.source == "hub":
        return str(model.path)
    if model.source == "local":
        return str(Path(str(model.path)).expanduser().resolve())
    if model.source == "gguf_package":
        from bench.models import gguf

        return str(gguf.plain_copy(str(model.path)))
    raise InputError(
        f"model.source = {model.source!r}: a model that is made here, which no server loads; servers serve hub, local and "
        "gguf_package"
    )


def _vllm(needs: Needs, model: str) -> ServePlan:
    command = ["vllm", "serve", model, *_revision(needs.model), "--dtype", needs.model.dtype]
    command += _name(needs, model)
    command += ["--max-model-len", str(needs.tokens), "--generation-config", "vllm"]
    environment = {}
    if served := _rank(needs):
        rank = next((rank for rank in VLLM_RANKS if rank >= served), None)
        if rank is None:
            raise InputError(
                f"lora.rank: adapters of rank {served} are saved, and vLLM loads those of {VLLM_RANKS[-1]} at most"
            )
        command += ["--enable-lora", "--max-lora-rank", str(rank)]
        command += ["--max-loras", str(needs.at_once), "--max-cpu-loras", str(needs.at_once)]
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    command += _place(needs, "vllm")
    notes = [
        "vLLM takes 90 % of the card's memory: where the suite trains on the same card, add --gpu-memory-utilization 0.4"
    ]
    return ServePlan("vllm", tuple(command), environment, (*notes, *_notes(needs)))


def _sglang(needs: Needs, model: str) -> ServePlan:
    command = ["python", "-m", "sglang.launch_server", "--model-path", model, *_revision(needs.model)]
    command += ["--dtype", needs.model.dtype, *_name(needs, model), "--context-length", str(needs.tokens)]
    if served := _rank(needs):
        command += ["--enable-lora", "--max-lora-rank", str(served), "--lora-target-modules", "all"]
        # The base counts as one of them
        command += ["--max-loras-per-batch", str(needs.at_once + 1)]
    command += _place(needs, "sglang")
    return ServePlan("sglang", tuple(command), {}, _notes(needs))


def _rank(needs: Needs) -> int:
    """Return the rank of the adapters as they are saved; 0 where merged or whole models are served instead."""
    lora = needs.lora
    if lora is None or lora.variant == "dora" or (needs.endpoint is not None and needs.endpoint.adapters != "lora"):
        return 0
    return lora.rank * (2 if lora.moves_weights else 1)


def _revision(model: Model) -> list[str]:
    return ["--revision", model.revision] if model.source == "hub" and model.revision else []


def _name(needs: Needs, model: str) -> list[str]:
    named = needs.endpoint.model if needs.endpoint else None
    return ["--served-model-name", named] if named and named != model else []


def _place(needs: Needs, server: str) -> list[str]:
    """Listen where the suite asks; on this machine alone where that is meant, since whoever reaches it may load adapters."""
    if needs.endpoint is None:
        return ["--host", "127.0.0.1", "--port", str(PORTS[server])]
    parts = urlsplit(needs.endpoint.base_url)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return [*(["--host", str(parts.hostname)] if local else []), "--port", str(port)]


def _notes(needs: Needs) -> tuple[str, ...]:
    found = []
    if needs.model.source == "hub" and not needs.model.revision:
        found.append("model.revision is not set: the server and the suite may load different commits")
    if needs.endpoint is None:
        found.append("the suite makes its answers here: set evaluation.win_rate.generation.engine to endpoint")
    if needs.endpoint is not None and needs.endpoint.key_variable:
        found.append(f"add --api-key with what {needs.endpoint.key_variable} holds: the suite sends it")
    if _rank(needs):
        found.append("the server must see the results folder under the same path, to load adapters from it")
    else:
        found.append(
            "each policy's whole model must be served, too, under its folder's path: servers load no other kind of policy"
        )
    return tuple(found)


def as_text(made: Sequence[ServePlan]) -> str:
    """Show plans: each as a line to copy, with its notes above it."""
    return "\n\n".join("\n".join([*(f"# {note}" for note in one.notes), one.line]) for one in made)
