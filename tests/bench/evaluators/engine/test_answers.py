"""Answers of a server: the policy's, adapter and all, in the form of those made here; and what is said where they are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from vllm_wire import Vllm
from vllm_wire import vllm as vllm

from bench.data import world
from bench.errors import JobError
from bench.evaluators import generation
from bench.evaluators.engine import answers
from bench.evaluators.options import Generation
from bench.models import policy as policies
from bench.models.policy import Policy
from bench.settings import Lora, Model


def large(model: Any) -> None:
    """Make weights so large that greedy words differ."""
    torch.manual_seed(5)
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() > 1:
                value.normal_(0, 0.3)


def load() -> Policy:
    policy = policies.load(Model(source="random"), torch.device("cpu"))
    large(policy.model)
    return policy


def adapted(rank: int = 4, scale: float = 0.3) -> Policy:
    """The same base with an adapter that changes what it says."""
    policy = load()
    policy.attach(Lora(rank=rank, alpha=2 * rank, targets=("q_proj", "v_proj")), seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for value in policy.trainable().values():
            value.normal_(0, scale)
    policy.model.eval()
    return policy


def prompts(count: int = 6) -> list[str]:
    return [row.prompt for row in world.preference_rows("test", count)]


Answer = Callable[..., tuple[list[dict[str, Any]], dict[str, Any]]]


@pytest.fixture
def answer(vllm: Vllm, tmp_path: Path) -> Answer:
    """Answer by the server; settings of the endpoint begin with `at_`."""
    vllm.policy = load()

    def by_server(policy: Policy, texts: list[str], stop: tuple[str, ...] = (), **settings: Any) -> Any:
        own = {name.removeprefix("at_"): settings.pop(name) for name in list(settings) if name.startswith("at_")}
        where = {"base_url": vllm.url, "first_pause_seconds": 0.001, "timeout_seconds": 60, "concurrency": 2, **own}
        made = {"engine": "endpoint", "endpoint": where, "max_new_tokens": 8, "temperature": 0.0, **settings}
        return answers.answers_and_facts(
            policy, texts, Generation.model_validate(made), stop, 96, lambda text: None, tmp_path
        )

    return by_server


def here(policy: Policy, texts: list[str], stop: tuple[str, ...] = (), **settings: Any) -> list[dict[str, Any]]:
    made = Generation.model_validate({"max_new_tokens": 8, "temperature": 0.0, **settings})
    return generation.answer(policy, texts, made, stop, 96, lambda text: None)


def test_the_base_models_answers_are_those_made_here(answer: Answer, vllm: Vllm) -> None:
    base = load()
    rows, facts = answer(base, prompts())
    assert rows == here(base, prompts())
    assert vllm.bodies("/v1/load_lora_adapter") == []
    assert facts["engine"] == "endpoint"
    assert facts["endpoint"]["server"] == "vllm"
    assert facts["endpoint"]["version"] == "0.28.0"
    assert facts["endpoint"]["models"] == ["base"]
    assert facts["adapter"] == "none"
    assert facts["checked"]["base_gap_nats"] == pytest.approx(0, abs=1e-4)


def test_a_policys_answers_are_made_with_its_adapter(answer: Answer, vllm: Vllm, tmp_path: Path) -> None:
    """It is loaded under a fresh name, used, and unloaded; nothing of it stays in the folder."""
    policy, base = adapted(), load()
    rows, facts = answer(policy, prompts())
    assert rows == here(policy, prompts())
    assert rows != here(base, prompts())
    (empty, loading), (unloading,) = (vllm.bodies(f"/v1/{verb}_lora_adapter") for verb in ("load", "unload"))
    assert empty == {}
    assert loading["lora_name"] == unloading["lora_name"]
    assert loading["lora_name"].startswith("bench-")
    assert Path(loading["lora_path"]).is_absolute()
    assert vllm.loaded == {}
    assert facts["adapter"] == "loaded by the server"
    assert facts["checked"]["telling_prompts"] > 0
    assert facts["checked"]["policy_gap_nats"] == pytest.approx(0, abs=1e-4)
    assert list(tmp_path.iterdir()) == []

    rows, _ = answer(policy, prompts())
    assert vllm.bodies("/v1/load_lora_adapter")[-1]["lora_name"] != loading["lora_name"]
    assert rows == here(policy, prompts())


def test_sglang_has_calls_and_a_field_of_its_own(answer: Answer, vllm: Vllm) -> None:
    vllm.sglang = True
    policy = adapted()
    rows, facts = answer(policy, prompts())
    assert rows == here(policy, prompts())
    assert (facts["endpoint"]["server"], facts["endpoint"]["version"]) == ("sglang", "0.28.0")
    (name,) = {body["lora_name"] for body in vllm.bodies("/load_lora_adapter") if body}
    asked = vllm.bodies("/v1/completions")
    assert {body["model"] for body in asked} == {"base"}
    assert [body.get("lora_path") for body in asked] == [None] * 6 + [name] * 12
    assert vllm.loaded == {}


def test_answers_count_though_their_adapter_stays_loaded(
    answer: Answer, vllm: Vllm, caplog: pytest.LogCaptureFixture
) -> None:
    vllm.keeps = True
    policy = adapted()
    with caplog.at_level("WARNING", "bench"):
        rows, _ = answer(policy, prompts())
    assert rows == here(policy, prompts())
    assert f"the adapter {next(iter(vllm.loaded))} stays loaded at " in caplog.text


def test_sampling_is_ours_alone(answer: Answer, vllm: Vllm) -> None:
    """Each prompt has a seed of its own, and nothing is left for a server to fill in; equal settings give equal answers."""
    base = load()
    rows, facts = answer(base, prompts(), temperature=0.9, top_p=0.8, seed=3)
    sampled = [body for body in vllm.bodies("/v1/completions") if body["temperature"] > 0]
    assert len({body["seed"] for body in sampled}) == 6
    for body in sampled:
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.9, 0.8, 8)
        assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (-1, 0.0, 1.0)
        assert body["stop_token_ids"] == base.end_of_turn_ids()
    assert facts["random_numbers"] == "of each prompt"
    assert answer(base, prompts(), temperature=0.9, top_p=0.8, seed=3)[0] == rows
    assert answer(base, prompts(), temperature=0.9, top_p=0.8, seed=4)[0] != rows


def test_an_answer_ends_at_a_stop_string(answer: Answer) -> None:
    base = load()
    whole = here(base, prompts(3))[0]["answer"]
    stop = (whole[len(whole) // 2],)
    rows, _ = answer(base, prompts(3), stop)
    assert [(row["answer"], row["ended"]) for row in rows] == [
        (row["answer"], row["ended"]) for row in here(base, prompts(3), stop)
    ]
    assert rows[0]["ended"]


def test_a_server_that_ignores_the_adapter_is_told(answer: Answer, vllm: Vllm) -> None:
    vllm.ignores = True
    with pytest.raises(
        JobError,
        match=r"answers as the base, without an error: on \d prompts where greedy decoding of the policy .*adapters to merged",
    ):
        answer(adapted(), prompts())
    assert vllm.loaded == {}


def test_an_adapter_that_changes_nothing_cannot_be_told(answer: Answer, vllm: Vllm) -> None:
    """Its greedy answers are the base's whether it is used or not; the record says so."""
    vllm.ignores = True
    policy = adapted(scale=0.0)
    rows, facts = answer(policy, prompts())
    assert rows == here(policy, prompts())
    assert facts["checked"]["telling_prompts"] == 0
    assert "could not be told" in facts["checked"]["reason"]


