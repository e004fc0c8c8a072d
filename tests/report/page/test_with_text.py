"""Prompts and targets stand in a page only where they were asked for, and are text there."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli.main import app
from bench.records.record import append_jsonl, write_json
from report.analysis.completions import Texts
from report.build import build

TEXTS = Texts({place: (f"<b>ask {place}</b>\u202e", f"target {place}") for place in range(6)})


@pytest.fixture
def judged_twice(writer: Callable[..., Any], fill_suite: Callable[..., Path]) -> Path:
    """A second judge prefers the other side of the base's pair 2 and the same side of its pair 0."""
    made = writer()
    folder = fill_suite(made)
    again = made.job("again-base", "judge", {"of": "base", "judge": "b"}, inputs={"answers": "answers-base"})
    append_jsonl(again / "samples.jsonl", [{"id": place, "preference": 0.0} for place in range(6)])
    write_json(again / "scores.json", {"win_rate/b": {"value": 0.0, "n": 6, "standard_error": 0.0, "unjudged": 0}})
    made.finish()
    return folder


def page_of(folder: Path, out: Path, texts: Texts | None) -> str:
    build(folder, out, texts=None if texts is None else lambda _: texts)
    (found,) = out.glob("*/report.html")
    return found.read_text(encoding="utf-8")


def test_texts_are_there_only_where_asked_for(judged_twice: Path, tmp_path: Path) -> None:
    assert "target 0" not in page_of(judged_twice, tmp_path / "without", None)
    text = page_of(judged_twice, tmp_path / "with", TEXTS)
    assert "&lt;b&gt;ask 0&lt;/b&gt;⟨U+202E⟩" in text
    assert "target 5" in text


def test_markdown_has_them_too_where_asked_for(judged_twice: Path, tmp_path: Path) -> None:
    """In a fold, first the pairs on which judges part; nothing in a text is markup, and a long one says how much is left out."""
    build(judged_twice, tmp_path / "without")
    assert "target 0" not in next((tmp_path / "without").glob("*/report.md")).read_text(encoding="utf-8")
    rows = TEXTS.rows | {3: ("`a` | b <script> " * 40, "target 3")}
    build(judged_twice, tmp_path / "with", texts=lambda _: Texts(rows))
    text = next((tmp_path / "with").glob("*/report.md")).read_text(encoding="utf-8")
    fold = text.partition("<summary>Prompts and targets beside the answers</summary>")[2].partition("</details>")[0]
    lines = [line for line in fold.splitlines() if line.startswith("| prompt ")]
    assert len(lines) == 6
    assert [line.split(" | ")[1] for line in lines] == sorted(
        (line.split(" | ")[1] for line in lines), key="part".__ne__
    )
    assert lines[0].split(" | ")[1] == "part" and lines[-1].split(" | ")[1] != "part"
    assert "\\<b\\>ask 0\\</b\\>⟨U+202E⟩" in fold and "<script>" not in fold
    whole = "`a` | b <script> " * 40
    assert f"… ({len(whole) - 500:,} more characters)" in fold  # of 680 characters 500 are shown
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1


def test_a_line_says_why_there_are_none(judged_twice: Path, tmp_path: Path) -> None:
    assert "the file is gone" in page_of(judged_twice, tmp_path / "gone", Texts({}, "the file is gone"))


def test_changed_data_is_not_shown(judged_twice: Path, tmp_path: Path) -> None:
    """The judged pair says that ours was 100 characters longer than a target, which no target here fits."""
    row = {"id": 0, "preference": 0.5, "length_difference": 100}
    (judged_twice / "jobs" / "judged-base" / "samples.jsonl").unlink()
    append_jsonl(judged_twice / "jobs" / "judged-base" / "samples.jsonl", [row])
    text = page_of(judged_twice, tmp_path / "changed", TEXTS)
    assert "target 0" not in text
    assert "the data has changed" in text


