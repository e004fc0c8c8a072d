"""Win rate: how often a judge prefers our answer to the reference one, by alpaca-eval's annotators.

A reply that cannot be read is never counted as anything: beyond the share of them that a suite allows, the rate is null
and says how many pairs are unjudged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any

from bench.errors import InputError
from bench.evaluators.length import length_controlled
from bench.judges import JudgeSettings
from bench.judges.asking import JOURNAL, Asking
from bench.judges.named import configuration
from bench.judges.requests import Pair, Request
from bench.records import record
from bench.records.metrics import Metric
from bench.settings import Model

if TYPE_CHECKING:
    from bench.judges.annotation_files import Kept
    from bench.models.policy import Policy

ORDERS = ("ours_first", "theirs_first")
# Below a suite's folder: those of its judgings, and that of its preflight
JOURNALS = f"*/*/{JOURNAL}"
# Whose answers ours are compared with where prompts are those of held-out pairs
CHOSEN = "the chosen answers"
_NORMAL_95 = NormalDist().inv_cdf(0.975)


def journals(results: Path, name: str) -> Iterator[Path]:
    """List the journals of a suite that may hold a judge's replies: those of its judgings, and that of the preflight.

    What the suite's other judges were paid does not count towards this one's ceiling.
    """
    for journal in results.glob(JOURNALS):
        try:
            labels = record.read_json(journal.parent / "spec.json").get("labels") or {}
        except InputError:  # of the preflight, or damaged
            labels = {}
        if labels.get("judge", name) == name:
            yield journal


def judge_name(settings: JudgeSettings) -> str:
    """Name a judge as metrics do: `rule`, `local:<model>`, or the endpoint's model.

    Raises:
        SuiteError: the configuration does not exist or does not suit this kind of judge.
        InputError: the journal to replay is not there, or holds the replies of several judges.
    """
    first = configuration(settings.configurations[0], to_ask=settings.judge.asks)
    return settings.judge.name(settings, first)


def metric(settings: JudgeSettings, asked_by: str | None = None, against: str = CHOSEN) -> Metric:
    """Describe the win rate under a judge.

    Args:
        settings: the judge's.
        asked_by: the configuration, where the suite leaves it to the endpoint.
        against: whose answers ours are compared with.
    """
    name = judge_name(settings)
    form = configuration(asked_by or settings.configurations[0], to_ask=settings.judge.asks)
    how = f"by AlpacaEval's {form.name}" if form.of_alpaca_eval else f"by {form.name}, not AlpacaEval's"
    return Metric(
        f"win_rate/{name}",
        "Win rate",
        "%",
        "higher",
        "score",
        f"against {against}, judged by {name}, {how}",
        low=0.0,
        high=100.0,
        gate=True,
        tolerance=2.0,
        item="judged pair",
    )


def judge(
    pairs: Sequence[Pair],
    settings: JudgeSettings,
    folder: Path,
    load_local: Callable[[Model], Policy],
    tell: Callable[[str], None],
    others: Callable[[], Iterable[Path]] = lambda: (),
    stopping: Callable[[], bool] = lambda: False,
    results: Path | None = None,
    try_out: Callable[[], str] | None = None,
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Judge every pair, in both orders or in alpaca-eval's random one.

    Args:
        pairs: what to compare; surrounding white space of answers is not shown to the judge.
        settings: the suite's judge.
        folder: where the journal of replies is kept and found again.
        load_local: loads a local judge's model.
        tell: takes a line of progress.
        others: lists journals that may hold replies to the same comparisons.
        stopping: asked whether the user wants to stop, while a batch is waited for.
        results: the suite's folder, where it stands which configuration the judge answers to; `folder` by default.
        try_out: tries a paid judge before it is asked for anything that is missing, and returns the configuration that it
            answers to; by default that is done where nothing is known of it.

    Returns:
        The score `win_rate/<judge>` in percent, and one row per pair: its preference, 0 (theirs) to 1 (ours)
        or None, as the mean over its orders, and by order, and how many characters longer ours is. Where the judge
        must not be asked further (refused key, exhausted quota, ceiling of cost) the score's value is None, and its reason
        says so.

    Raises:
        JudgeError: the judge cannot be asked at all, or its replies cannot be kept; those so far are in the journal.
        Interrupted: the user stopped while a batch was waited for; it goes on.
    """
    from bench.judges import trial

    name, first_of_all = trial.known(settings, results or folder, folder), try_out
    if name is None:
        name, first_of_all = (try_out or partial(_try_out, settings, results or folder, others))(), None
    form = configuration(name, to_ask=settings.judge.asks)
    shown = [Pair(pair.id, pair.instruction, pair.ours.strip(), pair.theirs.strip()) for pair in pairs]
    kept = settings.judge.kept(settings, form) if settings.orders == "single" else {}
    once = {pair: kept.get((pair.instruction.strip(), pair.ours, pair.theirs)) for pair in shown}
    asked = [(pair, order) for pair in shown for order in _orders(pair, settings, once[pair])]
    whose = {tuple(_comparison(pair, order).values()): (pair.id, order) for pair, order in asked}

    def of(request: Request) -> tuple[int, str]:
        return whose[request.instruction, request.first, request.second]

    with Asking(
        settings, form, folder / JOURNAL, others, load_local, tell, first_of_all=first_of_all, stopping=stopping
    ) as asking:
        found = form.annotate(
            [_comparison(pair, order) for pair, order in asked], lambda requests: asking.complete(requests, of)
        )
        facts = asking.facts() | asking.bill()
    by_pair: dict[int, dict[str, float | None]] = {pair.id: {} for pair in shown}
    as_stored = 0
    for (pair, order), value in zip(asked, found, strict=True):
        preference = None if value is None else (2 - value if order == "ours_first" else value - 1)
        known = once[pair]
        if preference is None and known and known.preference is not None:
            preference, as_stored = known.preference, as_stored + 1
        by_pair[pair.id][order] = preference
    longer = {pair.id: len(pair.ours) - len(pair.theirs) for pair in shown}
    rows = [
        {"id": number, "preference": _mean(orders), "orders": orders, "length_difference": longer[number]}
        for number, orders in by_pair.items()
    ]
    stopped = str(asking.stopped) if asking.stopped else None
    made = score(rows, shown, settings.max_unjudged_share, stopped, facts.get("unusable_replies", ())) | facts
    made |= {"as_stored": as_stored} if as_stored else {}
    return {f"win_rate/{judge_name(settings)}": made}, rows


