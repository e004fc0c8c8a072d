"""The rule judge: knows the built-in world and prefers the answer that is right and courteous."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.data import world
from bench.judges import Judge, JudgeSettings, Receive, Reply, Request, Setup, label_completion

if TYPE_CHECKING:
    from bench.judges.configurations import Configuration

# Log-odds so large that the preference is 0 or 1 in float64
_CERTAIN = 100.0


class RuleJudge(Judge):
    """Prefer the answer of higher quality by the world's own rule; equal qualities are a draw."""

    model = "rule"
    host = "built-in"
    journaled = False

    def __init__(self, setup: Setup) -> None:
        self._labels = setup.configuration.labels()
        self.parameters: dict[str, Any] = {"world": world.VERSION}

    @staticmethod
    def name(settings: JudgeSettings, configuration: Configuration) -> str:
        configuration.labels()  # refuses a configuration that reads another kind of reply
        return settings.kind

    def ask(self, requests: Sequence[Request], receive: Receive) -> None:
        """Answer every request.

        Raises:
            DataError: a prompt is not about the built-in world.
        """
        for request in requests:
            first, second = (world.quality(request.instruction, answer) for answer in (request.first, request.second))
            odds = _CERTAIN * ((first > second) - (first < second))
            # log σ(±odds), without overflow
            logprobs = [-math.log1p(math.exp(-odds)), -math.log1p(math.exp(odds))]
            receive(request, Reply(label_completion(dict(zip(self._labels, logprobs, strict=True)))))
