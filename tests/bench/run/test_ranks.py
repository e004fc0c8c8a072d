"""One job on several processes that torchrun starts inside a worker: what it trains, what it keeps, and how it ends."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
import torch
from on_ranks import beside, on, rank_processes

from bench.errors import DamagedInput, InputError, JobError, OutOfMemory
from bench.plan.plan import Plan
from bench.records import record
from bench.records.spec import Resources
from bench.run import handlers, ranks
from bench.suite.suite import Suite

ROOT = Path(__file__).resolve().parents[3]
TinySuite = Callable[..., Suite]


def training(**changes: Any) -> dict[str, Any]:
    own = {"epochs": 2, "batch_size": {"dpo": 2, "sft": 4}, "learning_rate": 1e-3, "evaluate_every": 2}
    return own | {"checkpoint_every": 2} | changes


def maxright(tiny: TinySuite, full: bool = False, **changes: Any) -> Suite:
    """Return a suite whose MAXRIGHT run descends now one objective, now the other; all weights, or an adapter."""
    settings: dict[str, Any] = {"methods": [{"name": "maxright", "max_eval_every": 2}], "lambdas": [0.9]}
    if full:  # whose steps change more
        settings |= {"lambdas": [0.8], "model": {"source": "random", "tuning": "full"}, "lora": None}
        changes = {"learning_rate": 2e-4} | changes
    return tiny(training=training(**changes), **settings)


def assert_close(single: record.Job, several: record.Job) -> None:
    """The same choices, and losses, trajectory and scores to 1e-4; counts are equal."""
    steps, others = single.rows("steps"), several.rows("steps")
    assert len(steps) == len(others)
    for one, other in zip(steps, others, strict=True):
        assert one["weights"] == other["weights"]
        for name in ("losses", "probes"):
            assert other.get(name) == (pytest.approx(one[name], abs=1e-4) if name in one else None)
        for name in ("step", "phase", "learning_rate", "tokens", "probe_tokens"):
            assert other[name] == one[name], name
    for one, other in zip(single.rows("trajectory"), several.rows("trajectory"), strict=True):
        for name in ("step", "f_dpo/held_out", "f_sft/held_out"):
            assert other[name] == pytest.approx(one[name], abs=1e-4), name
    for name, score in single.scores.items():
        assert several.scores[name]["value"] == pytest.approx(score["value"], abs=1e-4), name
    assert several.measurements["tokens"] == single.measurements["tokens"]
    assert several.measurements["reload_difference"]["value"] <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("full", "shard", "devices"),
    [(False, "auto", 2), (True, "auto", 2), (True, "auto", 4), (True, False, 2), (False, True, 2)],
    ids=["adapter", "parts-2", "parts-4", "whole-on-each", "adapter-on-parts"],
)
def test_ranks_train_what_one_process_trains(
    full: bool, shard: Any, devices: int, tiny: TinySuite, run_plan: Any
) -> None:
    """MAXRIGHT, whose choices hang on losses over all rows. Of 3 evaluation rows and batches of 2 four ranks have 1 or none."""
    settings = maxright(tiny, full, shard=shard)
    alone = run_plan(settings)
    single = alone.run("maxright")
    assert len({*(name for row in single.rows("steps") for name in row["weights"])}) == 2  # else alike would say little
    runner = beside(run_plan, settings, alone, "maxright")
    job = on(runner, "maxright", devices)
    status = handlers.run(job, runner.context)
    assert status["outcome"] == record.COMPLETE, status["message"]
    several = record.read_job(runner.context.job_folder(job.id))
    assert_close(single, several)
    assert several.spec["environment"]["devices"] == devices
    in_parts = shard is True or (shard == "auto" and full)
    assert several.data["forward"].get("weights") == (f"in parts on {devices} devices" if in_parts else None)
    # Each rank holds libraries of its own, hundreds of megabytes of them, and all of them count.
    memory = several.measurements["peak_memory_bytes"]["value"]
    assert memory is None or memory > devices * 250e6
    assert rank_processes() == []


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 4)])
def test_a_checkpoint_opens_with_another_number_of_ranks(
    before: int, after: int, tiny: TinySuite, run_plan: Any
) -> None:
    """Weights in parts: what ranks wrote is read by others, each its own part, and the run ends where one process's does."""
    settings = maxright(tiny, full=True)
    alone = run_plan(settings)
    single = alone.run("maxright")
    runner = beside(run_plan, settings, alone, "maxright")
    seen: list[int] = []
    runner.context.tell = lambda message: seen.append(message.get("step", 0))
    runner.context.stopping = lambda: 3 in seen
    status = handlers.run(on(runner, "maxright", before), runner.context)
    assert status["outcome"] == record.STOPPED, status
    folder = runner.context.job_folder(runner.job("maxright").id)
    assert list((folder / "checkpoints").glob("step-*.tensors/*.distcp"))
    runner.context.stopping = lambda: False
    runner.context._policies.clear()
    status = handlers.run(on(runner, "maxright", after), runner.context)
    assert status["outcome"] == record.COMPLETE, status["message"]
    assert_close(single, record.read_job(folder))


