"""The commands. Few flags: every experiment setting lives in the suite. Nothing heavy is imported at the top."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench import __version__
from bench.cli import ending, output
from bench.cli.judge import app as judge_app
from bench.cli.loading import load, located, planned, warn
from bench.errors import InputError, one_line
from bench.run.signals import STOPPING

EXIT_CODES = {
    0: "good",
    1: "a job failed (the line on the screen names it, its `log.txt` has the traceback), or `compare` found a regression",
    2: "bad input: suite, data, model or option",
    3: "`compare` cannot tell: too few seeds, missing runs, or figures that do not compare",
    70: "an internal error",
    130: "interrupted, checkpoint kept: the same command goes on",
}

app = typer.Typer(
    name="bench",
    help="Choose a post-training recipe by measuring what each one gains, forgets and costs.",
    epilog="Start with: bench run quickstart --results out && bench report out",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(judge_app, name="judge")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"bench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and end.")
    ] = False,
) -> None:
    """Take what may stand before a command."""


SuiteName = Annotated[
    str, typer.Argument(metavar="SUITE", help="A suite's YAML file, or the name of a shipped one, such as quickstart.")
]
Results = Annotated[Path, typer.Option(help="Where records go: RESULTS/<suite>/jobs/<job id>/.")]
Mirror = Annotated[
    Path | None,
    typer.Option(envvar="BENCH_MIRROR", help="An offline mirror of the hub: DIR/datasets/ORG/NAME."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one key of the suite, such as training.steps=20. Repeatable."
    ),
]
Only = Annotated[str | None, typer.Option(metavar="GLOB", help="Only the jobs whose id matches, and what they need.")]
Smoke = Annotated[
    bool,
    typer.Option("--smoke", help="A tiny random model and a handful of steps: see that the suite runs. No network."),
]
Choose = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="Choose a recipe, such as: mmlu >= base - 1 and seconds <= 1.1 * sequential, maximize win_rate",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def run(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SUITE",
            help="A suite's YAML file, or the name of a shipped one; several are run one after another. "
            "[default: quickstart]",
        ),
    ] = None,
    results: Results = Path("results"),
    mirror: Mirror = None,
    overrides: Overrides = None,
    only: Only = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes. [default: one a GPU, or one]")] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads of each job, which stay those of a folder's first run. [default: $OMP_NUM_THREADS, or "
            "processors ÷ workers]",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="ENGINE",
            help="Where jobs run: local, or on the nodes of a Ray cluster: ray, ray://HOST:PORT (extra: ray).",
        ),
    ] = "local",
    tracker: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Draw the run live: trackio, wandb, mlflow, tensorboard (extras of these names). [default: the suite's]",
        ),
    ] = None,
    smoke: Smoke = False,
    as_json: AsJson = False,
) -> None:
    """Train and evaluate everything a suite names; skip what is complete, go on from checkpoints.

    Ctrl-C keeps the checkpoint: the same command goes on. `bench report RESULTS` shows what came out. Jobs that another
    suite of RESULTS has made, such as a reference or an optimum, are taken over. Of several suites the exit code is the worst.
    """
    from bench import trackers
    from bench.cli import campaign

    output.never_ends_a_run()
    if tracker is not None:
        trackers.check(tracker)
        overrides = [*(overrides or []), f"tracker={tracker}"]
    asked = campaign.Asked(results, mirror, overrides, only, workers, threads, engine, smoke, as_json)
    raise typer.Exit(campaign.run(suites or ["quickstart"], asked))


@app.command()
def plan(
    suite: SuiteName = "quickstart",
    results: Results = Path("results"),
    mirror: Mirror = None,
    overrides: Overrides = None,
    only: Only = None,
    smoke: Smoke = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Jobs that compute at the same time; one a GPU, or one, when left out.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Another results folder, whose records tell time and memory."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the jobs of a suite, what they share, what is complete, and an estimate of steps, tokens, time and memory."""
    from bench.cli.plan_view import as_dict, as_text
    from bench.run import devices, gpus, space, stale, standing
    from bench.run.estimates import forecast
    from bench.suite.suite import Suite

    if like is not None and not like.is_dir():
        raise InputError(f"--like {like}: no such folder; give a results folder with records of this machine")
    made = planned(suite, overrides, mirror, smoke)
    if isinstance(made.suite, Suite):
        made = devices.settled(made, made.suite, gpus.default_workers())
    folder = results / made.suite.name
    states, found = standing.look(made, folder).states, stale.find(made, folder)
    selected = standing.select(made, only)
    pending = standing.to_do(made, folder, selected, states)
    size = workers or gpus.default_workers()
    disk = space.needed(made, folder, pending, size)
    ahead = forecast.make(made, folder, selected, states, size, like)
    warn(made.suite)
    if as_json:
        print(json.dumps(as_dict(made, states, selected, found, disk, folder, ahead), indent=1))
    else:
        print(as_text(made, states, selected, found, disk, folder, ahead))


