"""What sides on a GPU import, once for all of them: on a fresh machine it takes ten seconds and more, and there are twenty sides.

Nothing here may touch the card: a process that has done so cannot hand it on to the ones it starts.
"""

from __future__ import annotations

import datasets  # noqa: F401
import lm_eval.evaluator
import lm_eval.models.huggingface  # noqa: F401
import peft  # noqa: F401
import torch  # noqa: F401
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback  # noqa: F401
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer  # noqa: F401

import benchmarks.on_card
import benchmarks.ours  # noqa: F401
