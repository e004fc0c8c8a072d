"""Prompts from elsewhere: what is read, what it is known by, and what comes of it in a plan and a score."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import plan_view
from bench.data import world
from bench.errors import InputError
from bench.evaluators import prompt_sets
from bench.evaluators.options import WinRate
from bench.plan import planner
from bench.run import preflight
from bench.suite.suite import Suite

ROWS = [
    {"instruction": "One?", "output": "1", "generator": "somebody"},
    {"instruction": "Two?", "input": "of them", "output": "b", "reference": "2", "generator": "somebody"},
    {"prompt": "Three?", "reference": "3", "generator": "somebody"},
]
FILE = prompt_sets.FILE
RULE = {"kind": "rule"}
TinySuite = Callable[..., Suite]


def as_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def as_array(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def about_the_world(path: Path, count: int = 4) -> Path:
    """Write questions about the built-in world without its template, and its courteous answers."""
    rows = world.preference_rows("test", count)
    asked = [row.prompt.removeprefix("Question: ").removesuffix("\nAnswer:") for row in rows]
    return as_lines(path, [{"instruction": one, "output": row.chosen} for one, row in zip(asked, rows, strict=True)])


def test_a_file_gives_instructions_and_references(tmp_path: Path) -> None:
    """A reference of its own goes before an output, an input stands below its instruction."""
    read = prompt_sets.load(str(as_lines(tmp_path / "mine.jsonl", ROWS)), None, None)
    assert [(row.instruction, row.reference) for row in read.rows] == [
        ("One?", "1"), ("Two?\nof them", "2"), ("Three?", "3")
    ]  # fmt: skip
    assert (read.name, read.by, read.against) == (
        "file",
        "somebody",
        "the answers of somebody to the prompts of a file",
    )


def test_a_set_is_known_by_what_it_says(tmp_path: Path) -> None:
    """Neither name nor form nor what is beyond the rows that are taken; a reference changes judging, not answering."""
    one = prompt_sets.load(str(as_lines(tmp_path / "a.jsonl", ROWS)), 2, None)
    same = prompt_sets.load(str(as_array(tmp_path / "b.json", ROWS[:2])), None, None)
    assert (one.sha256, one.instructions_sha256) == (same.sha256, same.instructions_sha256)
    other = prompt_sets.load(str(as_array(tmp_path / "c.json", [ROWS[0], ROWS[1] | {"reference": "two"}])), None, None)
    assert other.instructions_sha256 == one.instructions_sha256
    assert other.sha256 != one.sha256


@pytest.mark.parametrize(
    ("rows", "count", "said"),
    [
        ([ROWS[0], {"instruction": "x"}], None, "mine.json: row 2: no text under 'reference' or 'output'; it has instruction"),
        ([{"output": "x"}], None, "mine.json: row 1: no text under 'instruction' or 'prompt'; it has output"),
        ([{"instruction": 3, "output": "x"}], None, "mine.json: row 1: no text under 'instruction' or 'prompt'"),
        ([{"instruction": " ", "output": "x"}], None, "mine.json: row 1: its instruction is empty"),
        ([{"instruction": "\ud800", "output": "x"}], None, "row 1: 'instruction' holds half of a surrogate pair"),
        (["x"], None, "mine.json: row 1: 'x' is no object with an instruction and a reference answer"),
        ([], None, "mine.json: holds no answer"),
        (ROWS, 4, "evaluation.win_rate.prompts = 4: .*mine.json has 3; lower it, or leave it out to take all"),
    ],
)  # fmt: skip
def test_what_is_no_set_is_refused_in_one_line(rows: list[Any], count: int | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        prompt_sets.load(str(as_array(tmp_path / "mine.json", rows)), count, None)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_nearly_a_sets_is_told_so() -> None:
    with pytest.raises(
        InputError, match=r"prompts_from = 'alpaca-eval': no such file, and .*did you mean 'alpaca_eval'\?"
    ):
        prompt_sets.load("alpaca-eval", None, None)


@pytest.mark.parametrize("place", [f"{FILE}.json", f"{FILE}.jsonl", f"{FILE}/eval.jsonl", "rows.json"])
def test_alpaca_eval_is_found_in_a_mirror(place: str, tmp_path: Path) -> None:
    """By its name as the hub has it, or its configuration's, or as the only rows; other files of the hub's lie beside it."""
    folder = tmp_path / "datasets" / prompt_sets.HUB
    rows = [{"instruction": "Q", "output": "A", "generator": "gpt4_1106_preview"}]
    (as_array if place.endswith(".json") else as_lines)(folder / place, rows)
    if FILE in place:
        as_array(
            folder / "alpaca_eval.json", [{"instruction": "Q", "output": "another", "generator": "text_davinci_003"}]
        )
    read = prompt_sets.load("alpaca_eval", None, tmp_path)
    assert [(row.instruction, row.reference) for row in read.rows] == [("Q", "A")]
    assert read.against == "the answers of gpt-4-1106-preview to the prompts of AlpacaEval 2"
    assert not read.is_published


def test_a_mirror_without_it_says_what_to_add(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    with pytest.raises(InputError, match=r"prompts_from = 'alpaca_eval': tatsu-lab/alpaca_eval: not in the mirror"):
        prompt_sets.load("alpaca_eval", None, tmp_path)
    folder = tmp_path / "datasets" / prompt_sets.HUB
    as_array(folder / "one.json", ROWS), as_array(folder / "two.json", ROWS)
    with pytest.raises(InputError, match=rf"no {FILE}.json, which holds .*; it has one.json, two.json"):
        prompt_sets.load("alpaca_eval", None, tmp_path)


def test_without_a_hub_or_a_mirror_one_line_says_what_to_do() -> None:
    with pytest.raises(
        InputError, match=r"cannot be fetched \(the hub cannot be reached\); go online, or pass --mirror DIR"
    ):
        prompt_sets.load("alpaca_eval", None, None)


def test_the_published_set_is_known_by_its_content(judgements: Path, tmp_path: Path) -> None:
    """All 805, in whichever file; one reference more or less and it is another set, which published figures do not fit."""
    rows = json.loads((judgements / "reference_outputs.json").read_text())
    as_lines(tmp_path / "datasets" / prompt_sets.HUB / f"{FILE}.jsonl", rows)
    read = prompt_sets.load("alpaca_eval", None, tmp_path)
    assert read.is_published
    judge = WinRate.model_validate({"prompts_from": "alpaca_eval"}).judge
    facts = prompt_sets.facts(read, judge, judge.configuration or "", 3)
    assert (facts["published_compares"], facts["cut_prompts"]) == (True, 3)
    assert not prompt_sets.load("alpaca_eval", 804, tmp_path).is_published


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"orders": "both"}, "each pair judged in both orders, published in one drawn at random"),
        ({"model": "gpt-6-luna"}, "judged by gpt-6-luna, published by gpt-4-1106-preview"),
        (
            {"configuration": "alpaca_eval_gpt4_turbo_fn"},
            "judged under alpaca_eval_gpt4_turbo_fn, published under weighted_",
        ),
        ({"parameters": {"seed": 1}}, "judge.parameters changes requests"),
        (RULE, "judged by the kind rule, published by gpt-4-1106-preview"),
    ],
)
def test_why_published_figures_do_not_compare(changes: dict[str, Any], reason: str) -> None:
    """The prompts are one reason here, each change of the judge another."""
    judge = WinRate.model_validate({"prompts_from": "alpaca_eval", "judge": changes}).judge
    few = prompt_sets.PromptSet("alpaca_eval", (prompt_sets.Prompt("Q", "A"),), "gpt-4-1106-preview")
    prompts, other = prompt_sets.why_not_published(few, judge, judge.configuration or "")
    assert prompts == "1 of 805 prompts or reference answers, published are all 805"
    assert other.startswith(reason)


def test_alpaca_evals_own_judge_is_the_default_with_its_set() -> None:
    made = WinRate.model_validate({"prompts_from": "alpaca_eval"})
    assert (made.prompts, made.judge.kind, made.judge.orders) == ("all", "openai", "single")
    assert made.judge.configuration == "weighted_alpaca_eval_gpt4_turbo"
    named = WinRate.model_validate({"prompts_from": "alpaca_eval", "judge": {"kind": "rule", "orders": "both"}})
    assert (named.judge.kind, named.judge.orders) == ("rule", "both")
    held_out = WinRate.model_validate({"prompts": 2, "judge": RULE})
    assert (held_out.judge.orders, held_out.prompts_from) == ("both", "held_out")


def test_held_out_pairs_need_a_number() -> None:
    with pytest.raises(ValueError, match="prompts: say how many held-out pairs are judged"):
        WinRate.model_validate({"judge": RULE})


def test_a_plan_knows_the_rows_and_how_many(tiny: TinySuite, tmp_path: Path) -> None:
    """Left out, `prompts` is the whole file; jobs are known by its content and the form of prompts, not by the pairs."""
    path = about_the_world(tmp_path / "mine.jsonl")
    judge = {"kind": "openai", "model": "gpt-4o", "orders": "single"}
    made = planner.make(tiny(evaluation={"win_rate": {"prompts_from": str(path), "judge": judge}}))
    answers = next(job for job in made.jobs.values() if job.kind == "generate")
    assert set(answers.settings) == {"prompts", "generation", "prompts_from", "model", "form"}
    assert answers.settings["prompts"] == 4
    assert answers.data == {}
    assert str(path) not in json.dumps([job.settings for job in made.jobs.values()])
    evaluator = made.suite.evaluation.chosen["win_rate"]  # type: ignore[attr-defined]
    assert evaluator.pairs_wanted() == 0
    (price,) = plan_view.prices(made, dict.fromkeys(made.jobs, "pending"), set(made.jobs))
    assert price["comparisons"] == 4 * 4  # base, reference, optimum and one run
    pending = dict.fromkeys(made.jobs, "pending")
    assert "4 × answers to 4 prompts of mine.jsonl: 4 pending" in plan_view.as_text(made, pending, set(made.jobs))

    moved = about_the_world(tmp_path / "moved.json")
    again = planner.make(tiny(evaluation={"win_rate": {"prompts_from": str(moved), "prompts": 4, "judge": judge}}))
    assert set(again.jobs) == set(made.jobs)
    fewer = planner.make(tiny(evaluation={"win_rate": {"prompts_from": str(moved), "prompts": 3, "judge": judge}}))
    assert answers.id not in fewer.jobs


def test_held_out_prompts_make_the_jobs_they_always_made(tiny: TinySuite) -> None:
    made = planner.make(tiny(evaluation={"win_rate": {"prompts": 2, "judge": RULE}}))
    answers, judged = (next(job for job in made.jobs.values() if job.kind == kind) for kind in ("generate", "judge"))
    assert set(answers.settings) == {"prompts", "generation", "model", "data"}
    assert "prompts_from" not in judged.settings
    assert set(answers.data) == set(judged.data) == {"preference"}


def test_answers_to_a_file_are_judged_against_its_references(
    tiny: TinySuite, run_plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained model answers nothing right, and the world's own courteous answers win each time.

    The judge sees the bare instruction, the model the world's template, of whose prompts 3 tokens are left here.
    """
    path = about_the_world(tmp_path / "mine.jsonl")
    suite = tiny(
        evaluation={"win_rate": {"prompts_from": str(path), "judge": RULE, "generation": {"max_new_tokens": 4}}}
    )
    suite = suite.model_copy(update={"data": suite.data.model_copy(update={"max_prompt_tokens": 3})})
    assert preflight.check_data(suite, None) == [
        "evaluation.win_rate: 4 of 4 prompts are longer than data.max_prompt_tokens = 3 and lose their left end"
    ]
    runner = run_plan(suite)
    judged = runner.run("judged-base")
    score = judged.scores["win_rate/rule"]
    assert (score["value"], score["n"], score["cut_prompts"]) == (0, 4, 4)
    assert score["against"] == "the reference answers to the prompts of a file"
    assert judged.metric("win_rate/rule").meaning.startswith("against the reference answers to the prompts of a file, ")
    assert runner.run("answers-base").rows("samples")
    about = json.loads((runner.run("answers-base").path / "data.json").read_text())["prompts"]
    assert (about["rows"], about["cut_prompts"]) == (4, 4)


def test_a_file_that_changes_on_the_way_is_told(tiny: TinySuite, tmp_path: Path) -> None:
    path = about_the_world(tmp_path / "mine.jsonl")
    made = planner.make(tiny(evaluation={"win_rate": {"prompts_from": str(path), "judge": RULE}}))
    evaluator = made.suite.evaluation.chosen["win_rate"]  # type: ignore[attr-defined]
    evaluator.check(lambda text: None)
    path.write_text(path.read_text().replace("Could", "Can"))
    with pytest.raises(InputError, match="the rows have changed since this run began"):
        evaluator.check(lambda text: None)


def test_the_published_figures_are_those_that_alpaca_eval_ships() -> None:
    """The report's file of facts against the leaderboard inside the installed package."""
    from report.page import alpaca_eval as page

    spec = importlib.util.find_spec("alpaca_eval")
    assert spec is not None
    name = "leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv"
    with (Path(str(spec.origin)).parent / name).open(encoding="utf-8") as file:
        shipped = {row[""]: row for row in csv.DictReader(file)}
    kept = json.loads(page.DATA.read_text())
    assert len(kept["models"]) > 10
    for model, figures in kept["models"].items():
        assert figures == [float(shipped[model][column]) for column in kept["columns"]]
