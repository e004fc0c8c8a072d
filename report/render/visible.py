"""Show characters that nobody sees: text from outside may turn lines round, hide letters or steer a terminal."""

from __future__ import annotations

import re
import unicodedata

# Controls but tab and line feed, soft hyphens, fillers, every zero-width and bidirectional mark, line and paragraph
# separators, variation selectors' supplement and tags, private use, lone surrogates and what is no character at all.
_UNSEEN = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f"
    "\\u2028-\\u202e\\u2060-\\u206f\\u2800\\u3164\\ud800-\\udfff\\ue000-\\uf8ff\\ufdd0-\\ufdef\\ufeff\\uffa0\\ufff0-\\ufffb\\ufffe"
    "\\uffff\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff\\U000f0000-\\U0010ffff]"
)
_JOINERS = "\u200c\u200d"


def visible(text: str) -> str:
    """Write what cannot be seen as its code point, such as ⟨U+202E⟩; tabs, line ends and joined emoji or letters stay."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSEEN.sub(_marked, text.replace("\r\n", "\n"))


def _marked(found: re.Match[str]) -> str:
    letter, text, place = found.group(), found.string, found.start()
    if letter in _JOINERS and 0 < place < len(text) - 1 and _joins(text[place - 1]) and _joins(text[place + 1]):
        return letter
    return f"⟨U+{ord(letter):04X}⟩"


def _joins(letter: str) -> bool:
    """Whether a joiner beside this means something: parts of an emoji, and scripts whose letters change with it."""
    emoji = unicodedata.category(letter) in ("So", "Sk") or letter == "\ufe0f"
    return emoji or unicodedata.bidirectional(letter) == "AL" or "\u0900" <= letter <= "\u0dff"
