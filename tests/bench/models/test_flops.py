"""Sizes read off models in memory, and what their passes need, beside counts made by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.models import flops, policy
from bench.models.flops import Sizes
from bench.settings import Lora, Model

# Two layers whose lowest reads its input with 20 of its parameters; heads of width 4 together; a head of 30 parameters.
BY_HAND = Sizes(weights=100, lowest=20, adapter=10, adapter_lowest=3, layers=2, queries=4, vocabulary=30)


def test_one_row_by_hand() -> None:
    """A prompt of 2 tokens and answers of 1 and 2: 5 tokens; pairs 3 + (2 + 1) + (4 + 3) = 13.

    Forward: 2·110·5 = 1100, attention 4·2·4·13 = 416, words 2·30·3 = 180: 1696.
    Backward: 2·80·5 = 800, attention 832 − 2·4·13 = 728, adapter (40 − 6)·5 = 170, words 180: 1878.
    """
    assert flops.forward(BY_HAND, 2, [1, 2]) == 1696
    assert flops.backward(BY_HAND, 2, [1, 2]) == 1878
    # a token less to learn: 2·30 words less, each way
    assert (flops.forward(BY_HAND, 2, [1, 2], 2), flops.backward(BY_HAND, 2, [1, 2], 2)) == (1636, 1818)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_sizes_are_those_of_the_model(architecture: Any) -> None:
    """All parameters in matrices but the embeddings are weights or vocabulary; of rank 2, an adapter has 2 · (in + out)."""
    loaded = policy.load(Model(source="random", architecture=architecture), torch.device("cpu"))
    alone = flops.sizes_of(loaded.model)
    assert alone is not None and alone.adapter == alone.adapter_lowest == 0
    config, head = loaded.model.config, loaded.model.get_output_embeddings()
    matrices = sum(value.numel() for value in loaded.model.parameters() if value.dim() > 1)
    embeddings = loaded.model.get_input_embeddings().weight.numel()
    tied = config.tie_word_embeddings
    assert alone.weights == matrices - embeddings - (0 if tied else head.weight.numel())
    assert alone.vocabulary == config.vocab_size * config.hidden_size
    assert (alone.layers, alone.queries) == (config.num_hidden_layers, config.hidden_size)
    name = "q_proj" if architecture == "llama" else "query_key_value"
    loaded.attach(Lora(rank=2, alpha=2, targets=(name,)), 0)
    read = next(one for path, one in loaded.model.named_modules() if path.endswith(name))
    with_adapter = flops.sizes_of(loaded.model)
    assert with_adapter is not None and with_adapter.weights == alone.weights
    assert with_adapter.adapter == config.num_hidden_layers * 2 * (read.in_features + read.out_features)
    assert with_adapter.adapter_lowest == 2 * read.in_features
    assert with_adapter.lowest == alone.lowest > 0


def test_a_model_with_other_matrices_is_not_counted() -> None:
    loaded = policy.load(Model(source="random"), torch.device("cpu"))
    loaded.model.model.layers[0].mlp.experts = torch.nn.Parameter(torch.zeros(2, 3, 4))
    assert flops.sizes_of(loaded.model) is None


def test_the_matrix_rate_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 products of 2 · 64³ FLOPs in 4 s, by a clock that moves 4 s between two looks: 1,048,576 a second."""
    looks = iter(range(0, 400, 4))
    monkeypatch.setattr(flops.time, "perf_counter", lambda: float(next(looks)))
    monkeypatch.setattr(flops, "_rates", {})
    cpu = torch.device("cpu")
    assert flops.matrix_rate(cpu, torch.float32, 64) == 8 * 2 * 64**3 / 4
    assert next(looks) == 40
    assert flops.matrix_rate(cpu, torch.float32, 64) == 8 * 2 * 64**3 / 4
    assert next(looks) == 44


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # of libraries, which differ from card to card
def test_a_cards_matrix_rate_in_bfloat16_is_the_higher_one() -> None:
    """Any card that torch still supports makes a tera-FLOP a second, and no fewer in bfloat16."""
    cuda = torch.device("cuda:0")
    wide, narrow = (flops.matrix_rate(cuda, dtype, 4096) for dtype in (torch.float32, torch.bfloat16))
    assert 1e12 < wide <= narrow
