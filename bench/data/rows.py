"""One row of a data set into text: the shapes of rows that are understood, and what is wrong with the others."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench.data.conversations import ASSISTANT as ASSISTANT_ROLE
from bench.data.conversations import (
    ChatTemplate,
    Mended,
    RowError,
    Turn,
    common_turns,
    is_conversation,
    turns_of,
    usable,
)
from bench.data.markup import ControlTokens, shared_start
from bench.errors import DataError
from bench.settings import InstructionColumns, InstructionData, PreferenceColumns, PreferenceData

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
ALPACA = "### Instruction:\n{prompt}\n\n### Response:\n"

# Names that are looked for where a suite names no column of its own.
CONVERSATIONS = ("messages", "conversations", "conversation", "dialog", "dialogue")
PROMPTS = ("prompt", "question", "instruction", "query", "input", *CONVERSATIONS)
ANSWERS = ("output", "completion", "response", "answer")
SYSTEM = ("system", "system_prompt")
PAIRS = (
    ("chosen", "rejected"),
    ("preferred_output", "non_preferred_output"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("preferred", "dispreferred"),
)


@dataclass(frozen=True)
class PreferenceRow:
    """One preference pair as text."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class InstructionRow:
    """One instruction with its answer as text."""

    prompt: str
    answer: str


Row = Mapping[str, Any]


def begin_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the token that a tokenizer puts before every text; none, where it puts none."""
    bos = tokenizer.bos_token_id
    return (bos,) if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else ()


def _column(row: Row, column: str) -> Any:
    if column not in row:
        raise RowError("no column", f"no column {column!r}; it has: {', '.join(row)}; map them under 'columns'")
    return row[column]


def _text(row: Row, column: str) -> str:
    value = _column(row, column)
    if isinstance(value, str):
        return value
    if value is None:
        raise RowError("empty", f"column {column!r} is empty; fill it in, or take such rows out of the file")
    if isinstance(value, (list, dict)):
        kind = type(value).__name__
        raise RowError("no text", f"column {column!r} holds {kind}, not text; for chat messages use format: messages")
    raise RowError("no text", f"column {column!r} holds {value!r}, not text; write it in quotes")


def _said(row: Row, column: str) -> str:
    """Read an answer, which says something."""
    text = _text(row, column)
    if not text.strip():
        raise RowError("empty", f"column {column!r} is empty; fill it in, or take such rows out of the file")
    return text


def _first_of(row: Row, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in row), None)


@dataclass
class Reader:
    """Read rows of one data set.

    Attributes:
        tokenizer: of the model, for its chat template and its control tokens.
        mended: what was put right, counted.
        shapes: in what shapes rows came, counted.
        read: names of the columns that were read.
    """

    tokenizer: Any
    mended: Mended = field(default_factory=Mended)
    shapes: dict[str, int] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    @cached_property
    def control(self) -> ControlTokens:
        return ControlTokens(self.tokenizer)

    @cached_property
    def template(self) -> ChatTemplate:
        if self.tokenizer.chat_template is None:
            raise DataError("format messages needs a tokenizer with a chat template; this model has none")
        return ChatTemplate(self.tokenizer, self.control)

    @cached_property
    def _begins(self) -> bool:
        """Whether the model's tokenizer begins a text with a token of its own, so that a prompt may be empty."""
        return bool(begin_ids(self.tokenizer))

    def check(self, row: PreferenceRow | InstructionRow) -> None:
        """See that a row can be tokenized, and that there is something before its answer.

        Raises:
            RowError: it cannot.
        """
        if not row.prompt and not self._begins:
            raise RowError(
                "empty", "the prompt is empty, so nothing predicts its answer's first token; take such rows out"
            )
        for text in vars(row).values():
            try:
                self.control.check(text)
            except ValueError as error:
                raise RowError("control token", f"{error}; take such rows out") from None

    def _came_as(self, shape: str, *columns: str | None) -> None:
        self.shapes[shape] = self.shapes.get(shape, 0) + 1
        self.read.update(column for column in columns if column)

    def _system(self, row: Row, named: str | None) -> list[Turn]:
        """Read a row's system text; the default column may be absent, a mapped one may not."""
        column = named or _first_of(row, SYSTEM)
        if column is None or (row.get(column) is None and column in row):
            return []
        text = _text(row, column)
        self.read.add(column)
        return [Turn("system", text)] if text.strip() else []


