"""Write the card of a data set that holds a suite's records: what came out, how to read it, what is and is not in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.records.suite_record import SuiteRecord
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.analysis.toy import ToyResults, is_toy
from report.page.verdict import Verdict
from report.render.document import Cell, Column, Row, Table
from report.render.markdown import escape, table
from report.render.shown import shown


def render(suite: SuiteRecord, name: str, model: str | None, *, answers: bool) -> str:
    """Return the card as Markdown with the hub's metadata.

    Args:
        suite: the records that are given away.
        name: the data set's ORG/NAME.
        model: the model's ORG/NAME; None where none goes along.
        answers: whether policies' answers are in the records.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    toy = is_toy(suite)
    # The viewer shows the table of runs; an archive it cannot show.
    configs: dict[str, Any] = {} if toy else {"configs": [{"config_name": "runs", "data_files": "runs.parquet"}]}
    data = DatasetCardData(
        pretty_name=f"Records of {suite.name}",
        tags=["posttrain-bench", "benchmark-results", "dpo", "sft", "lora"],
        **configs,
    )
    text = "\n\n".join(_sections(suite, name, model, answers))
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n", ignore_metadata_errors=False)).rstrip() + "\n"


def _sections(suite: SuiteRecord, name: str, model: str | None, answers: bool) -> Iterator[str]:
    toy = is_toy(suite)
    yield f"# Records of {escape(suite.name)}"
    if described := suite.info["suite"].get("description"):
        yield escape(str(described))
    if suite.info.get("smoke"):
        yield "> **A smoke run: a tiny untrained model stood in for the suite's own. Its figures measure nothing.**"
    if toy:
        yield escape(_toy_headline(suite))
    else:
        yield from _came_out(suite)
    if model:
        yield f"The policy that was published with them: [{model}](https://huggingface.co/{model})."
    yield "## What is in it"
    yield "\n".join(f"- {line}" for line in _contents(suite, answers, toy))
    yield "## How to read it"
    commands = (
        f"hf download {name} --repo-type dataset --local-dir records",
        "bench report records  # the page, tables and JSON",
        f"bench compare MY_RESULTS --baseline {name}",
    )
    yield "With `bench`, the package posttrain-bench:\n\n```sh\n" + "\n".join(commands) + "\n```"
    if not toy:
        yield f'```python\nimport pandas as pd\n\nruns = pd.read_parquet("hf://datasets/{name}/runs.parquet")\n```'
    yield "## Limits"
    yield (
        "Figures compare at equal rows, reference, β, reduction, template and dtype; costs at equal hardware; win rates at equal "
        "judge. `bench compare` refuses what does not. The terms of base model and data sets apply; bench does not know them."
    )


def _toy_headline(suite: SuiteRecord) -> str:
    results = ToyResults(suite)
    return f"A toy suite: softmax policies of a few parameters, {len(results.runs)} runs."


def _came_out(suite: SuiteRecord) -> Iterator[str]:
    tables = Findings(Results(suite))
    verdict = Verdict(tables)
    yield f"**{escape(verdict.headline)}**"
    yield "\n".join(f"- {escape(sentence)}" for sentence in verdict.sentences)
    yield _leaderboard(tables)


def _leaderboard(tables: Findings) -> str:
    """Lay the recipes out in their rank, with every score."""
    names = [tables.distance, *tables.scores]
    writes = {name: shown(tables.metric(name), [one.estimate(name).mean for one in tables.ranked]) for name in names}
    columns = (Column("Rank"), Column("Recipe", numeric=False), *(Column(writes[name].title) for name in names))
    rows = []
    for recipe in tables.ranked:
        rank = tables.ranking.rank(recipe)
        estimates = [(writes[name], recipe.estimate(name)) for name in names]
        cells = [Cell(write.mean(one.mean, one.sd) if one.n else "–") for write, one in estimates]
        rows.append(Row((Cell("–" if rank is None else str(rank)), Cell(recipe.name), *cells)))
    notes = ("Means ± standard deviations over seeds; recipes that are not told apart share a rank.",)
    return table(Table("", columns, tuple(rows), notes=notes))


def _contents(suite: SuiteRecord, answers: bool, toy: bool) -> Iterator[str]:
    archive = f"`{suite.name}.bench`: the records of {len(suite.jobs)} jobs"
    yield f"{archive}, a zip of JSON and JSON lines with their sha256, without weights and logs"
    if not toy:
        yield "`runs.parquet`: a row a run, every figure with its unit in the name, settings and hashes"
    yield "`report.html`: the whole report as one page that needs no network"
    yield "Prompts, questions and reference answers are not in it; hashes say which they were"
    yield (
        "Policies' answers and judges' raw replies are in it"
        if answers
        else "Policies' answers and judges' raw replies were left out"
    )
