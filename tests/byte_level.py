"""A tokenizer whose ids can be read off by hand, and small data files, for the tests of sources and of tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from bench.settings import InstructionData, PreferenceData

# One token per UTF-8 byte, so that every expected id can be read off: id = FIRST + position in `letters`.
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIAL = ["<pad>", "<s>", "</s>"]
BOS, EOS = 1, 2
CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def byte_tokenizer(*, bos: bool = False, eos: bool = True, merges: Sequence[tuple[str, str]] = ()) -> Any:
    """Make a byte tokenizer; `merges` adds tokens of two bytes, `bos` puts <s> before every text, as Llama's does."""
    tokens = [*SPECIAL, *LETTERS, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    names = {"pad_token": "<pad>", **({"bos_token": "<s>"} if bos else {}), **({"eos_token": "</s>"} if eos else {})}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=CHAT, **names)


TOKENIZER = byte_tokenizer()


def ids(text: str) -> tuple[int, ...]:
    """Return a text's ids by hand: printable ASCII is its own byte-level letter, a space is Ġ and a line end Ċ."""
    return tuple(len(SPECIAL) + LETTERS.index({" ": "Ġ", "\n": "Ċ"}.get(letter, letter)) for letter in text)


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pairs(path: Path, **settings: Any) -> PreferenceData:
    return PreferenceData.model_validate(
        {"source": "local", "path": str(path), "rows": 1, "test_split": None, **settings}
    )


def rows(path: Path, **settings: Any) -> InstructionData:
    return InstructionData.model_validate(
        {"source": "local", "path": str(path), "rows": 1, "test_split": None, **settings}
    )
