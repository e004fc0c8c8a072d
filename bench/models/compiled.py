"""Decoder layers compiled for packed rows: fewer kernels a step, and few passes over memory in each.

One compiled graph serves rows of any length. Only packed rows go through it; everything else, generation with it, computes
as before. What is compiled is tried first, forward and backward, on rows of a few tokens; that is also when it is compiled.
"""

from __future__ import annotations

import functools
import os
import time
import warnings
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError, one_line
from bench.models import full_weights, packed_attention, probe
from bench.models.objectives import Batch, collate, sequence_logps
from bench.records.cache import cache_folder

# Graphs of one function: with and without gradients, an input that needs one or not (the first layer's does not), training or
# not, keys gathered or not, and each kind of layer. Past the limit PyTorch says nothing and computes eagerly.
GRAPHS = 64
# Of the eager gradient, by its norm.
_SHARE = {torch.float32: 1e-3}
_SHARE_ELSEWHERE = 0.1
_FAILED = "layers are not compiled: "
_COMPARED = 1 << 24  # numbers of a whole model's gradient

# Log-probabilities, and the gradient of what is trained where there is a graph.
_Outcome = tuple[Tensor, Tensor | None]


class Compiled:
    """Hold what was compiled of one model, so that all of it can be left again."""

    def __init__(self, policy: Any, backend: str) -> None:
        self._policy = policy
        self._set_aside: list[tuple[Any, Any]] = []
        self.failure: str | None = None
        self.layers = list(_layers(policy))
        made = [_Layer(layer, self, backend) for layer in self.layers]  # may fail, and has then changed nothing
        for layer, forward in zip(self.layers, made, strict=True):
            # A compiler would take each for a function of its own.
            self._set_aside += full_weights.set_aside(layer.modules())
            layer.forward = forward

    def give_up(self, error: BaseException) -> None:
        """Go on eagerly, and say why."""
        self.failure = _in_words(error)
        self._policy.note(_FAILED + self.failure)

    def remove(self) -> None:
        """Leave the layers as they were."""
        for layer in self.layers:
            layer.__dict__.pop("forward", None)
        full_weights.put_back(self._set_aside)


class _Layer:
    """Be a layer's forward pass: compiled for packed rows, its own for all else and once anything has failed."""

    def __init__(self, layer: Any, whole: Compiled, backend: str) -> None:
        from transformers.modeling_layers import GradientCheckpointingLayer

        self._layer, self._whole, self._plain = layer, whole, layer.forward
        own = type(layer).forward
        # Newer versions of transformers forget activations inside `forward`, older ones around it; what is compiled lies within.
        self._forgets = "__init_subclass__" in vars(GradientCheckpointingLayer)
        if self._forgets:
            own = getattr(own, "__wrapped__", own)
        self._compiled = torch.compile(MethodType(own, layer), dynamic=True, backend=backend)

    def __call__(self, *values: Any, **named: Any) -> Any:
        if self._whole.failure is not None or named.get("stretches") is None:
            return self._plain(*values, **named)
        try:
            if self._forgets and self._layer.training and self._layer.gradient_checkpointing:
                again = functools.partial(self._compiled, **named)
                return self._layer._gradient_checkpointing_func(again, *values)
            return self._compiled(*values, **named)
        except (torch.OutOfMemoryError, BenchError):
            raise
        except Exception as error:  # whatever a compiler fails with, the layer itself goes on from the same input
            self._whole.give_up(error)
            return self._plain(*values, **named)


def _layers(policy: Any) -> Iterator[Any]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    for module in policy.model_alone().get_decoder().modules():
        if isinstance(module, GradientCheckpointingLayer):
            yield module


def install(policy: Any, backend: str = "inductor") -> None:
    """Compile the layers of a policy that is to be trained, if its settings ask for it and the outcome agrees.

    `policy.compile_seconds` then holds what compiling and trying took. A compiled layer is kept on disk, for other workers and
    later runs.
    """
    policy.compile_seconds = 0.0
    wanted = policy.settings.compile
    if wanted == "off" or (wanted == "auto" and policy.device.type != "cuda"):
        return
    reason = _reason_against(policy)
    if reason is not None:
        policy.note(_FAILED + reason)
        return
    started = time.perf_counter()
    with _stirred(policy), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own, on code that is not ours
        plain = _outcomes(policy)
        reason = _tried(policy, plain, backend)
    if reason is not None:
        remove(policy)
        policy.note(_FAILED + reason)
    policy.compile_seconds = time.perf_counter() - started


