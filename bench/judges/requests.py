"""What goes to a judge and what comes back: a pair of answers, the request to compare them, the reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["answered", "refused", "unanswered"]


@dataclass(frozen=True)
class Pair:
    """Our answer and the reference answer to one instruction."""

    id: int
    instruction: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class Part:
    """A piece of a prompt: the template's own text, or what was filled in (an instruction or an answer)."""

    text: str
    filled: bool


@dataclass(frozen=True)
class Message:
    """One chat message. Filled-in parts are data: nothing in them may act as a turn marker or a placeholder."""

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
    """What a judge said: a completion in the form alpaca-eval's parsers read, or the reason why there is none.

    Attributes:
        completion: what the parser reads.
        error: why there is none.
        tokens: as the endpoint counted them.
        seconds: until it came.
        state: `answered`; `refused`, which costs nothing; or `unanswered`: whether it is paid for cannot be known.
        batch: the key of the batch that it came by; "" for a request of its own.
        sent: the fields of the request, where they are not those of the judge's next one.
        kind: the kind of fault where there is no completion, for counting; `adapted` where the request was changed for it.
    """

    completion: dict[str, Any] | None
    error: str | None = None
    tokens: Mapping[str, int] | None = None
    seconds: float = 0.0
    state: State = "answered"
    kind: str = ""
    batch: str = ""
    sent: Mapping[str, Any] | None = None