def test_an_archive_carries_no_text(judged_twice: Path, tmp_path: Path) -> None:
    """The page with texts lies in the folder that is packed; neither it nor a target is in the archive's files."""
    build(judged_twice, texts=lambda _: TEXTS)
    assert "target 5" in (judged_twice / "report.html").read_text(encoding="utf-8")
    file = tmp_path / "given.bench"
    assert CliRunner().invoke(app, ["pack", str(judged_twice), "--out", str(file)]).exit_code == 0
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist()
        assert not [name for name in archive.namelist() if b"target 5" in archive.read(name)]


def test_without_with_text_no_written_byte_holds_any(judged_twice: Path, tmp_path: Path) -> None:
    page_of(judged_twice, tmp_path, None)
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"report.md", "report.html", "report.json"} <= {file.name for file in written}
    assert not [file for file in written if b"target 5" in file.read_bytes()]


def test_the_mirror_is_an_option(judged_twice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.cli import report_texts

    asked = []

    def read(_: Any, mirror: Path | None) -> Texts:
        asked.append(mirror)
        return TEXTS

    monkeypatch.setattr(report_texts, "read", read)
    flags = ["report", str(judged_twice), "--out", str(tmp_path), "--with-text"]
    assert CliRunner().invoke(app, [*flags, "--mirror", "one"]).exit_code == 0
    assert CliRunner().invoke(app, flags, env={"BENCH_MIRROR": "two"}).exit_code == 0
    assert asked == [Path("one"), Path("two")]


@pytest.mark.parametrize("made", ["pack", "publish"])
def test_what_is_given_away_holds_no_text(judged_twice: Path, tmp_path: Path, made: str) -> None:
    """A page with texts lies in the folder; an answer, too, is in no byte that is published."""
    (answers,) = (judged_twice / "jobs").glob("answers-base")
    rows = [{"id": place, "answer": f"MARKED-ANSWER {place}", "tokens": 2, "ended": True} for place in range(6)]
    (answers / "samples.jsonl").unlink()
    append_jsonl(answers / "samples.jsonl", rows)
    texts = Texts({place: (f"MARKED-PROMPT {place}", f"MARKED-TARGET {place}") for place in range(6)})
    build(judged_twice, texts=lambda _: texts)
    page = (judged_twice / "report.html").read_bytes()
    assert all(one in page for one in (b"MARKED-PROMPT", b"MARKED-TARGET", b"MARKED-ANSWER"))
    out = tmp_path / "given"
    command = (
        ["pack", str(judged_twice), "--out", str(out / "some.bench")]
        if made == "pack"
        else ["publish", "some-lab/some", str(judged_twice), "--out", str(out)]
    )
    out.mkdir()
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    contents = _contents(out)
    # An archive keeps answers, which shows that they would be found.
    assert any(b"MARKED-ANSWER" in found for found in contents.values()) == (made == "pack")
    secret = [b"MARKED-PROMPT", b"MARKED-TARGET", *([b"MARKED-ANSWER"] if made == "publish" else [])]
    assert not [name for name, found in contents.items() if any(one in found for one in secret)]


def _contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, and every file in an archive, unpacked."""
    found = {}
    for file in folder.rglob("*"):
        if file.is_file():
            found[file.name] = file.read_bytes()
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    found |= {f"{file.name}/{name}": archive.read(name) for name in archive.namelist()}
    return found


def test_quickstarts_prompts_come_from_its_world(tmp_path: Path) -> None:
    archive = Path(__file__).parents[3] / "results" / "quickstart.bench"
    for flags, shown in ([], False), (["--with-text"], True):
        out = tmp_path / str(shown)
        assert CliRunner().invoke(app, ["report", str(archive), "--out", str(out), *flags]).exit_code == 0
        text = (out / "quickstart" / "report.html").read_text(encoding="utf-8")
        assert ("here are 40" in text) == shown


def test_search_and_filter(browser: Any, judged_twice: Path, tmp_path: Path) -> None:
    page_of(judged_twice, tmp_path, TEXTS)
    (file,) = tmp_path.glob("*/report.html")
    page = browser.new_page()
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    rows = page.locator("#answers table.searchable tbody tr:visible")
    assert rows.count() == 6
    page.locator("#answers input[type=search]").fill("target 3")
    assert rows.count() == 1
    page.locator("#answers input[type=search]").fill("")
    page.locator("#answers select").select_option("part")
    assert 0 < rows.count() < 6
    page.close()
