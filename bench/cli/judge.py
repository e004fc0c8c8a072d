"""`bench judge`: win rates of answers that exist already, without training. Nothing heavy is imported at the top."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import output
from bench.errors import InputError, Interrupted, JudgeError, NoRoom, OverCeiling, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from bench.judges import JudgeSettings
    from bench.models.policy import Policy
    from bench.settings import Model

app = typer.Typer(
    help="Compare answers that exist already: ask a judge, or replay what one has said.", no_args_is_help=True
)

PLAIN_LINE_SECONDS = 10.0
Outputs = Annotated[
    Path, typer.Option(metavar="FILE", help="The answers to be judged: JSON rows of instruction and output.")
]
Reference = Annotated[Path, typer.Option(metavar="FILE", help="The answers they are compared with, in the same form.")]
Share = Annotated[
    float, typer.Option(min=0, max=1, help="Share of pairs that may stay unjudged without making the win rate null.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def run(
    outputs: Outputs,
    reference: Reference,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIG",
            help="A configuration, alpaca-eval's or ours; or a YAML file: a suite, or the keys of its "
            "evaluation.win_rate.judge, of a list the first. (default: the first that the endpoint answers to)",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The endpoint's model. (default: the configuration's, else gpt-6-luna)")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="Another endpoint than OpenAI's.")] = None,
    key_variable: Annotated[
        str | None, typer.Option(help="Environment variable that holds the key. (default: OPENAI_API_KEY)")
    ] = None,
    orders: Annotated[
        str | None, typer.Option(help="both, or single: one order a pair, at random. (default: both)")
    ] = None,
    batch: Annotated[
        bool | None,
        typer.Option("--batch/--no-batch", help="Ask in a batch, at half the price where it is. (default: no)"),
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests in flight. (default: 8)")] = None,
    timeout_seconds: Annotated[float | None, typer.Option(help="Patience with one request. (default: 300)")] = None,
    max_cost_usd: Annotated[
        float | None, typer.Option(help="Stop before all that OUT's journal holds costs more than this.")
    ] = None,
    max_unjudged_share: Annotated[float | None, typer.Option(help="Pairs that may stay unjudged. (default: 0)")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the journal, the judged pairs and the score.")] = Path(
        "out/judged"
    ),
    as_json: AsJson = False,
) -> None:
    """Ask a judge which of two files' answers it prefers.

    Every reply is kept in OUT/journal.jsonl before it is used. The same command goes on where it was stopped, and asks
    only for what is missing.
    """
    from rich.console import Console

    from bench.judges import completion_files

    output.never_ends_a_run()
    given = {
        "model": model,
        "base_url": base_url,
        "key_variable": key_variable,
        "orders": orders,
        "batch": batch,
        "concurrency": concurrency,
        "timeout_seconds": timeout_seconds,
        "max_cost_usd": max_cost_usd,
        "max_unjudged_share": max_unjudged_share,
    }
    settings = _settings(judge, {name: value for name, value in given.items() if value is not None})
    pairs = completion_files.pairs(outputs, reference)
    console = Console(stderr=as_json)
    _warn(settings)
    name, score = _judge(pairs, settings, out, console)
    _show(name, score, f"{out}: ", as_json, console)
    if score["value"] is None:
        raise typer.Exit(1)


@app.command()
def replay(
    outputs: Outputs,
    reference: Reference,
    annotations: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="AlpacaEval's annotations with raw_completion, or a journal of `bench judge run`."
        ),
    ],
    judge: Annotated[
        str | None,
        typer.Option(metavar="CONFIG", help="How replies are read. (default: the annotations' own annotator)"),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Whose replies, where a journal holds those of several.")] = None,
    orders: Annotated[
        str | None, typer.Option(help="both or single. (default: what the annotations or the journal hold)")
    ] = None,
    max_unjudged_share: Share = 0.0,
    as_json: AsJson = False,
) -> None:
    """Work out the win rate from replies on disk: raw log-probabilities → preference → win rate. No network, no key."""
    from rich.console import Console

    from bench.judges import completion_files
    from bench.judges import replay as replaying

    pairs = completion_files.pairs(outputs, reference)
    stored = replaying.stored(annotations, chosen=judge is not None)
    given = {
        "kind": "replay",
        "journal": str(annotations),
        "configuration": judge or stored.configuration,
        "orders": orders or stored.orders,
        "max_unjudged_share": max_unjudged_share,
        **({"model": model} if model else {}),
    }
    console = Console(stderr=as_json)
    name, score = _judge(pairs, _validated(given, lambda at: "--judge"), Path(), console)
    if score["unjudged"] == len(pairs):
        raise InputError(f"{annotations}: holds no reply to any of these {len(pairs)} pairs; are these its outputs?")
    _show(name, score, "", as_json, console)
    if score["value"] is None:
        raise typer.Exit(1)


def _settings(judge: str | None, given: dict[str, Any]) -> JudgeSettings:
    """Read a judge's settings from a YAML file, or take a configuration's name; options win."""
    options = {name: f"--{name.replace('_', '-')}" for name in given}
    if judge is None or Path(judge).suffix not in (".yaml", ".yml"):
        return _validated({"kind": "openai", "configuration": judge, **given}, lambda at: options.get(at[0], "--judge"))
    from bench.suite.yaml_file import Document

    document = Document(Path(judge))
    keys: Any = document.value
    place: tuple[str | int, ...] = ()
    if isinstance(keys, dict) and "evaluation" in keys:  # a whole suite
        place = _IN_A_SUITE
        for part in place:
            keys = keys.get(part) if isinstance(keys, dict) else None
    if isinstance(keys, list) and keys:  # several judges, of which the first is the main one
        place, keys = (*place, 0), keys[0]
    if not isinstance(keys, dict):
        raise InputError(f"{judge}: holds no keys of a judge; a suite has them under evaluation.win_rate.judge")
    return _validated(
        {"kind": "openai", **keys, **given}, lambda at: options.get(at[0]) or document.where((*place, *at))
    )


_IN_A_SUITE = ("evaluation", "win_rate", "judge")


def _validated(keys: dict[str, Any], where: Callable[[tuple[Any, ...]], str]) -> JudgeSettings:
    """Check a judge's keys; `where` says where one of them stands."""
    from pydantic import ValidationError

    from bench.errors import unknown_name
    from bench.judges import JudgeSettings

    try:
        return JudgeSettings.model_validate(keys)
    except ValidationError as error:
        first = error.errors()[0]
        at = first["loc"] or ("",)
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = [*JudgeSettings.model_fields, *JudgeSettings.more_keys(keys)]
            raise InputError(f"{where(at)}: {unknown_name('key', name, known)}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(
            f"{where(at)}: {name + ' = ' + repr(first['input']) + ': ' if name else ''}{message}"
        ) from None


