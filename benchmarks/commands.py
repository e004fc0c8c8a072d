"""Commands that must not keep anyone waiting: help, a plan, and a report over many runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import records
from benchmarks.rows import SECONDS_AT_MOST, Context, Row, RowFailed, at_most
from benchmarks.timing import alternate, ratios

ROOT = Path(__file__).resolve().parent.parent
# Runs the command in this process, then tells whether torch came with it and the highest resident set.
_WATCHED = """
import json, resource, sys
from bench.cli.main import main
try:
    main()
except SystemExit as end:
    code = end.code or 0
used = resource.getrusage(resource.RUSAGE_SELF)
told = {"code": code, "torch": "torch" in sys.modules, "peak_bytes": 1024 * used.ru_maxrss}
print(json.dumps(told | {"cpu_seconds": used.ru_utime + used.ru_stime}), file=sys.stderr)
"""


def rows(context: Context) -> Iterator[Row]:
    """Measure every command in processes of their own."""
    times = 3 if context.quick else 15
    for arguments, goal in ((["--help"], 0.5), (["plan", "suites/llama3_8b.yaml"], 2.0)):
        yield _command(context, arguments, goal, times)
    yield from _reports(context)


def _command(context: Context, arguments: Sequence[str], goal: float, times: int) -> Row:
    context.say(f"bench {' '.join(arguments)}, {times} times")
    watched = run_command(arguments, watch=True)
    if watched["torch"]:
        raise RowFailed(f"bench {' '.join(arguments)} imports torch")
    seconds = alternate({"ours": lambda: run_command(arguments)["seconds"]}, times)["ours"]
    return Row(
        f"`bench {' '.join(arguments)}`",
        "",
        seconds,
        unit="s",
        goal=at_most(goal),
        facts={"imports_torch": False},
        notes=["Commands are clocked from start to end of their process; the two above do not import torch."],
    )


def _reports(context: Context) -> Iterator[Row]:
    """Report over 100 and 1,000 runs made of the committed quickstart records."""
    folder = context.folder("reports")
    for runs in (100, 1000):
        context.say(f"writing the records of {runs} runs")
        records.write(ROOT / "results" / "quickstart.bench", folder / str(runs) / "many", runs)

    def report(runs: int) -> dict[str, Any]:
        return run_command(["report", str(folder / str(runs)), "--out", str(folder / f"{runs}-report")], watch=True)

    rounds = 1 if context.quick else 3
    context.say(f"bench report over 100 and over 1,000 runs, {rounds} rounds")
    taken = alternate({"100": lambda: report(100), "1000": lambda: report(1000)}, rounds, warm_up=0)
    seconds = {runs: [one["seconds"] for one in results] for runs, results in taken.items()}
    peaks = [one["peak_bytes"] for one in taken["1000"]]
    if any(one["torch"] for one in taken["1000"]):
        raise RowFailed("bench report imports torch")
    sides = {"1000_runs_seconds": seconds["1000"], "100_runs_seconds": seconds["100"]}
    notes = ["Records of 1,000 runs: the committed quickstart records, copied with other λ, seeds and values."]
    work = "`bench report` over 1,000 runs"
    yield Row(
        work, "over 100 runs", ratios(seconds["1000"], seconds["100"]), goal=at_most(12), sides=sides, notes=notes
    )
    yield Row(work, "", seconds["1000"], unit="s", goal=at_most(30))
    yield Row(f"{work}, CPU seconds", "", [one["cpu_seconds"] for one in taken["1000"]], unit="s", goal=at_most(30))
    yield Row(f"{work}, peak memory", "", [one / 2**30 for one in peaks], unit="GiB", goal=at_most(1))
    page = folder / "1000-report" / "many" / "report.html"
    size = page.stat().st_size
    yield Row("`report.html` of 1,000 runs", "", [size / 1e6], unit="MB", goal=at_most(2), facts={"bytes": size})
    yield _first_paint(context, page)


def _first_paint(context: Context, page: Path) -> Row:
    """Open a page anew in Chromium, and take what the browser itself says of its first contentful paint.

    Raises:
        RowFailed: there is no Chromium, or no Playwright.
    """
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        raise RowFailed("first paint needs Chromium and Playwright")
    times = 3 if context.quick else 9
    context.say(f"first paint of {page.stat().st_size:,} bytes, {times} times")
    seconds = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=300_000)
        for _ in range(times):
            tab = browser.new_page(viewport={"width": 1440, "height": 900})
            tab.goto(page.as_uri(), timeout=300_000)
            tab.locator("h1").wait_for()
            paint = "performance.getEntriesByName('first-contentful-paint').map(one => one.startTime)"
            while not (found := tab.evaluate(paint)):
                tab.wait_for_timeout(50)
            seconds.append(found[0] / 1000)
            tab.close()
        browser.close()
    notes = ["First contentful paint, as Chromium tells it, of the page opened from disk at 1440 × 900."]
    return Row("`report.html` of 1,000 runs, first paint", "", seconds, unit="s", goal=at_most(1), notes=notes)


def run_command(arguments: Sequence[str], watch: bool = False) -> dict[str, Any]:
    """Run `bench` once from the checkout; `watch` adds what it imported and its peak memory.

    Raises:
        RowFailed: it did not end well.
    """
    start = [sys.executable, "-c", _WATCHED] if watch else [sys.executable, "-m", "benchmarks.command"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}
    environment.pop("BENCH_MIRROR", None)
    started = time.perf_counter()
    done = subprocess.run(
        [*start, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_AT_MOST,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise RowFailed(f"bench {' '.join(arguments)} ended with {done.returncode}: {last[:300]}")
    told: dict[str, Any] = json.loads(done.stderr.strip().splitlines()[-1]) if watch else {}
    return {"seconds": seconds, **told}
