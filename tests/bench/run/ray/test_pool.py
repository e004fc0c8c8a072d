"""A Ray cluster as the place where jobs run: real raylets on this machine, whose nodes come and go."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.collectors import nvml
from bench.errors import InputError, JobError
from bench.records.spec import Inputs, JobSpec, Resources
from bench.run import pools, thread_counts
from bench.run.ray import nodes as ray_nodes
from bench.run.ray import place as ray_place
from bench.run.ray import pool as ray_pool
from benchmarks.campaigns import base
from benchmarks.campaigns.cluster import Cluster

# Training of some seconds on each objective, so that a node goes in the middle of it.
SUITE = base.SUITE.replace("steps: 16", "steps: 120").replace("evaluate_every: 4", "evaluate_every: 60")
SUITE = SUITE.replace("[sequential, mix, maxright]", "[sequential, mix]").replace("  base_kl: {}\n", "")
SECRET = "sk-3f9c1d-never-leaves"


# ---- without a cluster -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["slurm", "ray://", "ray:/head:6379", "local://", ""])
def test_an_unknown_engine_is_one_line(engine: str, tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^--engine {engine}: must be local, ray or ray://HOST:PORT$"):
        pools.make(engine, tiny(), tmp_path)


def test_without_ray_the_line_has_the_command_that_installs_it(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else known(name))
    with pytest.raises(InputError, match=r"needs the package ray: pip install 'posttrain-bench\[ray\]'$"):
        pools.make("ray", tiny(), tmp_path)


def test_a_folder_that_is_another_one_on_every_node_is_refused(tiny: Any) -> None:
    with pytest.raises(
        InputError, match=r"^--results out: with --engine ray it must be an absolute path, on a file sy"
    ):
        pools.make("ray", tiny(), Path("out/tiny"))


def test_where_nobody_answers_it_is_said_at_once(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"^--engine ray://127.0.0.1:9: nobody answers there \(.*refused\); it must be H"
    ):
        pools.make("ray://127.0.0.1:9", tiny(), tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(InputError, match=r"^RAY_ADDRESS=ray://head:10001: bench runs on a machine of the cluster"):
        pools.make("ray", tiny(), tmp_path)


def test_a_node_says_what_it_does_not_see(tmp_path: Path) -> None:
    def look(token: str, *paths: str) -> str:
        return ray_place.look(tmp_path, token, paths, str(tmp_path), False)[1]

    (tmp_path / "token").write_text("")
    assert look("token") == look("token", "token") == ""  # relative paths begin where the command does
    assert look("other") == f"does not see {tmp_path} as it is on the machine of the command"
    assert look("token", "token", "model") == "does not see model"
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


class Actor:
    """An actor of which calls are kept."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options, self.called = options, []  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self.called.append(name) or object())


class Ray:
    """Stand in for the library: nodes as a test declares them, and actors that do nothing."""

    exceptions = SimpleNamespace(RayError=RuntimeError, GetTimeoutError=TimeoutError)

    def __init__(self, *nodes: dict[str, float]) -> None:
        self.declared = {f"n{place}": {"memory": 100.0} | one for place, one in enumerate(nodes)}
        self.gone: list[Any] = []
        self.made: list[Actor] = []
        self.taken: dict[str, float] = {}
        state = SimpleNamespace(available_resources_per_node=self._available)
        self._private = SimpleNamespace(state=state)

    def _available(self) -> dict[str, dict[str, float]]:
        return {name: has | {"GPU": has.get("GPU", 0) - self.taken.get(name, 0)} for name, has in self.declared.items()}

    def nodes(self) -> list[dict[str, Any]]:
        known = self.declared.items()
        return [{"NodeID": name, "Alive": True, "NodeManagerAddress": name, "Resources": has} for name, has in known]

    def remote(self, *kind: Any, **options: Any) -> Any:
        return self if kind else lambda function: self

    def options(self, **options: Any) -> Any:
        actor = Actor(options)
        if "num_gpus" in options:
            self.made.append(actor)
        return SimpleNamespace(remote=lambda *arguments: actor)

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address="head:6379")

    def get(self, ref: Any, timeout: float | None = None) -> Any:
        return True

    def wait(self, refs: list[Any], num_returns: int = 1, timeout: float | None = None) -> Any:
        return refs, []

    def kill(self, actor: Any) -> None:
        self.gone.append(actor)


