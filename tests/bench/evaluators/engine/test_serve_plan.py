"""The command lines that serve a suite, written out by hand."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from bench.cli.main import main
from bench.errors import InputError
from bench.evaluators.engine import serve_plan
from bench.evaluators.options import Endpoint
from bench.settings import Lora, Model

HUB = {"source": "hub", "path": "org/model", "revision": "abc123", "dtype": "bfloat16"}


def needs(rank: int = 16, at_once: int = 1, base: dict[str, Any] = HUB, **endpoint: Any) -> serve_plan.Needs:
    asked = Endpoint.model_validate({"base_url": "http://127.0.0.1:9000/v1", **endpoint})
    return serve_plan.Needs(Model.model_validate(base), Lora(rank=rank, alpha=16), asked, 1536, at_once)


def test_vllms_line() -> None:
    (plan,) = serve_plan.plans(needs(rank=24, at_once=2, server="vllm"))
    assert plan.line == (
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve org/model --revision abc123 --dtype bfloat16 --max-model-len 1536 "
        "--generation-config vllm --enable-lora --max-lora-rank 32 --max-loras 2 --max-cpu-loras 2 --host 127.0.0.1 --port 9000"
    )


def test_sglangs_line() -> None:
    (plan,) = serve_plan.plans(needs(rank=24, at_once=2, server="sglang", base={**HUB, "revision": None}))
    assert plan.line == (
        "python -m sglang.launch_server --model-path org/model --dtype bfloat16 --context-length 1536 --enable-lora "
        "--max-lora-rank 24 --lora-target-modules all --max-loras-per-batch 3 --host 127.0.0.1 --port 9000"
    )
    assert plan.notes[0] == "model.revision is not set: the server and the suite may load different commits"


@pytest.mark.parametrize(("rank", "served"), [(1, 1), (2, 8), (8, 8), (9, 16), (257, 320), (512, 512)])
def test_the_rank_is_rounded_up_to_what_vllm_takes(rank: int, served: int) -> None:
    vllm, _ = serve_plan.plans(needs(rank=rank))
    assert vllm.command[vllm.command.index("--max-lora-rank") + 1] == str(served)


def test_what_is_asked_for_is_what_is_served() -> None:
    """A name of its own, another machine, a key, merged adapters."""
    far = {
        "base_url": "http://far.example:9000/v1",
        "model": "base",
        "key_variable": "SERVER_KEY",
        "adapters": "merged",
    }
    (plan,) = serve_plan.plans(needs(server="vllm", **far))
    assert plan.line == (
        "vllm serve org/model --revision abc123 --dtype bfloat16 --served-model-name base --max-model-len 1536 "
        "--generation-config vllm --port 9000"
    )
    assert plan.notes[1:] == (
        "add --api-key with what SERVER_KEY holds: the suite sends it",
        "each policy's whole model must be served, too, under its folder's path: servers load no other kind of policy",
    )


def test_a_path_with_a_space_is_quoted(tmp_path: Any) -> None:
    folder = tmp_path / "my model"
    plan, _ = serve_plan.plans(needs(base={"source": "local", "path": str(folder)}))
    assert f"vllm serve '{folder}' --dtype float32" in plan.line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rank": 513}, r"lora\.rank: adapters of rank 513 are saved, and vLLM loads those of 512 at most"),
        ({"base": {"source": "world"}}, r"model\.source = 'world': a model that is made here, which no server loads"),
        (
            {"server": "llama.cpp"},
            r"endpoint\.server: llama\.cpp serves GGUF files; a plan is made for vllm and sglang",
        ),
    ],
)
def test_what_cannot_be_served_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        serve_plan.plans(needs(**changes))


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The paper's suite: prompts of 512 tokens at most and answers of 1,024, adapters of rank 16."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench", "serve-plan", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    code, out, _ = run("llama3_8b")
    assert code == 0
    line = next(one for one in out.splitlines() if not one.startswith("#"))
    assert line.startswith(
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve meta-llama/Meta-Llama-3-8B --dtype bfloat16 "
    )
    assert "--max-model-len 1536 " in line
    assert "# the suite makes its answers here: set evaluation.win_rate.generation.engine to endpoint" in out
    code, out, _ = run("llama3_8b", "--json", "--workers", "3")
    vllm, sglang = json.loads(out)
    assert vllm["environment"] == {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    assert vllm["command"][vllm["command"].index("--max-loras") + 1] == "3"
    assert sglang["server"] == "sglang"
    code, out, err = run("quickstart")
    assert (code, out) == (2, "")
    assert "quickstart.yaml:" in err
    assert "a model that is made here, which no server loads" in err
    code, _, err = run("toy")
    assert (code, err) == (2, "bench: toy: a toy has no model to serve\n")
