"""The sides of the group `gpu`, each a function for a process of its own: this project's, TRL's, transformers' and lm-eval's.

They take the device's name, so that all of them run on a CPU too, at the size of a test.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import shapes
from benchmarks.sides import Turns

# What a step is made of may be anew in its first ones: kernels, compiled shapes, memory.
FIRST_STEPS = 2


def wait_for(device: str) -> None:
    """Wait until a device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def leave_memory() -> None:
    """Give the card's memory that is not in use back to whoever works on it next."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def rate_of(device: str, dtype: torch.dtype) -> float:
    """Measure the device's own matrix rate; a small product on a CPU, which is only ever a test."""
    from bench.models import flops

    return flops.matrix_rate(torch.device(device), dtype, 8192 if device.startswith("cuda") else 128)


# ---- training steps --------------------------------------------------------------------------------------------------


def ours(turns: Turns, shape: str, device: str, suite: dict[str, Any], folder: str, job: str) -> None:
    """Take one step of a training job a turn: step, records and all that stands around it.

    Ready with the rows and the batches to come, and the device's matrix rate. A step is done with its seconds, losses, tokens
    and model FLOPs, and how the policy is forwarded.
    """
    from bench.methods import Objective
    from bench.train.loop import Trainer
    from benchmarks.ours import Bench, after_start, coming_batches, examples

    made = Bench(suite, folder, device=device)
    clock: dict[str, Any] = {"started": 0.0}

    def tell(message: dict[str, Any]) -> None:
        if "step" not in message or "losses" not in message:
            return
        seconds, trainer = time.perf_counter() - clock["started"], clock["trainer"]
        forward = trainer.policy.forward_facts(trainer.run.datasets.train[Objective.DPO].examples)
        turns.done(
            {
                "seconds": seconds,
                "losses": message["losses"],
                "tokens": trainer.row["tokens"],
                "model_flops": trainer.row["model_flops"],
                "forward": {**forward, "notes": list(forward["notes"])},
                "peak_bytes": torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else 0,
            }
        )
        turns.wait()
        clock["started"] = time.perf_counter()

    def begin(trainer: Trainer) -> None:
        clock["trainer"] = trainer
        rate = rate_of(device, trainer.policy.model.dtype)
        turns.ready({"batches": coming_batches(trainer), "examples": examples(trainer), "matrix_rate": rate})
        turns.wait()
        clock["started"] = time.perf_counter()

    with shapes.in_place_of_random(shape, device):
        wanted = made.job(job)
        made.run_needs(wanted)
        made.context.tell = tell
        with after_start(begin):
            made.run(wanted)


def trl(
    turns: Turns,
    shape: str,
    device: str,
    dtype: str,
    objective: str,
    rows: Sequence[dict[str, Any]],
    batch_size: int,
    folder: str,
    screened_steps: int,
) -> None:
    """Find the fastest of TRL's settings on the first rows, then take steps of a trainer with them, from the first row.

    Ready with the settings, and the seconds a step of all that were tried, or why one could not be used. Activation checkpointing
    is tried where it does not fit without.
    """
    tried: dict[str, Any] = {}
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    few = rows[: screened_steps * batch_size]
    for name, settings in candidates(objective, device).items():
        for checkpointing in (False, True):
            label = name + (", checkpointing" if checkpointing else "")
            own = {**settings, "activation_checkpointing": checkpointing}
            clock = step_clock(device)
            reason = _attempt(partial(train, shape, device, dtype, objective, few, batch_size, folder, own, clock))
            if reason is None:
                tried[label] = statistics.median(clock.seconds[FIRST_STEPS:] or clock.seconds)
                found[label] = tried[label], own
                break
            tried[label] = reason
            if "out of memory" not in reason:
                break
    if not found:
        raise RuntimeError(f"none of TRL's settings could be used: {tried}")
    best = min(found, key=lambda label: found[label][0])
    facts = {"settings": best, "tried": tried}
    clock = step_clock(device, turns, facts)
    train(shape, device, dtype, objective, rows, batch_size, folder, found[best][1], clock)


def _attempt(work: Callable[[], None]) -> str | None:
    """Do something; return why it could not be done."""
    try:
        work()
        return None
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:200]}"
        return f"out of memory ({reason})" if isinstance(error, torch.OutOfMemoryError) else reason
    finally:
        leave_memory()


def candidates(objective: str, device: str) -> dict[str, dict[str, Any]]:
    """Return TRL's public settings that may be fastest, by name; those that need a package or a GPU are there with it."""
    from importlib.util import find_spec

    precomputed = {"precompute_ref_log_probs": True} if objective == "dpo" else {}
    plain = "reference precomputed" if precomputed else "completion-only"
    made: dict[str, dict[str, Any]] = {plain: precomputed}
    if device != "cpu":
        made[f"{plain}, autocast"] = {**precomputed, "bf16": True}
    if find_spec("liger_kernel"):
        made["Liger"] = {"use_liger_kernel": True}
    if find_spec("flash_attn"):
        made[f"{plain}, padding-free"] = {**precomputed, "padding_free": True}
        if find_spec("liger_kernel"):
            made["Liger, padding-free"] = {"use_liger_kernel": True, "padding_free": True}
    return made


