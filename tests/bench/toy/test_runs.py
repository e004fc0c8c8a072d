"""The toy problems: objectives and gradients in closed form, the paper's figures, and the shared methods that drive them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.methods import METHODS, Choice, Objective, Setup, choices
from bench.plan import planner
from bench.records import record
from bench.records.softmax_pair import SoftmaxPair
from bench.suite import yaml_file
from bench.suite.toy import Problem
from bench.toy import runs

DPO, SFT = Objective.DPO, Objective.SFT
PLACES = ((5.0, -9.9), (0.3, -0.2), (-4.0, 7.5), (60.0, -800.0))


def problem(**changes: Any) -> Problem:
    """Return Table 3's problem with a given θ_ref."""
    features = {"chosen": (1.0, 1.0), "rejected": (0.5, 0.5), "target": (1.0, 0.5), "other": (0.5, 0.5)}
    settings: dict[str, Any] = {"features": features, "start": (5.0, -9.9), "reference": {"parameters": (8.0, -6.7)}}
    return Problem.model_validate(settings | changes)


def pair(**changes: Any) -> SoftmaxPair:
    made = problem(**changes)
    return SoftmaxPair(dict(made.features), made.beta, runs.reference(made, 0.01, 0.001))


def family() -> SoftmaxPair:
    """Return Appendix A.2's one-parameter pair (Table 2, θ_ref = −10)."""
    features = {"chosen": (-1.0,), "rejected": (-0.5,), "target": (1.0,), "other": (0.5,)}
    return pair(features=features, start=(0.0,), reference={"parameters": (-10.0,)})


def run(name: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """Run the jobs of a shipped suite's method, the name before the colon, at one T; return scores and paths by shown name."""
    suite, _, method = name.partition(":")
    made: dict[str, dict[str, Any]] = {}
    for job in planner.make(yaml_file.load(suite)).jobs.values():
        if job.labels.base_method == method and job.labels.steps == changes.get("steps", job.labels.steps):
            settings = job.settings | {"seeds": changes.get("seeds", job.settings["seeds"])}
            folder = changes["folder"] / job.id
            folder.mkdir()
            runs.work(settings, folder)
            read = record.Job(folder, {"id": job.id})
            made[job.labels.method] = {
                "scores": {key: value["value"] for key, value in read.scores.items()},
                "taken": {key: value["value"] for key, value in read.measurements.items()},
                "path": read.rows("trajectory"),
                "samples": read.rows("samples"),
                "theta_ref": record.read_json(folder / "problem.json")["theta_ref"],
            }
    return made


# ---- objectives and gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", PLACES)
@pytest.mark.parametrize("beta", [0.1, 1.0, 2.5])
def test_gradients_are_finite_differences(theta: tuple[float, float], beta: float) -> None:
    """(f(θ + e) − f(θ − e)) / 2e for each parameter, e = 1e-6: exact to 1e-8 where f is of size 1 (and smooth)."""
    made = pair(beta=beta)
    for objective in Objective:
        _, gradient = made.value_and_gradient(objective, theta)
        for place in range(2):
            ends = []
            for sign in (1, -1):
                moved = list(theta)
                moved[place] += sign * 1e-6
                ends.append(made.value(objective, moved))
            assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=2e-6, rel=1e-6)


@pytest.mark.parametrize("theta", PLACES[:3])
def test_gradients_are_equations_23_and_27(theta: tuple[float, float]) -> None:
    """Eq. 23 with h of Eq. 22 and Eq. 27 with φ̄ of Eq. 26, written out from the features and not from their differences."""
    made, settings = pair(beta=0.7), problem()
    phi, ref = settings.features, (8.0, -6.7)
    difference = [a - b for a, b in zip(phi.chosen, phi.rejected, strict=True)]
    h = 0.7 * sum((a - b) * d for a, b, d in zip(theta, ref, difference, strict=True))
    expected = [-0.7 * (1 - 1 / (1 + math.exp(-h))) * d for d in difference]
    assert made.value_and_gradient(DPO, theta)[1] == pytest.approx(expected, rel=1e-12)
    weights = [math.exp(sum(a * b for a, b in zip(theta, one, strict=True))) for one in (phi.target, phi.other)]
    mean = [(weights[0] * a + weights[1] * b) / sum(weights) for a, b in zip(phi.target, phi.other, strict=True)]
    expected = [-(a - b) for a, b in zip(phi.target, mean, strict=True)]
    assert made.value_and_gradient(SFT, theta)[1] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("theta", PLACES[:3])
