"""What the first screen's words mean: what a method's steps descend, λ, the ideal point, the marks."""

from __future__ import annotations

from report.analysis.findings import Findings
from report.analysis.tables import RecipeResults

MARKS = (
    "each column against the first one, seed by seed; better, worse: told apart at the 5 % level; same: the 95 % CI of the "
    "difference lies inside what the figure tolerates, or no seed differs; unclear: neither"
)


def how(tables: Findings, recipe: RecipeResults) -> str:
    """Say what a recipe's steps descend; "" for a method that is not among the known ones, and for one objective alone."""
    share = recipe.lambda_dpo
    if share is None:
        return ""
    said = _steps(tables, recipe, f"{share:g}", f"{1 - share:.6g}")
    return f"{recipe.method}: {said} (λ: the weight of DPO)." if said else ""


def glossary(tables: Findings) -> tuple[tuple[str, str], ...]:
    """Return what the first screen speaks of, each word with what it means."""
    methods = {one.method: said for one in tables.recipes if (said := _steps(tables, one, "λ", "(1 − λ)"))}
    found = [("λ", "the weight of the DPO objective; that of the SFT objective is 1 − λ"), *methods.items()]
    if any(one.estimate(tables.distance).n for one in tables.recipes):
        distance = tables.metric(tables.distance)
        found.append(
            ("ideal point", "as low in each objective as a run on it alone ends; the two are not the same run")
        )
        found.append((distance.title.lower(), f"{distance.meaning}, where f* is the ideal point"))
    return (*found, ("marks", MARKS))


def _steps(tables: Findings, recipe: RecipeResults, dpo: str, sft: str) -> str:
    """Say what a method's steps descend, by the weights of the two objectives in words."""
    first, second = next((run.order for run in tables.results.runs if run.method == recipe.method), ("dpo", "sft"))
    texts = {
        "sequential": f"{first.upper()} first, then {second.upper()}; DPO has {dpo} of the steps, SFT {sft}",
        "mix": f"every step descends {dpo} × DPO loss + {sft} × SFT loss",
        "alright": f"every step descends one loss, drawn at random: DPO with probability {dpo}, else SFT",
        "maxright": f"every step descends the loss that is farther from its optimum, DPO's gap × {dpo} against SFT's × {sft}",
        "dpo_with_sft": f"every step descends {dpo} × DPO loss + {sft} × SFT loss on the preferred answers",
    }
    return texts.get(recipe.base_method, "")