@pytest.mark.slow
def test_a_rank_that_dies_fails_the_attempt_and_the_next_one_goes_on(tiny: TinySuite, run_plan: Any) -> None:
    """As a worker's death does: it says so, it may be tried again, its checkpoint is there, and no other rank is."""
    settings = maxright(tiny, epochs=20)  # long enough for a kill that comes late on a busy machine
    alone = run_plan(settings)
    single = alone.run("maxright")
    runner = beside(run_plan, settings, alone, "maxright")
    job = on(runner, "maxright", 2)

    def kill_one(message: dict[str, Any]) -> None:
        if message.get("step") == 3:
            rank_processes()[-1].kill()

    runner.context.tell = kill_one
    status = handlers.run(job, runner.context)
    assert (status["outcome"], status["error"], status["transient"]) == (record.FAILED, "RankDied", True)
    assert "of 2 ended before its work was done" in status["message"]
    assert status["message"].endswith("; its checkpoint, if any, is kept")
    assert rank_processes() == []
    runner.context.tell = lambda message: None
    assert handlers.run(job, runner.context)["outcome"] == record.COMPLETE
    several = record.read_job(runner.context.job_folder(job.id))
    assert_close(single, several)


@pytest.mark.slow
def test_what_a_rank_fails_with_is_the_jobs_error(tiny: TinySuite, run_plan: Any) -> None:
    runner = run_plan(maxright(tiny, full=True, learning_rate=1e30))
    job = on(runner, "sft-optimum", 2)
    status = handlers.run(job, runner.context)
    assert (status["outcome"], status.get("error")) == (record.FAILED, "JobError"), status
    assert status["message"].endswith("lower training.learning_rate")
    assert "transient" not in status


PROGRAM = """\
import sys
from dataclasses import replace
from pathlib import Path
from bench.plan import planner
from bench.records.spec import Resources
from bench.run import handlers
from bench.run.context import WorkerContext
from bench.suite.suite import Suite

settings, folder = Suite.model_validate_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
job = next(job for job in planner.make(settings).jobs.values() if job.id.startswith("sft-optimum"))

def tell(message):
    if message.get("step") == 1:
        print("training", flush=True)

context = WorkerContext(settings, folder, None, "cpu", {"workers": 1}, tell, lambda: False)
handlers.run(replace(job, resources=Resources(devices=2)), context)
"""


@pytest.mark.slow
def test_a_killed_worker_leaves_no_rank_behind(tiny: TinySuite, tmp_path: Path) -> None:
    suite_file = tmp_path / "suite.json"
    suite_file.write_text(tiny(training=training(epochs=2000)).model_dump_json())
    worker = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(suite_file), str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "training\n"
    family = psutil.Process(worker.pid).children(recursive=True)
    assert sum("bench.run.rank" in one.cmdline() for one in family) >= 2
    worker.kill()
    worker.wait()
    worker.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=120)
    assert alive == []


