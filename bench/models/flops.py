"""Count model FLOPs: what the mathematics of a step needs, not what a kernel spends.

Of a row of T tokens (a prompt, and one or two answers of A₁, A₂ tokens behind it, the prompt once), per layer:

- forward: 2 N T for the weights' multiplications, with N parameters in its matrices, and 4 h S for scores and mixing, with h the
  width of all heads and S the pairs of a token and one it may look at;
- backward: as much again for the weights (the activations' gradient; the frozen weights have none) and twice the forward's
  for attention. The lowest layer needs no gradient of its input, so the matrices that read it, their adapters' first
  matrices and the scores' gradient to its keys have none to compute;
- the adapter: 2 M T for its M parameters forward, twice that backward (they have gradients, too; factors that stay as they are
  have none);

and 2 V d A for the vocabulary's projection, forward and again backward, with A answer tokens that are learned. Where all weights
are trained, every matrix has a gradient of its own beside its input's, and the lowest layer hands one on to the embeddings: twice
the forward's, everywhere. Padding, recomputation, normalization, softmax, the optimizer and DoRA's lengths of the weights' rows,
which are of a step and not of its rows, are not counted, and a window is not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# Names of the matrices that read a layer's input, in transformers' models.
_READ_THE_INPUT = {"q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value"}


@dataclass(frozen=True)
class Sizes:
    """The parameters of a model's matrices, the vocabulary's projection apart.

    Attributes:
        weights: of all layers; `lowest`: of the lowest layer's that read its input.
        adapter: of all adapters; `adapter_lowest`: of the first matrices of those that read the lowest layer's input.
        layers: how many attend.
        queries: width of all heads together.
        vocabulary: of the vocabulary's projection.
        frozen_adapter: of those of the adapters' matrices that are not trained.
        full: whether the weights are trained, and not adapters.
    """

    weights: int
    lowest: int
    adapter: int
    adapter_lowest: int
    layers: int
    queries: int
    vocabulary: int
    frozen_adapter: int = 0
    full: bool = False


def forward(model: Sizes, prompt: int, answers: Sequence[int], learned: int | None = None) -> int:
    """Count one row's forward pass.

    Args:
        model: its matrices.
        prompt, answers: tokens of each.
        learned: answer tokens that count in an objective; None: all of them.
    """
    tokens, seen = prompt + sum(answers), _seen(prompt, answers)
    attention = 4 * model.layers * model.queries * seen
    return 2 * (model.weights + model.adapter) * tokens + attention + _words(model, answers, learned)


def backward(model: Sizes, prompt: int, answers: Sequence[int], learned: int | None = None) -> int:
    """Count one row's backward pass; arguments as in `forward`."""
    if model.full:
        return 2 * forward(model, prompt, answers, learned)
    tokens, seen = prompt + sum(answers), _seen(prompt, answers)
    weights = 2 * (model.weights - model.lowest) * tokens
    attention = 8 * model.layers * model.queries * seen - 2 * model.queries * seen
    adapter = (4 * model.adapter - 2 * model.adapter_lowest - 2 * model.frozen_adapter) * tokens
    return weights + attention + adapter + _words(model, answers, learned)


def _words(model: Sizes, answers: Sequence[int], learned: int | None) -> int:
    return 2 * model.vocabulary * (sum(answers) if learned is None else learned)


def _seen(prompt: int, answers: Sequence[int]) -> int:
    return _triangle(prompt) + sum(answer * prompt + _triangle(answer) for answer in answers)


def _triangle(length: int) -> int:
    """Count the pairs of a token and one at or before it."""
    return length * (length + 1) // 2


def sizes_of(model: Any) -> Sizes | None:
    """Read the sizes off a model to be trained, or an adapter on it; None where it has matrices of another kind (experts)."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    config, head = causal.config.get_text_config(), causal.get_output_embeddings()
    matrices = [(name, one) for name, one in causal.named_modules() if isinstance(one, nn.Linear) and one is not head]
    if not isinstance(head, nn.Linear) or not matrices or _other_matrices(causal):
        return None
    weights = [(name, one) for name, one in matrices if ".lora_" not in name]
    adapter = [(name, one) for name, one in matrices if ".lora_" in name]
    parallel = bool(getattr(config, "use_parallel_residual", False))
    first_of_adapter = [(name, one) for name, one in adapter if ".lora_A" in name]
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Sizes(
        weights=_count(one for _, one in weights),
        lowest=_count(one for name, one in weights if _reads_the_lowest(name, parallel)),
        adapter=_count(one for _, one in adapter),
        adapter_lowest=_count(one for name, one in first_of_adapter if _reads_the_lowest(name, parallel)),
        layers=config.num_hidden_layers,
        queries=config.num_attention_heads * head_width,
        vocabulary=head.in_features * head.out_features,
        frozen_adapter=_count(one for _, one in adapter if not one.weight.requires_grad),
        full=head.weight.requires_grad and not adapter,
    )


def _count(matrices: Iterable[nn.Linear]) -> int:
    return sum(one.in_features * one.out_features for one in matrices)


def _reads_the_lowest(name: str, parallel: bool) -> bool:
    """Say whether a matrix reads the lowest layer's input; where attention and MLP stand side by side, the MLP does too."""
    parts = name.split(".")
    lowest = next((part for part in parts if part.isdigit()), None) == "0"
    return lowest and bool(_READ_THE_INPUT & set(parts) or (parallel and "mlp" in parts))


def _other_matrices(causal: Any) -> bool:
    """Say whether it multiplies with parameters that are no linear layer's; embeddings are looked up."""
    plain = (nn.Linear, nn.Embedding)
    return any(
        value.dim() > 1
        for module in causal.modules()
        if not isinstance(module, plain)
        for name, value in module.named_parameters(recurse=False)
    )


# ---- what a card can do ----------------------------------------------------------------------------------------------

_PRODUCTS, _TIMES = 8, 5
_rates: dict[tuple[str, torch.dtype], float] = {}


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int = 8192) -> float:
    """Return the FLOPs a second of large square products on a device: the median of a few, measured once in a process.

    Raises:
        torch.OutOfMemoryError: no room for three matrices.
    """
    key = (str(device), dtype)
    if key not in _rates:
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        out = torch.empty_like(left)
        torch.mm(left, right, out=out)
        seconds = [_seconds_of(device, lambda: torch.mm(left, right, out=out)) for _ in range(_TIMES)]
        _rates[key] = _PRODUCTS * 2 * size**3 / sorted(seconds)[_TIMES // 2]
    return _rates[key]


def _seconds_of(device: torch.device, product: Callable[[], Any]) -> float:
    """Clock some products, one after another."""
    _wait(device)
    started = time.perf_counter()
    for _ in range(_PRODUCTS):
        product()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
