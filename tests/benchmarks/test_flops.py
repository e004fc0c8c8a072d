"""The count of a DPO step's model FLOPs, worked out by hand on a model of a few numbers."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.flops import SMOLLM2, Shape, dpo_step

# One layer, two heads of width 2 over hidden 3, one key head; 10 words; rank 1.
TINY = Shape(layers=1, hidden=3, heads=2, key_heads=1, head=2, inner=5, vocabulary=10, rank=1)
# Prompt of 2 tokens, answers of 1 and 2.
PAIR = {"prompt": [0, 0], "answers": [[0], [0, 0]]}


def test_one_pair_on_one_layer() -> None:
    """Parameters: q 3·4 = 12, k and v 3·2 = 6 each, o 12, three of 3·5: 81 in all, 24 of them q, k, v.

    Tokens: 5. Weights: 2·2·81·5 = 1620, without the backward of q, k, v: − 2·24·5 = 240 → 1380.
    Seen: prompt 1 + 2 = 3; first answer 2 + 1 = 3; second 2·2 + (1 + 2) = 7: 13.
    Attention: 3 · 4·4·13 = 624, without the keys' gradient: − 2·4·13 = 104 → 520.
    Adapter: 1·(3 + 4) + 1·(3 + 2) = 12 parameters: 3·2·12·5 = 360, without its inputs' gradient: − 2·(3 + 3)·5 = 60 → 300.
    Words: 2·2·10·3·3 = 360. Together 1380 + 520 + 300 + 360 = 2560.
    """
    assert dpo_step(TINY, [PAIR]) == 2560


def test_pairs_add_up_and_a_second_layer_has_all_of_its_backward() -> None:
    """The second layer: 1620 + 624 + 360 = 2604 more a pair."""
    assert dpo_step(TINY, [PAIR, PAIR]) == 2 * 2560
    assert dpo_step(replace(TINY, layers=2), [PAIR]) == 2560 + 2604


def test_smollm2_has_its_parameters() -> None:
    """SmolLM2-135M: 30 layers of 3,538,944 matrix parameters, and 49,152 words of width 576: 134.5 M, less its norms."""
    model = Shape(**SMOLLM2, rank=8)
    assert model.layer == 576 * (576 + 2 * 192) + 576 * 576 + 3 * 576 * 1536 == 3_538_944
    assert 30 * model.layer + model.vocabulary * model.hidden == 134_479_872
