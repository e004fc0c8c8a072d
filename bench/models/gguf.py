"""A model that comes as a GGUF file in an installed package, as a plain one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from bench.models.files import gguf_file
from bench.records.cache import cache_folder


def plain_copy(package: str) -> Path:
    """Rebuild a GGUF as a plain float32 model once and keep it: a GGUF-loaded model cannot be saved and loads slowly."""
    import torch
    from filelock import FileLock
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = gguf_file(package)
    key = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    folder = cache_folder() / "models" / f"{file.stem}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / "complete").exists():
            loaded = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32)
            plain = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
            plain.load_state_dict(loaded.state_dict())
            plain.config.quantization_config = None
            del plain.config.quantization_config
            plain.generation_config = loaded.generation_config
            plain.save_pretrained(folder)
            AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(folder)
            (folder / "complete").write_text(json.dumps({"made_from": file.name, "sha256": key}))
    return folder