def _orders(pair: Pair, settings: JudgeSettings, kept: Kept | None) -> tuple[str, ...]:
    """Return the orders in which a pair is shown: both, the one that it was once shown in, or alpaca-eval's random one."""
    from bench.judges import alpaca

    return ORDERS if settings.orders == "both" else (kept.order if kept else alpaca.random_order(pair.instruction),)


def score(
    rows: Sequence[Mapping[str, Any]],
    pairs: Sequence[Pair],
    max_unjudged_share: float = 0.0,
    stopped: str | None = None,
    unusable: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Sum judged pairs up: win rate with its standard error and 95 % interval by pair in percent, wins, lengths.

    `position_bias` is how much more than half of the preference falls to the answer shown first: −0.5 to 0.5.
    Lengths are in characters.

    Args:
        rows: one per pair: its preference, and by order.
        pairs: what was compared, in the same order.
        max_unjudged_share: of the pairs; up to it the rate is that of the judged ones.
        stopped: why the judge was not asked for all of them; there is no rate then.
        unusable: why replies could not be used, by kind.
    """
    from bench.judges import alpaca

    judged = [(row["preference"], pair) for row, pair in zip(rows, pairs, strict=True) if row["preference"] is not None]
    unjudged = len(rows) - len(judged)
    facts: dict[str, Any] = {
        "n": len(rows),
        "unjudged": unjudged,
        "mean_length_ours": fmean(len(pair.ours) for pair in pairs) if pairs else None,
        "mean_length_theirs": fmean(len(pair.theirs) for pair in pairs) if pairs else None,
    }
    both = [row["orders"] for row in rows if row["preference"] is not None and len(row["orders"]) == len(ORDERS)]
    if both:
        facts["position_bias"] = fmean((orders["ours_first"] + 1 - orders["theirs_first"]) / 2 for orders in both) - 0.5
    figures = alpaca.win_rate([preference for preference, _ in judged]) if judged else {}
    facts |= {name: figures.get(name, 0) for name in ("n_wins", "n_wins_base", "n_draws")}
    if not judged or stopped or unjudged > max_unjudged_share * len(rows):
        reason = f"{unjudged} of {len(rows)} unjudged" if rows else "no pairs"
        reason += f": {stopped}" if stopped else f"; {in_words(unusable)}" if unusable else ""
        return {"value": None, "standard_error": None, "reason": reason, **facts, "discrete_win_rate": None}
    error = figures["standard_error"] if len(judged) > 1 else None
    return {
        "value": figures["win_rate"],
        "standard_error": error,
        "interval_95": _interval(figures["win_rate"], error),
        **facts,
        "discrete_win_rate": figures["discrete_win_rate"],
        **length_controlled(
            [preference for preference, _ in judged], [len(pair.ours) - len(pair.theirs) for _, pair in judged]
        ),
    }


def _try_out(settings: JudgeSettings, results: Path, others: Callable[[], Iterable[Path]]) -> str:
    from bench.judges import trial

    answered = trial.ask(settings, results, others)
    return answered.configuration if answered else settings.configurations[0]


def in_words(unusable: Sequence[Mapping[str, Any]]) -> str:
    """Say why replies could not be used: how many of each kind, with an example of the most frequent."""
    counts = ", ".join(f"{one['count']} × {one['kind']}" for one in unusable)
    example = f" ({unusable[0]['example']})" if unusable and unusable[0]["example"] else ""
    return f"replies that could not be used: {counts}{example}"


def _interval(rate: float, error: float | None) -> list[float] | None:
    """Return the normal interval of a mean over pairs, cut to what a rate can be."""
    return None if error is None else [max(0.0, rate - _NORMAL_95 * error), min(100.0, rate + _NORMAL_95 * error)]


def _comparison(pair: Pair, order: str) -> dict[str, str]:
    first, second = (pair.ours, pair.theirs) if order == "ours_first" else (pair.theirs, pair.ours)
    return {"instruction": pair.instruction, "output_1": first, "output_2": second}


def _mean(orders: Mapping[str, float | None]) -> float | None:
    known = [value for value in orders.values() if value is not None]
    return fmean(known) if known and len(known) == len(orders) else None
