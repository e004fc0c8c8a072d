"""The campaign of damaged suites: what it draws, what it calls legal, and that it tells a fault."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.campaigns import mutations as suite_mutations
from benchmarks.campaigns import suites
from benchmarks.campaigns.mutations import KINDS, ROOT, Mutation, illegal, mutations

QUICKSTART = (ROOT / "suites" / "quickstart.yaml").read_bytes()


def test_mutations_are_the_same_each_time_and_of_every_kind() -> None:
    first = mutations(100)
    assert first == mutations(100)
    assert first != mutations(100, seed=1)
    assert {kind: sum(one.kind == kind for one in first) for kind in KINDS} == dict.fromkeys(KINDS, 20)


def test_every_key_of_a_suite_is_given_every_wrong_value() -> None:
    made = list(suite_mutations.values("quickstart", QUICKSTART))
    places = [at for at, _ in suite_mutations.walk(yaml.safe_load(QUICKSTART))]
    assert len(made) == len(places) * len(suite_mutations.WRONG)
    assert ("lora", "rank") in places


@pytest.mark.parametrize("path", sorted((ROOT / "suites").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_suites_are_legal_by_the_reference(path: Path) -> None:
    assert illegal(Mutation("values", "", path.read_bytes())) is None


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("lora.rank=true", "lora.rank = True: the reference says: whole number > 0"),
        ("lora.rank=8.0", "lora.rank = 8.0: the reference says: whole number > 0"),
        ("seeds=[true]", "seeds = [True]: the reference says: list of whole number ≥ 0"),
        ("seeds=[9223372036854775808]", "seeds = [9223372036854775808]: the reference says: list of whole number ≥ 0"),
        ("seeds=[4294967296]", "seeds = [4294967296]: a seed of more than 32 bits"),
        ("training.learning_rate=.inf", "training.learning_rate = inf: the reference says: number > 0"),
        ("training.group_by_length=1", "training.group_by_length = 1: the reference says: `true` or `false`"),
        ("model.source=moon", "model.source = 'moon': the reference says: "),
        ("lambdas=[0.5, 0.5]", "lambdas = [0.5, 0.5]: a value twice"),
        ("lambdas=[]", "lambdas = []: an empty list"),
        ("data.preference.path=' '", "data.preference.path = ' ': blank"),
        ("smoke=true", "smoke = True: the reference has no such key"),
    ],
)
def test_what_the_reference_forbids_is_told(override: str, problem: str) -> None:
    found = illegal(Mutation("--set", "", QUICKSTART, (override,)))
    assert found is not None
    assert found.startswith(problem)


def test_a_key_twice_is_illegal() -> None:
    assert "a key twice" in str(illegal(Mutation("keys", "", QUICKSTART + b"name: again\n")))


WRONG = Mutation("values", "", QUICKSTART, ("lora.rank=true",))


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        ((2, "bench: x.yaml:3: lora.rank = True: must be a valid integer\n"), None),
        ((0, ""), "validate: accepted, but lora.rank = True"),
        ((70, "bench: internal error: KeyError\n"), "validate: exit code 70, 1 lines"),
        ((2, "bench: x.yaml:3: a\nb\n"), "validate: exit code 2, 2 lines"),
        ((2, ""), "validate: exit code 2, 0 lines"),
        ((2, "bench: x.yaml: cannot be read\n"), "validate: no line number"),
        ((suites.HUNG, ""), "validate: more than 20 s"),
    ],
)
def test_how_a_command_ends_is_judged(outcome: suites.Outcome, told: str | None) -> None:
    found = suites.fault("validate", outcome, WRONG)
    assert found is None if told is None else str(found).startswith(told)


def test_a_worker_runs_commands_and_outlives_one_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(QUICKSTART)
    with suites.Worker() as worker:
        assert worker.run(["validate", str(path)]) == (0, "")
        code, line = worker.run(["validate", str(path), "--set", "lora.rank=true"])
        assert (code, line) == (2, "bench: --set lora.rank=true: lora.rank = True: must be a valid integer\n")
        monkeypatch.setattr(suites, "SECONDS", 0.0)
        assert worker.run(["validate", str(path)])[0] == suites.HUNG
        monkeypatch.setattr(suites, "SECONDS", 60.0)
        assert worker.run(["validate", str(path)]) == (0, "")
