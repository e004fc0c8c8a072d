"""The rows both sides work on, and the mirror that is generated where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from byte_level import TOKENIZER

from bench.data.sources import load_rows
from bench.settings import InstructionData, PreferenceData
from bench.suite.suite import Suite
from benchmarks import material
from benchmarks.evaluation import load_tasks
from benchmarks.growth import SIZES


class Letters:
    """Tokenize by letters, but `ab` is one token wherever it stands, and `.` is the end."""

    eos_token = "."

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids, place = [], 0
        while place < len(text):
            width = 2 if text[place : place + 2] == "ab" else 1
            ids.append(ord(text[place]) + 1000 * (width - 1))
            place += width
        return {"input_ids": ids}

    def decode(self, ids: list[int]) -> str:
        return "".join("ab" if one > 1000 else chr(one) for one in ids)


def pair(prompt: str, chosen: str, rejected: str) -> Any:
    from bench.data.rows import PreferenceRow

    return PreferenceRow(prompt, chosen, rejected)


def test_a_pair_is_taken_where_both_ways_of_tokenizing_agree() -> None:
    """`xa` + `b`: together `ab` is one token, apart two. `xa` + `c` is `x a c` either way."""
    assert material._alike(pair("xa", "c", "d"), Letters(), 9, 9) == {"prompt": "xa", "chosen": "c", "rejected": "d"}
    assert material._alike(pair("xa", "b", "d"), Letters(), 9, 9) is None


def test_long_prompts_lose_their_left_end_and_long_answers_their_pair() -> None:
    """An answer of 2 letters and the end has 3 tokens."""
    made = material._alike(pair("vwxyz", "cc", "d"), Letters(), 2, 3)
    assert made == {"prompt": "yz", "chosen": "cc", "rejected": "d"}
    assert material._alike(pair("vwxyz", "cc", "d"), Letters(), 2, 2) is None


def test_the_suites_are_valid(tmp_path: Path) -> None:
    suite = Suite.model_validate(material.suite(tmp_path, "bfloat16", 8, 16, training={"steps": 3}))
    assert (suite.steps, suite.lora.rank, suite.lora.targets) == (3, 8, ("q_proj", "v_proj"))


def test_the_generated_mirror_is_read_like_the_real_one(tmp_path: Path) -> None:
    """Pairs, rows, and lm-eval's own task of a subject with one shot, 20 questions each."""
    mirror = material.make_mirror(tmp_path / "mirror")
    base: dict[str, Any] = {"source": "hub", "rows": 3}
    preference = PreferenceData(path=material.PREFERENCE, format="hh_dialogue", **base)
    instruction = InstructionData(path=material.INSTRUCTION, **base)
    assert len(load_rows(preference, "train", 3, TOKENIZER, mirror).rows) == 3
    assert len(load_rows(instruction, "train", 3, TOKENIZER, mirror).rows) == 3
    (task,) = load_tasks(str(mirror), ["mmlu_astronomy"]).values()
    assert len(list(task.test_docs())) == 20
    assert task.config.num_fewshot == 1


def test_mmlu_has_57_subjects() -> None:
    assert len(material.mmlu_subjects()) == 57


def test_the_built_in_models_are_as_large_as_their_names() -> None:
    """4 layers of 4 w² (attention) and 3 · w · 3w: 52 w², at widths 128 and 272; the world's words come to it."""
    assert [52 * width**2 for width, _, _ in SIZES.values()] == [851_968, 3_847_168]


def test_a_missing_mirror_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_MIRROR", str(tmp_path))
    assert material.find_mirror() is None
