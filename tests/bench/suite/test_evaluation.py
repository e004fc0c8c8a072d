"""What a suite says under `evaluation`: every evaluator and every judge of the tables, ours and another package's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from other_evaluators import LengthJudge, Words

from bench.errors import SuiteError
from bench.evaluators import EVALUATORS
from bench.judges import JUDGES, JudgeSettings
from bench.suite import smoke, yaml_file

HEAD = """\
name: example
model: {source: random}
lora: {rank: 2, alpha: 4}
data:
  preference: {source: world, rows: 4}
  instruction: {source: world, rows: 4}
training: {epochs: 1, batch_size: {dpo: 2, sft: 2}, learning_rate: 0.001}
methods: [mix]
lambdas: [0.5]
evaluation:
"""
JUDGE_KEYS = (
    "base_url, batch, concurrency, configuration, first_pause_seconds, key_variable, kind, max_cost_usd, "
    "max_unjudged_share, model, orders, parameters, price, timeout_seconds"
)
Offer = Callable[..., None]


@pytest.fixture(autouse=True)
def offered(offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offer one evaluator and one judge more, and work in a folder of its own."""
    offer(EVALUATORS, "words", Words)
    offer(JUDGES, "length", LengthJudge)
    monkeypatch.chdir(tmp_path)


def load(evaluation: str) -> yaml_file.Suite:
    Path("x.yaml").write_text(HEAD + evaluation, encoding="utf-8")
    made = yaml_file.load("x.yaml")
    assert isinstance(made, yaml_file.Suite)
    return made


def known(table: object) -> str:
    return ", ".join(sorted(table))  # type: ignore[call-overload]


MISTAKES = {
    "an unknown evaluator": (
        "  lm_evl: {tasks: [mmlu]}\n",
        "x.yaml:11: unknown evaluator or key 'lm_evl'; did you mean 'lm_eval'? known: {evaluators}",
    ),
    "an unknown option": (
        "  lm_eval:\n    taks: [mmlu]\n",
        "x.yaml:12: unknown key 'taks'; did you mean 'tasks'? known: batch_size, chat_template, limit, shots, tasks",
    ),
    "a wrong value": (
        "  lm_eval:\n    shots: -1\n",
        "x.yaml:12: evaluation.lm_eval.shots = -1: must be greater than or equal to 0",
    ),
    "an unknown option of another package's evaluator": (
        "  words: {prompts: 2, wrod: no}\n",
        "x.yaml:11: unknown key 'wrod'; did you mean 'word'? known: batch_size, prompts, word",
    ),
    "a missing option of another package's evaluator": (
        "  words: {word: no}\n",
        "x.yaml:11: evaluation.words.prompts: this key is missing",
    ),
    "an unknown option further in": (
        "  win_rate:\n    prompts: 2\n    generation: {temprature: 1}\n    judge: {kind: rule}\n",
        "x.yaml:13: unknown key 'temprature'; did you mean 'temperature'? "
        "known: batch_size, endpoint, engine, max_new_tokens, seed, temperature, top_p",
    ),
    "an unknown judge": (
        "  win_rate: {prompts: 2, judge: {kind: rul}}\n",
        "x.yaml:11: evaluation.win_rate.judge.kind = 'rul': unknown judge 'rul'; did you mean 'rule'? known: {judges}",
    ),
    "a judge without a kind": (
        "  win_rate: {prompts: 2, judge: {orders: both}}\n",
        "x.yaml:11: evaluation.win_rate.judge.kind: this key is missing",
    ),
    "a key of no judge": (
        "  win_rate: {prompts: 2, judge: {kind: rule, modle: x}}\n",
        f"x.yaml:11: unknown key 'modle'; did you mean 'model'? known: {JUDGE_KEYS}",
    ),
    "a key of another judge": (
        "  win_rate: {prompts: 2, judge: {kind: rule, journal: x}}\n",
        f"x.yaml:11: unknown key 'journal'; known: {JUDGE_KEYS}",
    ),
    "a typo in a judge's own key": (
        "  win_rate: {prompts: 2, judge: {kind: length, lieks: long}}\n",
        "x.yaml:11: unknown key 'lieks'; did you mean 'likes'? known: base_url, batch, concurrency, configuration, "
        "first_pause_seconds, key_variable, kind, likes, max_cost_usd, max_unjudged_share, model, orders, parameters, price, "
        "timeout_seconds",
    ),
    "a typo in the model of a local judge": (
        "  win_rate: {prompts: 2, judge: {kind: local, local_model: {source: hub, paht: x}}}\n",
        "x.yaml:11: unknown key 'paht'; did you mean 'path'? known: architecture, compile, dtype, gradient_checkpointing, path, "
        "pretraining_steps, revision, source",
    ),
    "a local judge without its model": (
        "  win_rate: {prompts: 2, judge: {kind: local}}\n",
        "x.yaml:11: evaluation.win_rate.judge.local_model: this key is missing",
    ),
    "no options": (
        "  lm_eval:\n  win_rate:\n",
        "x.yaml:11: evaluation.lm_eval = None: write {} for its defaults, or delete the key to leave it out",
    ),
    "no mapping": ("  lm_eval: mmlu\n", "x.yaml:11: evaluation.lm_eval = 'mmlu': must be a valid dictionary"),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(text: str, message: str) -> None:
    with pytest.raises(SuiteError) as caught:
        load(text)
    expected = message.replace("{evaluators}", known([*EVALUATORS, "devices"])).replace("{judges}", known(JUDGES))
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_evaluators_stand_in_the_tables_order_and_survive_the_record() -> None:
    """One that is not named is left out; options left out are filled in."""
    made = load("  words: {prompts: 3}\n  lm_eval: {tasks: [mmlu]}\n")
    assert list(made.evaluation.chosen) == ["lm_eval", "words"]
    dumped = made.model_dump(mode="json")
    assert dumped["evaluation"]["words"] == {"prompts": 3, "word": "yes", "batch_size": 8}
    assert yaml_file.Suite.model_validate(dumped) == made
    assert smoke.shrink(made).evaluation.chosen["words"].options.prompts == 2


def test_a_judges_own_options_are_part_of_who_it_is() -> None:
    """Patience and money are not: they decide no reply."""
    short = JudgeSettings(kind="length")
    assert short.identity() == {
        "kind": "length",
        "configuration": "weighted_alpaca_eval_gpt4_turbo",
        "model": None,
        "base_url": None,
        "orders": "both",
        "likes": "short",
    }
    assert JudgeSettings(kind="length", likes="long").identity() != short.identity()
    assert JudgeSettings(kind="length", timeout_seconds=5, max_cost_usd=1).identity() == short.identity()
