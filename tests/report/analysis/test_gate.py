"""What a gate file may say, and the one line that says what is wrong with it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from bench.errors import InputError
from bench.records.metrics import Metric, undescribed
from report.analysis import gate

MMLU, SECONDS = undescribed("mmlu/acc"), undescribed("training_seconds", "s")
PERPLEXITY = Metric(
    "wikitext/word_perplexity",
    "Word perplexity",
    "",
    "lower",
    "score",
    gate=True,
    tolerance=0.01,
    relative=True,
    scale="log",
)


class Side:
    """Stand for one side of a comparison: the figures it has."""

    def __init__(self, *metrics: Metric) -> None:
        self._metrics = {one.name: one for one in metrics}

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self._metrics)

    def metric(self, name: str) -> Metric:
        return self._metrics.get(name) or undescribed(name)


def written(folder: Path, text: str) -> Path:
    path = folder / "gate.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults() -> None:
    """What a recipe is worth gates, what it costs does not; 1 point of accuracy is tolerated, 5 % of a time."""
    made = gate.load(None)
    accuracy, seconds = made.rule(MMLU), made.rule(SECONDS)
    assert (made.level, made.seeds) == (0.05, 3)
    assert (accuracy.gate, accuracy.better) == (True, "higher")
    assert accuracy.tolerance.of(0.5, MMLU) == 0.01
    assert (seconds.gate, seconds.better) == (False, "lower")
    assert seconds.tolerance.of(-60.0, SECONDS) == pytest.approx(3.0)
    assert made.rule(undescribed("win_rate/rule")).gate
    assert not made.rule(undescribed("something_else")).gate


def test_a_file_changes_what_it_names_and_no_more(tmp_path: Path) -> None:
    text = "level: 0.01\nmetrics:\n  training_seconds: {gate: true, tolerance: 10%}\n  '*/acc': {unseen: 0.05}\n"
    made = gate.load(written(tmp_path, text))
    seconds, accuracy = made.rule(SECONDS), made.rule(MMLU)
    assert made.level == 0.01
    assert seconds.gate
    assert seconds.tolerance == gate.Amount(value=0.1, relative=True)
    assert (accuracy.gate, accuracy.unseen, accuracy.tolerance) == (
        True,
        gate.Amount(value=0.05),
        gate.Amount(value=0.01),
    )


def test_a_figure_of_which_neither_direction_is_better_needs_one_to_gate(tmp_path: Path) -> None:
    """Steps are more or fewer; whether that is worse, the file must say."""
    steps = undescribed("steps", "steps")
    made = gate.load(written(tmp_path, "metrics:\n  steps: {better: lower, gate: true}\n"))
    made.check([Side(steps)])
    assert made.rule(steps).gate
    with pytest.raises(
        InputError, match=r"gate\.yaml:2: metrics\.steps: neither direction of steps is better; say `better"
    ):
        gate.load(written(tmp_path, "metrics:\n  steps: {gate: true}\n")).check([Side(steps)])


def test_a_tolerance_of_a_perplexity_is_one_of_its_logarithm(tmp_path: Path) -> None:
    """5 % more is log 1.05, whatever the base; 2 more on a base of exp(3) = 20.0855 is log(1.0995742) = 0.094923."""
    share, amount = (
        gate.load(written(tmp_path, f"metrics:\n  wikitext/*: {{tolerance: {size}}}\n")).rule(PERPLEXITY).tolerance
        for size in ("5%", "2")
    )
    assert share.of(3.0, PERPLEXITY) == pytest.approx(math.log(1.05))
    assert amount.of(3.0, PERPLEXITY) == pytest.approx(0.094923, abs=1e-6)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("trainig_seconds", "gate.yaml:2: metrics.trainig_seconds: unknown metric 'trainig_seconds'; did you mean"),
        ("'hellaswag/*'", "gate.yaml:2: metrics.hellaswag/*: unknown metric"),
        ("gsm8k/exact_match", "more than one figure begins so; name one: gsm8k/exact_match,strict-match, gsm8k/exact"),
    ],
)
def test_a_rule_that_fits_no_figure_is_an_error(tmp_path: Path, pattern: str, message: str) -> None:
    filters = (f"gsm8k/exact_match,{one}" for one in ("strict-match", "flexible-extract"))
    side = Side(MMLU, SECONDS, *(Metric(name, name, "share", "higher", "score") for name in filters))
    with pytest.raises(InputError) as caught:
        gate.load(written(tmp_path, f"metrics:\n  {pattern}: {{gate: true}}\n")).check([side])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "levle: 0.1\n",
            "gate.yaml:1: unknown key 'levle'; did you mean 'level'? known: level, metrics, seeds, suites",
        ),
        ("level: 0.7\n", "gate.yaml:1: level = 0.7: input should be less than 0.5"),
        ("\nseeds: 2\n", "gate.yaml:2: seeds = 2: input should be greater than or equal to 3"),
        ("metrics:\n  mmlu/acc:\n    gaet: true\n", "gate.yaml:3: unknown key 'gaet'; did you mean 'gate'?"),
        (
            "metrics:\n  mmlu/acc: {tolerance: -1}\n",
            "gate.yaml:2: metrics.mmlu/acc.tolerance = -1: must not be negative",
        ),
        (
            "metrics:\n  mmlu/acc: {tolerance: one}\n",
            "gate.yaml:2: metrics.mmlu/acc.tolerance = 'one': must be a number",
        ),
        ("level: 0.1\nlevel: 0.2\n", "gate.yaml:2: level: duplicate key (first on line 1); keep one"),
        ("seeds: true\n", "gate.yaml:1: seeds = True: input should be a valid integer"),
        ("metrics:\n  '*':\n    gate: 1\n", "gate.yaml:3: metrics.*.gate = 1: input should be a valid boolean"),
        ("metrics:\n  '*': {tolerance: .nan}\n", "gate.yaml:2: metrics.*.tolerance = nan: must be a number"),
        ("suites: [{a: 1, a: 2}]\n", "gate.yaml:1: suites[0].a: duplicate key (first on line 1); keep one"),
        ("\nsuites: " + "[" * 5000, "gate.yaml:2: not valid YAML: nested deeper than 32 levels"),
        ("level: 0.1\nsuites: \0", "gate.yaml:2: the character U+0000 has no place in YAML; delete it"),
        ("suites: &a [*a]\n", "gate.yaml:1: suites[0]: an alias of what it stands in"),
        ("- level\n", "gate.yaml:1: a gate is a mapping of the keys level, seeds, suites, metrics; found ['level']"),
        ("level: [\n", "gate.yaml:2: not valid YAML"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        gate.load(written(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        gate.load(tmp_path / "none.yaml")


def test_the_guide_explains_every_key_and_the_example_reads() -> None:
    root = Path(__file__).parents[3]
    text = (root / "docs" / "guide" / "compare.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([\w.]+)` \|", text, flags=re.MULTILINE))
    assert told == set(gate.Gate.model_fields) | {f"metrics.{name}" for name in gate.Rule.model_fields}
    made = gate.load(root / "docs" / "ci" / "gate.yaml")
    assert made.rule(MMLU).unseen == gate.Amount(value=0.05)
