"""Files that are whole or not there, no link followed, and nothing left behind by killed writers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import InputError
from bench.records import safe_files


def test_a_link_is_replaced_and_what_it_points_to_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "report.html").symlink_to(mine)
    safe_files.write_text(tmp_path / "report.html", "theirs")
    assert mine.read_text() == "mine"
    assert not (tmp_path / "report.html").is_symlink()
    assert (tmp_path / "report.html").read_text() == "theirs"


def test_rows_are_not_appended_through_a_link(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "steps.jsonl").symlink_to(mine)
    with pytest.raises(OSError), open(tmp_path / "steps.jsonl", "a", opener=safe_files.opener) as file:
        file.write("theirs")
    assert mine.read_text() == "mine"


def test_the_programs_own_folder_is_no_link_and_no_file(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(elsewhere)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="link: is a link, where a folder of the program's own belongs; remove it"):
        safe_files.own_folder(tmp_path / "link")
    for name in ("dangling", "file"):
        with pytest.raises(InputError, match=f"{name}: is (a link|no folder), where"):
            safe_files.own_folder(tmp_path / name)
    safe_files.own_folder(tmp_path / "link", may_be_link=True)  # a user may keep results elsewhere
    with pytest.raises(InputError, match="dangling: is no folder"):
        safe_files.own_folder(tmp_path / "dangling", may_be_link=True)


def test_links_in_it_are_taken_away(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kept.txt").write_text("mine")
    job = tmp_path / "job"
    job.mkdir()
    (job / "adapter").symlink_to(mine)
    (job / "log.txt").symlink_to(mine / "kept.txt")
    safe_files.own_folder(job)
    assert list(job.iterdir()) == []
    assert (mine / "kept.txt").read_text() == "mine"


def test_only_what_dead_writers_left_is_swept(tmp_path: Path) -> None:
    """A process that has ended, this one, and names that are nobody's temporary ones."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, living = f".status.json.{ended.pid}-0123456789ab", f".status.json.{os.getpid()}-0123456789ab"
    others = [".lock", "status.json", ".status.json.g6q_toip", "steps.cut", "step-000002.new"]
    for name in (dead, living, *others):
        (tmp_path / name).write_text("")
    assert safe_files.sweep([tmp_path, tmp_path / "nowhere"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living, *others])
    assert safe_files.sweep([tmp_path], older=True) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living, ".lock", "status.json"])


def test_a_killed_writer_leaves_what_the_next_sweep_takes(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from bench.records.safe_files import replacing\n"
        "with replacing(Path(sys.argv[1])) as file:\n    file.write(b'half')\n    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "status.json")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    assert not (tmp_path / "status.json").exists()
    assert safe_files.sweep([tmp_path]) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_making_is_swept_with_what_is_in_it(tmp_path: Path) -> None:
    with safe_files.temporary_folder(tmp_path / "model") as made:
        (made / "weights").write_text("half")
        assert made.parent == tmp_path and safe_files.sweep([tmp_path]) == 0  # this process is at work on it
        left = made.with_name(made.name.replace(str(os.getpid()), "999999999"))
        made.rename(left)
        made.mkdir()
    assert safe_files.sweep([tmp_path]) == 1
    assert list(tmp_path.iterdir()) == []