def test_errors_cross_between_processes() -> None:
    """One that cannot be made anew of its arguments goes as its words."""
    for error in (OutOfMemory("out of memory at step 3"), InputError("x")):
        assert ranks.portable(error) is error
    told = ranks.portable(DamagedInput("a-job", "adapter/x is not as it was written"))
    assert isinstance(told, JobError)
    assert "adapter/x is not as it was written" in str(told)


class Heard:
    """What a worker is told of two ranks, in any order: the ranks are pipes that a test writes to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ranks, "GONE_SECONDS", 0.5)
        pairs = [multiprocessing.Pipe() for _ in range(2)]
        self.ranks = [theirs for _, theirs in pairs]
        self.damage: list[str] = []
        context: Any = type(
            "Context", (), {"stopping": lambda _: False, "note_damage": lambda _, x: self.damage.append(x)}
        )
        self._following = ranks._Following([ours for ours, _ in pairs], context())

    def fails(self, rank: int, at: float, error: BaseException) -> None:
        self.ranks[rank].send((ranks.FAILED, (at, error)))
        self.ranks[rank].close()

    def ends(self) -> BaseException | None:
        """Return what the job ends with."""
        try:
            self._following.to_the_end()
        except Exception as error:
            return error
        return None


RESET = RuntimeError("Connection reset by peer")


def test_a_killed_rank_is_the_reason_though_the_others_failure_is_heard_first(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)
    heard.fails(0, 5.0, RESET)
    threading.Timer(0.1, heard.ranks[1].close).start()
    assert str(heard.ends()) == "rank 1 of 2 ended before its work was done"


def test_the_earliest_failure_is_the_reason_though_a_later_one_is_heard_first(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)
    heard.fails(0, 5.0, RESET)
    heard.ranks[1].send((ranks.DAMAGE, "x is not as it was written"))
    heard.fails(1, 4.0, JobError("a loss that is not finite"))
    assert str(heard.ends()) == "a loss that is not finite"
    assert heard.damage == ["x is not as it was written"]


def test_a_rank_that_another_ones_failure_ends_is_not_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """As NCCL's watchdog does: the process of a rank that gets no answer is aborted."""
    heard = Heard(monkeypatch)
    heard.fails(0, 4.0, OutOfMemory("out of memory at step 3"))
    heard.ranks[1].close()
    assert str(heard.ends()) == "out of memory at step 3"


def test_a_rank_that_never_says_how_it_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)
    heard.fails(0, 4.0, RESET)
    assert heard.ends() is not None
    assert str(heard.ends()) == str(RESET)


def test_ranks_that_are_done_end_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)
    for rank in heard.ranks:
        rank.send((ranks.DONE, None))
        rank.close()
    assert heard.ends() is None


def test_training_devices_are_of_training_alone(tiny: TinySuite) -> None:
    from bench.plan import planner

    made: Plan = planner.make(
        tiny(training=training(devices=2), evaluation={"lm_eval": {"tasks": ["world_questions"]}})
    )
    devices = {job.kind: job.resources.devices for job in made.jobs.values()}
    assert (devices["train"], devices["reference_logps"], devices["lm_eval"]) == (2, 2, 1)
    plain: Sequence[str] = list(planner.make(tiny(training=training())).jobs)
    assert set(plain) <= set(made.jobs)  # on how many devices a job is computed makes it no other job


def test_ranks_share_the_workers_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads and two ranks: two each; never less than one."""
    found: list[int] = []

    def started(count: int, threads: int) -> Any:
        found.append(threads)
        raise JobError("enough")

    monkeypatch.setattr(ranks, "_started", started)
    before = torch.get_num_threads()

    class Context:
        device, experiment, folder, mirror = "cpu", None, None, None
        environment: ClassVar[dict[str, Any]] = {}

        def release(self) -> None: ...

    try:
        for threads, count in ((4, 2), (1, 4)):
            torch.set_num_threads(threads)
            job: Any = type("Job", (), {"resources": Resources(devices=count)})
            with pytest.raises(JobError, match="enough"):
                ranks.run(job, Context())  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)
    assert found == [2, 1]
