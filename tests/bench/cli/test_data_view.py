"""`bench data`: rows as the model will see them, for people and for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from byte_level import write_jsonl
from typer.testing import CliRunner

from bench.cli.main import app
from bench.models import tokenizers

CHAT = [{"role": "user", "content": "q\x1b[31m"}, {"role": "assistant", "content": "a"}]


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pairs as text, instructions as conversations, on a tokenizer of bytes in place of the random model's words."""
    from byte_level import byte_tokenizer

    monkeypatch.setattr(tokenizers, "load", lambda settings: byte_tokenizer())
    made = [{"prompt": f"p{n}", "chosen": "good", "rejected": "bad", "id": n} for n in range(4)]
    turns = [[*CHAT, *CHAT] for _ in range(4)]
    data: dict[str, Any] = {
        "preference": {"source": "local", "path": str(write_jsonl(tmp_path / "p.jsonl", made)), "format": "plain"},
        "instruction": {
            "source": "local",
            "path": str(write_jsonl(tmp_path / "i.jsonl", [{"messages": one} for one in turns])),
            "format": "messages",
            "train_on": "all",
        },
    }
    for one in data.values():
        one |= {"test_split": None, "rows": 3, "evaluation_rows": 1}
    training = {"steps": 1, "batch_size": {"dpo": 1, "sft": 1}, "learning_rate": 0.1}
    parts = {"name": "t", "model": {"source": "random"}, "lora": {"rank": 1, "alpha": 1}, "data": data}
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(parts | {"training": training, "methods": ["mix"], "lambdas": [0.5]}))
    return path


def test_json_holds_both_sets(suite: Path) -> None:
    made = CliRunner().invoke(app, ["data", str(suite), "--json", "--rows", "2"])
    assert made.exit_code == 0, made.output
    seen = json.loads(made.output)
    assert seen["preference"]["rows"] == [
        {"row": n, "prompt": f"p{n}", "chosen": "good</s>", "rejected": "bad</s>"} for n in range(2)
    ]
    assert seen["preference"]["shape"] == "prompt, chosen, rejected as text"
    assert seen["preference"]["columns_not_read"] == ["id"]
    assert seen["preference"]["counts"]["rows"] == 4
    first = seen["instruction"]["rows"][0]
    assert first["prompt"] == "[user]q\x1b[31m</s>[assistant]"
    assert first["answer"] == "a</s>[user]q\x1b[31m</s>[assistant]a</s>"
    assert seen["instruction"]["tokens"]["answer"]["max"] == len("a[user]q\x1b[31m[assistant]a") + 3  # and three ends


def test_people_see_what_is_learned_and_no_escapes(suite: Path) -> None:
    made = CliRunner().invoke(app, ["data", str(suite), "--rows", "1"])
    assert made.exit_code == 0, made.output
    assert "    chosen: ⟦good</s>⟧" in made.output
    assert "    answer: ⟦a</s>⟧[user]q\\x1b[31m</s>[assistant]⟦a</s>⟧" in made.output
    assert "\x1b[31m" not in made.output
    assert "bench: warning: data.instruction: 1 of 1 held-out row trained on, too" in made.output


def test_a_toy_has_no_rows() -> None:
    made = CliRunner().invoke(app, ["data", "toy"])
    assert made.exit_code != 0
    assert "toy: a toy has no rows of data" in str(made.exception)
