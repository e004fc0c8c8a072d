from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.evaluators.win_rate import JOURNAL, judge, judge_name
from bench.judges import JudgeSettings, alpaca, replay
from bench.judges.requests import Pair
from bench.records.pack import pack
from bench.records.record import write_json

PAIRS = [Pair(number, f"Question {number}?", f"our answer {number}", f"their answer {number}") for number in range(4)]


def asked(endpoint: Any, folder: Path, **changes: Any) -> tuple[dict[str, Any], list[Any]]:
    endpoint.answer = endpoint.like_ours
    given = {"kind": "openai", "model": "org/some-judge", "base_url": endpoint.url, "key_variable": "JUDGE_KEY"}
    given |= {"configuration": "weighted_alpaca_eval_gpt4_turbo"}
    settings = JudgeSettings.model_validate(given | changes)
    return judge(PAIRS, settings, folder, None, lambda text: None)  # type: ignore[arg-type]


def replayed(path: Path, pairs: list[Pair] = PAIRS, **changes: Any) -> tuple[dict[str, Any], list[Any]]:
    settings = JudgeSettings.model_validate({"kind": "replay", "journal": str(path), **changes})
    return judge(pairs, settings, path.parent / "nowhere", None, lambda text: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("orders", ["both", "single"])
def test_a_journal_gives_the_same_win_rate_without_its_judge(
    orders: str, endpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pair by pair, under the same name; nothing is asked, and no key is needed."""
    scores, rows = asked(endpoint, tmp_path / "judged", orders=orders)
    monkeypatch.delenv("JUDGE_KEY")
    before = len(endpoint.prompts)
    again, rows_again = replayed(tmp_path / "judged" / JOURNAL, orders=orders)
    assert rows_again == rows
    score, same = scores["win_rate/org-some-judge"], again["win_rate/org-some-judge"]
    assert {name: score[name] for name in same} == same
    assert len(endpoint.prompts) == before
    assert not (tmp_path / "nowhere").exists()
    assert replayed(tmp_path, orders=orders)[1] == rows  # a folder with journals below it


def test_a_comparison_that_was_not_judged_is_unjudged(endpoint: Any, tmp_path: Path) -> None:
    """One order alone cannot stand for both, and a changed answer is another comparison."""
    asked(endpoint, tmp_path, orders="single")
    scores, _ = replayed(tmp_path / JOURNAL)
    assert scores["win_rate/org-some-judge"]["reason"] == (
        "4 of 4 unjudged; replies that could not be used: 4 × no reply kept (there is no reply to it in the journal)"
    )
    changed = [Pair(0, "Question 0?", "our other answer", "their answer 0"), *PAIRS[1:]]
    scores, _ = replayed(tmp_path / JOURNAL, changed, orders="single")
    assert scores["win_rate/org-some-judge"]["reason"].startswith("1 of 4 unjudged; replies that could not be used")


def test_of_several_judges_one_is_chosen(endpoint: Any, tmp_path: Path) -> None:
    asked(endpoint, tmp_path)
    asked(endpoint, tmp_path, model="another")
    with pytest.raises(InputError, match=r"holds replies of another, org-some-judge; choose one by .*\.model"):
        replayed(tmp_path / JOURNAL)
    assert "win_rate/another" in replayed(tmp_path / JOURNAL, model="another")[0]
    with pytest.raises(InputError, match="holds no reply of third; it has: another, org-some-judge"):
        replayed(tmp_path / JOURNAL, model="third")


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such journal; give a journal"):
        judge_name(JudgeSettings(kind="replay", journal=str(tmp_path / "none")))
    (tmp_path / JOURNAL).write_text("hello\n")
    with pytest.raises(InputError, match="holds no reply of any judge"):
        judge_name(JudgeSettings(kind="replay", journal=str(tmp_path)))


def test_the_content_of_a_journal_is_its_identity(endpoint: Any, tmp_path: Path) -> None:
    asked(endpoint, tmp_path / "one")
    moved = tmp_path / "moved" / JOURNAL
    moved.parent.mkdir()
    moved.write_bytes((tmp_path / "one" / JOURNAL).read_bytes())
    first = replay.content_hash(moved)
    assert first == replay.content_hash(tmp_path / "one" / JOURNAL)
    with moved.open("a") as file:
        file.write("{}\n")
    assert replay.content_hash(moved) != first


def test_an_archive_of_records_is_replayed_like_their_folder(endpoint: Any, tmp_path: Path) -> None:
    """Two judgings with a journal each, whose folders' names sort otherwise with "/" behind them: the same hash, too."""
    suite = tmp_path / "made"
    write_json(suite / "suite.json", {"name": "made", "suite": {}, "jobs": []})
    _, rows = asked(endpoint, suite / "jobs" / "judged-a")
    asked(endpoint, suite / "jobs" / "judged-a-b", orders="single")
    (packed,) = pack(suite)
    assert replayed(packed.file)[1] == rows
    assert replay.content_hash(packed.file) == replay.content_hash(suite)
    (suite / "jobs" / "judged-a" / JOURNAL).unlink()
    (suite / "jobs" / "judged-a-b" / JOURNAL).unlink()
    pack(suite)
    with pytest.raises(InputError, match=r"made\.bench: no such journal"):
        replayed(packed.file)


def annotation(number: int, raw: Any) -> dict[str, Any]:
    """Word an annotation whose pair alpaca-eval showed in its own random order."""
    instruction = f"Question {number}?"
    return {
        "instruction": instruction,
        "output_1": f"their answer {number}",
        "output_2": f"our answer {number}",
        "annotator": "weighted_alpaca_eval_gpt4_turbo",
        "raw_completion": raw,
    }


def label(name: str) -> dict[str, Any]:
    return {"text": name, "logprobs": {"content": [{"top_logprobs": [{"token": name, "logprob": 0.0}]}]}}


def test_annotations_are_read_in_the_order_that_was_shown(tmp_path: Path) -> None:
    """The judge always names the first answer: ours win exactly where the seeded order showed them first.

    A raw reply may be stored as the choice or as its JSON; one that is missing, or says neither label, is unjudged.
    """
    path = tmp_path / "annotations.json"
    raws = [label("m"), json.dumps(label("m")), None, "I like both."]
    path.write_text(json.dumps([annotation(number, raw) for number, raw in enumerate(raws)]))
    _, rows = replayed(path, orders="single")
    wins = [float(alpaca.random_order(pair.instruction) == "ours_first") for pair in PAIRS]
    assert [row["preference"] for row in rows] == [wins[0], wins[1], None, None]


def ranked(first: str) -> list[dict[str, Any]]:
    return [{"model": first, "rank": 1}, {"model": "M" if first == "m" else "m", "rank": 2}]


WITH_FUNCTION, RANKING = "alpaca_eval_gpt4_turbo_fn", "alpaca_eval_gpt4"
WEIGHTED = "weighted_alpaca_eval_gpt4_turbo"


@pytest.mark.parametrize(
    ("configuration", "raw"),
    [
        (WITH_FUNCTION, {"concise_explanation": "m is right.", "ordered_models": ranked("m")}),
        (WITH_FUNCTION, json.dumps({"ordered_models": ranked("m")})),
        (WITH_FUNCTION, ranked("m")),
        (WITH_FUNCTION, json.dumps(ranked("m"))),
        (WITH_FUNCTION, [{"ordered_models": ranked("m")}]),
        (
            WITH_FUNCTION,
            {"message": {"tool_calls": [{"function": {"arguments": json.dumps({"ordered_models": ranked("m")})}}]}},
        ),
        (RANKING, str([{"model": "model_1", "rank": 1}, {"model": "model_2", "rank": 2}])),
        (RANKING, [{"model": "model_1", "rank": 1}, {"model": "model_2", "rank": 2}]),
        (RANKING, {"ordered_models": [{"model": "model_1", "rank": 1}, {"model": "model_2", "rank": 2}]}),
        ("text_davinci_003", "Output (a)"),
        ("text_davinci_003", [" Output (a)"]),
        ("claude", {"text": "\nOutput (a) is better."}),
        (WEIGHTED, {"choices": [label("m")]}),
        (WEIGHTED, [label("m")]),
        (WEIGHTED, {"message": {"content": "m"}, "logprobs": label("m")["logprobs"]}),
    ],
)
def test_raw_replies_are_read_in_every_form_they_were_stored_in(configuration: str, raw: Any, tmp_path: Path) -> None:
    """Each says that the first answer is better: ours win exactly where the seeded order showed them first."""
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([annotation(number, raw) | {"annotator": configuration} for number in range(4)]))
    assert replay.stored(path) == replay.Stored(configuration, "single")
    _, rows = replayed(path, orders="single", configuration=configuration)
    assert [row["preference"] for row in rows] == [
        float(alpaca.random_order(pair.instruction) == "ours_first") for pair in PAIRS
    ]


def test_a_row_tells_which_answer_was_shown_first(tmp_path: Path) -> None:
    """The first answer wins each time: by its names output_2, ours, was first; by its preference output_1; else the draw."""
    path = tmp_path / "annotations.json"
    made = [annotation(number, label("m")) for number in range(4)]
    made[0]["referenced_models"] = {"m": "output_2", "M": "output_1"}
    made[1]["referenced_models"] = {"m": "output_1", "M": "output_2"}
    made[2]["preference"], made[3]["preference"] = 1.0, 2.0
    path.write_text(json.dumps(made))
    _, rows = replayed(path, orders="single")
    assert [row["orders"] for row in rows] == [
        {"ours_first": 1.0}, {"theirs_first": 0.0}, {"theirs_first": 0.0}, {"ours_first": 1.0}
    ]  # fmt: skip


def test_a_preference_stands_for_a_reply_that_was_not_kept(tmp_path: Path) -> None:
    """Older files have preferences alone, and 0 for a draw; a preference of null is unjudged. Each is counted."""
    path = tmp_path / "annotations.json"
    made = [annotation(number, None) | {"preference": one} for number, one in enumerate((2, 0, 1.25, None))]
    made[0].pop("raw_completion")
    path.write_text(json.dumps(made))
    scores, rows = replayed(path, orders="single", max_unjudged_share=0.25)
    assert [row["preference"] for row in rows] == [1.0, 0.5, 0.25, None]
    (score,) = scores.values()
    assert (score["as_stored"], score["unjudged"]) == (3, 1)
    assert score["value"] == pytest.approx(100 * 1.75 / 3)


def test_of_several_annotators_one_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    by_text = [annotation(number, "Output (a)") | {"annotator": "text_davinci_003"} for number in range(4)]
    path.write_text(json.dumps([*(annotation(number, label("M")) for number in range(4)), *by_text]))
    with pytest.raises(InputError, match=f"annotations by {WEIGHTED}, text_davinci_003; choose one by --judge"):
        replay.stored(path)
    wins = [float(alpaca.random_order(pair.instruction) == "ours_first") for pair in PAIRS]
    _, rows = replayed(path, orders="single", configuration="text_davinci_003")
    assert [row["preference"] for row in rows] == wins
    _, rows = replayed(path, orders="single")
    assert [row["preference"] for row in rows] == [1 - one for one in wins]


def test_annotations_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_text('[{"instruction": "x"}]')
    with pytest.raises(InputError, match="annotation 1 has no 'output_1'; AlpacaEval writes instruction"):
        replayed(path)
    path.write_text("[")
    with pytest.raises(InputError, match="cannot be read as annotations"):
        replayed(path)
