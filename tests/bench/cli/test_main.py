"""The commands as a user meets them: exit codes, last lines, interruption, a worker that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SUITE = """\
name: tiny
model: {source: random}
lora: {rank: 2, alpha: 4, targets: [q_proj, v_proj]}
data:
  preference: {source: world, rows: 8, evaluation_rows: 2}
  instruction: {source: world, rows: 8, evaluation_rows: 2}
training: {steps: 6, batch_size: {dpo: 2, sft: 2}, learning_rate: 1.0e-2, evaluate_every: 3, checkpoint_every: 1}
methods: [sequential, mix]
lambdas: [0.5]
"""

HANGING = 600  # seconds after which a test says that something hangs
STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """End what a failed test left running."""
    yield
    for process in STARTED:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    STARTED.clear()


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    """Start a command in a process group of its own that hears signals, even where the tests run in the background."""
    command = [sys.executable, "-m", "bench.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "COLUMNS": "200"}
    environment.pop("BENCH_MIRROR", None)
    pipe = subprocess.PIPE
    STARTED.append(
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
            preexec_fn=_hear_signals,
        )
    )
    return STARTED[-1]


def _hear_signals() -> None:
    """Undo what a shell does to what it runs in the background, and nohup to what shall outlive a terminal."""
    for name in ("SIGINT", "SIGHUP", "SIGTERM", "SIGUSR1"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def bench(*arguments: str, folder: Path) -> tuple[int, str, str]:
    """Run a command to its end: exit code, stdout, stderr."""
    process = start(*arguments, folder=folder)
    out, err = process.communicate(timeout=HANGING)
    return process.returncode, out, err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(SUITE)
    return tmp_path


def test_help_names_every_command_and_imports_nothing_heavy(folder: Path) -> None:
    code, out, _ = bench("--help", folder=folder)
    assert code == 0
    for command in ("run", "plan", "validate", "status", "report", "export", "init"):
        assert f" {command} " in out
    check = "import sys, bench.cli; assert not {'torch', 'pandas', 'transformers', 'rich.live'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_run_status_and_report_work_on_one_folder(folder: Path) -> None:
    """Reference (= SFT optimum), its log-probabilities, DPO optimum, two runs: five jobs; then none to do."""
    code, out, err = bench("run", "tiny.yaml", folder=folder)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "results/tiny: 5 made, 0 already complete. Next: bench report results"
    code, out, _ = bench("run", "tiny.yaml", "--json", folder=folder)
    assert code == 0
    assert json.loads(out)["made"] == []
    assert len(json.loads(out)["skipped"]) == 5
    assert bench("status", "results", folder=folder)[1].splitlines() == [
        "results/tiny: 5 jobs: 5 complete",
        "  complete: 4 train, 1 reference_logps",
    ]
    code, out, err = bench("report", "results", folder=folder)
    assert (code, err) == (0, "")
    assert out == "report: results/index.html\n"
    assert (folder / "results/tiny/report.html").exists()
    # Without the weights, a job that needs them runs their job again; one that needs none leaves it be.
    for adapter in (folder / "results/tiny/jobs").glob("*/adapter"):
        adapter.rename(adapter.with_name("gone"))
    assert json.loads(bench("run", "tiny.yaml", "--json", folder=folder)[1])["made"] == []
    (next((folder / "results/tiny/jobs").glob("reference-logps-*")) / "status.json").unlink()
    made = json.loads(bench("run", "tiny.yaml", "--json", folder=folder)[1])["made"]
    assert [job.rsplit("-", 1)[0] for job in made] == ["sft-optimum-s0", "reference-logps"]


def test_only_runs_what_matches_and_what_it_needs(folder: Path) -> None:
    code, out, _ = bench("run", "tiny.yaml", "--only", "dpo-optimum-*", "--json", folder=folder)
    assert code == 0
    assert [job.rsplit("-", 1)[0] for job in json.loads(out)["made"]] == [
        "sft-optimum-s0",
        "reference-logps",
        "dpo-optimum-s0",
    ]
    code, _, err = bench("run", "tiny.yaml", "--only", "nothing*", folder=folder)
    assert (code, err) == (2, "bench: --only nothing*: matches no job; 'bench plan' lists them\n")


def test_ctrl_c_keeps_the_checkpoint_and_the_same_command_goes_on(folder: Path) -> None:
    process = start("run", "tiny.yaml", "--set", "training.steps=4000", folder=folder)
    steps = _wait_for_steps(folder, 20)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group gets it
    _, err = process.communicate(timeout=HANGING)
    assert process.returncode == 130
    assert err == "bench: interrupted; checkpoints are kept in results/tiny, the same command goes on\n"
    job = steps.parent
    assert json.loads((job / "status.json").read_text())["outcome"] == "stopped"
    checkpoints = list((job / "checkpoints").glob("*.pt"))
    assert checkpoints
    kept = int(max(checkpoints).stem.removeprefix("step-"))
    assert kept >= 20
    process = start("run", "tiny.yaml", "--set", "training.steps=4000", folder=folder)
    _wait_for_steps(folder, kept + 5)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=HANGING)
    numbers = [json.loads(line)["step"] for line in steps.read_text().splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_killed_worker_fails_its_job_and_the_run_goes_on(folder: Path) -> None:
    """The SFT optimum's worker is killed, and nothing tried again: its job is failed, what needs it is not run, exit code 1."""
    process = start("run", "tiny.yaml", "--set", "training.steps=4000", "--set", "retries=0", folder=folder)
    steps = _wait_for_steps(folder, 5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]
    os.kill(workers[0], signal.SIGKILL)
    out, _ = process.communicate(timeout=HANGING)
    assert process.returncode == 1
    status = json.loads((steps.parent / "status.json").read_text())
    assert status["error"] == "WorkerDied"
    assert "signal 9" in status["message"]
    assert out.splitlines()[-1].startswith("results/tiny: 0 made, 0 already complete, 1 FAILED (sft-optimum-s0-")
    assert "4 not run because a job they need failed" in out.splitlines()[-1]
    code, out, _ = bench("status", "results", folder=folder)
    assert code == 0
    assert "5 jobs: 1 failed, 4 blocked" in out
    assert "and 3 more: needs sft-optimum-s0-" in out


