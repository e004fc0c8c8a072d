"""Who compares two answers. An alpaca-eval configuration makes the prompts and reads the replies.

To add one: a file beside this one and a line in `JUDGES`, or an entry point in the group `bench.judges` of another
package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

from bench.judges.requests import Message, Part, Reply, Request
from bench.registry import Registry

if TYPE_CHECKING:
    from bench.judges.alpaca import Configuration
    from bench.models.policy import Policy
    from bench.settings import Judge as Settings
    from bench.settings import Model


__all__ = ["JUDGES", "Judge", "Message", "Part", "Reply", "Request", "Setup", "label_completion", "local_name"]

CONNECTION_ATTEMPTS = 6


@dataclass(frozen=True)
class Setup:
    """Give a judge what it may need.

    Args:
        settings: the suite's.
        configuration: alpaca-eval's prompt and parser.
        load_local: loads a model here.
        reserve: to be called before each request that costs money; raises JudgeStopped at the ceiling of cost.
        attempts: how often a request is tried that meets a passing fault.
    """

    settings: Settings
    configuration: Configuration
    load_local: Callable[[Model], Policy]
    reserve: Callable[[Request], None] = lambda request: None
    attempts: int = CONNECTION_ATTEMPTS


Receive = Callable[[Request, Reply], bool]


class Judge(Protocol):
    """Compare answers."""

    def __init__(self, setup: Setup) -> None: ...

    @property
    def model(self) -> str:
        """What is asked, by name."""

    @property
    def host(self) -> str:
        """Where it is asked."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Everything else that decides a reply."""

    @property
    def journaled(self) -> bool:
        """Whether replies are kept one by one; not so where they cost nothing to make again."""

    def ask(self, requests: Sequence[Request], receive: Receive) -> None:
        """Answer every request, handing over each reply as soon as it is there, from any thread.

        `receive` says whether the reply can be used; one that cannot may be asked for again.

        Raises:
            JudgeStopped: it must not be asked further; the replies handed over are kept and summed up.
            JudgeError: it cannot answer at all.
        """


def label_completion(logprobs: Mapping[str, float]) -> dict[str, Any]:
    """Put labels' log-probabilities into the completion that an OpenAI endpoint would give for one token."""
    best = max(logprobs, key=logprobs.__getitem__)
    top = [{"token": token, "logprob": logprob} for token, logprob in logprobs.items()]
    token = {"token": best, "logprob": logprobs[best], "top_logprobs": top}
    return {"text": best, "logprobs": {"content": [token]}}


def local_name(model: Model) -> str:
    """Name a local judge's model: the last part of its path or hub id, or its source."""
    return PurePath(model.path).name if model.path else model.source


JUDGES: Registry[type[Judge]] = Registry(
    "judge",
    "bench.judges",
    {
        "rule": "bench.judges.rule:RuleJudge",
        "local": "bench.judges.local:LocalJudge",
        "openai": "bench.judges.openai:OpenaiJudge",
        "replay": "bench.judges.replay:ReplayJudge",
    },
)
