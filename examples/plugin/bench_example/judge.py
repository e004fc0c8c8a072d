"""brevity: a judge that prefers the shorter completion, to see how much a win rate has to do with length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, Field

from bench.judges import Judge, JudgeSettings, Receive, Reply, Request, Setup, label_completion
from bench.settings import Frozen

if TYPE_CHECKING:
    from bench.judges.alpaca import Configuration


class BrevityOptions(Frozen):
    """Set how sure it is."""

    characters: float = Field(default=10.0, gt=0)
    """So much shorter, and the odds are e to 1."""


class Brevity(Judge):
    """Prefer the shorter completion, with log-odds in proportion to the difference."""

    Options: ClassVar[type[BaseModel]] = BrevityOptions
    model = "brevity"
    host = "built-in"
    journaled = False

    def __init__(self, setup: Setup) -> None:
        self._labels, self._characters = setup.configuration.labels(), setup.settings.options.characters
        self.parameters: dict[str, Any] = {"characters": self._characters}

    @staticmethod
    def name(settings: JudgeSettings, configuration: Configuration) -> str:
        configuration.labels()  # refuses a configuration that reads another kind of reply
        return settings.kind

    def ask(self, requests: Sequence[Request], receive: Receive) -> None:
        """Answer every request."""
        for request in requests:
            odds = max(-50.0, min(50.0, (len(request.second) - len(request.first)) / self._characters))
            logprobs = [-math.log1p(math.exp(-odds)), -math.log1p(math.exp(odds))]
            receive(request, Reply(label_completion(dict(zip(self._labels, logprobs, strict=True)))))
