"""Suite → Plan: decide every job of a suite and find the work they share. Pure; no torch.

::

    pretrain ──► everything (source `world` only)
    train: SFT optimum ─► reference_logps ─► DPO optimum ─► runs      one reference and one set of its log-probabilities
              └── checkpoint at the phase change ──────────► Sequential runs of the same seed
    both optima of a seed, or the reference ─► recipe             an adapter not made by the shared loop
    base, data ─► cost                                            what each kind of step takes, on an idle machine
    base, reference, optima, runs ─► stages of the evaluators, such as lm_eval, or generate ─► judge
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from bench.data import prompt_form, sources
from bench.errors import InputError
from bench.evaluators import EVALUATORS, Stage
from bench.methods import METHODS, Need, Objective, Phase, Setup, Target
from bench.models.files import model_settings, revision_of, stored_bytes
from bench.plan import identity
from bench.plan.plan import Plan
from bench.recipes import RECIPES
from bench.records.spec import (
    KINDS,
    NETWORK_ONLY,
    ON_SEVERAL_DEVICES,
    WITH_ADAPTER,
    Inputs,
    JobSpec,
    Labels,
    PolicyLabels,
    Prefix,
    Resources,
    RunLabels,
    ToyLabels,
)
from bench.records.work import Work
from bench.registry import Origin, Registry
from bench.suite.suite import Evaluation, Experiment, Method, Suite
from bench.suite.toy import ToySuite
from bench.toy import runs
from bench.train.setup import setup_of
from bench.train.stopping import targets

SLUG = 40
# How long each kind of work is measured, over all rounds: at least so many steps and seconds, after warm-up.
REPEATS = {"rounds": 5, "steps": 30, "seconds": 20.0, "warm_up_steps": 2}


def make(suite: Experiment, mirror: Path | None = None) -> Plan:
    """Plan a suite.

    Raises:
        InputError: data or a model that cannot be found.
    """
    if isinstance(suite, ToySuite):
        return _toy(suite)
    assert isinstance(suite, Suite)
    return _Planner(_settled(_at_commits(suite, mirror), mirror), mirror).plan


def _settled(suite: Suite, mirror: Path | None) -> Suite:
    """Look up what the evaluators' options leave open, such as how many rows a set of prompts has."""
    options = {name: one.settled(mirror) for name, one in suite.evaluation.chosen.items()}
    return suite.model_copy(
        update={"evaluation": Evaluation.model_construct(devices=suite.evaluation.devices, **options)}
    )


def _at_commits(suite: Suite, mirror: Path | None) -> Suite:
    """Put the commits that branches of the hub stand for now in their place: what jobs load is then what their ids say."""
    model = (
        suite.model.model_copy(update={"revision": revision_of(suite.model)})
        if suite.model.source == "hub"
        else suite.model
    )
    pairs, rows = (
        one.model_copy(update={"revision": sources.revision(one)}) if one.source == "hub" and mirror is None else one
        for one in (suite.data.preference, suite.data.instruction)
    )
    data = suite.data.model_copy(update={"preference": pairs, "instruction": rows})
    return suite.model_copy(update={"model": model, "data": data})


def _toy(suite: ToySuite) -> Plan:
    """Plan a toy suite: a job per method, λ and horizon T holds the runs of all seeds, each a matter of milliseconds."""
    plan = Plan(suite)
    for method in suite.methods:
        plugins = identity.plugins([METHODS.origin(method.name)])
        for lambda_dpo in method.lambdas or suite.lambdas:
            for horizon in suite.training.horizons:
                settings = suite.job_settings(method, lambda_dpo, horizon)
                own = (settings[name] for name in ("method", "lambda_dpo", "steps", "seeds", "options"))
                labels = ToyLabels(method.shown, *own)
                job_id = f"{_slug(method.shown)}-l{lambda_dpo:g}-t{horizon.steps}"
                job_id += f"-{identity.content_hash(['toy', settings, identity.SEMANTICS, *plugins])}"
                steps = runs.length(settings) * settings["seeds"]
                job = JobSpec(
                    job_id,
                    "toy",
                    labels,
                    settings,
                    Inputs(),
                    {},
                    roles=("run",),
                    steps=steps,
                    plugins=plugins,
                    resources=Resources(devices=0),
                )
                plan.add(job)
    return plan