@pytest.fixture
def pool_of(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(ray_nodes.Node, "affinity", property(lambda node: node.id))
    monkeypatch.setattr(ray_nodes, "_silence", lambda address: "")

    def make(*nodes: dict[str, float], workers: int | None = None, threads: int | None = None) -> Any:
        made = ray_pool.RayPool(Ray(*nodes), tiny(), tmp_path, None, workers, threads, lambda line: None)
        for node in made.nodes.computing():
            node.usable = True
        return made

    return make


def job(devices: int = 1, kind: str = "train") -> JobSpec:
    return JobSpec(f"{kind}-{devices}", kind, None, {}, Inputs(), {}, resources=Resources(devices))


def give(pool: Any, one: JobSpec) -> Any:
    place = pool.idle(one)
    if place is not None:
        pool.give(place, one, [])
    return place


def where(pool: Any) -> list[tuple[str, int, int]]:
    """Return of each living actor its node, GPUs and processors."""
    options = [one.options for one in pool._ray.made if one not in pool._ray.gone]
    return [(one["scheduling_strategy"], one["num_gpus"], one["num_cpus"]) for one in options]


def test_an_actor_a_device_and_none_on_the_processors_of_a_machine_without(pool_of: Any) -> None:
    """Two GPUs with 8 processors each, and a head of 32 processors that trains nothing."""
    pool = pool_of({"CPU": 32}, {"CPU": 16, "GPU": 2})
    assert (pool.size, pool.largest, pool.threads) == (2, 2, 8)
    assert give(pool, job()) and give(pool, job()) and give(pool, job()) is None
    assert where(pool) == [("n1", 1, 8), ("n1", 1, 8)]


def test_an_actor_every_so_many_processors_where_nobody_has_a_gpu(pool_of: Any) -> None:
    """7 and 4 processors at 3 a job: two and one; threads are those of the smallest node where nobody asks."""
    pool = pool_of({"CPU": 7}, {"CPU": 4}, threads=3)
    assert [give(pool, job()) is not None for _ in range(4)] == [True, True, True, False]
    assert sorted(where(pool)) == [("n0", 0, 3), ("n0", 0, 3), ("n1", 0, 3)]
    assert pool_of({"CPU": 7}, {"CPU": 4}).threads == 4


def test_workers_is_the_most_there_are(pool_of: Any) -> None:
    pool = pool_of({"CPU": 8, "GPU": 4}, {"CPU": 8, "GPU": 4}, workers=3)
    assert (pool.size, pool.largest) == (3, 3)
    assert [give(pool, job()) is not None for _ in range(4)] == [True, True, True, False]


def test_a_model_goes_only_where_its_weights_fit(pool_of: Any) -> None:
    """60 bytes on nodes of 100 and 50; 101 are refused. On GPUs the machine's memory is not what it computes in."""
    heavy = JobSpec("heavy", "train", None, {}, Inputs(), {}, resources=Resources(memory_bytes=60))
    pool = pool_of({"CPU": 4, "memory": 50}, {"CPU": 2}, threads=2)
    pool.nodes._known["n0"].usable = False
    assert give(pool, heavy).node.id == "n1" and pool._ray.made[0].options["memory"] == 60
    with pytest.raises(InputError, match=r"^heavy needs 101 bytes of memory; a node has 100 bytes at most$"):
        pool.check([JobSpec("heavy", "train", None, {}, Inputs(), {}, resources=Resources(memory_bytes=101))])
    assert give(pool_of({"CPU": 4, "GPU": 1, "memory": 50}), heavy)


def test_several_devices_are_those_of_one_node_and_idle_actors_make_room(pool_of: Any) -> None:
    """On each of two nodes one of two GPUs is at work and one rests; two of one node are there when one has ended."""
    pool = pool_of({"CPU": 4, "GPU": 2}, {"CPU": 4, "GPU": 2})
    places = [give(pool, job()) for _ in range(4)]
    busy = {one.node.id: one for one in places[:2]}
    for one in places[2:]:
        one.job = None
    assert sorted(busy) == ["n0", "n1"] and pool.idle(job(2)) is None and len(pool._seats) == 4
    busy["n1"].job = None
    large = give(pool, job(2))
    assert large.node.id == "n1" and sorted(where(pool)) == [("n0", 1, 2), ("n0", 1, 2), ("n1", 2, 4)]


def test_gpus_that_others_hold_are_not_waited_for(pool_of: Any) -> None:
    """Others have both of the first node, and then all but one of the second."""
    pool = pool_of({"CPU": 4, "GPU": 2}, {"CPU": 4, "GPU": 2})
    pool._ray.taken = {"n0": 2, "n1": 1}
    assert give(pool, job()).node.id == "n1"
    pool._ray.taken = {"n0": 2, "n1": 2}
    assert pool.idle(job()) is None and pool.idle(job(2)) is None


def test_with_a_limit_on_workers_idle_actors_of_other_nodes_make_room(pool_of: Any) -> None:
    """Two in all: one rests on each node; a job of two devices ends both."""
    pool = pool_of({"CPU": 4, "GPU": 2}, {"CPU": 4, "GPU": 2}, workers=2)
    for one in [give(pool, job()), give(pool, job())]:
        one.job = None
    assert sorted(node for node, _, _ in where(pool)) == ["n0", "n1"]
    assert give(pool, job(2)) and [gpus for _, gpus, _ in where(pool)] == [2]


def test_a_job_that_runs_alone_ends_all_others_and_has_the_nodes_threads(
    pool_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of({"CPU": 8, "GPU": 2})
    first, second = give(pool, job()), give(pool, job())
    first.job = second.job = None
    alone = give(pool, job(kind="cost"))
    assert pool._seats == [alone] and len(pool._ray.gone) == 2
    assert thread_counts.of_folder(pool.folder, 1, None, 8) == (8, 8)


def test_an_idle_actor_that_is_gone_costs_no_attempt(pool_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of({"CPU": 4, "GPU": 1})
    first = give(pool, job())
    first.job = None

    def gone(ref: Any, timeout: float | None = None) -> Any:
        raise RuntimeError("the actor died")

    node = first.node
    with monkeypatch.context() as patched:
        patched.setattr(pool._ray, "get", gone)
        assert give(pool, job()) is None and pool._seats == []  # its node is asked first
    assert not node.usable
    patch_answers(pool, monkeypatch)
    assert pool.events(0.0) == [] and node.usable
    assert give(pool, job()) is not None


def patch_answers(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nodes say that they see everything."""
    from bench import __version__

    monkeypatch.setattr(pool._ray, "get", lambda ref, timeout=None: (__version__, ""))


def test_after_a_loss_nothing_is_begun_on_a_node_before_it_answers(
    pool_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next attempt would die where the first did, while nobody has noticed yet that the node is gone."""
    pool = pool_of({"CPU": 4, "GPU": 2}, {"CPU": 2, "GPU": 1})
    first, beside = give(pool, job()), give(pool, job())
    assert (first.node.id, beside.node.id) == ("n0", "n0")

    def gone(ref: Any, timeout: float | None = None) -> Any:
        raise RuntimeError("The actor died because its node has died. Node Id: n0")

    monkeypatch.setattr(pool._ray, "get", gone)
    monkeypatch.setattr(pool._ray, "wait", lambda refs, num_returns=1, timeout=None: (refs[:1], refs[1:]))
    (event, *_) = pool._hear(first)
    assert event.kind == "died" and "its node left" in event.message["message"]
    assert not first.node.usable
    assert give(pool, job()).node.id == "n1" and pool.idle(job()) is None


def test_the_job_of_a_node_that_left_died_and_its_devices_count_no_longer(
    pool_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the actor itself never says so."""
    pool = pool_of({"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1})
    lost, kept = give(pool, job()), give(pool, job())
    del pool._ray.declared[lost.node.id]
    monkeypatch.setattr(ray_nodes, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(pool._ray, "wait", lambda refs, num_returns=1, timeout=None: ([], refs))
    (event,) = pool.events(None)
    assert (event.kind, event.message) == ("died", {"message": f"node {lost.node.address} left the cluster"})
    assert pool._seats == [kept] and pool.size == 1


def test_a_node_that_leaves_while_it_is_asked_is_left_out(pool_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that begins just after a node was killed goes on with the others; one that is there and cannot answer is refused."""
    from bench import __version__

    pool = pool_of({"CPU": 4}, {"CPU": 4})
    first, second = pool.nodes.computing()
    first.usable = second.usable = False

    def get(ref: Any, timeout: float | None = None) -> Any:
        if ref.options["scheduling_strategy"] == second.id:
            raise RuntimeError("the node it was to run on has died")
        return __version__, ""

    monkeypatch.setattr(pool._ray, "get", get)
    with pytest.raises(
        InputError, match=r"^--engine ray: node n1 cannot run bench \(the node it was to run on has died\)"
    ):
        pool.check([])
    del pool._ray.declared[second.id]
    pool.check([])
    assert first.usable and not second.usable


def test_a_head_that_is_silent_for_long_ends_the_run_in_a_line(pool_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Ray would end the process; and nothing is asked of it any more."""
    pool = pool_of({"CPU": 4, "GPU": 1})
    give(pool, job())
    monkeypatch.setattr(ray_nodes, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(ray_nodes, "_HEAD_SECONDS", 0.0)
    monkeypatch.setattr(ray_nodes, "_silence", lambda address: f"{address} refused")
    monkeypatch.setattr(ray_nodes.time, "sleep", lambda seconds: None)
    with pytest.raises(
        JobError, match=r"^the Ray cluster is gone: its head head:6379 does not answer \(head:6379 refused"
    ):
        pool.events(None)
    monkeypatch.setattr(pool._ray, "kill", None)
    pool.close()


# ---- on a cluster ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if nvml.uuids():
        pytest.skip("the GPUs that the nodes declare would be taken for this machine's")
    with Cluster() as made:
        yield made


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base.write_suite(tmp_path_factory.mktemp("suite"), SUITE)


def environments() -> dict[int, tuple[str, bytes]]:
    """Return of every process its command and its environment."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            found[int(path.name)] = command, (path / "environ").read_bytes()
        except OSError:  # it has ended, or is not ours
            continue
    return found


@pytest.mark.slow
def test_a_node_goes_and_another_comes_and_the_records_are_those_of_a_local_run(
    cluster: Cluster, suite: Path, tmp_path: Path
) -> None:
    """It ends by itself; on the way no process on the nodes has a key of the command's, and no file of Ray's."""
    code, said = base.call("run", str(suite), "--results", str(tmp_path / "local"), "--threads", "1")
    assert code == 0, said
    results = tmp_path / "ray"
    arguments = ("run", str(suite), "--results", str(results), "--threads", "1", "--engine", cluster.engine)
    process = base.start(*arguments, JUDGE_KEY=SECRET)
    while len(list(results.glob("*/jobs/*/steps.jsonl"))) < 2 and process.poll() is None:
        time.sleep(0.1)
    assert process.poll() is None, process.communicate()[0]
    running = environments()
    ours = {one for one, (command, _) in running.items() if command.startswith("ray::RayPlace")}
    assert ours and not any(SECRET.encode() in running[one][1] for one in ours)
    assert SECRET.encode() in running[process.pid][1]
    cluster.kill()
    cluster.add()
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert "left" in said and "joined" in said
    assert base.difference(base.contents(tmp_path / "local" / "small"), base.contents(results / "small")) == ""
    last = json.loads((results / "small" / "last_run.json").read_text())
    assert last["exit_code"] == 0 and last["failed"] == {}
    assert not any(SECRET.encode() in one.read_bytes() for one in cluster.files())


@pytest.mark.slow
def test_a_folder_that_the_nodes_do_not_share_is_refused_before_anything_is_loaded(
    cluster: Cluster, suite: Path, tmp_path: Path
) -> None:
    """The command sees another file system at that path than the raylets do."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], check=False).returncode:
        pytest.skip("no mount namespace of its own can be made here")
    results = tmp_path / "results"
    results.mkdir()
    command = [sys.executable, "-m", "benchmarks.command", "run", str(suite), "--results", str(results)]
    line = f'mount -t tmpfs none {results} && exec "$@"'
    done = subprocess.run(
        [unshare, "-m", "sh", "-c", line, "sh", *command, "--threads", "1", "--engine", cluster.engine],
        env=base.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2
    assert done.stderr.strip().startswith("bench: --engine ray: node ")
    assert "does not see" in done.stderr and "every node shares" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def asking() -> Iterator[str]:
    """A cluster of another process, which asks for a token."""
    text = (
        "import sys\nfrom benchmarks.campaigns.cluster import Cluster\n"
        "with Cluster(1) as one:\n    print(one.engine, flush=True)\n    sys.stdin.read()"
    )
    known = base.environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="1" * 64)
    process = subprocess.Popen(
        [sys.executable, "-c", text], env=known, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    yield next(line.strip() for line in process.stdout if line.startswith("ray://"))
    process.communicate("", timeout=120)


@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token_is_worked_with_by_who_has_it(asking: str, suite: Path, tmp_path: Path) -> None:
    """Without it, or with another, there is one line; nobody sets RAY_AUTH_MODE."""
    arguments = ("run", str(suite), "--results", str(tmp_path / "out"), "--threads", "1", "--only", "sft-optimum-*")
    for token in ("", "2" * 64):
        code, said = base.call(*arguments, "--engine", asking, HOME=str(tmp_path), RAY_AUTH_TOKEN=token)
        assert code == 2 and "asks for a token, and the one here is missing or another" in said, said
        assert "Traceback" not in said
    code, said = base.call(*arguments, "--engine", asking, HOME=str(tmp_path), RAY_AUTH_TOKEN="1" * 64)
    assert code == 0, said


@pytest.mark.slow
def test_a_signal_keeps_a_checkpoint_on_the_node(cluster: Cluster, suite: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of training: 130, the line, a checkpoint; and the same command, here and local, goes on from it."""
    from benchmarks.campaigns import signals

    text = (
        suite.read_text().replace("steps: 120", "steps: 800").replace("checkpoint_every: 2", "checkpoint_every: 100000")
    )
    long = tmp_path / "long.yaml"
    long.write_text(text)
    arguments = ("run", str(long), "--results", str(tmp_path / "out"), "--threads", "1", "--only", "sft-optimum-*")
    token = tmp_path / "home" / ".ray" / "auth_token"  # of other clusters: this one asks for none
    token.parent.mkdir(parents=True)
    token.write_text("0" * 64)
    process = base.start(*arguments, "--engine", cluster.engine, HOME=str(tmp_path / "home"))
    training = signals.in_training(tmp_path / "out", process)
    os.kill(process.pid, signals.signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130 and "checkpoints are kept" in said and "Traceback" not in said
    assert list((training / "checkpoints").glob("step-*.pt"))
    code, said = base.call(*arguments)
    assert code == 0, said
    assert len(json.loads((training / "spec.json").read_text())["environments"]) == 2
