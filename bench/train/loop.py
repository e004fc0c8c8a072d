"""The main path: one training loop for all methods, beside Algorithms 1 to 4 of arXiv 2410.15483.

A method says which objectives a step descends; everything else (batches, loss, optimizer, clock, records) is the same
code for all of them, so that a difference between two methods is a difference between the methods.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.collectors import collect, of_devices
from bench.data.tokens import Datasets
from bench.errors import Interrupted, JobError, OutOfMemory, is_out_of_memory
from bench.methods import METHODS, Choice, Gradients, Objective, choices
from bench.models import compiled, held_out, lora_products, memory
from bench.models.objectives import Batch
from bench.models.policy import Policy
from bench.models.processes import Processes
from bench.records import record
from bench.records.spec import JobSpec
from bench.settings import PerObjective, TrainingParts
from bench.train import budget, checkpoint, gradients, resuming, run_log, shards
from bench.train.batches import Batches
from bench.train.losses import Losses, Part
from bench.train.micro_batches import MicroBatches
from bench.train.model_flops import ModelFlops, matrix_rate
from bench.train.run_log import TOKEN_COUNTS, RunLog, save_policy
from bench.train.setup import setup_of
from bench.train.stopping import Rule

OTHER_SPLIT = {"held_out": "train", "train": "held_out"}
Made = TypeVar("Made")


@dataclass
class TrainingRun:
    """What one training job works with.

    Attributes:
        reference: π_ref's log-probabilities, {"train" | "held_out": {"chosen" | "rejected": [nats]}}; None before they
            exist, which only a run without DPO can do without.
        optimum: f*_DPO and f*_SFT on training rows, for the methods that need them.
        row_optimum: log-probabilities of every training row's answers under its objective's optimum, [rows][answers] in
            nats, for the methods that need them.
        prefix: the folder of the job whose checkpoint this run may start from.
        base_logps: what the untrained policy gives the evaluation rows, by split; the first run fills it in for the others.
        tell: called with {"step", "steps", "losses"} after every step.
        note_damage: called with what was found damaged and is made up for.
        note_resumed: called with how the run went on from its own checkpoints, each time: see `resuming`.
        stopping: asked after every step whether the user wants to stop.
        rule: asked at every evaluation whether the run has come far enough; None: it takes all its steps.
        clock: tells the time in seconds; what steps cost is measured by it.
    """

    job: JobSpec
    suite: TrainingParts
    folder: Path
    policy: Policy
    datasets: Datasets
    batch_size: PerObjective
    reference: Mapping[str, Any] | None = None
    optimum: Mapping[Objective, float] = field(default_factory=dict)
    row_optimum: Mapping[Objective, Sequence[Sequence[float]]] = field(default_factory=dict)
    prefix: Path | None = None
    base_logps: held_out.OfSplits = field(default_factory=dict)
    tell: Callable[[dict[str, Any]], None] = lambda message: None
    note_damage: Callable[[str], None] = lambda what: None
    note_resumed: Callable[[list[dict[str, Any]]], None] = lambda every: None
    stopping: Callable[[], bool] = lambda: False
    rule: Rule | None = None
    clock: Callable[[], float] = time.perf_counter


def train(run: TrainingRun) -> None:
    """Train one policy and leave its records in the job's folder.

    Raises:
        Interrupted: the user stopped it; the checkpoint is kept.
        OutOfMemory, JobError: it cannot go on.
    """
    trainer = Trainer(run)
    try:
        with (
            resuming.algorithms(run.suite.training.deterministic),
            collect(str(run.policy.device)) as trainer.collecting,
        ):
            trainer.start()
            while not trainer.done():
                trainer.take_step()
                trainer.note_step()
                if trainer.told_to_stop():
                    trainer.save_checkpoint()
                    raise Interrupted(f"stopped at step {trainer.step}")
        trainer.finish()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        refuse_out_of_memory(error, run, trainer.step, trainer.micro_batches, trainer.joint_backward)
        raise


def refuse_out_of_memory(
    error: BaseException, run: TrainingRun, step: int, micro_batches: MicroBatches, joint_backward: bool = False
) -> None:
    """Raise OutOfMemory, naming the keys to change, for an error that says memory ran out; let any other pass."""
    if not is_out_of_memory(error):
        return
    sizes = ", ".join(f"{objective}: {size}" for objective, size in micro_batches.sizes.items())
    advice = [f"lower training.micro_batch_size (now {sizes})"] if max(micro_batches.sizes.values()) > 1 else []
    advice.append("lower data.max_answer_tokens")
    if not run.policy.checkpointing:
        advice.append("set model.gradient_checkpointing: true")
    if joint_backward:
        advice.append("set backward: accumulate (option of mix), since both graphs are in memory at once")
    raise OutOfMemory(f"out of memory at step {step + 1}: {'; or '.join(advice)}") from error


class _Probe:
    """Be what a method may look at before it chooses a step."""

    def __init__(self, trainer: Trainer) -> None:
        self.gradients = trainer.gradients
        self._evaluate = trainer.probe

    def __call__(self, objective: Objective) -> float:
        return self._evaluate(objective)


class Trainer:
    """A run's state between steps.

    Under `torchrun` every process holds one; they share each batch's rows and the evaluations', take the same steps, and only
    the main one writes.
    """

    def __init__(self, run: TrainingRun) -> None:
        self.run, self.policy, self.settings = run, run.policy, run.suite.training
        self.processes = run.policy.processes or Processes(run.policy.device)
        if not self.processes.alone:
            run.policy.processes = self.processes
        self.accelerator = self.processes.accelerator
        self.log = RunLog(run.folder, self.processes.main)
        labels = run.job.run_labels
        seed, kind = labels.seed, METHODS[labels.base_method]
        setup = setup_of(labels, run.job.steps, run.optimum, self.batch_optimum)
        options = kind.Options.model_validate(labels.options)
        self.method = kind(setup, options)
        self.phases = kind.phases(setup, options)
        self.phase_ends = set(accumulate(phase.steps for phase in self.phases))
        self.batches = Batches(run.datasets, run.batch_size, seed, group_by_length=self.settings.group_by_length)
        self.micro_batches = MicroBatches(self.settings.micro_batch_size, run.batch_size)
        sizes = self.micro_batches.sizes
        self.losses = Losses(run.policy, run.datasets, run.suite.objectives, sizes, run.reference, run.row_optimum)
        self.token_budget = budget.tokens(run.datasets, run.batch_size, self.losses.layout, run.job.settings)
        self.primary = run.suite.primary_split
        self.step, self.phase = 0, -1
        self.stopped: str | None = None
        self.resumed: list[dict[str, Any]] = []  # how it went on from its own checkpoints
        self.row: dict[str, Any] = {}
        self.taken: dict[Objective, gradients.Taken] = {}
        self.collecting: Any = None
        self.passing: tuple[Objective, ...] = ()  # what the pass at hand is on
        self.joint_backward = False
        self._read = self._lost = 0.0
        self.policy.attach(run.suite.adapter, seed, model_dropout=self.settings.model_dropout)
        lora_products.install(self.policy)
        compiled.install(self.policy)
        self.parameters = list(self.policy.trainable().values())
        self.model_flops = ModelFlops(self.policy, run.datasets)

    # ---- one step ---------------------------------------------------------------------------------------------------

    def take_step(self) -> None:
        """Take one optimizer step (θ_t → θ_{t+1}); only this is inside the measured training time."""
        self.collecting.resume()
        self.row = {"step": self.step + 1, "probe_seconds": 0.0, **dict.fromkeys(TOKEN_COUNTS, 0)}
        started = self._now()
        choice = self.method.choose(self.step + 1, _Probe(self))
        choices.check(self.run.job.run_labels.base_method, choice, self.step + 1, self.phases)
        if choice.phase != self.phase:
            self.start_phase(choice.phase)
        losses = self.descend(choice)
        if self.settings.max_grad_norm is not None:
            gradients.clip(self.parameters, self.settings.max_grad_norm)
        learning_rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.policy.end_step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.observe(losses)
        seconds = self._now() - started
        self.collecting.pause()
        self.step += 1
        self.row |= {
            "phase": choice.phase,
            "weights": {str(objective): weight for objective, weight in choice.weights.items()},
            "losses": {str(objective): loss for objective, loss in losses.items()},
            "learning_rate": learning_rate,
            "seconds": seconds,
        }
        self.row |= self.processes.sum_counts({name: self.row[name] for name in TOKEN_COUNTS})
        if choice.gaps is not None:
            self.row["gaps"] = {str(objective): gap for objective, gap in choice.gaps.items()}
        self.row["model_flops"] = self.model_flops.of_step(self.row, self.batches.last)
        self.batches.end_step()

    def start_phase(self, phase: int) -> None:
        """Go on with the same weights, a new optimizer and a new schedule."""
        from transformers import get_scheduler

        settings = self.settings
        self.phase = phase
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, betas=settings.adam_betas, weight_decay=settings.weight_decay
        )
        name = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
        self.schedule = get_scheduler(name, self.optimizer, settings.warmup_steps, self.phases[phase].steps)

    @torch.no_grad()
    def probe(self, objective: Objective) -> float:
        """Evaluate an objective on its next batch, without a graph; a step on it then descends that very batch."""
        started = self._now()
        self.policy.model.eval()
        rows = self.batches.to_probe(objective)

        def forward() -> list[Tensor]:
            terms = []
            for part in self.parts(objective, rows):
                value, _, batch = self.losses.of(part)
                terms.append(value)
                self._count("probe_tokens", batch)
            return terms

        (loss,) = self._sums([self._fitting(forward)])
        self.row["probe_seconds"] += self._now() - started
        self.row.setdefault("probes", {})[str(objective)] = loss
        return loss

    def gradients(self) -> Gradients:
        """Take both objectives' gradients on their next batches, whole on every process; a step on them uses these again."""
        started = self._now()
        self.policy.model.train()
        for objective in Objective:
            if objective in self.taken:
                continue
            rows = self.batches.to_probe(objective)
            terms, tokens = self._fitting(partial(self._gradient_terms, objective, rows))
            loss = self._gather({objective: terms})[objective]
            self.taken[objective] = gradients.Taken(gradients.take_over(self.parameters), loss, tokens)
        made = gradients.compared(self.taken)
        norms = {str(objective): norm for objective, norm in made.norms.items()}
        before = self.row.get("gradients", {}).get("seconds", 0.0)
        self.row["gradients"] = {"dot": made.dot, "norms": norms, "seconds": before + self._now() - started}
        return made

    def _gradient_terms(self, objective: Objective, rows: Sequence[int]) -> tuple[list[Tensor], int]:
        """Go forward and back through a batch; return its micro-batches' losses and its tokens."""
        terms, tokens = [], 0
        for part in self.parts(objective, rows):
            value, _, batch = self.losses.of(part)
            self.accelerator.backward(value)
            terms.append(value.detach())
            tokens += batch.tokens
            self.row["padding_tokens"] += batch.padding
            del value
        return terms, tokens

    def descend(self, choice: Choice) -> dict[Objective, float]:
        """Leave the gradient of the weighted objectives on what is trained; return their losses before the update."""
        taken, self.taken = self.taken, {}
        reused = taken.keys() >= choice.weights.keys() and not choice.chosen_sft
        for objective, one in taken.items():
            of_step = reused and objective in choice.weights
            self.row["tokens" if of_step else "probe_tokens"] += one.tokens
        if taken and reused:
            for objective in choice.weights:
                self.batches.to_descend(objective)
            gradients.put_back(self.parameters, taken, choice.weights)
            self.row["on_gradients"] = True
            return {objective: taken[objective].loss for objective in choice.weights}
        return self._descend(choice)

    def _descend(self, choice: Choice) -> dict[Objective, float]:
        """Go forward and back through each weighted objective's batch."""
        self.policy.model.train()
        self.joint_backward = choice.joint_backward
        if len(choice.weights) > 1:
            self.row["joint_backward"] = choice.joint_backward
        rows = {objective: self.batches.to_descend(objective) for objective in choice.weights}
        terms, chosen_terms = self._fitting(partial(self._descent_terms, choice, rows))
        if choice.chosen_sft:
            (self.row["chosen_sft"],) = self._sums([chosen_terms])
        return self._gather(terms)

    def _descent_terms(
        self, choice: Choice, rows: Mapping[Objective, Sequence[int]]
    ) -> tuple[dict[Objective, list[Tensor]], list[Tensor]]:
        """Leave the gradient on what is trained; return the micro-batches' losses, and those on chosen answers."""
        terms: dict[Objective, list[Tensor]] = {}
        chosen_terms: list[Tensor] = []
        graphs: list[Tensor] = []
        for objective, weight in choice.weights.items():
            terms[objective] = []
            for part in self.parts(objective, rows[objective]):
                value, chosen, batch = self.losses.of(part)
                self._count("tokens", batch)
                terms[objective].append(value.detach())
                graph = weight * value
                if choice.chosen_sft and chosen is not None:
                    chosen_terms.append(chosen.detach())
                    graph = graph + choice.chosen_sft * chosen
                if choice.joint_backward:
                    graphs.append(graph)
                else:
                    self.accelerator.backward(graph)
                # What is left of this graph would lie scattered between the next one's tensors, and keep memory from reuse.
                del value, chosen, graph
        if graphs:
            self.passing = tuple(choice.weights)
            self.accelerator.backward(torch.stack(graphs).sum())
        return terms, chosen_terms

    def _fitting(self, attempt: Callable[[], Made]) -> Made:
        """Make this process's passes; where memory runs out, make them again from the same state with fewer rows at once.

        What a failed attempt took is no time of training.
        """
        row, random = dict(self.row), checkpoint.random_state(self.policy.device)
        while True:
            try:
                return attempt()
            except torch.OutOfMemoryError:
                if not self._make_room():
                    raise
            for parameter in self.parameters:
                parameter.grad = None
            memory.release(self.policy.device)
            self.row = dict(row)
            checkpoint.restore_random_state(random, self.policy.device)
            before = self._read
            self._now()
            self._lost += self._read - before

    def _make_room(self) -> bool:
        """Have the next attempt need less memory, as far as the suite leaves that open; say whether it will.

        Fewer rows come first, which costs the least time. Two graphs alive at once need as much in parts: there, activations
        are forgotten first. Without them, whole batches may fit again.
        """
        if self.policy.sharded:  # the others wait in the midst of their passes, and cannot begin anew
            return False
        graph = torch.is_grad_enabled()
        if not (graph and self.joint_backward) and self.micro_batches.shrink(self.passing):
            return True
        if graph and self.run.suite.model.gradient_checkpointing == "auto" and not self.policy.checkpointing:
            logging.getLogger("bench").warning("out of memory: going on with gradient checkpointing")
            self.policy.set_checkpointing(True)
            self.micro_batches.reset()
            return True
        return self.micro_batches.shrink(self.passing)

    def forget_what_fits(self) -> None:
        """Begin with whole batches and activations kept, where the suite leaves that open."""
        self.micro_batches.reset()
        self.policy.set_checkpointing(self.run.suite.model.gradient_checkpointing is True)

    def parts(self, objective: Objective, rows: Sequence[int]) -> list[Part]:
        """Cut this process's share of a batch into micro-batches, to be passed through next."""
        self.passing = (objective,)
        parts = self.losses.parts(objective, rows, self.processes.own(rows))
        if self.policy.sharded:  # weights are put together for each pass, by all processes: every one makes as many
            most = -(-self.processes.most(len(rows)) // self.micro_batches.sizes[objective])
            parts += [self.losses.idle(objective, rows)] * (most - len(parts))
        return parts

    def _count(self, name: str, batch: Batch) -> None:
        """Count a batch's tokens under `name`, and its padding."""
        for column, count in ((name, batch.tokens), ("padding_tokens", batch.padding)):
            self.row[column] = self.row.get(column, 0) + count

    def batch_optimum(self, objective: Objective) -> float:
        """Return the optimum's loss on the rows that an objective's last probe or step was on."""
        return self.losses.of_optimum(objective, self.batches.last[objective])

    def _gather(self, terms: Mapping[Objective, list[Tensor]]) -> dict[Objective, float]:
        """Add up over processes: gradients of what is trained, and the losses."""
        self.processes.sum_gradients(self.parameters)
        return dict(zip(terms, self._sums(list(terms.values())), strict=True))

    def _sums(self, terms: Sequence[Sequence[Tensor]]) -> list[float]:
        """Add up each objective's micro-batches over all processes, so that every process chooses alike."""
        zero = torch.zeros((), device=self.policy.device)
        sums = self.processes.sum(torch.stack([sum(values, zero) for values in terms]))
        if not torch.isfinite(sums).all():
            raise JobError(
                f"the loss is not finite at step {self.step + 1} ({sums.tolist()}); lower training.learning_rate"
            )
        values: list[float] = sums.tolist()
        return values

    def _now(self) -> float:
        """Return the seconds so far, without those of attempts that memory had no room for."""
        if self.policy.device.type == "cuda":
            torch.cuda.synchronize(self.policy.device)
        self._read = self.run.clock()
        return self._read - self._lost

    def done(self) -> bool:
        """Say whether the run has taken its steps, or its tokens, or was ended by its stopping rule."""
        if self.stopped is not None:
            return True
        if self.token_budget is not None:
            return bool(self.log.totals["tokens"] >= self.token_budget)
        return self.step >= self.run.job.steps

    def told_to_stop(self) -> bool:
        """Ask whether the user wants to stop; one process that is told stops all of them at the same step."""
        return self.processes.any(self.run.stopping())

    # ---- around the steps -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start where this run's own checkpoint, or the shared first phase, ends; at the base otherwise."""
        self.collecting.pause()
        if self._resume() or self._take_over_prefix():
            return
        self.log.begin()
        self.evaluate(both_splits=True)

    def _resume(self) -> bool:
        """Go on from this run's last sound checkpoint; say whether there is one."""
        folder = self.run.folder
        found, damaged = checkpoint.newest(folder)
        self.processes.wait()  # every process has read them before one is deleted
        for what in damaged:
            from_where = f"the checkpoint of step {found.step}" if found else "the start"
            self.run.note_damage(f"checkpoint {what}; went on from {from_where}")
        if self.processes.main:
            checkpoint.drop(folder, after=found.step if found else 0)
        if found is None:
            return False
        self.restore(found, own=True)
        self._note_resumed(found.state)
        self.log.resume(self.step, found.rows)
        self.processes.wait()
        return True

    def _note_resumed(self, state: Mapping[str, Any]) -> None:
        """Say on record whether this is, bit for bit, the run that nothing interrupted."""
        now = resuming.conditions(self.policy, self.processes)
        one = resuming.went_on(self.step, state.get("conditions"), now, self.run.suite.model.dtype)
        self.resumed = [*state.get("resumed", ()), one]
        self.run.note_resumed(self.resumed)

    def _take_over_prefix(self) -> bool:
        """Begin where the shared first phase ends; say whether it is there, and sound."""
        source, prefix = self.run.prefix, self.run.job.prefix
        if source is None or prefix is None:
            return False
        found, wrong = checkpoint.find(source, prefix.step)
        if wrong:
            self.run.note_damage(f"the first phase kept by {prefix.job}: {wrong}; trained its own")
        if found is None:
            return False
        if self.processes.main:
            beta = self.run.suite.objectives.beta
            checkpoint.copy_rows(source, self.run.folder, prefix.step, self.run.reference, beta, self.primary)
        self.processes.wait()
        self.restore(found, own=False)
        self.log.resume(self.step)
        return True

    def note_step(self) -> None:
        """Write down the step just taken; evaluate and keep a checkpoint where they are due."""
        step = self.step
        self.log.step(self.row)
        self.run.tell({"step": step, "steps": self._last_step(), "losses": self.row["losses"]})
        if self.done():
            return
        kept = step in self.run.job.keep_steps
        if step % self.settings.evaluate_every == 0 or kept or step in self.phase_ends:
            # f* is found on either split, so that a run which makes one is followed on both.
            of_optimum = any(role.startswith("optimum_") for role in self.run.job.roles)
            self._ask_rule(self.evaluate(both_splits=of_optimum))
        if kept or step % self.settings.checkpoint_every == 0:
            self.save_checkpoint()

    def _last_step(self) -> int:
        """Return the run's last step; under a token budget an estimate from the tokens so far."""
        if self.token_budget is None:
            return self.run.job.steps
        share = self.token_budget / int(self.log.totals["tokens"])
        return max(self.step, round(self.step * share))

    def _ask_rule(self, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """End the run early where its suite's stopping rule says so; the reason is kept."""
        if self.run.rule is None:
            return
        values = {objective: scores[f"f_{objective}/{self.primary}"]["value"] for objective in Objective}
        rule, _ = self._targets(self.run.rule)
        self.stopped = rule.reason(values)

    def _targets(self, rule: Rule) -> tuple[Rule, list[str]]:
        """Leave out what the rule would find met before any step."""
        start = next(record.read_jsonl(self.run.folder / "trajectory.jsonl"))
        return rule.held_against({one: float(start[f"f_{one}/{self.primary}"]) for one in Objective})

    def evaluate(self, both_splits: bool) -> dict[str, dict[str, Any]]:
        """Add the objective values on the evaluation rows to the trajectory; return them with their errors."""
        scores: dict[str, dict[str, Any]] = {}
        for split in (self.primary, OTHER_SPLIT[self.primary]) if both_splits else (self.primary,):
            scores |= self.scores(split)
        self.log.usage(self.step, self.used())
        self.log.evaluation(self.step, max(self.phase, 0), scores)
        return scores

    def used(self) -> list[dict[str, Any]]:
        """Return what the collectors saw since the last call, on all devices together."""
        return of_devices(self.processes.gathered(self.collecting.drain()), self.policy.device.type)

    def scores(self, split: str) -> dict[str, dict[str, Any]]:
        """Evaluate both objectives on one split; without a reference, keep the log-probabilities f_DPO needs later."""
        run = self.run
        sizes = {objective: 2 * size for objective, size in self.micro_batches.sizes.items()}
        # Most fresh adapters change nothing, bit for bit, so θ_1 of every run is the base model.
        untrained = self.step == 0 and (run.suite.adapter is None or run.suite.adapter.starts_exactly)
        logps = run.base_logps.get(split) if untrained else None
        logps = logps or held_out.split_logps(self.policy, run.datasets, split, sizes)
        if untrained:
            run.base_logps[split] = logps
        if run.reference is None:
            chosen, rejected = logps[Objective.DPO].T.tolist()
            row = {"step": self.step, "split": split, "chosen": chosen, "rejected": rejected}
            self.log.append("evaluation_logps", [row])
        return held_out.scores_of(logps, run.datasets, split, run.suite.objectives, run.reference)

    def finish(self) -> None:
        """Evaluate a last time and write everything down."""
        if self.processes.main:
            # An early end was found by an evaluation of this very step, on one split: the row with both replaces it.
            record.cut_jsonl(self.run.folder / "trajectory.jsonl", last_step=self.step - 1)
        scores = self.evaluate(both_splits=True)
        forward = self.policy.forward_facts(
            self.run.datasets.train[Objective.DPO].examples
        )  # of the policy that was trained
        if self.processes.main or self.policy.sharded:
            difference = save_policy(self.policy, self.run.datasets, self.run.folder)
        if self.processes.main:
            self.write_results(scores, forward, difference)
        self.processes.wait()

    def write_results(self, scores: dict[str, dict[str, Any]], forward: dict[str, Any], difference: float) -> None:
        """Write what was measured."""
        folder, datasets = self.run.folder, self.run.datasets
        measurements = self.log.measurements(self.step, self.batches.facts())
        measurements |= run_log.micro_batch_sizes(self.micro_batches.sizes)
        measurements |= run_log.compile_seconds(self.policy.compile_seconds)
        measurements["reload_difference"] = record.measured(difference, "largest absolute difference of logits")
        record.write_json(folder / "measurements.json", measurements | matrix_rate(self.policy))
        record.write_json(folder / "scores.json", scores)
        record.write_metrics(folder, run_log.metrics())
        if self.run.rule is not None:
            reason = self.stopped or "all steps taken; the rule never applied"
            stopping = {"step": self.step, "reason": reason, "early": self.stopped is not None}
            stopping["dropped"] = self._targets(self.run.rule)[1]
            record.write_json(folder / "stopping.json", stopping)
        record.write_json(folder / "data.json", datasets.facts() | {"forward": forward})
        checkpoint.prune(folder, keep=self.run.job.keep_steps)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        """Keep everything a resumed run needs to take the same steps."""
        self.log.usage(self.step, self.used())
        folder, state = self.run.folder, self.state()
        if self.policy.full is not None:
            shards.save(folder, self.step, shards.tensors(self.policy, self.optimizer), self.processes)
        if self.processes.main:
            checkpoint.save(folder, self.step, state, keep=self.run.job.keep_steps)
        self.processes.wait()

    def state(self) -> dict[str, Any]:
        whole = self.policy.full is not None  # whose tensors lie beside it: see `shards`
        return {
            "step": self.step,
            "phase": self.phase,
            "stopped": self.stopped,
            "conditions": resuming.conditions(self.policy, self.processes),
            "resumed": self.resumed,
            "adapter": {} if whole else self.policy.trained_state(),
            "start": self.policy.start,
            "optimizer": {} if whole else self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "method": self.method.state(),
            "batches": self.batches.state(),
            "micro_batches": self.micro_batches.state(),
            "checkpointing": self.policy.checkpointing,
            "random": checkpoint.random_state(self.policy.device),
        }

    def restore(self, found: checkpoint.Checkpoint, own: bool) -> None:
        """Go on where a checkpoint was kept; one of another job's says nothing of this run's method."""
        state = found.state
        self.step = state["step"]
        self.stopped = state["stopped"]
        self.start_phase(state["phase"])
        if self.policy.full is not None:
            shards.restore(found.tensors, self.policy, self.optimizer)
        else:
            self.policy.restore_trained(state["adapter"], state.get("start"))  # older versions had none
            self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if own:
            self.method.restore(state["method"])
        self.batches.restore(state["batches"])
        self.micro_batches.restore(state.get("micro_batches", {}))  # older versions kept neither
        if self.run.suite.model.gradient_checkpointing == "auto":
            self.policy.set_checkpointing(state.get("checkpointing", False))
        checkpoint.restore_random_state(state["random"], self.policy.device)
