"""Damage every file of a record in every way: a report must mark the job, and a run make it again as it was.

python -m benchmarks --only damage
"""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.plan import planner
from bench.plan.plan import Plan
from bench.records import record
from bench.records.suite_record import find_suites
from bench.run import execute, handlers, standing
from bench.run.context import WorkerContext
from benchmarks.campaigns import base
from benchmarks.rows import Context, Row
from report import build
from report.analysis.load import Results

_SEED = 20261127
# Files that say nothing of a result, or of which the job is as good without.
_NO_RECORD = ("log.txt",)


def rows(context: Context) -> Iterator[Row]:
    """Try every case on a copy of a complete record; a sample of them by the commands themselves."""
    folder = context.folder("damage")
    pristine = folder / "pristine"
    if not (pristine / "small" / "last_run.json").exists():
        code, said = base.call("run", str(base.write_suite(folder)), "--results", str(pristine))
        assert code == 0, said[-500:]
    warnings.simplefilter("ignore")  # other libraries', as in a worker
    plan = planner.make(base.load_suite(folder))
    cases = list(_cases(pristine / "small"))
    draw = random.Random(_SEED)
    if context.quick:
        cases = draw.sample(cases, 40)
    expected = base.contents(pristine / "small")
    marked, healed = base.Count(), base.Count()
    for number, (name, way) in enumerate(cases):
        if number % 50 == 0:
            context.say(f"{number} of {len(cases)}")
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(pristine, copy)
        WAYS[way](copy / "small" / "jobs" / name, random.Random(f"{name} {way}"))
        marked.add(f"{name}, {way}", _is_marked(copy / "small", name))
        healed.add(f"{name}, {way}", _heals(plan, copy / "small", expected))
    yield marked.row("damaged files that reports and status tell of")
    yield healed.row("damaged files whose jobs a run makes again as they were")
    yield _by_command(context, pristine, cases, draw).row(
        "damaged folders, several files at once, by `bench run` and `report`"
    )


def _cases(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (file, way), for a job of each kind, and of training one of each role."""
    seen = set()
    for path in sorted((folder / "jobs").iterdir()):
        job = record.read_job(path)
        kind = (job.kind, *job.spec["roles"], job.labels.get("base_method"))
        if kind in seen:
            continue
        seen.add(kind)
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.name not in _NO_RECORD:
                yield from ((file.relative_to(folder / "jobs").as_posix(), way) for way in WAYS)


# ---- ways to damage a file ---------------------------------------------------------------------------------------------


def _cut(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(1, max(2, len(content)))])


def _a_line_less(path: Path, draw: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[draw.randrange(len(lines))]
    path.write_bytes(b"".join(lines))


def _empty(path: Path, draw: random.Random) -> None:
    del draw
    path.write_bytes(b"")


def _foreign_bytes(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for place in draw.sample(range(len(content)), min(8, len(content))):
        content[place] = draw.randrange(256)
    path.write_bytes(bytes(content))


def _one_digit(path: Path, draw: random.Random) -> None:
    """Change one digit, so that the file still reads."""
    content = bytearray(path.read_bytes())
    places = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
    if places:
        place = draw.choice(places)
        content[place] = 48 + (content[place] - 48 + draw.randrange(1, 10)) % 10
    else:
        content += b"1"
    path.write_bytes(bytes(content))


def _foreign_content(path: Path, draw: random.Random) -> None:
    """Put the same file of another job in its place; where no other job has one, that of no job."""
    parts = path.parts[path.parts.index("jobs") + 2 :]
    jobs = path.parents[len(parts)]
    others = sorted(jobs.glob(f"*/{'/'.join(parts)}"))
    others = [one for one in others if one != path and one.read_bytes() != path.read_bytes()]
    path.write_bytes(draw.choice(others).read_bytes() if others else b"{}\n")


def _missing(path: Path, draw: random.Random) -> None:
    del draw
    path.unlink()


def _json(text: str) -> Callable[[Path, random.Random], None]:
    def write(path: Path, draw: random.Random) -> None:
        del draw
        path.write_text(text, encoding="utf-8")

    return write


WAYS: dict[str, Callable[[Path, random.Random], None]] = {
    "cut": _cut,
    "a line less": _a_line_less,
    "empty": _empty,
    "foreign bytes": _foreign_bytes,
    "one digit": _one_digit,
    "foreign content": _foreign_content,
    "missing": _missing,
    "{}": _json("{}\n"),
    "[]": _json("[]\n"),
    "null": _json("null\n"),
}


# ---- what must come of it ----------------------------------------------------------------------------------------------


def _is_marked(folder: Path, name: str) -> str:
    """See that the job is told of, or that what is damaged is no part of its record."""
    job, _, file = name.partition("/")
    (suite,) = find_suites(folder)
    problems = {one.job: one.state for one in Results(suite).problems}
    if file.startswith("checkpoints/"):
        return "" if problems == {} else f"a checkpoint is no record, and still {problems}"
    if file.startswith(("adapter/", "model/")):
        return ""  # a report reads no weights
    return "" if job in problems else "no report would tell"


def _heals(plan: Plan, folder: Path, expected: dict[str, object]) -> str:
    """Do what a run does with a folder, in this process; compare what is there then with what was."""
    states = standing.look(plan, folder).states
    pending = standing.to_do(plan, folder, set(plan.jobs), states)
    context = WorkerContext(plan.suite, folder, None, "cpu", {"workers": 1}, lambda message: None, lambda: False)
    execute.write_suite(plan, folder)
    for job in plan.jobs.values():
        if job.id in pending:
            status = handlers.run(job, context)
            if status["outcome"] != record.COMPLETE:
                return f"{job.id}: {status['message']}"
    left = {one: state for one, state in standing.look(plan, folder).states.items() if state != record.COMPLETE}
    return f"left {left}" if left else base.difference(base.contents(folder), expected)


def _by_command(context: Context, pristine: Path, cases: list[tuple[str, str]], draw: random.Random) -> base.Count:
    """Damage several files at once, report, run, and report again, by the commands."""
    count, folder = base.Count(), context.folder("damage")
    suite = base.write_suite(folder)
    expected = base.contents(pristine / "small")
    for batch in range(2 if context.quick else 12):
        results = folder / "commands"
        shutil.rmtree(results, ignore_errors=True)
        shutil.copytree(pristine, results)
        chosen = draw.sample(cases, 6)
        for name, way in chosen:
            if (results / "small" / "jobs" / name).exists():
                WAYS[way](results / "small" / "jobs" / name, random.Random(f"{batch} {name}"))
        told = base.call("report", str(results))
        ran = base.call("run", str(suite), "--results", str(results))
        problem = "" if told[0] == 0 else f"report ends in {told[0]}: {told[1].strip()[-200:]}"
        problem = problem or ("" if ran[0] == 0 else f"run ends in {ran[0]}: {ran[1].strip()[-200:]}")
        problem = problem or base.difference(base.contents(results / "small"), expected)
        verified = base.call("status", "--verify", str(results))
        problem = problem or ("" if verified[0] == 0 else f"status --verify: {verified[1].strip()[-200:]}")
        build.build(results)
        count.add("; ".join(f"{name}, {way}" for name, way in chosen), problem)
    return count
