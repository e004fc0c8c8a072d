"""The main path: one training loop for all methods, beside Algorithms 1 to 4 of arXiv 2410.15483.

A method says which objectives a step descends; everything else (batches, loss, optimizer, clock, records) is the same
code for all of them, so that a difference between two methods is a difference between the methods.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import checkpoint, objectives, record
from bench.collectors import collect
from bench.data import Cursor, Datasets, Example, in_parts
from bench.errors import Interrupted, JobError, OutOfMemory
from bench.evaluators import held_out
from bench.methods import METHODS, Choice, Objective, Setup
from bench.plan import PlannedJob
from bench.policy import Policy
from bench.processes import Processes
from bench.run_log import RunLog
from bench.settings import PerObjective
from bench.stopping import Rule
from bench.suite import Suite

OTHER_SPLIT = {"held_out": "train", "train": "held_out"}


@dataclass
class Run:
    """Hold what one training job works with.

    Attributes:
        reference: π_ref's log-probabilities, {"train" | "held_out": {"chosen" | "rejected": [nats]}}; None before they
            exist, which only a run without DPO can do without.
        optimum: f*_DPO and f*_SFT on training rows, for the methods that need them.
        prefix: the folder of the job whose checkpoint this run may start from.
        tell: called with {"step", "steps", "losses"} after every step.
        stopping: asked after every step whether the user wants to stop.
        rule: asked at every evaluation whether the run has come far enough; None: it takes all its steps.
    """

    job: PlannedJob
    suite: Suite
    folder: Path
    policy: Policy
    datasets: Datasets
    batch_size: PerObjective
    reference: Mapping[str, Any] | None = None
    optimum: Mapping[Objective, float] = field(default_factory=dict)
    prefix: Path | None = None
    tell: Callable[[dict[str, Any]], None] = lambda message: None
    stopping: Callable[[], bool] = lambda: False
    rule: Rule | None = None


def train(run: Run) -> None:
    """Train one adapter and leave its records in the job's folder.

    Raises:
        Interrupted: the user stopped it; the checkpoint is kept.
        OutOfMemory, JobError: it cannot go on.
    """
    trainer = Trainer(run)
    try:
        with collect(str(run.policy.device)) as trainer.collecting:
            trainer.start()
            while trainer.step < run.job.steps and trainer.stopped is None:
                trainer.take_step()
                trainer.note_step()
                if trainer.told_to_stop():
                    trainer.save_checkpoint()
                    raise Interrupted(f"stopped at step {trainer.step}")
        trainer.finish()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        refuse_out_of_memory(error, run, trainer.step)
        raise


def refuse_out_of_memory(error: BaseException, run: Run, step: int) -> None:
    """Raise OutOfMemory, naming the key to lower, for an error that says memory ran out; let any other pass."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        raise OutOfMemory(
            f"out of memory at step {step + 1}: lower training.micro_batch_size "
            f"(now {run.suite.training.micro_batch_size or run.batch_size}), data.max_answer_tokens or turn on "
            "model.gradient_checkpointing"
        ) from error


