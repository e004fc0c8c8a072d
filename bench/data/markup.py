"""Text with control tokens: which spellings of them are meant, and which are only text that a row happens to hold.

A row may speak of `<|endoftext|>`; a chat template writes the same characters and means the token. Plain `str` is a row's
own text, in which none is meant. `Markup` is text that a template wrote around the row's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

_STAND_INS = 0xF0000  # characters for private use, one for each control token while a template is at work
_LAST_STAND_IN = 0xFFFFD


class Markup(str):
    """Text in which control tokens are meant, with the places where they are not and the spans that nobody learns.

    Attributes:
        spelled: where a control token's characters begin that came out of the row and are text.
        unlearned: spans [start, stop) of an answer that the model does not say, such as a user's turn in between.
    """

    spelled: tuple[int, ...]
    unlearned: tuple[tuple[int, int], ...]

    def __new__(cls, text: str, spelled: Iterable[int] = (), unlearned: Iterable[tuple[int, int]] = ()) -> Markup:
        made = super().__new__(cls, text)
        made.spelled, made.unlearned = tuple(spelled), tuple(unlearned)
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return str(self), self.spelled, self.unlearned

    def part(self, start: int, stop: int | None = None, unlearned: Iterable[tuple[int, int]] = ()) -> Markup:
        """Return the text from `start` to `stop`; `unlearned` spans are counted from the whole text's beginning."""
        stop = len(self) if stop is None else stop
        spelled = (place - start for place in self.spelled if start <= place < stop)
        return Markup(str(self)[start:stop], spelled, ((a - start, b - start) for a, b in unlearned))


def shared_start(one: str, other: str) -> int:
    """Count the characters that two texts begin with."""
    differing = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


class ControlTokens:
    """A tokenizer's control tokens, and how to keep a row's text from being taken for one."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        known = {token.content: token for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._tokens = sorted({*known, *tokenizer.all_special_tokens} - {""}, key=lambda one: (-len(one), one))
        self._flags = known
        self._pattern = re.compile("|".join(map(re.escape, self._tokens))) if self._tokens else None
        self._keeps_text: bool | None = None

    def around(self, template: Callable[[Callable[[str], str]], str], texts: Sequence[str]) -> Markup:
        """Let a template write around texts, and mark what they spell as text.

        Args:
            template: given a function that must be called on each text before it is put in; returns what it wrote.
            texts: all texts that it will put in.
        """
        if not self._pattern or not any(map(self._pattern.search, texts)):
            return Markup(template(lambda text: text))
        first = self._free(texts)
        stand_ins = {token: chr(first + place) for place, token in enumerate(self._tokens)}
        pattern = self._pattern
        written = template(lambda text: pattern.sub(lambda match: stand_ins[match.group()], text))
        tokens = {stand_in: token for token, stand_in in stand_ins.items()}
        pieces: list[str] = []
        spelled: list[int] = []
        length = 0
        for letter in written:
            if letter in tokens:
                spelled.append(length)
            pieces.append(tokens.get(letter, letter))
            length += len(pieces[-1])
        return Markup("".join(pieces), spelled)

    def _free(self, texts: Sequence[str]) -> int:
        """Find a run of characters for private use that no text holds."""
        used = {ord(letter) for text in texts for letter in text if ord(letter) >= _STAND_INS}
        first = _STAND_INS
        while used and first + len(self._tokens) <= _LAST_STAND_IN:
            taken = [place for place in used if first <= place < first + len(self._tokens)]
            if not taken:
                break
            first = max(taken) + 1
        return first

    def ids(self, text: str) -> list[int]:
        """Tokenize text, without what the tokenizer adds around it; control tokens only where they are meant.

        Raises:
            ValueError: the text spells one that the tokenizer cannot read as text.
        """
        found, meant_tokens = self._found(text)
        if not found:
            return list(self._tokenizer(str(text), add_special_tokens=False)["input_ids"])
        self.check(text)
        made: list[int] = []
        for piece, meant in self._pieces(text, meant_tokens):
            if meant:
                made.append(self._tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                made += self._tokenizer(piece, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return made

    def _found(self, text: str) -> tuple[list[re.Match[str]], list[re.Match[str]]]:
        """Find the control tokens that a text spells, and those that are meant."""
        found = list(self._pattern.finditer(text)) if self._pattern else []
        if not isinstance(text, Markup):
            return found, []
        spelled = set(text.spelled)
        return [one for one in found if one.start() in spelled], [one for one in found if one.start() not in spelled]

    def _pieces(self, text: str, meant: Sequence[re.Match[str]]) -> Iterator[tuple[str, bool]]:
        """Cut text at the tokens that are meant; some take the white space beside them along."""
        start, strip_left = 0, False
        for match in [*meant, None]:
            piece = str(text)[start : match.start() if match else None]
            flags = self._flags.get(match.group()) if match else None
            piece = piece.lstrip() if strip_left else piece
            yield (piece.rstrip() if flags and flags.lstrip else piece), False
            if match:
                yield match.group(), True
                start, strip_left = match.end(), bool(flags and flags.rstrip)

    def check(self, text: str) -> None:
        """See that the tokenizer can read as text what a text spells.

        Raises:
            ValueError: it cannot.
        """
        spelled, _ = self._found(text)
        if spelled and self._keeps_text is None:
            token = spelled[0].group()
            read = self._tokenizer(token, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            self._keeps_text = self._tokenizer.convert_tokens_to_ids(token) not in read
        if spelled and not self._keeps_text:
            raise ValueError(
                f"the text spells {spelled[0].group()!r}, which this tokenizer can read only as its control token"
            )

    def spelled(self, text: str) -> int:
        """Count the control tokens that a text spells without meaning them."""
        return len(self._found(text)[0])
