"""What the files of a record hold, as the rest of the program relies on it; a record that does not is broken.

Only what is read is asked for, and more keys are welcome: records of versions before and after have others. While a job
is at work its record is in the making; what a complete one must hold is in `missing_key` and `needed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

Finite = Annotated[float, Field(allow_inf_nan=False)]
Number = int | Finite
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Prefix(_Part):
    job: str
    step: Count


class _RunLabels(_Part):
    method: str
    base_method: str
    lambda_dpo: Number | None
    seed: int
    order: Literal["sft_dpo", "dpo_sft"] = "sft_dpo"
    phase_steps: dict[str, Count] | None = None
    options: dict[str, Any] = {}


class _ToyLabels(_Part):
    method: str
    base_method: str
    lambda_dpo: Number
    steps: Count
    seeds: Count


class _PolicyLabels(_Part):
    of: str


class _Spec(_Part):
    id: str
    kind: str
    labels: dict[str, Any]
    settings: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    data: dict[str, str] = {}
    roles: list[str] = []
    prefix: _Prefix | None = None
    environment: dict[str, Any] = {}
    environments: list[dict[str, Any]] = []
    plugins: list[dict[str, str]] = []
    collectors: dict[str, dict[str, str]] = {}


class _Status(_Part):
    outcome: Literal["complete", "failed", "stopped"]
    message: str = ""
    seconds: Number | None = None
    finished: str | None = None
    files: dict[str, str] = {}


class _Figure(_Part):
    value: Number | None
    unit: str = ""
    reason: str | None = None
    n: Number | None = None
    standard_error: Number | None = None
    low: Number | None = None
    high: Number | None = None
    interval_95: list[Number] | None = None
    quartiles: list[Number] | None = None


class _Metric(_Part):
    title: str
    unit: str = ""
    meaning: str = ""
    low: Number | None = None
    high: Number | None = None
    tolerance: Number = 0.0
    choose: str = ""
    item: str = ""


class _Stopping(_Part):
    step: Count
    reason: str
    early: bool
    dropped: list[str] = []


class _Logps(_Part):
    chosen: list[Finite] = []
    rejected: list[Finite] = []


class _RowLogps(_Part):
    objective: str
    logps: list[list[Finite]]


class _Step(_Part):
    step: Count = 0
    seconds: Number = 0.0
    phase: int = 0
    weights: dict[str, Number] = {}
    losses: dict[str, Number] = {}
    gaps: dict[str, Number] = {}
    probes: dict[str, Number] = {}


class _Point(_Part):
    step: Count


class _EvaluationLogps(_Logps):
    step: Count
    split: str = ""


class _Sample(_Part):
    """A row of what an evaluator saw; its keys are the evaluator's own."""


class _Usage(_Part):
    step: Count = 0
    seconds: Number = 0.0
    name: str = ""
    value: Number | None = None


class _Suite(_Part):
    name: str
    suite: dict[str, Any]
    jobs: list[str]
    smoke: bool = False
    kinds: dict[str, str] | None = None
    changes_of_shipped: dict[str, list[Any]] | None = None


class _Method(_Part):
    name: str
    label: str | None = None


class _Data(_Part):
    evaluation_split: str = "held_out"
    preference: dict[str, Any] | None = None
    instruction: dict[str, Any] | None = None


class _Objectives(_Part):
    beta: Number
    reduction: str | None = None


class _Rule(_Part):
    rule: str = "none"


class _Training(_Part):
    stopping: _Rule = _Rule()


class _Model(_Part):
    source: str | None = None
    path: str | None = None


class _Reference(_Part):
    policy: str | None = None


class _Settings(_Part):
    """What a report reads of the settings of a suite that trains language models."""

    description: str = ""
    notes: list[str] = []
    data: _Data
    objectives: _Objectives
    methods: list[_Method] = []
    lambdas: list[Number] = []
    phases: list[Annotated[list[Number], Field(min_length=2, max_length=2)]] | None = None
    seeds: list[int] = []
    order: str | None = None
    training: _Training = _Training()
    model: _Model | None = None
    reference: _Reference | None = None
    evaluation: dict[str, Any] = {}

    @model_validator(mode="after")
    def _a_phase_for_each(self) -> _Settings:
        if self.phases is not None and len(self.phases) != len(self.lambdas):
            raise ValueError("phases: must be as many as lambdas")
        return self


