"""Which fields of a request a model takes: by its family, by the suite, and by what it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# OpenAI's reasoning models, as documented in November 2026: another name for the longest reply; temperature, top_p and
# log-probabilities only without reasoning. The o-series cannot go without.
_WITHOUT_REASONING = re.compile(r"(?:.*/)?gpt-(?:[5-9]|[1-9]\d)(?:[.-].*)?")
_ALWAYS_REASONING = re.compile(r"(?:.*/)?o[1-9](?:-.*)?")
_LONGEST = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_LONGEST_NAME = re.compile(
    r"\b(max\w*(?:tokens?|length)\w*|\w*token_?(?:limit|budget|ceiling|cap)|\w*(?:output|reply|response|completion)_?(?:tokens|length)\w*"
    r"|\w+_(?:limit|budget|ceiling)|(?-i:\w+(?:Limit|Budget|Ceiling)))\b",
    re.IGNORECASE,
)
_CUE = (
    r"(?:\b(?:use|try|did you mean|renamed(?: to)?|replaced (?:by|with)|superseded by|in favou?r of|call(?:ed|s)?(?: it)?|named"
    r"|is now|expects?)\b|->|=>|→)"
)
_INSTEAD = re.compile(
    _CUE + r"[\W_]*(?:the )?(?:parameter |field |name )?[\W_]*((?-i:[a-z]+(?:_[a-z]+)+|[a-z]+[A-Z]\w+))", re.IGNORECASE
)
# Names of one word count where they are quoted and the longest reply is meant
_QUOTED_INSTEAD = re.compile(_CUE + r"[^'\"`.;]{0,30}['\"`]([A-Za-z_]+)['\"`]", re.IGNORECASE)
_USE_INSTEAD = re.compile(r"\buse [\W_]*([a-z][a-z_]*[a-z])\W* instead", re.IGNORECASE)
_ONE_OF_TWO = re.compile(r"\bboth\b|only one", re.IGNORECASE)
_AT_LEAST = re.compile(
    r"(?:>=|≥|at least|min(?:imum)?(?: value)?(?: of| is|[:=])?|greater than or equal to|not less than|no less than|between)"
    r"\D{0,3}(\d+)",
    re.IGNORECASE,
)
_AT_MOST = re.compile(
    r"(?:<=|≤|at most|max(?:imum)?(?: allowed)?(?: value)?(?: of| is|[:=])?|less than or equal to|not more than|no more than"
    r"|between \d+ and)\D{0,3}(\d+)",
    re.IGNORECASE,
)
_MORE_THAN = re.compile(r"(?:greater|more|larger|higher) than (\d+)(?![\d.]*\d)|> ?(\d+)\b(?!\.\d)", re.IGNORECASE)
_LESS_THAN = re.compile(r"(?:less|fewer|smaller|lower) than (\d+)(?![\d.]*\d)|< ?(\d+)\b(?!\.\d)", re.IGNORECASE)
_RANGE = re.compile(r"(?:range|interval|\bfrom|\bin|within)\D{0,12}(\d+) ?(?:\.\.+|-|–|,|to|and) ?(\d+)", re.IGNORECASE)
_AS_TEXT = re.compile(
    r"must be (?:a )?string|valid string|expected (?:a )?string|string_type|as a string", re.IGNORECASE
)
_NO_SYSTEM = re.compile(
    r"system.{0,30}\b(role|message|prompt|instruction|turn)s?\b|\broles?\b.{0,60}['\"`]?system\b|developer instruction",
    re.IGNORECASE,
)
# The same where a server's own template fails at it, as an error of the server: in words that can mean nothing else
_NO_SYSTEM_ROLE = re.compile(r"system (?:role|message|prompt)s? (?:is |are )?(?:not |un)supported", re.IGNORECASE)
_LISTED = re.compile(r"\b(?:supported|allowed|known|valid|accepted|permitted|available)\b[^.:;]*:", re.IGNORECASE)
_SET_TO = re.compile(r"\bset [\W_]*([a-z]+(?:_[a-z]+)+)[\W_]* to ['\"`](\w+)['\"`]")
_MISSING = re.compile(r"required|missing|must be (?:set|given|specified|provided)|needs?\b", re.IGNORECASE)
_ONLY_WITHOUT_REASONING = ("temperature", "top_p", "logprobs", "top_logprobs")
_SAMPLING = ("temperature", "top_p")  # left out rather than set to a bound
_EFFORTS = ("none", "minimal", "low", "medium", "high")
MOST_CHANGES = 16
# A reply that reasoning ate: what it may have then
LONGER_REPLIES = (2048, 16384)


def for_model(parameters: Mapping[str, Any], model: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is sent: a configuration's parameters as the model's family takes them, with the suite's own changes.

    Args:
        parameters: the configuration's.
        model: its name.
        own: the suite's; None takes a field out.
    """
    made = dict(parameters)
    if _WITHOUT_REASONING.fullmatch(model):
        made["reasoning_effort"] = "none"
    if _ALWAYS_REASONING.fullmatch(model):
        made = {name: value for name, value in made.items() if name not in ("temperature", "top_p")}
    if (_WITHOUT_REASONING.fullmatch(model) or _ALWAYS_REASONING.fullmatch(model)) and "max_tokens" in made:
        made["max_completion_tokens"] = made.pop("max_tokens")
    return {name: value for name, value in {**made, **own}.items() if value is not None}


