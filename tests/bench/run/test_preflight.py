from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback_judge import KEY
from other_evaluators import LengthJudge, Words

from bench.data import world
from bench.errors import DataError, InputError, ModelError, SuiteError
from bench.evaluators import EVALUATORS
from bench.judges import JUDGES
from bench.judges.rule import RuleJudge
from bench.records.record import read_jsonl
from bench.run import preflight
from bench.suite import yaml_file
from bench.suite.suite import Suite

TinySuite = Callable[..., Suite]
JOURNAL = Path("preflight") / "judge" / "journal.jsonl"


def judged(tiny: Callable[..., Suite], endpoint: Any, prompts: int = 2, **changes: Any) -> Suite:
    """A suite whose paid judge is the loopback endpoint."""
    judge = {"kind": "openai", "model": "some-judge", "base_url": endpoint.url, "key_variable": "JUDGE_KEY"}
    judge["configuration"] = "weighted_alpaca_eval_gpt4_turbo"
    generation = {"max_new_tokens": 4, "temperature": 0}
    win_rate = {"prompts": prompts, "generation": generation, "judge": judge | {"first_pause_seconds": 0} | changes}
    return tiny(evaluation={"win_rate": win_rate})


def test_a_judge_that_answers_is_asked_once_and_its_bill_kept(
    tiny: Callable[..., Suite], endpoint: Any, tmp_path: Path
) -> None:
    """300 tokens in at 2 dollars a million and 1 out at 8: 0.000608. A second check is a new question."""
    price = {"input_usd_per_million_tokens": 2, "output_usd_per_million_tokens": 8}
    suite = judged(tiny, endpoint, price=price)
    assert preflight.try_out(suite, {"lm_eval", "judge"}, tmp_path, None) == [
        "the judge some-judge at 127.0.0.1 answers to weighted_alpaca_eval_gpt4_turbo (AlpacaEval's)"
    ]
    sent, row = read_jsonl(tmp_path / JOURNAL)  # noted before it was asked, and answered
    assert (sent["state"], sent["request"]) == ("sent", row["request"])
    assert (row["usable"], row["host"]) == (True, "127.0.0.1")
    assert row["cost_usd"] == pytest.approx(0.000608)
    preflight.try_out(suite, {"judge"}, tmp_path, None)
    assert set(endpoint.seen.values()) == {1}
    assert len(endpoint.prompts) == 2


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 401, "body": b"{}"}, "does not accept the key in JUDGE_KEY; set it to a valid key"),
        ({"status": 404, "body": b"{}"}, "the model is retired or unknown there; set judge.model or judge.base_url"),
        ({"status": 429, "body": b'{"error": {"code": "insufficient_quota"}}'}, "the quota is exhausted; add credit"),
        ({"status": 500, "body": b"{}"}, "gave no reply that can be read (500: "),
        ({"body": b"<html>hello</html>"}, "gave no reply that can be read (not a chat completion: <html>hello</html>)"),
    ],
)
def test_what_is_wrong_is_one_line_of_bad_input(
    fault: dict[str, Any], message: str, tiny: Callable[..., Suite], endpoint: Any, tmp_path: Path
) -> None:
    endpoint.answer = lambda prompt, before: endpoint.respond(**fault)
    with pytest.raises(InputError) as raised:
        preflight.try_out(judged(tiny, endpoint), {"judge"}, tmp_path, None)
    assert str(raised.value).startswith("evaluation.win_rate.judge: the judge some-judge at 127.0.0.1")
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("configuration", "needs"),
    [
        ("weighted_alpaca_eval_gpt4_turbo", "it came without log-probabilities, which the configuration"),
        ("alpaca_eval_gpt4_turbo_fn", "its text 'neither of the two' is no ranking as"),
    ],
)
def test_a_judge_without_what_its_configuration_reads_is_refused(
    configuration: str, needs: str, tiny: Callable[..., Suite], endpoint: Any, tmp_path: Path
) -> None:
    said = {"role": "assistant", "content": "neither of the two"}
    endpoint.answer = lambda prompt, before: endpoint.choose(logprobs=None, message=said)
    with pytest.raises(InputError, match=f"answers, but its reply cannot be used: {needs} {configuration}"):
        preflight.try_out(judged(tiny, endpoint, configuration=configuration), {"judge"}, tmp_path, None)


