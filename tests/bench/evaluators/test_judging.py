"""Several judges of the same answers: a job and a score each, none of which hangs on the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from other_evaluators import LengthJudge
from pydantic import ValidationError

from bench.cli import plan_view
from bench.errors import InputError, SuiteError
from bench.evaluators import win_rate
from bench.evaluators.judging import Judging
from bench.evaluators.options import WinRate
from bench.judges import JUDGES
from bench.plan import planner
from bench.records import record
from bench.run import handlers, preflight, standing
from bench.suite import smoke
from bench.suite.suite import Suite

TinySuite = Callable[..., Suite]
RULE = {"kind": "rule"}
LOCAL = {"kind": "local", "local_model": {"source": "random"}}


def judged(tiny: TinySuite, judge: Any) -> Suite:
    win_rate = {"prompts": 2, "generation": {"max_new_tokens": 4}, "judge": judge}
    return tiny(evaluation={"win_rate": win_rate})


def paid(endpoint: Any, model: str, **changes: Any) -> dict[str, Any]:
    """A judge at the loopback endpoint, of a dollar a thousand tokens in."""
    price = {"input_usd_per_million_tokens": 1000.0, "output_usd_per_million_tokens": 0.0}
    made = {"kind": "openai", "model": model, "base_url": endpoint.url, "key_variable": "JUDGE_KEY", "price": price}
    return made | {"first_pause_seconds": 0.0} | changes


def judgings(suite: Suite) -> dict[str, list[str]]:
    """Return judge -> the ids of its jobs, in the plan's order."""
    found: dict[str, list[str]] = {}
    for job in planner.make(suite).jobs.values():
        if job.kind == "judge":
            assert job.labels is not None
            found.setdefault(job.labels.as_dict()["judge"], []).append(job.id)
    return found


def test_each_judge_judges_the_same_answers(tiny: TinySuite, run_plan: Any, endpoint: Any) -> None:
    """The endpoint prefers what it is shown first with 0.9: 50 % by both orders, and a position bias of 0.4."""
    endpoint.answer = lambda prompt, before: endpoint.choose(0.9)
    runner = run_plan(judged(tiny, [RULE, paid(endpoint, "panelist")]))
    jobs = [job for job in runner.plan.jobs.values() if job.id.startswith("judged-base-")]
    assert [(job.stage, job.labels.as_dict()["judge"]) for job in jobs] == [
        ("judge:rule", "rule"), ("judge:panelist", "panelist"),
    ]  # fmt: skip
    answers = runner.job("answers-base").id
    assert all(job.inputs.as_dict() == {"answers": answers} for job in jobs)
    made = [runner.run(job.id) for job in jobs]
    assert [list(one.scores) for one in made] == [["win_rate/rule"], ["win_rate/panelist"]]
    score = made[1].scores["win_rate/panelist"]
    assert (score["value"], score["position_bias"]) == (pytest.approx(50.0), pytest.approx(0.4))
    lengths = {row["id"]: len(row["answer"].strip()) for row in runner.run(answers).rows("samples")}
    theirs = [pair.chosen.strip() for pair in runner.context.datasets(runner.context.tokenizer(None), {}, 2).judged]
    for one in made:
        assert {row["id"]: row["length_difference"] for row in one.rows("samples")} == {
            number: length - len(theirs[number]) for number, length in lengths.items()
        }


