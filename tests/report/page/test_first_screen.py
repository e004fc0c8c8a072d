"""The first screen: what is recommended, how sure that is, and that no two places of a report say different things of a pair."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli.main import app
from bench.errors import InputError
from bench.records.suite_record import find_suites
from report.analysis.findings import Findings
from report.analysis.load import Results
from report.analysis.statistics import estimate
from report.build import build
from report.choose.presets import goal_named, presets, resolve
from report.page import first_screen
from report.page.sections import _top
from report.page.verdict import Verdict

QUICKSTART = Path(__file__).parents[3] / "results" / "quickstart.bench"
EIGHT = ("sequential", "mix", "alright", "maxright", "interpolation", "dpo_with_sft", "trl_sequential", "random_steps")
NOTHING = {"same", "unclear", "no difference seen", "not enough data"}


def findings(folder: Path) -> Findings:
    return Findings(Results(find_suites(folder)[0]))


def half_failed(made: Any) -> Path:
    """Write four methods at one λ, of which Mix lost two seeds and ALRIGHT one."""
    made.behind((0, 1, 2))
    made.suite["seeds"] = [0, 1, 2]
    for method in ("sequential", "mix", "alright", "maxright"):
        for seed in (0, 1, 2):
            lost = (method, seed) in (("mix", 1), ("mix", 2), ("alright", 2))
            made.run(method, 0.5, seed, **({"outcome": "failed"} if lost else {}))
    return Path(made.finish())


@pytest.fixture(params=["quickstart", "one seed", "half-failed", "8 × 5 × 3"])
def suite(request: Any, writer: Callable[..., Any], fill_suite: Callable[..., Path]) -> Path:
    if request.param == "quickstart":
        return QUICKSTART
    if request.param == "one seed":
        return fill_suite(writer(), seeds=(0,))
    if request.param == "half-failed":
        return half_failed(writer())
    return fill_suite(writer(), methods=EIGHT, lambdas=(0.01, 0.25, 0.5, 0.75, 0.99))


def said(tables: Findings) -> Iterator[tuple[str, str, str, str]]:
    """Yield (one, other, figure, word for one against other) from every place that holds two policies against each other."""
    screen = first_screen.make(tables)
    for goal in screen.goals:
        names = [_name(tables, holder.name, goal.recipe) for holder in goal.holders]
        for row in goal.rows:
            yield from (
                (name, names[0], row.title, cell.word) for name, cell in zip(names, row.cells, strict=True) if cell.word
            )
    top = _top(tables).get("top")
    title = tables.metric(tables.verdicts.figure_that_ranks).title
    for row in top.rows if top else ():
        if row.cells[-1].text:
            yield row.cells[0].text, top.rows[0].cells[0].text, title, row.cells[-1].text
    for _, row in tables.against_sequential.iterrows():
        sequential = tables.sequential(float(row["lambda_dpo"]))
        assert sequential is not None
        recipe = next(one for one in tables.recipes if one.key == (row["method"], row["lambda_dpo"]))
        yield recipe.name, sequential.name, tables.metric(row["metric"]).title, row["verdict"]
    verdict = Verdict(tables)
    for lead in (verdict.runner_up, verdict.sequential):
        if lead is not None:
            yield lead.best.name, lead.other.name, title, "better" if lead.verdict == "better" else "unclear"
    order = tables.ranking.order
    for other in order[1:] if tables.ranking.winner is not None else ():
        if not tables.same(order[0], other):
            yield order[0].name, other.name, title, "better"


def _name(tables: Findings, shown: str, recommended: str) -> str:
    """Return a recipe's whole name: the column of Sequential at the same λ has its method's alone."""
    if shown != "sequential":
        return shown
    recipe = next(one for one in tables.recipes if one.name == recommended)
    sequential = tables.sequential(recipe.lambda_dpo)
    assert sequential is not None
    return sequential.name


def test_no_two_places_say_different_things_of_a_pair(suite: Path) -> None:
    turned = {"better": "worse", "worse": "better"}
    found: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for one, other, figure, word in said(findings(suite)):
        plain = "nothing" if word in NOTHING else word
        first, second = sorted((one, other))
        found[first, second, figure].add(plain if first == one else turned.get(plain, plain))
    assert len(found) > 10
    assert {pair: words for pair, words in found.items() if len(words) > 1} == {}


def test_what_is_recommended_is_the_winner_everywhere(suite: Path, tmp_path: Path) -> None:
    """Screen, leaderboard, headline and report.json name the same recipe, or none does."""
    tables = findings(suite)
    build(suite, tmp_path)
    (path,) = tmp_path.glob("*/report.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    goal = content["recommendation"]["goals"][0]
    winner = tables.ranking.winner
    assert goal["recommended"] == (winner.name if winner else None)
    assert (goal["leads"] is None) == (winner is not None)
    page = path.with_name("report.html").read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    assert ('<tr class="best"' in page) == (winner is not None)
    assert (f"<h2>Use {goal['recommended']}</h2>" in page) == (winner is not None)
    assert "did best" not in page
    if winner is not None:
        assert content["verdict"]["headline"].startswith(f"{winner.name} is clearly ahead")


def test_a_low_win_rate_is_not_passed_over() -> None:
    """Quickstart's winner wins 0.3 % of pairs, Sequential at the same λ 34 %, DPO alone 29.9 %."""
    goal = first_screen.make(findings(QUICKSTART)).goals[0]
    assert goal.recipe == "mix at λ = 0.75"
    assert "win rate 0.3 % (sequential 34.0, DPO alone 29.9)" in goal.caveat
    assert goal.caveat.startswith(
        "Its win rate is no better than the base model's: see the goal “max win rate”. It loses:"
    )
    assert goal.confidence.startswith(
        "High confidence by ideal distance: clearly ahead of the 11 other recipes, SFT alone, the base model and DPO alone."
    )
    assert "2,000 redraws of the 3 seeds" in goal.confidence


