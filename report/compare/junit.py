"""Tell a comparison as JUnit XML, which continuous integration shows: one case a compared figure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from bench.errors import InputError, one_line
from report.compare import compare as comparing
from report.compare import view
from report.compare.compare import Compared, Comparison, Row


def as_xml(made: Comparison) -> str:
    """Return the comparison as a document.

    A gating figure that got worse is a failure, with the sentence that says so; a gating one of which nothing can be said is
    skipped, with the reason; what does not gate passes. A last case a suite, its verdict, is skipped where the suite as a
    whole is inconclusive.
    """
    root = ET.Element("testsuites", name="bench compare")
    for suite in made.suites:
        _suite(root, suite)
    _count(root, list(root))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def write(made: Comparison, file: Path) -> None:
    """Write the document.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(as_xml(made), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--junit {file}: cannot be written: {error}") from None


def _suite(root: ET.Element, suite: Compared) -> None:
    made = ET.SubElement(root, "testsuite", name=one_line(suite.name))
    for row in suite.rows:
        case = _case(made, f"{suite.name}.{row.level}.{row.name}", row.metric)
        if row.gates and row.verdict == comparing.WORSE:
            ET.SubElement(case, "failure", type="regression", message=sentence(row)).text = sentence(row)
        elif row.gates and row.verdict in (comparing.FEW, comparing.REFUSED):
            ET.SubElement(case, "skipped", message=sentence(row))
        else:
            ET.SubElement(case, "system-out").text = sentence(row)
    verdict = _case(made, suite.name, "verdict")
    if suite.inconclusive and not suite.regressions:
        ET.SubElement(verdict, "skipped", message=one_line("Inconclusive: " + "; ".join(suite.inconclusive)))
    _count(made, [made])


def _case(suite: ET.Element, group: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=one_line(group), name=one_line(name), time="0")


def _count(element: ET.Element, suites: list[ET.Element]) -> None:
    """Set how many cases there are and what became of them."""
    for name, tag in (("tests", "testcase"), ("failures", "failure"), ("skipped", "skipped")):
        element.set(name, str(sum(len(list(suite.iter(tag))) for suite in suites)))
    element.set("errors", "0")
    element.set("time", "0")


def sentence(row: Row) -> str:
    """Say in one sentence what became of a figure."""
    base, candidate, difference = view.figures(row)
    told = f"{row.metric} of {row.name}: {view.verdict(row)}"
    if row.contrast is not None:
        shows_not = "" if row.gates else "; shown, does not gate"
        allowed = f"; tolerance {row.tolerance:.3g} {row.described.unit}".rstrip() if row.worse_is else ""
        told += f"; {base} → {candidate}, difference {difference}{allowed}{shows_not}"
    return one_line(f"{told}.")
