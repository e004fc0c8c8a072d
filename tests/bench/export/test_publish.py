"""Repositories for the hub: folders that say nothing of this machine, and a hub on loopback that takes them with a token."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import DatasetCard, ModelCard, parse_eval_result_entries
from loopback_hub import TOKEN, Hub, hub
from typer.testing import CliRunner

from bench.cli.main import app
from bench.errors import InputError
from bench.export import eval_results, publish, push
from bench.models import policy, world_model
from bench.records import baseline
from bench.records.record import write_json
from bench.records.suite_record import find_suites
from bench.run import execute
from report.analysis.gate import Gate
from report.build import build
from report.compare import compare

__all__ = ["hub"]

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "results" / "quickstart.bench"
TARGET = "some-lab/mix_of.both"


@pytest.fixture
def trained(tiny: Any, run_plan: Any, tmp_path: Path) -> Path:
    """Train a run on a base model and rows of this machine; the folder of its results."""
    return train(tiny, run_plan, tmp_path)


def train(tiny: Any, run_plan: Any, tmp_path: Path, **settings: Any) -> Path:
    base = tmp_path / "private" / "base"
    loaded = policy.load(policy.Model(source="random"), torch.device("cpu"))
    loaded.model.save_pretrained(base)
    world_model.tokenizer().save_pretrained(base)
    pairs = [{"prompt": f"Name {n}.", "chosen": f"secret{n}", "rejected": "no"} for n in range(9)]
    rows = [{"instruction": f"Say {n}.", "input": "", "output": f"secret{n}"} for n in range(15)]
    for name, found in (("pairs", pairs), ("rows", rows)):
        text = "".join(json.dumps(one) + "\n" for one in found)
        (tmp_path / "private" / f"{name}.jsonl").write_text(text, encoding="utf-8")

    def source(name: str, count: int, form: str) -> dict[str, Any]:
        path = str(tmp_path / "private" / f"{name}.jsonl")
        return {
            "source": "local",
            "path": path,
            "rows": count,
            "evaluation_rows": 3,
            "test_split": None,
            "format": form,
        }

    data = {"preference": source("pairs", 6, "plain"), "instruction": source("rows", 12, "alpaca")}
    runner = run_plan(
        tiny(**({"model": {"source": "local", "path": str(base)}} | settings), data=data, methods=["mix"])
    )
    execute.write_suite(runner.plan, runner.folder)
    runner.run("mix")
    return Path(runner.folder)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[publish.Published, Path]:
    """Publish the quickstart's committed records: what was written, and the folder of it."""
    folder = tmp_path_factory.mktemp("quickstart")
    return publish.publish(TARGET, QUICKSTART, folder), folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def test_both_folders_are_written_and_say_nothing_of_this_machine(trained: Path, tmp_path: Path) -> None:
    """No file of either names the folder that model, rows and results lie in, nor holds a row's text."""
    done = publish.publish(TARGET, trained, tmp_path / "out", job="mix")
    assert [str(one.folder.relative_to(tmp_path / "out")) for one in done.repositories] == [
        f"models/{TARGET}",
        f"datasets/{TARGET}",
    ]
    assert "the adapter needs its base model" in done.note
    model, records = (files(one.folder) for one in done.repositories)
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= set(model)
    assert set(records) == {"README.md", "tiny.bench", "report.html", "runs.parquet"}
    for name, content in {**model, **records}.items():
        assert str(tmp_path).encode() not in content and b"secret1" not in content, name
    assert json.loads(model["adapter_config.json"])["base_model_name_or_path"] == "base"
    (found,) = find_suites(done.repositories[1].folder / "tiny.bench")
    assert found.info["suite"]["data"]["preference"]["path"] == "pairs.jsonl"
    assert found.broken == {}


def test_the_model_card_is_read_by_the_hubs_library_and_names_the_records(trained: Path, tmp_path: Path) -> None:
    done = publish.publish(TARGET, trained, tmp_path / "out", job="mix")
    card = ModelCard.load(done.repositories[0].folder / "README.md")
    assert card.data.library_name == "peft" and card.data.eval_results
    assert f"[{TARGET}](https://huggingface.co/datasets/{TARGET})" in card.text


