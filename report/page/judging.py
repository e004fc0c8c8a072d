"""Who judged, and what that is worth: whether judges agree, their love of a position, of length and of their own kind, unusable
replies, and of each judging its interval, unjudged pairs and bill."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.errors import one_line
from report.analysis import completions
from report.analysis.findings import Findings
from report.analysis.judges import DECISIONS, METHOD, Agreement, Share
from report.analysis.load import Results, judge_of
from report.analysis.panel import JudgeSummary, Panel
from report.page import alpaca_eval
from report.page.where import Where
from report.render.document import Block, Cell, Column, Details, Row, Table, Text
from report.render.numbers import MISSING, number

MOST_PARTING = 12
LONGEST_EXAMPLE = 160

_COLUMNS = (
    Column("Policy", numeric=False),
    Column("Judge", numeric=False),
    Column("Win rate (%)", meaning="95 % CI over pairs"),
    Column("Pairs", meaning="unjudged ones beside it"),
    Column("Position bias", meaning="how much more than half of the preference falls to the answer shown first"),
    Column("Our length", meaning="mean, in characters"),
    Column("Their length", meaning="mean, in characters"),
    Column(
        "Length-adjusted (%)",
        meaning="at equal length, by our own logistic regression on the difference in length, ± standard error; it is "
        "not AlpacaEval's length-controlled win rate",
    ),
    Column("Cost ($)", meaning="of the replies this judging paid for"),
)


def blocks(tables: Findings, where: Where) -> tuple[Block, ...]:
    """Return the judges: whether they agree, what their preference hangs on, replies that could not be used, each judging."""
    panel = tables.panel
    found = [
        *(Text(agreement_in_words(one)) for one in panel.agreements if one.judges[0] == panel.judges[0].name),
        _agreements(panel),
        *(Text(sentence, "warning") for one in panel.judges if (sentence := kinship_in_words(one))),
        _biases(panel),
        _unusable(panel),
        *(_parting(tables, one, where) for one in panel.agreements),
        details(tables.results),
    ]
    return tuple(one for one in found if one is not None)


# ---- agreement -------------------------------------------------------------------------------------------------------

# After Landis and Koch (1977)
_WORDS = (
    (0.0, "no more than chance gives"),
    (0.2, "hardly more than chance"),
    (0.4, "little"),
    (0.6, "middling"),
    (0.8, "good"),
    (1.1, "near complete"),
)


def agreement_in_words(one: Agreement) -> str:
    """Say in one sentence how far two judges agree, and whether they put the same recipe first."""
    first, second = one.judges
    text = (
        f"{first} and {second} decide alike on {_percent(one.raw)} of the {one.pairs:,} pairs that both judged"
        f"{_ends(one.raw, 100, ' %')}"
    )
    if math.isnan(one.kappa.value):
        text += "; how much of it is chance cannot be told, as one decides every pair the same way"
    else:
        words = next(words for most, words in _WORDS if one.kappa.value <= most)
        text += f"; beyond chance the agreement is {words}: Cohen's κ = {number(one.kappa.value, 2)}{_ends(one.kappa)}"
    if one.same_first:
        text += f". Both put {one.firsts[0]} first"
    elif one.same_first is False:
        text += f". They do not put the same recipe first: {first} puts {one.firsts[0]}, {second} {one.firsts[1]}"
    return f"{text}."


def _agreements(panel: Panel) -> Table | None:
    columns = (
        Column("Judges", numeric=False),
        Column("Pairs", meaning="that both judged, of all policies; intervals draw their prompts anew"),
        Column("Decided alike (%)", meaning="won, drawn or lost; a pair whose winner changes with the order is a draw"),
        Column("Cohen's κ", meaning="0: what chance gives, 1: complete"),
        Column("Spearman's ρ", meaning="of the preferences"),
        Column("Kendall's τ", meaning="of the recipes by mean win rate, from three recipes on"),
        Column("First recipe", numeric=False),
    )
    rows = []
    for one in panel.agreements:
        firsts = "–" if one.same_first is None else "the same" if one.same_first else "another"
        cells = (
            Cell(" and ".join(one.judges)),
            Cell(f"{one.pairs:,}", note=f"{one.prompts} prompts"),
            _share(one.raw, 100, 1),
            _share(one.kappa, 1, 2, reason="one judge decides every pair the same way"),
            _figure(_known(one.correlation), 2, reason="one judge's preference never changes"),
            _figure(_known(one.tau), 2, reason="fewer than three recipes, or all alike"),
            Cell(
                firsts,
                note=" / ".join(name or "all alike" for name in dict.fromkeys(one.firsts)) if any(one.firsts) else "",
            ),
        )
        rows.append(Row(cells))
    if not rows:
        return None
    notes = [f"{column.title}: {column.meaning}." for column in columns if column.meaning]
    return Table("Agreement between judges", columns, tuple(rows), (*notes, f"95 % CIs: {METHOD}."))


def _parting(tables: Findings, one: Agreement, where: Where) -> Details | None:
    """Return the pairs that two judges decided differently, those whose preferences are furthest apart."""
    if not one.parting:
        return None
    rows = []
    for pair in one.parting[:MOST_PARTING]:
        link = where.file(completions.generation_of(tables.results, pair.policy), "samples.jsonl")
        cells = [Cell(pair.policy), Cell(str(pair.prompt), link=link)]
        for preference, decision in zip(pair.preferences, pair.decisions, strict=True):
            cells.append(Cell(number(100 * preference, 0), note=DECISIONS[decision]))
        rows.append(Row(tuple(cells)))
    columns = (
        Column("Policy", numeric=False),
        Column("Prompt", meaning="its id; the answer stands under it in the linked file"),
        *(Column(f"{judge} (%)", meaning="its preference for the policy's answer") for judge in one.judges),
    )
    more = len(one.parting) - len(rows)
    note = f"{len(one.parting):,} of {one.pairs:,} pairs are decided differently" + (
        f"; {more:,} more are not shown." if more else "."
    )
    title = f"Where {one.judges[0]} and {one.judges[1]} part most"
    return Details(title, (Table("", columns, tuple(rows), (note,)),))


# ---- bias ------------------------------------------------------------------------------------------------------------


def kinship_in_words(one: JudgeSummary) -> str:
    """Warn of a judge that may like its own kind; "" of one that nothing is known of."""
    if not one.kinship:
        return ""
    text = f"The judge {one.name} {one.kinship}: models are known to prefer what is written like their own answers."
    if not one.beside:
        return f"{text} No judge of another kind judged the same pairs, so how much of its preference that is cannot be told."
    parts = [
        f"{number(100 * other.difference.value, 1, True)} points against {other.judge} over {other.pairs:,} pairs"
        f"{_ends(other.difference, 100)}"
        for other in one.beside
    ]
    return (
        f"{text} It prefers the policies' answers by {'; '.join(parts)}: that taste, and all else in which they differ."
    )


def _biases(panel: Panel) -> Table | None:
    columns = (
        Column("Judge", numeric=False),
        Column("Pairs", meaning="of all policies; intervals draw their prompts anew"),
        Column("Preference (%)", meaning="mean, for the policies' answers"),
        Column("Position bias", meaning="how much more than half of the preference falls to the answer shown first"),
        Column("Turned by order (%)", meaning="pairs whose winner changes with the order"),
        Column(
            "Longer won (%)",
            meaning="of the pairs with a winner and unequal lengths; longer answers may be better ones",
        ),
        Column(
            "Length adjustment",
            meaning="points by which a win rate moves at equal length, mean over policies; an extrapolation where one side "
            "is nearly always the longer one",
        ),
    )
    rows = []
    for one in panel.judges:
        bias = one.bias
        ours = (
            ""
            if math.isnan(bias.ours_longer)
            else f"ours is longer in {number(100 * bias.ours_longer, 0)} % of {bias.decided:,}"
        )
        cells = (
            Cell(one.name, note="main judge" if one.main else ""),
            Cell(f"{bias.pairs:,}", note=f"{bias.policies} policies, {bias.prompts} prompts"),
            _share(bias.rate, 100, 1),
            _share(bias.first, 1, 3, sign=True, reason="each pair was shown in one order"),
            _figure(_known(100 * bias.flips), 1, reason="each pair was shown in one order"),
            _share(bias.longer, 100, 1, more=ours, reason="lengths are not on record, or are all equal"),
            _figure(_known(one.adjustment), 1, reason="too few pairs", sign=True),
        )
        rows.append(Row(cells))
    if not rows:
        return None
    notes = [f"{column.title}: {column.meaning}." for column in columns if column.meaning]
    return Table("What each judge's preference hangs on", columns, tuple(rows), (*notes, f"95 % CIs: {METHOD}."))


def example(text: str) -> str:
    """Cut a reply that could not be used to a line."""
    line = one_line(text)
    return line if len(line) <= LONGEST_EXAMPLE else f"{line[: LONGEST_EXAMPLE - 1].rstrip()}…"


def _unusable(panel: Panel) -> Table | None:
    rows = tuple(
        Row(
            (
                Cell(one.judge),
                Cell(one.kind),
                Cell(f"{one.count:,}"),
                Cell(example(one.example) or "–"),
            )
        )
        for one in panel.unusable
    )
    columns = (
        Column("Judge", numeric=False),
        Column("Why", numeric=False),
        Column("Replies"),
        Column("One of them", numeric=False, prose=True),
    )
    return Table("Replies that could not be used", columns, rows) if rows else None


# ---- each judging ----------------------------------------------------------------------------------------------------


def details(results: Results) -> Details | None:
    """Return a row per judged policy; None where none is judged."""
    rows = [
        _row(str(job.labels["of"]), judge_of(name), score)
        for job in results.judgings
        for name, score in job.scores.items()
        if judge_of(name)
    ]
    if not rows:
        return None
    notes = tuple(f"{column.title}: {column.meaning}." for column in _COLUMNS if column.meaning)
    table = Table("", _COLUMNS, tuple(rows), (*_prompts(results), *notes))
    return Details("Each judging: interval, position, length, cost", (table, *alpaca_eval.blocks(results)))


def _prompts(results: Results) -> list[str]:
    """Say whose prompts were judged, where they are not those of held-out pairs, and how many were too long."""
    said: dict[str, None] = {}
    for job in results.record.jobs.values():
        for score in job.scores.values() if job.kind == "judge" else ():
            if "prompts_from" in score:
                cut = score["cut_prompts"]
                lost = f"; {cut} prompts were too long and lost their left end" if cut else ""
                said[f"Compared with {score['against']}: {score['n']} prompts{lost}."] = None
    return list(said)


def _row(policy: str, judge: str, score: Mapping[str, Any]) -> Row:
    unjudged = score.get("unjudged") or 0
    cells = (
        Cell(policy),
        Cell(judge),
        _figure(score.get("value"), 1, _interval(score.get("interval_95")), str(score.get("reason") or "")),
        Cell(str(score.get("n", MISSING)), note=f"{unjudged} unjudged" if unjudged else ""),
        _figure(score.get("position_bias"), 3, reason="each pair was shown in one order", sign=True),
        _figure(score.get("mean_length_ours"), 0),
        _figure(score.get("mean_length_theirs"), 0),
        _figure(
            score.get("length_controlled_win_rate"),
            1,
            _error(score.get("length_controlled_standard_error")),
            str(score.get("length_controlled_reason") or ""),
        ),
        _figure(
            score.get("cost_usd"),
            4,
            _paid(score),
            "; ".join(filter(None, (score.get("cost_reason"), _paid(score)))),
        ),
    )
    return Row(cells)


def _paid(score: Mapping[str, Any]) -> str:
    """Say what was paid otherwise than the rest, and how many requests may be paid for though nobody saw their answers."""
    counts = (
        ("in_batches", "by batch"),
        ("cached_tokens", "tokens cached"),
        ("reasoning_tokens", "tokens of reasoning"),
    )
    said = [f"{score[name]} {text}" for name, text in counts if score.get(name)]
    if score.get("unanswered"):
        said.append(
            f"{score['unanswered']} requests without an answer, {score['possibly_paid_twice']} possibly paid twice"
        )
    return "; ".join(said)


def _figure(value: float | None, digits: int, note: str = "", reason: str = "", sign: bool = False) -> Cell:
    if value is None:
        return Cell(number(math.nan, digits), note=reason, missing=True)
    return Cell(number(value, digits, sign), note=note)


def _interval(ends: Sequence[float] | None) -> str:
    return f"{number(ends[0], 1)} to {number(ends[1], 1)}" if ends else ""


def _error(value: float | None) -> str:
    return "" if value is None else f"± {number(value, 1)}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(share: Share) -> str:
    return f"{number(100 * share.value, 1)} %"


def _ends(share: Share, factor: float = 1.0, unit: str = "") -> str:
    """Write a share's interval in brackets; "" where it has none."""
    if math.isnan(share.low):
        return ""
    digits = 1 if factor > 1 else 2
    return f" (95 % CI {number(factor * share.low, digits)} to {number(factor * share.high, digits)}{unit})"


def _share(share: Share, factor: float, digits: int, more: str = "", reason: str = "", sign: bool = False) -> Cell:
    low, high = factor * share.low, factor * share.high
    interval = "" if math.isnan(low) else f"{number(low, digits, sign)} to {number(high, digits, sign)}"
    note = "; ".join(filter(None, (interval, more)))
    return _figure(_known(factor * share.value), digits, note, reason, sign)
