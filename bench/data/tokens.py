"""Rows of text → token ids → batches.

Prompt and answer are tokenized apart and joined, so that no token straddles the border. The end-of-turn token belongs to
the answer unless the answer was cut. Over-long prompts lose their left end, over-long answers their right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.data import counts
from bench.data.markup import ControlTokens, Markup
from bench.data.rows import HUMAN, InstructionRow, PreferenceRow, begin_ids
from bench.data.sources import Loaded, load_rows
from bench.errors import DataError, ModelError
from bench.methods import Objective
from bench.settings import Data


@dataclass(frozen=True)
class Example:
    """One tokenized prompt with its answers: one for SFT, (chosen, rejected) for DPO.

    Attributes:
        unlearned: for each answer, the places of its tokens that the model does not say, such as a user's turn in between;
            empty where it says all of them.
    """

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    unlearned: tuple[frozenset[int], ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the prompt and all answers."""
        return len(self.prompt) + sum(map(len, self.answers))

    def learned(self, answer: int = 0) -> Sequence[int]:
        """Return the places of an answer's tokens that count in an objective."""
        places = range(len(self.answers[answer]))
        if not self.unlearned or not self.unlearned[answer]:
            return places
        return [place for place in places if place not in self.unlearned[answer]]


@dataclass
class Split:
    """One tokenized split, the numbers of its rows in what was read, and what is on record about it."""

    examples: list[Example]
    facts: dict[str, Any] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)


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
        self._bos = begin_ids(self.tokenizer)
        self.control = ControlTokens(self.tokenizer)
        self._special = set(self.tokenizer.all_special_ids) | {
            number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special
        }

    def prompt(self, text: str) -> tuple[int, ...]:
        """Tokenize a prompt; a beginning-of-sequence token the model expects survives the cut."""
        ids = tuple(self.control.ids(text))
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
        return self.learned_answer(text)[0]

    def learned_answer(self, text: str) -> tuple[tuple[int, ...], frozenset[int]]:
        """Tokenize an answer and end its turn, unless it is cut; return also which places of it nobody learns."""
        ids: list[int] = []
        unlearned: set[int] = set()
        start = 0
        for begin, end in text.unlearned if isinstance(text, Markup) else ():
            assert isinstance(text, Markup)
            said = self.control.ids(text.part(start, begin))
            over = self._end_of_turn(said) or len(said)
            passed = [*said[over:], *self.control.ids(text.part(begin, end))]
            unlearned.update(range(len(ids) + over, len(ids) + over + len(passed)))
            ids += [*said[:over], *passed]
            start = end
        said = self.control.ids(text.part(start) if start and isinstance(text, Markup) else text)
        over = self._end_of_turn(said)
        # What a chat template writes behind the end of the turn is not the model's to say.
        said = said[:over] if over and not self._text(said[over:]).strip() else said
        eos = self.tokenizer.eos_token_id
        ids += said if said[-1:] == [eos] else [*said, eos]
        self.cut_answers += len(ids) > self.max_answer_tokens
        kept = tuple(ids[: self.max_answer_tokens])
        return kept, frozenset(place for place in unlearned if place < len(kept))

    def _end_of_turn(self, ids: Sequence[int]) -> int:
        """Count the tokens up to the end of a turn that a chat template has written; 0 where it has written none."""
        eos = self.tokenizer.eos_token_id
        if eos in ids:
            return ids.index(eos) + 1
        return max((place + 1 for place, one in enumerate(ids) if one in self._special), default=0)

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids)) if ids else ""

    def example(self, row: PreferenceRow | InstructionRow) -> Example:
        """Tokenize a row."""
        texts = (row.answer,) if isinstance(row, InstructionRow) else (row.chosen, row.rejected)
        prompt = self.prompt(row.prompt)
        answers, unlearned = zip(*map(self.learned_answer, texts), strict=True)
        return Example(prompt, answers, unlearned if any(unlearned) else ())


def tokenize(
    rows: Sequence[PreferenceRow | InstructionRow], tokenizer: Any, settings: Data, loaded: Loaded | None = None
) -> Split:
    """Tokenize a split and put rows, cuts and sha256 of the text on record, and what became of the rows `loaded` with it."""
    tokenizing = Tokenizing(tokenizer, settings.max_prompt_tokens, settings.max_answer_tokens)
    examples = [tokenizing.example(row) for row in rows]
    text = json.dumps([vars(row) for row in rows], ensure_ascii=False, sort_keys=True)
    facts: dict[str, Any] = {
        "rows": len(rows),
        "cut_prompts": tokenizing.cut_prompts,
        "cut_answers": tokenizing.cut_answers,
        "tokens": sum(one.length for one in examples),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        **counts.of_rows(rows),
        **counts.of_tokens(rows, [one.answers for one in examples], tokenizing.control),
    }
    if loaded is not None:
        facts |= counts.of_reading(loaded)
    return Split(examples, facts, loaded.numbers[: len(rows)] if loaded else list(range(len(rows))))


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
    drop = settings.bad_rows == "drop"
    wanted = {"train": preference.rows, "held_out": max(preference.evaluation_rows, judged)}
    of_instruction = {"train": instruction.rows, "held_out": instruction.evaluation_rows}
    if instruction.source == "chosen":
        wanted = {name: max(count, of_instruction[name]) for name, count in wanted.items()}
    pairs = {name: load_rows(preference, name, count, tokenizer, mirror, drop=drop) for name, count in wanted.items()}
    if instruction.source == "chosen":
        rows = {name: _chosen(pairs[name], count) for name, count in of_instruction.items()}
    else:
        rows = {
            name: load_rows(instruction, name, count, tokenizer, mirror, drop=drop)
            for name, count in of_instruction.items()
        }
    if sft_on_chosen:
        rows["train"] = _chosen(pairs["train"], preference.rows)
    splits: dict[str, dict[Objective, Split]] = {"train": {}, "held_out": {}}
    for objective, of_splits in ((Objective.DPO, pairs), (Objective.SFT, rows)):
        for name, loaded in of_splits.items():
            own = preference if objective is Objective.DPO else instruction
            count = own.evaluation_rows if name == "held_out" else preference.rows if sft_on_chosen else own.rows
            splits[name][objective] = tokenize(loaded.rows[:count], tokenizer, settings, loaded)
        train, held_out = (of_splits[name].rows[: len(splits[name][objective].examples)] for name in splits)
        splits["held_out"][objective].facts |= counts.overlap(train, held_out)
    stop = (HUMAN,) if preference.format == "hh_dialogue" else ()
    return Datasets(splits["train"], splits["held_out"], pairs["held_out"].rows[:judged], stop)


def _chosen(pairs: Loaded, count: int) -> Loaded:
    """Make instruction rows of pairs' prompts and chosen answers."""
    rows = [InstructionRow(pair.prompt, pair.chosen) for pair in pairs.rows[:count]]
    return replace(pairs, rows=rows, numbers=pairs.numbers[:count])