def test_a_missing_key_names_the_variable(
    tiny: Callable[..., Suite], endpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(InputError, match="set the environment variable JUDGE_KEY"):
        preflight.try_out(judged(tiny, endpoint), {"judge"}, tmp_path, None)


def test_a_judge_with_nothing_left_to_judge_is_not_asked(
    tiny: Callable[..., Suite], endpoint: Any, tmp_path: Path
) -> None:
    assert preflight.try_out(judged(tiny, endpoint), {"train", "generate"}, tmp_path, None) == []
    assert endpoint.prompts == []


def test_free_judges_are_not_asked(tiny: Callable[..., Suite], tmp_path: Path) -> None:
    assert preflight.try_out(tiny(), {"judge"}, tmp_path, None) == []
    rule = tiny(evaluation={"win_rate": {"prompts": 2, "judge": {"kind": "rule"}}})
    assert preflight.try_out(rule, {"judge"}, tmp_path, None) == []
    assert preflight.warnings(rule) == []
    assert list(tmp_path.iterdir()) == []


def test_a_retired_model_is_warned_of(tiny: Callable[..., Suite]) -> None:
    """So is the configuration's own, where the suite names none."""
    judge = {"kind": "openai", "model": "gpt-4-1106-preview"}
    suite = tiny(evaluation={"win_rate": {"prompts": 2, "judge": judge}})
    (named,) = preflight.warnings(suite)
    assert named == (
        "the judge gpt-4-1106-preview is retired since 2026-03-26; set judge.model to one that lives longer, such as gpt-6-luna"
    )
    judge = {"kind": "openai", "configuration": "weighted_alpaca_eval_gpt4_turbo"}
    (own,) = preflight.warnings(tiny(evaluation={"win_rate": {"prompts": 2, "judge": judge}}))
    assert "gpt-4-1106-preview, which weighted_alpaca_eval_gpt4_turbo names, is retired" in own
    judge = {"kind": "openai", "model": "gpt-6-luna"}
    assert preflight.warnings(tiny(evaluation={"win_rate": {"prompts": 2, "judge": judge}})) == []


def from_hub(tiny: Callable[..., Suite]) -> Suite:
    """A suite whose model and data the hub should have."""
    settings = tiny().data.model_dump()
    for name in ("preference", "instruction"):
        settings[name] |= {"source": "hub", "path": f"org/{name}"}
    return tiny(model={"source": "hub", "path": "org/model"}, data=settings)


@pytest.fixture
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return tmp_path


def test_offline_what_is_not_cached_is_named_key_by_key(tiny: Callable[..., Suite], empty_caches: Path) -> None:
    """The tests are offline. A cached model passes, then the first data set is missing; a mirror excuses both."""
    suite = from_hub(tiny)
    with pytest.raises(
        ModelError, match=r"model\.path = 'org/model': neither in the hub's cache nor can the hub be reached"
    ):
        preflight.check_hub(suite, None)
    snapshot = empty_caches / "hub" / "models--org--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    with pytest.raises(DataError, match=r"data\.preference\.path = 'org/preference': neither .* or give --mirror DIR"):
        preflight.check_hub(suite, None)
    preflight.check_hub(suite, empty_caches)
    (empty_caches / "datasets" / "org___preference").mkdir(parents=True)
    (empty_caches / "hub" / "datasets--org--instruction").mkdir()
    preflight.check_hub(suite, None)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "the hub wants a licence accepted first"),
        ("RepositoryNotFoundError", "the hub has no model of that name that you may see"),
        ("RevisionNotFoundError", "the hub has it, but no revision None"),
        ("EntryNotFoundError", "no config.json in it"),
    ],
)
def test_what_the_hub_says_is_put_in_words(
    error: str, message: str, tiny: Callable[..., Suite], empty_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    kind = getattr(huggingface_hub.errors, error)

    def refuse(*_: Any, **__: Any) -> None:
        raise kind.__new__(kind)  # made from a response of the hub's, which a test has not

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    with pytest.raises(ModelError, match=message):
        preflight.check_hub(from_hub(tiny), None)


@pytest.mark.slow
def test_a_run_asks_before_it_trains_and_pays_for_no_pair_twice(
    tiny: Callable[..., Suite], endpoint: Any, tmp_path: Path
) -> None:
    """The base model's greedy answers to 2 prompts, then to 3: the longer judging takes the first two pairs' replies over.

    Before that the endpoint refuses the key: exit code 2, and no job has begun.
    """
    path = tmp_path / "tiny.yaml"
    suite = judged(tiny, endpoint).model_dump(mode="json", exclude_none=True)
    path.write_text(yaml.safe_dump(suite))
    command = [sys.executable, "-m", "bench.cli", "run", str(path), "--only", "judged-base", "--results", "results"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "COLUMNS": "200"}
    environment.pop("BENCH_MIRROR", None)

    def run(*more: str) -> tuple[int, str]:
        done = subprocess.run(
            [*command, *more], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    endpoint.answer = lambda prompt, before: endpoint.respond(status=401, body=b"{}")
    code, said = run()
    assert code == 2, said
    assert "does not accept the key in JUDGE_KEY" in said
    assert not (tmp_path / "results" / "tiny" / "jobs").exists()

    endpoint.answer = lambda prompt, before: endpoint.choose(0.9)
    code, said = run()
    assert code == 0, said
    asked = [prompt for prompt in endpoint.prompts if "It is 20" not in prompt]
    assert len(asked) == 4
    code, said = run("--set", "evaluation.win_rate.prompts=3")
    assert code == 0, said
    asked = [prompt for prompt in endpoint.prompts if "It is 20" not in prompt]
    assert (len(asked), len(set(asked))) == (6, 6)

    folder = tmp_path / "results" / "tiny"
    (score,) = (
        json.loads((one / "scores.json").read_text())["win_rate/some-judge"]
        for one in folder.glob("jobs/judged-base-*")
        if len(list(read_jsonl(one / "samples.jsonl"))) == 3
    )
    assert (score["n"], score["requests"], score["cost_usd"]) == (3, 2, None)
    assert KEY not in "".join(one.read_text() for one in folder.rglob("*") if one.suffix in (".json", ".jsonl", ".txt"))
    assert KEY not in said


def on_disk(tiny: Callable[..., Suite], folder: Path, pairs: int = 9, rows: int = 15, **changes: Any) -> Suite:
    """A suite whose 6 pairs and 12 rows, and the 3 held out of each, are files of so many."""
    for name, count, row in (
        ("pairs", pairs, {"prompt": "a ", "chosen": "b", "rejected": "c"}),
        ("rows", rows, {"instruction": "a", "output": "b"}),
    ):
        lines = "".join(json.dumps({**row, "number": number}) + "\n" for number in range(count))
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    local = {"source": "local", "test_split": None, "evaluation_rows": 3}
    data = {
        "preference": {**local, "path": str(folder / "pairs.jsonl"), "rows": 6},
        "instruction": {**local, "path": str(folder / "rows.jsonl"), "rows": 12},
    }
    return tiny(data=data, **changes)


def test_rows_are_read_before_anything_is_trained(tiny: Callable[..., Suite], tmp_path: Path) -> None:
    suite = on_disk(tiny, tmp_path)
    preflight.check_data(suite, None)
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"instruction": "a", "outp')
    with pytest.raises(DataError, match=r"rows.jsonl: reading failed at line 16, the last line: is the file cut off\?"):
        preflight.check_data(suite, None)


@pytest.mark.parametrize(
    ("pairs", "rows", "changes", "said"),
    [
        (5, 15, {}, "6 rows wanted, but split 'train' has 5; lower rows"),
        (8, 15, {}, "3 rows wanted after the 6 training rows, but split 'train' has 8; lower rows or evaluation_rows"),
        (
            9,
            14,
            {},
            "3 rows wanted after the 12 training rows, but split 'train' has 14; lower rows or evaluation_rows",
        ),
        (
            9,
            15,
            {"evaluation": {"win_rate": {"prompts": 4, "judge": {"kind": "rule"}}}},
            "4 rows wanted after the 6 training rows, but split 'train' has 9; lower rows or evaluation.win_rate.prompts",
        ),
    ],
)
def test_too_few_rows_for_what_will_be_read(
    tiny: Callable[..., Suite], tmp_path: Path, pairs: int, rows: int, changes: dict[str, Any], said: str
) -> None:
    suite = on_disk(tiny, tmp_path, pairs, rows, **changes)
    with pytest.raises(DataError) as caught:
        preflight.check_data(suite, None)
    assert str(caught.value).endswith(f".jsonl: {said}")


def test_another_packages_prompts_count_too(tiny: TinySuite, offer: Callable[..., None], tmp_path: Path) -> None:
    """Its option `prompts` says how many, unless it says otherwise; the built-in world has 108 pairs held out."""
    offer(EVALUATORS, "words", Words)
    four = {"words": {"prompts": 4}}
    with pytest.raises(DataError, match=r"split 'train' has 9; lower rows or evaluation.words.prompts"):
        preflight.check_data(on_disk(tiny, tmp_path, evaluation=four), None)
    held_out = len(world.facts()[1]) * 3
    preflight.check_data(tiny(evaluation={"words": {"prompts": held_out}}), None)
    with pytest.raises(DataError) as caught:
        preflight.check_data(tiny(evaluation={"words": {"prompts": held_out + 1}}), None)
    assert str(caught.value) == (
        f"the built-in world has {held_out} test preference rows; {held_out + 1} are wanted; "
        "lower rows or evaluation.words.prompts"
    )


def test_a_configuration_that_a_judge_cannot_read_is_refused_with_its_place(
    offer: Callable[..., None], tmp_path: Path
) -> None:
    """Whoever's judge it is, with the line, before anything is planned."""

    class Labels(LengthJudge):
        name = staticmethod(RuleJudge.name)

    offer(JUDGES, "length", Labels)
    for kind in ("rule", "length"):
        text = (yaml_file.find("quickstart")).read_text(encoding="utf-8").split("evaluation:")[0]
        text += "evaluation:\n  win_rate:\n    prompts: 2\n    judge:\n"
        line = text.count("\n") + 2
        path = tmp_path / f"{kind}.yaml"
        path.write_text(f"{text}      kind: {kind}\n      configuration: alpaca_eval_gpt4_turbo_fn\n", encoding="utf-8")
        with pytest.raises(SuiteError) as caught, yaml_file.located(str(path)):
            preflight.check(yaml_file.load(str(path)))
        assert str(caught.value) == (
            f"{path}:{line}: evaluation.win_rate.judge.configuration = 'alpaca_eval_gpt4_turbo_fn': reads written replies, "
            "but this kind of judge gives log-probabilities of two labels; use weighted_alpaca_eval_gpt4_turbo"
        )


def test_an_error_without_a_key_keeps_its_words(tmp_path: Path) -> None:
    """A place is put before a key only, and the kind of error stays."""
    quickstart = str(yaml_file.find("quickstart"))
    placed = rf"^{re.escape(quickstart)}:\d+: model\.path = 'x': no such folder$"
    with pytest.raises(ModelError, match=placed), yaml_file.located(quickstart):
        raise ModelError("model.path = 'x': no such folder")
    for said in ("the method 'x' of y 1: raised", "org/model: no such thing", "a.yaml:3: lora: wrong"):
        with pytest.raises(InputError, match=f"^{re.escape(said)}$"), yaml_file.located(quickstart):
            raise InputError(said)
