"""What was asked is written as lm-eval writes it: beside its own files of the same answers, and through its own tools."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lm_eval import utils
from lm_eval.loggers import EvaluationTracker, WandbLogger, trackio_logger
from small_runs import Bench, suite
from typer.testing import CliRunner

from bench.cli.main import app
from bench.evaluators import lm_eval as questions
from bench.evaluators.options import LmEval
from bench.models import policy
from bench.records.suite_record import find_suites
from bench.run import execute
from report import lm_eval_files

RESULTS = Path(__file__).parents[2] / "results"
LIMIT = 6


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ask the untrained tiny model the world's questions as a job of a suite; the folder of lm-eval's files."""
    folder = tmp_path_factory.mktemp("ours")
    runner = Bench(
        suite(methods=["mix"], evaluation={"lm_eval": {"tasks": ["world_questions"], "limit": LIMIT}}), folder / "loop"
    )
    execute.write_suite(runner.plan, runner.context.folder)
    runner.run("questions-base")
    (record,) = find_suites(folder / "loop")
    (path,) = lm_eval_files.write(record, folder / "lm_eval")
    return path.parent


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ask the same model the same questions, and have lm-eval's own tracker write what came of it."""
    folder = tmp_path_factory.mktemp("theirs")
    loaded = policy.load(policy.Model(source="random"), torch.device("cpu"))
    settings = LmEval(tasks=("world_questions",), limit=LIMIT)
    found = questions._evaluate(
        loaded, settings, questions._load("world_questions", settings, None), None, lambda _: None
    )
    samples = found.pop("samples")
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.log_experiment_args("hf", "pretrained=loop/base", None, None, False)
    tracker.save_results_aggregated(results=found, samples=samples)
    tracker.save_results_samples("world_questions", samples["world_questions"])
    return folder / "loop__base"