@app.command()
def validate(suite: SuiteName, mirror: Mirror = None, overrides: Overrides = None) -> None:
    """Check a suite without running it: every key, value and name, and the rows that are on this machine or in the mirror."""
    from bench.run import preflight

    checked = load(suite, overrides, mirror, smoke=False)
    with located(suite, overrides):
        preflight.check(checked)
        read, doubts = preflight.open_data(checked, mirror)
    warn(checked)
    for line in doubts:
        print(f"bench: warning: {one_line(line)}", file=sys.stderr)
    print(f"{checked.name}: valid; {checked.contents}" + (f"; rows read: {', '.join(read)}" if read else ""))


@app.command("serve-plan")
def serve_plan(
    suite: SuiteName,
    mirror: Mirror = None,
    overrides: Overrides = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers of the run, each with an adapter of its own.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Print how to start the server that makes a suite's answers: the exact command lines of vLLM and SGLang.

    For suites with `evaluation.win_rate.generation.engine: endpoint`, or before that is set.
    """
    from bench.evaluators.engine import serve_plan as serving
    from bench.run import preflight
    from bench.suite.suite import Suite

    loaded = load(suite, overrides, mirror, False)
    if not isinstance(loaded, Suite):
        raise InputError(f"{loaded.name}: a toy has no model to serve")
    with located(suite, overrides):
        made = serving.plans(preflight.serving_needs(loaded, workers))
    print(json.dumps([one.as_dict() for one in made], indent=1) if as_json else serving.as_text(made))


@app.command()
def data(
    suite: SuiteName,
    mirror: Mirror = None,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows of each set to show.")] = 5,
    smoke: Smoke = False,
    as_json: AsJson = False,
) -> None:
    """Show what becomes of a suite's rows: their shape, how the model will see them, what is learned, what was cut or refused.

    Learned tokens stand in ⟦ ⟧. Loads the model's tokenizer, never its weights.
    """
    from rich.console import Console

    from bench.cli import data_view
    from bench.data import tokens
    from bench.models import tokenizers
    from bench.run import preflight
    from bench.suite.suite import Suite

    loaded = load(suite, overrides, mirror, smoke)
    if not isinstance(loaded, Suite):
        raise InputError(f"{loaded.name}: a toy has no rows of data")
    preflight.check_hub(loaded, mirror)
    tokenizer = tokenizers.load(loaded.model)
    read = tokens.load(loaded.data, tokenizer, mirror, judged=preflight.pairs_wanted(loaded))
    if as_json:
        print(json.dumps(data_view.as_dict(loaded, read, tokenizer, rows), indent=1, ensure_ascii=False))
    else:
        data_view.show(loaded, read, tokenizer, rows, Console())


@app.command()
def status(
    results: Annotated[Path, typer.Argument(help="A results folder, or a .bench archive.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Also read every file, weights too, and compare it with its sha256.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Show what becomes of the jobs, what runs and what each waits for, until all are complete or Ctrl-C.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say which jobs of a results folder or an archive run, were stopped, failed, are blocked or to do, and what they wait for.

    --watch draws it anew every other second on a terminal, and prints a line an event elsewhere.

    Exit code with --verify: 0: every record is as it was written; 1: one is not.
    """
    from bench.cli import status_view

    if watch:
        from rich.console import Console

        from bench.cli import watch as watching

        if verify or as_json:
            raise InputError(f"--watch and {'--verify' if verify else '--json'}: give one of them")
        watching.watch(results, Console())
        return
    found = status_view.look(results, verify=verify)
    if as_json:
        print(json.dumps(status_view.as_dict(found), indent=1))
    else:
        print(status_view.as_text(found))
    if verify and any(one.broken for one in found):
        raise typer.Exit(1)


@app.command()
def clean(
    results: Annotated[Path, typer.Argument(help="A results folder: a root, or one suite.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is listed; without it nothing is.")] = False,
    adapters: Annotated[
        bool,
        typer.Option("--adapters", help="Also weights of runs, but those of the first seed of each recipe and λ."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List what of a results folder nothing needs any more, with sizes; delete it with --yes.

    Checkpoints of suites whose jobs are all complete, and jobs of older plans. Records of complete jobs of the present plan
    stay in any case, as do paid replies, what an unfinished job goes on from, and what another suite has still to do.
    """
    from bench.cli import clean_view
    from bench.run import cleaning

    found = cleaning.delete(results, adapters=adapters) if yes else cleaning.find(results, adapters=adapters)
    if as_json:
        print(json.dumps(clean_view.as_dict(found, deleted=yes), indent=1))
    else:
        print(clean_view.as_text(found, deleted=yes))


@app.command()
def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Results folders: roots, or single suites; or .bench archives. Several make one leaderboard. [default: results]"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where reports go. [default: beside the records]")] = None,
    choose: Choose = None,
    lm_eval: Annotated[
        bool,
        typer.Option(
            "--lm-eval",
            help="Also write lm-eval's results_*.json and samples_*.jsonl of every policy, to SUITE/lm_eval.",
        ),
    ] = False,
    with_text: Annotated[
        bool,
        typer.Option(
            "--with-text", help="Also show prompts and targets beside the answers, read from the suite's data."
        ),
    ] = False,
    mirror: Mirror = None,
) -> None:
    """Write report.html, report.md, report.json and runs.parquet for every suite, and index.html over all.

    --choose names the recipe that does best by your own words, or by a goal of the page (balanced, "keep accuracy",
    "max win rate", cheapest), the runner-up, and how often each would be chosen if
    seeds, questions and judged pairs were drawn anew; choice.json keeps it. `base`, `sequential` (at the same λ) and
    `reference` stand for that policy's value of the figure they are compared with. Figures: mmlu or another task,
    accuracy, win_rate (all in percent), f_dpo, f_sft, gap_dpo, gap_sft, ideal_distance (nats), seconds, all_in_seconds,
    runtime_increase (%), tokens, steps, memory (GiB), energy (J), utilization (%), lambda.
    """
    folders = results or [Path("results")]
    if choose is None:
        _report(folders, out, lm_eval, "", with_text, mirror)
        return
    from rich.console import Console

    from report.choose import view as choose_view
    from report.choose.choose import choose_all

    # First: the answer, and a text that cannot be read, should not wait for a report.
    found = [one for folder in folders for one in choose_all(folder, choose)]
    choose_view.show(found, Console())
    _report(folders, out, lm_eval, choose, with_text, mirror)
    choose_view.keep(found, out)


def _report(
    folders: list[Path], out: Path | None, lm_eval: bool, choose: str, with_text: bool, mirror: Path | None
) -> None:
    from bench.cli import report_texts
    from bench.records import suite_record
    from report import build

    texts = (lambda record: report_texts.read(record, mirror)) if with_text else None
    index = build.build(folders, out, lm_eval=lm_eval, choose=choose, texts=texts)
    for note in dict.fromkeys(
        suite.note for folder in folders for suite in suite_record.find_suites(folder) if suite.note
    ):
        print(note)
    print(f"report: {index}")


@app.command()
def pack(
    results: Annotated[Path, typer.Argument(help="A suite's folder of results, or a root of several.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The archive of one suite. [default: RESULTS/SUITE.bench]")
    ] = None,
) -> None:
    """Write a suite's records, without weights, as one .bench archive, which report, compare and status read like a folder."""
    from bench.records import pack as packing

    for packed in packing.pack(results, out):
        print(packed)


@app.command()
def compare(
    sides: Annotated[
        list[Path],
        typer.Argument(
            metavar="[BASE] CANDIDATE",
            help="What to compare with and the results after the change: each a results folder, one suite, or a .bench archive.",
            show_default=False,
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="What to compare with, instead of the first argument: a path, or a data set on the hub that holds archives: "
            "ORG/NAME, ORG/NAME@REVISION or hf://datasets/ORG/NAME@REVISION/FILE.bench.",
        ),
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML: tolerances, which metrics gate, the level.")
    ] = None,
    mirror: Mirror = None,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE.md", help="Write Markdown for a pull request.")] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE.xml", help="Write JUnit XML for CI: a case a compared figure.")
    ] = None,
) -> None:
    """Say whether a change made training recipes worse, beyond noise.

    Exit code 0: no regression seen; 1: a regression; 3: inconclusive, such as fewer than three seeds.
    """
    from rich.console import Console

    from bench.records import baseline as baselines
    from report.analysis import gate as gates
    from report.compare import compare as comparing
    from report.compare import junit as junit_xml
    from report.compare import view

    if len(sides) != (1 if baseline else 2):
        asked = (
            "CANDIDATE alone beside --baseline" if baseline else "BASE and CANDIDATE, or CANDIDATE and --baseline BASE"
        )
        raise InputError(f"compare: {len(sides)} {'side' if len(sides) == 1 else 'sides'} given; give {asked}")
    rules = gates.load(gate)
    base = baselines.find(baseline, mirror) if baseline else baselines.Baseline(sides[0], str(sides[0]))
    made = comparing.compare(base.path, sides[-1], rules, base.name)
    view.write(made, out)
    if junit is not None:
        junit_xml.write(made, junit)
    if as_json:
        print(json.dumps(view.as_dict(made), indent=1))
    else:
        view.show(made, Console() if sys.stdout.isatty() else Console(width=150))
        print(view.last_line(made))
    raise typer.Exit(made.exit_code)


@app.command()
def export(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job's id, the beginning of it, or a glob: mix-l0.5-s0.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the model.")],
    results: Annotated[Path, typer.Option(help="The results folder that holds the job: a root, or one suite.")] = Path(
        "results"
    ),
    merge: Annotated[
        bool, typer.Option("--merge", help="Write the whole model, adapter merged in, instead of the adapter alone.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over an earlier export in DIR.")] = False,
) -> None:
    """Take a trained policy away: the PEFT adapter or the merged model, its tokenizer, and a model card with its figures.

    Plain transformers and peft load what it writes; it is reloaded and compared with the trained policy before it is left.
    """
    from bench.export import export as exporter

    done = exporter.export(results, job, folder, merge=merge, force=force)
    if done.note:
        print(f"note: {done.note}")
    print(done)


@app.command()
def publish(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The hub's name of both repositories: ORG/NAME.")],
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="One suite's folder of results, or its archive.")],
    out: Annotated[
        Path, typer.Option(help="Where the folders go: OUT/models/ORG/NAME and OUT/datasets/ORG/NAME.")
    ] = Path("publish"),
    job: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="The run whose weights are published. [default: the winner's first]"),
    ] = None,
    choose: Choose = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Publish the whole model, adapter merged in, instead of the adapter alone.")
    ] = False,
    answers: Annotated[
        bool, typer.Option("--answers", help="Also give away what policies answered and judges replied.")
    ] = False,
    push: Annotated[
        bool, typer.Option("--push", help="Send the folders to the hub; needs a token (HF_TOKEN, or hf auth login).")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Repositories that --push makes are for all to see, instead of private.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write the folders anew.")] = False,
) -> None:
    """Write a suite's records and its recommended policy as repositories for the hub, with cards; --push sends them.

    Paths, weights of other runs, logs, prompts and, unless --answers is given, answers are not in them.
    """
    from bench.export import publish as publisher
    from bench.export import push as pusher

    token = pusher.token() if push else ""  # before anything is written
    done = publisher.publish(
        target, results, out, job=job or "", choose=choose or "", merge=merge, answers=answers, force=force
    )
    if done.note:
        print(f"note: {one_line(done.note)}")
    for repository in done.repositories:
        print(repository)
        if push:
            print(f"{pusher.push(repository, token, public=public)}: pushed")
    if not push:
        print("Look at the folders; --push --force sends them to the hub.")


