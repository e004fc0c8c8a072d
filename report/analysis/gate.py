"""What `bench compare` lets pass: which metrics gate, how large a worsening counts, how often it may be wrong.

A gate file is YAML; what it leaves out stays as in `DEFAULTS`. The first pattern that fits a metric's name decides, key by
key: what its rule leaves out is the next fitting one's to say, and then the metric's own::

    level: 0.05                  # chance of calling anything a regression when nothing changed
    metrics:
      mmlu/acc:
        tolerance: 0.02          # in the metric's unit: 2 points of accuracy
        unseen: 0.05             # inconclusive while a worsening this big could be hidden
      training_seconds:
        gate: true
        tolerance: 10%           # of the base's figure
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError

from bench import strict_yaml
from bench.errors import InputError, shortened, unknown_name
from bench.frozen import Frozen
from bench.records.metrics import Better, Metric
from report.analysis.metrics import HYPERVOLUME


class Amount(Frozen):
    """Say how much of a metric: in its unit, or as a share of the base's figure."""

    value: float = Field(ge=0)
    relative: bool = False

    def of(self, base: float, metric: Metric) -> float:
        """Return the amount on the scale on which the metric compares, given the base's estimate there."""
        if metric.scale == "log":
            share = self.value if self.relative else self.value / math.exp(base)
            return math.log1p(share)
        return self.value * abs(base) if self.relative else self.value


def _amount(given: Any) -> Any:
    if isinstance(given, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", given)
        if not found:
            raise ValueError("must be a number in the metric's unit, or a share of the base's figure such as 5%")
        return Amount(value=float(found[1]) / 100, relative=True)
    if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
        if given < 0:
            raise ValueError("must not be negative: the direction that is worse is known")
        return Amount(value=float(given))
    if isinstance(given, Amount):
        return given
    raise ValueError("must be a number in the metric's unit, or a share of the base's figure such as 5%")


Given = Annotated[Amount, BeforeValidator(_amount)]


class Rule(Frozen):
    """Judge one metric, or all that fit a pattern such as `*/acc`.

    Attributes:
        better: which direction is; only needed for a metric of which neither is.
        gate: whether a regression of it fails the comparison; otherwise it is shown only. Objectives, distances and scores
            do unless a file says otherwise, costs do not: timings need a quiet machine.
        tolerance: a mean that is worse by no more than this is no regression, however sure it is.
        unseen: with it, the comparison is inconclusive while the 95 % interval reaches a worsening this big.
    """

    better: Better | None = None
    gate: bool | None = None
    tolerance: Given | None = None
    unseen: Given | None = None


class Gate(Frozen):
    """A gate: see the module's example.

    Attributes:
        level: the chance, over all gating comparisons together, of calling one a regression when nothing changed.
        seeds: with fewer on either side a gating metric is inconclusive; at least 3.
        suites: patterns of suites to compare.
        metrics: rules by metric or pattern.
    """

    level: float = Field(default=0.05, gt=0, lt=0.5)
    seeds: int = Field(default=3, ge=3)
    suites: tuple[str, ...] = ("*",)
    metrics: dict[str, Rule] = Field(default_factory=dict)
    _places: dict[str, str] = PrivateAttr(default_factory=dict)  # pattern -> file:line

    def rule(self, metric: Metric) -> Ruling:
        """Return the rule for a metric: what the file says, completed by what the metric says of itself."""
        found = [rule for pattern, rule in self.metrics.items() if _fit(metric.name, pattern)]

        def first(name: str, otherwise: Any) -> Any:
            return next((value for rule in found if (value := getattr(rule, name)) is not None), otherwise)

        return Ruling(
            better=first("better", metric.better),
            gate=first("gate", metric.gate),
            tolerance=first("tolerance", Amount(value=metric.tolerance, relative=metric.relative)),
            unseen=first("unseen", None),
        )

    def asks_for(self, name: str) -> bool:
        """Whether the file itself, and not a default, has a metric gate."""
        given = (rule.gate for pattern, rule in self.metrics.items() if _fit(name, pattern))
        return next((one for one in given if one is not None), False)

    def check(self, sides: Sequence[Described]) -> None:
        """See that every rule of the file is of a figure that is there, and that its direction is known.

        Raises:
            InputError: one line that names the rule and what it may have meant.
        """
        metrics = {name: side.metric(name) for side in sides for name in (*side.metrics, HYPERVOLUME)}
        for pattern, rule in self.metrics.items():
            fitting = [one for name, one in metrics.items() if _fit(name, pattern)]
            where = f"{self._places.get(pattern, 'gate')}: metrics.{pattern}"
            if not fitting:
                raise InputError(f"{where}: {_no_such(pattern, metrics)}")
            unknown = next((one for one in fitting if (made := self.rule(one)).gate and made.better is None), None)
            if rule.gate and unknown is not None:
                raise InputError(
                    f"{where}: neither direction of {unknown.name} is better; say `better: lower` or `higher`"
                )


@dataclass(frozen=True)
class Ruling:
    """Say how one metric is judged; see `Rule`. Without a `better` it can be told only whether it differs."""

    better: Better | None
    gate: bool
    tolerance: Amount
    unseen: Amount | None


class Described(Protocol):
    """What has figures and says what they are, such as a side of a comparison."""

    @property
    def metrics(self) -> tuple[str, ...]: ...

    def metric(self, name: str) -> Metric: ...


def _no_such(pattern: str, known: Mapping[str, Metric]) -> str:
    """Word the error for a rule that fits no figure: which ones begin like it, or the nearest, or all there are."""
    begun = [name for name in known if name.startswith((f"{pattern},", f"{pattern}/"))]
    if begun:
        return f"more than one figure begins so; name one: {', '.join(begun)}; or all of them: {pattern}*"
    return f"{unknown_name('metric', pattern, known)}; a name or a pattern such as */acc must fit one"


def _fit(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


# ---- the file --------------------------------------------------------------------------------------------------------


def load(path: Path | None) -> Gate:
    """Read a gate file; the defaults without one.

    Raises:
        InputError: one line with file, line, key, value and what is allowed.
    """
    if path is None:
        return Gate()
    read = strict_yaml.read(path)
    value, lines = {} if read.value is None else read.value, {(): 1, **read.lines}
    if not isinstance(value, dict):
        keys = ", ".join(Gate.model_fields)
        raise InputError(f"{path}:1: a gate is a mapping of the keys {keys}; found {shortened(repr(value))}")
    try:
        made = Gate.model_validate(value)
    except ValidationError as error:
        raise InputError(_explain(path, error, lines)) from None
    made._places.update(
        {str(at[1]): f"{path}:{line}" for at, line in lines.items() if len(at) == 2 and at[0] == "metrics"}
    )
    return made


def _explain(path: Path, error: ValidationError, lines: Mapping[strict_yaml.Place, int]) -> str:
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    message = first["msg"].removeprefix("Value error, ")
    at = first["loc"]
    known = at
    while known not in lines:
        known = known[:-1]
    where = f"{path}:{lines[known]}"
    if first["type"] == "extra_forbidden":
        allowed = Rule.model_fields if len(at) > 1 else Gate.model_fields
        return f"{where}: {unknown_name('key', str(at[-1]), allowed)}"
    shown = f" = {shortened(repr(first['input']))}" if len(at) != 2 or at[0] != "metrics" else ""
    return f"{where}: {strict_yaml.dotted(at)}{shown}: {message[0].lower()}{message[1:]}"