def results_in(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("results_*.json")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def samples_in(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("samples_world_questions_*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_results_are_those_that_lm_eval_writes(ours: Path, theirs: Path) -> None:
    """The same folder, keys and figures; of a task's settings what the records know."""
    made, expected = results_in(ours), results_in(theirs)
    assert ours.name == theirs.name
    assert expected.keys() - made.keys() <= {"start_time", "end_time"}
    for name in ("group_subtasks", "higher_is_better", "n-shot", "model_name", "model_name_sanitized", "model_source"):
        assert made[name] == expected[name], name
    for key, value in expected["results"]["world_questions"].items():
        assert made["results"]["world_questions"][key] == pytest.approx(value), key
    assert made["n-samples"]["world_questions"]["effective"] == expected["n-samples"]["world_questions"]["effective"]
    assert str(made["versions"]["world_questions"]) == str(expected["versions"]["world_questions"])
    config, own = made["configs"]["world_questions"], expected["configs"]["world_questions"]
    assert (config["task"], config["output_type"], config["num_fewshot"]) == (
        own["task"],
        own["output_type"],
        own["num_fewshot"],
    )
    assert [one["metric"] for one in config["metric_list"]] == [one["metric"] for one in own["metric_list"]]


def test_samples_are_those_that_lm_eval_writes_without_their_texts(ours: Path, theirs: Path) -> None:
    """The same keys, kinds and outcomes; hashes are the first letters of lm-eval's; nothing of a question can be read."""
    made, expected = samples_in(ours), samples_in(theirs)
    assert len(made) == len(expected) > 0
    for one, other in zip(made, expected, strict=True):
        assert one.keys() == other.keys()
        assert {name: type(value) for name, value in one.items()} == {
            name: type(value) for name, value in other.items()
        }
        for name in ("doc_id", "filter", "metrics", "acc", "target"):
            assert one[name] == other[name], name
        for name in ("doc_hash", "prompt_hash"):
            assert other[name].startswith(one[name]) and one[name]
        assert one["arguments"].keys() == other["arguments"].keys()
        for ours_is, theirs_is in zip(one["filtered_resps"], other["filtered_resps"], strict=True):
            assert float(ours_is[0]) == pytest.approx(float(theirs_is[0]), abs=1e-5)
        texts = [text for text in other["doc"].values() if isinstance(text, str) and " " in text]
        assert texts and not any(text in json.dumps(one) for text in texts)


def test_lm_evals_tools_read_them(ours: Path) -> None:
    """Names of files, the printed table, what is logged to W&B and to Trackio, and the rows as a data set."""
    import datasets

    names = [f"{ours}/{path.name}" for path in sorted(ours.iterdir())]
    assert [len(utils.get_results_filenames(names)), len(utils.get_sample_results_filenames(names))] == [1, 1]
    results, samples = results_in(ours), samples_in(ours)
    assert utils.get_file_task_name(Path(utils.get_sample_results_filenames(names)[0]).name) == "world_questions"
    assert utils.get_file_datetime(names[0]).removesuffix(".json") == utils.get_file_datetime(names[1])
    assert "|world_questions|" in utils.make_table(results).replace(" ", "")
    logger = object.__new__(WandbLogger)
    logger.post_init(results)
    summary, flat = logger._sanitize_results_dict()
    assert flat["world_questions/acc"] == results["results"]["world_questions"]["acc,none"]
    assert "world_questions/alias" in summary
    assert logger._get_config()["cli_configs"]["model"] == "hf"
    module = SimpleNamespace(Trace=lambda **given: given)
    trace = trackio_logger._sample_to_trace(module, samples[0], "world_questions", "multiple_choice")
    assert trace["metadata"]["acc"] == samples[0]["acc"]
    rows = datasets.load_dataset(
        "json",
        data_files=[one for one in names if "samples_" in one],
        split="train",
        cache_dir=str(ours.parent / "cache"),
    )
    assert rows["acc"] == [one["acc"] for one in samples]


def test_parts_of_a_group_are_named_as_lm_eval_names_them(tmp_path: Path) -> None:
    """MMLU of the committed records: 57 subjects below one group, a file of samples each."""
    shutil.copy(RESULTS / "smollm2_135m.bench", tmp_path)
    (record,) = find_suites(tmp_path)
    written = lm_eval_files.write(record, tmp_path / "lm_eval")
    assert len(written) == len({path.parent for path in written}) == 15
    base = tmp_path / "lm_eval" / "smollm2_135m__base"
    results = results_in(base)
    assert len(results["group_subtasks"]["mmlu"]) == 57 and "mmlu_anatomy" in results["group_subtasks"]["mmlu"]
    assert results["groups"].keys() == {"mmlu"} and "mmlu" not in results["configs"]
    assert results["configs"]["mmlu_anatomy"]["group"] == "mmlu"
    score = next(job for job in record.jobs.values() if job.id.startswith("questions-base")).scores["mmlu/acc"]
    assert results["results"]["mmlu"]["acc,none"] == score["value"]
    assert len(list(base.glob("samples_mmlu_*.jsonl"))) == 57
    assert results["n-samples"]["mmlu_anatomy"] == {"original": None, "effective": 1}
    assert " - anatomy" in utils.make_table(results)


def test_the_report_writes_them_on_request(tmp_path: Path) -> None:
    shutil.copy(RESULTS / "toy.bench", tmp_path)
    assert (
        CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "out"), "--lm-eval"]).exit_code == 0
    )
    assert not (tmp_path / "out" / "toy" / "lm_eval").exists()  # a toy is asked nothing


@pytest.mark.parametrize(
    ("figure", "scale", "outcome", "native"),
    [
        ("acc", "linear", 1.0, 1.0),
        ("perplexity", "log", 2.5, -2.5),
        ("word_perplexity", "log", [12.0, 4.0], [-12.0, 4.0]),
        ("bits_per_byte", "linear", [8.0, 4.0], [-5.545177, 4.0]),
        ("inst_level_strict_acc", "linear", [1.0, 2.0], [1.0, 2.0]),
    ],
)
def test_outcomes_are_as_lm_eval_has_them(figure: str, scale: Any, outcome: Any, native: Any) -> None:
    """A loss of 12 nats is a log-likelihood of −12; 8 bits are 8 · ln 2 = 5.545177 nats."""
    from bench.records.metrics import Metric

    metric = Metric(name=figure, title=figure, unit="", better=None, kind="score", meaning="", scale=scale)
    assert lm_eval_files._native(figure, metric, outcome) == pytest.approx(native)
