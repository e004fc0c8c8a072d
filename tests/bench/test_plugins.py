"""What a stranger's package gets wrong: one line that names the package, the entry and the fault, before anything is trained."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from other_evaluators import LengthJudge, Words, WordsOptions
from other_methods import MixThenDpo
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from bench import plugins
from bench.collectors import COLLECTORS, Collector
from bench.errors import InputError, JobError, PluginError
from bench.evaluators import EVALUATORS, Stage
from bench.judges import JUDGES
from bench.methods import METHODS, Choice, Method, NoOptions, Objective, Phase, Setup
from bench.plan import planner
from bench.plugins import ADVICE
from bench.recipes import RECIPES
from bench.records.metrics import Metric
from bench.run import preflight
from bench.settings import Frozen
from bench.suite.suite import Suite

TinySuite = Callable[..., Suite]
Offer = Callable[..., None]
ROOT = Path(__file__).parents[2]


class Loose(BaseModel):
    """Let any key pass."""


class Half(Method):
    """Leave out what a step descends."""

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: NoOptions) -> dict[Objective, float]:
        return {Objective.DPO: 1.0}


class Blind(Method):
    """Leave out the estimate of tokens."""

    def choose(self, step: int, probe: Any) -> Choice:
        return Choice({Objective.DPO: 1.0})


class Careless(MixThenDpo):
    """Take options that hide a typo."""

    Options: ClassVar[type[BaseModel]] = Loose


class Made:
    """Be a recipe that needs what no job makes."""

    Options: ClassVar[type[BaseModel]] = NoOptions
    needs: ClassVar[tuple[str, ...]] = ("optimum_ppo",)
    untrained: ClassVar[str | None] = "no training"
    reductions: ClassVar[tuple[str, ...]] = ("token_mean",)

    def __init__(self, options: NoOptions) -> None:
        """Keep nothing."""

    def produce(self, making: Any) -> None:
        """Make nothing."""


METHOD = "the entry must name a subclass of bench.methods.Method that has"
MISFITS: dict[str, tuple[Any, Any, str]] = {
    "the options instead of the method": (
        METHODS,
        WordsOptions,
        f"WordsOptions has no `choose` and no `batches_per_step`; {METHOD}",
    ),
    "no choose": (METHODS, Half, f"Half has no `choose`; {METHOD}"),
    "no batches_per_step": (METHODS, Blind, f"Blind has no `batches_per_step`; {METHOD}"),
    "no class": (METHODS, len, "is a builtin_function_or_method, not a class"),
    "options that let a typo pass": (
        METHODS,
        Careless,
        "Careless.Options lets misspelt keys pass; make it a subclass of bench.settings.Frozen",
    ),
    "a recipe's role that nobody plays": (
        RECIPES,
        Made,
        "Made.needs is ('optimum_ppo',); it is a tuple of what it knows among optimum_dpo, optimum_sft, reference",
    ),
    "an evaluator for a judge": (
        JUDGES,
        Words,
        "Words has no `ask`; the entry must name a subclass of bench.judges.Judge that has",
    ),
    "a judge for an evaluator": (EVALUATORS, LengthJudge, "LengthJudge has no `stages` and no `run`; the entry"),
    "a method for a collector": (
        COLLECTORS,
        Half,
        "Half has no `resume` and no `pause` and no `sample` and no `drain`",
    ),
}


@pytest.mark.parametrize(("table", "kind", "problem"), MISFITS.values(), ids=MISFITS.keys())
def test_what_does_not_fit_is_told_when_it_is_loaded(table: Any, kind: Any, problem: str) -> None:
    found = table.contract.misfit(kind)
    assert found is not None
    assert found.startswith(problem)


@pytest.mark.parametrize("table", [METHODS, RECIPES, COLLECTORS, EVALUATORS, JUDGES], ids=lambda table: table.kind)
def test_all_of_ours_fit(table: Any) -> None:
    assert {name: table.contract.misfit(table[name]) for name in table} == dict.fromkeys(table)


# ---- what is raised, and what is returned ------------------------------------------------------------------------------


def broken(base: type, **functions: Any) -> type:
    """Return a subclass with other functions, of a module `stranger`."""
    return type("Broken", (base,), {"__module__": "stranger", **functions})


def divide(*_: Any) -> Any:
    return 1 // 0


DIVIDES = "raised ZeroDivisionError: integer division or modulo by zero"
WRONG_METHODS: dict[str, tuple[dict[str, Any], str]] = {
    "phases that raise": ({"phases": staticmethod(divide)}, f"`phases` {DIVIDES}"),
    "needs that raise": ({"needs": staticmethod(divide)}, f"`needs` {DIVIDES}"),
    "work that raises": ({"work": staticmethod(divide)}, f"`work` {DIVIDES}"),
    "batches that raise": ({"batches_per_step": staticmethod(divide)}, f"`batches_per_step` {DIVIDES}"),
    "a first line that raises": ({"__init__": divide}, f"`__init__` {DIVIDES}"),
    "an instance's function": (
        {"batches_per_step": lambda self, lambda_dpo, options: {}},
        "`batches_per_step` raised TypeError: ",
    ),
    "no phases": ({"phases": staticmethod(lambda setup, options: ())}, "`phases` returned (), but phases are a tuple"),
    "numbers for phases": (
        {"phases": staticmethod(lambda setup, options: (3, 3))},
        "`phases` returned (3, 3), but phases are a tuple of Phase, one or more",
    ),
    "half a step": (
        {"phases": staticmethod(lambda setup, options: (Phase(setup.steps / 4),))},  # type: ignore[arg-type]
        "`phases` returned a phase of 1.5 steps, but it has a whole number of them, 0 or more",
    ),
    "an unknown need": (
        {"needs": staticmethod(lambda options: frozenset({"optima"}))},
        "`needs` returned frozenset({'optima'}), but it is a frozenset of Need: OPTIMUM, ROW_OPTIMUM, CHOSEN_ANSWERS",
    ),
    "no number of batches": (
        {"batches_per_step": staticmethod(lambda lambda_dpo, options: {Objective.DPO: float("nan")})},
        "`batches_per_step` returned nan batches a step, but it is a number, 0 or more",
    ),
}


@pytest.mark.parametrize(("functions", "problem"), WRONG_METHODS.values(), ids=WRONG_METHODS.keys())
def test_a_method_is_asked_before_anything_is_trained(
    functions: dict[str, Any], problem: str, tiny: TinySuite, offer: Offer
) -> None:
    offer(METHODS, "broken", broken(MixThenDpo, **functions))
    with pytest.raises(PluginError) as caught:
        preflight.check(tiny(methods=["broken"]))
    assert str(caught.value).startswith(f"the method 'broken' of stranger: {problem}")
    assert str(caught.value).endswith(ADVICE)
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (2, False)
    if "__init__" not in functions and "work" not in functions:  # a plan makes no method, and measures no work here
        with pytest.raises(PluginError, match="the method 'broken' of "):
            planner.make(tiny(methods=["broken"]))


def of_stage(**parts: Any) -> dict[str, Any]:
    return {"stages": lambda self: (Stage("broken", **({"settings": {}} | parts)),)}


WRONG_EVALUATORS: dict[str, tuple[dict[str, Any], str]] = {
    "stages that raise": ({"stages": divide}, f"`stages` {DIVIDES}"),
    "no stages": (
        {"stages": lambda self: None},
        "`stages` returned None, but stages are a tuple of Stage, one or more",
    ),
    "an unknown data set": (
        of_stage(data=("preferences",)),
        "`stages` returned a stage 'broken' with data 'preferences'; a suite's data sets are a tuple of preference and",
    ),
    "data that is text": (of_stage(data="preference"), "`stages` returned a stage 'broken' with data 'preference'; a"),
    "settings that are no JSON": (
        of_stage(settings={"words": {"a"}}),
        "`stages` returned a stage 'broken' whose settings are no mapping of JSON values (Object of type set is not JSON "
        "serializable); model_dump(mode='json') makes them",
    ),
    "a kind that is no folder": (
        of_stage(slug="a/b"),
        "`stages` returned a stage 'broken' whose kind or slug 'a/b' is no",
    ),
    "two of a name": (
        {"stages": lambda self: (Stage("a", {}, name="x"), Stage("b", {}, name="x"))},
        "`stages` returned two stages of the name 'x'; give each its own",
    ),
    "a check that raises": ({"check": divide}, f"`check` {DIVIDES}"),
}


@pytest.mark.parametrize(("functions", "problem"), WRONG_EVALUATORS.values(), ids=WRONG_EVALUATORS.keys())
def test_an_evaluator_is_asked_before_anything_is_trained(
    functions: dict[str, Any], problem: str, tiny: TinySuite, offer: Offer
) -> None:
    offer(EVALUATORS, "broken", broken(Words, **functions))
    with pytest.raises(PluginError) as caught:
        preflight.check(tiny(evaluation={"broken": {"prompts": 2}}))
    assert str(caught.value).startswith(f"the evaluator 'broken' of stranger: {problem}")


def test_a_judges_name_is_asked_for_before_anything_is_trained(tiny: TinySuite, offer: Offer) -> None:
    offer(JUDGES, "broken", broken(LengthJudge, name=staticmethod(divide)))
    with pytest.raises(PluginError, match="the judge 'broken' of stranger: `name` raised ZeroDivisionError"):
        preflight.check(tiny(evaluation={"win_rate": {"prompts": 2, "judge": {"kind": "broken"}}}))


TURNS = Metric("turns", "Turns", "turns", "lower", "cost")
WRONG_COLLECTORS: dict[str, tuple[dict[str, Any], str]] = {
    "no figure": ({}, "has no `metric` that says what it measures; give its class a Metric"),
    "another name": (
        {"metric": replace(TURNS, name="spins")},
        "calls its figure 'spins'; the metric's name and the entry's must be the same",
    ),
    "another kind": (
        {"metric": replace(TURNS, kind="score")},
        "calls its figure a score; what training takes is a cost or a count",
    ),
    "nothing of its samples": (
        {"metric": TURNS},
        "has no `combine`; give its class statistics.median, max or math.fsum",
    ),
}


@pytest.mark.parametrize(("parts", "problem"), WRONG_COLLECTORS.values(), ids=WRONG_COLLECTORS.keys())
def test_a_collector_says_what_it_measures(parts: dict[str, Any], problem: str, tiny: TinySuite, offer: Offer) -> None:
    offer(COLLECTORS, "turns", broken(Collector, **parts))
    with pytest.raises(InputError) as caught:
        preflight.check(tiny())
    assert str(caught.value) == f"the collector 'turns' of stranger {problem}"


def test_a_collector_takes_no_name_of_a_runs_own_figure(tiny: TinySuite, offer: Offer) -> None:
    figure = {"metric": replace(TURNS, name="tokens"), "combine": max}
    offer(COLLECTORS, "tokens", broken(Collector, **figure))
    with pytest.raises(InputError, match="the collector 'tokens' has the name of a figure that every run has"):
        preflight.check(tiny())


class Unwritable(Frozen):
    """Hold what JSON cannot."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    prompts: int = 2
    what: object = divide