def test_a_task_below_the_base_models_points_to_the_goal_that_keeps_it() -> None:
    """By win rate Sequential at 0.75 leads, whose accuracy is 47.2 % against the base model's 92.5 %."""
    goals = {goal.name: goal for goal in first_screen.make(findings(QUICKSTART)).goals}
    said = "Its accuracy (world_questions) is worse than the base model's: see the goal “keep accuracy”."
    assert said in goals["max win rate"].caveat
    assert "see the goal" not in goals["max win rate"].caveat.replace(said, "")
    assert "keep accuracy" not in goals["keep accuracy"].caveat


def test_equal_tokens_say_how_many_and_who() -> None:
    """The shortest run of a recipe, ALRIGHT at 0.25, took 14,647 tokens; there Sequential at 0.5 is clearly closer than Mix."""
    tables = findings(QUICKSTART)
    goal = first_screen.make(tables).goals[0]
    least = min(run.trajectory[-1]["tokens"] for run in tables.results.runs)
    assert least == 14647
    name = "ideal_distance_at_equal_tokens"
    means = {one.name: one.estimate(name).mean for one in tables.recipes}
    assert min(means, key=lambda one: means[one]) == "sequential at λ = 0.5"
    assert goal.budget == (
        f"At equal tokens (14,647, where the shortest run of a recipe ended) sequential at λ = 0.5 is the closest to the ideal "
        f"point: {means['sequential at λ = 0.5']:.3f} nats against {means[goal.recipe]:.3f} of mix at λ = 0.75."
    )


def test_words_that_the_screen_uses_are_explained(suite: Path) -> None:
    """λ, the ideal point, the marks and each method of the suite; what is recommended says what its steps descend."""
    tables = findings(suite)
    screen = first_screen.make(tables)
    known = dict(screen.words)
    assert known["λ"].startswith("the weight of the DPO objective")
    assert {"ideal point", "ideal distance", "marks"} <= known.keys()
    assert {"mix", "alright", "maxright", "sequential"} & set(tables.results.methods) <= known.keys()
    goal = screen.goals[0]
    recipe = next(one for one in tables.recipes if one.name == goal.recipe)
    assert goal.how.startswith(f"{recipe.method}: ") == (recipe.method in known)
    if recipe.base_method == "mix":
        said = (
            f"mix: every step descends {recipe.lambda_dpo:g} × DPO loss + {1 - recipe.lambda_dpo:g} × SFT loss (λ: the"
        )
        assert goal.how.startswith(said)