@app.command()
def init(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE.yaml DATA",
            help="The suite to write (suite.yaml where none is named), and your data: files, folders or hub ids of preference "
            "pairs and of instructions.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="The base model: a folder, or a hub id.")] = None,
    mirror: Mirror = None,
) -> None:
    """Write a commented suite: for your data, which it looks at, or one to be edited.

    bench init my.yaml                             a suite in which every key is explained
    bench init my.yaml pairs.jsonl chats.parquet   one that fits these files
    """
    from bench.cli import init as writer

    named = [one for one in data or [] if one.endswith((".yaml", ".yml"))]
    given = [one for one in data or [] if one not in named]
    if len(named) > 1:
        raise InputError(f"{named[1]}: one suite is written at a time; the first name is {named[0]}")
    path = Path(named[0] if named else "suite.yaml")
    if not given and model is None:
        writer.write(path)
        print(f"{path}: written. Edit model and data, then: bench validate {path} && bench run {path} --smoke")
        return
    if not given:
        raise InputError("--model goes with data to look at: bench init my.yaml pairs.jsonl --model MODEL")
    writer.refuse_existing(path)
    text, found = writer.for_data(path.stem, given, model, mirror)
    writer.write(path, text)
    for line in found:
        print(line)
    print(f"{path}: written. Next: bench data {path}, then bench run {path} --smoke, then bench run {path}")


def main() -> None:
    """Run the command line; an error is one line on stderr and an exit code (0 good, 1 failed, 2 bad input, 70, 130)."""
    output.in_any_encoding()
    # What a scheduler, `kill` or a closed terminal sends ends any command like Ctrl-C; a run takes it by itself.
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        app(standalone_mode=True)
    except Exception as error:
        ending.end(error)


if __name__ == "__main__":
    main()
