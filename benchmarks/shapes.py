"""Models of given shapes with random weights, made on the device itself, and rows of text for them: no network, no file."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

LLAMA, NEOX = "llama", "gpt_neox"
SHAPES: dict[str, dict[str, Any]] = {
    "Llama-3-8B": {
        "architecture": LLAMA,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "tie_word_embeddings": False,
    },
    "SmolLM2-135M": {
        "architecture": LLAMA,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
        "tie_word_embeddings": True,
    },
    "Pythia-1B": {
        "architecture": NEOX,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 8,
        "vocab_size": 50304,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "architecture": LLAMA,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 256,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    },
    "tiny-neox": {
        "architecture": NEOX,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 256,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    },
}


def targets(shape: str) -> list[str]:
    """Name the modules that get an adapter: q and v, which GPT-NeoX has in one matrix."""
    return ["q_proj", "v_proj"] if SHAPES[shape]["architecture"] == LLAMA else ["query_key_value"]


def config(shape: str) -> Any:
    """Describe a model, its special tokens those of the built-in world's tokenizer."""
    from transformers import AutoConfig

    from bench.models import world_model

    tokenizer, sizes = world_model.tokenizer(), dict(SHAPES[shape])
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return AutoConfig.for_model(sizes.pop("architecture"), **sizes, **special)


def build(shape: str, dtype: Any, device: str, attention: str | None = None) -> tuple[Any, Any]:
    """Make a model on a device, frozen, its weights the same wherever it is made with the same versions; and a tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    from bench.models import world_model

    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config(shape), dtype=dtype, attn_implementation=attention)
    return model.eval().requires_grad_(False), world_model.tokenizer()


@contextmanager
def in_place_of_random(shape: str, device: str) -> Iterator[None]:
    """Have a suite's model of source `random` be one of these for a while."""
    from bench.models import policy

    real: Any = policy._load
    policy._load = lambda settings, dtype, pretrained: (
        build(shape, dtype, device) if settings.source == "random" else real(settings, dtype, pretrained)
    )
    try:
        yield
    finally:
        policy._load = real


# ---- rows ------------------------------------------------------------------------------------------------------------

# Tokens, least and most, as of the real sets: 205 of a pair, its prompt once; 177 of an instruction row.
PAIR, ROW = {"prompt": (60, 180), "answer": (25, 60)}, {"prompt": (15, 60), "answer": (80, 150)}


def write_rows(folder: Path, pairs: int, rows: int, shortest: bool = False) -> None:
    """Write pairs.jsonl and rows.jsonl of the built-in world's sentences; `shortest`: as short as they may be."""
    chance = random.Random(0)

    def text(limits: tuple[int, int]) -> str:
        return _words(chance, limits[0] // 4 if shortest else chance.randint(*limits))

    made = [
        {
            "prompt": f"{text(PAIR['prompt'])}\nAnswer:",
            "chosen": f" {text(PAIR['answer'])}",
            "rejected": f" {text(PAIR['answer'])}",
        }
        for _ in range(pairs)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "pairs.jsonl", made)
    instructions = [
        {"instruction": f"{text(ROW['prompt'])}\nAnswer:", "output": f" {text(ROW['answer'])}"} for _ in range(rows)
    ]
    _write(folder / "rows.jsonl", instructions)


def _words(chance: random.Random, count: int) -> str:
    """Return so many words and marks, each a token, from sentences in random order."""
    from bench.data import world

    sentences = world.corpus()
    words = (
        word
        for sentence in cycle(chance.sample(sentences, min(len(sentences), count)))
        for word in world.words(sentence)
    )
    return " ".join(islice(words, count))


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prompts(count: int, tokens: tuple[int, int]) -> list[str]:
    """Return prompts of so many tokens, least and most."""
    chance = random.Random(1)
    return [_words(chance, chance.randint(*tokens)) for _ in range(count)]