def test_tied_ranks_are_marked(full: Path) -> None:
    """Recipes that are not told apart share a rank and are marked =; a rank that one recipe has alone is not."""
    ranking = findings(full).ranking
    ranks = [ranking.rank(one) for one in ranking.order]
    assert {ranks.count(one) > 1 for one in ranks} == {True, False}
    for one in ranking.order:
        rank = ranking.rank(one)
        assert ranking.place(one) == (f"{rank}=" if ranks.count(rank) > 1 else str(rank))


def test_goals_are_words_of_the_suites_own_figures(full: Path) -> None:
    """MAXRIGHT at 0.5 has a mean distance of 0.05: nine tenths of it are 0.045."""
    texts = {one.name: one.text for one in presets(findings(full))}
    assert texts == {
        "balanced": "minimize ideal_distance",
        "keep accuracy": "mmlu >= base - 1, minimize ideal_distance",
        "max win rate": "maximize win_rate",
        "cheapest": "ideal_distance <= 0.045 + 0.1 * base, minimize seconds",
    }
    assert (goal_named("keep-accuracy"), goal_named("Cheapest"), goal_named("minimize f_sft")) == (
        "keep accuracy",
        "cheapest",
        "",
    )
    assert resolve(findings(full), "Balanced") == "minimize ideal_distance"


def test_a_goal_that_cannot_be_answered_says_why(writer: Callable[..., Any], tmp_path: Path) -> None:
    """Nothing was evaluated: no judge and no task; the others stand."""
    made = writer(seeds=[0])
    made.behind((0,))
    for method in ("sequential", "mix"):
        labels = {"method": method, "lambda_dpo": 0.5, "seed": 0, "phase_steps": {"dpo": 50, "sft": 50}}
        made.train(f"{method}-s0", ["run"], labels, {"dpo": 0.4, "sft": 1.5}, 1.0)
    for path in [*made.folder.glob("jobs/judged-*"), *made.folder.glob("jobs/questions-*")]:
        (path / "status.json").unlink()
    tables = findings(made.finish())
    why = {goal.name: goal.why_not for goal in first_screen.make(tables).goals}
    assert why["max win rate"] == "no judge in this suite"
    assert why["keep accuracy"] == "no task was asked of the base model in this suite"
    assert why["balanced"] == ""
    with pytest.raises(InputError, match="max win rate: no judge"):
        resolve(tables, "max win rate")


def test_one_objective_alone_may_be_the_answer(full: Path) -> None:
    """f_SFT of SFT alone is 1 + 0.02 seed, and 0.8 · 0.05 more of the best recipe's: no recipe is as low."""
    screen = first_screen.make(findings(full), "minimize f_sft")
    own = screen.goals[-1]
    assert (screen.default, own.heading, own.clear) == ("own", "Use SFT alone", True)
    assert [holder.name for holder in own.holders] == ["SFT alone", "maxright at λ = 0.5", "DPO alone", "base model"]
    done = CliRunner().invoke(
        app, ["report", str(full), "--out", str(full.parent / "own"), "--choose", "minimize f_sft"]
    )
    assert done.exit_code == 0
    assert "SFT alone does better than any recipe by these words" in done.output


def test_too_few_seeds_and_missing_runs_recommend_nothing(
    writer: Callable[..., Any], fill_suite: Callable[..., Path]
) -> None:
    (first, *_) = first_screen.make(findings(fill_suite(writer("one"), seeds=(0,)))).goals
    assert (first.heading, first.leads) == ("No recipe can be recommended yet", "maxright at λ = 0.5 leads so far")
    assert first.confidence.startswith(
        "One seed cannot tell a better recipe from luck. Enough would be: three seeds or more"
    )
    (first, *_) = first_screen.make(findings(half_failed(writer("half")))).goals
    assert first.confidence.startswith("3 of 12 planned runs are missing.")
    assert not first.clear


