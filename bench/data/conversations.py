"""Lists of messages → a prompt and the answers that are learned, in the model's own chat template.

Messages come as {role, content} or as {from, value}, one alone or a list, also written as JSON in a cell of text. What a
template writes is found by rendering beginnings of the conversation: an answer is what the whole has and its beginning,
ready for the assistant to speak, has not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.data.markup import ControlTokens, Markup, shared_start

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "function",
    "ipython": "ipython",
}
KEYS = (("role", "content"), ("from", "value"))
ASSISTANT = "assistant"
REWRITES = "the model's chat template writes earlier turns in another way once others follow; use train_on: last"


class RowError(Exception):
    """Say why a row cannot be used: a kind to count it by, and the sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Turn:
    """One message.

    Attributes:
        role: as templates know it: system, user, assistant, tool.
        text: what was said.
        others: what else it holds, such as tool calls; templates may read it.
        learned: False for an assistant's turn whose weight is 0.
    """

    role: str
    text: str
    others: Mapping[str, Any] = field(default_factory=dict)
    learned: bool = True


def is_conversation(value: Any) -> bool:
    """Say whether a value is a list of messages, or one; an empty list is."""
    if isinstance(value, str):
        value = _written_as_json(value)
    if isinstance(value, Mapping):
        return isinstance(value.get("messages"), list) or any(a in value and b in value for a, b in KEYS)
    return isinstance(value, list) and all(
        isinstance(one, Mapping) and any(a in one and b in one for a, b in KEYS) for one in value
    )


def _written_as_json(text: str) -> Any:
    if not text.lstrip().startswith(("[{", "[ {", '{"messages"')):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def turns_of(value: Any, column: str) -> list[Turn]:
    """Read messages.

    Raises:
        RowError: it is no list of messages, or one of them has no role or text that can be used.
    """
    if isinstance(value, str):
        value = _written_as_json(value)
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if isinstance(value, Mapping):
        value = [value]
    if value is None:
        raise RowError("empty", f"column {column!r} is empty (null); fill it in, or take such rows out")
    if not isinstance(value, list):
        raise RowError("no messages", f"column {column!r} holds {_kind(value)}, not a list of {{role, content}}")
    if not value:
        raise RowError("empty", f"column {column!r} is an empty list of messages; take such rows out")
    return [_turn(one, f"message {place} of {column!r}") for place, one in enumerate(value)]


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, Mapping):
        raise RowError("no messages", f"{where} is {_kind(message)}, not {{role, content}}")
    names = next(((a, b) for a, b in KEYS if a in message), None)
    if names is None:
        raise RowError(
            "no messages", f"{where} has no 'role' (or 'from'); it has: {', '.join(map(str, message)) or 'nothing'}"
        )
    given = message[names[0]]
    role = ROLES.get(given.strip().lower()) if isinstance(given, str) else None
    if role is None:
        raise RowError("unknown role", f"{where} has the {names[0]} {given!r}; known: {', '.join(ROLES)}")
    others = {key: one for key, one in message.items() if key not in (*names, "weight") and one is not None}
    text = _content(message.get(names[1]), bool(others.get("tool_calls")), names[1], where)
    if not text.strip() and role in (ASSISTANT, "user") and not others.get("tool_calls"):
        raise RowError("empty", f"{where}, the {role}'s, has an empty {names[1]!r}; take such rows out")
    return Turn(
        role, text, others if "tool_calls" in others or role in ("tool", "function") else {}, message.get("weight") != 0
    )


def _content(content: Any, calls: bool, key: str, where: str) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        if calls:
            return ""
        raise RowError("empty", f"{where} has no {key!r} (null); take such rows out")
    if isinstance(content, list):  # parts, as chat APIs have them
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        if texts and all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
        raise RowError("no text", f"{where} has parts other than text in its {key!r}")
    raise RowError("no text", f"{where}: its {key!r} is {_kind(content)}, not text")


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


