"""The evaluators: what is every policy of a suite asked, and how is it scored?

An evaluator is a key under a suite's `evaluation`; below it stand its `Options`. It declares the jobs that a policy gets,
one or several `Stage`s, and runs them one by one; what comes of a stage is written down by the worker. To add one: a file
beside this one with a subclass of `Evaluator` and a line in `EVALUATORS`, or an entry point in the group
`bench.evaluators` of another package. Modules of evaluators are imported when a suite is read: torch and the like belong
inside functions. May import judges, models, data and records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel

from bench.errors import JobError
from bench.plugins import Contract, not_json
from bench.records.metrics import Metric
from bench.registry import NoOptions as NoOptions
from bench.registry import Origin, Registry
from bench.settings import Data, Model

if TYPE_CHECKING:
    from bench.data.tokens import Datasets
    from bench.models.policy import Policy

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """Describe the job that an evaluator's stage is for each policy.

    Attributes:
        kind: of the job on record; no other evaluator's stage has it. Stages of one evaluator that do the same in different
            ways, such as two judges, may share it: each has a name of its own then.
        settings: what of the options decides its numbers, as JSON values; the model and the data are added.
        name: what later stages find its rows under; the kind by default.
        slug: what the ids of its jobs begin with; the kind by default.
        title: what `bench plan` calls its jobs; the kind by default.
        data: which of the suite's data sets it reads: preference, instruction.
        policy: whether it asks the policy; a later stage may do with what an earlier one left.
        of_base: whether it asks the base model, once for all policies.
        reads: names of the earlier stages whose rows it works with; all of them by default.
        labels: who it is besides whose policy it asks, for the record.
        origins: whose code decides its numbers besides the evaluator's own, such as a judge's.
        form: whether it asks texts of its own in the form of the suite's prompts.
        splits: whether several processes can run it together: each takes its share of the policy's work by
            `policy.processes`, and each returns the whole outcome, of which the first one's is kept.
    """

    kind: str
    settings: Mapping[str, Any]
    name: str = ""
    slug: str = ""
    title: str = ""
    data: tuple[str, ...] = ()
    policy: bool = True
    of_base: bool = False
    reads: tuple[str, ...] | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    origins: tuple[Origin, ...] = ()
    form: bool = False
    splits: bool = False

    @property
    def shown_name(self) -> str:
        """The name, or the kind where it has none of its own."""
        return self.name or self.kind


@dataclass(frozen=True)
class StageContext:
    """Give a stage what it works with.

    Attributes:
        folder: the job's; what is kept in it is found again after an interruption.
        results: the suite's folder.
        mirror: an offline mirror of the hub, if there is one.
        data: the suite's data settings, with the form and the longest tokens of prompts.
        policy: returns the policy to ask.
        load: loads another model, such as a judge's.
        datasets: returns the suite's data, with the first so many held-out pairs as text in `judged`.
        earlier: the rows of the earlier stages, by name.
        tell: takes a line of progress.
        stage: the name of the stage, which tells those of one kind apart.
        stopping: asked whether the user wants to stop; a stage that waits for long raises Interrupted then.
    """

    folder: Path
    results: Path
    mirror: Path | None
    data: Data
    policy: Callable[[], Policy]
    load: Callable[[Model], Policy]
    datasets: Callable[[int], Datasets]
    earlier: Mapping[str, Rows]
    tell: Callable[[str], None]
    stage: str = ""

    @property
    def max_prompt_tokens(self) -> int:
        """The suite's limit."""
        return self.data.max_prompt_tokens

    stopping: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Outcome:
    """What came of a stage; the worker writes it down.

    Attributes:
        rows: what was seen, one a question, completion or judged pair: samples.jsonl.
        scores: by name, {value, n, standard_error, ...}; null with a reason where there is none: scores.json.
        metrics: what each score is: metrics.json.
        facts: what was read: data.json.
        error: why the job fails although something came of it; the next run does it again.
    """

    rows: Rows
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metrics: Sequence[Metric] = ()
    facts: Mapping[str, Any] | None = None
    error: JobError | None = None