def test_another_model_is_told(answer: Answer, vllm: Vllm) -> None:
    assert vllm.policy is not None
    torch.manual_seed(9)
    with torch.no_grad():
        for value in vllm.policy.model.parameters():
            if value.dim() > 1:
                value.normal_(0, 0.3)
    with pytest.raises(JobError, match=r"not those of the suite's model: .* by \d+\.\d\d nats on the mean"):
        answer(load(), prompts())


def test_a_refused_adapter_is_told_with_the_servers_words(answer: Answer, vllm: Vllm) -> None:
    with pytest.raises(JobError, match=r"LoRA rank 32 is greater than max_lora_rank 16\.; .* bench serve-plan SUITE"):
        answer(adapted(rank=32), prompts())
    vllm.runtime_updating = False
    with pytest.raises(
        JobError, match="no interface to load adapters: start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING"
    ):
        answer(adapted(), prompts())


def test_answers_that_came_before_a_server_died_are_kept(answer: Answer, vllm: Vllm, tmp_path: Path) -> None:
    """Six prompts are tried by base and policy, and two of six answered; the adapter cannot be unloaded any more."""
    policy = adapted()
    vllm.dies_after = 14
    with pytest.raises(JobError, match=r"did not answer, tried 6 times .* the answers that came are kept"):
        answer(policy, prompts(), at_concurrency=1)
    kept = [json.loads(line)["place"] for line in (tmp_path / "answered.jsonl").read_text().splitlines()]
    assert kept == [0, 1]

    vllm.dies_after = None
    vllm.loaded.clear()
    before = len(vllm.bodies("/v1/completions"))
    rows, _ = answer(policy, prompts(), at_concurrency=1)
    assert len(vllm.bodies("/v1/completions")) - before == 12 + 4
    assert rows == here(policy, prompts())
    assert not (tmp_path / "answered.jsonl").exists()


