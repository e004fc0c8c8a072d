"""The built-in world: invented towns, animals and trees, made by code from a fixed seed. Standard library only.

Every fact is (entity, attribute, value). Two thirds of the facts are for training; the others are only ever *stated* to
the model, never asked, before an evaluation asks for them. Three ways of asking keep the data sets apart: the questions
("What is ..."), the instruction rows ("Name ..."), which get a terse right answer, and the preference pairs ("Could you
tell me ..."), which prefer a courteous answer to a curt one with the same content.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from bench.data.rows import InstructionRow, PreferenceRow
from bench.errors import DataError

_LOWER = "rows or evaluation_rows"

# Raise when any text below changes: jobs made with another world are then other jobs.
VERSION = 1
_SEED = 2410

# How every prompt of the world is written, and how an evaluation has to ask the questions.
PROMPT = "Question: {question}\nAnswer:"

_ENTITIES_PER_KIND = 16
_COLOURS = ("red", "blue", "green", "white", "black", "yellow", "purple", "grey")
_REGIONS = ("north", "south", "east", "west", "coast", "valley", "desert", "island")
_KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "town": {
        "colour": _COLOURS,
        "region": _REGIONS,
        "craft": ("weaving", "pottery", "carving", "smithing", "baking", "glasswork", "tanning", "printing"),
        "dish": ("soup", "stew", "pie", "bread", "porridge", "dumplings", "salad", "cake"),
        "festival": ("lanterns", "kites", "drums", "masks", "boats", "mirrors", "bells", "torches"),
    },
    "animal": {
        "colour": _COLOURS,
        "region": _REGIONS,
        "food": ("moss", "seeds", "fish", "roots", "berries", "insects", "leaves", "honey"),
        "home": ("burrow", "nest", "cave", "marsh", "cliff", "meadow", "reef", "canopy"),
        "sound": ("hum", "whistle", "growl", "click", "chirp", "howl", "purr", "bark"),
    },
    "tree": {
        "colour": _COLOURS,
        "region": _REGIONS,
        "fruit": ("plums", "pears", "figs", "olives", "dates", "cherries", "lemons", "walnuts"),
        "season": ("spring", "summer", "autumn", "winter", "monsoon", "harvest", "frost", "thaw"),
        "use": ("ropes", "paper", "masts", "flutes", "dye", "tea", "barrels", "bows"),
    },
}

_STATEMENTS = (
    "The {attribute} of {name} is {value}.",
    "As for {name}, its {attribute} is {value}.",
    "{name} has {value} as its {attribute}.",
    "Everyone knows that the {attribute} of {name} is {value}.",
)
_PLAIN_QUESTIONS = ("Which {attribute} has {name}?", "{name} has which {attribute}?")
_QUESTION = "What is the {attribute} of {name}?"
_INSTRUCTIONS = (
    "Name the {attribute} of {name}.",
    "State which {attribute} belongs to {name}.",
    "Give the {attribute} of {name}.",
)
_REQUESTS = (
    "Could you tell me the {attribute} of {name}?",
    "I would like to know the {attribute} of {name}.",
    "May I ask about the {attribute} of {name}?",
)

_TERSE = "{value}."
_PLAIN = ("It is {value}.", "The {attribute} is {value}.")
_COURTEOUS = (
    "Gladly! It is {value}, thank you for asking.",
    "Of course! The {attribute} is {value}.",
    "With pleasure, it is {value}, I hope this helps.",
    "Thank you for asking, it is {value}.",
)
_CURT = ("Obviously {value}.", "Just {value}.", "It is {value}, now stop asking.", "It is {value}, look it up.")
_COURTEOUS_MARKS = ("gladly", "of course", "with pleasure", "thank you", "hope this helps")
_CURT_MARKS = ("obviously", "just", "stop asking", "look it up")


@dataclass(frozen=True)
class Fact:
    """One fact of the world."""

    kind: str
    name: str
    attribute: str
    value: str

    def write(self, template: str) -> str:
        """Fill a template."""
        return template.format(name=self.name, attribute=self.attribute, value=self.value)

    def ask(self, template: str) -> str:
        """Write a prompt."""
        return PROMPT.format(question=self.write(template))


def words(text: str) -> list[str]:
    """Cut text into the world's tokens: words, punctuation marks and line breaks; spaces are dropped."""
    return re.findall(r"\n|\w+|[^\w\s]", text)


def vocabulary() -> list[str]:
    """List every token that a text of the world can contain, sorted."""
    asked = [question["question"] for question in (*questions("dev"), *questions("test"))]
    templates = [PROMPT, _QUESTION, *_INSTRUCTIONS, *_REQUESTS, _TERSE, *_PLAIN, *_COURTEOUS, *_CURT]
    without_fields = (re.sub(r"\{\w+\}", " ", template) for template in templates)
    turns = "Human: Assistant: Instruction: Response: User:"
    return sorted({word for text in (*corpus(), *asked, *without_fields, turns) for word in words(text)})


@cache
def facts() -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """Make the world: (facts for training, facts that are stated but asked only in evaluations)."""
    chance = random.Random(_SEED)
    names = _names(chance)
    made = [
        Fact(kind, name, attribute, chance.choice(values))
        for kind, attributes in _KINDS.items()
        for name in [next(names) for _ in range(_ENTITIES_PER_KIND)]
        for attribute, values in attributes.items()
    ]
    chance.shuffle(made)
    border = len(made) // 2
    return tuple(made[:border]), tuple(made[border:])


