"""What can be known of a judge before hours of training: whether its model is retired, and whether it answers as it must."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from bench.errors import InputError, JudgeError
from bench.judges import JudgeSettings, Request
from bench.judges.asking import JOURNAL, Asking
from bench.judges.prices import KEY, old_price, shutdown
from bench.settings import Model

FOLDER = Path("preflight") / "judge"
WARNED_DAYS_BEFORE = 90
_ATTEMPTS = 3
_LONGEST_WAIT_SECONDS = 120.0
# With the time in it, so that it is a new question each time: an old reply says nothing of today
_TRIAL = {"instruction": "Say hello. It is {}.", "output_1": "Hello!", "output_2": "No."}


def warnings(settings: JudgeSettings, today: date | None = None) -> list[str]:
    """Say that a judge's model is retired, or soon will be, or that its price was read long ago.

    Args:
        settings: the judge's.
        today: the machine's own day where it is not given.
    """
    from bench.judges import alpaca

    if not settings.judge.endpoint:
        return []
    model = settings.model or alpaca.configuration(settings.configuration).model
    old = old_price(settings, model, today)
    prices = [old] if old else []
    day, today = shutdown(settings, model), today or datetime.now(UTC).date()
    if day is None or (day - today).days > WARNED_DAYS_BEFORE:
        return prices
    named = "" if settings.model else f", which {settings.configuration} names,"
    how = f"is retired since {day}" if day <= today else f"will be shut down on {day}"
    return [f"the judge {model}{named} {how}; set judge.model to one that lives longer, such as gpt-6-luna", *prices]


def ask(settings: JudgeSettings, folder: Path, others: Callable[[], Iterable[Path]]) -> dict[str, Any] | None:
    """Ask a paid judge one tiny question and read its reply as the suite will.

    The reply is kept in the suite's folder like any other, with what it cost.

    Args:
        settings: the judge's.
        folder: the suite's results.
        others: lists the journals of the suite's judgings.

    Returns:
        What the question cost, as in a score; None for a judge that costs nothing, which is not asked.

    Raises:
        InputError: the judge cannot be used; says what to change.
    """
    if not settings.judge.endpoint:
        return None
    patient = {"concurrency": 1, "timeout_seconds": min(settings.timeout_seconds, _LONGEST_WAIT_SECONDS)}
    try:
        problem, bill = _ask(settings.model_copy(update=patient), folder, others)
    except JudgeError as error:
        raise InputError(f"{KEY}: {error}") from None
    if problem:
        raise InputError(f"{KEY}: {problem}")
    return bill


def _ask(
    settings: JudgeSettings, folder: Path, others: Callable[[], Iterable[Path]]
) -> tuple[str | None, dict[str, Any]]:
    """Return the problem with the judge's reply, if any, and the bill."""
    from bench.judges import alpaca

    configuration = alpaca.configuration(settings.configuration)
    fields = _TRIAL | {"instruction": _TRIAL["instruction"].format(datetime.now(UTC).isoformat())}
    request = Request(fields["instruction"], fields["output_1"], fields["output_2"], configuration.messages(fields))
    journal = folder / FOLDER / JOURNAL
    with Asking(settings, configuration, journal, others, _no_model, lambda text: None, _ATTEMPTS) as asking:
        (reply,) = asking.complete([request], lambda request: (0, "ours_first"))
        row, bill = asking.last_row, asking.bill()
    if asking.stopped:
        raise asking.stopped
    if reply is not None:
        return None, bill
    where = f"the judge {asking.judging.model} at {asking.judging.host}"
    if row and row["error"]:
        return (
            f"{where} gave no reply that can be read ({row['error']}); see that it is up and that base_url is right",
            bill,
        )
    needs = "log-probabilities of both labels" if configuration.reads_logprobs else "a ranking"
    return (
        f"{where} answers, but without {needs}, which the configuration {settings.configuration} reads; "
        "choose another judge.model or judge.configuration"
    ), bill


def _no_model(model: Model) -> Any:
    raise AssertionError(f"a paid judge loads no model here: {model.source}")