class Trainer:
    """Hold a run's state between steps.

    Under `torchrun` every process holds one; they share each batch's rows, take the same steps and evaluate alike, and
    only the main one writes.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.policy, self.settings = run, run.policy, run.suite.training
        self.processes = Processes(run.policy.device)
        self.accelerator = self.processes.accelerator
        self.log = RunLog(run.folder, self.processes.main)
        labels, seed = run.job.labels, run.job.labels["seed"]
        phase_steps = {Objective(name): count for name, count in labels["phase_steps"].items()}
        first, second = (Objective(name) for name in labels["order"].split("_"))
        kind = METHODS[labels["base_method"]]
        setup = Setup(labels["lambda_dpo"], run.job.steps, seed, phase_steps, (first, second), run.optimum)
        self.method = kind(setup, kind.Options.model_validate(labels["options"]))
        self.phase_ends = {phase_steps[first]} if labels["base_method"] == "sequential" else set()
        self.phase_lengths = [phase_steps[first], phase_steps[second]] if self.phase_ends else [run.job.steps]
        self.cursors = {
            objective: Cursor(
                objective, len(run.datasets.train[objective].examples), getattr(run.batch_size, objective), seed
            )
            for objective in Objective
        }
        self.primary = run.suite.primary_split
        self.step, self.phase = 0, -1
        self.stopped: str | None = None
        self.probed: dict[Objective, list[int]] = {}
        self.discarded_rows = dict.fromkeys(Objective, 0)
        self.row: dict[str, Any] = {}
        self.collecting: Any = None
        self.reference = {
            name: torch.tensor(values, device=self.policy.device)
            for name, values in (run.reference or {}).get("train", {}).items()
        }
        self.policy.attach(run.suite.lora, seed)
        self.parameters = list(self.policy.trainable().values())

    # ---- one step ---------------------------------------------------------------------------------------------------

    def take_step(self) -> None:
        """Take one optimizer step (θ_t → θ_{t+1}); only this is inside the measured training time."""
        self.collecting.resume()
        self.row = {"step": self.step + 1, "probe_seconds": 0.0, "probe_tokens": 0, "tokens": 0}
        started = self._now()
        choice = self.method.choose(self.step + 1, self.probe)
        if choice.phase != self.phase:
            self.start_phase(choice.phase)
        losses = self.descend(choice)
        if self.settings.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        learning_rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
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
        self.row |= self.processes.sum_counts({name: self.row[name] for name in ("tokens", "probe_tokens")})
        self._discard_unused()

    def start_phase(self, phase: int) -> None:
        """Go on with the same weights, a new optimizer and a new schedule."""
        from transformers import get_scheduler

        settings = self.settings
        self.phase = phase
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, betas=settings.adam_betas, weight_decay=settings.weight_decay
        )
        name = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
        self.schedule = get_scheduler(name, self.optimizer, settings.warmup_steps, self.phase_lengths[phase])

    @torch.no_grad()
    def probe(self, objective: Objective) -> float:
        """Evaluate an objective on its next batch, without a graph; a step on it then descends that very batch."""
        started = self._now()
        rows = self.cursors[objective].draw()
        self.probed[objective] = rows
        self.policy.model.eval()
        terms = []
        for part, divisor in self.parts(objective, rows):
            value, tokens = self.loss(objective, part, divisor)
            terms.append(value)
            self.row["probe_tokens"] += tokens
        (loss,) = self._sums([terms])
        self.row["probe_seconds"] += self._now() - started
        self.row.setdefault("probes", {})[str(objective)] = loss
        return loss

    def descend(self, choice: Choice) -> dict[Objective, float]:
        """Leave the gradient of the weighted objectives on the adapter; return their losses before the update."""
        self.policy.model.train()
        terms: dict[Objective, list[Tensor]] = {}
        graphs: list[Tensor] = []
        for objective, weight in choice.weights.items():
            rows = self.probed.pop(objective, None) or self.cursors[objective].draw()
            terms[objective] = []
            for part, divisor in self.parts(objective, rows):
                value, tokens = self.loss(objective, part, divisor)
                self.row["tokens"] += tokens
                terms[objective].append(value.detach())
                if choice.joint_backward:
                    graphs.append(weight * value)
                else:
                    self.accelerator.backward(weight * value)
        if graphs:
            self.accelerator.backward(torch.stack(graphs).sum())
        return self._gather(terms)

    def parts(self, objective: Objective, rows: Sequence[int]) -> list[tuple[list[int], int]]:
        """Cut this process's share of a batch into micro-batches, each with the divisor of the *whole* batch.

        So the micro-batches' (and processes') losses and gradients add up to those of the batch in one piece.
        """
        examples = self.run.datasets.train[objective].examples
        batch = [examples[row] for row in rows]
        divisor = (
            objectives.sft_divisor(batch, self.run.suite.objectives.reduction)
            if objective is Objective.SFT
            else len(rows)
        )
        micro = getattr(self.settings.micro_batch_size or self.run.batch_size, objective)
        return [(list(part), divisor) for part in in_parts(self.processes.own(rows), micro)]

    def loss(self, objective: Objective, rows: Sequence[int], divisor: int) -> tuple[Tensor, int]:
        """Return a micro-batch's share of the objective, and its tokens."""
        examples: list[Example] = [self.run.datasets.train[objective].examples[row] for row in rows]
        batch = objectives.collate(examples, self.policy.layout, self.policy.device)
        if objective is Objective.SFT:
            return objectives.sft_sum(self.policy.model, batch) / divisor, batch.tokens
        reference = {name: values[list(rows)] for name, values in self.reference.items()}
        return objectives.dpo_sum(
            self.policy.model, batch, reference, self.run.suite.objectives.beta
        ) / divisor, batch.tokens

    def _gather(self, terms: Mapping[Objective, list[Tensor]]) -> dict[Objective, float]:
        """Add up over processes: gradients on the adapter, and the losses."""
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

    def _discard_unused(self) -> None:
        """Drop the batches that were drawn for a probe only; they are on record."""
        for objective, rows in self.probed.items():
            self.discarded_rows[objective] += len(rows)
        self.probed.clear()

    def _now(self) -> float:
        if self.policy.device.type == "cuda":
            torch.cuda.synchronize(self.policy.device)
        return time.perf_counter()

    def told_to_stop(self) -> bool:
        """Ask whether the user wants to stop; one process that is told stops all of them at the same step."""
        return self.processes.any(self.run.stopping())

    # ---- around the steps -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start where this run's own checkpoint, or the shared first phase, ends; at the base otherwise."""
        self.collecting.pause()
        folder = self.run.folder
        found = checkpoint.latest(folder)
        if found is None and self.run.prefix is not None and self.run.job.prefix is not None:
            step, beta = self.run.job.prefix.step, self.run.suite.objectives.beta
            found = checkpoint.find(self.run.prefix, step)
            if found is not None and self.processes.main:
                checkpoint.copy_rows(self.run.prefix, folder, step, self.run.reference, beta)
            self.processes.wait()
        if found is None:
            self.log.begin()
            self.evaluate(both_splits=True)
            return
        self.restore(checkpoint.load(found))
        self.log.resume(self.step)

    def note_step(self) -> None:
        """Write down the step just taken; evaluate and keep a checkpoint where they are due."""
        step, last = self.step, self.run.job.steps
        self.log.step(self.row)
        self.run.tell({"step": step, "steps": last, "losses": self.row["losses"]})
        if step == last:
            return
        kept = step in self.run.job.keep_steps
        if step % self.settings.evaluate_every == 0 or kept or step in self.phase_ends:
            self._ask_rule(self.evaluate(both_splits=False))
        if kept or step % self.settings.checkpoint_every == 0:
            self.save_checkpoint()

    def _ask_rule(self, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """End the run early where its suite's stopping rule says so; the reason is kept."""
        if self.run.rule is None:
            return
        values = {objective: scores[f"f_{objective}/{self.primary}"]["value"] for objective in Objective}
        self.stopped = self.run.rule.reason(values)

    def evaluate(self, both_splits: bool) -> dict[str, dict[str, Any]]:
        """Add the objective values on the evaluation rows to the trajectory; return them with their errors."""
        scores: dict[str, dict[str, Any]] = {}
        for split in (self.primary, OTHER_SPLIT[self.primary]) if both_splits else (self.primary,):
            scores |= self.scores(split)
        self._write_usage()
        self.log.evaluation(self.step, max(self.phase, 0), scores)
        return scores

    def scores(self, split: str) -> dict[str, dict[str, Any]]:
        """Evaluate both objectives on one split; without a reference, keep the log-probabilities f_DPO needs later."""
        run, micro = self.run, self.settings.micro_batch_size or self.run.batch_size
        sizes = {objective: 2 * getattr(micro, objective) for objective in Objective}
        scores, pairs = held_out.both_scores(
            self.policy, run.datasets, split, run.suite.objectives, sizes, run.reference
        )
        if run.reference is None:
            chosen, rejected = pairs.T.tolist()
            row = {"step": self.step, "split": split, "chosen": chosen, "rejected": rejected}
            self.log.append("evaluation_logps", [row])
        return scores

    def _write_usage(self) -> None:
        self.log.usage(self.step, self.collecting.drain())

    def finish(self) -> None:
        """Evaluate a last time and write everything down."""
        if self.processes.main:
            # An early end was found by an evaluation of this very step, on one split: the row with both replaces it.
            record.cut_jsonl(self.run.folder / "trajectory.jsonl", last_step=self.step - 1)
        scores = self.evaluate(both_splits=True)
        if self.processes.main:
            self.write_results(scores)
        self.processes.wait()

    def write_results(self, scores: dict[str, dict[str, Any]]) -> None:
        """Save the adapter, see that it reloads, and write what was measured."""
        folder, datasets = self.run.folder, self.run.datasets
        self.policy.save(folder)
        example = datasets.train[Objective.SFT].examples[0]
        ids = torch.tensor([[*example.prompt, *example.answers[0]]], device=self.policy.device)
        difference = self.policy.check_reload(folder, ids)
        rows = {f"rows_drawn/{name}": cursor.rows_drawn for name, cursor in self.cursors.items()}
        rows |= {f"rows_probed_only/{name}": count for name, count in self.discarded_rows.items()}
        measurements = self.log.measurements(self.step, rows)
        measurements["reload_difference"] = record.measured(difference, "largest absolute difference of logits")
        record.write_json(folder / "measurements.json", measurements)
        record.write_json(folder / "scores.json", scores)
        if self.run.rule is not None:
            reason = self.stopped or "all steps taken; the rule never applied"
            stopping = {"step": self.step, "reason": reason, "early": self.stopped is not None}
            record.write_json(folder / "stopping.json", stopping)
        record.write_json(folder / "data.json", datasets.facts())
        checkpoint.prune(folder, keep=self.run.job.keep_steps)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        """Keep everything a resumed run needs to take the same steps."""
        self._write_usage()
        if self.processes.main:
            checkpoint.save(self.run.folder, self.step, self.state(), keep=self.run.job.keep_steps)

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "phase": self.phase,
            "stopped": self.stopped,
            "adapter": self.policy.adapter_state(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "method": self.method.state(),
            "cursors": {str(objective): cursor.state() for objective, cursor in self.cursors.items()},
            "discarded_rows": {str(objective): count for objective, count in self.discarded_rows.items()},
            "random": checkpoint.random_state(self.policy.device),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.stopped = state["stopped"]
        self.policy.restore_adapter(state["adapter"])
        self.start_phase(state["phase"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.method.restore(state["method"])
        for objective, cursor in self.cursors.items():
            cursor.restore(state["cursors"][objective])
            self.discarded_rows[objective] = state["discarded_rows"][objective]
        checkpoint.restore_random_state(state["random"], self.policy.device)
