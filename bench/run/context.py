"""What a worker keeps between its jobs: base models it has loaded, data it has tokenized, and whom it tells."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluators import Evaluator, Stage
from bench.records.spec import JobSpec
from bench.settings import Model
from bench.suite.suite import Experiment, Suite

if TYPE_CHECKING:
    from bench.data.tokens import Datasets
    from bench.models import held_out
    from bench.models.policy import Policy
    from bench.models.processes import Processes


@dataclass
class WorkerContext:
    """What a worker keeps between jobs: the base models it has loaded and the data it has tokenized.

    Attributes:
        tell: called with news of the job at hand.
        stopping: asked whether the user wants to stop.
        clock: tells the time in seconds; what training costs is measured by it.
        healed: what the job at hand found damaged and made up for.
        resumed: how it went on from its own checkpoints.
        scores: a complete job's id -> its kind and the names of its scores, as far as they were looked up.
        kinds: the kinds and stages of jobs that were done here.
        rank, ranks: which of how many processes this is that compute a job together; the first one writes.
        trains: whether such a job is of training, and not an evaluation.
    """

    experiment: Experiment
    folder: Path
    mirror: Path | None
    device: str
    environment: dict[str, Any]
    tell: Callable[[dict[str, Any]], None]
    stopping: Callable[[], bool]
    clock: Callable[[], float] = time.perf_counter
    healed: list[str] = field(default_factory=list)
    resumed: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    kinds: set[tuple[str, str]] = field(default_factory=set)
    rank: int = 0
    ranks: int = 1
    trains: bool = True
    _policies: dict[Any, Policy] = field(default_factory=dict)
    _datasets: dict[Any, Datasets] = field(default_factory=dict)
    _base_logps: dict[str, held_out.OfSplits] = field(default_factory=dict)

    @property
    def suite(self) -> Suite:
        """The suite of a job that trains or evaluates language models."""
        assert isinstance(self.experiment, Suite)
        return self.experiment

    @cached_property
    def evaluators(self) -> dict[str, tuple[Evaluator, tuple[Stage, ...]]]:
        """The suite's evaluators by name, each with its stages."""
        return {name: (one, one.stages()) for name, one in self.suite.evaluation.chosen.items()}

    def job_folder(self, job_id: str) -> Path:
        return self.folder / "jobs" / job_id

    def base(self, settings: Model, pretrained: str | None) -> Policy:
        """Return a base model without adapter, loaded once."""
        import torch

        from bench.models import policy

        key = (settings, pretrained)
        if key not in self._policies:
            self.say(f"loading {settings.path or settings.source}")
            where = self.job_folder(pretrained) if pretrained else None
            device = torch.device(self.device)
            self._policies[key] = policy.load(settings, device, where, self.processes, self._shards(), self.trains)
        self._policies[key].detach()
        return self._policies[key]

    def tokenizer(self, pretrained: str | None) -> Any:
        """Return the base model's tokenizer; a model is not loaded for it, as what only asks a service has no use for one."""
        from bench.models import tokenizers

        loaded = self._policies.get((self.suite.model, pretrained))
        return loaded.tokenizer if loaded else tokenizers.load(self.suite.model)

    def base_to_train(self, pretrained: str | None) -> Policy:
        """Return the suite's base model, on a GPU whose memory in use is not that of an earlier job's passes."""
        from bench.models import memory

        policy = self.base(self.suite.model, pretrained)
        memory.release(policy.device)
        return policy

    @cached_property
    def processes(self) -> Processes | None:
        """Who computes a job together; None: this process alone."""
        if self.ranks == 1:
            return None
        import torch

        from bench.models.processes import Processes

        return Processes(torch.device(self.device))

    def _shards(self) -> bool:
        """Say whether each process has a part of every weight."""
        from bench.run import devices

        return self.ranks > 1 and devices.shards(self.suite, self.device, self.trains)

    @property
    def main(self) -> bool:
        """Whether it is this process that writes."""
        return self.rank == 0

    def release(self) -> None:
        """Drop every base model, for other processes to have the device."""
        import torch

        from bench.models import memory

        self._policies.clear()
        gc.collect()
        memory.release(torch.device(self.device))

    def forget(self, policy: Policy) -> None:
        """Drop a base model on which another library has left its changes; the next job loads it anew."""
        self._policies = {key: one for key, one in self._policies.items() if one is not policy}
        gc.collect()  # trainers hold models in cycles, and two base models may not fit on a device

    def policy_of(self, job: JobSpec) -> Policy:
        """Return the policy a job evaluates: the base, or the base with the input's adapter."""
        base = self.base(self.suite.model, job.inputs.pretrained)
        if job.inputs.policy:
            base.attach_saved(self.job_folder(job.inputs.policy))
        return base

    def datasets(self, tokenizer: Any, own: dict[str, Any], judged: int = 0) -> Datasets:
        """Return the tokenized data; `own` holds a reference policy's departures from the suite's data."""
        from bench.data import tokens

        key = (repr(sorted(own.items())), judged)
        if key not in self._datasets:
            self.say("reading and tokenizing the data")
            settings = self.suite.data
            on_chosen, sft_rows = own.get("sft_on_chosen"), own.get("sft_rows")
            if on_chosen:
                preference = settings.preference.model_copy(update={"rows": on_chosen["rows"]})
                settings = settings.model_copy(update={"preference": preference})
            if sft_rows:
                instruction = settings.instruction.model_copy(update={"rows": sft_rows["rows"]})
                settings = settings.model_copy(update={"instruction": instruction})
            self._datasets[key] = tokens.load(
                settings, tokenizer, self.mirror, sft_on_chosen=bool(on_chosen), judged=judged
            )
        return self._datasets[key]

    def base_logps(self, own: dict[str, Any]) -> held_out.OfSplits:
        """Return where the untrained policy's log-probabilities on this worker's evaluation rows are kept."""
        return self._base_logps.setdefault(repr(sorted(own.items())), {})

    def note_damage(self, what: str) -> None:
        """Keep what was found damaged, for the job's status and the run's last lines."""
        self.healed.append(what)
        self.say(what)

    def note_resumed(self, every: list[dict[str, Any]]) -> None:
        """Keep how the job at hand went on from its own checkpoints, the last one being of now."""
        from bench.train import resuming

        self.resumed[:] = every
        self.say(resuming.in_words(every[-1]))

    def say(self, text: str) -> None:
        """Log a line and show it as the job's present activity."""
        logging.getLogger("bench").info(text)
        self.tell({"text": text})