def _warn(settings: JudgeSettings) -> None:
    from bench.judges import trial

    for line in trial.warnings(settings):
        print(f"bench: warning: {one_line(line)}", file=sys.stderr)


def _judge(pairs: list[Any], settings: JudgeSettings, out: Path, console: Console) -> tuple[str, dict[str, Any]]:
    """Judge the pairs, showing progress, and write what came out beside the journal."""
    from bench.evaluators import win_rate
    from bench.judges import trial
    from bench.judges.journal import JOURNAL
    from bench.records import record

    def journals() -> list[Path]:
        return list(out.glob(f"{trial.FOLDER}/{JOURNAL}"))

    def try_out() -> str:
        try:
            answered = trial.ask(settings, out, lambda: out.glob(JOURNAL))
        except (NoRoom, OverCeiling):
            raise
        except JudgeError as error:
            raise InputError(str(error)) from None
        if answered is None:
            return settings.configurations[0]
        console.print(answered.in_words, markup=False, highlight=False, soft_wrap=True)
        return answered.configuration

    with console.status("") as status:
        try:
            tell = _teller(console, status)
            scores, rows = win_rate.judge(pairs, settings, out, _load, tell, journals, try_out=try_out)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; replies are kept in {out}, the same command goes on") from None
    ((name, score),) = scores.items()
    if settings.judge.asks:
        try:
            out.mkdir(parents=True, exist_ok=True)  # a judge that keeps no journal has not made it
            samples = out / "samples.jsonl"
            samples.unlink(missing_ok=True)
            record.append_jsonl(samples, rows)
            record.write_json(out / "scores.json", scores)
        except OSError as error:
            raise InputError(
                f"{out}: judged pairs and score cannot be written ({error.strerror}); make room and run again: all "
                "replies are in the journal, and nothing is asked twice"
            ) from None
    return name.removeprefix("win_rate/"), score


