"""Which token a random number chooses, and that nothing else has a part in it."""

from __future__ import annotations

import math

import pytest
import torch

from bench.evaluators.draws import Draws
from bench.evaluators.options import Generation


def choose(probabilities: list[float], *numbers: float) -> list[int]:
    scores = torch.tensor([probabilities] * len(numbers)).log()
    return Draws.choose(scores, torch.tensor(numbers))[:, 0].tolist()


def test_a_token_is_where_the_sum_passes_the_number() -> None:
    """0.25, nothing, 0.5, 0.25: sums 0.25, 0.25, 0.75, 1. A number on a sum belongs to the next token that has a share."""
    numbers = {0.0: 0, 0.2: 0, 0.25: 2, 0.5: 2, 0.74: 2, 0.75: 3, 0.9: 3}
    assert choose([0.25, 0.0, 0.5, 0.25], *numbers) == list(numbers.values())


def test_no_token_without_a_probability_is_chosen() -> None:
    """The largest number below 1, where the last tokens have no share."""
    largest = math.nextafter(1.0, 0.0)
    assert choose([0.5, 0.5, 0.0, 0.0], largest, 1 - 2**-24) == [1, 1]


def test_a_prompts_numbers_are_its_own() -> None:
    """Whatever prompts share its batch, prompt 2 draws the same tokens; another seed, place or step gives others."""
    settings = Generation(max_new_tokens=6, seed=4)
    draws = Draws(settings, 5)
    device, scores = torch.device("cpu"), torch.zeros(1, 1000)

    def drawn(draws: Draws, places: list[int], step: int = 3) -> list[int]:
        ids = torch.zeros(len(places), 10 + step, dtype=torch.long)
        left = draws.of(places, 10, device)(ids, scores.repeat(len(places), 1))
        assert torch.isfinite(left).sum() == len(places)
        return left.argmax(-1).tolist()

    assert drawn(draws, [0, 1, 2])[2] == drawn(draws, [2])[0] == drawn(Draws(settings, 3), [2])[0]
    others = [
        drawn(draws, [3]),
        drawn(draws, [2], step=4),
        drawn(Draws(settings.model_copy(update={"seed": 5}), 5), [2]),
    ]
    assert all(one != drawn(draws, [2]) for one in others)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6)])
def test_tokens_are_drawn_as_often_as_they_should_be(temperature: float, top_p: float) -> None:
    """Shares of 0.1, 0.2, 0.3, 0.4 over 40,000 prompts; at temperature 0.5 their squares, of 0.6 the last two alone.

    A share's standard error is at most 0.0025: 5 of them are 0.0125.
    """
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4])
    count = 40_000
    draws = Draws(Generation(max_new_tokens=1, temperature=temperature, top_p=top_p), count)
    pick = draws.of(range(count), 1, torch.device("cpu"))
    seen = pick(torch.zeros(count, 1, dtype=torch.long), shares.log().repeat(count, 1)).argmax(-1)
    kept = shares ** (1 / temperature) * (torch.tensor([0.0, 0.0, 1.0, 1.0]) if top_p < 1 else 1)
    wanted = kept / kept.sum()
    assert (torch.bincount(seen, minlength=4) / count - wanted).abs().max() < 0.0125
