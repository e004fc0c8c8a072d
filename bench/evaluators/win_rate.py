"""Win rate: how often a judge prefers our answer to the reference one, by alpaca-eval's annotators.

A reply that cannot be read is never counted as anything: the rate is then null and says how many pairs are unjudged.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.judges import JUDGES, Reply, Request, Setup, local_name
from bench.settings import Judge, Model

if TYPE_CHECKING:
    from bench.judges import Judge as Judging
    from bench.policy import Policy

ORDERS = ("ours_first", "theirs_first")
JOURNAL = "journal.jsonl"
_TELL_EVERY_SECONDS = 2.0


@dataclass(frozen=True)
class Pair:
    """Hold our answer and the reference answer to one instruction."""

    id: int
    instruction: str
    ours: str
    theirs: str


def judge_name(settings: Judge) -> str:
    """Name a judge as metrics do: `rule`, `local:<model>`, or the endpoint's model.

    Raises:
        SuiteError: the configuration does not exist or does not suit this kind of judge.
    """
    from bench.evaluators import alpaca

    configuration = alpaca.configuration(settings.configuration)
    if settings.kind == "openai":
        return (settings.model or configuration.model).replace("/", "-")
    configuration.labels()
    return (
        f"local:{local_name(settings.local_model)}"
        if settings.local_model and settings.kind == "local"
        else settings.kind
    )


def judge(
    pairs: Sequence[Pair],
    settings: Judge,
    folder: Path,
    load_local: Callable[[Model], Policy],
    tell: Callable[[str], None],
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Judge every pair, in both orders or in alpaca-eval's random one.

    Args:
        pairs: what to compare; surrounding white space of answers is not shown to the judge.
        settings: the suite's judge.
        folder: where the journal of replies is kept and found again.
        load_local: loads a local judge's model.
        tell: takes a line of progress.

    Returns:
        The score `win_rate/<judge>` in percent, and one row per pair: its preference, 0 (theirs) to 1 (ours)
        or None, as the mean over its orders, and by order.

    Raises:
        JudgeError: the judge cannot go on; replies so far are in the journal.
    """
    from bench.evaluators import alpaca

    configuration = alpaca.configuration(settings.configuration)
    judging = JUDGES[settings.kind](Setup(settings, configuration, load_local))
    shown = [Pair(pair.id, pair.instruction, pair.ours.strip(), pair.theirs.strip()) for pair in pairs]
    asked = [
        (pair, order)
        for pair in shown
        for order in (ORDERS if settings.orders == "both" else (alpaca.random_order(pair.instruction),))
    ]
    with _Asking(judging, configuration, asked, folder / JOURNAL, tell) as asking:
        found = alpaca.annotate(configuration, [_comparison(pair, order) for pair, order in asked], asking.complete)
    by_pair: dict[int, dict[str, float | None]] = {pair.id: {} for pair in shown}
    for (pair, order), value in zip(asked, found, strict=True):
        by_pair[pair.id][order] = None if value is None else (2 - value if order == "ours_first" else value - 1)
    rows = [{"id": number, "preference": _mean(orders), "orders": orders} for number, orders in by_pair.items()]
    return {f"win_rate/{judge_name(settings)}": score(rows, shown)}, rows


