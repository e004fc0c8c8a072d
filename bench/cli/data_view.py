"""Show what becomes of a suite's rows: as the model will see them, what is learned, and what was cut, refused or doubled."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from bench.methods import Objective
from bench.records import row_counts

if TYPE_CHECKING:
    from bench.data.tokens import Datasets, Example, Split
    from bench.settings import DataSource
    from bench.suite.suite import Suite

SETS = (("preference", Objective.DPO, ("chosen", "rejected")), ("instruction", Objective.SFT, ("answer",)))
LEARNED = ("⟦", "⟧")


def as_dict(suite: Suite, datasets: Datasets, tokenizer: Any, shown: int) -> dict[str, Any]:
    """Return both sets as JSON values: shape, counts over training and held-out rows, lengths, and the first rows."""
    made: dict[str, Any] = {"schema": 1, "suite": suite.name, "model": suite.model.path or suite.model.source}
    for name, objective, answers in SETS:
        train, held_out = datasets.train[objective], datasets.held_out[objective]
        source: DataSource = getattr(suite.data, name)
        made[name] = {
            "path": source.path or source.source,
            "format": "that of the pairs" if source.source == "chosen" else getattr(source, "format", None),
            "shape": train.facts.get("shape"),
            "columns_not_read": train.facts.get("columns_not_read", []),
            "counts": row_counts.totals([train.facts, held_out.facts]),
            "tokens": _lengths(train.examples, answers),
            "rows": [
                {"row": number, "prompt": _decoded(tokenizer, example.prompt)}
                | {one: _decoded(tokenizer, ids) for one, ids in zip(answers, example.answers, strict=True)}
                for number, example in _first(train, shown)
            ],
        }
    return made


def show(suite: Suite, datasets: Datasets, tokenizer: Any, shown: int, console: Console) -> None:
    """Print both sets for people; learned tokens stand in ⟦ ⟧."""
    described = as_dict(suite, datasets, tokenizer, shown)
    for name, objective, answers in SETS:
        _show_set(name, described[name], console)
        for number, example in _first(datasets.train[objective], shown):
            console.print(_row(tokenizer, number, example, answers), soft_wrap=True)
    for line in warnings(datasets):
        console.print(f"bench: warning: {line}", markup=False, highlight=False, soft_wrap=True)


def warnings(datasets: Datasets) -> list[str]:
    """Say what is doubtful about both sets."""
    return [
        f"data.{name}: {line}"
        for name, objective, _ in SETS
        for line in row_counts.warnings(datasets.train[objective].facts, datasets.held_out[objective].facts)
    ]


def _show_set(name: str, described: dict[str, Any], console: Console) -> None:
    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    say(f"\n{name}: {described['path']}, format {described['format']}", "bold")
    say(f"  shape: {described['shape']}")
    if described["columns_not_read"]:
        say(f"  columns not read: {', '.join(described['columns_not_read'])}")
    say(f"  {row_counts.in_words(described['counts'])}")
    for part, one in described["tokens"].items():
        say(f"  {part}: {one['min']} to {one['max']} tokens, median {one['median']:g}")


def _first(split: Split, shown: int) -> list[tuple[int, Example]]:
    return list(zip(split.numbers, split.examples, strict=True))[:shown]


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _lengths(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, dict[str, float]]:
    lengths = {"prompt": [len(one.prompt) for one in examples]}
    lengths |= {name: [len(one.answers[place]) for one in examples] for place, name in enumerate(answers)}
    return {
        name: {"min": min(found), "median": statistics.median(found), "max": max(found)}
        for name, found in lengths.items()
    }


def _row(tokenizer: Any, number: int, example: Example, answers: Sequence[str]) -> Text:
    made = Text(f"\n  row {number}\n", style="dim")
    made.append(f"    prompt: {_shown(_decoded(tokenizer, example.prompt))}", style="not dim")
    for place, name in enumerate(answers):
        made.append(f"\n    {name}: ")
        learned = set(example.learned(place))
        for start, stop in _runs(len(example.answers[place]), learned):
            text = _shown(_decoded(tokenizer, example.answers[place][start:stop]))
            if start in learned:
                made.append(f"{LEARNED[0]}{text}{LEARNED[1]}", style="not dim bold green")
            else:
                made.append(text, style="not dim")
    return made


def _runs(length: int, learned: set[int]) -> list[tuple[int, int]]:
    """Cut an answer's places into runs that are learned and runs that are not."""
    borders = [place for place in range(1, length) if (place in learned) != (place - 1 in learned)]
    return list(zip([0, *borders], [*borders, length], strict=True))


def _shown(text: str) -> str:
    """Write line ends and control characters so that a row stays on its line and does nothing to the terminal."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