class PreferenceReader(Reader):
    """Read preference pairs."""

    def pair(self, row: Row, source: PreferenceData) -> PreferenceRow:
        """Read one pair.

        Raises:
            RowError: it cannot be used.
        """
        chosen, rejected = self._answers(row, source.columns)
        prompt = _prompt_column(row, source.columns)
        system = source.columns.system
        if source.format == "messages":
            return self._conversations(row, prompt, chosen, rejected, self._system(row, system))
        one, other = _said(row, chosen), _said(row, rejected)
        if prompt is not None:
            self._came_as(f"{prompt}, {chosen}, {rejected} as text", prompt, chosen, rejected)
            asked = _text(row, prompt)
        else:
            self._came_as(f"{chosen}, {rejected} as text that begins with the prompt", chosen, rejected)
            asked = (_common_dialogue if source.format == "hh_dialogue" else common_text)(one, other)
            one, other = one[len(asked) :], other[len(asked) :]
        if system is not None:
            asked = _below([turn.text for turn in self._system(row, system)], asked)
        if source.format == "hh_dialogue" and asked.endswith(ASSISTANT + " "):
            asked, one, other = asked[:-1], f" {one}", f" {other}"
            self.mended.add("a space behind the prompt, given to the answers")
        if source.format == "hh_dialogue" and not (asked.startswith(HUMAN) and asked.endswith(ASSISTANT)):
            raise RowError(
                "no dialogue",
                f"not an hh_dialogue prompt, which starts with {HUMAN!r} and ends with {ASSISTANT!r}",
            )
        return PreferenceRow(asked, one, other)

    def _answers(self, row: Row, columns: PreferenceColumns) -> tuple[str, str]:
        """Name the columns of the better and the worse answer."""
        named = columns.model_fields_set
        chosen, rejected = columns.chosen, columns.rejected
        if not named & {"chosen", "rejected"}:
            chosen, rejected = next((pair for pair in PAIRS if pair[0] in row and pair[1] in row), (chosen, rejected))
        if columns.preference is None:
            _column(row, chosen), _column(row, rejected)
            return chosen, rejected
        self.read.add(columns.preference)
        first = _first_is_better(_column(row, columns.preference), columns.preference, (chosen, rejected))
        return (chosen, rejected) if first else (rejected, chosen)

    def _conversations(
        self, row: Row, prompt: str | None, chosen: str, rejected: str, system: list[Turn]
    ) -> PreferenceRow:
        texts = [name for name in (prompt, chosen, rejected) if name and not is_conversation(row[name])]
        kinds = "text" if len(texts) == 3 else "messages" if not texts else f"messages, {' and '.join(texts)} as text"
        self._came_as(f"{', '.join(filter(None, (prompt, chosen, rejected)))} as {kinds}", prompt, chosen, rejected)
        asked = [] if prompt is None else _turns(row, prompt, "user")
        one, other = (self._whole(row, name, asked) for name in (chosen, rejected))
        if system and one[0].role != "system" and other[0].role != "system":
            one, other = [*system, *one], [*system, *other]
        one, other = (usable(turns, self.mended) for turns in (one, other))
        count = common_turns(one, other)
        made, (better, worse) = self.template.exchange(one[:count], (one[count:], other[count:]), every=False)
        return PreferenceRow(made, better, worse)

    def _whole(self, row: Row, name: str, asked: list[Turn]) -> list[Turn]:
        """Read an answer as a conversation from its beginning."""
        turns = _turns(row, name, ASSISTANT_ROLE)
        if turns[0].role == ASSISTANT_ROLE and asked:
            return [*asked, *turns]
        spoken = [turn.text.strip() for turn in asked if turn.role == "user"]
        if spoken and spoken[-1] not in [turn.text.strip() for turn in turns]:
            self.mended.add("a prompt column other than the conversation's prompt, which was taken")
        return turns