def test_a_judging_is_the_same_job_alone_and_beside_others(tiny: TinySuite) -> None:
    """One more judge, or another main one, makes no new job of what is judged already."""
    alone = judgings(judged(tiny, RULE))
    several, turned = judgings(judged(tiny, [RULE, LOCAL])), judgings(judged(tiny, [LOCAL, RULE]))
    assert list(several) == ["rule", "local:random"]
    assert list(turned) == ["local:random", "rule"]
    assert several["rule"] == turned["rule"] == alone["rule"]
    assert several["local:random"] == judgings(judged(tiny, LOCAL))["local:random"]


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ([RULE], "a list holds two judges or more; write a single one without the list"),
        ([], "a list holds two judges or more; write a single one without the list"),
        ([RULE, {"kind": "rul"}], "unknown judge 'rul'"),
        ([RULE, {"orders": "both"}], "Field required"),
        ("rule", "Input should be a valid dictionary"),
    ],
)
def test_what_is_no_list_of_judges_is_refused(judge: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WinRate.model_validate({"prompts": 2, "judge": judge})


def test_an_error_names_the_judge_by_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        WinRate.model_validate({"prompts": 2, "judge": [RULE, RULE | {"orders": "some"}]})
    assert caught.value.errors()[0]["loc"] == ("judge", 1, "orders")


def test_two_judges_of_one_name_are_refused(tiny: TinySuite) -> None:
    with pytest.raises(SuiteError) as caught:
        planner.make(judged(tiny, [RULE, LOCAL, RULE | {"orders": "single"}]))
    assert str(caught.value) == (
        "evaluation.win_rate.judge[2]: its score would be win_rate/rule, as that of evaluation.win_rate.judge[0] is; judges "
        "have different models, or leave one out"
    )


def test_what_the_second_cannot_be_is_said_of_the_second(tiny: TinySuite) -> None:
    with pytest.raises(SuiteError, match=r"^evaluation\.win_rate\.judge\[1\]\.configuration: unknown configuration"):
        planner.make(judged(tiny, [RULE, LOCAL | {"configuration": "nobodys"}]))


def test_every_paid_judge_is_tried_before_anything_is_trained(tiny: TinySuite, endpoint: Any, tmp_path: Path) -> None:
    suite = judged(tiny, [paid(endpoint, "first"), RULE, paid(endpoint, "second")])
    (said,) = preflight.try_out(suite, {"judge", "judge:first", "judge:second"}, tmp_path, None)
    assert [line.split(" answers to ")[0] for line in said.splitlines()] == [
        "the judge first at 127.0.0.1", "the judge second at 127.0.0.1",
    ]  # fmt: skip
    assert [body["model"] for body in endpoint.bodies] == ["first", "second"]
    (said,) = preflight.try_out(suite, {"judge", "judge:second"}, tmp_path, None)
    assert said.startswith("the judge second at ")
    assert preflight.try_out(suite, {"train"}, tmp_path, None) == []
    assert len(endpoint.bodies) == 3


def test_a_judge_that_does_not_answer_is_named_by_its_place(tiny: TinySuite, endpoint: Any, tmp_path: Path) -> None:
    endpoint.answer = lambda prompt, before: endpoint.respond(status=401, body=b"{}")
    suite = judged(tiny, [RULE, paid(endpoint, "second")])
    with pytest.raises(InputError, match=r"^evaluation\.win_rate\.judge\[1\]: .*does not accept the key"):
        preflight.try_out(suite, {"judge", "judge:second"}, tmp_path, None)


def test_a_plan_prices_each_paid_judge(tiny: TinySuite, endpoint: Any, tmp_path: Path) -> None:
    """Base, two optima (one is the reference) and Mix: 4 policies × 2 pairs × 2 orders each."""
    suite = judged(tiny, [paid(endpoint, "first"), RULE, paid(endpoint, "second", orders="single")])
    plan = planner.make(suite)
    states = standing.look(plan, tmp_path).states
    made = plan_view.as_dict(plan, states, set(plan.jobs))
    assert [(one["judge"], one["comparisons"]) for one in made["judges"]] == [("first", 16), ("second", 8)]
    assert made["judge"] == made["judges"][0]
    text = plan_view.as_text(plan, states, set(plan.jobs))
    for judge in ("first", "rule", "second"):
        assert f"4 × judged answers, {judge}: 4 pending" in text
    done = {job: "complete" if plan.jobs[job].stage == "judge:first" else state for job, state in states.items()}
    assert [one["judge"] for one in plan_view.as_dict(plan, done, set(plan.jobs))["judges"]] == ["second"]


def test_what_one_judge_was_paid_does_not_stop_another(tiny: TinySuite, run_plan: Any, endpoint: Any) -> None:
    """Four comparisons of 300 tokens cost a judge $1.20 here; what both cost is more than the second's ceiling."""
    endpoint.answer = lambda prompt, before: endpoint.choose(0.7)
    judges = [paid(endpoint, "first"), paid(endpoint, "second", max_cost_usd=2.2, concurrency=1)]
    runner = run_plan(judged(tiny, judges))
    jobs = {job.stage: job.id for job in runner.plan.jobs.values() if job.id.startswith("judged-base-")}
    first = runner.run(jobs["judge:first"]).scores["win_rate/first"]
    second = runner.run(jobs["judge:second"]).scores["win_rate/second"]
    assert first["cost_usd"] == second["cost_usd"] == pytest.approx(4 * 0.3)
    folder = runner.folder / "jobs"
    asked = runner.folder / "preflight" / "judge" / "journal.jsonl"  # whoever it is of
    assert set(win_rate.journals(runner.folder, "second")) == {folder / jobs["judge:second"] / "journal.jsonl", asked}
    assert list(win_rate.journals(runner.folder, "nobody")) == [asked]


def test_a_ceiling_names_the_judge_by_its_place(tiny: TinySuite, run_plan: Any, endpoint: Any) -> None:
    runner = run_plan(judged(tiny, [RULE, paid(endpoint, "second", max_cost_usd=0.1)]))
    job = next(job for job in runner.plan.jobs.values() if job.stage == "judge:second")
    runner.needs(job.id)
    status = handlers.run(job, runner.context)
    assert status["outcome"] == record.FAILED
    assert "of evaluation.win_rate.judge[1].max_cost_usd = 0.1 are spent" in status["message"]


def test_another_main_judge_asks_nobody_again(tiny: TinySuite, run_plan: Any, endpoint: Any) -> None:
    endpoint.answer = lambda prompt, before: endpoint.choose(0.7)
    judges = [paid(endpoint, "first"), RULE]
    runner = run_plan(judged(tiny, judges))
    runner.run(next(job.id for job in runner.plan.jobs.values() if job.stage == "judge:first"))
    asked = len(endpoint.bodies)
    turned = run_plan(judged(tiny, judges[::-1]))
    assert set(turned.plan.jobs) == set(runner.plan.jobs)
    turned.run(next(job.id for job in turned.plan.jobs.values() if job.stage == "judge:first"))
    assert len(endpoint.bodies) == asked


def test_a_smoke_of_several_needs_no_network_and_no_key(tiny: TinySuite, run_plan: Any, endpoint: Any) -> None:
    suite = smoke.shrink(judged(tiny, [paid(endpoint, "first", orders="single"), paid(endpoint, "second"), RULE]))
    assert isinstance(suite, Suite)
    judges = suite.evaluation.chosen["win_rate"].options.judges
    assert [(one.kind, one.orders) for one in judges] == [("rule", "single"), ("local", "both")]
    runner = run_plan(suite)
    for job in [one for one in runner.plan.jobs.values() if one.id.startswith("judged-base-")]:
        assert runner.run(job.id).complete
    assert endpoint.bodies == []


def test_models_of_local_judges_are_named_by_place() -> None:
    made = Judging(WinRate.model_validate({"prompts": 2, "judge": [RULE, LOCAL]}))
    assert list(made.models()) == ["evaluation.win_rate.judge[1].local_model"]
    alone = Judging(WinRate.model_validate({"prompts": 2, "judge": LOCAL}))
    assert list(alone.models()) == ["evaluation.win_rate.judge.local_model"]


def test_another_packages_judge_makes_its_own_judgings_only(tiny: TinySuite, offer: Callable[..., None]) -> None:
    offer(JUDGES, "length", LengthJudge)
    plan = planner.make(judged(tiny, [RULE, {"kind": "length", "likes": "anything"}]))
    made = {job.stage: job.plugins for job in plan.jobs.values() if job.kind == "judge"}
    assert made["judge:rule"] == ()
    assert made["judge:length"]


def test_a_suite_is_kept_as_it_was_written(tiny: TinySuite) -> None:
    dumped = judged(tiny, [RULE, LOCAL]).model_dump(mode="json")["evaluation"]["win_rate"]["judge"]
    assert [one["kind"] for one in dumped] == ["rule", "local"]
    assert judged(tiny, RULE).model_dump(mode="json")["evaluation"]["win_rate"]["judge"]["kind"] == "rule"
