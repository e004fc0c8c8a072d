from __future__ import annotations

import resource
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import JudgeError, NoRoom
from bench.judges import Request, journal
from bench.judges.journal import Journal, Tail, key
from bench.records.record import read_jsonl

ROW = {"key": "a", "usable": True, "reply": {"text": "m"}}


def test_a_reply_is_found_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as one:
        one.add(ROW)
        one.add({"key": "b", "usable": False})
        assert one.find("a") == ROW
    with Journal(tmp_path / "j") as again:
        assert again.find("a") == ROW
        assert again.find("b") is None


def test_a_cut_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as one:
        one.add(ROW)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "b", "usa')
    with Journal(path) as again:
        again.add({**ROW, "key": "c"})
    assert path.read_bytes() == whole + whole.replace(b'"a"', b'"c"')


def test_a_full_disk_leaves_whole_lines_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with Journal(path) as one:
        one.add(ROW)
        whole = path.read_bytes()
        monkeypatch.setattr(journal.os, "fsync", full)
        with pytest.raises(JudgeError, match="No space left on device"):
            one.add({**ROW, "key": "b"})
        assert one.find("b") is None
    assert path.read_bytes() == whole.rstrip(b" ")


NOTE = {"key": "a", "pair": 0, "order": "ours_first"}


def test_a_request_is_noted_and_known_again_until_it_is_answered(tmp_path: Path) -> None:
    """One without an answer keeps its name, in the next process too; an answered one's successor gets another."""
    with Journal(tmp_path / "j") as one:
        name = one.send(NOTE, 100)
        assert [row["state"] for row in Tail(tmp_path / "j").new_rows()] == ["sent"]
        assert one.send({**NOTE, "key": "b"}, 100) != name
    with Journal(tmp_path / "j") as again:
        assert again.send(NOTE, 100) == name
        again.add({**ROW, "usable": False, "request": name, "state": "refused"})
        assert again.send(NOTE, 100) == name
        again.add({**ROW, "usable": False, "request": name, "state": "answered"})
        other = again.send(NOTE, 100)
        assert other != name
        again.add({**ROW, "request": other, "state": "answered"})
    with Journal(tmp_path / "k", others=lambda: [tmp_path / "j"]) as third:
        assert third.take_over("a", 1, "ours_first") == ROW | {"from": tmp_path.name, "pair": 1, "order": "ours_first"}


