"""What a figure is: a `Metric` stands beside whatever measures it and travels with the records that hold its values.

Report, leaderboard, gate, `--choose`, `compare` and model card go through what the records describe; none of them lists
names. A job's metrics.json maps a name to its description; a name below it with further parts, such as
`mmlu/acc/anatomy`, is a part of the same figure. Standard library only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal, get_args

Better = Literal["lower", "higher"]
Kind = Literal["objective", "score", "cost", "count"]
Scale = Literal["linear", "log"]


_KNOWN: dict[str, tuple[Any, ...]] = {
    "better": (*get_args(Better), None),
    "kind": get_args(Kind),
    "scale": get_args(Scale),
}
_UNKNOWN = {"better": None, "kind": "count", "scale": "linear"}


@dataclass(frozen=True)
class Metric:
    """Describe one figure.

    Attributes:
        name: as in scores.json or measurements.json, such as energy_joules or gsm8k/exact_match,strict-match.
        title: how a table heads it.
        unit: of a value on record; `share` is shown in percent.
        better: which direction is; None: neither.
        kind: an objective in nats; a score of what a policy answers; a cost, which compares on equal machines only; a
            count of what was done.
        meaning: one line on what it says.
        low, high: the range that a value, and so its interval, can lie in; None: no end, but that a score in shares lies in
            [0, 1] and that counts, seconds, bytes and joules are not negative.
        gate: whether a worsening fails `bench compare` where no gate file says otherwise.
        tolerance: how much worse a mean may be without counting as worse, in `unit`, or as a share if `relative`.
        choose: its name in `--choose`; "" for the name itself, with what is no letter or digit replaced by _.
        item: what one outcome belongs to, such as question or judged pair; "" where there are no single outcomes.
        of_process: whether it is the process's own, whatever else the machine does; other costs change with that.
        scale: `log` where ratios compare, as of perplexities: estimates are made of logarithms.
    """

    name: str
    title: str
    unit: str
    better: Better | None
    kind: Kind
    meaning: str = ""
    low: float | None = None
    high: float | None = None
    gate: bool = False
    tolerance: float = 0.0
    relative: bool = False
    choose: str = ""
    item: str = ""
    of_process: bool = False
    scale: Scale = "linear"

    def __post_init__(self) -> None:
        """Refuse a figure that nobody could read or compare.

        Raises:
            ValueError: says which part is wrong.
        """
        for part, known in _KNOWN.items():
            if getattr(self, part) not in known:
                allowed = " or ".join(repr(one) for one in known)
                raise ValueError(f"Metric {self.name!r}: {part} = {getattr(self, part)!r}: must be {allowed}")
        if not self.name or not isinstance(self.name, str):
            raise ValueError(f"Metric {self.name!r}: its name is a text")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"Metric {self.name!r}: low = {self.low:g} must lie below high = {self.high:g}")
        if not self.tolerance >= 0:
            raise ValueError(f"Metric {self.name!r}: tolerance = {self.tolerance!r}: must not be negative")

    @property
    def range(self) -> tuple[float, float]:
        """Where a mean can lie, on the scale of estimates: what is declared, else what the unit of its kind implies."""
        least, most = -math.inf, math.inf
        if self.kind == "count" or (self.kind, self.unit) in (("cost", "s"), ("cost", "B"), ("cost", "J")):
            least = 0.0
        elif (self.kind, self.unit) == ("score", "share"):
            least, most = 0.0, 1.0
        low, high = least if self.low is None else self.low, most if self.high is None else self.high
        return (_log(low), _log(high)) if self.scale == "log" else (low, high)

    @property
    def reach(self) -> float:
        """How large a difference of two means can be, on that scale; infinite without both ends."""
        low, high = self.range
        return high - low

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values, without its name and without what is left at its default."""
        own = asdict(self)
        return {one.name: own[one.name] for one in fields(self) if one.name != "name" and own[one.name] != one.default}

    @cached_property
    def choose_name(self) -> str:
        """Its name in `--choose`."""
        return self.choose or "".join(letter if letter.isalnum() else "_" for letter in self.name)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def from_dict(name: str, value: Mapping[str, Any]) -> Metric:
    """Read a description; keys and words of another version are passed over, so that no direction counts as better."""
    known = {one.name for one in fields(Metric)}
    read = {key: entry for key, entry in value.items() if key in known and key != "name"}
    strange = {key: _UNKNOWN[key] for key, words in _KNOWN.items() if key in read and read[key] not in words}
    return Metric(name=name, **{**read, **strange})


def describe(metrics: Iterable[Metric]) -> dict[str, dict[str, Any]]:
    """Return the content of metrics.json."""
    return {one.name: one.as_dict() for one in metrics}


def find(name: str, known: Mapping[str, Metric]) -> Metric | None:
    """Look a figure up by its name or the longest beginning of it that is described."""
    parts = name.split("/")
    for end in range(len(parts), 0, -1):
        found = known.get("/".join(parts[:end]))
        if found:
            return found
    return None


# ---- records made before metrics.json ----------------------------------------------------------------------------------

_NATS: dict[str, Any] = {
    "unit": "nats",
    "better": "lower",
    "kind": "objective",
    "low": 0.0,
    "gate": True,
    "tolerance": 0.01,
    "relative": True,
}
_COST: dict[str, Any] = {"better": "lower", "kind": "cost", "tolerance": 0.05, "relative": True}
_ACCURACY: dict[str, Any] = {
    "unit": "share",
    "better": "higher",
    "kind": "score",
    "meaning": "share of right answers",
    "low": 0.0,
    "high": 1.0,
    "gate": True,
    "tolerance": 0.01,
    "item": "question",
}
_WIN_RATE: dict[str, Any] = {
    "unit": "%",
    "better": "higher",
    "kind": "score",
    "meaning": "share of pairs in which a judge prefers our answer",
    "low": 0.0,
    "high": 100.0,
    "gate": True,
    "tolerance": 2.0,
    "item": "judged pair",
}


_CHOOSE = {"training_seconds": "seconds", "peak_memory_bytes": "memory", "energy_joules": "energy"}
_SUFFIXES = {"s": "seconds", "B": "bytes", "J": "joules", "%": "percent"}


def undescribed(name: str, unit: str = "") -> Metric:
    """Describe a figure of a record that does not itself: from its name, and the unit that its entry has."""
    first, *rest = name.split("/")
    if first in ("f_dpo", "f_sft"):
        split = {"held_out": " held-out", "train": " train"}.get("/".join(rest), "")
        return Metric(name, f"f_{first[2:].upper()}{split}", **_NATS)
    if rest and rest[0].startswith("acc"):
        title = "MMLU" if (first, rest[0]) == ("mmlu", "acc") else f"Accuracy ({first})"
        return Metric("/".join((first, rest[0])), title, **_ACCURACY)
    if first == "win_rate":
        return Metric(name, "Win rate", **_WIN_RATE)
    if rest:
        words = " ".join((first, rest[0])).replace("_", " ")
        return Metric("/".join((first, rest[0])), words[:1].upper() + words[1:], unit, None, "score", item="question")
    title = first.removesuffix(f"_{_SUFFIXES.get(unit, unit)}").replace("_", " ")
    title = re.sub(r"\b(gpu|cpu|dpo|sft)\b", lambda found: found[0].upper(), title[:1].upper() + title[1:], flags=re.I)
    if unit == "%":
        return Metric(name, title, unit, None, "cost", low=0.0)
    if unit in ("s", "B", "J"):
        return Metric(name, title, unit, choose=_CHOOSE.get(name, ""), low=0.0, **_COST)
    return Metric(name, title, unit, None, "count")