def _teller(console: Console, status: Any) -> Callable[[str], None]:
    """Show progress in place on a terminal, and as a line now and then elsewhere."""
    from rich.markup import escape

    spoke = 0.0

    def tell(text: str) -> None:
        nonlocal spoke
        text = one_line(text)  # with a model's name in it
        if console.is_terminal:
            status.update(escape(text))
        elif time.monotonic() - spoke > PLAIN_LINE_SECONDS:
            spoke = time.monotonic()
            console.print(text, markup=False, highlight=False)

    return tell


def _load(model: Model) -> Policy:
    import torch

    from bench.models import policy

    return policy.load(model, torch.device("cuda:0" if torch.cuda.is_available() else "cpu"), None)


def _show(name: str, score: dict[str, Any], where: str, as_json: bool, console: Console) -> None:
    """Print the last line, and for machines JSON: what alpaca-eval has, too, under its names, and only that."""
    from bench.evaluators.length import ADJUSTED_BY

    if as_json:
        made = {_IN_JSON.get(key, key): value for key, value in score.items()}
        if "length_adjusted_win_rate" in made:
            made["length_adjusted_by"] = f"{ADJUSTED_BY}, not AlpacaEval's length-controlled win rate"
        print(json.dumps({"judge": name, **made}, indent=1))
    console.print(f"{where}{_sentence(name, score)}", markup=False, highlight=False, soft_wrap=True)


# Records keep the names on the left; what is fitted to these pairs alone must not pass for AlpacaEval's figure
_IN_JSON = {
    "value": "win_rate",
    "n": "n_total",
    "unjudged": "n_unjudged",
    "length_controlled_win_rate": "length_adjusted_win_rate",
    "length_controlled_standard_error": "length_adjusted_standard_error",
    "length_controlled_reason": "length_adjusted_reason",
}


def _sentence(name: str, score: dict[str, Any]) -> str:
    from bench.evaluators.length import ADJUSTED_BY

    if score["value"] is None:
        text = f"no win rate by {name}: {score['reason']}; the same command asks only for the missing ones"
        return text + _doubtful(score)
    text = f"win rate {score['value']:.2f} % by {name} over {score['n']} pairs"
    if score["interval_95"]:
        text += " (95 % interval {:.2f} to {:.2f})".format(*score["interval_95"])
    text += f"; {score['n_wins']} won, {score['n_wins_base']} lost, {score['n_draws']} drawn"
    if score["unjudged"]:
        text += f", {score['unjudged']} unjudged"
    text += _how_asked(score)
    if score.get("as_stored"):
        text += f"; {score['as_stored']} preferences as the annotations store them, for lack of the judge's replies"
    if score["length_controlled_win_rate"] is not None:
        text += f"; length-adjusted {score['length_controlled_win_rate']:.2f} % ({ADJUSTED_BY}, not AlpacaEval's)"
    if "position_bias" in score:
        text += f"; position bias {score['position_bias']:+.3f}"
    if score.get("cost_usd") is not None:
        text += f"; cost ${score['cost_usd']:.4f}"
    elif "cost_reason" in score:
        text += f"; cost not known: {score['cost_reason']}"
    parts = (("cached", "cached_tokens"), ("reasoning", "reasoning_tokens"))
    counted = [f"{score[key]:,} {name}" for name, key in parts if score.get(key)]
    text += f" ({' and '.join(counted)} tokens among them)" if counted else ""
    return text + _doubtful(score)


def _how_asked(score: dict[str, Any]) -> str:
    """Say by which configuration, with what changed, and which replies could not be used."""
    from bench.evaluators.win_rate import in_words

    text = ""
    if not score.get("of_alpaca_eval", True):
        text += f"; asked by {score['configuration']}, so not AlpacaEval's win rate"
    if score.get("request_changes"):
        text += f"; changed in the request: {', '.join(score['request_changes'])}"
    return text + (f"; {in_words(score['unusable_replies'])}" if score.get("unusable_replies") else "")


def _doubtful(score: dict[str, Any]) -> str:
    """Say how many requests may be paid for though nobody saw their answers."""
    if not score.get("unanswered"):
        return ""
    text = f"; {score['unanswered']} requests got no answer but may be paid for"
    if score["unanswered_usd_at_most"] is not None:
        text += f" (${score['unanswered_usd_at_most']:.4f} at most)"
    return text + f", {score['possibly_paid_twice']} comparisons possibly paid twice"