class Evaluator(Protocol):
    """Ask policies something and score the answers. A subclass needs `stages` and `run`.

    Attributes:
        Options: a pydantic model of the keys a suite may give below this evaluator's name.
    """

    Options: ClassVar[type[BaseModel]] = NoOptions
    options: Any

    def __init__(self, options: Any) -> None:
        self.options = options

    def stages(self) -> tuple[Stage, ...]:
        """Declare the jobs of a policy in their order.

        Raises:
            InputError: what decides their numbers is not there.
        """

    def run(self, kind: str, context: StageContext) -> Outcome:
        """Do the stage of that kind for one policy.

        Raises:
            JobError: it cannot be done.
        """

    def check(self, tell: Callable[[str], None]) -> None:
        """Refuse what is known to fail, without a model or a network; `tell` hears of what takes a while.

        Raises:
            SuiteError: with the key and what to do.
        """

    def settled(self, mirror: Path | None) -> Any:
        """Return its options with what they leave to be looked up, such as how many rows a set has, before a plan is made.

        Args:
            mirror: an offline mirror of the hub, if there is one.

        Raises:
            InputError: what they mean is not there.
        """
        return self.options

    def own_prompts(self, data: Data, tokenizer: Callable[[], Any], mirror: Path | None) -> list[str]:
        """Return prompts that policies are asked beside the suite's own rows, as the model will see them.

        Raises:
            DataError: one cannot be put into the suite's form.
        """
        return []

    def warnings(self) -> list[str]:
        """Say what is doubtful."""
        return []

    def models(self) -> dict[str, Model]:
        """Return the models that it loads besides the policies, by the key that names each."""
        return {}

    def try_out(self, kinds: set[str], results: Path, mirror: Path | None) -> str | None:
        """Try what would else fail after hours of training, such as whether a service answers.

        Args:
            kinds: of its stages that are still to be done, and their names.
            results: the suite's folder.
            mirror: an offline mirror of the hub, if there is one.

        Returns:
            What was found to be good, in words.

        Raises:
            InputError: with what to change.
        """
        return None

    def pairs_wanted(self) -> int:
        """Say how many held-out preference pairs its stages read, beside those that objectives are evaluated on.

        They are counted before anything is trained. It is the option `prompts`, where there is one, unless it says otherwise.
        """
        prompts = getattr(self.options, "prompts", 0)
        return prompts if isinstance(prompts, int) else 0

    def items(self) -> dict[str, int | None]:
        """Say of how many single outcomes from 0 to 1, such as questions, scores are the mean; None where only loading tells.

        By a score's name, or what it begins with. The plan says how small a difference so many can show.
        """
        return {}

    def new_tokens(self) -> int:
        """Say how many tokens its stages may generate after a prompt."""
        return 0

    def price(self, to_do: Mapping[str, int], limits: Data) -> dict[str, Any] | list[dict[str, Any]] | None:
        """Say what may have to be paid, as `judges.cost.estimate` does, once for each that is paid; None where nothing has to be.

        Args:
            to_do: how many jobs of each kind, and of each stage by its name, are to be done.
            limits: how long prompts and answers may be.
        """
        return None

    def goes_on(self, kind: str, folder: Path) -> str | None:
        """Say what of a stage that was stopped goes on elsewhere, and comes in with the next run; None: nothing does.

        Args:
            kind: the stage's.
            folder: the job's.
        """
        return None

    def smoke(self) -> Any:
        """Return options that ask little, without a network or a key."""
        return self.options


DATA = ("preference", "instruction")


def _no_count(made: Any) -> str | None:
    fits = isinstance(made, int) and not isinstance(made, bool) and made >= 0
    return None if fits else f"{made!r:.100}, but it is how many pairs, 0 or more"


def _no_items(made: Any) -> str | None:
    fits = isinstance(made, Mapping) and all(isinstance(one, str) for one in made)
    wrong = (
        next((problem for one in made.values() if one is not None and (problem := _no_count(one))), None)
        if fits
        else ""
    )
    return wrong if fits else f"{made!r:.100}, but it is a mapping from scores to how many outcomes they have, or None"


def wrong_stages(made: Any) -> str | None:
    """Say what is no declaration of stages."""
    if not isinstance(made, tuple | list) or not made or not all(isinstance(one, Stage) for one in made):
        return f"{made!r:.100}, but stages are a tuple of Stage, one or more"
    names = [one.shown_name for one in made]
    if len(set(names)) < len(names):
        return f"two stages of the name {next(one for one in names if names.count(one) > 1)!r}; give each its own"
    return next((problem for one in made if (problem := _wrong_stage(one))), None)


def _wrong_stage(stage: Stage) -> str | None:
    where = f"a stage {stage.kind!r}"
    for name in (stage.kind, stage.slug or stage.kind):
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            return f"{where} whose kind or slug {name!r} is no name of a folder: letters, digits, _, - and ."
    unknown = [one for one in stage.data if one not in DATA] if isinstance(stage.data, tuple | list) else [stage.data]
    if unknown:
        return f"{where} with data {unknown[0]!r}; a suite's data sets are a tuple of {' and '.join(DATA)}"
    for name, value in (("settings", stage.settings), ("labels", stage.labels)):
        problem = not_json(value) if isinstance(value, Mapping) else f"it is a {type(value).__name__}"
        if problem:
            return f"{where} whose {name} are no mapping of JSON values ({problem}); model_dump(mode='json') makes them"
    return None


EVALUATORS: Registry[type[Evaluator]] = Registry(
    "evaluator",
    "bench.evaluators",
    {
        "lm_eval": "bench.evaluators.harness:Harness",
        "win_rate": "bench.evaluators.judging:Judging",
        "base_kl": "bench.evaluators.base_kl:Divergence",
    },
    Contract(
        Evaluator,
        parts=("stages", "run"),
        returns={"stages": wrong_stages, "pairs_wanted": _no_count, "items": _no_items},
    ),
)