def test_a_killed_workers_job_is_tried_again_from_its_checkpoint(folder: Path) -> None:
    """The SFT optimum's worker is killed: a fresh one goes on with its job, and the attempt is on record."""
    settings = (
        "reference.policy=base",
        "training.steps=200",
        "training.checkpoint_every=50",
        "training.evaluate_every=100",
    )
    process = start("run", "tiny.yaml", *(one for setting in settings for one in ("--set", setting)), folder=folder)
    _wait_for_steps(folder, 5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (worker,) = [int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]
    os.kill(worker, signal.SIGKILL)
    out, _ = process.communicate(timeout=HANGING)
    assert process.returncode == 0
    assert out.splitlines()[-1].startswith("results/tiny: 5 made, 0 already complete, 1 tried again. Next: ")
    assert "signal 9 (often: out of memory); its checkpoint, if any, is kept: it is tried again" in out
    statuses = {path.parent.name.split("-l0")[0]: json.loads(path.read_text()) for path in _statuses(folder)}
    assert {one["outcome"] for one in statuses.values()} == {"complete"}
    attempts = {name.rsplit("-", 1)[0]: one["attempts"] for name, one in statuses.items() if "attempts" in one}
    assert [one["error"] for one in attempts.pop("sft-optimum-s0")] == ["WorkerDied"]
    assert attempts == {}


def _statuses(folder: Path) -> list[Path]:
    return list((folder / "results/tiny/jobs").glob("*/status.json"))


def test_two_runs_in_one_folder_are_refused(folder: Path) -> None:
    from filelock import FileLock

    (folder / "results/tiny").mkdir(parents=True)
    with FileLock(folder / "results/tiny/.lock"):
        code, _, err = bench("run", "tiny.yaml", folder=folder)
    assert code == 2
    assert err.startswith("bench: results/tiny: another bench run is at work in this folder")


def test_bad_input_is_one_line_and_exit_code_2(folder: Path) -> None:
    text = SUITE.replace("learning_rate", "learning_rat")
    (folder / "typo.yaml").write_text(text)
    code, out, err = bench("run", "typo.yaml", folder=folder)
    assert (code, out) == (2, "")
    assert err.startswith("bench: typo.yaml:7: unknown key 'learning_rat'; did you mean 'learning_rate'?")
    assert err.count("\n") == 1
    assert bench("report", "nowhere", folder=folder)[0] == 2
    assert bench("run", "tiny.yaml", "--mirror", "nowhere", folder=folder)[0] == 2


def test_a_file_where_a_folder_is_wanted_is_one_line(folder: Path) -> None:
    code, _, err = bench("run", "tiny.yaml", "--results", "tiny.yaml", folder=folder)
    assert (code, err) == (2, "bench: tiny.yaml/tiny: Not a directory; give another file or folder\n")


def test_export_takes_a_run_away_and_refuses_in_one_line(folder: Path) -> None:
    assert bench("run", "tiny.yaml", "--only", "dpo-optimum-*", folder=folder)[0] == 0
    code, out, err = bench("export", "dpo-optimum", "model", "--merge", folder=folder)
    assert (code, err) == (0, "")
    assert out.startswith("model: merged model of dpo-optimum-s0-")
    assert (folder / "model" / "README.md").exists()
    code, out, err = bench("export", "dpo-optimum", "model", folder=folder)
    assert (code, out) == (2, "")
    assert err == "bench: model: is not empty; give a new folder, or --force to write over an earlier export\n"


def test_a_job_that_fails_leaves_its_traceback_in_its_log(folder: Path) -> None:
    """The rule judge knows the built-in world only: the data error is the job's message, not a traceback on the screen."""
    row = json.dumps({"prompt": "a ", "chosen": "b", "rejected": "c", "instruction": "a", "output": "b"})
    (folder / "rows.jsonl").write_text(f"{row}\n" * 10)
    data = "{source: local, path: rows.jsonl, rows: 8, evaluation_rows: 2, test_split: null}"
    judged = "evaluation={win_rate: {prompts: 2, generation: {max_new_tokens: 2}, judge: {kind: rule}}}"
    changes = [f"data.preference={data}", f"data.instruction={data}", judged]
    arguments = [part for change in changes for part in ("--set", change)]
    code, out, err = bench("run", "tiny.yaml", "--only", "judged-base", *arguments, folder=folder)
    assert code == 1
    assert "Traceback" not in out + err
    (log,) = (folder / "results/tiny/jobs").glob("judged-base-*/log.txt")
    assert "Traceback" in log.read_text()
    assert "DataError" in log.read_text()


def test_more_rows_than_there_are_are_refused_before_anything_is_trained(folder: Path) -> None:
    code, out, err = bench("run", "tiny.yaml", "--set", "data.preference.rows=100000000", folder=folder)
    assert (code, out) == (2, "")
    assert "train preference rows; 100000000 are wanted; lower rows\n" in err
    assert not (folder / "results").exists()


def test_plan_says_what_is_shared_and_complete(folder: Path) -> None:
    """Two optima of 6, Sequential's own 3, Mix 6: 21 steps, of which sharing saved 6 (reference) and 3 (phase 1)."""
    code, out, _ = bench("plan", "tiny.yaml", folder=folder)
    assert code == 0
    assert "optimizer steps: 21 (21 to do); without sharing 30: 9 saved" in out
    made = json.loads(bench("plan", "tiny.yaml", "--json", folder=folder)[1])
    assert made["optimizer_steps_saved"] == 9
    assert (made["forecast"]["wall_seconds"], made["forecast"]["jobs_taken_over"]) == (None, 0)
    assert "time: not known: no such job of kind train" in out
    assert {job["state"] for job in made["jobs"]} == {"pending"}


def test_plan_refuses_a_folder_to_compare_with_that_is_not_there(folder: Path) -> None:
    code, out, err = bench("plan", "tiny.yaml", "--like", "nowhere", folder=folder)
    assert (code, out) == (2, "")
    assert err == "bench: --like nowhere: no such folder; give a results folder with records of this machine\n"


def test_validate_says_what_a_suite_holds(folder: Path) -> None:
    code, out, _ = bench("validate", "tiny.yaml", folder=folder)
    assert (code, out) == (0, "tiny: valid; sequential, mix; 1 λ; seeds [0]; 6 steps a run\n")


def test_validate_reads_the_rows_that_are_on_this_machine(folder: Path) -> None:
    """Five pairs are there; eight to train on and two held out are asked for. A model that only the hub has is a doubt."""
    rows = "".join(json.dumps({"prompt": f"a {n}", "chosen": f"b {n}", "rejected": "c"}) + "\n" for n in range(5))
    (folder / "pairs.jsonl").write_text(rows, encoding="utf-8")
    local = [
        "--set",
        "data.preference={source: local, path: pairs.jsonl, rows: 8, evaluation_rows: 2, test_split: null}",
        "--set",
        "data.instruction={source: chosen, rows: 2, evaluation_rows: 1}",
    ]
    code, _, err = bench("validate", "tiny.yaml", *local, folder=folder)
    assert (code, err) == (2, "bench: pairs.jsonl: 8 rows wanted, but split 'train' has 5; lower rows\n")
    few = [*local, "--set", "data.preference.rows=2"]
    code, out, err = bench("validate", "tiny.yaml", *few, folder=folder)
    assert (code, out.split("; ")[-1]) == (0, "rows read: pairs.jsonl\n"), err
    hub = ["--set", "model={source: hub, path: nobody/has-it}"]
    code, out, err = bench("validate", "tiny.yaml", *few, *hub, folder=folder)
    assert code == 0 and "bench: warning: the rows were not read: model.path = 'nobody/has-it'" in err
    assert "rows read" not in out
    (folder / "pairs.jsonl").unlink()
    assert bench("validate", "tiny.yaml", *few, folder=folder)[0] == 2


def test_one_target_needs_no_brackets(folder: Path) -> None:
    """As in a file; what else is a list says so."""
    assert bench("validate", "tiny.yaml", "--set", "lora.targets=all-linear", folder=folder)[0] == 0
    code, _, err = bench("validate", "tiny.yaml", "--set", "lambdas=0.5", folder=folder)
    assert (code, err) == (2, "bench: --set lambdas=0.5: lambdas = 0.5: must be a list, such as [0.5]\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_what_a_scheduler_sends_to_the_whole_group_keeps_a_checkpoint(folder: Path, name: str) -> None:
    process = start("run", "tiny.yaml", "--set", "training.steps=4000", folder=folder)
    steps = _wait_for_steps(folder, 10)
    os.killpg(process.pid, getattr(signal, name))
    _, err = process.communicate(timeout=HANGING)
    assert process.returncode == 130
    assert err == f"bench: interrupted by {name}; checkpoints are kept in results/tiny, the same command goes on\n"
    assert json.loads((steps.parent / "status.json").read_text())["outcome"] == "stopped"
    assert list((steps.parent / "checkpoints").glob("*.pt"))
    last = json.loads((folder / "results/tiny/last_run.json").read_text())
    assert (last["exit_code"], last["signal"], last["failed"]) == (130, name, {})


def test_a_screen_that_is_gone_ends_nothing(folder: Path) -> None:
    process = start("run", "tiny.yaml", folder=folder)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(HANGING) == 0
    assert bench("status", "results", folder=folder)[1].splitlines() == [
        "results/tiny: 5 jobs: 5 complete",
        "  complete: 4 train, 1 reference_logps",
    ]


def test_damage_is_told_of_made_again_and_verified(folder: Path) -> None:
    """Of an adapter, which only what reads it would notice, and of a record; a file of a killed writer goes."""
    assert bench("run", "tiny.yaml", folder=folder)[0] == 0
    jobs = folder / "results/tiny/jobs"
    (mix,), (optimum,) = jobs.glob("mix-*"), jobs.glob("dpo-optimum-*")
    (mix / "adapter/adapter_model.safetensors").write_bytes(
        (optimum / "adapter/adapter_model.safetensors").read_bytes()
    )
    (optimum / "scores.json").write_text("{}")
    (optimum / ".status.json.g6q_toip").write_text("half")
    code, out, _ = bench("status", "--verify", "results", folder=folder)
    assert code == 1
    assert "results/tiny: 5 jobs: 2 broken, 3 complete" in out.replace("3 complete, 2 broken", "2 broken, 3 complete")
    assert f"  broken: {mix.name}: adapter/adapter_model.safetensors is not as it was written" in out
    code, out, _ = bench("plan", "tiny.yaml", folder=folder)
    assert (code, out.count("  damaged ")) == (0, 2)
    code, out, err = bench("run", "tiny.yaml", folder=folder)
    assert (code, err) == (0, "")
    assert f"{optimum.name}: found damaged: scores.json is not as it was written" in out
    told, last = out.splitlines()[-2:]
    assert told.startswith("Found damaged, and made up for: ") and mix.name in told and optimum.name in told
    assert last == "results/tiny: 2 made, 3 already complete. Next: bench report results"
    assert not (optimum / ".status.json.g6q_toip").exists()
    code, out, _ = bench("status", "--verify", "results", folder=folder)
    assert code == 0
    assert "verified: 5 complete jobs are as they were written, by their sha256" in out


def test_another_number_of_threads_is_refused_and_of_workers_is_not(folder: Path) -> None:
    only = ("run", "tiny.yaml", "--only", "sft-optimum-*")
    assert bench(*only, "--threads", "1", folder=folder)[0] == 0
    code, _, err = bench(*only, "--threads", "2", folder=folder)
    assert code == 2
    assert err.startswith("bench: --threads = 2: results/tiny was made with 1 thread a job, and with another number")
    assert bench(*only, "--workers", "2", folder=folder)[0] == 0
    assert json.loads((folder / "results/tiny/suite.json").read_text())["threads"] == 1


def test_any_encoding_of_the_screen_will_do(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "bench.cli", "plan", "tiny.yaml"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u03bb" in done.stdout


def _wait_for_steps(folder: Path, count: int) -> Path:
    """Wait until the SFT optimum has written so many steps."""
    given_up = time.monotonic() + HANGING
    while time.monotonic() < given_up and STARTED[-1].poll() is None:
        for steps in (folder / "results/tiny/jobs").glob("sft-optimum-*/steps.jsonl"):
            if steps.read_text().count("\n") >= count:
                return steps
        time.sleep(0.01)
    raise AssertionError("the run did not get that far")