class Raising(Frozen):
    """Raise what is no word to the user."""

    prompts: int = 2

    @field_validator("prompts")
    @classmethod
    def _divide(cls, value: int) -> int:
        return value // 0


@pytest.mark.parametrize(
    ("options", "problem"), [(Unwritable, "PydanticSerializationError: "), (Raising, "ZeroDivisionError: ")]
)
@pytest.mark.parametrize("where", ["method", "evaluator", "judge"])
def test_options_that_cannot_be_checked_or_written(
    options: type[BaseModel], problem: str, where: str, tiny: TinySuite, offer: Offer
) -> None:
    table, base = {"method": (METHODS, MixThenDpo), "evaluator": (EVALUATORS, Words), "judge": (JUDGES, LengthJudge)}[
        where
    ]
    offer(table, "broken", broken(base, Options=options))
    suites: dict[str, dict[str, Any]] = {
        "method": {"methods": [{"name": "broken", "prompts": 2}]},
        "evaluator": {"evaluation": {"broken": {"prompts": 2}}},
        "judge": {"evaluation": {"win_rate": {"prompts": 2, "judge": {"kind": "broken", "prompts": 2}}}},
    }
    with pytest.raises(PluginError) as caught:
        tiny(**suites[where])
    assert str(caught.value).startswith(f"the {where} 'broken' of stranger: `Options` raised {problem}")