def _tried(policy: Any, plain: list[_Outcome], backend: str) -> str | None:
    """Compile and compare; return None where all agrees, else why not."""
    try:
        _prepare()
        policy.compiled = Compiled(policy, backend)
        ours = _outcomes(policy)
    except Exception as error:  # no compiler for this Python or on this machine, or one that fails backward
        return _in_words(error)
    if policy.compiled.failure is not None:
        return str(policy.compiled.failure)
    return None if _agree(ours, plain, policy.model.dtype) else "they do not agree with the layers themselves"


def remove(policy: Any) -> None:
    """Leave a policy's layers as they were, if they were compiled."""
    if policy.compiled is not None:
        policy.compiled.remove()
        policy.compiled = None


def _in_words(error: BaseException) -> str:
    """Say what a compiler failed with: its first lines tell which part, and why."""
    return " ".join(one_line(str(error).split("\n\n")[0]).split())[:200] or type(error).__name__


def _reason_against(policy: Any) -> str | None:
    if policy.layout == "plain":
        return "rows are not packed"
    if policy.model_alone().bench_full_logits:
        return "the model does more than project to its vocabulary"
    drops = getattr(policy.model.config.get_text_config(), "attention_dropout", 0.0)
    if drops or any(isinstance(one, torch.nn.Dropout) and one.p > 0 for one in policy.model.modules()):
        return "with dropout they would draw other random numbers"
    return None


def _prepare() -> None:
    """Set the compiler up: where it keeps its results, how many graphs it may make, what it steps over."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
    import torch._dynamo

    settings: Any = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, GRAPHS)
    packed_attention.leave_loop_to_python()


@contextmanager
def _stirred(policy: Any) -> Iterator[None]:
    """Give the adapter values for a while: a fresh one's output is zero, and so is half of its gradient.

    A whole model's weights have values. Those of DoRA are multiples of what they are, as they are lengths.
    """
    kept, training = {} if policy.full else policy.trained_state(), policy.model.training
    chance = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for one in policy.trainable().values() if kept else ():
                noise = torch.randn(one.shape, generator=chance).to(one.device) * 0.02
                one.copy_(one * (1 + noise) if one.dim() == 1 else noise)
        yield
    finally:
        if kept:
            policy.restore_trained(kept)
        policy.forget_gradients()
        policy.model.train(training)


def _outcomes(policy: Any) -> list[_Outcome]:
    """Return log-probabilities and gradients on rows of pairs and of single answers; without a graph log-probabilities alone."""
    policy.model.train()
    made: list[_Outcome] = []
    for batch in _batches(policy):
        policy.forget_gradients()
        logps = sequence_logps(policy.model, batch)
        torch.autograd.backward(logps.mean())
        gradients = [one.grad.flatten() for one in _watched(policy) if one.grad is not None]
        made.append((logps.detach(), torch.cat(gradients)))
    policy.model.eval()
    with torch.no_grad():
        made += [(sequence_logps(policy.model, batch), None) for batch in _batches(policy)]
    return made


def _watched(policy: Any) -> list[Any]:
    """Return whose gradients are compared: of all that is trained, or of a whole model's smallest, norms of every layer."""
    trained = list(policy.trainable().values())
    if policy.full is None:
        return trained
    trained.sort(key=lambda one: int(one.numel()))
    sizes = list(accumulate(int(one.numel()) for one in trained))
    return trained[: max(1, bisect_right(sizes, _COMPARED))]


def _batches(policy: Any) -> list[Batch]:
    from bench.data.tokens import Example

    ids = tuple(probe.tokens(policy.tokenizer, 23, policy.model.config.get_text_config().vocab_size))
    pairs = [Example(ids[:6], (ids[6:9], ids[9:14])), Example(ids[14:17], (ids[17:21], ids[21:]))]
    single = [Example(ids[:5], (ids[5:11],)), Example(ids[11:13], (ids[13:20],))]
    return [collate(rows, "shared_prompt", policy.device) for rows in (pairs, single, pairs[:1])]


def _agree(ours: list[_Outcome], expected: list[_Outcome], dtype: torch.dtype) -> bool:
    allowed = _SHARE.get(dtype, _SHARE_ELSEWHERE)
    for (logps, gradient), (plain_logps, plain_gradient) in zip(ours, expected, strict=True):
        if not probe.agree(logps, plain_logps, dtype):
            return False
        if gradient is None or plain_gradient is None:
            continue
        if not float((gradient - plain_gradient).norm()) <= allowed * float(plain_gradient.norm()):
            return False
    return True
