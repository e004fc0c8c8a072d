"""Rows of text → token ids → batches.

Prompt and answer are tokenized apart and joined, so that no token straddles the border. The end-of-turn token belongs to
the answer unless the answer was cut. Over-long prompts lose their left end, over-long answers their right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.data.rows import HUMAN, InstructionRow, PreferenceRow
from bench.data.sources import load_text
from bench.errors import DataError, ModelError
from bench.methods import Objective
from bench.settings import Data


@dataclass(frozen=True)
class Example:
    """One tokenized prompt with its answers: one for SFT, (chosen, rejected) for DPO."""

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]

    @property
    def length(self) -> int:
        """Tokens of the prompt and all answers."""
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass
class Split:
    """One tokenized split and what is on record about it."""

    examples: list[Example]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Datasets:
    """The training and held-out rows of each objective, and the prompts to be judged as text."""

    train: dict[Objective, Split]
    held_out: dict[Objective, Split]
    judged: list[PreferenceRow]
    stop: tuple[str, ...]

    def sample(self, split: str, objective: Objective) -> list[Example]:
        """Return the evaluation rows: all held-out rows, or as many from the head of the training rows."""
        held_out = self.held_out[objective].examples
        return held_out if split == "held_out" else self.train[objective].examples[: len(held_out)]

    def facts(self) -> dict[str, Any]:
        """Return rows used, rows cut and sha256 of every split."""
        return {
            f"{objective}/{name}": split.facts
            for name, splits in (("train", self.train), ("held_out", self.held_out))
            for objective, split in splits.items()
        }


@dataclass
class Tokenizing:
    """Tokenize rows under the length limits and count what was cut."""

    tokenizer: Any
    max_prompt_tokens: int
    max_answer_tokens: int
    cut_prompts: int = 0
    cut_answers: int = 0

    def __post_init__(self) -> None:
        if self.tokenizer.eos_token_id is None:
            raise ModelError("the model's tokenizer has no end-of-sequence token, so no answer could end its turn")
        bos = self.tokenizer.bos_token_id
        self._bos = (bos,) if bos is not None and self.tokenizer("a")["input_ids"][:1] == [bos] else ()

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt(self, text: str) -> tuple[int, ...]:
        """Tokenize a prompt; a beginning-of-sequence token the model expects survives the cut."""
        ids = self._ids(text)
        if self._bos and ids[:1] == self._bos:  # a chat template has put it there already
            ids = ids[1:]
        room = self.max_prompt_tokens - len(self._bos)
        self.cut_prompts += len(ids) > room
        ids = self._bos + ids[max(0, len(ids) - room) :]
        if not ids:
            raise DataError("a prompt is empty, so nothing predicts its answer's first token; drop such rows")
        return ids

    def answer(self, text: str) -> tuple[int, ...]:
        """Tokenize an answer and end its turn, unless it is cut."""
        eos = self.tokenizer.eos_token_id
        ids = self._ids(text)
        if eos in ids:  # a chat template has ended the turn already; what follows it is not the model's to say
            ids = ids[: ids.index(eos)]
        ids = (*ids, eos)
        self.cut_answers += len(ids) > self.max_answer_tokens
        return ids[: self.max_answer_tokens]

    def example(self, row: PreferenceRow | InstructionRow) -> Example:
        answers = (row.answer,) if isinstance(row, InstructionRow) else (row.chosen, row.rejected)
        return Example(self.prompt(row.prompt), tuple(self.answer(answer) for answer in answers))


def tokenize(rows: Sequence[PreferenceRow | InstructionRow], tokenizer: Any, settings: Data) -> Split:
    """Tokenize a split and put rows, cuts and sha256 of the text on record."""
    tokenizing = Tokenizing(tokenizer, settings.max_prompt_tokens, settings.max_answer_tokens)
    examples = [tokenizing.example(row) for row in rows]
    text = json.dumps([vars(row) for row in rows], ensure_ascii=False, sort_keys=True)
    return Split(
        examples,
        {
            "rows": len(rows),
            "cut_prompts": tokenizing.cut_prompts,
            "cut_answers": tokenizing.cut_answers,
            "tokens": sum(one.length for one in examples),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        },
    )


def load(
    settings: Data, tokenizer: Any, mirror: Path | None, *, sft_on_chosen: bool = False, judged: int = 0
) -> Datasets:
    """Load and tokenize both data sets.

    Args:
        settings: the suite's data settings.
        tokenizer: the model's tokenizer.
        mirror: folder of an offline mirror, or None.
        sft_on_chosen: make the SFT rows from the preference pairs' prompts and chosen answers (a reference policy).
        judged: how many held-out prompts are wanted as text for the win rate.
    """
    preference, instruction = settings.preference, settings.instruction
    held_out_count = max(preference.evaluation_rows, judged)
    pairs = {
        "train": load_text(preference, "train", preference.rows, tokenizer, mirror),
        "held_out": load_text(preference, "held_out", held_out_count, tokenizer, mirror),
    }
    rows = {
        "train": load_text(instruction, "train", instruction.rows, tokenizer, mirror),
        "held_out": load_text(instruction, "held_out", instruction.evaluation_rows, tokenizer, mirror),
    }
    if sft_on_chosen:
        rows["train"] = [InstructionRow(pair.prompt, pair.chosen) for pair in pairs["train"]]
    counts = {"train": None, "held_out": preference.evaluation_rows}
    splits = {
        name: {
            Objective.DPO: tokenize(pairs[name][: counts[name]], tokenizer, settings),
            Objective.SFT: tokenize(rows[name], tokenizer, settings),
        }
        for name in ("train", "held_out")
    }
    stop = (HUMAN,) if preference.format == "hh_dialogue" else ()
    return Datasets(splits["train"], splits["held_out"], pairs["held_out"][:judged], stop)