class InstructionReader(Reader):
    """Read instructions with their answers."""

    def row(self, row: Row, source: InstructionData) -> InstructionRow:
        """Read one row.

        Raises:
            RowError: it cannot be used.
        """
        columns = source.columns
        if source.format == "messages":
            turns = self._turns(row, source)
            *before, last = usable([*self._system_before(row, columns, turns), *turns], self.mended)
            return InstructionRow(*self._exchange(before, last, source.train_on == "all"))
        asked, answer, extra = _instruction_columns(row, columns)
        self._came_as(f"{', '.join(filter(None, (asked, extra, answer)))} as text", asked, extra, answer)
        prompt, said = _asked(row, asked, extra), source.answer_prefix + _said(row, answer)
        if columns.system is not None:
            prompt = _below([turn.text for turn in self._system(row, columns.system)], prompt)
        if source.format == "alpaca":
            template = source.template or ALPACA
            prompt = self.control.around(lambda put: template.replace("{prompt}", put(prompt)), [prompt])
        return InstructionRow(prompt, said)

    def _exchange(self, before: list[Turn], last: Turn, every: bool) -> tuple[str, str]:
        prompt, (answer,) = self.template.exchange(before, [[last]], every=every)
        return prompt, answer

    def _system_before(self, row: Row, columns: InstructionColumns, turns: list[Turn]) -> list[Turn]:
        return [] if turns[0].role == "system" else self._system(row, columns.system)

    def _turns(self, row: Row, source: InstructionData) -> list[Turn]:
        columns = source.columns
        name = columns.messages or next((one for one in CONVERSATIONS if is_conversation(row.get(one))), None)
        name = name or next((one for one in CONVERSATIONS if isinstance(row.get(one), list)), None)
        if name is not None:
            self._came_as(f"{name} as {_form(_column(row, name))}", name)
            return turns_of(row[name], name)
        if not _named(columns) and "prompt" in row and "completion" in row:
            self._came_as("prompt, completion", "prompt", "completion")
            return [*_turns(row, "prompt", "user"), *_turns(row, "completion", ASSISTANT_ROLE)]
        asked, answer, extra = _instruction_columns(row, columns)
        self._came_as(f"{', '.join(filter(None, (asked, extra, answer)))} as text", asked, extra, answer)
        return [
            Turn("user", _asked(row, asked, extra)),
            Turn(ASSISTANT_ROLE, source.answer_prefix + _said(row, answer)),
        ]


def _form(value: Any) -> str:
    first = value[0] if isinstance(value, list) and value else value
    return "from and value" if isinstance(first, Mapping) and "from" in first else "role and content"


def _turns(row: Row, name: str, role: str) -> list[Turn]:
    """Read a column of messages; a plain text is one, of that role."""
    value = _column(row, name)
    if isinstance(value, str) and not is_conversation(value):
        if not value.strip():
            raise RowError("empty", f"column {name!r} is empty; fill it in, or take such rows out of the file")
        return [Turn(role, value)]
    return turns_of(value, name)


def _named(columns: InstructionColumns) -> bool:
    """Say whether the suite names columns of its own; the names that are so by default do not count."""
    default = InstructionColumns()
    return any(getattr(columns, name) != getattr(default, name) for name in ("instruction", "output"))


def _prompt_column(row: Row, columns: PreferenceColumns) -> str | None:
    """Name the column of the prompt; None where both answers begin with it."""
    if columns.prompt is None or columns.prompt in row:
        return columns.prompt
    if columns.prompt != PreferenceColumns().prompt:
        _column(row, columns.prompt)
    return _first_of(row, PROMPTS)