def test_the_same_recipe_twice_is_no_rival(writer: Callable[..., Any], fill_suite: Callable[..., Path]) -> None:
    """Two labels end alike (distance 0.2 each, and best): both are named as one, ahead of the others."""
    folder = fill_suite(writer(), methods=("sequential", "one way", "another way"), lambdas=(0.5,))
    tables = findings(folder)
    goal = first_screen.make(tables).goals[0]
    assert (goal.recipe, goal.clear) == ("one way at λ = 0.5", True)
    assert goal.holders[0].note == "the same recipe as another way at λ = 0.5"
    assert [tables.ranking.rank(one) for one in tables.ranking.order] == [1, 1, 3]


def test_what_would_make_a_lead_unclear_and_what_would_turn_it() -> None:
    """Leads of 0.0438, 0.0364 and 0.0410 nats add up to 0.1212: a rival that is ahead by more on one more seed leads."""
    goal = first_screen.make(findings(QUICKSTART)).goals[0]
    assert "one more seed on which mix at λ = 0.5 is behind by less than 0.002 nats" in goal.overturn
    assert "it leads if ahead by more than 0.121 nats" in goal.overturn
    assert goal.how.endswith("A run takes 36,915 tokens and 4.91 s.")


def test_one_more_seed_that_would_overturn_a_lead() -> None:
    """At the bound the interval of all four leads touches 0; leads that are equal need a seed far below."""
    leads = [1.0, 1.1, 0.9]
    bound = first_screen.turning(leads)
    assert bound is not None
    assert estimate([*leads, bound]).low == pytest.approx(0, abs=1e-9)
    assert bound < 0.9
    assert first_screen.turning([1.0, -0.9, 0.1]) is None


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("quickstart")
    build(QUICKSTART, out)
    return (out / "quickstart" / "report.html").as_uri()


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_answer_stands_above_the_fold(browser: Any, quickstart: str, width: int, height: int) -> None:
    """All of it on a desktop; on a phone the recommendation, its confidence, the switch and the start of the table."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(quickstart)

    def end(selector: str) -> float:
        box = page.locator(selector).first.bounding_box()
        return float(box["y"] + box["height"])

    wanted = ["#goal-balanced h2", "#goal-balanced .sure", ".switch", "#goal-balanced tbody tr"]
    wanted += ["#goal-balanced .standings", "#goal-balanced .caveat"] if width > 1000 else []
    assert [one for one in wanted if end(one) > height] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cells = "[...document.querySelectorAll('#goal-balanced td, #goal-balanced th')]"
    assert page.evaluate(f"{cells}.filter(one => one.scrollWidth > one.clientWidth + 1).length") == 0
    page.close()


@pytest.mark.parametrize("scripts", [True, False])
def test_the_goal_switches_with_and_without_scripts(browser: Any, quickstart: str, scripts: bool) -> None:
    context = browser.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.goto(quickstart)
    page.locator("label:has(#pick-cheapest)").click()
    assert page.locator("#goal-cheapest h2").inner_text().startswith("Use alright")
    assert not page.locator("#goal-balanced").is_visible()
    page.emulate_media(media="print")
    assert page.locator("#goal-balanced").is_visible()
    assert not page.locator("#goal-cheapest").is_visible()
    assert page.locator("#pick-own").is_disabled()
    context.close()


def test_links_open_what_is_folded_and_goals(browser: Any, quickstart: str) -> None:
    page = browser.new_page()
    page.goto(f"{quickstart}#goal-cheapest")
    assert page.locator("#goal-cheapest").is_visible()
    assert not page.locator("#leaderboard table").first.is_visible()
    page.locator("#top a", has_text="all 12 recipes").click()
    page.locator("#leaderboard table").first.wait_for(state="visible")
    page.goto(f"{quickstart}#published")
    page.goto(f"{quickstart}#runs-base")
    page.locator("#runs-base").wait_for(state="visible")
    page.close()
