"""What a model is tried on: a sentence of any length, and a tolerance that grows with what a type's digits leave open."""

from __future__ import annotations

import torch

from bench.models import probe, world_model


def test_the_sentence_is_cut_or_begun_again() -> None:
    tokenizer = world_model.tokenizer()
    whole = tokenizer.encode(probe.SENTENCE, add_special_tokens=False)
    assert probe.tokens(tokenizer, 5, 1000) == whole[:5]
    assert probe.tokens(tokenizer, len(whole) + 3, 1000) == whole + whole[:3]
    assert max(probe.tokens(tokenizer, 5, 7)) < 7


def test_near_enough_grows_with_the_value_in_bfloat16() -> None:
    """Eight digits of two: 4 · 2⁻⁷ of 16 is half a nat, and 0.2 beside it."""
    expected = torch.tensor([-16.0])
    for dtype, near, far in ((torch.bfloat16, 0.69, 0.71), (torch.float32, 0.0009, 0.0011)):
        assert probe.agree(expected - near, expected, dtype)
        assert not probe.agree(expected - far, expected, dtype)
