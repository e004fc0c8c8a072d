"""A comparison as JUnit XML: one case a compared figure, failures in a sentence, what cannot be told skipped."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli.main import app
from bench.errors import InputError
from bench.records.record import read_json, write_json
from report.analysis.gate import Gate
from report.compare import compare, junit
from report.compare.compare import Comparison


@pytest.fixture
def candidate(full: Path, tmp_path: Path) -> Path:
    """Copy the full suite with 5 points less of MMLU in every run of MAXRIGHT."""
    folder = tmp_path / "candidate" / "made"
    shutil.copytree(full, folder, ignore=shutil.ignore_patterns("report*", "figures"))
    for path in folder.glob("jobs/questions-maxright-*/scores.json"):
        scores = read_json(path)
        scores["mmlu/acc"]["value"] -= 0.05
        write_json(path, scores)
    return folder


def compared(base: Path, other: Path, **gate: object) -> Comparison:
    return compare.compare(base, other, Gate.model_validate(gate))


def test_a_case_a_figure(full: Path, candidate: Path) -> None:
    """A case for each row and one for the verdict; the numbers of failures and skipped cases are those of the cases."""
    made = compared(full, candidate)
    root = ET.fromstring(junit.as_xml(made))
    suite = root[0]
    cases = list(suite.iter("testcase"))
    assert len(cases) == len(made.suites[0].rows) + 1 == int(root.attrib["tests"]) == int(suite.attrib["tests"])
    failed = [one for one in cases if one.find("failure") is not None]
    assert len(failed) == len(made.suites[0].regressions) == int(root.attrib["failures"]) > 0
    first = next(one for one in failed if one.attrib["classname"].endswith(".method.maxright"))
    assert first.attrib["name"] == "mmlu/acc"
    told = first.find("failure").attrib["message"]  # type: ignore[union-attr]
    assert told.startswith("mmlu/acc of maxright: ✗ worse; 56.1 % → 51.1 %, difference −5.00 points")
    assert told.endswith("; tolerance 0.01 share.")


def test_what_cannot_be_told_is_skipped(full: Path, candidate: Path) -> None:
    """A gate that asks for four seeds, of three: every gating figure that differs is skipped, and so is the verdict."""
    made = compared(full, candidate, seeds=4)
    root = ET.fromstring(junit.as_xml(made))
    skipped = [one for one in root.iter("testcase") if one.find("skipped") is not None]
    few = [one for one in made.suites[0].rows if one.gates and one.verdict == compare.FEW]
    assert len(skipped) == len(few) + 1 == int(root.attrib["skipped"]) > 1
    assert root.attrib["failures"] == "0"
    assert "(3 and 3 seeds)" in skipped[0].find("skipped").attrib["message"]  # type: ignore[union-attr]
    verdict = skipped[-1]
    assert verdict.attrib["name"] == "verdict"
    assert verdict.find("skipped").attrib["message"].startswith("Inconclusive: mmlu/acc: not enough data")  # type: ignore[union-attr]


def test_what_does_not_gate_passes(full: Path, candidate: Path) -> None:
    made = compared(full, candidate, metrics={"mmlu/acc": {"gate": False}})
    root = ET.fromstring(junit.as_xml(made))
    assert (root.attrib["failures"], root.attrib["skipped"]) == ("0", "0")
    shown = [one.text for one in root.iter("system-out") if one.text and "✗ worse" in one.text]
    assert shown and all(one.endswith("; shown, does not gate.") for one in shown)


def test_the_command_writes_it(full: Path, candidate: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "junit.xml"
    result = CliRunner().invoke(app, ["compare", str(candidate), "--baseline", str(full), "--junit", str(out)])
    assert result.exit_code == 1
    assert ET.parse(out).getroot().attrib["name"] == "bench compare"


def test_a_place_that_cannot_be_written_is_bad_input(full: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--junit .*: cannot be written"):
        junit.write(compared(full, full), tmp_path)


@pytest.mark.parametrize(
    ("sides", "told"),
    [
        (["a"], "1 side given; give BASE and CANDIDATE, or CANDIDATE and --baseline BASE"),
        (["a", "b", "--baseline", "c"], "2 sides given; give CANDIDATE alone beside --baseline"),
    ],
)
def test_two_sides_are_asked_for(sides: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["compare", *sides])
    assert isinstance(result.exception, InputError) and told in str(result.exception)
