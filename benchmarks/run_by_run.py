"""The runs of a suite as one would make them by hand: each for itself, with TRL, a plain joint loop and stock lm-eval."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks import by_hand, material, with_trl
from benchmarks.sides import Turns

Examples = list[dict[str, Any]]


def measure(
    turns: Turns, begun: float, suite: dict[str, Any], folder: str, kind: str, optimum: dict[str, float]
) -> dict[str, float]:
    """Make one run of a kind from its process's start.

    Args:
        turns: unused.
        begun: time.time() when the process was started.
        suite: the settings of the whole suite.
        folder: for the trainers' files and the adapter.
        kind: "sft", "dpo" or a method.
        optimum: f* of both objectives, for MAXRIGHT.

    Returns:
        Seconds of all of it, and of the work alone: after start, imports and loading.
    """
    del turns
    work = Work(suite, folder)
    alone = {"sft": work.sft, "dpo": work.dpo, "sequential": work.sequential}
    worked = alone[kind]() if kind in alone else work.joint(kind, optimum)
    return {"seconds": time.time() - begun - work.tokenizing, "work": worked}


class Work:
    """A suite's rows as text and tokens, and the kinds of runs on them.

    Attributes:
        tokenizing: seconds that loading the tokenizer took.
    """

    def __init__(self, suite: dict[str, Any], folder: str) -> None:
        from bench.data import sources, tokens
        from bench.methods import Objective
        from bench.suite.suite import Suite

        settings = Suite.model_validate(suite)
        # A model is loaded here for its tokenizer only; a run by hand would not, so it is taken off.
        started = time.perf_counter()
        tokenizer = material.stock_model(suite["model"])[1]
        self.tokenizing = time.perf_counter() - started
        loaded = tokens.load(settings.data, tokenizer, None)
        self.suite, self.folder, self.source = suite, folder, suite["model"]
        self.steps, self.batch = settings.steps, settings.training.batch_size
        self.every = settings.training.evaluate_every
        self.train = {str(one): _plain(loaded.train[one].examples) for one in Objective}
        self.samples = {
            split: {str(one): _plain(loaded.sample(split, one)) for one in Objective} for split in ("held_out", "train")
        }
        preference = settings.data.preference
        texts = sources.load_rows(preference, "train", preference.rows, tokenizer, None).rows
        self.pairs = [{"prompt": one.prompt, "chosen": one.chosen, "rejected": one.rejected} for one in texts]

    def sft(self, steps: int | None = None, last: bool = True) -> float:
        """Train with SFTTrainer; `last`: nothing follows it."""
        count = steps or self.steps
        rows = _cycle(self.train["sft"], count * self.batch.sft)
        made = [
            {
                "input_ids": one["prompt"] + one["answers"][0],
                "completion_mask": [0] * len(one["prompt"]) + [1] * len(one["answers"][0]),
            }
            for one in rows
        ]
        evaluate = with_trl.AfterSteps(self.every, self.evaluation(), last=last)
        return self._timed(lambda: with_trl.sft_trainer(self.source, made, self.batch.sft, self.folder, [evaluate]))

    def dpo(self, steps: int | None = None, first: bool = True) -> float:
        """Train with DPOTrainer; the precomputing belongs to the run. `first`: nothing came before it."""
        pairs = _cycle(self.pairs, (steps or self.steps) * self.batch.dpo)
        evaluate = with_trl.AfterSteps(self.every, self.evaluation(), first=first)
        return self._timed(
            lambda: with_trl.dpo_trainer(self.source, pairs, self.batch.dpo, self.folder, True, [evaluate])
        )

    def sequential(self) -> float:
        """Train with one, then with the other, half of the steps each."""
        half = self.steps // 2
        return self.sft(half, last=False) + self.dpo(self.steps - half, first=False)

    def joint(self, method: str, optimum: dict[str, float]) -> float:
        """Train with a plain loop at λ = 0.5."""
        model = by_hand.with_adapter(self.source)
        started = time.perf_counter()
        descent, reference = by_hand.Descent(model), self.reference(model, self.train["dpo"])
        evaluate = self.evaluation(reference)
        evaluate(model, True)
        chance = random.Random(0)
        names = ("dpo", "sft")
        for step in range(1, self.steps + 1):
            rows = {name: chance.sample(range(len(self.train[name])), getattr(self.batch, name)) for name in names}
            chosen: Sequence[str] = names
            if method == "alright":
                chosen = [chance.choice(names)]
            elif method == "maxright":  # Algorithm 3, as the suite has it: both are probed at every step
                with torch.no_grad():
                    gaps = {
                        name: float(self.loss(model, name, rows[name], reference)) - optimum[name] for name in names
                    }
                chosen = [max(gaps, key=gaps.__getitem__)]
            descent.step(sum((self.loss(model, name, rows[name], reference) for name in chosen), torch.zeros(())))
            if step % self.every == 0 or step == self.steps:
                evaluate(model, step == self.steps)
        model.save_pretrained(f"{self.folder}/adapter")
        return time.perf_counter() - started

    def loss(self, model: Any, name: str, rows: Sequence[int], reference: Tensor) -> Tensor:
        """Return one objective on some training rows."""
        examples = [self.train[name][row] for row in rows]
        if name == "sft":
            return by_hand.sft_loss(model, examples)
        return by_hand.dpo_loss(model, examples, reference[:, list(rows)].flatten())

    def reference(self, model: Any, pairs: Examples) -> Tensor:
        """Forward the reference over all pairs once. Shape: [2, pairs]."""
        size = 2 * self.batch.dpo
        parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        return torch.cat([by_hand.reference_logps(model, by_hand.pair_rows(part)).view(2, -1) for part in parts], 1)

    def evaluation(self, reference: Tensor | None = None) -> Callable[[Any, bool], None]:
        """Return a function that evaluates both objectives, on held-out rows and, if told so, on training rows.

        Args:
            reference: its log-probabilities of the training pairs, where a run has them; it is forwarded once otherwise.
        """
        known = {} if reference is None else {"train": reference}

        @torch.no_grad()
        def evaluate(model: Any, both_splits: bool) -> None:
            model.eval()
            for split in ("held_out", "train") if both_splits else ("held_out",):
                pairs, rows = self.samples[split]["dpo"], self.samples[split]["sft"]
                if split not in known:
                    known[split] = self.reference(model, pairs)
                size = 2 * self.batch.dpo
                for start in range(0, len(pairs), size):
                    part = pairs[start : start + size]
                    by_hand.dpo_loss(model, part, known[split][:, start : start + len(part)].flatten())
                size = 2 * self.batch.sft
                for start in range(0, len(rows), size):
                    by_hand.sft_loss(model, rows[start : start + size])
            model.train()

        return evaluate

    def _timed(self, make: Callable[[], Any]) -> float:
        """Train and save; setting the trainer up, its model's loading and the precomputing included, is not in it."""
        trainer = make()
        started = time.perf_counter()
        trainer.train()
        trainer.save_model(f"{self.folder}/adapter")
        return time.perf_counter() - started


def _plain(examples: Sequence[Any]) -> Examples:
    return [{"prompt": list(one.prompt), "answers": [list(answer) for answer in one.answers]} for one in examples]


def _cycle(rows: Sequence[Any], count: int) -> list[Any]:
    """Repeat rows until there are enough."""
    return [rows[place % len(rows)] for place in range(count)]
