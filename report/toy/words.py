"""Say in words what came out of a toy suite, and what explains it."""

from __future__ import annotations

import math

from report.analysis.toy import ToyResults, ToyRun, slope
from report.render.numbers import number
from report.render.sentences import enumerated
from report.toy.charts import short

SHOWN = {"dpo": "DPO", "sft": "SFT"}


def headline(results: ToyResults) -> str:
    """Say in one sentence what came out."""
    if results.smoke:
        return "Smoke run: it shows that the suite runs and measures nothing."
    if not results.runs:
        return "No run is complete yet."
    if len(results.horizons) > 1:
        return _gap_headline(results)
    ranked = sorted(results.longest, key=lambda run: run.distance.value)
    words = f"{ranked[0].name} ended closest to the ideal point: {short(ranked[0].distance.value)} nats from it"
    baseline = next((run for run in ranked if run.base_method == "sequential" and run is not ranked[0]), None)
    baseline = next((run for run in ranked if _has_threshold(run)), baseline)
    if baseline is None:
        return f"{words}."
    return f"{words}, where {baseline.name} is {short(baseline.distance.value)} away."


def _gap_headline(results: ToyResults) -> str:
    grows: list[str] = []
    falls: list[str] = []
    for name, runs in results.series.items():
        (grows if runs[-1].gap.value > runs[0].gap.value else falls).append(name)
    span = f"from T = {results.horizons[0]:,} to {results.horizons[-1]:,} steps"
    parts = [f"the gap of {enumerated(names)} {verb}" for names, verb in ((grows, "grows"), (falls, "falls")) if names]
    words = f"{', '.join(parts)} {span}."
    return words[0].upper() + words[1:]


def sentences(results: ToyResults) -> list[str]:
    """Say what explains the outcome, in whole sentences; nothing of a smoke."""
    if results.smoke or not results.runs:
        return []
    found = [_opposition(results)]
    if len(results.horizons) > 1:
        found += _about_gaps(results)
    for run in results.longest:
        found += [
            words for words in (_about_threshold(run, results), _about_forgetting(run), _about_choices(run)) if words
        ]
    return found


def _opposition(results: ToyResults) -> str:
    product = results.inner_product
    told = f"the inner product of the features' differences is {number(product, 3)}, and the gradients' has its sign everywhere"
    if product > 0:
        return (
            f"With these features the two gradients never oppose each other ({told}): a step on one objective "
            "lowers the other too, so that no phase of Sequential undoes the other's work."
        )
    if product < 0:
        return f"With these features the two gradients oppose each other ({told}): a step on one objective raises the other."
    return f"With these features neither gradient touches the other objective ({told})."


def _about_gaps(results: ToyResults) -> list[str]:
    found = []
    for name, runs in results.series.items():
        values = ", ".join(short(run.gap.value) for run in runs)
        of = ", ".join(f"{run.steps:,}" for run in runs)
        per = (
            " steps on each objective" if runs[0].phases and runs[0].phases[0][1] == runs[0].steps else " steps in all"
        )
        seeds = f", means over {_seeds(runs)} seeds" if runs[0].gap.n > 1 else ""
        found.append(f"{name}: {values} nats from the best mixture after {of}{per}{seeds}.")
    start = results.longest[0].gap_at(results.longest[0].settings["problem"]["start"])
    found.append(f"Where all runs start the gap is {short(start)}.")
    for name, pairs in results.bounds.items():
        under = all(run.gap.value + 2 * run.gap.error < most for run, most in pairs if run.gap.n > 1)
        steps = [run.steps for run, _ in pairs]
        measured = slope(steps, [run.gap.value for run, _ in pairs])
        expected = slope(steps, [math.log(one) / math.sqrt(one) for one in steps])
        found.append(
            f"Theorem 4.1: the mean gap of {name} lies {'under' if under else 'NOT under'} the corrected bound at every T, two "
            f"standard errors included. On log-log axes it falls with slope {number(measured, 2)}, log T / √T with slope "
            f"{number(expected, 2)}."
        )
    return found


def _seeds(runs: list[ToyRun]) -> str:
    counts = [str(run.gap.n) for run in runs]
    return counts[0] if len(set(counts)) == 1 else enumerated(counts)


def _has_threshold(run: ToyRun) -> bool:
    return run.settings["threshold"] is not None


def _about_threshold(run: ToyRun, results: ToyResults) -> str:
    """Say where Sequential's phases ended, and how it ends without the threshold where the suite has that run too."""
    if not _has_threshold(run):
        return ""
    parts = [f"{run.taken(name):,.0f} of {steps:,} steps on {SHOWN[name]}" for name, steps in run.phases]
    words = f"{run.name} took {enumerated(parts)}: a phase ends when its objective is down to {run.settings['threshold']:g}."
    for name, steps in run.phases:
        if steps and run.taken(name) == 0:
            change = run.at_phase_change()
            assert change is not None
            words += f" f_{SHOWN[name]} was at {short(change[f'f_{name}'])} before its phase began."
    other = next(
        (one for one in results.longest if one.phases and not _has_threshold(one) and one.lambda_dpo == run.lambda_dpo),
        None,
    )
    if other is None:
        return words
    cause = ""
    if run.taken(run.phases[1][0]) == 0 and other.distance.value < run.distance.value:
        cause = " So its distance from the ideal point comes from the threshold; its second phase never moved it."
    return (
        f"{words} It ends at (f_DPO, f_SFT) = {_ends_at(run)}, a distance of {short(run.distance.value)}; without the "
        f"threshold at {_ends_at(other)}, a distance of {short(other.distance.value)}.{cause}"
    )


def _ends_at(run: ToyRun) -> str:
    return f"({short(run.objective('f_dpo').value)}, {short(run.objective('f_sft').value)})"


def _about_forgetting(run: ToyRun) -> str:
    """Say what Sequential's second phase did to the first one's objective, where it raised it."""
    change = run.at_phase_change()
    if change is None:
        return ""
    (first, _), (second, _) = run.phases
    before, after = change[f"f_{first}"], run.path[-1][f"f_{first}"]
    if after <= before:
        return ""
    change_words = f"its {SHOWN[second]} phase raises f_{SHOWN[first]} from {short(before)} to {short(after)}"
    if run.pair.inner_product >= 0:
        return (
            f"{run.name}: {change_words}. That is the weight decay's work, since the {SHOWN[second]} gradient alone lowers "
            f"f_{SHOWN[first]} here."
        )
    return f"{run.name} forgets: {change_words}."


def _about_choices(run: ToyRun) -> str:
    """Say so where a method that chooses took one objective only."""
    if run.base_method in ("sequential", "mix") or not 0 < run.lambda_dpo < 1:
        return ""
    for name in SHOWN:
        if run.taken(name) == run.steps:
            return f"{run.name} chose {SHOWN[name]} in all of its {run.steps:,} steps: on this problem it is {SHOWN[name]} alone."
    return ""
