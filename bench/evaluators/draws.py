"""Draw tokens so that an answer depends on the seed and its prompt's place alone, whatever else is generated beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.evaluators.options import Generation

# The seeds of two prompts lie this far apart; no suite has as many prompts.
_APART = 1_000_003


class Draws:
    """Hold the random numbers of every prompt's tokens, one each, and choose tokens by them.

    A token is the one at which the sum of the probabilities before it, in the vocabulary's order, passes the random number.
    """

    def __init__(self, settings: Generation, prompts: int) -> None:
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

        self._warpers = LogitsProcessorList([TemperatureLogitsWarper(settings.temperature)])
        if settings.top_p < 1:
            self._warpers.append(TopPLogitsWarper(settings.top_p))
        rows = []
        for place in range(prompts):
            chance = torch.Generator().manual_seed(settings.seed * _APART + place)
            rows.append(torch.rand(settings.max_new_tokens, generator=chance))
        self._numbers = torch.stack(rows)

    def of(self, places: Sequence[int], prompt_length: int, device: torch.device) -> Any:
        """Return a logits processor for a batch of prompts: it leaves one token a row that can be chosen."""
        numbers = self._numbers[list(places)].to(device)

        def draw(input_ids: Tensor, scores: Tensor) -> Tensor:
            chosen = self.choose(self._warpers(input_ids, scores), numbers[:, input_ids.shape[1] - prompt_length])
            return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)

        return draw

    @staticmethod
    def choose(scores: Tensor, numbers: Tensor) -> Tensor:
        """Choose a token a row. Shapes: scores [rows, vocabulary], numbers in [0, 1) [rows] -> [rows, 1]."""
        sums = torch.softmax(scores, dim=-1, dtype=torch.float32).cumsum(-1)
        whole = sums[:, -1:].contiguous()
        passed = torch.searchsorted(sums, numbers[:, None] * whole, right=True)
        # A number just below 1 may be rounded to the whole: then the last token that has a probability.
        return torch.minimum(passed, torch.searchsorted(sums, whole))