def test_trained_weights_are_published_as_a_model_of_its_own(tiny: Any, run_plan: Any, tmp_path: Path) -> None:
    """No adapter is spoken of: transformers is the library, and nothing else needs to be fetched to use it."""
    model = {"source": "local", "path": str(tmp_path / "private" / "base"), "tuning": "full"}
    folder = train(tiny, run_plan, tmp_path, model=model, lora=None)
    done = publish.publish(TARGET, folder, tmp_path / "out", job="mix")
    assert done.note == ""
    assert "the model of mix-" in str(done.repositories[0])
    written, records = (files(one.folder) for one in done.repositories)
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(written)
    assert not [name for name in written if name.startswith("adapter")]
    card = ModelCard.load(done.repositories[0].folder / "README.md")
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "text-generation"
    assert "lora" not in card.data.tags and card.data.eval_results
    assert "All weights were trained, and no adapter" in card.text
    assert b"adapter" not in records["README.md"]
    for name, content in {**written, **records}.items():
        assert str(tmp_path).encode() not in content and b"secret1" not in content, name


def test_a_report_with_texts_beside_the_records_is_not_published(trained: Path, tmp_path: Path) -> None:
    """`report --with-text` writes into the folder that is published; what it shows stays there."""
    build(trained)
    for name in ("report.html", "report.md"):  # this suite judges no answers, so that its report would show none
        with (trained / name).open("a", encoding="utf-8") as file:
            file.write("what was asked")
    for answers in (False, True):
        done = publish.publish(TARGET, trained, tmp_path / str(answers), job="mix", answers=answers)
        for one in done.repositories:
            for name, content in files(one.folder).items():
                parts = [content]
                if name.endswith(".bench"):
                    with zipfile.ZipFile(one.folder / name) as archive:
                        parts = [archive.read(part) for part in archive.namelist()]
                assert parts and not [part for part in parts if b"what was asked" in part], name


def test_the_records_card_is_read_by_the_hubs_library_and_says_what_came_out(quickstart: Any) -> None:
    """Twelve recipes; the viewer is led to the table of runs, which pandas reads."""
    import pandas as pd

    (records,) = quickstart[0].repositories
    card = DatasetCard.load(records.folder / "README.md")
    assert card.data.configs == [{"config_name": "runs", "data_files": "runs.parquet"}]
    assert "**mix at λ = 0.75 is clearly ahead of every other recipe by ideal distance.**" in card.text
    assert len([line for line in card.text.splitlines() if "at λ = " in line and line.startswith("| ")]) == 12
    assert "answers and judges' raw replies were left out" in card.text
    assert len(pd.read_parquet(records.folder / "runs.parquet")) == 36
    assert "Answers side by side" not in (records.folder / "report.html").read_text(encoding="utf-8")


def test_what_was_published_is_a_baseline(quickstart: Any) -> None:
    """The folders lie as in a mirror of the hub; every figure of the public copy is the original's."""
    found = baseline.find(TARGET, quickstart[1])
    made = compare.compare(found.path, QUICKSTART, Gate(), found.name)
    assert {row.verdict for row in made.suites[0].rows if row.gates} == {compare.IDENTICAL}


def test_the_winner_is_published_if_there_is_one_and_its_weights_are_here(quickstart: Any, tmp_path: Path) -> None:
    """Mix at λ = 0.75 is ahead of every other recipe, but an archive holds no weights; one seed recommends nothing."""
    done = quickstart[0]
    assert done.note.startswith("only the records were written: ") and "mix-l0.75-s0-" in done.note
    assert "the weights of this job are not here" in done.note and len(done.repositories) == 1
    done = publish.publish(TARGET, ROOT / "results" / "smollm2_135m.bench", tmp_path / "one")
    assert done.note.startswith("no recipe is recommended (Not enough to rank")
    with pytest.raises(InputError, match="the weights of this job are not here"):
        publish.publish(TARGET, QUICKSTART, tmp_path / "chosen", choose="maximize win_rate")
    done = publish.publish(TARGET, ROOT / "results" / "toy.bench", tmp_path / "toy")
    assert set(files(done.repositories[0].folder)) == {"README.md", "toy.bench", "report.html"}


@pytest.mark.parametrize("name", ["alone", "a/b/c", "a/", "a/b c", "../x", "a/-b"])
def test_a_name_that_the_hub_would_not_take(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="TARGET must be ORG/NAME"):
        publish.publish(name, QUICKSTART, tmp_path)


