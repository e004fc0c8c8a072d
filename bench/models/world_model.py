"""The built-in model: a word-level tokenizer, small random models, and the pre-training of the `world` base model."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from bench.data import world

PAD, UNKNOWN, END = "<pad>", "<unk>", "<eos>"
_ROWS = 24
_LEARNING_RATE = 1.5e-3
# Wider than the usual 0.02: at this size the facts are then learned in half the steps.
_INITIALIZER_RANGE = 0.06
_MAX_POSITIONS = 512


def tokenizer() -> Any:
    """Make the word-level tokenizer of the world: words, punctuation marks and line breaks; no beginning token.

    Spaces are not tokens; decoding puts them back as English does, so that text written so comes back as it was.
    """
    import tokenizers
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    entries = [PAD, UNKNOWN, END, *world.vocabulary()]
    made = tokenizers.Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(entries)}, unk_token=UNKNOWN)
    )
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|\w+|[^\w\s]"), behavior="removed", invert=True)
    made.decoder = decoders.Sequence(
        [
            decoders.WordPiece(cleanup=True),  # a space before every word, none before . , ? !
            decoders.Fuse(),
            decoders.Replace(" :", ":"),
            decoders.Replace(Regex(r" ?\n ?"), "\n"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, model_max_length=_MAX_POSITIONS
    )


def config(architecture: Literal["llama", "gpt_neox"], size: Literal["small", "tiny"]) -> Any:
    """Describe a model for the world's vocabulary: `small` has about 1M parameters, `tiny` about 30k."""
    from transformers import GPTNeoXConfig, LlamaConfig

    made = _vocabulary_ids()
    width, layers, heads = (128, 4, 4) if size == "small" else (32, 2, 2)
    shared = {
        "vocab_size": made["size"],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": _MAX_POSITIONS,
        "tie_word_embeddings": True,
        "initializer_range": _INITIALIZER_RANGE,
        "bos_token_id": None,
        "eos_token_id": made["end"],
        "pad_token_id": made["pad"],
    }
    if architecture == "llama":
        return LlamaConfig(intermediate_size=3 * width, num_key_value_heads=heads, **shared)
    return GPTNeoXConfig(intermediate_size=4 * width, **shared)


@lru_cache(maxsize=1)
def _vocabulary_ids() -> dict[str, int]:
    made = tokenizer()
    return {"size": len(made), "end": made.eos_token_id, "pad": made.pad_token_id}


def batches(texts: Sequence[Sequence[int]], size: int, chance: random.Random) -> Iterator[list[Sequence[int]]]:
    """Deal out batches of texts of about equal length, epoch by epoch, without end.

    A text has a row to itself: with a neighbour to look at, facts are learned later.
    """
    while True:
        by_length = sorted(chance.sample(texts, len(texts)), key=len)
        epoch = [by_length[start : start + size] for start in range(0, len(by_length), size)]
        yield from chance.sample(epoch, len(epoch))


def pretrain(steps: int, folder: Path, tell: Callable[[str], None], seed: int = 0) -> dict[str, Any]:
    """Train the small Llama-architecture model on the world's corpus and save it with its tokenizer in `folder`/model.

    Returns:
        loss (mean over the last tenth of the steps, nats a token), tokens, steps.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    words = tokenizer()
    texts = [[*words(text)["input_ids"], words.eos_token_id] for text in world.corpus()]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config("llama", "small"))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    # Warm-up, plateau, then down to 0 over the last third: a cosine falls before the facts have been learned.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (steps / 20), (steps - step) / (steps / 3))
    )
    dealt = batches(texts, _ROWS, random.Random(seed))
    losses: list[float] = []
    tokens = 0
    told = time.monotonic()
    for step in range(1, steps + 1):
        rows = next(dealt)
        loss = _loss(model, rows)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        tokens += sum(map(len, rows))
        if time.monotonic() - told > 2 or step == steps:
            told = time.monotonic()
            tell(f"step {step}/{steps}  loss {losses[-1]:.3f}")
    model.save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")
    last = losses[-max(1, steps // 10) :]
    return {"loss": math.fsum(last) / len(last), "tokens": tokens, "steps": steps}


def _loss(model: Any, rows: Sequence[Sequence[int]]) -> Any:
    """Return the mean next-token loss in nats; rows are padded on the right, where a causal model cannot look."""
    import torch

    length = max(map(len, rows))
    ids = torch.tensor([[*row] + [0] * (length - len(row)) for row in rows])
    targets = torch.tensor([[*row[1:]] + [-100] * (length - len(row) + 1) for row in rows])
    logits = model(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
