"""Several suites in one call, as a user meets them: what they share, one last line each, the worst exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bench.cli.main import app
from bench.records import record
from bench.suite import yaml_file


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two small toy suites: both have `mix`, each has one method more."""
    monkeypatch.chdir(tmp_path)
    toy = yaml.safe_load(Path(yaml_file.find("toy")).read_text(encoding="utf-8"))
    made = {}
    for name, methods in (("one", ["mix", "alright"]), ("two", ["mix", "maxright"])):
        made[name] = toy | {
            "name": name,
            "methods": methods,
            "training": toy["training"] | {"horizons": [{"steps": 20, "seeds": 1}]},
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(made[name]))
    return made


def bench(*arguments: str) -> tuple[int, list[str], list[str]]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout.splitlines(), result.stderr.splitlines()


@pytest.mark.usefixtures("suites")
def test_several_suites_share_equal_jobs_and_end_with_a_line_each() -> None:
    """`mix` is the same job in both: made once; a later call, and one of another suite, finds it too."""
    code, out, _ = bench("run", "one.yaml", "two.yaml")
    assert code == 0
    assert out[-2:] == [
        "results/one: 2 made, 0 already complete. Next: bench report results",
        "results/two: 1 made, 0 already complete, 1 taken over from one. Next: bench report results",
    ]
    kept = record.read_json(Path("results/two/last_run.json"))
    assert list(kept["taken_over"].values()) == ["one"]
    code, out, _ = bench("run", "one.yaml", "two.yaml", "--json")
    found = json.loads("\n".join(out))
    assert [(one["folder"], one["made"], len(one["skipped"])) for one in found] == [
        ("results/one", [], 2),
        ("results/two", [], 2),
    ]


def test_separate_calls_share_too(suites: dict[str, Any]) -> None:
    assert bench("run", "one.yaml")[0] == 0
    code, out, _ = bench("run", "two.yaml", "--json")
    found = json.loads("\n".join(out))
    assert (code, len(found["made"]), list(found["taken_over"].values()), found["skipped"]) == (0, 1, ["one"], [])
    assert suites


def test_what_is_wrong_with_any_suite_is_said_before_the_first_one_begins(suites: dict[str, Any]) -> None:
    Path("bad.yaml").write_text(yaml.safe_dump(suites["two"] | {"name": "bad", "methods": ["mixx"]}))
    with pytest.raises(Exception, match=r"bad.yaml:.*mixx"):
        bench("run", "one.yaml", "bad.yaml")
    assert not Path("results").exists()
    Path("again.yaml").write_text(yaml.safe_dump(suites["two"] | {"name": "one"}))
    with pytest.raises(Exception, match=r"again.yaml: its name is one, as that of one.yaml, .* give each suite once"):
        bench("run", "one.yaml", "again.yaml")
    assert not Path("results").exists()


@pytest.mark.usefixtures("suites")
def test_only_may_match_in_some_suites_alone() -> None:
    code, out, _ = bench("run", "one.yaml", "two.yaml", "--only", "maxright-*")
    assert (code, out[-1]) == (0, "results/two: 1 made, 0 already complete. Next: bench report results")
    assert not Path("results/one").exists()
    with pytest.raises(Exception, match="--only nothing: matches no job"):
        bench("run", "one.yaml", "two.yaml", "--only", "nothing")


@pytest.mark.usefixtures("suites")
def test_a_suite_that_ends_badly_stops_no_other_and_the_worst_code_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one's folder is taken away while it runs: bad input (2); the second one is made (0)."""
    from bench.errors import InputError
    from bench.run import execute

    run = execute.Execution.run

    def fails_first(self: execute.Execution, selected: set[str]) -> execute.Summary:
        if self.plan.suite.name == "one":
            raise InputError("the disk was taken out")
        return run(self, selected)

    monkeypatch.setattr(execute.Execution, "run", fails_first)
    code, out, _ = bench("run", "one.yaml", "two.yaml")
    assert code == 2
    assert out[-2:] == [
        "results/one: the disk was taken out",
        "results/two: 2 made, 0 already complete. Next: bench report results",
    ]


@pytest.mark.usefixtures("suites")
def test_ctrl_c_ends_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.errors import Interrupted
    from bench.run import execute

    def stopped(self: execute.Execution, selected: set[str]) -> execute.Summary:
        raise Interrupted("interrupted; the same command goes on")

    monkeypatch.setattr(execute.Execution, "run", stopped)
    result = CliRunner().invoke(app, ["run", "one.yaml", "two.yaml"])
    assert isinstance(result.exception, Interrupted)
    assert result.stdout.splitlines()[-1] == "results/two: not begun"
    assert not list(Path("results/two/jobs").iterdir())
    assert len(record.read_json(Path("results/two/suite.json"))["jobs"]) == 2  # what is to come is known all the same
