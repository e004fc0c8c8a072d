"""What a comparison starts from: a path, a data set in a mirror, or one on a hub that is played on loopback."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from huggingface_hub import constants
from loopback_hub import TOKEN, Hub, hub

from bench.errors import InputError
from bench.records import baseline
from bench.records.suite_record import find_suites

__all__ = ["hub"]


def archive(name: str) -> bytes:
    """Pack a suite without jobs."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("suite.json", json.dumps({"schema": 1, "name": name, "suite": {}, "jobs": []}))
    return file.getvalue()


def names(found: baseline.Baseline) -> list[str]:
    return [one.name for one in find_suites(found.path)]


def test_what_lies_here_is_taken_before_the_hub_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some" / "results").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert baseline.find("some/results") == baseline.Baseline(Path("some/results"), "some/results")


def test_a_data_set_of_the_hub(hub: Hub) -> None:
    """All archives at the top are fetched and nothing else; the name says which commit they are of."""
    held = hub.add("datasets/some/results", a__bench=archive("a"), b__bench=archive("b"), README__md=b"# read me")
    found = baseline.find("some/results")
    assert (names(found), found.name) == (["a", "b"], f"some/results@{held.commit[:12]}")
    assert [path for method, path, _ in hub.asked if "README" in path and method == "GET"] == []
    one = baseline.find(f"hf://datasets/some/results@{held.commit}/b.bench")
    assert (names(one), one.name) == (["b"], f"some/results@{held.commit[:12]}/b.bench")


def test_a_private_data_set_needs_the_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("datasets/some/results", a__bench=archive("a")).private = True
    with pytest.raises(InputError, match="no such data set on the hub"):
        baseline.find("some/results")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert names(baseline.find("some/results")) == ["a"]


def test_what_was_fetched_is_there_without_a_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("datasets/some/results", a__bench=archive("a"))
    baseline.find("some/results")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(hub.asked)
    assert names(baseline.find("some/results")) == ["a"]
    assert len(hub.asked) == before


def test_a_data_set_in_a_mirror(tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "some" / "results"
    folder.mkdir(parents=True)
    (folder / "a.bench").write_bytes(archive("a"))
    found = baseline.find("some/results", tmp_path)
    assert (found.path, found.name, names(found)) == (folder, "some/results", ["a"])
    assert baseline.find("some/results/a.bench", tmp_path).path == folder / "a.bench"
    with pytest.raises(InputError, match="a mirror knows no revisions; leave @v1 out"):
        baseline.find("some/results@v1", tmp_path)
    with pytest.raises(InputError, match="not in the mirror"):
        baseline.find("other/results", tmp_path)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("nowhere", "no such file or folder, and no data set of the hub, which is ORG/NAME"),
        ("./some/results", "no such file or folder, and no data set of the hub"),
        ("nobody/results", "no such file or folder, and no such data set on the hub"),
        ("some/results@v9", "this data set has no such revision"),
        ("some/results/c.bench", "the data set holds no c.bench"),
        ("some/empty", "the data set holds no .bench archive; 'bench publish' writes one"),
    ],
)
def test_what_is_not_there_is_one_line(wanted: str, told: str, hub: Hub) -> None:
    hub.add("datasets/some/results", a__bench=archive("a"))
    hub.add("datasets/some/empty", README__md=b"# nothing")
    with pytest.raises(InputError, match=f"--baseline {wanted}: {told}"):
        baseline.find(wanted)
