"""Suite → Plan: decide every job of a suite and find the work they share. Pure; no torch.

::

    pretrain ──► everything (source `world` only)
    train: SFT optimum ─► reference_logps ─► DPO optimum ─► runs      one reference and one set of its log-probabilities
              └── checkpoint at the phase change ──────────► Sequential runs of the same seed
    both optima of a seed, or the reference ─► recipe             an adapter not made by the shared loop
    base, reference, optima, runs ─► stages of the evaluators, such as lm_eval, or generate ─► judge
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data import sources
from bench.errors import InputError
from bench.evaluators import EVALUATORS, Stage
from bench.methods import METHODS, Need, Objective, Phase, Setup, Target
from bench.models.files import model_settings
from bench.plan import identity
from bench.plan.plan import Plan
from bench.recipes import RECIPES
from bench.records.spec import KINDS, WITH_ADAPTER, JobSpec, Prefix
from bench.registry import Origin, Registry, options_of
from bench.suite.suite import Experiment, Method, Suite
from bench.suite.toy import ToySuite
from bench.toy import runs
from bench.train.stopping import targets


def make(suite: Experiment, mirror: Path | None = None) -> Plan:
    """Plan a suite.

    Raises:
        InputError: data or a model that cannot be found.
    """
    if isinstance(suite, ToySuite):
        return _toy(suite)
    assert isinstance(suite, Suite)
    return _Planner(suite, mirror).plan


def _toy(suite: ToySuite) -> Plan:
    """Plan a toy suite: a job per method, λ and horizon T holds the runs of all seeds, each a matter of milliseconds."""
    plan = Plan(suite)
    for method in suite.methods:
        plugins = identity.plugins([METHODS.origin(method.name)])
        for lambda_dpo in method.lambdas or suite.lambdas:
            for horizon in suite.training.horizons:
                settings = suite.job_settings(method, lambda_dpo, horizon)
                labels = {
                    "method": method.shown,
                    "base_method": method.name,
                    "lambda_dpo": lambda_dpo,
                    "steps": horizon.steps,
                    "seeds": settings["seeds"],
                    "options": settings["options"],
                }
                job_id = f"{_slug(method.shown)}-l{lambda_dpo:g}-t{horizon.steps}"
                job_id += f"-{identity.content_hash(['toy', settings, identity.SEMANTICS, *plugins])}"
                steps = runs.length(settings) * settings["seeds"]
                job = JobSpec(job_id, "toy", labels, settings, {}, {}, roles=("run",), steps=steps, plugins=plugins)
                plan.add(job)
    return plan


class _Planner:
    def __init__(self, suite: Suite, mirror: Path | None) -> None:
        self.suite = suite
        self.plan = Plan(suite)
        self.identities = {
            "preference": sources.identity(suite.data.preference, mirror),
            "instruction": sources.identity(suite.data.instruction, mirror),
        }
        self.model = model_settings(suite.model)
        self.origins: dict[tuple[str, str], Origin | None] = {}
        self.pretrained = self._pretrain()
        self.reference_logps = self._reference()
        for seed in suite.seeds:
            self._optimum(Objective.SFT, seed)
            self._optimum(Objective.DPO, seed)
        for method in suite.methods:
            for lambda_dpo in method.lambdas or suite.lambdas:
                for seed in suite.seeds:
                    add = self._recipe if method.name in RECIPES else self._run
                    add(method, lambda_dpo, seed)
        self._evaluations()

    def _job(self, kind: str, slug: str, **parts: Any) -> JobSpec:
        inputs = {name: job for name, job in parts.pop("inputs").items() if job}
        uses = {name: self.identities[name] for name in parts.pop("data", ())}
        plugins = identity.plugins(parts.pop("origins", ()))
        hashed = [kind, parts["settings"], inputs, uses, identity.SEMANTICS, *plugins]
        job_id = f"{slug}-{identity.content_hash(hashed)}"
        return self.plan.add(JobSpec(job_id, kind, inputs=inputs, data=uses, plugins=plugins, **parts))

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
        return self._job("pretrain", "pretrain", labels={}, settings=settings, inputs={}, steps=steps).id

    # ---- training ---------------------------------------------------------------------------------------------------

    def _train(self, slug: str, role: str, labels: dict[str, Any], own: dict[str, Any], **parts: Any) -> JobSpec:
        """Add a training job; `own` is what sets it apart from the suite's other ones."""
        suite = self.suite
        settings = {
            "model": self.model,
            "lora": suite.lora.model_dump(mode="json"),
            "data": identity.data_settings(suite),
            "training": identity.training_settings(suite.training),
            "reduction": suite.objectives.reduction,
            **own,
        }
        inputs = {"pretrained": self.pretrained, **parts.pop("inputs", {})}
        return self._job(
            parts.pop("kind", "train"),
            slug,
            roles=(role,),
            labels=labels,
            settings=settings,
            inputs=inputs,
            data=tuple(self.identities),
            **parts,
        )

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
        inputs = {"reference_logps": self.reference_logps} if uses_dpo else {}
        beta = {"beta": self.suite.objectives.beta} if uses_dpo else {}
        phases = {str(one): steps if one is objective else 0 for one in Objective}
        labels = _labels("sequential", "sequential", None, seed, "dpo_sft" if uses_dpo else "sft_dpo", phases)
        settings = {
            "method": "sequential",
            "options": {},
            "phases": [[str(objective), steps]],
            "seed": seed,
            **beta,
            **own,
        }
        tokens = self._tokens((Phase(steps, objective),))
        return self._train(slug, role, labels, settings, inputs=inputs, prefix=prefix, steps=steps, tokens=tokens)

    def _row_optimum(self, objective: Objective, optimum: str, seed: int) -> str:
        """Add an optimum's log-probabilities of every training row, which paired gaps compare batches with."""
        return self._job(
            "row_optimum",
            f"row-optimum-{objective}-s{seed}",
            labels={"of": optimum, "objective": str(objective), "seed": seed},
            settings={"model": self.model, "data": identity.data_settings(self.suite), "objective": str(objective)},
            inputs={"pretrained": self.pretrained, "policy": optimum},
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
        inputs = {"pretrained": self.pretrained, "policy": policy}
        labels = {"of": policy or "base"}
        return self._job(
            "reference_logps", "reference-logps", labels=labels, settings=settings, inputs=inputs, data=("preference",)
        ).id

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
        labels = _labels(job, "adopted", None, self.suite.seeds[0], self.suite.order, None)
        settings = {"model": self.model, "job": job.partition("/")[2]}
        inputs = {"pretrained": self.pretrained}
        return self._job("adopt", "adopted", roles=("reference",), labels=labels, settings=settings, inputs=inputs)

    def _front(self, seed: int) -> list[JobSpec]:
        """Return the runs of a seed that with the optima are the reference front, which joint runs may stop at."""
        suite = self.suite
        makers = [one for one in suite.methods if one.name in METHODS and METHODS[one.name].makes_front]
        return [self._run(method, one, seed) for method in makers for one in method.lambdas or suite.lambdas]

    def _stopping(self, method: Method, seed: int) -> tuple[dict[str, Any], dict[str, str]]:
        """Return what the stopping rule adds to a run's settings and inputs; nothing where it does not apply."""
        stopping = self.suite.training.stopping
        held_against = targets(stopping.rule, METHODS[method.name])
        if not held_against:
            return {}, {}
        front = stopping.front if Target.FRONT in held_against else None
        settings = {
            "rule": stopping.rule,
            "threshold": stopping.threshold,
            "front": front and [list(one) for one in front],
        }
        from_runs = Target.FRONT in held_against and front is None
        inputs = {f"front_{place}": job.id for place, job in enumerate(self._front(seed), 1)} if from_runs else {}
        if from_runs or Target.OPTIMUM in held_against:
            inputs |= {f"optimum_{objective}": self._optimum(objective, seed).id for objective in Objective}
        return {"stopping": settings}, inputs

    def _run(self, method: Method, lambda_dpo: float, seed: int) -> JobSpec:
        suite = self.suite
        kind = METHODS[method.name]
        chosen = kind.Options.model_validate(method.options)
        options = options_of(kind, method.options)
        optima = {objective: self._optimum(objective, seed) for objective in Objective}
        inputs: dict[str, Any] = {"reference_logps": self.reference_logps}
        needs = kind.needs(chosen)
        if Need.OPTIMUM in needs:
            inputs |= {f"optimum_{objective}": job.id for objective, job in optima.items()}
        if Need.ROW_OPTIMUM in needs:
            inputs |= {f"row_optimum_{one}": self._row_optimum(one, optima[one].id, seed) for one in Objective}
        stopping, compared_with = self._stopping(method, seed)
        inputs |= compared_with
        own: dict[str, Any] = {
            "method": method.name,
            "options": options,
            "seed": seed,
            "beta": suite.objectives.beta,
            "lambda_dpo": lambda_dpo,
            **stopping,
        }
        setup = self._setup(lambda_dpo, seed)
        phases = kind.phases(setup, chosen)
        own |= self._length(method.name, phases, setup)
        origin = self._origin(METHODS, method.name)
        if origin:  # of ours it is known that only Sequential looks at these, whose phases they are
            own |= {"order": suite.order, "phase_steps": suite.phase_steps(lambda_dpo)}
        prefix = None
        # A schedule that looks at the run's length makes the optimum's first steps differ from this run's.
        first = phases[0]
        if first.alone and suite.training.schedule == "constant" and 0 < first.steps < suite.steps:
            prefix = Prefix(optima[first.alone].id, first.steps)
            self.plan.keep(prefix.job, prefix.step)
        labels = _labels(
            method.shown, method.name, lambda_dpo, seed, suite.order, suite.phase_steps(lambda_dpo), options
        )
        slug = f"{_slug(method.shown)}-l{lambda_dpo:g}-s{seed}"
        tokens = self._tokens(phases, kind.batches_per_step(lambda_dpo, chosen))
        return self._train(
            slug,
            "run",
            labels,
            own,
            inputs=inputs,
            prefix=prefix,
            steps=suite.steps,
            tokens=tokens,
            origins=[origin],
        )

    def _setup(self, lambda_dpo: float, seed: int) -> Setup:
        first, second = (Objective(name) for name in self.suite.order.split("_"))
        phase_steps = {Objective(name): steps for name, steps in self.suite.phase_steps(lambda_dpo).items()}
        return Setup(lambda_dpo, self.suite.steps, seed, phase_steps, (first, second))

    def _length(self, name: str, phases: tuple[Phase, ...], setup: Setup) -> dict[str, Any]:
        """Return the settings that say how long a run is: its phases, and its steps or its tokens.

        A run of the very phases that a budget of tokens is counted from has these tokens by itself.

        Raises:
            InputError: the phases do not add up to the run.
        """
        if sum(phase.steps for phase in phases) != setup.steps or any(phase.steps < 0 for phase in phases):
            lengths = " + ".join(str(phase.steps) for phase in phases)
            raise InputError(
                f"methods: {name} declares phases of {lengths} steps, but a run has {setup.steps}; they must add up to it"
            )
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
        suite, kind = self.suite, RECIPES[method.name]
        options = options_of(kind, method.options)
        needs: dict[str, str | None] = {
            **{f"optimum_{objective}": self._optimum(objective, seed).id for objective in Objective},
            "reference": self.plan.jobs[self.reference_logps].inputs.get("policy"),
        }
        inputs = {"reference_logps": self.reference_logps, **{name: needs[name] for name in kind.needs}}
        slug = f"{_slug(method.shown)}-l{lambda_dpo:g}-s{seed}"
        phases = suite.phase_steps(lambda_dpo) if kind.untrained is None else None
        labels = _labels(method.shown, method.name, lambda_dpo, seed, suite.order, phases, options)
        own: dict[str, Any] = {
            "recipe": method.name,
            "options": options,
            "lambda_dpo": lambda_dpo,
            "seed": seed,
            "beta": suite.objectives.beta,
        }
        if phases:
            own["phases"] = [[name, phases[name]] for name in suite.order.split("_")]
            tokens = self._tokens_of_plain_rows(phases)
            self._train(
                slug,
                "run",
                labels,
                own,
                kind="recipe",
                inputs=inputs,
                steps=suite.steps,
                tokens=tokens,
                origins=[self._origin(RECIPES, method.name)],
            )
            return
        settings = {"model": self.model, "data": identity.data_settings(suite), **own}
        settings["reduction"] = suite.objectives.reduction
        inputs["pretrained"] = self.pretrained
        uses = tuple(self.identities)
        self._job(
            "recipe",
            slug,
            roles=("run",),
            labels=labels,
            settings=settings,
            inputs=inputs,
            data=uses,
            origins=[self._origin(RECIPES, method.name)],
        )

    def _tokens_of_plain_rows(self, phase_steps: dict[str, int]) -> int:
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

    # ---- evaluation -------------------------------------------------------------------------------------------------

    def _evaluations(self) -> None:
        evaluators = {name: one.stages() for name, one in self.suite.evaluation.chosen.items()}
        _refuse_equal_kinds(evaluators)
        policies: list[JobSpec | None] = [
            None,
            *(job for job in self.plan.jobs.values() if job.kind in WITH_ADAPTER),
        ]
        for policy in policies:
            for name, stages in evaluators.items():
                self._evaluate(policy, stages, self._origin(EVALUATORS, name))

    def _evaluate(self, policy: JobSpec | None, stages: tuple[Stage, ...], origin: Origin | None) -> None:
        """Add an evaluator's jobs for one policy; None is the base model."""
        of = policy.id if policy else "base"
        name = policy.id.rsplit("-", 1)[0] if policy else "base"
        earlier: dict[str, str] = {}
        for stage in stages:
            settings = dict(stage.settings)
            inputs = {"pretrained": self.pretrained, **earlier}
            if stage.policy:
                settings |= {"model": self.model} | identity.settings_of(self.suite, stage.data)
                inputs["policy"] = policy.id if policy else None
            job = self._job(
                stage.kind,
                f"{stage.slug or stage.kind}-{name}",
                labels={"of": of, **stage.labels},
                settings=settings,
                inputs=inputs,
                data=stage.data,
                origins=[origin, *stage.origins],
            )
            earlier[stage.name or stage.kind] = job.id


def _refuse_equal_kinds(evaluators: Mapping[str, tuple[Stage, ...]]) -> None:
    """Refuse two stages whose jobs could not be told apart by their kind."""
    taken = dict.fromkeys(KINDS, "training")
    for name, stages in evaluators.items():
        for stage in stages:
            if stage.kind in taken:
                raise InputError(
                    f"evaluation.{name}: its jobs are of the kind {stage.kind!r}, which those of {taken[stage.kind]} "
                    "have already; its package must call them otherwise"
                )
            taken[stage.kind] = f"evaluation.{name}"


def _labels(
    method: str,
    base_method: str,
    lambda_dpo: float | None,
    seed: int,
    order: str,
    phase_steps: dict[str, int] | None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the labels of a run for its record."""
    return {
        "method": method,
        "base_method": base_method,
        "lambda_dpo": lambda_dpo,
        "seed": seed,
        "order": order,
        "phase_steps": phase_steps,
        "options": options or {},
    }


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower()).strip("-")
