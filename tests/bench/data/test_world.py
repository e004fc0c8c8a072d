from __future__ import annotations

import pytest

from bench.data import world
from bench.errors import DataError


def test_the_world_has_240_facts_asked_once_per_entity_and_attribute() -> None:
    """3 kinds × 16 entities × 5 attributes = 240 facts; half of them, 120, are for training."""
    trained, others = world.facts()
    assert (len(trained), len(others)) == (120, 120)
    assert len({(fact.name, fact.attribute) for fact in (*trained, *others)}) == 240
    assert len({fact.name for fact in (*trained, *others)}) == 48


def test_no_training_row_asks_a_held_out_fact() -> None:
    """Training rows and held-out rows (or questions) share no fact, hence no prompt either."""
    trained, others = ({(fact.name, fact.attribute) for fact in known} for known in world.facts())
    assert not trained & others
    for make in (world.instruction_rows, world.preference_rows):
        prompts = {split: [row.prompt for row in make(split, 360)] for split in ("train", "test")}
        for split, known in (("train", trained), ("test", others)):
            asked = {
                (name, word) for p in prompts[split] for name, word in known if {name, word} <= set(world.words(p))
            }
            assert asked == known
            assert len(set(prompts[split])) == 360
        assert not set(prompts["train"]) & set(prompts["test"])


def test_the_corpus_states_every_fact_and_holds_no_evaluated_prompt() -> None:
    """A prompt seen in pre-training would measure memory of the corpus instead of the fact."""
    corpus = world.corpus()
    for fact in (*world.facts()[0], *world.facts()[1]):
        assert fact.write("The {attribute} of {name} is {value}.") in corpus
    held_out = [row.prompt for row in (*world.instruction_rows("test", 360), *world.preference_rows("test", 360))]
    held_out += [world.PROMPT.format(question=row["question"]) for row in world.questions("test")]
    assert len(held_out) == 360 + 360 + 120
    assert not set(held_out) & {text.partition("\nAnswer:")[0] + "\nAnswer:" for text in corpus}


def test_the_first_rows_ask_different_facts() -> None:
    """120 rows of 120 facts: no fact twice before every fact was asked once."""
    rows = world.preference_rows("train", 120)
    trained = world.facts()[0]
    asked = {fact for row in rows for fact in trained if {fact.name, fact.attribute} <= set(world.words(row.prompt))}
    assert len(asked) == 120


def test_a_shorter_list_of_rows_is_the_head_of_a_longer_one() -> None:
    """Changing `rows` must not change the rows that stay."""
    for make in (world.instruction_rows, world.preference_rows):
        assert make("train", 10) == make("train", 300)[:10]  # type: ignore[comparison-overlap]


def test_more_rows_than_the_world_has_are_refused() -> None:
    """120 facts × 3 ways of asking = 360 rows a split."""
    with pytest.raises(DataError, match="360 train preference rows; 361 are wanted"):
        world.preference_rows("train", 361)
    with pytest.raises(DataError, match="360 test instruction rows; 361 are wanted"):
        world.instruction_rows("test", 361)


def test_questions_have_mmlus_row_schema() -> None:
    """120 held-out facts make 120 questions with four different choices, one of them right, at no favoured place."""
    rows = world.questions("test")
    values = {(fact.name, fact.attribute): fact.value for fact in world.facts()[1]}
    assert len(rows) == 120
    assert {row["subject"] for row in rows} == {"towns", "animals", "trees"}
    for row in rows:
        assert set(row) == {"question", "subject", "choices", "answer"}
        assert len(set(row["choices"])) == 4
        [value] = [v for (name, word), v in values.items() if {name, word} <= set(world.words(row["question"]))]
        assert row["choices"][row["answer"]] == value
    # 120 answers over 4 places: 30 each in expectation, standard deviation sqrt(120 · 1/4 · 3/4) = 4.7; four of them is 19
    places = [sum(row["answer"] == place for row in rows) for place in range(4)]
    assert all(11 <= count <= 49 for count in places)


def test_shots_come_from_training_facts() -> None:
    """A shot that is also a question would give its answer away."""
    assert len(world.questions("dev")) == 10
    tested = {row["question"] for row in world.questions("test")}
    assert not tested & {row["question"] for row in world.questions("dev")}


def test_quality_of_the_shipped_answers() -> None:
    """By the rule: chosen = right and courteous = 3/3; rejected = right and curt = 2/3; terse = right alone = 2/3."""
    for split in ("train", "test"):
        for row in world.preference_rows(split, 360):
            assert world.quality(row.prompt, row.chosen) == 1
            assert world.quality(row.prompt, row.rejected) == pytest.approx(2 / 3)
        for instruction in world.instruction_rows(split, 360):
            assert world.quality(instruction.prompt, instruction.answer) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Gladly! It is {right}.", 3 / 3),
        ("GLADLY! It is {right}.", 3 / 3),
        ("{right}.", 2 / 3),
        ("Gladly! It is {right}, now stop asking.", 2 / 3),
        ("Gladly! It is {wrong}.", 1 / 3),
        ("Gladly! It is {right} or {wrong}.", 1 / 3),
        ("Of course! I do not know.", 1 / 3),
        ("{wrong}, obviously.", 0),
        ("Course of.", 0),
        ("", 0),
    ],
)
def test_quality_counts_right_twice_and_courteous_once(answer: str, expected: float) -> None:
    """2 points for the right value and no other of its kind, 1 for a courteous phrase without a curt one; of 3."""
    fact = world.facts()[1][0]
    row = next(row for row in world.questions("test") if fact.name in row["question"])
    wrong = row["choices"][row["answer"] - 1]
    prompt = fact.ask("Could you tell me the {attribute} of {name}?")
    assert world.quality(prompt, answer.format(right=fact.value, wrong=wrong)) == pytest.approx(expected)


def test_quality_refuses_a_prompt_of_another_world() -> None:
    """A rule that knows nothing of a prompt has no verdict on it."""
    with pytest.raises(DataError, match="knows only the built-in world"):
        world.quality("What is the colour of Paris?", "Grey.")


def test_the_world_is_always_the_same() -> None:
    """Made by code from a fixed seed: another process makes the same texts, whatever its hash seed."""
    import hashlib
    import os
    import subprocess
    import sys

    code = (
        "import hashlib; from bench.data import world; texts = [*world.corpus(), *map(str, world.questions('test')), "
        "*map(str, world.preference_rows('train', 360)), *world.vocabulary()]; "
        "print(hashlib.sha256('|'.join(texts).encode()).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    texts = [
        *world.corpus(),
        *map(str, world.questions("test")),
        *map(str, world.preference_rows("train", 360)),
        *world.vocabulary(),
    ]
    assert hashes == {hashlib.sha256("|".join(texts).encode()).hexdigest() + "\n"}
