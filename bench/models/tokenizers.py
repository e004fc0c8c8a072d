"""A model's tokenizer, without its weights: what rows are read with before a model loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.errors import ModelError
from bench.models.files import revision_of
from bench.settings import Model


def load_from(place: str, revision: str | None) -> Any:
    """Load the tokenizer of a folder or a hub id."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(place, revision=revision)


def load(settings: Model) -> Any:
    """Load the tokenizer of a suite's model.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    import transformers

    from bench.models import gguf, world_model

    if settings.source in ("random", "world"):
        return world_model.tokenizer()
    transformers.utils.logging.set_verbosity_error()
    path = str(settings.path)
    try:
        if settings.source == "gguf_package":
            return load_from(str(gguf.plain_copy(path)), None)
        return load_from(str(Path(path).expanduser()) if settings.source == "local" else path, revision_of(settings))
    except (OSError, ValueError, ImportError) as error:
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ModelError(f"model {settings.source}:{path}: its tokenizer cannot be loaded: {detail}") from error


def check(settings: Model, tokenizer: Any, limit: int, longest_row: Callable[[], int]) -> list[str]:
    """Hold a model's settings, read without its weights, against its tokenizer and the longest row.

    Args:
        settings: the suite's model.
        tokenizer: the model's.
        limit: tokens that a row may have.
        longest_row: counts those of the longest row there is; asked only where `limit` is more than the model has positions.

    Returns:
        What is doubtful.

    Raises:
        ModelError: a token without an embedding, or a row longer than the positions that were learned.
    """
    from transformers import AutoConfig

    from bench.models import gguf

    if settings.source in ("random", "world"):
        return []
    places = {
        "local": lambda path: str(Path(path).expanduser()),
        "gguf_package": lambda path: str(gguf.plain_copy(path)),
    }
    path = str(settings.path)
    where = f"model {settings.source}:{path}"
    config = AutoConfig.from_pretrained(
        places.get(settings.source, str)(path), revision=revision_of(settings)
    ).get_text_config()
    token, largest = max(tokenizer.get_vocab().items(), key=lambda one: one[1])
    if largest >= config.vocab_size:
        raise ModelError(
            f"{where}: its tokenizer makes {largest + 1} tokens, and its vocabulary has {config.vocab_size} embeddings: "
            f"{token!r} (id {largest}) has none; resize the embeddings, or take the tokenizer that belongs to it"
        )
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or limit <= positions:
        return []
    longest = longest_row()
    if longest <= positions:
        return []
    if _learns_positions(config):
        raise ModelError(
            f"{where}: it has {positions} positions, and a row has {longest} tokens; lower data.max_prompt_tokens, "
            "data.max_answer_tokens, or what is generated"
        )
    return [f"{where}: a row has {longest} tokens, and it was made for {positions}"]


def _learns_positions(config: Any) -> bool:
    """Whether each position has an embedding of its own, beyond which there is nothing; rotary ones go on."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    tables = (module for module in model.modules() if isinstance(module, torch.nn.Embedding))
    tokens = model.get_input_embeddings()
    positions = config.max_position_embeddings
    return any(one is not tokens and 0 <= one.num_embeddings - positions <= 2 for one in tables)  # OPT keeps two more
