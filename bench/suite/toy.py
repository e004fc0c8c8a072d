"""What a toy suite may say: a suite with the key `problem`, whose policies are softmax policies of a few parameters.

One input and one pair of answers per objective, as in the paper's Appendices A.2 (Theorems 3.1 and 4.1) and D.1 (Figure
2). The methods, λ and the commands are those of a language model's suite.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bench.methods import METHODS, Need, Objective, Phase, Setup
from bench.settings import Frozen, Lambdas, Positive
from bench.suite.suite import Experiment, Method, names_alone, refuse_equal_labels, refuse_too_many_runs

Vector = Annotated[tuple[float, ...], Field(min_length=1)]


class Features(Frozen):
    """Give φ of each answer (Tables 2 and 3): two to the preference input, two to the instruction input."""

    chosen: Vector
    """φ of the preferred answer to the preference input, one entry a parameter."""
    rejected: Vector
    """φ of the other answer to the preference input."""
    target: Vector
    """φ of the answer that SFT trains."""
    other: Vector
    """φ of the only other answer to the instruction input."""

    @model_validator(mode="after")
    def _one_length(self) -> Features:
        if len({len(vector) for vector in (self.chosen, self.rejected, self.target, self.other)}) > 1:
            raise ValueError("all four vectors must be equally long, one entry a parameter")
        return self


class ToyReference(Frozen):
    """Say what θ_ref is: given, or trained."""

    parameters: Vector | None = None
    """θ_ref itself. Give this or `steps`."""
    steps: Positive | None = None
    """Steps of SFT on the chosen answer, from the start, that lead to θ_ref (Eq. 34). Give this or `parameters`."""

    @model_validator(mode="after")
    def _one(self) -> ToyReference:
        if (self.parameters is None) == (self.steps is None):
            raise ValueError("give exactly one of 'parameters' and 'steps'")
        return self


class Optimum(Frozen):
    """Give f* of both objectives; by default their greatest lower bound, reached by no parameters."""

    dpo: Annotated[float, Field(ge=0)] = 0.0
    """f*_DPO in nats."""
    sft: Annotated[float, Field(ge=0)] = 0.0
    """f*_SFT in nats."""


class Problem(Frozen):
    """Describe the two objectives of a toy: f_DPO (Eq. 1) and f_SFT (Eq. 4) of softmax policies over two answers each."""

    features: Features
    """φ of the two answers to each of two inputs."""
    start: Vector
    """The parameters that every run starts from."""
    reference: ToyReference
    """θ_ref, the parameters that DPO compares with."""
    beta: Annotated[float, Field(gt=0)] = 1.0
    """β of Eq. 1."""
    optimum: Optimum = Optimum()
    """f* for MAXRIGHT's rule and the ideal point; 0 is the greatest lower bound of both objectives."""

    @model_validator(mode="after")
    def _one_length(self) -> Problem:
        count = len(self.features.chosen)
        for name, vector in (("start", self.start), ("reference.parameters", self.reference.parameters)):
            if vector is not None and len(vector) != count:
                raise ValueError(f"problem.{name}: must have {count} entries, as the features do; it has {len(vector)}")
        return self


class Horizon(Frozen):
    """Name one length of the runs, and over how many seeds methods that draw are averaged."""

    steps: Annotated[int, Field(ge=2)]
    """T, the length of the runs."""
    seeds: Positive = 1
    """Seeds over which the runs of this length are averaged."""


class ToyTraining(Frozen):
    """Set gradient descent on the exact gradient, θ ← θ − α (g + weight_decay θ)."""

    horizons: tuple[Horizon, ...] = Field(min_length=1)
    """The lengths of the runs; no two alike."""
    phase: Literal["half", "full"] = "half"
    """Of Sequential: `half` of T steps on each objective, or `full`, T on each (Theorem 3.1) and so 2 T in all."""
    learning_rate: Annotated[float, Field(gt=0)]
    """α, or α_0 of `over_sqrt_steps`."""
    schedule: Literal["constant", "over_sqrt_steps"] = "constant"
    """`constant`: α at every step; `over_sqrt_steps`: α_0 / √T at every step of a run of length T."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Times θ, added to the gradient."""
    points: Annotated[int, Field(ge=2)] = 200
    """About how many points of a path are kept."""

    @model_validator(mode="after")
    def _distinct(self) -> ToyTraining:
        if len({one.steps for one in self.horizons}) != len(self.horizons):
            raise ValueError("training.horizons: must not repeat a number of steps")
        return self


class ToyMethod(Method):
    """Name a method; further keys are its options."""

    threshold: Annotated[float, Field(gt=0)] | None = None
    """Of a method with phases: one ends once its objectives are not above this, in nats."""
    seeds: Positive | None = None
    """At most so many of `training.horizons.seeds`; 1 for a method that draws nothing."""

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
    """One toy experiment: which methods, at which λ, on which problem, for how many steps."""

    problem: Problem
    """The two objectives: f_DPO (Eq. 1) and f_SFT (Eq. 4) of softmax policies over two answers each."""
    training: ToyTraining
    """Gradient descent on the exact gradient."""
    order: Literal["sft_dpo", "dpo_sft"] = "dpo_sft"
    """Of Sequential's two phases."""
    methods: tuple[ToyMethod, ...] = Field(min_length=1)
    """What is compared: names alone, or entries with the keys below; recipes make adapters, which a toy has none of."""
    lambdas: Lambdas
    """λ, the weight of DPO, each from 0 to 1; Sequential gives DPO this share of its steps."""

    _names_alone = field_validator("methods", mode="before")(names_alone)

    @model_validator(mode="after")
    def _fits_together(self) -> ToySuite:
        runs = sum(len(one.lambdas or self.lambdas) for one in self.methods)
        refuse_too_many_runs(runs * len(self.training.horizons))
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
            "options": METHODS.options(method.name, method.options),
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