class _Planner:
    def __init__(self, suite: Suite, mirror: Path | None) -> None:
        self.suite = suite
        self.plan = Plan(suite)
        pairs, rows = suite.data.preference, suite.data.instruction
        preference = sources.identity(pairs, mirror)
        instruction = f"chosen of {preference}" if rows.source == "chosen" else sources.identity(rows, mirror)
        self.identities = {"preference": preference, "instruction": instruction}
        self.model = model_settings(suite.model)
        self.computing = Resources(memory_bytes=stored_bytes(suite.model))
        self.origins: dict[tuple[str, str], Origin | None] = {}
        self._of_base: dict[tuple[str, str], str] = {}
        self._fronts: dict[int, tuple[str, ...]] = {}
        self._written: dict[tuple[str, ...], str] = {}
        self._optima: dict[tuple[Objective, int], str] = {}
        self.pretrained: str | None = None
        self.pretrained = self._pretrain()
        self.reference_logps = self._reference()
        for seed in suite.seeds:
            for objective in (Objective.SFT, Objective.DPO):
                self._optima[objective, seed] = self._optimum(objective, seed).id
        for method in suite.methods:
            for lambda_dpo in method.lambdas or suite.lambdas:
                for seed in suite.seeds:
                    add = self._recipe if method.name in RECIPES else self._run
                    add(method, lambda_dpo, seed)
        self._evaluations()
        if suite.measures_cost:
            self._cost()

    def _job(
        self,
        kind: str,
        slug: str,
        labels: Labels | None,
        settings: dict[str, Any],
        inputs: Inputs,
        *,
        data: tuple[str, ...] = (),
        origins: Iterable[Origin | None] = (),
        resources: Resources | None = None,
        **parts: Any,
    ) -> JobSpec:
        """Add a job, whose id has the hash of all that decides its numbers; every one may read the pre-trained model."""
        inputs = replace(inputs, pretrained=self.pretrained)
        front = self._front_json(inputs.front) if inputs.front else None
        named = (replace(inputs, front=()).as_dict() | {identity.FRONT: None}) if front else inputs.as_dict()
        uses = {name: self.identities[name] for name in data}
        plugins = identity.plugins(origins)
        hashed = [kind, settings, named, uses, identity.SEMANTICS, *plugins]
        job_id = f"{slug}-{identity.content_hash(hashed, front)}"
        several = self._on(self.suite.training.devices) if kind in ON_SEVERAL_DEVICES else self.computing
        parts |= {"plugins": plugins, "resources": resources or several}
        return self.plan.add(JobSpec(job_id, kind, labels, settings, inputs, uses, **parts))

    def _on(self, devices: int | Literal["auto"]) -> Resources:
        """Return what a job takes on so many devices; where that is left open, it is settled when a run begins."""
        return self.computing if devices == "auto" else replace(self.computing, devices=devices)

    def _front_json(self, front: tuple[str, ...]) -> str:
        """Write a front once for all jobs that have it among their inputs."""
        if front not in self._written:
            self._written[front] = identity.as_json(Inputs(front=front).as_dict())
        return self._written[front]

    def _origin(self, table: Registry[Any], name: str) -> Origin | None:
        """Say whose code an entry is; its package's sources are hashed once."""
        key = table.kind, name
        if key not in self.origins:
            self.origins[key] = table.origin(name)
        return self.origins[key]

    def _pretrain(self) -> str | None:
        if self.suite.model.source != "world":
            return None
        settings = {"model": self.model, "world": self.identities["preference"]}
        steps = self.suite.model.pretraining_steps
        return self._job("pretrain", "pretrain", None, settings, Inputs(), steps=steps).id

    # ---- training ---------------------------------------------------------------------------------------------------

    def _train(
        self,
        slug: str,
        role: str,
        labels: RunLabels,
        own: dict[str, Any],
        inputs: Inputs,
        *,
        kind: str = "train",
        **parts: Any,
    ) -> JobSpec:
        """Add a training job; `own` is what sets it apart from the suite's other ones."""
        suite = self.suite
        settings = {
            "model": self.model,
            **identity.tuning_settings(suite),
            "data": identity.data_settings(suite),
            "training": identity.training_settings(suite.training),
            "reduction": suite.objectives.reduction,
            "options": labels.options,
            "seed": labels.seed,
            **own,
        }
        if labels.lambda_dpo is not None:
            settings["lambda_dpo"] = labels.lambda_dpo
        uses = tuple(self.identities)
        return self._job(kind, slug, labels, settings, inputs, roles=(role,), data=uses, **parts)

    def _first_phase_alone(
        self,
        objective: Objective,
        seed: int,
        role: str,
        slug: str,
        steps: int,
        prefix: Prefix | None = None,
        **own: Any,
    ) -> JobSpec:
        """Add a Sequential run whose second phase is empty: an optimum, or a reference policy."""
        uses_dpo = objective is Objective.DPO
        inputs = Inputs(reference_logps=self.reference_logps) if uses_dpo else Inputs()
        beta = {"beta": self.suite.objectives.beta} if uses_dpo else {}
        phases = {str(one): steps if one is objective else 0 for one in Objective}
        labels = RunLabels("sequential", "sequential", None, seed, "dpo_sft" if uses_dpo else "sft_dpo", phases)
        settings = {"method": labels.base_method, "phases": [[str(objective), steps]], **beta, **own}
        tokens = self._tokens((Phase(steps, objective),))
        return self._train(slug, role, labels, settings, inputs, prefix=prefix, steps=steps, tokens=tokens)

    def _row_optimum(self, objective: Objective, optimum: str, seed: int) -> str:
        """Add an optimum's log-probabilities of every training row, which paired gaps compare batches with."""
        return self._job(
            "row_optimum",
            f"row-optimum-{objective}-s{seed}",
            PolicyLabels(optimum, {"objective": str(objective), "seed": seed}),
            {"model": self.model, "data": identity.data_settings(self.suite), "objective": str(objective)},
            Inputs(policy=optimum),
            data=tuple(self.identities),
        ).id

    def _optimum(self, objective: Objective, seed: int) -> JobSpec:
        role = f"optimum_{objective}"
        return self._first_phase_alone(objective, seed, role, f"{objective}-optimum-s{seed}", self.suite.steps)

    def _reference(self) -> str:
        """Add the reference policy and its log-probabilities on the preference data."""
        suite, reference = self.suite, self.suite.reference
        policy: str | None = None
        if reference.job:
            policy = self._adopted(reference.job).id
        elif reference.policy == "phase_1":
            policy = self._phase_1().id
        elif reference.policy != "base":
            rows = reference.rows or (
                suite.data.preference.rows if reference.policy == "preference_chosen" else suite.data.instruction.rows
            )
            batch_size = reference.batch_size or suite.training.batch_size.sft
            own: dict[str, Any] = {}
            if reference.policy == "preference_chosen":
                own["sft_on_chosen"] = {"rows": rows, "batch_size": batch_size}
            elif reference.rows or reference.batch_size:
                own["sft_rows"] = {"rows": rows, "batch_size": batch_size}
            epochs = reference.epochs or (suite.training.epochs if own else None)
            steps = rows // batch_size * epochs if epochs else suite.steps
            slug = f"sft-optimum-s{suite.seeds[0]}" if not own and steps == suite.steps else "reference"
            policy = self._first_phase_alone(Objective.SFT, suite.seeds[0], "reference", slug, steps, **own).id
        settings = {"model": self.model, "data": identity.preference_settings(suite)}
        labels, inputs = PolicyLabels(policy or "base"), Inputs(policy=policy)
        return self._job("reference_logps", "reference-logps", labels, settings, inputs, data=("preference",)).id

    def _phase_1(self) -> JobSpec:
        """Add the end of the first seed's SFT phase; a constant schedule takes it from the SFT optimum's checkpoint."""
        suite, seed = self.suite, self.suite.seeds[0]
        (lambda_dpo,) = {*suite.lambdas, *(one for method in suite.methods for one in method.lambdas or ())}
        steps = suite.phase_steps(lambda_dpo)["sft"]
        prefix = None
        if suite.training.schedule == "constant" and steps < suite.steps:
            prefix = Prefix(self._optimum(Objective.SFT, seed).id, steps)
            self.plan.keep(prefix.job, prefix.step)
        slug = f"sft-optimum-s{seed}" if steps == suite.steps else f"sft-phase-1-s{seed}"
        return self._first_phase_alone(Objective.SFT, seed, "reference", slug, steps, prefix)

    def _adopted(self, job: str) -> JobSpec:
        """Add a policy that another suite trained; its id holds the hash of all that made it."""
        labels = RunLabels(job, "adopted", None, self.suite.seeds[0], self.suite.order, None)
        settings = {"model": self.model, "job": job.partition("/")[2]}
        parts: dict[str, Any] = {"roles": ("reference",), "resources": NETWORK_ONLY}
        return self._job("adopt", "adopted", labels, settings, Inputs(), **parts)

    def _front(self, seed: int) -> tuple[str, ...]:
        """Return the runs of a seed that with the optima are the reference front, which joint runs may stop at.

        Made once a seed: every joint run of the seed names all of them.
        """
        suite = self.suite
        if seed not in self._fronts:
            makers = [one for one in suite.methods if one.name in METHODS and METHODS[one.name].makes_front]
            runs_of_front = (
                self._run(method, one, seed) for method in makers for one in method.lambdas or suite.lambdas
            )
            self._fronts[seed] = tuple(job.id for job in runs_of_front)
        return self._fronts[seed]

    def _stopping(self, method: Method, seed: int) -> tuple[dict[str, Any], tuple[str, ...], bool]:
        """Return what the stopping rule adds to a run's settings, the runs of its front, and whether it asks for the optima.

        Nothing where it does not apply.
        """
        stopping = self.suite.training.stopping
        held_against = targets(stopping.rule, METHODS[method.name])
        if not held_against:
            return {}, (), False
        front = stopping.front if Target.FRONT in held_against else None
        settings = {
            "rule": stopping.rule,
            "threshold": stopping.threshold,
            "front": front and [list(one) for one in front],
        }
        from_runs = Target.FRONT in held_against and front is None
        runs_of_front = self._front(seed) if from_runs else ()
        return {"stopping": settings}, runs_of_front, from_runs or Target.OPTIMUM in held_against

    def _run(self, method: Method, lambda_dpo: float, seed: int) -> JobSpec:
        suite, kind = self.suite, METHODS[method.name]
        options, labels = kind.Options.model_validate(method.options), self._labels(method, lambda_dpo, seed)
        optima: dict[str, str] = {objective: self._optima[objective, seed] for objective in Objective}
        needs = kind.needs(options)
        stopping, front, asks_for_optima = self._stopping(method, seed)
        inputs = Inputs(
            reference_logps=self.reference_logps,
            optimum=optima if Need.OPTIMUM in needs or asks_for_optima else {},
            row_optimum={one: self._row_optimum(one, optima[one], seed) for one in Objective}
            if Need.ROW_OPTIMUM in needs
            else {},
            front=front,
        )
        setup = setup_of(labels, suite.steps)
        phases = phases_of(method.name, setup, options)
        own: dict[str, Any] = {"method": labels.base_method, "beta": suite.objectives.beta, **stopping}
        own |= self._length(phases, setup)
        origin = self._origin(METHODS, method.name)
        if origin:  # of ours it is known that only Sequential looks at these, whose phases they are
            own |= {"order": labels.order, "phase_steps": labels.phase_steps}
        prefix = None
        # A schedule that looks at the run's length makes the optimum's first steps differ from this run's.
        first = phases[0]
        if first.alone and suite.training.schedule == "constant" and 0 < first.steps < suite.steps:
            prefix = Prefix(optima[first.alone], first.steps)
            self.plan.keep(prefix.job, prefix.step)
        tokens = self._tokens(phases, kind.batches_per_step(lambda_dpo, options))
        return self._train(
            _run_slug(labels),
            "run",
            labels,
            own,
            inputs,
            prefix=prefix,
            steps=suite.steps,
            tokens=tokens,
            origins=[origin],
        )

    def _labels(self, method: Method, lambda_dpo: float, seed: int) -> RunLabels:
        """Say who a run of a method or a recipe is."""
        recipe = RECIPES.get(method.name)
        options = (RECIPES if recipe else METHODS).options(method.name, method.options)
        phases = self.suite.phase_steps(lambda_dpo) if recipe is None or recipe.untrained is None else None
        return RunLabels(method.shown, method.name, lambda_dpo, seed, self.suite.order, phases, options)

    def _length(self, phases: tuple[Phase, ...], setup: Setup) -> dict[str, Any]:
        """Return the settings that say how long a run is: its phases, and its steps or its tokens.

        A run of the very phases that a budget of tokens is counted from has these tokens by itself.
        """
        split = tuple(Phase(setup.phase_steps[objective], objective) for objective in setup.order)
        made: dict[str, Any] = {}
        if phases != (Phase(setup.steps),):
            made["phases"] = [[phase.alone and str(phase.alone), phase.steps] for phase in phases]
        if phases == split:
            return made
        if self.suite.training.budget == "tokens":
            return made | {"budget": {"tokens_of_phases": [[str(phase.alone), phase.steps] for phase in split]}}
        return made | {"steps": setup.steps}

    def _recipe(self, method: Method, lambda_dpo: float, seed: int) -> None:
        """Add a run that is not made by the shared loop."""
        suite, kind, labels = self.suite, RECIPES[method.name], self._labels(method, lambda_dpo, seed)
        optima = {objective: self._optima[objective, seed] for objective in Objective}
        inputs = Inputs(
            reference=self.plan.jobs[self.reference_logps].inputs.policy if "reference" in kind.needs else None,
            reference_logps=self.reference_logps,
            optimum={one: job for one, job in optima.items() if f"optimum_{one}" in kind.needs},
        )
        own: dict[str, Any] = {"recipe": labels.base_method, "beta": suite.objectives.beta}
        slug, origins = _run_slug(labels), [self._origin(RECIPES, method.name)]
        if labels.phase_steps:
            own["phases"] = [[name, labels.phase_steps[name]] for name in labels.order.split("_")]
            tokens = self._tokens_of_plain_rows(labels.phase_steps)
            parts: dict[str, Any] = {"steps": suite.steps, "tokens": tokens, "origins": origins}
            self._train(slug, "run", labels, own, inputs, kind="recipe", **parts)
            return
        settings = {
            "model": self.model,
            "data": identity.data_settings(suite),
            "reduction": suite.objectives.reduction,
            "options": labels.options,
            "lambda_dpo": labels.lambda_dpo,
            "seed": labels.seed,
            **own,
        }
        uses = tuple(self.identities)
        self._job("recipe", slug, labels, settings, inputs, roles=("run",), data=uses, origins=origins)

    def _tokens_of_plain_rows(self, phase_steps: Mapping[str, int]) -> int:
        """Bound the tokens of a run in which a pair is two rows: another library's loop repeats the prompt."""
        limits, batch = self.suite.data, self.suite.training.batch_size
        rows = 2 * batch.dpo * phase_steps["dpo"] + batch.sft * phase_steps["sft"]
        return rows * (limits.max_prompt_tokens + limits.max_answer_tokens)

    def _tokens(self, phases: tuple[Phase, ...], per_step: Mapping[Objective, float] | None = None) -> int:
        """Bound the tokens of a run: every row at its full length.

        Args:
            phases: the run's.
            per_step: batches of each objective in a step of a phase that descends more than one.
        """
        limits, batch = self.suite.data, self.suite.training.batch_size
        row = {
            Objective.DPO: batch.dpo * (limits.max_prompt_tokens + 2 * limits.max_answer_tokens),
            Objective.SFT: batch.sft * (limits.max_prompt_tokens + limits.max_answer_tokens),
        }
        mixed = sum(row[objective] * share for objective, share in (per_step or {}).items())
        return round(sum(phase.steps * (row[phase.alone] if phase.alone else mixed) for phase in phases))

    # ---- cost -------------------------------------------------------------------------------------------------------

    def _cost(self) -> None:
        """Add a job that measures each kind of work the suite's runs are made of; it stands last, as all else must rest."""
        suite = self.suite
        training = identity.training_settings(suite.training)
        del training["evaluate_every"]  # not a step's
        settings = {
            "model": self.model,
            **identity.tuning_settings(suite),
            "data": identity.data_settings(suite),
            "training": training,
            "reduction": suite.objectives.reduction,
            "work": [str(one) for one in Work if one in self._work()],
            "repeats": REPEATS,
        }
        self._job("cost", "cost", None, settings, Inputs(), data=tuple(self.identities))

    def _work(self) -> frozenset[Work]:
        """Say what the steps of all runs are made of; the optima train on one objective each."""
        found = frozenset({Work.DPO, Work.SFT})
        for method in self.suite.methods:
            if method.name in METHODS:
                kind = METHODS[method.name]
                options = kind.Options.model_validate(method.options)
                found = found.union(*(kind.work(one, options) for one in method.lambdas or self.suite.lambdas))
        return found

    # ---- evaluation -------------------------------------------------------------------------------------------------

    def _evaluations(self) -> None:
        chosen = self.suite.evaluation.chosen
        evaluators = {name: one.stages() for name, one in chosen.items()}
        refuse_equal_kinds(evaluators)
        loading = {name for name, one in chosen.items() if one.models()}
        policies: list[JobSpec | None] = [
            None,
            *(job for job in self.plan.jobs.values() if job.kind in WITH_ADAPTER),
        ]
        for policy in policies:
            for name, stages in evaluators.items():
                self._evaluate(policy, stages, self._origin(EVALUATORS, name), loads=name in loading)

    def _evaluate(
        self, policy: JobSpec | None, stages: tuple[Stage, ...], origin: Origin | None, *, loads: bool
    ) -> None:
        """Add an evaluator's jobs for one policy; None is the base model, which comes first and leaves its own for the others.

        A stage that asks no policy, of an evaluator that loads no other model either, holds no device.
        """
        of = policy.id if policy else "base"
        name = policy.id.rsplit("-", 1)[0] if policy else "base"
        earlier: dict[str, str] = {}
        for stage in stages:
            if stage.of_base and policy:
                earlier[stage.shown_name] = self._of_base[stage.kind, stage.shown_name]
                continue
            settings = dict(stage.settings)
            read = earlier if stage.reads is None else {name: earlier[name] for name in stage.reads}
            inputs = Inputs(stages=dict(read))
            if stage.policy:
                settings |= {"model": self.model} | identity.settings_of(self.suite, stage.data)
                settings |= {"form": prompt_form.form(self.suite.data)} if stage.form else {}
                inputs = replace(inputs, policy=policy.id if policy else None)
            job = self._job(
                stage.kind,
                f"{stage.slug or stage.kind}-{name}",
                PolicyLabels(of, stage.labels),
                settings,
                inputs,
                data=stage.data,
                origins=[origin, *stage.origins],
                resources=self._resources(stage, loads),
                stage=stage.shown_name,
            )
            earlier[stage.shown_name] = job.id
            if policy is None:
                self._of_base[stage.kind, stage.shown_name] = job.id

    def _resources(self, stage: Stage, loads: bool) -> Resources:
        if stage.splits:
            return self._on(self.suite.evaluation.devices)
        return self.computing if stage.policy or loads else NETWORK_ONLY