def test_what_is_there_is_written_over_only_if_asked(tmp_path: Path) -> None:
    toy = ROOT / "results" / "toy.bench"
    (first,) = publish.publish(TARGET, toy, tmp_path).repositories
    (first.folder / "own.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="is not empty; give another --out, or --force"):
        publish.publish(TARGET, toy, tmp_path)
    publish.publish(TARGET, toy, tmp_path, force=True)
    assert "own.txt" not in files(first.folder)


def test_a_root_of_several_suites_is_refused(tmp_path: Path) -> None:
    for name in ("toy", "toy_conflict"):
        shutil.copy(ROOT / "results" / f"{name}.bench", tmp_path)
    with pytest.raises(InputError, match=r"holds 2 suites \(toy, toy_conflict\); give one of them"):
        publish.publish(TARGET, tmp_path, tmp_path / "out")


# ---- leaderboards ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "expected"), [(None, [61.25]), (50, [])])
def test_scores_of_whole_benchmarks_are_in_the_hubs_form(
    limit: int | None, expected: list[float], tmp_path: Path
) -> None:
    """0.6125 of GSM8K is 61.25 %, with the commit its questions were read at; a part of the questions is no score."""
    commit = "c" * 40
    folder = tmp_path / "made"
    settings = {"kind": "lm_eval", "lm_eval": {"tasks": ["gsm8k"], "limit": limit}}
    labels = {"of": "mix-l0.5-s0-0123456789"}
    job = folder / "jobs" / "questions-0123456789"
    common = {
        "schema": 1,
        "suite": "made",
        "smoke": False,
        "roles": [],
        "inputs": {},
        "semantics": 1,
        "environment": {},
    }
    spec = {**common, "id": job.name, "kind": "lm_eval", "labels": labels, "settings": settings}
    write_json(job / "spec.json", spec)
    facts = {"version": "3", "shots": 5, "data": f"hub:openai/gsm8k@{commit}", "questions": 1319}
    write_json(job / "data.json", {"lm_eval": "0.4.13", "tasks": {"gsm8k": facts}})
    write_json(job / "scores.json", {"gsm8k/exact_match,strict-match": {"value": 0.6125, "n": 1319}})
    write_json(
        job / "status.json",
        {"schema": 1, "outcome": "complete", "seconds": 1.0, "finished": "2026-02-03T04:05:06+00:00"},
    )
    write_json(folder / "suite.json", {"schema": 1, "name": "made", "suite": {}, "jobs": [job.name]})
    (suite,) = find_suites(folder)
    trained = type("Trained", (), {"id": labels["of"]})()
    (tmp_path / "model").mkdir()
    written = eval_results.write(suite, trained, tmp_path / "model", TARGET)
    found = [
        one for file in written for one in parse_eval_result_entries(yaml.safe_load(file.read_text(encoding="utf-8")))
    ]
    assert [one.value for one in found] == expected
    for one in found:
        assert (one.dataset_id, one.task_id, one.dataset_revision) == ("openai/gsm8k", "gsm8k", commit)
        assert (one.date, one.notes) == ("2026-02-03", "lm-eval 0.4.13, exact_match,strict-match, 5-shot")
        assert one.source_url == f"https://huggingface.co/datasets/{TARGET}"


# ---- the hub ---------------------------------------------------------------------------------------------------------


def test_pushed_repositories_hold_the_folders_and_are_private(
    hub: Hub, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the hub has afterwards is what lies in the folders; another machine then compares with it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    command = ["publish", TARGET, str(trained), "--out", str(tmp_path / "out"), "--job", "mix", "--push"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    for kind in ("models", "datasets"):
        held = hub.repositories[f"{kind}/{TARGET}"]
        folder = files(tmp_path / "out" / kind / TARGET)
        assert {name: data for name, data in held.files.items() if name != ".gitattributes"} == folder
        assert held.private
    assert TOKEN not in result.output
    assert find_suites(baseline.find(TARGET).path)[0].name == "tiny"
    hub.repositories.clear()
    assert CliRunner().invoke(app, [*command, "--force", "--public"]).exit_code == 0
    assert [one.private for one in hub.repositories.values()] == [False, False]


def test_without_a_token_nothing_is_written_or_asked(hub: Hub, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["publish", TARGET, str(QUICKSTART), "--out", str(tmp_path / "out"), "--push"])
    assert isinstance(result.exception, InputError)
    assert "--push needs a token that may write: set HF_TOKEN" in str(result.exception)
    assert not (tmp_path / "out").exists() and hub.asked == []


def test_a_token_that_the_hub_refuses_is_one_line_without_it(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (records,) = publish.publish(TARGET, ROOT / "results" / "toy.bench", tmp_path).repositories
    with pytest.raises(InputError, match=f"{TARGET}: the hub did not take .*401") as caught:
        push.push(records, "hf_wrong0123456789", public=False)
    assert "hf_wrong" not in str(caught.value)
    assert records.folder.is_dir()


def test_without_push_the_hub_is_not_asked(hub: Hub, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["publish", TARGET, str(ROOT / "results" / "toy.bench"), "--out", str(tmp_path)])
    assert result.exit_code == 0 and hub.asked == []
    assert result.output.splitlines()[-1] == "Look at the folders; --push --force sends them to the hub."


def test_help_is_quick_to_load() -> None:
    """Neither the hub's library nor the report is imported for --help."""
    code = "import sys, bench.cli.main; print([one for one in ('huggingface_hub', 'report', 'torch') if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
