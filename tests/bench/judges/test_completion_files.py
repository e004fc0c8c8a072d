from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.judges.completion_files import pairs


def write(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


def rows(*given: tuple[str, str]) -> list[dict[str, str]]:
    return [{"instruction": instruction, "output": output} for instruction, output in given]


def test_rows_are_matched_by_instruction_and_repeated_ones_in_order(tmp_path: Path) -> None:
    ours = write(tmp_path / "ours.json", rows(("q", "1"), ("r", "2"), ("q", "3")))
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text("".join(json.dumps(row) + "\n" for row in rows(("r", "b"), ("q", "a"), ("q", "c"))))
    made = [(pair.id, pair.instruction, pair.ours, pair.theirs) for pair in pairs(ours, theirs)]
    assert made == [(0, "q", "1", "a"), (1, "r", "2", "b"), (2, "q", "3", "c")]


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (rows(("q", "1"), ("r", "2")), rows(("q", "a")), r"ours.json: row 2: .*theirs.json has no answer to 'r'"),
        (rows(("q", "1")), rows(("q", "a"), ("s", "b")), r"theirs.json: .*ours.json has no answer to 's'"),
        ([], rows(("q", "a")), "ours.json: holds no answer"),
        ([{"instruction": "q", "answer": "1"}], [], "row 1: no text under 'output', .*; it has instruction, answer"),
        ([{"instruction": "q", "output": None}], [], "row 1: no text under 'output'"),
        (["q"], [], "row 1: no text under 'instruction', .*; it is 'q'"),
        (rows(("q", "\ud800")), [], "row 1: 'output' holds half of a surrogate pair"),
    ],
)
def test_what_does_not_fit_is_named(ours: Any, theirs: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        pairs(write(tmp_path / "ours.json", ours), write(tmp_path / "theirs.json", theirs))


@pytest.mark.parametrize(("text", "message"), [("[{", "neither a JSON array nor JSON lines"), (None, "cannot be read")])
def test_a_file_that_cannot_be_read_is_named(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "ours.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=f"ours.json: {message}"):
        pairs(path, path)
