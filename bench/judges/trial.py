"""What can be known of a judge before hours of training: whether its model is retired, whether it answers, and to what.

Where a suite names no configuration, each is tried with one tiny question until one is answered as it must be. What was found
is kept in the results folder, so that all of its judgings ask alike.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from bench.errors import JudgeRefused, JudgeStopped, one_line
from bench.judges import JudgeSettings, Request, Setup
from bench.judges.asking import JOURNAL, Asking
from bench.judges.configurations import Completion, Configuration, first_token
from bench.judges.faults import NO_ANSWER
from bench.judges.journal import rows as journal_rows
from bench.judges.named import configuration
from bench.judges.prices import old_price, shutdown
from bench.settings import Model

FOLDER = Path("preflight") / "judge"
FOUND = "configurations.json"
WARNED_DAYS_BEFORE = 90
_ATTEMPTS = 3
_LONGEST_WAIT_SECONDS = 120.0
_LONGEST_REASON = 160
_LEAST_SHARE = 0.5
# With the time in it, so that it is a new question each time: an old reply says nothing of today
_TRIAL = {"instruction": "Say hello. It is {}.", "output_1": "Hello!", "output_2": "No."}


@dataclass(frozen=True)
class Answered:
    """Say how a judge answered.

    Attributes:
        judge: who, and where.
        configuration: what it was asked by.
        changes: what was changed in the request, as the endpoint refuses it otherwise.
        passed_over: why the configurations tried before are not used.
        bill: what it cost, as in a score.
        ends: what is to be said of its model's end, from the endpoint's own list; empty: nothing.
    """

    judge: str
    configuration: str
    changes: tuple[str, ...] = ()
    passed_over: Mapping[str, str] = field(default_factory=dict)
    bill: Mapping[str, Any] = field(default_factory=dict)
    ends: str = ""

    @property
    def in_words(self) -> str:
        """All of it on one line."""
        whose = "AlpacaEval's" if configuration(self.configuration).of_alpaca_eval else "not AlpacaEval's"
        text = f"the judge {self.judge} answers to {self.configuration} ({whose})"
        text += f"; changed in the request: {', '.join(self.changes)}" if self.changes else ""
        text += f"; {self.ends}" if self.ends else ""
        passed = (f"{name}: {reason}" for name, reason in self.passed_over.items())
        return text + (f"; tried before: {'; '.join(passed)}" if self.passed_over else "")


def warnings(settings: JudgeSettings, today: date | None = None) -> list[str]:
    """Say that a judge's model is retired, or soon will be, or that its price was read long ago.

    Args:
        settings: the judge's.
        today: the machine's own day where it is not given.
    """
    if not settings.judge.endpoint:
        return []
    model = settings.asked_model
    how, old = _ending(shutdown(settings, model), today), old_price(settings, model, today)
    named = "" if settings.model else f", which {settings.configuration} names,"
    ends = (
        f"the judge {model}{named} {how}; set judge.model to one that lives longer, such as gpt-6-luna" if how else None
    )
    return [line for line in (ends, old) if line]


def _ending(day: date | None, today: date | None) -> str:
    """Say when a model ends, 90 days before that and ever after; empty where there is nothing to say."""
    today = today or datetime.now(UTC).date()
    if day is None or (day - today).days > WARNED_DAYS_BEFORE:
        return ""
    return f"is retired since {day}" if day <= today else f"will be shut down on {day}"


def ask(
    settings: JudgeSettings, folder: Path, others: Callable[[], Iterable[Path]], today: date | None = None
) -> Answered | None:
    """Ask a paid judge one tiny question, by each configuration in question until one is answered as it must be.

    Replies are kept in the suite's folder like any other, with what they cost, and so is which configuration was found.

    Args:
        settings: the judge's.
        folder: the suite's results.
        others: lists the journals of the suite's judgings.
        today: the machine's own day where it is not given.

    Returns:
        How it answered; None for a judge that costs nothing, which is not asked.

    Raises:
        JudgeError: the judge cannot be used; says what to change.
        InputError: it is to be asked in batches, and its endpoint has none.
    """
    if not settings.judge.endpoint:
        return None
    patient = {"concurrency": 1, "timeout_seconds": min(settings.timeout_seconds, _LONGEST_WAIT_SECONDS)}
    patient |= {"batch": False}
    kept = _kept(settings, folder)
    passed_over: dict[str, str] = dict(kept["passed_over"]) if kept else {}
    names = (kept["configuration"],) if kept else settings.configurations
    if settings.batch:
        _check_batches(settings, names[0])
    for name in names:
        one = settings.model_copy(update={**patient, "configuration": name, "model": settings.asked_model})
        try:
            answered = _ask(one, folder, others, len(names) > 1, today)
        except JudgeRefused as error:
            if len(names) == 1:
                raise
            passed_over[name] = _briefly(str(error))
        else:
            _keep(settings, folder, name, passed_over)
            return answered if kept else replace(answered, passed_over=passed_over)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
    raise JudgeRefused(
        f"the judge {settings.asked_model} answers to none of the configurations, choose another judge.model ({reasons})"
    )


def _check_batches(settings: JudgeSettings, name: str) -> None:
    """See that an endpoint has batches, without asking for one.

    Raises:
        InputError: it has none.
    """
    from bench.judges.batch.endpoint import BatchEndpoint
    from bench.judges.openai import OpenaiJudge

    judge = settings.judge(Setup(settings, configuration(name), _no_model))
    if isinstance(judge, OpenaiJudge):
        with judge.connect() as client:
            BatchEndpoint(judge, client, settings.first_pause_seconds, lambda: False).check()


def _briefly(reason: str) -> str:
    """Return the reason without whose it is, as that stands beside it."""
    own = re.sub(r"^the judge .+? at [^ :]+:? (answers, but its reply cannot be used: )?", "", reason)
    return one_line(own.removesuffix("; change the judge's settings"), _LONGEST_REASON)


def known(settings: JudgeSettings, folder: Path, judging: Path) -> str | None:
    """Return the configuration that a judge is to be asked by, where that is known without asking it.

    It is the one that is named; else the one that was found before, or that the judging's own replies came by.

    Args:
        settings: the judge's.
        folder: the suite's results.
        judging: the folder of the judging's journal.
    """
    if len(settings.configurations) == 1:
        return settings.configurations[0]
    kept = _kept(settings, folder)
    return str(kept["configuration"]) if kept else _of_replies(settings, judging / JOURNAL)


def label_share(form: Configuration, reply: Completion) -> float:
    """Return how much of the first token's probability falls to the labels; 1 where a reply is read otherwise.

    A judge that would rather say something else has not understood what it is asked for: what is left for the labels is noise.
    """
    top = first_token(reply)
    return sum(math.exp(top[one]) for one in form.verdicts if one in top) if form.verdicts else 1.0


def _ask(
    settings: JudgeSettings, folder: Path, others: Callable[[], Iterable[Path]], pick: bool, today: date | None
) -> Answered:
    """Ask by one configuration; one among several must suit the judge well.

    Raises:
        JudgeRefused: not by this one.
        JudgeStopped: not at all.
    """
    form = configuration(settings.configurations[0])
    fields = _TRIAL | {"instruction": _TRIAL["instruction"].format(datetime.now(UTC).isoformat())}
    request = Request(fields["instruction"], fields["output_1"], fields["output_2"], form.messages(fields))
    journal = folder / FOLDER / JOURNAL
    with Asking(settings, form, journal, others, _no_model, lambda text: None, _ATTEMPTS) as asking:
        (reply,) = asking.complete([request], lambda request: (0, "ours_first"))
        row, bill, judging = asking.last_row or {}, asking.bill(), asking.judging
    if asking.stopped:
        raise asking.stopped
    judge = f"{judging.model} at {judging.host}"
    where = f"the judge {judge}"
    if reply is not None:
        share = label_share(form, reply) if pick else 1.0
        if share < _LEAST_SHARE:
            raise JudgeRefused(f"{where} answers, but gives the labels no more than {share:.0%} of its first token")
        end = _ending(judging.shutdown(), today)
        ends = f"the endpoint says that {judging.model} {end}" if end else ""
        return Answered(judge, form.name, tuple(judging.changes), bill=bill, ends=ends)
    if row.get("error"):
        said = f"{where} gave no reply that can be read ({row['error']}); see that it is up and that base_url is right"
        raise (JudgeStopped if row.get("kind") in NO_ANSWER else JudgeRefused)(said)
    raise JudgeRefused(f"{where} answers, but its reply cannot be used: {row.get('unusable', '')}")


def _place(settings: JudgeSettings) -> str:
    """Name a judge's settings as the file of found configurations does."""
    decides = json.dumps(settings.identity() | {"orders": ""}, sort_keys=True)
    return hashlib.sha256(decides.encode()).hexdigest()[:16]


