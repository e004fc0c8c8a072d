"""What a suite may say as a whole: which methods, at which λ and seeds, over the parts in `settings.py`.

All validation of an experiment's settings is in these two files or in `yaml_file.py`, which reads the YAML.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from bench import trackers
from bench.errors import unknown_name
from bench.evaluators import EVALUATORS, Evaluator
from bench.methods import METHODS, Target
from bench.recipes import RECIPES
from bench.registry import Registry
from bench.settings import Frozen, Label, Lambdas, Positive, Reference, Seeds, Text, TrainingParts
from bench.train.stopping import targets

RUNS = 20_000
NAME_CHARACTERS = 100  # with what is put behind it, such as `--smoke.bench`, it is a file's name


class Method(Frozen):
    """Name a training method or a recipe; further keys are its options."""

    model_config = ConfigDict(extra="allow")

    name: str
    """A method or a recipe, ours or another package's."""
    label: Label | None = None
    """The name shown; needed where a method stands twice."""
    lambdas: Lambdas | None = None
    """λ of its own; `null`: the suite's."""

    @model_validator(mode="after")
    def _known(self) -> Method:
        table = _table_of(self.name)
        if table is None:
            raise ValueError(unknown_name("method", self.name, [*METHODS, *RECIPES]))
        table.options(self.name, self.options)
        return self

    @classmethod
    def more_keys(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys that the method's own options are, with what each takes."""
        name = given.get("name")
        table = _table_of(name) if isinstance(name, str) else None
        fields = table[name].Options.model_fields if table and name else {}
        return {key: field.annotation for key, field in fields.items()}

    @property
    def options(self) -> dict[str, Any]:
        """The method's own keys, such as max_eval_every."""
        return dict(self.model_extra or {})

    @property
    def shown(self) -> str:
        return self.label or self.name


def _table_of(name: str) -> Registry[Any] | None:
    """Find the table that a name in `methods` stands in."""
    return METHODS if name in METHODS else RECIPES if name in RECIPES else None


class Evaluation(Frozen):
    """Choose the evaluators, with the options of each, `{}` for none; one left out is not run."""

    model_config = ConfigDict(extra="allow")

    devices: Annotated[Positive | Literal["auto"], Field(union_mode="left_to_right")] = "auto"
    """Devices that one evaluation of a policy is split over: tasks, answers and divergences, not judging. `auto` is 1, as
    policies are then asked side by side, and where a GPU has no room for the model as many as have, each with a part of it. A
    number is for few policies and long tasks. No score depends on it but those of tasks of lm-eval that sample their answers."""

    @model_validator(mode="before")
    @classmethod
    def _in_the_table(cls, given: Any) -> Any:
        """Check every evaluator's options; an error has the place of the key."""
        if not isinstance(given, Mapping):
            return given
        own, given = (
            {key: one for key, one in given.items() if (key in cls.model_fields) is its} for its in (True, False)
        )
        # In the table's order, so that a plan does not depend on the order of keys.
        names = [name for name in EVALUATORS if name in given]
        for name in names:
            with suppress(ValidationError):  # told below with its place; here only what is the fault of a package
                EVALUATORS.options(name, given[name])
        # Behind aliases, as a model could not have a field called copy or json.
        fields: dict[str, Any] = {
            f"of_{name}": (Annotated[EVALUATORS[name].Options, BeforeValidator(_given)], Field(alias=name))
            for name in names
        }
        checked = create_model("Evaluation", __base__=Frozen, **fields).model_validate(given)
        return own | {name: getattr(checked, f"of_{name}") for name in names}

    @classmethod
    def more_keys(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the evaluators, with the options of those that are given."""
        return {name: EVALUATORS[name].Options if name in given else None for name in EVALUATORS}

    @property
    def chosen(self) -> dict[str, Evaluator]:
        """The evaluators by name."""
        return {name: EVALUATORS[name](options) for name, options in (self.model_extra or {}).items()}

    @property
    def split(self) -> frozenset[tuple[str, str]]:
        """The stages that can be split over devices, by kind and name."""
        stages = (stage for one in self.chosen.values() for stage in one.stages())
        return frozenset((stage.kind, stage.shown_name) for stage in stages if stage.splits)


def _given(options: Any) -> Any:
    """Refuse a key without a value: whether it is to run with its defaults or not at all, it does not say."""
    if options is None:
        raise ValueError("write {} for its defaults, or delete the key to leave it out")
    return options


def names_alone(value: Any) -> Any:
    """Let a method without options be written as its bare name."""
    if not isinstance(value, list):
        return value
    return [{"name": entry} if isinstance(entry, str) else entry for entry in value]


def refuse_equal_labels(methods: Sequence[Method]) -> None:
    """Refuse two methods that would be shown under one name."""
    shown = [method.shown for method in methods]
    if len(set(shown)) != len(shown):
        raise ValueError("methods: two share a name; give each its own 'label'")


def refuse_too_many_runs(count: int) -> None:
    """Refuse what no one means to run, and what would take minutes to plan alone."""
    if count > RUNS:
        raise ValueError(f"lambdas: these are {count:,} runs (methods × λ × seeds), and a suite has at most {RUNS:,}")


class Experiment(Frozen, ABC):
    """What every suite has, whether it trains language models (`Suite`) or a toy problem (`toy.ToySuite`)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=NAME_CHARACTERS)]
    """The folder of its results: letters, digits, `_`, `-` and `.`."""
    description: str = ""
    """One line at the head of the report."""
    notes: tuple[Text, ...] = ()
    """Sentences at the head of the report, such as what a judge is worth."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a job is tried again, from its checkpoint and on a fresh worker, whose worker died or which met a fault of the
    network or of a device. One that failed by its own fault is not."""
    tracker: str | None = None
    """Draws a run while it goes, live: `trackio`, `wandb`, `mlflow`, `tensorboard`, or another package's; no job's figures or
    identity depend on it. `bench run --tracker` does the same for one run."""
    smoke: bool = Field(default=False, exclude=True)
    """Set by `--smoke`: a tiny model and a handful of steps, whose figures measure nothing."""

    @field_validator("tracker")
    @classmethod
    def _tracker_is_known(cls, name: str | None) -> str | None:
        if name is not None and name not in trackers.TRACKERS:
            raise ValueError(trackers.unknown(name))
        return name

    @property
    @abstractmethod
    def size(self) -> str:
        """How much there is to run, in words: methods × λ × seeds and steps."""

    @property
    @abstractmethod
    def contents(self) -> str:
        """What the suite holds, in words: methods by name, λ, seeds and steps."""


