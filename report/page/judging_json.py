"""Say of a suite's judges to machines what the page says of them to people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from report.analysis.judges import DECISIONS, METHOD, Agreement
from report.analysis.panel import JudgeSummary, Panel
from report.page.judging import MOST_PARTING, agreement_in_words, example, kinship_in_words


def as_json(panel: Panel) -> dict[str, Any]:
    """Return the judges for report.json; shares are of 1, preferences from 0 (the reference answer) to 1 (the policy's)."""
    return {
        "judges": [_judge_json(one) for one in panel.judges],
        "judge_agreement": [_agreement_json(one) for one in panel.agreements],
        "unusable_replies": [{**asdict(one), "example": example(one.example)} for one in panel.unusable],
    }


def _judge_json(one: JudgeSummary) -> dict[str, Any]:
    bias = one.bias
    return {
        "judge": one.name,
        "main": one.main,
        "policies": bias.policies,
        "pairs": bias.pairs,
        "prompts": bias.prompts,
        "preference": asdict(bias.rate),
        "position_bias": asdict(bias.first),
        "turned_by_order_share": bias.flips,
        "longer_won": asdict(bias.longer),
        "longer_won_pairs": bias.decided,
        "ours_longer_share": bias.ours_longer,
        "length_adjustment_points": one.adjustment,
        "kinship": one.kinship or None,
        "against_other_judges": [
            {"judge": other.judge, "pairs": other.pairs, "difference": asdict(other.difference)} for other in one.beside
        ],
        "sentence": kinship_in_words(one) or None,
    }


def _agreement_json(one: Agreement) -> dict[str, Any]:
    names = [DECISIONS[decision] for decision in sorted(DECISIONS, reverse=True)]
    return {
        "judges": list(one.judges),
        "pairs": one.pairs,
        "prompts": one.prompts,
        "decided_alike": asdict(one.raw),
        "cohen_kappa": asdict(one.kappa),
        "intervals": METHOD,
        "spearman_rho": one.correlation,
        "kendall_tau": one.tau,
        "first_recipe": list(one.firsts),
        "same_first_recipe": one.same_first,
        "decisions": {row: dict(zip(names, counts, strict=True)) for row, counts in zip(names, one.table, strict=True)},
        "decided_differently": len(one.parting),
        "parting_most": [
            {
                "policy": pair.policy,
                "prompt": pair.prompt,
                "preferences": list(pair.preferences),
                "decisions": [DECISIONS[decision] for decision in pair.decisions],
            }
            for pair in one.parting[:MOST_PARTING]
        ],
        "sentence": agreement_in_words(one),
    }