def _kept(settings: JudgeSettings, folder: Path) -> dict[str, Any] | None:
    """Return what was found before; None where nothing was, or where it says nothing that can be used."""
    if len(settings.configurations) == 1:
        return None
    try:
        every = json.loads((folder / FOLDER / FOUND).read_text(encoding="utf-8"))
        one = every[_place(settings)]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    fits = isinstance(one, dict) and one.get("configuration") in settings.configurations
    return one if fits and isinstance(one.get("passed_over"), dict) else None


def _keep(settings: JudgeSettings, folder: Path, name: str, passed_over: Mapping[str, str]) -> None:
    from filelock import FileLock

    from bench.records import record

    if len(settings.configurations) == 1:
        return
    path = folder / FOLDER / FOUND
    with FileLock(path.with_suffix(".lock")):
        try:
            every = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            every = {}
        every = every if isinstance(every, dict) else {}
        every[_place(settings)] = {
            "model": settings.asked_model,
            "configuration": name,
            "passed_over": dict(passed_over),
        }
        record.write_json(path, every)


def _of_replies(settings: JudgeSettings, journal: Path) -> str | None:
    """Return the configuration that most usable replies of a judging came by."""
    try:
        rows: Sequence[Mapping[str, Any]] = journal_rows(journal.read_bytes())
    except OSError:
        return None
    names = Counter(
        row.get("configuration") for row in rows if row["usable"] and row.get("model") == settings.asked_model
    )
    return next((name for name, _ in names.most_common() if name in settings.configurations), None)


def _no_model(model: Model) -> Any:
    raise AssertionError(f"a paid judge loads no model here: {model.source}")
