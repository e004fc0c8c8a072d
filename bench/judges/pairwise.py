"""Comparisons of our own, for judges that alpaca-eval's configurations do not suit: one prompt, four forms of the reply.

A judge says which answer is better, or that they are equal; both orders make up for its liking of a place. Scores by them are
not AlpacaEval's and never called so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from bench.errors import SuiteError
from bench.judges.configurations import Complete, Completion, Unusable, first_token, refusal, spoken
from bench.judges.requests import Message, Part, Request

_TASK = """You compare two answers to one instruction. Say which of them a careful reader who gave the instruction would rather \
have: the one that is correct, does what was asked, and is clear. Neither the order in which the answers stand nor their \
length counts by itself. If neither is better, say that they are equal.

"""
_ASKS = {
    "json_schema": 'Reply with JSON alone: {"better": "1"}, {"better": "2"}, or {"better": "equal"}.',
    "function": "Call the function report_comparison with your verdict.",
    "number": "Reply with one number alone: 1 if the first answer is better, 2 if the second one is, 0 if they are equal.",
}
_SHOWN = (
    "# Instruction\n\n",
    "instruction",
    "\n\n# Answer 1\n\n",
    "output_1",
    "\n\n# Answer 2\n\n",
    "output_2",
    "\n\n# Verdict\n\n",
)
_VERDICT = {
    "type": "object",
    "properties": {"better": {"type": "string", "enum": ["1", "2", "equal"]}},
    "required": ["better"],
    "additionalProperties": False,
}
_FUNCTION = "report_comparison"
_SENT: dict[str, dict[str, Any]] = {
    "json_schema": {
        "max_tokens": 32,
        "temperature": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "comparison", "strict": True, "schema": _VERDICT},
        },
    },
    "function": {
        "max_tokens": 128,
        "temperature": 0,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": _FUNCTION,
                    "description": "Report which of the two answers is better, or that they are equal.",
                    "parameters": _VERDICT,
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": _FUNCTION}},
    },
    "logprobs": {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 5},
    "number": {"max_tokens": 16, "temperature": 0},
}
_FIRST, _SECOND, _EQUAL = 1.0, 2.0, 1.5
_WORDS = {
    **dict.fromkeys(("1", "first", "a"), _FIRST),
    **dict.fromkeys(("2", "second", "b"), _SECOND),
    **dict.fromkeys(("0", "equal", "tie", "draw", "same", "neither", "both"), _EQUAL),
}
_NUMBER = re.compile(r"(?<![\d.,/])([012])(?:\.0)?(?![\d/]|[.,]\d)")
# In the form a completion is handed on in: what was read
_READ = "preference"


@dataclass(frozen=True)
class Pairwise:
    """One of our own configurations: which answer is better, or neither."""

    form: Literal["json_schema", "function", "logprobs", "number"]
    of_alpaca_eval: ClassVar[bool] = False
    model: ClassVar[None] = None

    @property
    def name(self) -> str:
        """As suites name it."""
        return f"pairwise_{self.form}"

    @property
    def template(self) -> str:
        """The prompt with its places."""
        return "".join(part.text for message in self.messages({}) for part in message.parts)

    @property
    def parameters(self) -> dict[str, Any]:
        """What is sent beside model and messages."""
        return dict(_SENT[self.form])

    @property
    def needed(self) -> tuple[str, ...]:
        """What the reply is read from."""
        return {"function": ("tools",), "logprobs": ("logprobs", "top_logprobs")}.get(self.form, ())

    @property
    def reads_logprobs(self) -> bool:
        """Whether the first token's log-probabilities are read."""
        return self.form == "logprobs"

    def labels(self) -> tuple[str, str]:
        """Return the labels of both answers.

        Raises:
            SuiteError: it reads written replies.
        """
        if self.form == "logprobs":
            return "1", "2"
        raise SuiteError(
            f"evaluation.win_rate.judge.configuration = {self.name!r}: reads written replies, but this kind of judge gives "
            "log-probabilities of two labels; use weighted_alpaca_eval_gpt4_turbo or pairwise_logprobs"
        )

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Both answers' labels, and that of equality."""
        return ("1", "2", "0") if self.reads_logprobs else ()

    def messages(self, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """Fill the prompt; what is not given stands as its place."""
        system = Message("system", (Part(_TASK + _ASKS["number" if self.form == "logprobs" else self.form], False),))
        parts = [
            Part(fields.get(piece, f"{{{piece}}}") if place % 2 else piece, bool(place % 2))
            for place, piece in enumerate(_SHOWN)
        ]
        return system, Message("user", tuple(parts))

    def reader(self) -> Callable[[Completion], Completion | None]:
        """Make what adds to a completion the preference that stands in it; None where none does."""

        def read(completion: Completion) -> Completion | None:
            value = self._preference(completion)
            return None if value is None else {**completion, _READ: value}

        return read

    def annotate(self, comparisons: Sequence[Mapping[str, Any]], complete: Complete) -> list[float | None]:
        """Compare, as `Configuration.annotate` says."""
        asked = [row for row in comparisons if row["output_1"] != row["output_2"]]
        requests = [Request(row["instruction"], row["output_1"], row["output_2"], self.messages(row)) for row in asked]
        replies = iter(complete(requests))
        found: list[float | None] = []
        for row in comparisons:
            if row["output_1"] == row["output_2"]:
                found.append(_EQUAL)
                continue
            reply = next(replies)
            found.append(None if reply is None else self._preference(reply))
        return found

    def _preference(self, completion: Completion) -> float | None:
        if self.form == "logprobs":
            return _of_labels(completion)
        text = spoken(completion.get("text"))
        return _of_number(text) if self.form == "number" else _of_json(text)

    def why_unusable(self, completion: Completion) -> Unusable:
        """Say why a reply that came cannot be used, and what to change."""
        other = f"choose another judge.model or, instead of {self.name}, another judge.configuration"
        if refused := refusal(completion):
            return refused
        if self.form == "logprobs":
            tokens = first_token(completion)
            if not tokens:
                return Unusable(
                    "no log-probabilities", f"it came without the log-probabilities that were asked for; {other}"
                )
            seen = ", ".join(map(repr, tokens))[:80]
            return Unusable("labels missing", f"its first token is one of {seen}, and not both '1' and '2'; {other}")
        if completion.get("finish_reason") == "length":
            return Unusable(
                "cut off", f"it was cut off at its longest before a verdict came: {_beginning(completion)}; {other}"
            )
        if not str(completion.get("text") or "").strip():
            return Unusable("empty", f"it is empty; {other}")
        asked_for = {
            "json_schema": (
                "no JSON as asked for",
                "the JSON that was asked for (response_format is ignored there, or not obeyed)",
            ),
            "function": ("no function call", "the call of the function that was asked for"),
            "number": ("no number", "the one number 1, 2 or 0 that was asked for"),
        }
        kind, what = asked_for[self.form]
        return Unusable(kind, f"its text {_beginning(completion)} is not {what}; {other}")


def _beginning(completion: Completion) -> str:
    return repr(str(completion.get("text") or "")[:60])


def _of_json(text: str) -> float | None:
    """Read the verdict of the last JSON object in a text that holds one; a bare word counts, too."""
    decoder, found = json.JSONDecoder(), None
    for start in (match.start() for match in re.finditer("{", text)):
        try:
            value, _ = decoder.raw_decode(text[start:])
        except ValueError:
            continue
        if isinstance(value, dict) and "better" in value:
            found = value["better"]
    return _of_word(text if found is None else found)


def _of_word(value: Any) -> float | None:
    """Read a verdict of one word, `answer` or the like before it."""
    word = str(int(value) if type(value) is float and value.is_integer() else value).strip(" \t\n\"'`.*").lower()
    return _WORDS.get(re.sub(r"^(the )?(answer|output|response|option)[ _]?", "", word))


def _of_number(text: str) -> float | None:
    """Read the one number in a text; of several, that of a last line which holds but one."""
    for part in (text, text.splitlines()[-1] if text else ""):
        numbers = set(_NUMBER.findall(part))
        if len(numbers) == 1:
            return _WORDS[numbers.pop()]
    return _of_word(text)


def _of_labels(completion: Completion) -> float | None:
    """Return the mean verdict under the labels' probabilities; both answers' labels must be there, that of equality may be."""
    found = first_token(completion)
    if "1" not in found or "2" not in found:
        return None
    masses = {
        value: math.exp(found[label])
        for label, value in (("1", _FIRST), ("2", _SECOND), ("0", _EQUAL))
        if label in found
    }
    total = sum(masses.values())
    return sum(value * mass for value, mass in masses.items()) / total if total > 0 else None


_EVERY = (Pairwise("json_schema"), Pairwise("function"), Pairwise("logprobs"), Pairwise("number"))
CONFIGURATIONS = {one.name: one for one in _EVERY}