def longest_reply(parameters: Mapping[str, Any]) -> int:
    """Return the tokens that a reply may have, for estimates of cost; 1 where nothing bounds it."""
    longest = _longest_field(parameters)
    return int(parameters[longest]) if longest else 1


def _longest_field(parameters: Mapping[str, Any]) -> str | None:
    """Return the field that bounds a reply."""
    bounds = (name for name in parameters if _LONGEST_NAME.fullmatch(name) and str(parameters[name]).isdigit())
    return next(bounds, None)


@dataclass
class Dialect:
    """What an endpoint takes, learned from its refusals.

    Attributes:
        sent: the fields of the next request.
        needed: fields without which a reply would be of no use.
        changes: what was changed, in words.
        system: whether it takes system messages.
    """

    sent: dict[str, Any]
    needed: tuple[str, ...] = ()
    changes: list[str] = field(default_factory=list)
    system: bool = True
    _tried: set[str] = field(default_factory=set)
    _longest: int = 0
    _longest_name: str | None = None

    def __post_init__(self) -> None:
        self._longest, self._longest_name = longest_reply(self.sent), _longest_field(self.sent)

    def messages(self, messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """Return messages as the endpoint takes them: where it has no system's, that stands at the head of the user's."""
        if self.system or not messages or messages[0]["role"] != "system":
            return [dict(one) for one in messages]
        first, *rest = messages
        if not rest:
            return [{"role": "user", "content": first["content"]}]
        return [{**rest[0], "content": f"{first['content']}\n\n{rest[0]['content']}"}, *map(dict, rest[1:])]

    def learn(self, tried: Mapping[str, Any], message: str, named: str | None, system: bool = True) -> bool:
        """Change what a refusal names; say whether another request has a chance.

        Args:
            tried: the fields that were refused.
            message: the endpoint's words.
            named: the field that it says it is about, if it says so.
            system: whether a system message was sent.
        """
        if self.sent != tried or self.system != system:  # another request has learned it meanwhile
            return True
        if len(self.changes) >= MOST_CHANGES:
            return False
        if self._set_as_told(tried, message):
            return True
        about = _about(tried, message, named)
        if about is None:
            return self._learn_of_others(tried, message, named)
        made = self._changed(dict(tried), about, message)
        if made is None:
            return False
        self._tried |= tried.keys() | made.keys()
        self.sent = made
        return True

    def learn_no_system(self, message: str, system: bool = True) -> bool:
        """Learn from a server's own error that its template takes no system message; say whether that is what it met."""
        if not system or not _NO_SYSTEM_ROLE.search(message):
            return False
        return not self.system or self._without_system()

    def names(self, tried: Mapping[str, Any], message: str, named: str | None) -> bool:
        """Say whether a refusal is about one of the fields that were sent."""
        return _about(tried, message, named) is not None

    def allow_longer(self, tried: Mapping[str, Any]) -> bool:
        """Let replies be longer, as one was cut off before it said anything; say whether another request has a chance."""
        if self.sent != tried:
            return True
        name = self._longest_name if self._longest_name in tried else _longest_field(tried)
        longer = next((one for one in LONGER_REPLIES if name and one > int(tried[name])), None)
        if name is None or longer is None:
            return False
        self.sent = {**tried, name: type(tried[name])(longer)}
        self.changes.append(f"{name}: {longer}, as a reply was cut off before it said anything")
        return True

    def _set_as_told(self, tried: Mapping[str, Any], message: str) -> bool:
        """Set a field to the word that a refusal says it is to be set to, once."""
        told = _SET_TO.search(message)
        if not told or f"{told[1]}={told[2]}" in self._tried or tried.get(told[1]) == told[2]:
            return False
        self.sent = {**tried, told[1]: told[2]}
        self._tried |= {*self.sent, f"{told[1]}={told[2]}"}
        self.changes.append(f"{told[1]}: {told[2]}")
        return True

    def _changed(self, made: dict[str, Any], about: str, message: str) -> dict[str, Any] | None:
        """Return the fields without what was refused, or with another name or value for it; None: it is needed."""
        if about == "logprobs" and "top_logprobs" in made and _bound(made["top_logprobs"], message) is not None:
            about = "top_logprobs"  # asked for are more of them than it gives
        value = made[about]
        other = self._other_value(about, value, message)
        if other is not None:
            made[about] = other
            self._tried.add(f"{about}={other}")
            self.changes.append(f"{about}: {_brief(other)}")
            return made
        renamed = self._other_name(made, about, message)
        if renamed is not None:
            del made[about]
            made[renamed] = value
            self._longest_name = renamed if about == self._longest_name else self._longest_name
            self.changes.append(f"{about} sent as {renamed}")
            return made
        effort = "reasoning_effort" in made or "reasoning_effort" in self._tried
        if about in _ONLY_WITHOUT_REASONING and not effort and not _ONE_OF_TWO.search(message):
            self.changes.append("reasoning_effort: none added")
            return made | {"reasoning_effort": "none"}
        if about in self.needed:
            return None
        self.changes.append(f"{about} left out")
        gone = {"logprobs": {"top_logprobs"}, "tools": {"tool_choice"}}.get(about, set()) | {about}
        return {name: one for name, one in made.items() if name not in gone}

    def _other_value(self, about: str, value: Any, message: str) -> Any:
        """Return a value that the refusal asks for, once; None where it names none."""
        other: Any = None
        if about == "reasoning_effort":
            offered = [one for one in _EFFORTS if one != value and re.search(rf"['\"`]{one}['\"`]", message)]
            other = offered[0] if offered else None
        elif about == "response_format" and isinstance(value, Mapping) and value.get("type") == "json_schema":
            other = {"type": "json_object"}
        elif about == "tool_choice":
            words = [one for one in ("required", "any", "auto") if one != value and re.search(rf"\b{one}\b", message)]
            other = words[0] if words else ("required" if isinstance(value, Mapping) else None)
        elif type(value) is int and about not in _SAMPLING and (bound := _bound(value, message)) is not None:
            other = bound
        elif isinstance(value, str) and value.isdigit() and (bound := _bound(int(value), message)) is not None:
            other = str(bound)  # that it is to be a text was learned before
        elif type(value) in (int, float) and _AS_TEXT.search(message):
            other = str(value)
        tried = f"{about}={other}" in self._tried
        return None if tried else other

    def _other_name(self, made: Mapping[str, Any], about: str, message: str) -> str | None:
        """Return the name that the refusal gives a field, or the other one of the longest reply."""
        known = made.keys() | self._tried
        names = [found[1] for pattern in (_USE_INSTEAD, _INSTEAD) for found in pattern.finditer(message)]
        if about == self._longest_name or _LONGEST_NAME.fullmatch(about):
            names += [found[1] for found in _QUOTED_INSTEAD.finditer(message)]
            names += [found[1] for found in _LONGEST_NAME.finditer(message)]
            names += [_LONGEST[about]] if about in _LONGEST else []
        fits = (name for name in names if name not in known and name.lower() != about.lower())
        return next(fits, None)

    def _learn_of_others(self, tried: Mapping[str, Any], message: str, named: str | None) -> bool:
        """Change what a refusal wants that is none of the fields: no system message, or a field that is missing."""
        of_a_role = named == "messages" and re.search(r"\b(system|role)\b", message, re.IGNORECASE)
        if self.system and (_NO_SYSTEM.search(message) or of_a_role):
            return self._without_system()
        wanted = _LONGEST_NAME.search(f"{named or ''} {message}")
        if wanted and wanted[1] not in self._tried | tried.keys() and _MISSING.search(message):
            self.sent = {**tried, wanted[1]: self._longest}
            self._tried |= self.sent.keys()
            self._longest_name = wanted[1]
            self.changes.append(f"{wanted[1]}: {self._longest} added")
            return True
        return False

    def _without_system(self) -> bool:
        self.system = False
        self.changes.append("the system message put at the head of the user's")
        return True


def _about(tried: Mapping[str, Any], message: str, named: str | None) -> str | None:
    """Return which of the fields a refusal is about; None where it is about none of them."""
    if named in tried:
        return named
    before = _LISTED.split(message, maxsplit=1)[0]  # what follows names what would be taken
    words = [word for text in (before, message) for word in re.findall(r"[A-Za-z_]+", text)]
    return next((word for word in words if word in tried), None)


def _bound(value: int, message: str) -> int | None:
    """Return the nearest value that a refusal allows; None where it names no bound that this value passes."""
    found = _RANGE.search(message)
    least, most = (int(found[1]), int(found[2])) if found else (_of(_AT_LEAST, message), _of(_AT_MOST, message))
    above, below = _of(_MORE_THAN, message), _of(_LESS_THAN, message)
    least = above + 1 if least is None and above is not None else least
    most = below - 1 if most is None and below is not None else most
    if least is not None and value < least:
        return least
    return most if most is not None and value > most else None


def _of(pattern: re.Pattern[str], message: str) -> int | None:
    """Return the number that a pattern finds."""
    found = pattern.search(message)
    return next((int(one) for one in found.groups() if one), None) if found else None


def _brief(value: Any) -> str:
    return str(value.get("type", value)) if isinstance(value, Mapping) else str(value)