def _instruction_columns(row: Row, columns: InstructionColumns) -> tuple[str, str, str | None]:
    """Name the columns of what is asked, of the answer and of the input, if any.

    Where the suite's names are the default ones and not there, names that are usual elsewhere are looked for.
    """
    asked, answer, extra = columns.instruction, columns.output, columns.input
    if not _named(columns) and not (asked in row and answer in row):
        asked = _first_of(row, PROMPTS[: -len(CONVERSATIONS)]) or asked
        answer = _first_of(row, [name for name in ANSWERS if name != asked]) or answer
    _column(row, asked), _column(row, answer)
    absent = extra is not None and "input" not in columns.model_fields_set and extra not in row
    return asked, answer, None if absent or extra == asked else extra


def _asked(row: Row, asked: str, extra: str | None) -> str:
    """Put an input on the line below its instruction; null means none."""
    text = _text(row, asked)
    below = "" if extra is None or row.get(extra, "") is None else _text(row, extra)
    if not (text.strip() or below.strip()):
        raise RowError("empty", f"column {asked!r} is empty; fill it in, or take such rows out of the file")
    return f"{text}\n{below}" if below else text


def _below(above: Sequence[str], text: str) -> str:
    return "\n\n".join([*above, text])


# ---- which of two answers is better ---------------------------------------------------------------------------------

_FIRST = {"a", "first", "model_a", "response_a", "response_1", "chosen", "left"}
_SECOND = {"b", "second", "model_b", "response_b", "response_2", "rejected", "right"}


def _first_is_better(value: Any, column: str, answers: tuple[str, str]) -> bool:
    """Read which answer was preferred: its column's name or a usual word for it, or a number, negative for the first."""
    if isinstance(value, str):
        word = value.strip().lower()
        first, second = _FIRST | {answers[0].lower()}, _SECOND | {answers[1].lower()}
        if (word in first) != (word in second):
            return word in first
        value = _number(word)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value and value != 0:
        return value < 0
    if value == 0 or value is None or isinstance(value, str):
        raise RowError("tie", f"column {column!r} prefers neither answer ({value!r}); take such rows out")
    raise RowError(
        "no preference", f"column {column!r} holds {value!r}; a number is taken, negative for {answers[0]!r}, or a name"
    )


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


# ---- where a text's prompt ends ---------------------------------------------------------------------------------------

_WORD = re.compile(r"\w+(?:['’-]\w+|(?<=\d)[.,](?=\d)\w+)*")
# Written without spaces: every letter may end a word.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def common_text(one: str, other: str) -> str:
    """Return what two texts begin with, up to a word's end; the space before the next word belongs to the answers.

    Raises:
        RowError: nothing is left of the prompt, or of an answer.
    """
    border = shared_start(one, other)
    if one == other:
        raise RowError(
            "equal",
            "chosen and rejected are the same text, so nothing tells where the prompt ends; name a prompt column",
        )
    borders = (place for place in range(border, 0, -1) if not any(_inside_a_word(text, place) for text in (one, other)))
    for place in borders:
        start = place - 1 if one[place - 1] == " " else place
        if one[start:].strip() and other[start:].strip() and one[:start].strip():
            return one[:start]
    raise RowError(
        "no prompt", "chosen and rejected do not begin with a common prompt of whole words; name a prompt column"
    )


def _inside_a_word(text: str, place: int) -> bool:
    if place >= len(text):
        return False
    before, after = text[place - 1], text[place]
    if unicodedata.combining(after) or "\u200d" in (before, after):
        return True
    if _UNSPACED.match(before) or _UNSPACED.match(after):
        return False
    return any(match.start() < place < match.end() for match in _words_near(text, place))


def _words_near(text: str, place: int) -> Iterator[re.Match[str]]:
    """Find the words of the piece without white space that a place lies in."""
    start = max(text.rfind(space, 0, place) for space in " \n\t") + 1
    piece = re.compile(r"\S*").match(text, start)
    return _WORD.finditer(text, start, piece.end() if piece else len(text))


def _common_dialogue(one: str, other: str) -> str:
    """Return the dialogue that two texts share: two answers that begin alike share more than it."""
    shared = one[: shared_start(one, other)]
    return shared[: shared.rfind(ASSISTANT) + len(ASSISTANT)] if ASSISTANT in shared else shared
