"""Who compares two answers. An alpaca-eval configuration makes the prompts and reads the replies.

To add one: a file beside this one and a line in `JUDGES`, or an entry point in the group `bench.judges` of another
package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from bench.evaluators.alpaca import Configuration
    from bench.policy import Policy
    from bench.settings import Judge as Settings
    from bench.settings import Model


CONNECTION_ATTEMPTS = 6


@dataclass(frozen=True)
class Part:
    """Hold a piece of a prompt: the template's own text, or what was filled in (an instruction or an answer)."""

    text: str
    filled: bool


@dataclass(frozen=True)
class Message:
    """Hold one chat message. Filled-in parts are data: nothing in them may act as a turn marker or a placeholder."""

    role: str
    parts: tuple[Part, ...]

    @property
    def content(self) -> str:
        """The whole text."""
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True)
class Request:
    """Ask for one comparison. `first` is the template's output_1, `second` its output_2."""

    instruction: str
    first: str
    second: str
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Reply:
    """Hold what a judge said: a completion in the form alpaca-eval's parsers read, or the reason why there is none."""

    completion: dict[str, Any] | None
    error: str | None = None
    tokens: Mapping[str, int] | None = None
    seconds: float = 0.0


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
    """Word labels' log-probabilities as the completion that an OpenAI endpoint would give for one token."""
    best = max(logprobs, key=logprobs.__getitem__)
    top = [{"token": token, "logprob": logprob} for token, logprob in logprobs.items()]
    token = {"token": best, "logprob": logprobs[best], "top_logprobs": top}
    return {"text": best, "logprobs": {"content": [token]}}


def local_name(model: Model) -> str:
    """Name a local judge's model: the last part of its path or hub id, or its source."""
    return PurePath(model.path).name if model.path else model.source


class _Table(Mapping[str, type[Judge]]):
    """Look judges up by kind; each is imported when it is asked for."""

    @cached_property
    def _foreign(self) -> dict[str, Any]:
        return {point.name: point for point in entry_points(group="bench.judges")}

    def __getitem__(self, kind: str) -> type[Judge]:
        if kind == "rule":
            from bench.judges.rule import RuleJudge

            return RuleJudge
        if kind == "local":
            from bench.judges.local import LocalJudge

            return LocalJudge
        if kind == "openai":
            from bench.judges.openai import OpenaiJudge

            return OpenaiJudge
        if kind == "replay":
            from bench.judges.replay import ReplayJudge

            return ReplayJudge
        judge: type[Judge] = self._foreign[kind].load()
        return judge

    def __iter__(self) -> Iterator[str]:
        return iter({"rule": None, "local": None, "openai": None, "replay": None, **self._foreign})

    def __len__(self) -> int:
        return len(list(iter(self)))


JUDGES: Mapping[str, type[Judge]] = _Table()
