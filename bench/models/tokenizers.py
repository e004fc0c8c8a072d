"""A model's tokenizer, without its weights: what rows are read with before a model loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.errors import ModelError
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
        return load_from(str(Path(path).expanduser()) if settings.source == "local" else path, settings.revision)
    except (OSError, ValueError, ImportError) as error:
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ModelError(f"model {settings.source}:{path}: its tokenizer cannot be loaded: {detail}") from error