def test_room_for_replies_is_taken_before_they_are_asked_for(tmp_path: Path) -> None:
    """No file may pass 200 KiB: four requests with room for 40 KiB each fit, and their replies do, whole; a fifth does not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    reply = {**ROW, "reply": {"text": "m" * 40_000}}
    with Journal(tmp_path / "j") as one:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200 * 1024, limits[1]))
        try:
            names = [one.send({**NOTE, "key": f"{place}"}, 41_000) for place in range(4)]
            with pytest.raises(
                NoRoom, match=r"no room for a judge's replies: \d+ KiB more are needed \(File too large\)"
            ) as full:
                one.send({**NOTE, "key": "4"}, 41_000)
            assert str(tmp_path) in str(full.value)
            for place, name in enumerate(names):
                one.add({**reply, "key": f"{place}", "request": name, "state": "answered"})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (tmp_path / "j").stat().st_size <= 200 * 1024
        assert (tmp_path / "j").read_bytes().endswith(b" ")
    assert (tmp_path / "j").read_bytes().endswith(b"}\n")
    with Journal(tmp_path / "j") as again:
        assert [again.find(f"{place}") is not None for place in range(5)] == [True] * 4 + [False]


def test_a_line_that_fails_leaves_the_room_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    with Journal(path) as one:
        name = one.send(NOTE, 1000)
        size = path.stat().st_size
        with monkeypatch.context() as patched:
            patched.setattr(journal.os, "fsync", failing)
            with pytest.raises(JudgeError, match="Input/output error"):
                one.add({**ROW, "key": "b"})
        assert path.stat().st_size == size
        one.add({**ROW, "request": name, "state": "answered"})
    assert [row["key"] for row in read_jsonl(path)] == ["a", "a"]


def test_a_reply_after_the_end_is_not_written_into_what_may_be_anothers(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as one:
        name = one.send(NOTE, 1000)
    with pytest.raises(JudgeError, match="the journal is closed"):
        one.add({**ROW, "request": name, "state": "answered"})
    assert [row["state"] for row in read_jsonl(tmp_path / "j")] == ["sent"]


def failing(_: int) -> None:
    raise OSError(5, "Input/output error")


def test_a_second_user_waits_and_then_sees_what_the_first_kept(tmp_path: Path) -> None:
    found: list[Any] = []
    told: list[str] = []
    first = Journal(tmp_path / "j")
    first.__enter__()

    def second() -> None:
        with Journal(tmp_path / "j", tell=told.append) as other:
            found.append(other.find("a"))

    thread = threading.Thread(target=second)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    first.add(ROW)
    first.__exit__(None, None, None)
    thread.join(5)
    assert found == [ROW]
    assert told == [f"waiting for another process that holds {tmp_path / 'j'}"]


def test_a_reply_that_another_judging_paid_for_is_taken_over(tmp_path: Path) -> None:
    """It is copied under the pair's number here, marked with its origin, and only the origin's to pay."""
    theirs, ours = tmp_path / "one" / "journal.jsonl", tmp_path / "two" / "journal.jsonl"
    with Journal(theirs) as other:
        other.add(ROW | {"pair": 7, "order": "ours_first", "cost_usd": 0.25})
        other.add({"key": "b", "usable": False, "cost_usd": 0.5})
    with Journal(ours, others=lambda: tmp_path.glob("*/journal.jsonl")) as one:
        assert one.find("a") is None
        taken = one.take_over("a", 3, "theirs_first")
        assert taken == ROW | {"from": "one", "pair": 3, "order": "theirs_first", "cost_usd": 0.25}
        assert one.take_over("b", 3, "ours_first") is None
        assert one.spent_by_others() == 0.75
    with Journal(ours) as again:
        assert again.find("a") == taken
    with Journal(tmp_path / "three" / "journal.jsonl", others=lambda: [ours, theirs]) as third:
        assert third.spent_by_others() == 0.75
        assert (third.take_over("a", 0, "ours_first") or {})["from"] == "one"


def test_another_journal_is_read_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line is no row yet; it is read once its end is there."""
    monkeypatch.setattr(journal, "_LOOK_EVERY_SECONDS", 0)
    theirs = tmp_path / "theirs"
    line = b'{"key": "a", "usable": true, "reply": {}}\n'
    theirs.write_bytes(line[:20])
    with Journal(tmp_path / "ours", others=lambda: [theirs]) as one:
        assert one.take_over("a", 0, "ours_first") is None
        theirs.write_bytes(line)
        assert one.take_over("a", 0, "ours_first") is not None


def test_spoiled_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as one:
        one.add(ROW)
    path.write_bytes(b'\x00\x00\x00\n[1]\n{"key": "z"}\n\xff\n' + path.read_bytes())
    with Journal(path) as again:
        assert again.rows == [ROW]


def test_half_a_surrogate_pair_is_kept(tmp_path: Path) -> None:
    row = ROW | {"reply": {"text": "\ud800"}}
    with Journal(tmp_path / "j") as one:
        one.add(row)
    with Journal(tmp_path / "j") as again:
        assert again.find("a") == row


def test_the_key_covers_all_that_decides_a_reply() -> None:
    """Each change of one thing changes the key; swapping the answers does too."""
    judge = {"model": "m", "host": "h", "parameters": {"temperature": 1}}
    request = Request("q", "x", "y", ())
    variants = [
        (judge, "t", request),
        (judge | {"model": "n"}, "t", request),
        (judge | {"host": "i"}, "t", request),
        (judge | {"parameters": {"temperature": 0}}, "t", request),
        (judge, "u", request),
        (judge, "t", Request("r", "x", "y", ())),
        (judge, "t", Request("q", "y", "x", ())),
    ]
    keys = [key(SimpleNamespace(**given), template, asked) for given, template, asked in variants]  # type: ignore[arg-type]
    assert len(set(keys)) == len(variants)
    assert keys[0] == key(SimpleNamespace(**judge), "t", Request("q", "x", "y", ()))  # type: ignore[arg-type]