def phases_of(name: str, setup: Setup, options: Any) -> tuple[Phase, ...]:
    """Return the phases that a method declares for a run.

    Raises:
        InputError: they do not add up to the run.
    """
    phases = METHODS[name].phases(setup, options)
    if sum(phase.steps for phase in phases) != setup.steps:
        lengths = " + ".join(str(phase.steps) for phase in phases)
        raise InputError(
            f"{METHODS.whose(name)} declares phases of {lengths} steps, but a run has {setup.steps}; they must add up to it"
        )
    return phases


def refuse_equal_kinds(evaluators: Mapping[str, tuple[Stage, ...]]) -> None:
    """Refuse stages of two evaluators whose jobs could not be told apart by their kind.

    Raises:
        InputError: says whose they are.
    """
    taken = dict.fromkeys(KINDS, "training")
    for name, stages in evaluators.items():
        for stage in stages:
            if taken.get(stage.kind, f"evaluation.{name}") != f"evaluation.{name}":
                raise InputError(
                    f"evaluation.{name}: its jobs are of the kind {stage.kind!r}, which those of {taken[stage.kind]} "
                    "have already; its package must call them otherwise"
                )
            taken[stage.kind] = f"evaluation.{name}"


def _run_slug(labels: RunLabels) -> str:
    """Return the beginning of a run's id. A label changes no number, so it is no part of it."""
    return f"{_slug(labels.base_method)}-l{labels.lambda_dpo:g}-s{labels.seed}"


def _slug(text: str) -> str:
    """Write a name as part of a job's id, which is a folder: short enough for a file system in any script."""
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower()).strip("-")[:SLUG]
