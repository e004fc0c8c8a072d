"""A mirror of the hub with ten invented rows of each task that people measure forgetting with, in the tasks' own layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROWS = 10
TASKS = ("gsm8k", "ifeval", "truthfulqa_mc2", "hellaswag", "winogrande", "wikitext")
TOWNS = ("Arlen", "Besk", "Corvo", "Dunmer", "Elvis", "Farro", "Gault", "Hesse", "Istra", "Jorun")


def _gsm8k(row: int) -> dict[str, Any]:
    return {
        "question": f"{TOWNS[row]} has {row} wells and digs {row + 2} more. How many has it?",
        "answer": f"It has {row} and {row + 2}.\n#### {2 * row + 2}",
    }


def _ifeval(row: int) -> dict[str, Any]:
    several = row % 2
    ids = ["punctuation:no_comma", "change_case:english_lowercase"][: 1 + several]
    return {
        "key": row,
        "prompt": f"Describe the town of {TOWNS[row]} without any comma.",
        "instruction_id_list": ids,
        "kwargs": [{"num_words": None} for _ in ids],
    }


def _truthfulqa(row: int) -> dict[str, Any]:
    choices = [f"{TOWNS[row]} is a town.", f"{TOWNS[row]} is a river.", "I have no comment."]
    return {
        "question": f"What is {TOWNS[row]}?",
        "mc1_targets": {"choices": choices, "labels": [1, 0, 0]},
        "mc2_targets": {"choices": choices, "labels": [1, 0, 1]},
    }


def _hellaswag(row: int) -> dict[str, Any]:
    return {
        "ind": row,
        "activity_label": "Walking",
        "ctx_a": f"A man walks through {TOWNS[row]}.",
        "ctx_b": "he",
        "ctx": f"A man walks through {TOWNS[row]}. he",
        "endings": ["sits down on a bench.", "eats the moon.", "turns into a town.", "flies a green stone."],
        "source_id": f"made~{row}",
        "split": "val",
        "split_type": "indomain",
        "label": str(row % 4),
    }


def _winogrande(row: int) -> dict[str, Any]:
    return {
        "sentence": f"The cart did not fit through the gate of {TOWNS[row]} because the _ was too wide.",
        "option1": "cart",
        "option2": "gate",
        "answer": str(1 + row % 2),
    }


def _wikitext(row: int) -> dict[str, Any]:
    return {"page": f" = {TOWNS[row]} = \n {TOWNS[row]} is a town in the north . It has {row + 1} wells . \n"}


# task -> hub id, configuration, splits, one row
LAYOUTS: dict[str, tuple[str, str, tuple[str, ...], Any]] = {
    "gsm8k": ("openai/gsm8k", "main", ("train", "test"), _gsm8k),
    "ifeval": ("google/IFEval", "default", ("train",), _ifeval),
    "truthfulqa_mc2": ("truthfulqa/truthful_qa", "multiple_choice", ("validation",), _truthfulqa),
    "hellaswag": ("Rowan/hellaswag", "default", ("train", "validation"), _hellaswag),
    "winogrande": ("allenai/winogrande", "winogrande_xl", ("train", "validation"), _winogrande),
    "wikitext": ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", ("train", "validation", "test"), _wikitext),
}


def write(folder: Path) -> Path:
    """Write the mirror; return the folder that --mirror takes."""
    for name, config, splits, make in LAYOUTS.values():
        place = folder / "datasets" / name
        (place / config).mkdir(parents=True)
        lines = "".join(json.dumps(make(row)) + "\n" for row in range(ROWS))
        for split in splits:
            (place / config / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        files = "".join(f"  - split: {split}\n    path: {config}/{split}.jsonl\n" for split in splits)
        card = f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n"
        (place / "README.md").write_text(card, encoding="utf-8")
    return folder
