"""What a gate file may say, and the one line that says what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.errors import InputError
from report.analysis import gate


def written(folder: Path, text: str) -> Path:
    path = folder / "gate.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults() -> None:
    """What a recipe is worth gates, what it costs does not; 1 point of accuracy is tolerated, 5 % of a time."""
    made = gate.load(None)
    accuracy, seconds = made.rule("mmlu/acc"), made.rule("training_seconds")
    assert (made.level, made.seeds) == (0.05, 3)
    assert (accuracy.gate, accuracy.better) == (True, "higher")
    assert accuracy.tolerance is not None
    assert seconds.tolerance is not None
    assert accuracy.tolerance.of(0.5) == 0.01
    assert (seconds.gate, seconds.better) == (False, "lower")
    assert seconds.tolerance.of(-60.0) == pytest.approx(3.0)
    assert made.rule("win_rate/rule").gate
    assert not made.rule("something_else").gate


def test_a_file_changes_what_it_names_and_no_more(tmp_path: Path) -> None:
    text = "level: 0.01\nmetrics:\n  training_seconds: {gate: true, tolerance: 10%}\n  '*/acc': {unseen: 0.05}\n"
    made = gate.load(written(tmp_path, text))
    seconds, accuracy = made.rule("training_seconds"), made.rule("mmlu/acc")
    assert made.level == 0.01
    assert seconds.gate
    assert seconds.tolerance == gate.Amount(value=0.1, relative=True)
    assert (accuracy.gate, accuracy.unseen, accuracy.tolerance) == (
        True,
        gate.Amount(value=0.05),
        gate.Amount(value=0.01),
    )


def test_another_metric_needs_its_direction(tmp_path: Path) -> None:
    made = gate.load(written(tmp_path, "metrics:\n  perplexity: {better: lower, gate: true}\n"))
    assert made.rule("perplexity").gate


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
        ("metrics:\n  trainig_seconds: {gate: true}\n", "gate.yaml:2: metrics.trainig_seconds: unknown metric"),
        ("level: 0.1\nlevel: 0.2\n", "gate.yaml:2: level: duplicate key; keep one"),
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
    assert made.rule("mmlu/acc").unseen == gate.Amount(value=0.05)