def train(
    shape: str,
    device: str,
    dtype: str,
    objective: str,
    rows: Sequence[dict[str, Any]],
    batch_size: int,
    folder: str,
    settings: dict[str, Any],
    clock: Any,
) -> None:
    """Train on rows in their order with one of TRL's trainers, from the same weights as ours."""
    from datasets import Dataset
    from peft import LoraConfig
    from torch.utils.data import SequentialSampler
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from benchmarks import with_trl

    kind, configuration = {"dpo": (DPOTrainer, DPOConfig), "sft": (SFTTrainer, SFTConfig)}[objective]
    attention = "flash_attention_2" if settings.get("padding_free") else None
    model, tokenizer = shapes.build(shape, getattr(torch, dtype), device, attention)
    given = with_trl.shared_arguments(folder, len(rows) // batch_size, batch_size)
    given |= {"use_cpu": device == "cpu", "dataloader_pin_memory": device != "cpu"}
    given |= {"beta": 0.1} if objective == "dpo" else {"completion_only_loss": True}

    class InOrder(kind):  # type: ignore[misc, valid-type]
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    trainer = InOrder(
        model=model,
        args=configuration(**known_to(configuration, given | settings)),
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=16, lora_alpha=16, lora_dropout=0.0, target_modules=shapes.targets(shape)
        ),
        callbacks=[clock],
    )
    trainer.train()