def test_f_dpo_is_the_language_models_f_dpo(theta: tuple[float, float]) -> None:
    """The same Eq. 1 from log-probabilities, as `record.dpo_losses` computes it for language models."""

    def logps(parameters: tuple[float, float]) -> dict[str, list[float]]:
        phi = problem().features
        scores = [sum(a * b for a, b in zip(parameters, one, strict=True)) for one in (phi.chosen, phi.rejected)]
        total = math.log(sum(math.exp(score) for score in scores))
        return {"chosen": [scores[0] - total], "rejected": [scores[1] - total]}

    (expected,) = record.dpo_losses(logps(theta), logps((8.0, -6.7)), 1.0)
    assert pair().value(DPO, theta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("theta", [-30.0, -10.0, -5.0, 0.0, 3.0, 20.0])
def test_the_family_is_equations_35_to_38(theta: float) -> None:
    """With c = (1 + e^5) / (1 + e^−5): Eq. 35 and 36, and Eq. 37 and 38 with the factor ½."""
    made = family()
    c = (1 + math.exp(5)) / (1 + math.exp(-5))
    value, (gradient,) = made.value_and_gradient(DPO, (theta,))
    assert value == pytest.approx(math.log(1 + c * (1 + math.exp(theta / 2)) / (1 + math.exp(-theta / 2))), rel=1e-9)
    assert gradient == pytest.approx(0.5 / (1 + math.exp(-(theta / 2 + 5))), rel=1e-12)
    value, (gradient,) = made.value_and_gradient(SFT, (theta,))
    assert value == pytest.approx(math.log(1 + math.exp(-theta / 2)), rel=1e-9)
    assert gradient == pytest.approx(-0.5 / (1 + math.exp(theta / 2)), rel=1e-12)


def test_the_best_mixture_of_the_family() -> None:
    """By symmetry at θ = −5, where both margins are −2.5: log(1 + e^2.5) = ½ log c*, c* = 173.778; Eq. 39 at 0: 0.2710."""
    made = family()
    least, at = made.mixture_minimum(0.5, (0.0,))
    assert at == pytest.approx((-5.0,), abs=1e-9)
    assert least == pytest.approx(math.log1p(math.exp(2.5)), rel=1e-14)
    assert math.exp(2 * least) == pytest.approx(173.778, abs=5e-4)
    assert made.mixture(0.5, (0.0,)) - least == pytest.approx(0.2710, abs=5e-5)


def test_the_best_mixture_leans_with_lambda() -> None:
    """λ σ(m) = (1 − λ) σ(m') at the optimum: the derivative there is 0 from both sides."""
    made = family()
    _, at = made.mixture_minimum(0.8, (0.0,))
    assert at is not None
    parts = [made.value_and_gradient(objective, at)[1][0] for objective in (DPO, SFT)]
    assert 0.8 * parts[0] + 0.2 * parts[1] == pytest.approx(0.0, abs=1e-15)
    assert at[0] < -5.0


def test_without_opposition_no_parameters_are_best() -> None:
    """Table 3: (½, ½)·(½, 0) = ¼ > 0, so both objectives fall for ever; at λ = 0 or 1 one of them does."""
    assert pair().inner_product == 0.25
    assert pair().mixture_minimum(0.5, (5.0, -9.9)) == (0.0, None)
    assert family().mixture_minimum(1.0, (0.0,)) == (0.0, None)


# ---- the loop --------------------------------------------------------------------------------------------------------


class Told:
    """Be a method that follows a script and remembers what it is told."""

    def __init__(self, choices: list[Choice]) -> None:
        self.choices, self.losses, self.probed = choices, list[Any](), list[float]()

    def choose(self, step: int, probe: Any) -> Choice:
        self.probed.append(probe(DPO))
        return self.choices[step - 1]

    def observe(self, losses: Any) -> None:
        self.losses.append(dict(losses))


def settings(steps: int, **changes: Any) -> dict[str, Any]:
    made = {"problem": problem().model_dump(), "method": "alright", "options": {}, "lambda_dpo": 0.5, "steps": steps}
    made |= {"phases": [["dpo", 0], ["sft", steps]], "threshold": None}
    return made | {"learning_rate": 0.5, "weight_decay": 0.1} | changes


def test_a_step_is_gradient_descent_with_weight_decay() -> None:
    """θ ← θ − ½ (¼ g_DPO + ¾ g_SFT + 0.1 θ), from the values before the step, which the method observes."""
    made, start = pair(), (5.0, -9.9)
    method = Told([Choice({DPO: 0.25, SFT: 0.75})])
    ended = runs.descend(made, method, settings(1), points=10)  # type: ignore[arg-type]
    found = {objective: made.value_and_gradient(objective, start) for objective in Objective}
    expected = [
        theta - 0.5 * (0.25 * d + 0.75 * s + 0.1 * theta)
        for theta, d, s in zip(start, found[DPO][1], found[SFT][1], strict=True)
    ]
    assert ended.theta == pytest.approx(expected, rel=1e-14)
    assert method.losses == [{DPO: found[DPO][0], SFT: found[SFT][0]}]
    assert method.probed == [found[DPO][0]]
    assert ended.taken == {DPO: 1, SFT: 1}
    assert [row["step"] for row in ended.path] == [0, 1]
    assert ended.path[0]["theta"] == list(start)


def test_a_threshold_ends_a_phase_and_not_the_run() -> None:
    """f_DPO is below 100 at once: no DPO step is taken; f_SFT = 0.0789 is above 0.07 until SFT has brought it down."""
    phases = [Choice({DPO: 1.0}, phase=0)] * 3 + [Choice({SFT: 1.0}, phase=1)] * 40
    in_phases: dict[str, Any] = {"method": "sequential", "phases": [["dpo", 3], ["sft", 40]], "weight_decay": 0.0}
    never = runs.descend(pair(), Told(phases), settings(43, threshold=100.0, **in_phases), points=50)  # type: ignore[arg-type]
    assert never.taken == {DPO: 0, SFT: 0}
    in_phases["phases"] = [["dpo", 0], ["sft", 40]]
    some = runs.descend(pair(), Told(phases[3:]), settings(40, threshold=0.07, **in_phases), points=50)  # type: ignore[arg-type]
    values = [row["f_sft"] for row in some.path]
    assert 0 < some.taken[SFT] < 40
    assert values[-1] <= 0.07 < values[-2]


def test_the_methods_are_the_shared_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With every method's choice turned to SFT in `bench.methods`, the toy's runs turn too, against what phases declare."""
    seen = []
    monkeypatch.setattr(choices, "check", lambda *_: None)
    for name, kind in METHODS.items():
        monkeypatch.setattr(
            kind, "choose", lambda self, step, probe, name=name: seen.append(name) or Choice({SFT: 1.0})
        )
    for name in ("sequential", "mix", "alright", "maxright"):
        results = run(f"toy:{name}", folder=tmp_path)
        assert all(one["taken"]["steps/dpo"] == 0 for one in results.values())
    assert set(seen) == {"sequential", "mix", "alright", "maxright"}


def test_maxright_gets_the_suites_optima() -> None:
    """Gaps ½ (f − f*) at the start: with f*_DPO above f_DPO's own value the choice goes to SFT."""
    for optimum, chosen in (((0.0, 0.0), DPO), ((50.0, 0.0), SFT)):
        setup = Setup(0.5, 1, 0, {DPO: 1, SFT: 1}, (DPO, SFT), dict(zip((DPO, SFT), optimum, strict=True)))
        kind = METHODS["maxright"]
        ended = runs.descend(pair(), kind(setup, kind.Options()), settings(1, method="maxright"), points=0)
        assert ended.taken[chosen] == 1


# ---- the published problems ------------------------------------------------------------------------------------------


def test_figure_2(tmp_path: Path) -> None:
    """Appendix D.1's settings, recomputed: θ_ref = (8.053, −6.699) and where each method ends, T = 20,000."""
    sequential = run("toy:sequential", folder=tmp_path)
    assert sequential["sequential"]["theta_ref"] == pytest.approx([8.053, -6.699], abs=5e-4)
    expected = {
        "sequential": (0.050, 0.0047),
        "sequential, no threshold": (0.036, 0.006),
        "alright": (0.030, 0.005),
        "maxright": (0.016, 0.0043),
    }
    found = sequential | run("toy:alright", folder=tmp_path) | run("toy:maxright", folder=tmp_path)
    for name, (dpo, sft) in expected.items():
        assert found[name]["scores"]["f_dpo"] == pytest.approx(dpo, abs=5e-4)
        assert found[name]["scores"]["f_sft"] == pytest.approx(sft, abs=5e-4)
    # The DPO phase stops at the threshold; SFT's objective is below it by then, so that its phase takes no step.
    assert found["sequential"]["taken"]["steps/dpo"] < 10_000
    assert found["sequential"]["taken"]["steps/sft"] == 0


def test_opposed_gradients_make_sequential_forget(tmp_path: Path) -> None:
    """(½, ½)·(¼, −¾) = −¼: the SFT phase raises f_DPO at each of its steps; the joint methods end nearer to (0, 0)."""
    found = run("toy_conflict:sequential", folder=tmp_path)
    for one in found.values():
        second = [row["f_dpo"] for row in one["path"] if row["phase"] == 1]
        assert second == sorted(second)
        assert second[-1] > 5 * second[0]
    joint = run("toy_conflict:maxright", folder=tmp_path) | run("toy_conflict:mix", folder=tmp_path)
    nearest = min(math.hypot(*one["scores"].values()) for one in found.values())
    assert max(math.hypot(*one["scores"].values()) for one in joint.values()) < nearest / 3


def gaps(found: dict[str, Any]) -> float:
    """Return the mean of ½ f_DPO + ½ f_SFT less its least value, log(1 + e^2.5)."""
    return sum(found["scores"].values()) / 2 - math.log1p(math.exp(2.5))


@pytest.mark.parametrize(("steps", "expected"), [(100, 0.17), (1000, 0.41), (10_000, 1.29)])
def test_theorem_3_1(steps: int, expected: float, tmp_path: Path) -> None:
    """With α = 1/√T, T steps an objective: Sequential's gap grows with T while MAXRIGHT's vanishes."""
    found = run("theorem_3_1:sequential", steps=steps, folder=tmp_path)["sequential"]
    assert found["taken"]["steps/dpo"] == found["taken"]["steps/sft"] == steps
    assert gaps(found) == pytest.approx(expected, abs=5e-3)
    assert abs(gaps(run("theorem_3_1:maxright", steps=steps, folder=tmp_path)["maxright"])) < 1e-3


def test_theorem_4_1(tmp_path: Path) -> None:
    """ALRIGHT's mean gap over 200 seeds is about 0.060 at T = 10³ and lies under 0.959, the corrected bound there.

    The bound: θ* = −5, Φ = 1, M² = 4: 25 / (2 √1000) + (2 + log 999) · 4 / (2 √1000) = 0.3953 + 0.5633.
    """
    found = run("theorem_3_1:alright", steps=1000, folder=tmp_path)["alright"]
    assert len(found["samples"]) == 200
    assert len({row["theta"][0] for row in found["samples"]}) > 100
    assert gaps(found) == pytest.approx(0.060, abs=0.005)


# ---- as jobs ---------------------------------------------------------------------------------------------------------


def test_a_toy_runs_from_the_command_line_without_torch(tmp_path: Path) -> None:
    """`run --smoke` of a shipped suite: all jobs complete, the report is there, and no process imports torch."""
    refuse = tmp_path / "refuse" / "torch"
    refuse.mkdir(parents=True)
    (refuse / "__init__.py").write_text("raise ImportError('torch is not needed here')")
    root = str(Path(__file__).parents[3])
    environment = {"PYTHONPATH": f"{refuse.parent}:{root}", "PATH": "/usr/bin:/bin", "MPLBACKEND": "agg"}
    results = str(tmp_path / "results")
    for arguments in (["run", "toy", "--smoke", "--results", results, "--json"], ["report", results]):
        command = [sys.executable, "-m", "bench.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        if arguments[0] == "run":
            made = json.loads(done.stdout)
            assert (len(made["made"]), made["failed"]) == (5, {})
    page = (tmp_path / "results" / "toy--smoke" / "report.html").read_text(encoding="utf-8")
    assert "measures nothing" in page


def test_the_same_job_gives_the_same_numbers(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    one = run("theorem_3_1:alright", steps=100, seeds=3, folder=first)
    assert one == {
        name: {**again, "taken": one[name]["taken"]}
        for name, again in run("theorem_3_1:alright", steps=100, seeds=3, folder=second).items()
    }


def test_what_decides_numbers_decides_the_id() -> None:
    """The order of the phases and each number changes every id; a label, the notes and the name change none."""

    def ids(*overrides: str) -> set[str]:
        return set(planner.make(yaml_file.load("toy", overrides)).jobs)

    known = ids()
    assert ids("name=other", "notes=[]", "description=x") == known
    for override in ("order=sft_dpo", "problem.beta=0.5", "training.weight_decay=0", "problem.features.target.0=0.9"):
        assert not ids(override) & known
    assert len(ids("methods.0.threshold=0.01") & known) == len(known) - 1
