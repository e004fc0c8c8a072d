"""A suite's records without anything of the machine, its user or private texts; whole by themselves."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.records import public, seal
from bench.records.record import read_json, write_json
from bench.records.suite_record import find_suites

RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Unpack a small suite with a judge, answers and questions, as a folder of records that has seals and hashes."""
    folder = tmp_path / "records" / "smollm2_135m"
    with zipfile.ZipFile(RESULTS / "smollm2_135m.bench") as packed:
        packed.extractall(folder)
    for job in (folder / "jobs").iterdir():
        status = read_json(job / "status.json")
        write_json(job / "spec.json", read_json(job / "spec.json"))
        write_json(job / "status.json", status | {"files": seal.of_files(job)})
    return folder


def edit(path: Path, **changes: Any) -> None:
    write_json(path, read_json(path) | changes)


def made(folder: Path, answers: bool = False) -> Path:
    (found,) = find_suites(folder)
    target = folder.parent / "public.bench"
    public.write(found, target, answers=answers)
    return target


def contents(archive: Path) -> dict[str, str]:
    with zipfile.ZipFile(archive) as packed:
        return {name: packed.read(name).decode() for name in packed.namelist()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/my files/pairs.jsonl", "pairs.jsonl"),
        ("~/pairs.jsonl", "pairs.jsonl"),
        ("../data/pairs.jsonl", "pairs.jsonl"),
        ("C:\\Users\\me\\pairs.jsonl", "pairs.jsonl"),
        ("see /srv/data/x.jsonl: no such file", "see x.jsonl: no such file"),
        ("read ~me/a/b, then ../c/d", "read b, then d"),
        ("mmlu/acc/anatomy of f_dpo/held_out", "mmlu/acc/anatomy of f_dpo/held_out"),
        ("1/2 of them, 3 km/h, a / b, /acc", "1/2 of them, 3 km/h, a / b, /acc"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("hub:cais/mmlu@abc", "hub:cais/mmlu@abc"),
    ],
)
def test_paths_become_names(text: str, expected: str) -> None:
    assert public.without_paths(text) == expected


def test_what_names_a_file_of_this_machine_is_a_name() -> None:
    """Also where it is given from the folder that a command ran in, which no sign shows."""
    settings = {"source": "local", "path": "clients/acme.jsonl"}
    assert public.cleaned(settings) == {"source": "local", "path": "acme.jsonl"}
    assert public.cleaned({"judge": {"journal": "old/suite.bench"}}) == {"judge": {"journal": "suite.bench"}}
    assert public.cleaned({"source": "hub", "path": "some/model"}) == {"source": "hub", "path": "some/model"}


def test_the_copy_is_whole_by_itself_and_its_figures_are_the_same(suite: Path) -> None:
    (theirs,), (ours,) = find_suites(made(suite)), find_suites(suite)
    assert (list(theirs.jobs), theirs.broken) == (list(ours.jobs), {})
    assert all(job.status["files"] for job in theirs.jobs.values())
    assert [job.scores for job in theirs.jobs.values()] == [job.scores for job in ours.jobs.values()]


def test_answers_and_replies_go_along_only_if_asked(suite: Path) -> None:
    """A row keeps how long an answer is and whether it ended; tokens, which can be read, become their number."""
    (answered,) = {job.name for job in (suite / "jobs").glob("answers-base-*")}
    whole, given = contents(made(suite, answers=True)), contents(made(suite))
    rows = [[json.loads(line) for line in one[f"jobs/{answered}/samples.jsonl"].splitlines()] for one in (whole, given)]
    assert all(row["answer"] for row in rows[0])
    assert rows[1] == [{name: value for name, value in row.items() if name != "answer"} for row in rows[0]]
    lists = [line for text in given.values() for line in text.splitlines() if '"tokens": [' in line]
    assert lists == []


def test_a_local_path_in_any_record_is_gone(suite: Path) -> None:
    """In the settings, in a message of a failure, in what a job says of its data; hashes and seals fit what is left."""
    private = "/srv/customers/acme/pairs.jsonl"
    info = read_json(suite / "suite.json")
    info["suite"]["data"]["preference"] |= {"source": "local", "path": private}
    write_json(suite / "suite.json", info)
    job = next(iter(sorted((suite / "jobs").glob("mix-*"))))
    edit(job / "data.json", note=f"{private}: 3 rows refused")
    edit(job / "status.json", files=seal.of_files(job), message=f"read {private}")
    given = contents(made(suite))
    assert [name for name, text in given.items() if "customers" in text] == []
    assert "pairs.jsonl: 3 rows refused" in given[f"jobs/{job.name}/data.json"]
    (theirs,) = find_suites(suite.parent / "public.bench")
    assert theirs.broken == {}


def test_jobs_of_another_plan_logs_and_links_stay_here(suite: Path) -> None:
    job = next(iter(sorted((suite / "jobs").glob("mix-*"))))
    shutil.copytree(job, suite / "jobs" / "older-0123456789")
    (job / "log.txt").write_text("words", encoding="utf-8")
    (job / "notes.json").symlink_to(suite / "suite.json")
    assert not [name for name in contents(made(suite)) if "older" in name or "log.txt" in name or "notes" in name]


def test_a_secret_of_the_environment_is_not_given_away(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it stands in a text of the user's, nothing is written."""
    monkeypatch.setenv("MY_API_KEY", "sk-planted-0123456789")
    info = read_json(suite / "suite.json")
    info["suite"]["description"] = "asked with sk-planted-0123456789"
    write_json(suite / "suite.json", info)
    with pytest.raises(InputError, match=r"suite.json: holds the value of \$MY_API_KEY; it is not given away"):
        made(suite)
    assert not (suite.parent / "public.bench").exists()


def test_a_folder_of_this_machine_is_not_given_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    public.check("a.json", b"/home/somebody_else/x")
    with pytest.raises(InputError, match=r"a\.json: names /home/somebody, a folder of this machine"):
        public.check("a.json", b'{"x": "/home/somebody/x"}')
    with pytest.raises(InputError, match=r"names .*, a folder of this machine"):
        public.check("a.html", f"made in {tmp_path}".encode(), (tmp_path,))