def test_what_is_raised_on_purpose_and_memory_that_runs_out_pass() -> None:
    class OutOfMemoryError(RuntimeError):
        """Be torch's."""

    for error in (JobError("said"), InputError("said"), MemoryError(), OutOfMemoryError("CUDA"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, plugins.blaming("the method 'x' of y 1", "`choose`"):
            raise error
        assert caught.value is error


def test_a_wrong_value_inside_a_package_is_not_the_users() -> None:
    """What pydantic refuses passes where the suite's own keys are checked, and nowhere else."""
    with pytest.raises(PluginError, match="`phases` raised ValidationError"), plugins.blaming("x", "`phases`"):
        WordsOptions.model_validate({})
    with pytest.raises(ValidationError), plugins.blaming("x", "`Options`", ValidationError):
        WordsOptions.model_validate({})


def test_a_watched_class_is_still_the_packages_own(tiny: TinySuite, offer: Offer) -> None:
    """`super()`, static functions, names and the protocol's defaults work as before."""
    offer(METHODS, "mix_then_dpo", MixThenDpo)
    kind: Any = METHODS["mix_then_dpo"]
    assert (kind.__name__, kind.__module__, issubclass(kind, MixThenDpo)) == ("MixThenDpo", "other_methods", True)
    setup = Setup(0.5, 6, 0, {Objective.DPO: 3, Objective.SFT: 3}, (Objective.SFT, Objective.DPO))
    assert kind.phases(setup, NoOptions()) == (Phase(2), Phase(4, Objective.DPO))
    made = kind(setup, NoOptions())
    made.observe({})
    assert made.state() == {"observed": 1}
    assert kind.needs(NoOptions()) == frozenset()


# ---- an installed package ------------------------------------------------------------------------------------------------

CODE = """
from bench.methods import Choice, Method, Objective
from bench.settings import Frozen

class Options(Frozen):
    pass

class Divides(Method):
    def choose(self, step, probe):
        return Choice({Objective.DPO: 1.0})

    @staticmethod
    def batches_per_step(lambda_dpo, options):
        return {Objective.DPO: 1.0}

    @staticmethod
    def phases(setup, options):
        return 1 // 0
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Lay a package and what an installer would leave beside it."""
    folder = tmp_path / "site"
    info = folder / "stranger-0.3.dist-info"
    info.mkdir(parents=True)
    (folder / "stranger.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 0.3\n")
    points = "[bench.methods]\ndivides = stranger:Divides\nnames_options = stranger:Options\n"
    (info / "entry_points.txt").write_text(points)
    return folder


@pytest.mark.parametrize(
    ("command", "method", "said"),
    [
        ("validate", "divides", f"`phases` {DIVIDES}; {ADVICE} (BENCH_TRACEBACK=1 shows where)"),
        ("plan", "divides", f"`phases` {DIVIDES}; {ADVICE} (BENCH_TRACEBACK=1 shows where)"),
        ("validate", "names_options", "(stranger:Options) cannot be used: Options has no `choose` and no "),
    ],
)
def test_the_line_at_the_command_line(
    command: str, method: str, said: str, site: Path, tiny: TinySuite, tmp_path: Path
) -> None:
    """Exit code 2, one line, and the package with its version."""
    suite = tiny().model_dump(mode="json", exclude_none=True) | {"methods": [method]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(suite))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", command, str(tmp_path / "mine.yaml")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"bench: the method {method!r} of stranger 0.3")
    assert said in line