@dataclass
class Mended:
    """Count what was put right in rows, by what it was."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def usable(turns: Sequence[Turn], mended: Mended) -> list[Turn]:
    """Leave out an empty system turn, and what follows the last assistant's turn.

    Raises:
        RowError: the assistant says nothing.
    """
    kept = [turn for turn in turns if turn.role != "system" or turn.text.strip()]
    if len(kept) < len(turns):
        mended.add("an empty system turn, left out")
    last = max((place for place, turn in enumerate(kept) if turn.role == ASSISTANT and turn.learned), default=None)
    if last is None:
        weightless = " of a weight other than 0" if any(turn.role == ASSISTANT for turn in kept) else ""
        raise RowError(
            "no answer", f"the conversation has no assistant's turn{weightless}, so there is no answer to learn"
        )
    if last + 1 < len(kept):
        mended.add("turns after the last answer, left out")
    return kept[: last + 1]


def common_turns(chosen: Sequence[Turn], rejected: Sequence[Turn]) -> int:
    """Count the turns that make up a pair's prompt: all that both begin with, up to an assistant's turn.

    Raises:
        RowError: they part where the user speaks, so that the answers are to different prompts; or nothing comes before.
    """
    shortest = min(len(chosen), len(rejected))
    count = next((place for place in range(shortest) if chosen[place] != rejected[place]), shortest)
    parted = (one[count].role if count < len(one) else None for one in (chosen, rejected))
    if count < shortest and {*parted} != {ASSISTANT}:
        raise RowError(
            "two prompts",
            f"chosen and rejected part at message {count}, which is not the assistant's in both: their prompts differ",
        )
    while count and not (count < shortest and chosen[count].role == ASSISTANT):
        count -= 1
    return count


class ChatTemplate:
    """The model's own chat template, and the texts it makes of conversations."""

    def __init__(self, tokenizer: Any, control: ControlTokens) -> None:
        self._tokenizer, self._control = tokenizer, control

    def exchange(
        self, turns: Sequence[Turn], answers: Sequence[Sequence[Turn]], every: bool
    ) -> tuple[Markup, list[Markup]]:
        """Write a prompt and the answers to it.

        Args:
            turns: the prompt.
            answers: what follows it, once or twice; each begins and ends with an assistant's turn.
            every: learn every assistant's turn of the prompt, too, so that the prompt ends before the first of them.

        Raises:
            RowError: the template refuses the conversation, or writes it so that no answer can be told apart.
        """
        if every:
            first = next(
                (place for place, turn in enumerate(turns) if turn.role == ASSISTANT and turn.learned), len(turns)
            )
            turns, answers = turns[:first], [[*turns[first:], *answer] for answer in answers]
        if not turns:
            raise RowError(
                "no prompt", "the conversation begins with the assistant's turn: there is no prompt before the answer"
            )
        opening = self._write(turns, ready=True)
        wholes = [self._write([*turns, *answer]) for answer in answers]
        border = min(shared_start(opening, whole) for whole in wholes)
        for whole, answer in zip(wholes, answers, strict=True):
            self._check(turns[-1], whole[:border], whole[border:], answer)
        made = [
            whole.part(border, None, self._between(turns, answer, whole))
            for whole, answer in zip(wholes, answers, strict=True)
        ]
        return wholes[0].part(0, border), made

    def _check(self, asked: Turn, before: str, after: str, answer: Sequence[Turn]) -> None:
        """See that the prompt's last words stand before the border and the answer's behind it, as they were."""
        lines = answer[0].text.strip().splitlines()
        said = not lines or lines[-1].strip() in after
        if not said and len(answer) > 1:
            raise RowError("template", REWRITES)
        if not said or (asked.role == "user" and asked.text.strip() not in before):
            raise RowError(
                "template", "the model's chat template does not write the answer after its prompt, word for word"
            )

    def _between(self, turns: Sequence[Turn], answer: Sequence[Turn], whole: Markup) -> list[tuple[int, int]]:
        """Find the spans of the whole conversation after its prompt that nobody learns."""
        spans: list[tuple[int, int]] = []
        said = 0  # the last turn that is learned
        for place, turn in enumerate(answer[1:], 1):
            if turn.role == ASSISTANT and turn.learned:
                opening = self._write([*turns, *answer[:place]], ready=True)
                spans.append((self._end([*turns, *answer[: said + 1]], whole), shared_start(opening, whole)))
                said = place
        return spans

    def _end(self, turns: Sequence[Turn], whole: Markup) -> int:
        """Find where the whole conversation goes on after its first turns."""
        written = self._write(turns)
        if not whole.startswith(written):
            raise RowError("template", REWRITES)
        return len(written)

    def _write(self, turns: Sequence[Turn], ready: bool = False) -> Markup:
        """Render turns; `ready` for the assistant to speak."""

        def written(text_of: Any) -> str:
            messages = [{"role": turn.role, "content": text_of(turn.text), **turn.others} for turn in turns]
            made: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ready)
            return made

        try:
            return self._control.around(written, [turn.text for turn in turns])
        except Exception as error:  # a template is a program of the model's makers, and raises what it likes
            raise RowError("template", self._refusal(turns, error)) from None

    def _refusal(self, turns: Sequence[Turn], error: Exception) -> str:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        refused = f"the model's chat template refuses the conversation ({said})"
        if any(turn.role == "system" for turn in turns) and "system" in said.lower():
            return f"{refused}; put the system turn's text into the user's first turn"
        return f"{refused}; its roles are: {', '.join(turn.role for turn in turns)}"
