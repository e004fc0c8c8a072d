"""What `bench compare` lets pass: which metrics gate, how large a worsening counts, how often it may be wrong.

A gate file is YAML; what it leaves out stays as in `DEFAULTS`. The first pattern that fits a metric's name decides, the
file's own before the defaults::

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

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from bench.errors import InputError, unknown_name

Better = Literal["lower", "higher"]


class Frozen(BaseModel):
    """Be immutable and refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Amount(Frozen):
    """Say how much of a metric: in its unit, or as a share of the base's figure."""

    value: float = Field(ge=0)
    relative: bool = False

    def of(self, base: float) -> float:
        """Return the amount in the metric's unit, given the base's figure."""
        return self.value * abs(base) if self.relative else self.value


def _amount(given: Any) -> Any:
    if isinstance(given, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", given)
        if not found:
            raise ValueError("must be a number in the metric's unit, or a share of the base's figure such as 5%")
        return Amount(value=float(found[1]) / 100, relative=True)
    if isinstance(given, int | float) and not isinstance(given, bool):
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
        better: which direction is; only needed for a metric that is not known here.
        gate: whether a regression of it fails the comparison; otherwise it is shown only.
        tolerance: a mean that is worse by no more than this is no regression, however sure it is.
        unseen: with it, the comparison is inconclusive while the 95 % interval reaches a worsening this big.
    """

    better: Better | None = None
    gate: bool | None = None
    tolerance: Given | None = None
    unseen: Given | None = None


class Gate(Frozen):
    """Hold a gate: see the module's example.

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

    @model_validator(mode="after")
    def _directions(self) -> Gate:
        for name, rule in self.metrics.items():
            if rule.better is None and not any(_fit(name, pattern) for pattern in DEFAULTS):
                raise ValueError(f"metrics.{name}: {unknown_name('metric', name, DEFAULTS)}; or say `better`")
        return self

    def rule(self, metric: str) -> Rule:
        """Return the rule for a metric: what the file says, completed by the defaults."""
        found = [rule for pattern, rule in (*self.metrics.items(), *DEFAULTS.items()) if _fit(metric, pattern)]

        def first(name: str, otherwise: Any) -> Any:
            return next((value for rule in found if (value := getattr(rule, name)) is not None), otherwise)

        return Rule(
            better=first("better", "lower"),
            gate=first("gate", False),
            tolerance=first("tolerance", Amount(value=0.0)),
            unseen=first("unseen", None),
        )


def _fit(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _quality(tolerance: Amount, better: Better = "lower") -> Rule:
    return Rule(better=better, gate=True, tolerance=tolerance)


def _cost(tolerance: float) -> Rule:
    return Rule(better="lower", gate=False, tolerance=Amount(value=tolerance, relative=True))


# What gates unless a file says otherwise: what a recipe is worth does, what it costs is shown (timings need a quiet machine).
DEFAULTS: dict[str, Rule] = {
    "f_dpo*": _quality(Amount(value=0.01, relative=True)),
    "f_sft*": _quality(Amount(value=0.01, relative=True)),
    "ideal_distance": _quality(Amount(value=0.05, relative=True)),
    "hypervolume": _quality(Amount(value=0.01), "higher"),  # in shares of the box between reference and ideal point
    "*/acc": _quality(Amount(value=0.01), "higher"),  # 1 point
    "win_rate/*": _quality(Amount(value=2.0), "higher"),  # 2 points
    "training_seconds": _cost(0.05),
    "all_in_seconds": _cost(0.05),
    "peak_memory_bytes": _cost(0.05),
    "gpu_memory_used_bytes": _cost(0.05),
    "energy_joules": _cost(0.05),
}


# ---- the file --------------------------------------------------------------------------------------------------------


def load(path: Path | None) -> Gate:
    """Read a gate file; the defaults without one.

    Raises:
        InputError: one line with file, line, key, value and what is allowed.
    """
    if path is None:
        return Gate()
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    lines: dict[tuple[str, ...], int] = {(): 1}
    value = _plain(path, node, (), lines) if node else {}
    if not isinstance(value, dict):
        raise InputError(f"{path}:1: a gate is a mapping of the keys {', '.join(Gate.model_fields)}; found {value!r}")
    try:
        return Gate.model_validate(value)
    except ValidationError as error:
        raise InputError(_explain(path, error, lines)) from None


def _plain(path: Path, node: yaml.Node, at: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> Any:
    """Turn a node into plain values and remember the line of each key; a key that stands twice is refused."""
    if not isinstance(node, yaml.MappingNode):
        return yaml.safe_load(yaml.serialize(node))
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in found:
            raise InputError(f"{path}:{line}: {'.'.join((*at, key))}: duplicate key; keep one")
        lines[(*at, key)] = line
        found[key] = _plain(path, value_node, (*at, key), lines)
    return found


def _explain(path: Path, error: ValidationError, lines: dict[tuple[str, ...], int]) -> str:
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    message = first["msg"].removeprefix("Value error, ")
    at = tuple(str(part) for part in first["loc"])
    if not at and message.startswith("metrics."):  # a check over all metrics names the one it means
        at, message = ("metrics", message.removeprefix("metrics.").split(": ")[0]), message.split(": ", 1)[1]
    known = at
    while known not in lines:
        known = known[:-1]
    where = f"{path}:{lines[known]}"
    if first["type"] == "extra_forbidden":
        allowed = Rule.model_fields if len(at) > 1 else Gate.model_fields
        return f"{where}: {unknown_name('key', at[-1], allowed)}"
    shown = f" = {first['input']!r}" if len(at) != 2 or at[0] != "metrics" else ""
    return f"{where}: {'.'.join(at)}{shown}: {message[0].lower()}{message[1:]}"
