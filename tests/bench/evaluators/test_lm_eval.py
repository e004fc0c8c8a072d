from __future__ import annotations

import hashlib
import importlib.metadata
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.data import world
from bench.data.tokens import Example
from bench.errors import DataError, ModelError
from bench.evaluators import lm_eval, lm_eval_scores
from bench.evaluators.options import LmEval
from bench.models import policy as policies
from bench.models.held_out import answer_logps
from bench.models.policy import Policy
from bench.quiet import quiet
from bench.settings import Lora, Model


@pytest.fixture(scope="module")
def policy() -> Policy:
    return policies.load(Model(source="random"), torch.device("cpu"))


def ask(policy: Policy, mirror: Path | None = None, **settings: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ask; return the scores and the rows."""
    return lm_eval.ask(policy, LmEval.model_validate(settings), mirror, lambda text: None)[:2]


def test_the_worlds_questions_are_scored_by_the_answers_text(policy: Policy) -> None:
    """Without shots the prompt is the world's own; each choice's log-probability is computed here by another path."""
    scores, rows = ask(policy, tasks=[lm_eval.WORLD], shots=0, batch_size=32)
    asked = {row["question"]: row for row in world.questions("test")}
    by_subject = [
        row for subject in dict.fromkeys(row["subject"] for row in rows) for row in rows if row["subject"] == subject
    ]
    assert rows == by_subject
    entry = scores["world_questions/acc"]
    right = [row["choice"] == row["answer"] for row in rows]
    assert entry["n"] == len(rows) == len(asked)
    assert entry["value"] == sum(right) / len(right)
    assert [row["outcomes"] for row in rows] == [{"acc": float(one)} for one in right]
    share = entry["value"]
    assert entry["standard_error"] == pytest.approx(math.sqrt(share * (1 - share) / (len(rows) - 1)))

    subject = rows[0]["subject"]
    first = next(row for row in asked.values() if row["subject"] == subject)

    def ids(text: str) -> tuple[int, ...]:
        return tuple(policy.tokenizer(text, add_special_tokens=False)["input_ids"])

    prompt = ids(world.PROMPT.format(question=first["question"]))
    example = Example(prompt, tuple(ids(" " + choice) for choice in first["choices"]))
    assert rows[0]["logps"] == pytest.approx(answer_logps(policy, [example], 1)[0].tolist(), abs=1e-4)
    assert rows[0]["answer"] == first["answer"]
    named = {"task", "subject", "id", "question_hash", "prompt_hash", "outcomes", "answer", "choice", "logps"}
    assert set(rows[0]) == named


def test_equal_best_choices_are_on_record(policy: Policy) -> None:
    """All tokens equally likely: a choice of k tokens has −k log V, so that two choices of the fewest tokens tie."""
    even = policies.load(Model(source="random"), torch.device("cpu"))
    torch.nn.init.zeros_(even.model.get_output_embeddings().weight)
    scores, rows = ask(even, tasks=[lm_eval.WORLD], shots=0)
    lengths = {
        row["question"]: [
            len(even.tokenizer(" " + one, add_special_tokens=False)["input_ids"]) for one in row["choices"]
        ]
        for row in world.questions("test")
    }
    ties = sum(counts.count(min(counts)) > 1 for counts in lengths.values())
    assert ties > 0
    assert scores["world_questions/acc"]["ties"] == ties
    assert sum(row.get("tied", False) for row in rows) == ties
    for row in rows:
        best = max(row["logps"])
        assert row.get("tied", False) == (row["logps"].count(best) > 1)
        assert row["choice"] == row["logps"].index(best)
    scores, rows = ask(policy, tasks=[lm_eval.WORLD], shots=0)
    unlike = [row for row in rows if row["logps"].count(max(row["logps"])) == 1]
    assert len(unlike) > len(rows) / 2
    assert not any("tied" in row for row in unlike)
    assert scores["world_questions/acc"]["ties"] <= len(rows) - len(unlike)


def test_the_limit_is_per_subject_and_asking_again_gives_the_same(policy: Policy) -> None:
    scores, rows = ask(policy, tasks=[lm_eval.WORLD], shots=2, limit=3)
    counts = [sum(row["subject"] == subject for row in rows) for subject in {row["subject"] for row in rows}]
    assert counts == [3, 3, 3]
    assert ask(policy, tasks=[lm_eval.WORLD], shots=2, limit=3) == (scores, rows)


def test_a_question_keeps_its_id_and_hash_whatever_the_limit_and_the_shots(policy: Policy) -> None:
    _, few = ask(policy, tasks=[lm_eval.WORLD], shots=0, limit=2)
    _, many = ask(policy, tasks=[lm_eval.WORLD], shots=1, limit=4)
    by_id = {row["id"]: row for row in many}
    assert len(by_id) == 12
    for row in few:
        other = by_id[row["id"]]
        assert (other["subject"], other["answer"]) == (row["subject"], row["answer"])
        assert other["question_hash"] == row["question_hash"]
        assert other["prompt_hash"] != row["prompt_hash"]


def test_what_was_asked_is_on_record(policy: Policy) -> None:
    """The hashes over all questions and prompts are those of the rows' hashes, joined in their order."""

    def facts(**settings: Any) -> dict[str, Any]:
        asked = LmEval.model_validate({"tasks": [lm_eval.WORLD], "limit": 2, **settings})
        rows = lm_eval.ask(policy, asked, None, lambda text: None)[1]
        made = lm_eval.facts(policy, asked, None, rows)
        joined = "".join(row["question_hash"] for row in rows)
        assert made["tasks"][lm_eval.WORLD]["question_hash"] == hashlib.sha256(joined.encode()).hexdigest()[:16]
        return made

    plain, shots = facts(shots=0), facts(shots=1)
    assert plain["lm_eval"] == importlib.metadata.version("lm_eval")
    assert plain["chat_template_hash"] is None
    of_world = plain["tasks"][lm_eval.WORLD]
    assert (of_world["version"], of_world["data"]) == (str(world.VERSION), f"world:{world.VERSION}")
    assert (of_world["shots"], of_world["questions"]) == (0, 6)
    assert shots["tasks"][lm_eval.WORLD]["question_hash"] == of_world["question_hash"]
    assert shots["tasks"][lm_eval.WORLD]["prompt_hash"] != of_world["prompt_hash"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_gets_its_own_answers(policy: Policy) -> None:
    """No answer of the base is served to the adapter, nor the other way round."""
    _, base = ask(policy, tasks=[lm_eval.WORLD], limit=1)
    policy.attach(Lora(rank=2, alpha=64), seed=0)
    with torch.no_grad():
        for value in policy.trainable().values():
            value.add_(0.5)
    _, adapted = ask(policy, tasks=[lm_eval.WORLD], limit=1)
    policy.detach()
    assert [row["logps"] for row in adapted] != [row["logps"] for row in base]
    assert ask(policy, tasks=[lm_eval.WORLD], limit=1)[1] == base


def test_one_subject_from_the_mirror(policy: Policy, mirror: Path) -> None:
    scores, rows = ask(policy, mirror, tasks=["mmlu_anatomy"], limit=4)
    assert scores["mmlu_anatomy/acc"]["n"] == 4
    assert [(row["subject"], row["id"]) for row in rows] == [("anatomy", number) for number in range(4)]
    assert all(len(row["logps"]) == 4 for row in rows)


@pytest.mark.slow
def test_mmlu_equals_stock_lm_eval_to_the_last_digit(
    policy: Policy, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stock task files, stock simple_evaluate; only `datasets.load_dataset` is pointed at the mirror."""
    import datasets
    from lm_eval import tasks
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    scores, rows = ask(policy, mirror, tasks=["mmlu"], shots=1, limit=3)

    real = datasets.load_dataset
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda path, name=None, **rest: real(str(mirror / "datasets" / path), name, **rest),
    )
    stock_files = Path(tasks.__file__).parent / "mmlu" / "default"
    with quiet("lm_eval", "datasets"):
        stock = simple_evaluate(
            model=HFLM(pretrained=policy.model, tokenizer=policy.tokenizer, batch_size=8),
            tasks=["mmlu"],
            num_fewshot=1,
            limit=3,
            bootstrap_iters=1000,
            task_manager=tasks.TaskManager(include_defaults=False, include_path=str(stock_files)),
        )
    assert stock is not None
    assert scores["mmlu/acc"]["value"] == stock["results"]["mmlu"]["acc,none"]
    assert scores["mmlu/acc"]["n"] == 3 * 57 == len(rows)
    for task, figures in stock["results"].items():
        subject = figures["alias"].strip(" -")
        if f"mmlu/acc/{subject}" in scores:
            assert scores[f"mmlu/acc/{subject}"]["value"] == figures["acc,none"], task
            assert scores[f"mmlu/acc/{subject}"]["standard_error"] == figures["acc_stderr,none"], task
    assert len(scores) == 58
    assert scores["mmlu/acc"]["ties"] == sum(row.get("tied", False) for row in rows)
    assert scores["mmlu/acc"]["ties"] == sum(scores[name]["ties"] for name in scores if name.startswith("mmlu/acc/"))
    by_subject: dict[str, list[float]] = {}
    for row in rows:
        by_subject.setdefault(row["subject"], []).append(row["outcomes"]["acc"])
    error = lm_eval_scores.clustered_standard_error(by_subject)
    assert scores["mmlu/acc"]["standard_error"] == error
    # t(0.975, 56) = 2.00324: 57 subjects are what is independent
    share = scores["mmlu/acc"]["value"]
    ends = lm_eval_scores.wilson(share, share * (1 - share) / error**2, 2.00324)
    assert (scores["mmlu/acc"]["low"], scores["mmlu/acc"]["high"]) == pytest.approx(ends, abs=1e-5)


def test_offline_without_a_mirror_names_both_ways_out(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(DataError, match=r"go online, or pass --mirror DIR .* DIR/datasets/cais/mmlu"):
        ask(policy, tasks=["mmlu_virology"])


def test_a_mirror_without_the_questions_is_an_error(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cais/mmlu: not in the mirror"):
        ask(policy, tmp_path, tasks=["mmlu_virology"])


def test_a_chat_template_that_is_not_there_is_refused(policy: Policy) -> None:
    with pytest.raises(ModelError, match="has no chat template; set it to false"):
        ask(policy, tasks=[lm_eval.WORLD], chat_template=True)


def test_a_chat_template_changes_the_prompt(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plain = ask(policy, tasks=[lm_eval.WORLD], limit=1)
    template = "{% for m in messages %}{{ m.role }} : {{ m.content }}\n{% endfor %}"
    monkeypatch.setattr(policy.tokenizer, "chat_template", template)
    _, chatted = ask(policy, tasks=[lm_eval.WORLD], limit=1, chat_template=True)
    assert [row["id"] for row in chatted] == [row["id"] for row in plain]
    assert [row["logps"] for row in chatted] != [row["logps"] for row in plain]