def test_kept_answers_of_other_settings_are_not_taken(answer: Answer, vllm: Vllm, tmp_path: Path) -> None:
    base = load()
    vllm.dies_after = 8
    with pytest.raises(JobError):
        answer(base, prompts(), at_concurrency=1)
    vllm.dies_after = None
    before = len(vllm.bodies("/v1/completions"))
    rows, _ = answer(base, prompts(), max_new_tokens=7)
    assert len(vllm.bodies("/v1/completions")) - before == 12
    assert rows == here(base, prompts(), max_new_tokens=7)


def test_a_field_that_a_server_does_not_know_is_left_out(answer: Answer, vllm: Vllm) -> None:
    vllm.refuses = "min_p"
    base = load()
    rows, facts = answer(base, prompts())
    assert rows == here(base, prompts())
    assert facts["left_out"] == ["min_p"]


def test_too_little_room_is_told(answer: Answer, vllm: Vllm) -> None:
    vllm.max_model_len = 10
    with pytest.raises(JobError, match=r"has room for 10 tokens of prompt and answer, and \d+ are needed"):
        answer(load(), prompts())


def test_another_server_than_the_suite_says_is_refused(answer: Answer) -> None:
    with pytest.raises(JobError, match=r"says that its version is '0\.28\.0', and .*endpoint\.version is '0\.27\.0'"):
        answer(load(), prompts(), at_version="0.27.0")
    with pytest.raises(JobError, match=r"says that its server is 'vllm', and .*endpoint\.server is 'sglang'"):
        answer(load(), prompts(), at_server="sglang")


def test_dora_is_merged_and_what_must_be_served_is_told(answer: Answer, vllm: Vllm, tmp_path: Path) -> None:
    """Served under its folder's path it is used, and then deleted; the fake serves a merged model as it would its base."""
    policy = load()
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], use_dora=True)
    policy.model = peft.get_peft_model(policy.model, settings)
    torch.manual_seed(2)
    with torch.no_grad():
        for value in policy.trainable().values():
            value.add_(torch.randn_like(value) * 0.2)
    policy.model.eval()
    with pytest.raises(
        JobError, match=r"is DoRA, which servers do not load: the whole model is in .*/merged, .* vllm serve"
    ):
        answer(policy, prompts())
    assert vllm.bodies("/v1/load_lora_adapter") == []
    merged = tmp_path / "merged"

    whole = policies.load(Model(source="random"), torch.device("cpu"))
    from safetensors.torch import load_file

    weights = load_file(merged / "model.safetensors")
    missing, unexpected = whole.model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    assert [row["answer"] for row in here(whole, prompts())] == [row["answer"] for row in here(policy, prompts())]

    serve_whole(vllm, merged, whole)
    rows, facts = answer(policy, prompts())
    assert facts["adapter"] == "merged"
    assert rows == here(policy, prompts())
    assert not merged.exists()


def serve_whole(vllm: Vllm, folder: Path, whole: Policy) -> None:
    """Have the server serve one more whole model under its folder's path."""
    base = vllm.policy

    def served(name: str, prompt: list[int], body: dict[str, Any]) -> Any:
        vllm.policy = whole if name == str(folder) else base
        return Vllm._generate(vllm, name, prompt, body)

    vllm.loaded[str(folder)] = folder
    vllm.ignores = True  # it is no adapter
    vllm._generate = served  # type: ignore[method-assign]


def test_a_policy_whose_weights_were_all_trained_is_served_whole(answer: Answer, vllm: Vllm, tmp_path: Path) -> None:
    trained = load()
    torch.manual_seed(3)
    with torch.no_grad():
        for value in trained.model.parameters():
            value.add_(torch.randn_like(value) * 0.1)
    trained.save(tmp_path / "job")
    policy = load()
    policy.attach_saved(tmp_path / "job")
    wanted = here(policy, prompts())
    assert wanted == here(trained, prompts())
    assert wanted != here(load(), prompts())
    with pytest.raises(
        JobError, match=r"the policy has weights of its own: the whole model is in .*/merged, and .* vllm serve"
    ):
        answer(policy, prompts())
    merged = tmp_path / "merged"
    assert merged.is_dir()
    serve_whole(vllm, merged, trained)
    rows, facts = answer(policy, prompts())
    assert rows == wanted
    assert facts["checked"]["telling_prompts"] > 0
    assert facts["checked"]["base_gap_nats"] == pytest.approx(0, abs=1e-4)
    assert facts["checked"]["policy_gap_nats"] == pytest.approx(0, abs=1e-4)
    assert here(policy, prompts()) == wanted

    vllm.policy = load()
    serve_whole(vllm, merged, load())
    with pytest.raises(JobError, match=r"answers as the base, .* is it the merged model that is served"):
        answer(policy, prompts())
