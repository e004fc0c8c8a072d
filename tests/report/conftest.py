"""Write small suites of records whose figures can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.records.record import append_jsonl, write_json

CHROMIUM = Path("/usr/bin/chromium")
METHODS = ("sequential", "mix", "alright", "maxright")
# Distance to the ideal point at λ = 0.5 in the middle seed; the gaps are 3/5 and 4/5 of it.
DISTANCE = {"sequential": 0.5, "mix": 0.15, "alright": 0.1, "maxright": 0.05}
SECONDS = {"sequential": 10.0, "mix": 15.0, "alright": 10.2, "maxright": 11.0}
AT_LAMBDA = {0.25: 2.0, 0.5: 1.0, 0.75: 3.0}
START = {"dpo": 0.7, "sft": 3.0}
STEPS = 100


def optimum(objective: str, seed: int) -> float:
    """f*: 0.2 + 0.01 seed for DPO, 1.0 + 0.02 seed for SFT."""
    return {"dpo": 0.2 + 0.01 * seed, "sft": 1.0 + 0.02 * seed}[objective]


def distance(method: str, lambda_dpo: float, seed: int) -> float:
    """The ideal distance that the records are made to give: 10 % less in seed 0 and more in seed 2 than in seed 1."""
    return DISTANCE.get(method, 0.2) * AT_LAMBDA.get(lambda_dpo, 1.5) * (1 + 0.1 * (seed - 1))


def steps_of(labels: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a step log: Sequential in its phases, Mix on both, MAXRIGHT by turns with two probes, ALRIGHT 2 of 3 on SFT."""
    phases = labels["phase_steps"] or {"sft": STEPS // 2, "dpo": STEPS - STEPS // 2}
    rows: list[dict[str, Any]] = []
    for step in range(1, STEPS + 1):
        weights = {
            "sequential": {"sft" if step <= phases["sft"] else "dpo": 1.0},
            "mix": {"dpo": labels["lambda_dpo"], "sft": 1 - (labels["lambda_dpo"] or 0.0)},
            "maxright": {"dpo" if step % 2 else "sft": 1.0},
        }.get(labels["base_method"], {"sft" if step % 3 else "dpo": 1.0})
        rows.append({"step": step, "phase": 0, "weights": weights, "losses": {}, "seconds": 0.1, "tokens": 10})
        if labels["base_method"] == "maxright" and step in (1, 50):
            # f*_DPO on training rows is 0.15 in seed 0, f*_SFT 0.95: one of these four gaps is negative.
            rows[-1]["probes"] = {"dpo": 0.7 if step == 1 else 0.1, "sft": 3.0}
    return rows


def questions(right: int) -> list[dict[str, Any]]:
    """Return twenty questions of two subjects by turns, the first `right` of them answered right."""
    return [
        {"subject": ("logic", "physics")[place % 2], "id": place // 2, "correct": int(place < right)}
        for place in range(20)
    ]


class Writer:
    """Write one suite's folder by the records contract."""

    def __init__(self, root: Path, name: str, **suite: Any) -> None:
        self.folder, self.name, self.jobs = root / name, name, list[str]()
        self.smoke = bool(suite.pop("smoke", False))
        self.suite = {
            "name": name,
            "description": "A made-up suite.",
            "notes": [],
            "data": {"evaluation_split": "held_out"},
            "objectives": {"beta": 0.1, "reduction": "token_mean"},
            "methods": [{"name": method, "label": None} for method in METHODS],
            "lambdas": sorted(AT_LAMBDA),
            "phases": None,
            "seeds": [0],
        } | suite

    def job(self, job_id: str, kind: str, labels: dict[str, Any], **parts: Any) -> Path:
        """Write a job's spec and status; `outcome` None leaves it without a status."""
        outcome = parts.pop("outcome", "complete")
        folder = self.folder / "jobs" / job_id
        self.jobs.append(job_id)
        spec = {
            "schema": 1,
            "id": job_id,
            "kind": kind,
            "suite": self.name,
            "smoke": self.smoke,
            "roles": [],
            "labels": labels,
        }
        spec |= {
            "settings": {"kind": kind, "learning_rate": 1e-3},
            "inputs": {},
            "prefix": None,
            "data": {"preference": "sha256:aa"},
        }
        hardware = {"cpu": "a processor", "cores": 2, "memory_bytes": 1, "gpus": []}
        environment = {"packages": {"torch": "2"}, "python": "3.11", "commit": "abc", "hardware": hardware}
        spec |= {
            "semantics": 1,
            "environment": environment | {"workers": 1, "threads": 2, "device": "cpu", "started": "2026-01-01"},
        }
        write_json(folder / "spec.json", spec | parts)
        if outcome:
            message = (
                {} if outcome == "complete" else {"error": "JobError", "message": "the loss is not finite at step 7"}
            )
            write_json(
                folder / "status.json",
                {"schema": 1, "outcome": outcome, "seconds": 1.0, "finished": "2026-01-01"} | message,
            )
        return folder

    def train(
        self,
        job_id: str,
        roles: Sequence[str],
        labels: dict[str, Any],
        final: dict[str, float],
        seconds: float,
        **parts: Any,
    ) -> None:
        """Write a training job that moves in a straight line; Sequential gets a corner at the phase change."""
        base = {"options": {}, "order": "sft_dpo", "phase_steps": None, "base_method": labels["method"]}
        labels = base | labels
        folder = self.job(job_id, "train", labels, roles=list(roles), **parts)
        corner = (labels["phase_steps"] or {}).get("sft", STEPS // 2)
        middle = {name: (START[name] + final[name]) / 2 for name in final}
        if labels["method"] == "sequential" and "run" in roles:
            # SFT first: at the change f_SFT is 0.3 below where it ends, DPO where it began.
            middle = {"dpo": START["dpo"], "sft": final["sft"] - 0.3}
        rows = []
        for step, values in ((0, START), (corner, middle), (STEPS, final)):
            row: dict[str, Any] = {
                "step": step,
                "phase": int(step > corner),
                "training_seconds": seconds * step / STEPS,
                "tokens": step * 10,
            }
            rows.append(row | {f"f_{name}/held_out": value for name, value in values.items()})
        append_jsonl(folder / "trajectory.jsonl", rows)
        append_jsonl(folder / "steps.jsonl", steps_of(labels))
        scores = {
            f"f_{name}/held_out": {"value": value, "n": 64, "standard_error": 0.01} for name, value in final.items()
        }
        scores |= {
            f"f_{name}/train": {"value": value - 0.05, "n": 64, "standard_error": 0.01} for name, value in final.items()
        }
        write_json(folder / "scores.json", scores)
        no_gpu = {"value": None, "unit": "%", "reason": "no GPU in this machine"}
        write_json(
            folder / "measurements.json",
            {
                "training_seconds": {"value": seconds, "unit": "s"},
                "probe_seconds": {"value": seconds / 10, "unit": "s"},
                "tokens": {"value": 1000, "unit": "tokens"},
                "probe_tokens": {"value": 0, "unit": "tokens"},
                "peak_memory_bytes": {"value": 512 * 2**20, "unit": "B"},
                "gpu_utilization_percent": no_gpu,
                "gpu_memory_used_bytes": no_gpu | {"unit": "B"},
                "cpu_utilization_percent": {"value": 150.0, "unit": "%"},
                "energy_joules": {"value": None, "unit": "J", "reason": "no energy counter"},
            },
        )

    def evaluate(self, of: str, accuracy: float, win_rate: float, judge: str = "rule", answer: str = "fine.") -> None:
        """Write the question, answer and judge jobs of a policy."""
        folder = self.job(f"questions-{of}", "lm_eval", {"of": of})
        append_jsonl(folder / "samples.jsonl", questions(round(20 * accuracy)))
        write_json(
            folder / "scores.json",
            {
                "mmlu/acc": {"value": accuracy, "n": 400, "standard_error": 0.02},
                "mmlu/acc/logic": {"value": 1.0, "n": 4, "standard_error": 0.0},
            },
        )
        folder = self.job(f"answers-{of}", "generate", {"of": of})
        said = ({"id": place, "answer": f"{answer} ({of}, {place})", "tokens": 3, "ended": True} for place in range(6))
        append_jsonl(folder / "samples.jsonl", said)
        inputs = {"answers": f"answers-{of}"}
        folder = self.job(f"judged-{of}", "judge", {"of": of, "judge": judge}, inputs=inputs)
        preferences = ({"id": place, "preference": (place + len(of)) % 3 / 2} for place in range(6))
        append_jsonl(folder / "samples.jsonl", preferences)
        write_json(
            folder / "scores.json",
            {f"win_rate/{judge}": {"value": win_rate, "n": 50, "standard_error": 5.0, "unjudged": 0}},
        )

    def behind(self, seeds: Sequence[int]) -> None:
        """Write the optima, the reference (seed 0's SFT optimum), its log-probabilities and the base's evaluations."""
        for seed in seeds:
            for name, other in (("sft", "dpo"), ("dpo", "sft")):
                final = {name: optimum(name, seed), other: START[other] + 0.1}
                roles = [f"optimum_{name}", *(["reference"] if (name, seed) == ("sft", 0) else [])]
                labels = {
                    "method": "sequential",
                    "lambda_dpo": None,
                    "seed": seed,
                    "phase_steps": {name: STEPS, other: 0},
                }
                self.train(f"{name}-optimum-s{seed}", roles, labels, final, 8.0)
        folder = self.job(
            "reference-logps", "reference_logps", {"of": "sft-optimum-s0"}, inputs={"policy": "sft-optimum-s0"}
        )
        write_json(folder / "reference_logps.json", {})
        self.evaluate("base", 0.5, 40.0)
        self.evaluate("sft-optimum-s0", 0.52, 45.0)

    def run(self, method: str, lambda_dpo: float, seed: int, **parts: Any) -> str:
        """Write one run and its evaluations; return its id."""
        job_id = f"{method}-l{lambda_dpo:g}-s{seed}"
        far = distance(method, lambda_dpo, seed)
        final = {"dpo": optimum("dpo", seed) + 0.6 * far, "sft": optimum("sft", seed) + 0.8 * far}
        phase_steps = {"dpo": round(lambda_dpo * STEPS), "sft": STEPS - round(lambda_dpo * STEPS)}
        labels = {"method": method, "lambda_dpo": lambda_dpo, "seed": seed, "phase_steps": phase_steps}
        inputs = {"reference_logps": "reference-logps"}
        if method == "maxright":
            inputs |= {f"optimum_{name}": f"{name}-optimum-s{seed}" for name in ("dpo", "sft")}
        self.train(
            job_id, ["run"], labels, final, SECONDS.get(method, 12.0) * (1 + 0.01 * seed), inputs=inputs, **parts
        )
        if parts.get("outcome", "complete") == "complete":
            place = METHODS.index(method) if method in METHODS else 0
            self.evaluate(job_id, 0.5 + 0.02 * place + 0.001 * seed, 50.0 + 5 * place + seed)
        return job_id

    def finish(self, missing: Sequence[str] = ()) -> Path:
        """Write suite.json, which may plan jobs that have no folder; return the suite's folder."""
        produced = {"version": "0.1", "commit": "abc", "time": "2026-01-01T00:00:00Z"}
        info = {
            "schema": 1,
            "name": self.name,
            "smoke": self.smoke,
            "suite": self.suite,
            "jobs": [*self.jobs, *missing],
            "produced": produced,
        }
        write_json(self.folder / "suite.json", info)
        return self.folder


@pytest.fixture
def writer(tmp_path: Path) -> Callable[..., Writer]:
    """Make writers of suites below the test's folder `results`."""
    return lambda name="made", **suite: Writer(tmp_path / "results", name, **suite)


def fill(
    writer: Writer,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (0, 1, 2),
    lambdas: Sequence[float] = tuple(AT_LAMBDA),
) -> Path:
    """Write a whole suite; return its folder."""
    writer.suite["seeds"], writer.suite["lambdas"] = list(seeds), sorted(lambdas)
    writer.behind(seeds)
    for method in methods:
        for lambda_dpo in sorted(lambdas):
            for seed in seeds:
                writer.run(method, lambda_dpo, seed)
    return writer.finish()


@pytest.fixture(scope="session")
def new_writer() -> type[Writer]:
    """Hand `Writer` to tests, which cannot import this file."""
    return Writer


@pytest.fixture(scope="session")
def fill_suite() -> Callable[..., Path]:
    """Hand `fill` to tests, which cannot import this file."""
    return fill


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write four methods × three λ × three seeds; return the suite's folder, which tests only read."""
    return fill(Writer(tmp_path_factory.mktemp("full"), "made"))


@pytest.fixture(scope="session")
def built(full: Path) -> Path:
    """Build the full suite's report; return its folder."""
    from report.build import build

    build(full.parent)
    return full


WIDE = ("sequential", "mix", "alright", "maxright", "mix-added", "alright-warm", "maxright-seldom", "sequential-turned")
FIVE_LAMBDAS = (0.01, 0.25, 0.5, 0.75, 0.99)


def _wide(root: Path, seeds: Sequence[int]) -> Path:
    """Write and report eight methods × five λ."""
    from report.build import build

    writer = Writer(root, "wide", phases=[[1, 5], [2, 4], [3, 3], [4, 2], [5, 1]])
    writer.suite["methods"] = [{"name": method, "label": None} for method in WIDE]
    folder = fill(writer, WIDE, seeds, FIVE_LAMBDAS)
    build(folder)
    return folder


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the report of eight methods × five λ × three seeds; return its folder."""
    return _wide(tmp_path_factory.mktemp("wide"), range(3))


@pytest.fixture(scope="session")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the report of 1,000 runs, eight methods × five λ × 25 seeds; return its folder."""
    return _wide(tmp_path_factory.mktemp("thousand"), range(25))


@pytest.fixture(scope="session")
def half_failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the report of a suite of which every other run failed; return its folder."""
    from report.build import build

    writer = Writer(tmp_path_factory.mktemp("half"), "half", seeds=[0, 1, 2])
    writer.behind((0, 1, 2))
    for place, method in enumerate(METHODS):
        for lambda_dpo in sorted(AT_LAMBDA):
            for seed in (0, 1, 2):
                writer.run(method, lambda_dpo, seed, outcome=("complete", "failed")[(place + seed) % 2])
    folder = writer.finish()
    build(folder)
    return folder


@pytest.fixture(scope="session")
def one_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the report of a suite of one seed; return its folder."""
    from report.build import build

    folder = fill(Writer(tmp_path_factory.mktemp("one"), "one"), seeds=(0,))
    build(folder)
    return folder


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the report of the committed quickstart suite; return its folder."""
    from report.build import build

    out = tmp_path_factory.mktemp("quickstart")
    build(Path(__file__).parents[2] / "results" / "quickstart.bench", out)
    return out / "quickstart"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Open a browser for all tests of pages; it waits long, as a busy machine draws slowly."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"], timeout=300_000)
        yield launched
        launched.close()
