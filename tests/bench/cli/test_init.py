"""`bench init` writes a suite that is valid as it stands and explains every key."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from byte_level import TOKENIZER

from bench.cli import init
from bench.data import sources
from bench.data.rows import InstructionRow, PreferenceRow
from bench.errors import InputError
from bench.suite import smoke, yaml_file
from bench.suite.suite import Suite


def test_the_template_is_a_valid_suite(tmp_path: Path) -> None:
    """300 steps: 3 epochs of 800 / 8 = 1600 / 16 = 100 steps."""
    path = tmp_path / "new" / "mine.yaml"
    init.write(path)
    suite = yaml_file.load(str(path))
    assert suite.steps == 300
    assert [method.name for method in suite.methods] == ["sequential", "mix", "alright", "maxright"]  # the paper's
    assert suite.data.preference.columns.chosen == "better"
    assert suite.data.instruction.template == "User: {prompt}\nAssistant:"


def test_every_line_with_a_key_has_a_comment() -> None:
    keys = [line for line in init.template().splitlines() if re.match(r"\s*(- )?\w+:", line)]
    assert len(keys) > 60
    assert [line for line in keys if " # " not in line] == []


def test_it_names_every_key_that_a_suite_may_have_at_the_top() -> None:
    """All but `notes` and `phases`, which an own suite does not begin with, and `smoke`, which is no key."""
    told = {line.split(":")[0] for line in init.template().splitlines() if re.match(r"\w+:", line)}
    assert told == set(Suite.model_fields) - {"notes", "phases", "smoke"}


def test_its_smoke_is_valid_and_needs_none_of_the_users_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    init.write(path)
    small = smoke.shrink(yaml_file.load(str(path)))
    assert small.data.preference.source == small.data.instruction.source == "world"


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"mine\.yaml: exists already; give another name, or move it away$"):
        init.write(path)
    assert path.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"file/mine\.yaml: cannot be written"):
        init.write(tmp_path / "file" / "mine.yaml")


def test_own_rows_of_the_kind_the_template_describes_are_read(tmp_path: Path) -> None:
    """The columns of the comments, mapped as the template maps them: row 0 trains, row 1 (after it) is held out."""
    pairs, tasks = tmp_path / "preferences.jsonl", tmp_path / "instructions.jsonl"
    pairs.write_text(
        "".join(json.dumps({"question": f"q{n}", "better": f"b{n}", "worse": f"w{n}"}) + "\n" for n in (0, 1))
    )
    tasks.write_text(
        "".join(json.dumps({"task": f"t{n}", "context": f"c{n}", "answer": f"a{n}"}) + "\n" for n in (0, 1))
    )
    path = tmp_path / "mine.yaml"
    init.write(path)
    changes = [f"data.preference.path={pairs}", f"data.instruction.path={tasks}", "training.micro_batch_size=null"]
    for name in ("preference", "instruction"):
        changes += [f"data.{name}.rows=1", f"data.{name}.evaluation_rows=1"]
    changes += ["training.batch_size.dpo=1", "training.batch_size.sft=1"]
    suite = yaml_file.load(str(path), changes)
    pair, task = suite.data.preference, suite.data.instruction
    assert sources.load_rows(pair, "train", 1, TOKENIZER, None).rows == [PreferenceRow("q0", "b0", "w0")]
    assert sources.load_rows(pair, "held_out", 1, TOKENIZER, None).rows == [PreferenceRow("q1", "b1", "w1")]
    assert sources.load_rows(task, "held_out", 1, TOKENIZER, None).rows == [
        InstructionRow("User: t1\nc1\nAssistant:", " a1")
    ]
