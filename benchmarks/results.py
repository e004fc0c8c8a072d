"""Write what was measured: results.json for machines, RESULTS.md for people; each replaced in one piece."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.records.safe_files import write_text

SCHEMA = 1
_ABOUT = """\
Each ratio is the other side's seconds over ours, pair by pair: both sides take turns on the same rows, in the same dtype and with
the same number of threads, each in a process of its own. The median decides whether a goal holds; least and most stand beside it.
Every measurement is in [results.json](results.json).
"""


def load(path: Path) -> dict[str, Any]:
    """Read results.json; an empty one where there is none, or one of another schema."""
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["schema"] == SCHEMA:
            return found
    return {"schema": SCHEMA, "groups": {}}


def save(folder: Path, results: Mapping[str, Any]) -> None:
    """Write both files."""
    write_text(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "RESULTS.md", markdown(results))


def markdown(results: Mapping[str, Any]) -> str:
    """Write the results as Markdown that renders on GitHub."""
    groups = results["groups"]
    lines = ["# Results", "", *_summary(groups), "", _ABOUT]
    for name, group in groups.items():
        lines += [f"## {name}", "", f"{group['title']} {_where(group)}", ""]
        if group["rows"]:
            lines += [
                "| work | against | median (least to most), n | sides, median | goal | holds |",
                "|---|---|---|---|---|---|",
            ]
            lines += [_line(row) for row in group["rows"]]
            lines.append("")
        lines += [f"- {note}" for note in dict.fromkeys(note for row in group["rows"] for note in row["notes"])]
        lines += [f"- **Not measured:** {row['work']}: {row['failed']}" for row in group["rows"] if "failed" in row]
        if group["failed"]:
            lines += [f"- **Failed:** {group['failed']}"]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _summary(groups: Mapping[str, Any]) -> list[str]:
    rows = [row for group in groups.values() for row in group["rows"] if row["holds"] is not None]
    missed = [f"{row['work']} ({_median(row)})" for row in rows if not row["holds"]]
    failed = [name for name, group in groups.items() if group["failed"]]
    lines = [f"**{len(rows) - len(missed)} of {len(rows)} goals hold.**"]
    if missed:
        lines.append(f"Missed: {'; '.join(missed)}.")
    if failed:
        lines.append(f"Not (wholly) measured: {', '.join(failed)}.")
    return lines


def _median(row: Mapping[str, Any]) -> str:
    return value_text(row["spread"]["median"], row["unit"]) if row["spread"] else "not measured"


def _where(group: Mapping[str, Any]) -> str:
    """Say when, how and on what a group was measured."""
    machine, packages = group["machine"], group["packages"]
    gpus = f", {', '.join(machine['gpus'])}" if machine["gpus"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    data = "real rows of the mirror" if group["real_data"] else "generated rows: no mirror was there"
    return (
        f"Measured by `{group['command']}` on {group['finished']} in {group['seconds']:.0f} s, {data}; commit "
        f"{(group['commit'] or 'unknown')[:12]}; {machine['cpu']}, {machine['cores']} cores, {group['threads']} threads a side, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB{gpus}; Python {group['python']}, {versions}."
    )


def _line(row: Mapping[str, Any]) -> str:
    found, unit = row["spread"], row["unit"]
    shown = _median(row)
    if found is None:
        pass
    elif found["n"] > 1:
        shown += f" ({value_text(found['minimum'], unit)} to {value_text(found['maximum'], unit)}), {found['n']}"
    else:
        shown += ", 1"
    wanted = _goal(row["goal"], unit)
    holds = {True: "yes", False: "**no**", None: ""}[row["holds"]]
    cells = [row["work"], row["against"], shown, _sides(row["sides"]), wanted, holds]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _goal(goal: Mapping[str, Any] | None, unit: str) -> str:
    if goal is None:
        return ""
    if "text" in goal:
        return str(goal["text"])
    return f"{'≥' if goal['at'] == 'least' else '≤'} {value_text(goal['bound'], unit)}"


def value_text(value: float, unit: str) -> str:
    """Write a figure in its unit; "%" is of a share."""
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit in _COUNTED:
        return f"{value:.0f} {unit}"
    digits = 2 if unit in ("×", "s", "GiB") else 3
    return f"{value:.{digits}f}{'' if unit in ('', '×') else ' '}{unit}"


_COUNTED = ("replies", "stops")
_SCALES = {"_flops_per_second": (1e-9, "GFLOP/s"), "_seconds": (1.0, "s"), "_bytes": (2.0**-20, "MiB")}


def _sides(sides: Mapping[str, Iterable[float]]) -> str:
    """Write the median of each side; its unit is the end of its name."""
    parts = []
    for name, values in sides.items():
        ordered = sorted(values)
        middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        ending = next((one for one in _SCALES if name.endswith(one)), "")
        scale, unit = _SCALES.get(ending, (1.0, ""))
        parts.append(f"{name.removesuffix(ending).replace('_', ' ')} {middle * scale:.3g} {unit}".strip())
    return ", ".join(parts)
