"""Lay examples out: answers of the compared policies side by side, and one run's choices of every recipe."""

from __future__ import annotations

from collections.abc import Sequence

from report.analysis import completions
from report.analysis.choices import Choices
from report.analysis.completions import Texts
from report.analysis.load import compared_with, judge_of
from report.analysis.tables import Tables
from report.page.verdict import Verdict
from report.page.where import Where
from report.render.document import Block, Cell, Column, Details, Row, Strip, Strips, Table, Text

MOST_STRIPS = 40
MOST_TEXTS = 40
PART = "part"


def side_by_side(tables: Tables, verdict: Verdict, where: Where, texts: Texts | None = None) -> tuple[Block, ...]:
    """Return answers of the best recipe, what it is compared with and the base model; nothing without two to compare."""
    results = tables.results
    rivals = (verdict.runner_up, verdict.sequential)
    recipes = [verdict.best, *(rival.other for rival in rivals if rival is not None)]
    policies = {recipe.name: next(iter(recipe.jobs.values())) for recipe in recipes if recipe is not None}
    policies["base model"] = "base"
    policies = {name: of for name, of in policies.items() if completions.generation_of(results, of)}
    wanted = completions.prompts(results, list(policies.values()))
    if not wanted or len(policies) < 2:
        return ()
    found = {name: completions.answers(results, of, wanted) for name, of in policies.items()}
    rows = []
    for prompt in wanted:
        cells = [Cell(f"prompt {prompt}")]
        for name in policies:
            one = found[name][prompt]
            note = "not judged" if one.preference is None else f"preferred: {100 * one.preference:.0f} %"
            cells.append(Cell(one.text or "(empty)", link=where.file(one.source, "samples.jsonl"), note=note))
        rows.append(Row(tuple(cells)))
    judged = [name for name in tables.scores if judge_of(name)]
    judges = results.main_judge or ", ".join(map(judge_of, judged)) or "none"
    other = compared_with(tables.metric(judged[0])) if judged else "the data's chosen answers"
    leads = "" if where.archive else " An answer leads to the file with all of them, whole."
    how = (
        f"The first seed's answers to {len(wanted)} prompts, evenly spaced over all, with how far the judge "
        f"prefers each over {other} (judge: {judges}). The records hold our own answers only: prompts and "
        f"reference answers stay in the data set.{leads}"
    )
    columns = (Column("Prompt", numeric=False), *(Column(name, numeric=False, prose=True) for name in policies))
    shown = Text(how), Table("Answers side by side", columns, tuple(rows))
    return (*shown, *_with_text(tables, policies, texts)) if texts else shown


def _with_text(tables: Tables, policies: dict[str, str], texts: Texts) -> tuple[Block, ...]:
    """Return examples with prompt and target, to search in and to filter by whether judges part; or why there are none."""
    results = tables.results
    if texts.missing:
        return (Text(texts.missing, "note"),)
    if any(completions.changed(results, of, texts) for of in policies.values()):
        return (
            Text("Prompts and targets cannot be shown: the data has changed since the answers were judged.", "note"),
        )
    parted = [completions.parted(results, of) for of in policies.values()]
    apart = {prompt for found in parted for prompt, parts in found.items() if parts}
    wanted = completions.prompts(results, list(policies.values()), MOST_TEXTS, apart)
    wanted = [one for one in wanted if one in texts.rows]
    found = {name: completions.answers(results, of, wanted) for name, of in policies.items()}
    rows = []
    for prompt in wanted:
        judges = _judges([found[prompt] for found in parted if prompt in found])
        cells = (*texts.rows[prompt], *(found[name][prompt].text for name in policies))
        shown = (Cell(f"prompt {prompt}"), Cell(judges), *(Cell(text or "(empty)") for text in cells))
        rows.append(Row(shown, tags=(("judges", judges),)))
    rows.sort(key=lambda row: row.cells[1].text != PART)
    titles = ("Prompt's text", "Target", *policies)
    columns = (
        *(Column(one, numeric=False) for one in ("Prompt", "Judges")),
        *(Column(one, numeric=False, prose=True) for one in titles),
    )
    how = (
        f"At most {MOST_TEXTS} prompts are shown, up to half of them such on whose answers judges part, that is prefer different "
        f"sides, the rest evenly spaced over all others; here are {len(rows)}."
    )
    few = Table(
        "Prompts and targets",
        columns,
        tuple(rows),
        notes=(how, f"Answers are cut after {completions.LONGEST} characters."),
        sortable=True,
        searchable=True,
    )
    return (Details("Prompts and targets beside the answers", (few,)),)


def _judges(parted: Sequence[bool]) -> str:
    """Say what judges think of a prompt's answers."""
    return PART if any(parted) else "agree" if parted else "fewer than two"


def strips(tables: Tables, log: dict[str, Choices | None], where: Where) -> tuple[Block, ...]:
    """Return which objective each step took, for the first seed of every recipe; nothing where no run takes steps."""
    rows = []
    for recipe in tables.recipes:
        job = next(iter(recipe.jobs.values()))
        choices = log.get(job)
        if choices is not None:
            rows.append(Strip(recipe.name, choices.bins, choices.words, where.file(job, "steps.jsonl")))
    if not rows:
        return ()
    how = (
        "From a run's first step at the left to its last at the right: the dark part is DPO's share of the steps there, the "
        "light part SFT's. First seed of each recipe; the others stand beside their runs."
    )
    kept = rows[:MOST_STRIPS]
    more = (
        f" Shown are {len(kept)} of {len(rows)} recipes; the others stand beside their runs."
        if len(kept) < len(rows)
        else ""
    )
    return Text(how + more), Strips("Step schedule: which objective each step took", tuple(kept))
