"""What a toy suite may say: a suite with the key `problem`, whose policies are softmax policies of a few parameters.

One input and one pair of answers per objective, as in the paper's Appendices A.2 (Theorems 3.1 and 4.1) and D.1 (Figure
2). The methods, λ and the commands are those of a language model's suite.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bench.methods import METHODS, Need, Objective, Phase, Setup
from bench.registry import options_of
from bench.settings import Frozen, Positive, Share
from bench.suite.suite import Experiment, Method, names_alone, refuse_equal_labels

Vector = Annotated[tuple[float, ...], Field(min_length=1)]


class Features(Frozen):
    """Give φ of each answer (Tables 2 and 3): two answers to the preference input, two to the instruction input."""

    chosen: Vector
    rejected: Vector
    target: Vector
    other: Vector

    @model_validator(mode="after")
    def _one_length(self) -> Features:
        if len({len(vector) for vector in (self.chosen, self.rejected, self.target, self.other)}) > 1:
            raise ValueError("all four vectors must be equally long, one entry a parameter")
        return self


class ToyReference(Frozen):
    """Say what θ_ref is: given, or trained by SFT on the chosen answer, from the start, for so many steps (Eq. 34)."""

    parameters: Vector | None = None
    steps: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> ToyReference:
        if (self.parameters is None) == (self.steps is None):
            raise ValueError("give exactly one of 'parameters' and 'steps'")
        return self


class Optimum(Frozen):
    """Give f* of both objectives; 0 is the greatest lower bound of both, reached by no parameters."""

    dpo: Annotated[float, Field(ge=0)] = 0.0
    sft: Annotated[float, Field(ge=0)] = 0.0


class Problem(Frozen):
    """Describe the two objectives of a toy: f_DPO (Eq. 1) and f_SFT (Eq. 4) of softmax policies over two answers each."""

    features: Features
    start: Vector
    reference: ToyReference
    beta: Annotated[float, Field(gt=0)] = 1.0
    optimum: Optimum = Optimum()

    @model_validator(mode="after")
    def _one_length(self) -> Problem:
        count = len(self.features.chosen)
        for name, vector in (("start", self.start), ("reference.parameters", self.reference.parameters)):
            if vector is not None and len(vector) != count:
                raise ValueError(f"problem.{name}: must have {count} entries, as the features do; it has {len(vector)}")
        return self


class Horizon(Frozen):
    """Name one length T of the runs, and over how many seeds methods that draw are averaged."""

    steps: Annotated[int, Field(ge=2)]
    seeds: Positive = 1


class ToyTraining(Frozen):
    """Set gradient descent on the exact gradient, θ ← θ − α (g + weight_decay θ).

    `schedule`: `constant`, α = learning_rate; `over_sqrt_steps`, α = learning_rate / √T, the same at each step of a run.
    `phase`: Sequential takes `half` of T steps on each objective, or `full`, T on each (Theorem 3.1) and so 2 T in all.
    """

    horizons: tuple[Horizon, ...] = Field(min_length=1)
    phase: Literal["half", "full"] = "half"
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["constant", "over_sqrt_steps"] = "constant"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    points: Annotated[int, Field(ge=2)] = 200

    @model_validator(mode="after")
    def _distinct(self) -> ToyTraining:
        if len({one.steps for one in self.horizons}) != len(self.horizons):
            raise ValueError("training.horizons: must not repeat a number of steps")
        return self


class ToyMethod(Method):
    """Name a method; `threshold` ends a phase once its objectives are not above it, `seeds` caps the seeds."""

    threshold: Annotated[float, Field(gt=0)] | None = None
    seeds: Positive | None = None

    @model_validator(mode="after")
    def _takes_steps(self) -> ToyMethod:
        if self.name not in METHODS:
            raise ValueError(
                f"{self.name!r} is made of adapters, which a toy problem has none of; give a method of steps"
            )
        kind = METHODS[self.name]
        if kind.needs(kind.Options.model_validate(self.options)) - {Need.OPTIMUM}:
            raise ValueError(f"{self.name!r} as set here works on rows of a data set, which a toy problem has none of")
        return self


class ToySuite(Experiment):
    """Hold one toy experiment: which methods, at which λ, on which problem, for how many steps."""

    problem: Problem
    training: ToyTraining
    order: Literal["sft_dpo", "dpo_sft"] = "dpo_sft"
    methods: tuple[ToyMethod, ...] = Field(min_length=1)
    lambdas: tuple[Share, ...] = Field(min_length=1)

    _names_alone = field_validator("methods", mode="before")(names_alone)

    @model_validator(mode="after")
    def _fits_together(self) -> ToySuite:
        if len(set(self.lambdas)) != len(self.lambdas):
            raise ValueError("lambdas: must not repeat a value")
        refuse_equal_labels(self.methods)
        for place, method in enumerate(self.methods):
            if method.threshold is not None and len(self._phases(method)) < 2:
                raise ValueError(
                    f"methods[{place}].threshold: it ends a phase, and {method.name!r} has only one; leave it out"
                )
        return self

    def _phases(self, method: ToyMethod) -> tuple[Phase, ...]:
        """Return the phases of a method's runs, as at the first λ and T."""
        steps, order = self.training.horizons[0].steps, self.order.split("_")
        kind = METHODS[method.name]
        first, second = (Objective(name) for name in order)
        setup = Setup(self.lambdas[0], steps, 0, {first: steps // 2, second: steps - steps // 2}, (first, second))
        return kind.phases(setup, kind.Options.model_validate(method.options))

    @property
    def size(self) -> str:
        return f"{len(self.methods)} methods × {len(self.lambdas)} λ × {len(self.training.horizons)} T"

    @property
    def contents(self) -> str:
        methods = ", ".join(method.shown for method in self.methods)
        return f"{methods}; {len(self.lambdas)} λ; T {[one.steps for one in self.training.horizons]}"

    def job_settings(self, method: ToyMethod, lambda_dpo: float, horizon: Horizon) -> dict[str, Any]:
        """Return all that decides the numbers of one job."""
        steps, training = horizon.steps, self.training
        first = steps if training.phase == "full" else steps // 2
        second = steps if training.phase == "full" else steps - first
        order = self.order.split("_")
        seeds = min(horizon.seeds, method.seeds or horizon.seeds)
        return {
            "problem": self.problem.model_dump(mode="json"),
            "method": method.name,
            "options": options_of(METHODS[method.name], method.options),
            "threshold": method.threshold,
            "lambda_dpo": lambda_dpo,
            "steps": steps,
            # Pairs, not a mapping: their order decides numbers, and a hash does not see a mapping's.
            "phases": [[order[0], first], [order[1], second]],
            "seeds": seeds,
            "learning_rate": training.learning_rate / (steps**0.5 if training.schedule == "over_sqrt_steps" else 1.0),
            # θ_ref is trained at this rate whatever T is.
            "reference_learning_rate": training.learning_rate,
            "weight_decay": training.weight_decay,
            "points": training.points,
        }