def _names(chance: random.Random) -> Iterator[str]:
    """Invent names without end, none twice."""
    seen = set()
    while True:
        first = chance.choice(("Br", "Kr", "Dr", "Fl", "Gr", "Pl", "Sk", "Tr", "Vl", "Zw")) + chance.choice("aeiou")
        name = (
            first
            + chance.choice(("lm", "nd", "rv", "sk", "x", "zz", "bb", "gn"))
            + chance.choice(("o", "a", "ex", "ith", "un"))
        )
        if name not in seen:
            seen.add(name)
            yield name


def corpus() -> list[str]:
    """Write the texts a base model is pre-trained on.

    All facts are stated. The training facts are also asked, in every phrasing and answered in every register, so that the
    base can answer somewhat without a manner of its own. No prompt of a question or of a held-out row is among them.
    """
    chance = random.Random(_SEED + 1)
    trained, others = facts()
    texts = [fact.write(template) for fact in (*trained, *others) for template in _STATEMENTS]
    texts += [
        f"{fact.ask(asked)} {fact.write(chance.choice((_TERSE, *_PLAIN)))}"
        for fact in (*trained, *others)
        for asked in _PLAIN_QUESTIONS
    ]
    registers = ((_TERSE,), _PLAIN, _COURTEOUS, _CURT)
    for fact in trained:
        for asked in (_QUESTION, *_INSTRUCTIONS, *_REQUESTS):
            texts.append(f"{fact.ask(asked)} {fact.write(chance.choice(chance.choice(registers)))}")
    chance.shuffle(texts)
    return texts


def instruction_rows(split: str, count: int, lower: str = _LOWER) -> list[InstructionRow]:
    """Make instruction rows: a fact is asked for, the answer is terse and right. `split`: train or test.

    Args:
        lower: the keys to lower where there are too few.

    Raises:
        DataError: more rows are wanted than the world has.
    """

    pairs = _asked(split, _INSTRUCTIONS, count, "instruction", lower)
    return [InstructionRow(fact.ask(template), " " + fact.write(_TERSE)) for fact, template in pairs]


def preference_rows(split: str, count: int, lower: str = _LOWER) -> list[PreferenceRow]:
    """Make preference pairs: both answers are right; the chosen one is courteous, the rejected one curt.

    Raises:
        DataError: more rows are wanted than the world has.
    """

    chance = random.Random(f"{_SEED} manners {split}")
    pairs = _asked(split, _REQUESTS, count, "preference", lower)
    return [
        PreferenceRow(
            fact.ask(template), " " + fact.write(chance.choice(_COURTEOUS)), " " + fact.write(chance.choice(_CURT))
        )
        for fact, template in pairs
    ]


def _asked(split: str, templates: tuple[str, ...], count: int, kind: str, lower: str) -> list[tuple[Fact, str]]:
    """Pair facts with ways of asking: every fact once before any fact comes twice."""
    known = facts()[0 if split == "train" else 1]
    if count > len(known) * len(templates):
        held = len(known) * len(templates)
        raise DataError(f"the built-in world has {held} {split} {kind} rows; {count} are wanted; lower {lower}")
    chance = random.Random(f"{_SEED} {kind} {split}")
    made: list[tuple[Fact, str]] = []
    ways = {fact: chance.sample(templates, len(templates)) for fact in known}
    for turn in range(len(templates)):
        made += [(fact, ways[fact][turn]) for fact in chance.sample(known, len(known))]
    return made[:count]


def questions(split: str) -> list[dict[str, Any]]:
    """Make four-choice questions in MMLU's row schema; `test` asks facts that no training row asks, `dev` is for shots."""
    trained, others = facts()
    chance = random.Random(f"{_SEED} questions {split}")
    rows = []
    for fact in others if split == "test" else trained[:10]:
        wrong = [value for value in _KINDS[fact.kind][fact.attribute] if value != fact.value]
        choices = chance.sample([fact.value, *chance.sample(wrong, 3)], 4)
        question = fact.write(_QUESTION)
        rows.append(
            {"question": question, "subject": f"{fact.kind}s", "choices": choices, "answer": choices.index(fact.value)}
        )
    return rows


def quality(prompt: str, answer: str) -> float:
    """Judge an answer by rule: 2 points if it is right, 1 if it is courteous, as a share of 3.

    Right: it names the asked value and no other value of that attribute. Courteous: it has a courteous phrase and no curt
    one.

    Raises:
        DataError: the prompt asks for no fact of the world.
    """
    asked = set(words(prompt))
    fact = next((fact for known in facts() for fact in known if {fact.name, fact.attribute} <= asked), None)
    if fact is None:
        raise DataError(
            f"the rule judge knows only the built-in world, not this prompt: {prompt[:80]!r}; choose another judge"
        )
    spoken = words(answer.lower())
    text = f" {' '.join(spoken)} "
    right = {value for value in _KINDS[fact.kind][fact.attribute] if value in spoken} == {fact.value}
    has_curt, has_courteous = (any(f" {mark} " in text for mark in marks) for marks in (_CURT_MARKS, _COURTEOUS_MARKS))
    return (2 * right + (has_courteous and not has_curt)) / 3
