"""`bench judge` as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_judge import KEY

from bench.cli.main import main

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run a command to its end as the shell would, in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench", "judge", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve answers of ours, one letter longer each, and those they are compared with."""
    for name, word in (("ours", "our"), ("theirs", "their")):
        rows = [
            {"instruction": f"Question {number}?", "output": f"{word} answer {number}" + "!" * number * (word == "our")}
            for number in range(12)
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    return tmp_path


def test_of_a_suites_judges_the_first_is_asked(endpoint: Any, folder: Path, bench: Any) -> None:
    """An error of one of its keys has its line."""
    endpoint.answer = endpoint.like_ours
    judge = f"{{kind: openai, model: main-judge, base_url: '{endpoint.url}', key_variable: JUDGE_KEY}}"
    suite = folder / "suite.yaml"
    suite.write_text(f"evaluation:\n  win_rate:\n    judge:\n      - {judge}\n      - {{kind: rule}}\n")
    files = ("--outputs", "ours.json", "--reference", "theirs.json", "--judge", "suite.yaml")
    code, out, _ = bench("run", *files)
    assert code == 0
    assert "win rate 75.00 % by main-judge" in out
    assert {body["model"] for body in endpoint.bodies} == {"main-judge"}
    suite.write_text(suite.read_text().replace("key_variable", "kye_variable"))
    code, _, said = bench("run", *files)
    assert (code, "suite.yaml:4: unknown key 'kye_variable'" in said) == (2, True)


def test_two_files_are_judged_resumed_and_replayed(endpoint: Any, folder: Path, bench: Any) -> None:
    """Ours get 0.9 in first and 0.6 in second place: 75 %. Question 3 has no usable reply at first: 11 of 12, exit 1.

    The second run asks for its two orders alone; a replay of the journal says the same.
    """
    good, unusable = endpoint.like_ours, endpoint.choose(logprobs=None)
    endpoint.answer = lambda prompt, before: unusable if "Question 3?" in prompt else good(prompt, before)
    files = ("--outputs", "ours.json", "--reference", "theirs.json")
    config = ("--judge", "weighted_alpaca_eval_gpt4_turbo", "--model", "some-judge", "--base-url", endpoint.url)
    ask = ("run", *files, *config, "--key-variable", "JUDGE_KEY", "--out", "judged")
    code, out, _ = bench(*ask)
    assert code == 1
    assert out.splitlines()[-1] == (
        "judged: no win rate by some-judge: 1 of 12 unjudged; replies that could not be used: 6 × no log-probabilities (it came "
        "without log-probabilities, which the configuration weighted_alpaca_eval_gpt4_turbo reads; choose a judge.model that "
        "gives them, or judge.configuration: pairwise_json_schema, pairwise_function or pairwise_number); the same command asks "
        "only for the missing ones"
    )
    before = len(endpoint.comparisons)
    assert before == 22 + 2 * 3

    endpoint.answer = good
    code, out, err = bench(*ask, "--json")
    made = json.loads(out)
    assert code == 0
    assert len(endpoint.comparisons) == before + 2
    assert made["win_rate"] == pytest.approx(75)
    assert (made["n_total"], made["n_unjudged"], made["n_wins"], made["judge"]) == (12, 0, 12, "some-judge")
    assert made["length_adjusted_win_rate"] == pytest.approx(75)
    assert made["length_adjusted_by"].endswith("not AlpacaEval's length-controlled win rate")
    assert "length_controlled_win_rate" not in made
    (recorded,) = json.loads((folder / "judged" / "scores.json").read_text()).values()
    assert recorded["length_controlled_win_rate"] == made["length_adjusted_win_rate"]
    assert made["cost_usd"] is None
    assert "no price is known for this endpoint" in made["cost_reason"]
    last = err.splitlines()[-1]
    assert last.startswith("judged: win rate 75.00 % by some-judge over 12 pairs (95 % interval ")
    assert "; length-adjusted 75.00 % (our own regression on the difference in length, not AlpacaEval's)" in last
    assert "; position bias +0.150" in last
    assert "possibly paid twice" not in last
    written = {path.name: path.read_text() for path in (folder / "judged").iterdir() if path.is_file()}
    assert {"journal.jsonl", "samples.jsonl", "scores.json"} <= written.keys()
    assert KEY not in "".join([*written.values(), out, err])

    code, out, _ = bench("replay", *files, "--annotations", "judged/journal.jsonl", "--json")
    again = json.loads(out)
    assert code == 0
    assert {name: made[name] for name in again} == again


def test_what_may_be_paid_twice_is_on_the_screen(endpoint: Any, folder: Path, bench: Any) -> None:
    """Each of 12 comparisons is cut off once: 12 requests without an answer, at less than a cent in all."""
    good, cut = endpoint.like_ours, endpoint.respond(cut=True)
    endpoint.answer = lambda prompt, before: good(prompt, before) if before or "Say hello" in prompt else cut
    (folder / "judge.yaml").write_text(
        f"model: some-judge\nbase_url: {endpoint.url}\nkey_variable: JUDGE_KEY\norders: single\nfirst_pause_seconds: 0.01\n"
        "price: {input_usd_per_million_tokens: 2, output_usd_per_million_tokens: 8}\n"
    )
    code, out, _ = bench("run", "--outputs", "ours.json", "--reference", "theirs.json", "--judge", "judge.yaml")
    assert code == 0
    assert "; cost $0.0073; 12 requests got no answer but may be paid for ($0.00" in out
    assert " at most), 12 comparisons possibly paid twice" in out


@pytest.mark.parametrize("limit_kib", [64, 240])
def test_a_full_disk_is_one_line_and_exit_code_2(limit_kib: int, endpoint: Any, folder: Path) -> None:
    """No file may pass the limit: 64 KiB have no room for the first eight replies, 240 have, but not for all 120.

    What came is kept, so that the same command asks for the rest alone.
    """
    endpoint.answer = endpoint.like_ours
    rows = [{"instruction": f"Question {number}?", "output": "{} answer"} for number in range(60)]
    for name, word in (("ours", "our"), ("theirs", "their")):
        (folder / f"{name}.json").write_text(json.dumps([{**row, "output": f"{word} answer"} for row in rows]))
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_kib} * 1024,) * 2)"
    code += "; from bench.cli.main import main; main()"
    ask = (
        *("judge", "run", "--outputs", "ours.json", "--reference", "theirs.json", "--out", "judged"),
        *("--model", "some-judge", "--base-url", endpoint.url, "--key-variable", "JUDGE_KEY"),
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    full = subprocess.run(
        [sys.executable, "-c", code, *ask], capture_output=True, text=True, env=environment, cwd=folder
    )
    asked = len(endpoint.comparisons)
    assert full.returncode == 2
    (line,) = full.stderr.splitlines()
    assert ": the disk has no room for a judge's replies: " in line
    assert line.startswith("bench: judged")
    assert "make room and run again: what was judged is kept" in line
    assert (asked == 0) == (limit_kib == 64)
    assert asked < 120
    again = subprocess.run(
        [sys.executable, "-m", "bench.cli.main", *ask, "--json"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
    )
    made = json.loads(again.stdout)
    assert (made["win_rate"], made["unanswered"]) == (pytest.approx(75), 0)
    assert len(endpoint.comparisons) == 120


def test_published_judgements_give_the_published_figures(judgements: Path, tmp_path: Path, bench: Any) -> None:
    """alpaca-7b's line of the leaderboard, from its judge's 805 raw replies."""
    code, out, err = bench(
        "replay",
        *("--outputs", str(judgements / "alpaca-7b" / "model_outputs.json")),
        *("--reference", str(judgements / "reference_outputs.json")),
        *("--annotations", str(judgements / "alpaca-7b" / "annotations_weighted_alpaca_eval_gpt4_turbo.json")),
        "--json",
    )
    assert code == 0, err
    made = json.loads(out)
    assert made["win_rate"] == pytest.approx(2.591450540344603, abs=1e-8)
    assert made["standard_error"] == pytest.approx(0.4870855382635108, abs=1e-8)
    assert made["discrete_win_rate"] == pytest.approx(2.298136645962733, abs=1e-8)
    assert (made["n_wins"], made["n_wins_base"], made["n_draws"]) == (17, 785, 3)
    assert (made["n_total"], made["n_unjudged"]) == (805, 0)
    assert made["mean_length_ours"] == pytest.approx(396, abs=0.5)
    assert made["judge"] == "gpt-4-1106-preview"
    assert list(tmp_path.iterdir()) == []


def test_a_yaml_file_holds_more_keys_and_options_win(endpoint: Any, folder: Path, bench: Any) -> None:
    """8 dollars a million would pass the ceiling at once: nothing is asked, exit 1. An option raises it."""
    endpoint.answer = endpoint.like_ours
    (folder / "judge.yaml").write_text(
        f"model: some-judge\nbase_url: {endpoint.url}\nkey_variable: JUDGE_KEY\norders: single\nmax_cost_usd: 0.000001\n"
        "price: {input_usd_per_million_tokens: 2, output_usd_per_million_tokens: 8}\n"
    )
    ask = ("run", "--outputs", "ours.json", "--reference", "theirs.json", "--judge", "judge.yaml")
    code, _, err = bench(*ask)
    assert code == 1
    assert "the next comparison may pass the ceiling" in err
    assert endpoint.prompts == []
    code, out, _ = bench(*ask, "--max-cost-usd", "1")
    assert code == 0
    assert len(endpoint.comparisons) == 12
    assert "; cost $0.0073" in out  # 12 · (300 · 2 + 1 · 8) / 10⁶ = 0.0073
    assert "position bias" not in out

    (folder / "suite.yaml").write_text(
        "name: mine\nevaluation:\n  win_rate:\n    judge:\n      "
        + (folder / "judge.yaml").read_text().replace("\n", "\n      ").replace("0.000001", "1")
    )
    code, out, _ = bench(*ask[:-1], "suite.yaml", "--orders", "both")
    assert code == 0
    assert len(endpoint.comparisons) == 24  # the other orders
    assert "; cost $0.0146" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--judge", "weighted_alpaca_eval_gpt4_turb"), "did you mean 'weighted_alpaca_eval_gpt4_turbo'"),
        (("--judge", "none.yaml"), "none.yaml: cannot be read: No such file or directory"),
        (("--judge", "suite.yaml"), "suite.yaml: holds no keys of a judge; a suite has them under evaluation.win_rate"),
        (("--judge", "wrong.yaml"), "wrong.yaml:2: unknown key 'modle'; did you mean 'model'?"),
        (("--judge", "twice.yaml"), "twice.yaml:5: orders = 'twice': Input should be 'both' or 'single'"),
        (("--judge", "twice.yaml", "--orders", "thrice"), "--orders: orders = 'thrice': Input should be 'both'"),
        (("--judge", "broken.yaml"), "broken.yaml:2: not valid YAML"),
        (("--base-url", "http://user:secret@h/v1"), "must carry no user, password or query"),
        (("--orders", "twice"), "orders = 'twice': Input should be 'both' or 'single'"),
        (("--outputs", "none.json"), "none.json: cannot be read: No such file or directory"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], message: str, folder: Path, bench: Any) -> None:
    (folder / "wrong.yaml").write_text("orders: both\nmodle: x\n")
    (folder / "twice.yaml").write_text("name: x\nevaluation:\n  win_rate:\n    judge:\n      orders: twice\n")
    (folder / "broken.yaml").write_text("orders: [both\n")
    (folder / "suite.yaml").write_text("name: x\nevaluation: {lm_eval: {}}\n")
    files = ("--outputs", "ours.json", "--reference", "theirs.json")
    code, _, err = bench("run", *files, *arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_retired_model_is_warned_of_and_its_refusal_says_what_to_do(
    endpoint: Any, folder: Path, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real endpoint is played here by OPENAI_BASE_URL, which OpenAI's client honours."""
    gone = b'{"error": {"message": "The model has been deprecated", "code": "model_not_found"}}'
    endpoint.answer = lambda prompt, before: endpoint.respond(status=404, body=gone)
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    files = ("--outputs", "ours.json", "--reference", "theirs.json")
    judge = ("--judge", "weighted_alpaca_eval_gpt4_turbo")
    code, _, err = bench("run", *files, *judge, "--key-variable", "JUDGE_KEY")
    assert code == 2
    assert (
        "bench: warning: the judge gpt-4-1106-preview, which weighted_alpaca_eval_gpt4_turbo names, is retired" in err
    )
    assert (
        "bench: the judge gpt-4-1106-preview at 127.0.0.1 was not found (404): the model is retired or unknown there"
        in err
    )
    assert err.rstrip().endswith("set judge.model or judge.base_url (The model has been deprecated)")