class _ToyTraining(_Part):
    phase: str
    schedule: str
    learning_rate: Number
    weight_decay: Number


class _ToySettings(_Part):
    """What a report reads of the settings of a toy suite."""

    description: str = ""
    notes: list[str] = []
    problem: dict[str, Any]
    training: _ToyTraining


_FILES: dict[str, Any] = {
    "suite.json": _Suite,
    "spec.json": _Spec,
    "status.json": _Status,
    "measurements.json": dict[str, _Figure],
    "scores.json": dict[str, _Figure],
    "metrics.json": dict[str, _Metric],
    "data.json": dict[str, Any],
    "stopping.json": _Stopping,
    "reference_logps.json": dict[str, _Logps],
    "row_logps.json": _RowLogps,
    "steps.jsonl": _Step,
    "trajectory.jsonl": _Point,
    "evaluation_logps.jsonl": _EvaluationLogps,
    "usage.jsonl": _Usage,
    "samples.jsonl": _Sample,
}
ROWS = tuple(name for name in _FILES if name.endswith(".jsonl"))
_TRAINED = ("train", "recipe", "adopt")
# Without these a complete job of a kind has not left what it is for.
_NEEDED = {
    "train": ("measurements.json",),
    "recipe": ("measurements.json",),
    "adopt": ("measurements.json",),
    "cost": ("measurements.json",),
    "reference_logps": ("reference_logps.json",),
    "row_optimum": ("row_logps.json",),
    "toy": ("problem.json", "scores.json", "trajectory.jsonl", "samples.jsonl"),
}
_KEYS = {
    "spec.json": ("settings", "inputs", "roles"),
    "steps.jsonl": ("seconds",),
    "usage.jsonl": ("name", "value"),
    "evaluation_logps.jsonl": ("split", "chosen", "rejected"),
}


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    made: TypeAdapter[Any] = TypeAdapter(_FILES[name], config=None if _is_model(name) else ConfigDict(strict=True))
    return made


def _is_model(name: str) -> bool:
    return isinstance(_FILES[name], type) and issubclass(_FILES[name], BaseModel)


def is_known(name: str) -> bool:
    """Say whether a file of this name is read as a record."""
    return name in _FILES


def wrong(name: str, value: Any) -> str:
    """Say what is wrong with the content of a JSON file, or with a row of a JSON lines file; "" if nothing is."""
    if name not in _FILES:
        return ""
    return _first_error(lambda: _adapter(name).validate_python(value))


def wrong_labels(kind: str, labels: Mapping[str, Any]) -> str:
    """Say what is wrong with a job's labels; "" if nothing is."""
    model: type[_Part] | None = _RunLabels if kind in _TRAINED else _ToyLabels if kind == "toy" else None
    if model is None and "of" in labels:
        model = _PolicyLabels
    if model is None:
        return ""
    made = model
    return _first_error(lambda: made.model_validate(labels), "labels")


def wrong_settings(settings: Mapping[str, Any]) -> str:
    """Say what is wrong with a suite's resolved settings, as far as a report reads them; "" if nothing is."""
    model: type[_Part] = _ToySettings if "problem" in settings else _Settings
    return _first_error(lambda: model.model_validate(settings), "suite")


def _first_error(check: Callable[[], object], at: str = "") -> str:
    try:
        check()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in (*([at] if at else []), *first["loc"]))
        said = first["msg"][:1].lower() + first["msg"][1:]
        return f"{place}: {said}" if place else said
    return ""


def missing_key(name: str, value: Mapping[str, Any]) -> str:
    """Name a key that a complete job's file, or row, must hold and does not; "" if it holds all."""
    return next((key for key in _KEYS.get(name, ()) if key not in value), "")


def needed(kind: str) -> tuple[str, ...]:
    """Name the files that every complete job of a kind has; the evaluators' stages have what they scored."""
    return _NEEDED.get(kind, ())


def wrong_steps(steps: Iterable[int | None], taken: float | None) -> str:
    """Say that a run's rows are not those of every step it took; "" if they are."""
    last = 0
    for number in steps:
        if number != last + 1:
            return f"has no row of step {last + 1}"
        last = number
    if taken is not None and last != taken:
        return f"ends at step {last} of {taken:g}"
    return ""