class Suite(TrainingParts, Experiment):
    """One experiment: which methods, at which λ and seeds, on which model and data, judged how."""

    reference: Reference = Reference()
    """The policy that DPO compares with, one for the whole suite."""
    order: Literal["sft_dpo", "dpo_sft"] = "sft_dpo"
    """Of Sequential's two phases."""
    methods: tuple[Method, ...] = Field(min_length=1)
    """What is compared: names alone, or entries with the keys below."""
    lambdas: Lambdas
    """λ, the weight of DPO, each from 0 to 1; Sequential gives DPO this share of its steps."""
    phases: tuple[tuple[Positive, Positive], ...] | None = None
    """Sequential's lengths instead of that share: [DPO epochs, SFT epochs] for each λ; each pair adds up to
    `training.epochs`."""
    seeds: Seeds = (0,)
    """Every recipe is run with each; from three on the report draws intervals."""
    cost: Literal["auto", "off"] = "auto"
    """What runs cost: `auto` measures each kind of step once, alone on the machine, where the model is neither the
    built-in nor an untrained one and no recipe has a training loop of its own; `off` takes the seconds of the runs
    themselves, which others may have slowed down."""
    evaluation: Evaluation = Evaluation()
    """Of every trained policy, the reference and the base model; a part left out is not run."""

    _names_alone = field_validator("methods", mode="before")(names_alone)

    @field_validator("cost", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        """Take YAML's `off`, which is its false, for the word."""
        return "off" if value is False else value

    @property
    def measures_cost(self) -> bool:
        """Whether the plan has a job that measures what steps cost."""
        own_loops = any(RECIPES[one.name].untrained is None for one in self.methods if one.name in RECIPES)
        return self.cost == "auto" and self.model.source not in ("world", "random") and not own_loops

    @model_validator(mode="after")
    def _fits_together(self) -> Suite:
        refuse_too_many_runs(sum(len(one.lambdas or self.lambdas) for one in self.methods) * len(self.seeds))
        refuse_equal_labels(self.methods)
        if self.phases is not None and len(self.phases) != len(self.lambdas):
            raise ValueError("phases: must have one [dpo_epochs, sft_epochs] per λ")
        self.steps  # noqa: B018 - refuses epochs of unequal length
        if self.phases is not None and any(sum(pair) != self.training.epochs for pair in self.phases):
            raise ValueError("phases: they count epochs, so each pair must add up to training.epochs")
        instruction = self.data.instruction.source
        if instruction != "chosen" and (self.data.preference.source == "world") != (instruction == "world"):
            raise ValueError(
                "data.instruction.source: 'world' goes with data.preference.source 'world' only, and vice versa"
            )
        self._has_a_front()
        self._has_one_phase_1()
        self._reference_learns_no_held_out_rows()
        self._recipes_fit()
        return self

    def _recipes_fit(self) -> None:
        """Refuse a recipe that cannot do the suite's reduction, or train what the suite trains."""
        for method in self.methods:
            known = RECIPES[method.name].reductions if method.name in RECIPES else (self.objectives.reduction,)
            if self.objectives.reduction not in known:
                raise ValueError(
                    f"objectives.reduction: {method.name} knows {' and '.join(known)} only; set it to that or take "
                    f"{method.name} out of methods"
                )
            refuses = getattr(RECIPES[method.name], "refuses", None) if method.name in RECIPES else None
            reason = refuses and refuses(RECIPES[method.name].Options.model_validate(method.options), self)
            if reason:
                raise ValueError(f"{reason}, or take {method.name} out of methods")

    def _has_a_front(self) -> None:
        """Refuse a stopping rule whose reference front comes from runs that the suite does not make."""
        stopping, kinds = self.training.stopping, [METHODS[one.name] for one in self.methods if one.name in METHODS]
        needs = any(Target.FRONT in targets(stopping.rule, kind) for kind in kinds)
        if needs and stopping.front is None and not any(kind.makes_front for kind in kinds):
            makers = " or ".join(name for name, kind in METHODS.items() if kind.makes_front)
            raise ValueError(
                f"training.stopping: the reference front is made of the runs of {makers}; add {makers} to methods or give "
                "training.stopping.front as a list of [f_DPO, f_SFT]"
            )

    def _reference_learns_no_held_out_rows(self) -> None:
        """Refuse a reference trained on more rows than the runs where those that follow are held out."""
        reference = self.reference
        if reference.rows is None or reference.policy not in ("sft", "preference_chosen"):
            return
        key = "instruction" if reference.policy == "sft" else "preference"
        source = self.data.instruction if reference.policy == "sft" else self.data.preference
        if source.test_split is None and reference.rows > source.rows:
            raise ValueError(
                f"reference.rows = {reference.rows}: with data.{key}.test_split null the rows after the first {source.rows} "
                f"are held out, and the reference would learn them; give at most {source.rows}, or a test_split"
            )

    def _has_one_phase_1(self) -> None:
        """Refuse a first phase as π_ref where there is none, or more than one: f_DPO compares at one reference only."""
        if self.reference.policy != "phase_1":
            return
        if self.order != "sft_dpo":
            raise ValueError(
                "reference.policy: phase_1 is the SFT phase before DPO, so it needs order: sft_dpo; for dpo_sft give "
                "preference_chosen, sft or base"
            )
        lambdas = sorted({*self.lambdas, *(one for method in self.methods for one in method.lambdas or ())})
        if len(lambdas) != 1:
            raise ValueError(
                f"reference.policy: phase_1 ends elsewhere at each λ, and objective values compare at one reference only; "
                f"give one λ (now {lambdas}) or another policy"
            )
        if self.phase_steps(lambdas[0])["sft"] == 0:
            raise ValueError(f"reference.policy: at λ = {lambdas[0]:g} there is no SFT phase; give base instead")

    @property
    def size(self) -> str:
        return (
            f"{len(self.methods)} methods × {len(self.lambdas)} λ × {len(self.seeds)} seeds, {self.steps} steps a run"
        )

    @property
    def contents(self) -> str:
        methods = ", ".join(method.shown for method in self.methods)
        return f"{methods}; {len(self.lambdas)} λ; seeds {list(self.seeds)}; {self.steps} steps a run"

    @property
    def steps(self) -> int:
        """Optimizer steps of every run, the optima included; a stopping rule may end joint runs earlier."""
        training = self.training
        per_epoch = {
            "dpo": self.data.preference.rows // training.batch_size.dpo,
            "sft": self.data.instruction.rows // training.batch_size.sft,
        }
        if min(per_epoch.values()) == 0:
            raise ValueError(
                f"training.batch_size: an epoch is {per_epoch['dpo']} batches of preference pairs and {per_epoch['sft']} "
                "of instruction rows, and needs at least one of each; lower it or raise data.*.rows"
            )
        if training.steps is not None:
            return training.steps
        if per_epoch["dpo"] != per_epoch["sft"]:
            raise ValueError(
                f"training.epochs: an epoch is {per_epoch['dpo']} steps of preference pairs but {per_epoch['sft']} "
                "of instruction rows; make them equal or give training.steps instead of training.epochs"
            )
        assert training.epochs is not None
        return training.epochs * per_epoch["dpo"]

    def phase_steps(self, lambda_dpo: float) -> dict[str, int]:
        """Split the steps of the Sequential run that is matched with λ: {"dpo": T_DPO, "sft": T_SFT}."""
        if self.phases is not None and lambda_dpo in self.lambdas:
            dpo_epochs, sft_epochs = self.phases[self.lambdas.index(lambda_dpo)]
            per_epoch = self.steps // (dpo_epochs + sft_epochs)
            return {"dpo": dpo_epochs * per_epoch, "sft": sft_epochs * per_epoch}
        dpo = round(lambda_dpo * self.steps)
        return {"dpo": dpo, "sft": self.steps - dpo}


SHIPPED = "quickstart"


def suite_folder() -> Path:
    """Find the shipped suites: beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).parents[1] / "_suites"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "suites"