def known_to(configuration: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Leave out settings that this version does not have; activation checkpointing goes by its older name where that is all."""
    known = {one.name for one in fields(configuration)}
    if "activation_checkpointing" not in known and "activation_checkpointing" in given:
        given = {**given, "gradient_checkpointing": given["activation_checkpointing"]}
    return {name: value for name, value in given.items() if name in known}


def _clock_class() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Clock each step from after its batch was made to after the optimizer; hand it back where somebody waits for it."""

        def __init__(self, device: str, turns: Turns | None = None, facts: dict[str, Any] | None = None) -> None:
            self.device, self.turns, self.facts = device, turns, facts
            self.seconds: list[float] = []
            self._started = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Start the clock."""
            if self.turns is not None and not self.seconds:
                self.turns.ready(self.facts or {})
                self.turns.wait()
            wait_for(self.device)
            self._started = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Stop the clock."""
            wait_for(self.device)
            self.seconds.append(time.perf_counter() - self._started)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            """Hand the step back with its loss, which TRL tells after the step."""
            if self.turns is not None and "loss" in logs:
                self.turns.done({"seconds": self.seconds[-1], "losses": {"": float(logs["loss"])}})
                self.turns.wait()

    return Clock


def step_clock(device: str, turns: Turns | None = None, facts: dict[str, Any] | None = None) -> Any:
    """Make the clock of TRL's steps; transformers is imported only then."""
    return _clock_class()(device, turns, facts)


def kinds(
    turns: Turns, shape: str, device: str, suite: dict[str, Any], folder: str, work: Sequence[str], steps: int
) -> dict[str, Any]:
    """Measure kinds of steps as a cost job does; return the median seconds of each."""
    from bench.records import record
    from bench.records.spec import Inputs, JobSpec
    from bench.run import handlers
    from benchmarks.ours import Bench

    del turns
    made = Bench(suite, folder, device=device)
    repeats = {"rounds": 1, "steps": steps, "seconds": 0.0, "warm_up_steps": 1}
    job = JobSpec("cost-1", "cost", None, {"work": list(work), "repeats": repeats}, Inputs(), {})
    with shapes.in_place_of_random(shape, device):
        status = handlers.run(job, made.context)
    if status["outcome"] != record.COMPLETE:
        raise RuntimeError(status["message"])
    figures = record.read_job(made.context.job_folder(job.id)).measurements
    return {one: figures[f"step_seconds/{one}"]["value"] for one in work}


# ---- answers ---------------------------------------------------------------------------------------------------------


@contextmanager
def policy_of(shape: str, device: str, dtype: str) -> Iterator[Any]:
    """Load a policy with an adapter on it that does something."""
    from bench.models import policy
    from bench.settings import Lora, Model

    with shapes.in_place_of_random(shape, device):
        loaded = policy.load(Model.model_validate({"source": "random", "dtype": dtype}), torch.device(device))
    loaded.attach(Lora(rank=16, alpha=16, targets=tuple(shapes.targets(shape))), seed=0)
    with torch.no_grad():
        for value in loaded.trainable().values():
            value.normal_(0, 0.01)
    loaded.model.eval()
    yield loaded


def answers(
    turns: Turns,
    shape: str,
    device: str,
    dtype: str,
    prompts: Sequence[str],
    new_tokens: int,
    batch_size: int,
    stock_prompts: int,
) -> dict[str, Any]:
    """Answer prompts as this project does, and some of them by plain `generate` in batches, one after the other."""
    from bench.evaluators import generation
    from bench.evaluators.options import Generation

    del turns
    with policy_of(shape, device, dtype) as policy:
        plain = Generation(max_new_tokens=new_tokens, batch_size=batch_size)
        warm = plain.model_copy(update={"max_new_tokens": 2})
        order = range(len(prompts))
        ids = [tuple(policy.tokenizer(one, add_special_tokens=False)["input_ids"]) for one in prompts]
        generation._plainly(policy, ids, order[:batch_size], warm, (), lambda text: None)
        wait_for(device)
        started = time.perf_counter()
        rows, _ = generation._plainly(policy, ids, order[:stock_prompts], plain, (), lambda text: None)
        wait_for(device)
        stock_seconds = time.perf_counter() - started
        started = time.perf_counter()
        found, facts = generation.answers_and_facts(
            policy, prompts, Generation(max_new_tokens=new_tokens), (), 4096, lambda text: None
        )
        wait_for(device)
        seconds = time.perf_counter() - started
    return {
        "stock_seconds": stock_seconds,
        "stock_tokens": sum(map(len, rows)),
        "seconds": seconds,
        "tokens": sum(row["tokens"] for row in found),
        "facts": facts,
    }


# ---- questions -------------------------------------------------------------------------------------------------------


def our_questions(
    turns: Turns, shape: str, device: str, dtype: str, mirror: str, tasks: Sequence[str], limit: int
) -> None:
    """Ask all questions once a turn, this project's way, with as many rows at once as fit."""
    from bench.evaluators import lm_eval
    from bench.evaluators.options import LmEval
    from bench.models import policy
    from bench.settings import Model

    with shapes.in_place_of_random(shape, device):
        asked = policy.load(Model.model_validate({"source": "random", "dtype": dtype}), torch.device(device))
    settings = LmEval(tasks=tuple(tasks), shots=1, limit=limit)
    turns.ready({})
    while True:
        turns.wait()
        started = time.perf_counter()
        _, found, _ = lm_eval.ask(asked, settings, Path(mirror), lambda text: None)
        wait_for(device)
        seconds = time.perf_counter() - started
        leave_memory()
        answers = {
            f"{row.get('task')}/{row['id']}": {"logps": row["logps"], "correct": int(row["outcomes"]["acc"])}
            for row in found
        }
        rows = asked.model.bench_rows_at_once
        turns.done({"seconds": seconds, "answers": answers, "contexts": asked.model.bench_contexts, "rows": rows})


def stock_questions(
    turns: Turns, shape: str, device: str, dtype: str, mirror: str, tasks: Sequence[str], limit: int
) -> None:
    """Load the tasks and ask all questions once a turn, as lm-eval does by itself, with the batch it finds."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    from benchmarks.evaluation import answers_of, load_tasks

    model, tokenizer = shapes.build(shape, getattr(torch, dtype), device)
    loaded = load_tasks(mirror, tasks)
    turns.ready({})
    while True:
        turns.wait()
        started = time.perf_counter()
        results = evaluate(HFLM(pretrained=model, tokenizer=tokenizer, batch_size="auto"), loaded, limit=limit)
        wait_for(device)
        seconds = time.perf_counter() - started
        leave_memory()
        turns.done({"seconds": seconds, "answers": answers_of(results)})


# ---- start, reference ------------------------------------------------------------------------------------------------


def save(turns: Turns, shape: str, device: str, dtype: str, folder: str) -> dict[str, Any]:
    """Write a model and its tokenizer where `local` finds them."""
    del turns
    model, tokenizer = shapes.build(shape, getattr(torch, dtype), device)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"bytes": sum(file.stat().st_size for file in Path(folder).iterdir())}


def first_step(turns: Turns, suite: dict[str, Any], folder: str, job: str, device: str) -> None:
    """Run a job up to its first step, which the first turn is done with."""
    from benchmarks.ours import Bench

    made = Bench(suite, folder, device=device)

    def tell(message: dict[str, Any]) -> None:
        if "step" in message and "losses" in message:
            turns.done({"losses": message["losses"]})
            turns.wait()

    made.context.tell = tell
    made.run(made.job(job))


def reference(turns: Turns, shape: str, device: str, suite: dict[str, Any], folder: str) -> dict[str, Any]:
    """Run the job of the reference's log-probabilities with model and data loaded before; return its seconds."""
    from benchmarks.ours import Bench

    del turns
    made = Bench(suite, folder, device=device)
    job = next(one for one in made.plan.jobs.values() if one.kind == "reference_logps")
    with shapes.in_place_of_random(shape, device):
        made.run_needs(job)
        policy = made.context.policy_of(job)
        made.context.datasets(policy.tokenizer, {})
        wait_for(device)
        status = made.run(job)
    return {"seconds": status["seconds"], "notes": list(policy.notes)}
