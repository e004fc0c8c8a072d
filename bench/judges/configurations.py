"""How a judge is asked and its replies are read: alpaca-eval's evaluator configurations, unchanged, and our own.

Which of them an endpoint answers to is found by `judges.trial` where a suite names none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from bench.judges.requests import Message, Request

Completion = Mapping[str, Any]
Complete = Callable[[Sequence[Request]], list[Completion | None]]


# As tags, in Mistral's brackets, or in the channels of gpt-oss where a server hands them on as they are
_THINKING = re.compile(
    r"\A.*(?:</(?:think|thinking|thought|reasoning)>|\[/think\]|<\|channel\|>final<\|message\|>)"
    r"|(?:<(?:think|thinking|thought|reasoning)>|\[think\]|<\|channel\|>analysis<\|message\|>).*\Z",
    re.DOTALL | re.I,
)


def spoken(text: object) -> str:
    """Return what a reply says beside thinking aloud between tags, of which the first or the last may be missing."""
    return _THINKING.sub("", str(text or "")).strip()


class Unusable(NamedTuple):
    """Say why a reply cannot be used: its kind, for counting, and a sentence that says what to change."""

    kind: str
    reason: str


def refusal(completion: Completion) -> Unusable | None:
    """Say that a model, or a filter behind it, would not compare; None where it did not say so."""
    message = completion.get("message")
    refused = isinstance(message, Mapping) and message.get("refusal")
    if not refused and completion.get("finish_reason") != "content_filter":
        return None
    said = str(completion.get("text") or refused or "")[:60]
    return Unusable("refused by the model", f"the model refused to compare: {said!r}")


# How tokenizers write the space before a word
SPACES = " \t\n\N{LOWER ONE EIGHTH BLOCK}\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"


def first_token(completion: Completion) -> dict[str, float]:
    """Return the log-probabilities of what the first token can be, without spaces around; of two alike the likelier's."""
    logprobs = completion.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    if not isinstance(content, list) or not content or not isinstance(content[0], Mapping):
        return {}
    found: dict[str, float] = {}
    for one in content[0].get("top_logprobs") or ():
        name, value = str(one.get("token")).strip(SPACES), one.get("logprob")
        if isinstance(value, int | float) and not math.isnan(value):
            found[name] = max(float(value), found.get(name, -math.inf))
    return found


class Configuration(Protocol):
    """Make the prompts of comparisons and read the replies."""

    @property
    def name(self) -> str:
        """As suites name it."""

    @property
    def template(self) -> str:
        """All that decides a prompt beside instruction and answers; part of what a reply is kept under."""

    @property
    def of_alpaca_eval(self) -> bool:
        """Whether its figures are AlpacaEval's."""

    @property
    def model(self) -> str | None:
        """The model that it names, unless a suite names another."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What is sent to an endpoint beside model and messages."""

    @property
    def needed(self) -> tuple[str, ...]:
        """Fields of a request without which a reply would be of no use."""

    @property
    def reads_logprobs(self) -> bool:
        """Whether a reply is read from the log-probabilities of its first token instead of its text."""

    def labels(self) -> tuple[str, str]:
        """Return the labels of output_1 and output_2 whose log-probabilities are compared.

        Raises:
            SuiteError: this configuration reads another kind of reply.
        """

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The first tokens that are a verdict, where log-probabilities are read; none otherwise."""

    def messages(self, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """Fill instruction, output_1 and output_2 in; nothing in them may act as a turn marker or a placeholder."""

    def reader(self) -> Callable[[Completion], Completion | None]:
        """Make what finds the form of a completion that can be read; None: none of them."""

    def why_unusable(self, completion: Completion) -> Unusable:
        """Say why a reply that came cannot be used, and what to change."""

    def annotate(self, comparisons: Sequence[Mapping[str, Any]], complete: Complete) -> list[float | None]:
        """Compare.

        Args:
            comparisons: rows with instruction, output_1, output_2, in the order in which a judge is to see them.
            complete: gives a usable completion per request, or None.

        Returns:
            A preference per comparison, 1 (output_1) to 2 (output_2), None where there is no usable reply; 1.5 without
            asking where both outputs are equal.
        """