def score(rows: Sequence[Mapping[str, Any]], pairs: Sequence[Pair]) -> dict[str, Any]:
    """Sum judged pairs up: win rate and its standard error by pair in percent, wins, lengths in characters.

    `position_bias` is how much more than half of the preference falls to the answer shown first: −0.5 to 0.5.
    """
    from bench.evaluators import alpaca

    judged = [row["preference"] for row in rows if row["preference"] is not None]
    facts: dict[str, Any] = {
        "n": len(rows),
        "unjudged": len(rows) - len(judged),
        "mean_length_ours": fmean(len(pair.ours) for pair in pairs) if pairs else None,
        "mean_length_theirs": fmean(len(pair.theirs) for pair in pairs) if pairs else None,
    }
    both = [row["orders"] for row in rows if row["preference"] is not None and len(row["orders"]) == len(ORDERS)]
    if both:
        facts["position_bias"] = fmean((orders["ours_first"] + 1 - orders["theirs_first"]) / 2 for orders in both) - 0.5
    if not rows or len(judged) < len(rows):
        reason = f"{len(rows) - len(judged)} of {len(rows)} unjudged" if rows else "no pairs"
        return {"value": None, "standard_error": None, "reason": reason, **facts}
    figures = alpaca.win_rate(judged)
    error = figures["standard_error"] if len(judged) > 1 else None
    wins = {name: figures[name] for name in ("n_wins", "n_wins_base", "n_draws", "discrete_win_rate")}
    return {"value": figures["win_rate"], "standard_error": error, **facts, **wins}


def _comparison(pair: Pair, order: str) -> dict[str, str]:
    first, second = (pair.ours, pair.theirs) if order == "ours_first" else (pair.theirs, pair.ours)
    return {"instruction": pair.instruction, "output_1": first, "output_2": second}


def _mean(orders: Mapping[str, float | None]) -> float | None:
    known = [value for value in orders.values() if value is not None]
    return fmean(known) if len(known) == len(orders) else None


class _Asking:
    """Stand between alpaca-eval and a judge: give what the journal has, ask for the rest, keep what comes."""

    def __init__(
        self,
        judging: Judging,
        configuration: Any,
        asked: Sequence[tuple[Pair, str]],
        path: Path,
        tell: Callable[[str], None],
    ) -> None:
        from bench.evaluators import alpaca
        from bench.judges.journal import Journal

        self._judging, self._template, self._tell = judging, configuration.template, tell
        self._read = alpaca.parser(configuration)
        self._journal = Journal(path) if judging.journaled else None
        self._whose = {tuple(_comparison(pair, order).values()): (pair.id, order) for pair, order in asked}
        self._counting = threading.Lock()

    def __enter__(self) -> _Asking:
        self._held: Any = self._journal or nullcontext()
        self._held.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._held.__exit__(*error)

    def complete(self, requests: Sequence[Request]) -> list[Mapping[str, Any] | None]:
        """Return a usable completion per request, or None."""
        from bench.judges.journal import key

        keys = {request: key(self._judging, self._template, request) for request in requests}
        known: dict[Request, Mapping[str, Any]] = {}
        for request in requests:
            row = self._journal.find(keys[request]) if self._journal else None
            if row:
                known[request] = row["reply"]
        missing = [request for request in requests if request not in known]
        if missing:
            kept = f", {len(known)} replies are in the journal" if known else ""
            self._tell(f"asking {self._judging.model} for {len(missing)} comparisons{kept}")
        told = time.monotonic()

        def receive(request: Request, reply: Reply) -> bool:
            nonlocal told
            usable = reply.completion is not None and self._read(reply.completion) is not None
            if self._journal:
                self._journal.add(self._row(keys[request], request, reply, usable))
            if usable and reply.completion is not None:
                with self._counting:
                    known[request] = reply.completion
                    if time.monotonic() - told > _TELL_EVERY_SECONDS:
                        told = time.monotonic()
                        self._tell(f"{len(known)} of {len(requests)} comparisons judged")
            return usable

        self._judging.ask(missing, receive)
        return [known.get(request) for request in requests]

    def _row(self, reply_key: str, request: Request, reply: Reply, usable: bool) -> dict[str, Any]:
        pair, order = self._whose[request.instruction, request.first, request.second]
        prompt = "\n".join(f"{message.role}\n{message.content}" for message in request.messages)
        return {
            "key": reply_key,
            "pair": pair,
            "order": order,
            "model": self._judging.model,
            "host": self._judging.host,
            "parameters": dict(self._judging.parameters),
            "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
            "reply": reply.completion,
            "usable": usable,
            "error": reply.error,
            "tokens": dict(reply.tokens) if reply.tokens else None,
            "seconds": round(reply.seconds, 3),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
