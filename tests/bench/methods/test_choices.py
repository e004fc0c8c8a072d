"""Which choices can be taken as steps, and whose and which step it is where one cannot."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bench.errors import JobError
from bench.methods import Choice, Objective, Phase, choices

DPO, SFT = Objective.DPO, Objective.SFT
ONE = (Phase(6),)
TWO = (Phase(2, SFT), Phase(4))


@pytest.mark.parametrize(
    ("choice", "problem"),
    [
        (None, "it returned None, not a Choice"),
        ({DPO: 1.0}, "it returned {<Objective.DPO: 'dpo'>: 1.0}, not a Choice"),
        (Choice({}), "it chose the weights {}; give one objective a weight, or both"),
        (Choice(None), "it chose the weights None; give one objective a weight, or both"),  # type: ignore[arg-type]
        (Choice({"ppo": 1.0}), "it chose a weight of 'ppo'; the objectives are Objective.DPO and"),  # type: ignore[dict-item]
        (Choice({"dpo": 1.0}), "it chose a weight of 'dpo'; the objectives are Objective.DPO and"),  # type: ignore[dict-item]
        (Choice({DPO: math.nan}), "it chose the weight nan of DPO, which is no finite number"),
        (Choice({DPO: 1.0, SFT: math.inf}), "it chose the weight inf of SFT, which is no finite number"),
        (Choice({DPO: "1"}), "it chose the weight '1' of DPO, which is no finite number"),  # type: ignore[dict-item]
        (Choice({DPO: 1.0}, chosen_sft=math.nan), "it chose chosen_sft = nan, which is no finite number"),
        (Choice({SFT: 1.0}, chosen_sft=0.5), "it chose chosen_sft without a weight of DPO, whose pairs it is on"),
        (Choice({DPO: 1.0}, phase=1), "it chose phase 1, but declares 1 phase, counted from 0"),
        (Choice({DPO: 1.0}, phase=-1), "it chose phase -1, but declares 1 phase, counted from 0"),
    ],
)
def test_a_choice_that_is_none(choice: Any, problem: str) -> None:
    found = choices.wrong(choice, 1, ONE)
    assert found is not None
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "choice",
    [
        Choice({DPO: 1.0}),
        Choice({DPO: 0.0, SFT: 1}),
        Choice({DPO: -0.5, SFT: 0.5}),
        Choice({DPO: 0.5}, chosen_sft=0.5),
    ],
)
def test_weights_of_any_sign_can_be_descended(choice: Choice) -> None:
    assert choices.wrong(choice, 1, ONE) is None


def test_a_step_is_in_the_phase_that_the_lengths_put_it_in() -> None:
    """2 + 4 steps: steps 1 and 2 are of phase 0, on SFT alone with weight 1; steps 3 to 6, and later ones, of phase 1."""
    both = {DPO: 0.5, SFT: 0.5}
    assert [choices.phase_of(step, TWO) for step in range(1, 9)] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert choices.wrong(Choice({SFT: 1.0}, phase=0), 2, TWO) is None
    assert choices.wrong(Choice(both, phase=1), 3, TWO) is None
    assert choices.wrong(Choice(both, phase=1), 2, TWO) == (
        "it chose phase 1, but declares phases of 2 + 4 steps, so that this step is of phase 0"
    )
    assert choices.wrong(Choice({SFT: 1.0}, phase=0), 3, TWO) == (
        "it chose phase 0, but declares phases of 2 + 4 steps, so that this step is of phase 1"
    )
    assert choices.wrong(Choice(both, phase=0), 1, TWO) == (
        "it chose DPO: 0.5, SFT: 0.5 in phase 0, which it declares to be SFT alone, with weight 1"
    )
    assert choices.wrong(Choice({SFT: 0.5}, phase=0), 1, TWO) is not None
    last = (Phase(5), Phase(1, DPO))
    assert choices.wrong(Choice({DPO: 1.0}, phase=1, chosen_sft=0.5), 6, last) == (
        "it chose DPO: 1 and chosen_sft: 0.5 in phase 1, which it declares to be DPO alone, with weight 1"
    )


def test_phases_without_steps_hold_none() -> None:
    """0 + 6 and 6 + 0: every step is of the phase that has steps, beyond the sixth too."""
    assert {choices.phase_of(step, (Phase(0), Phase(6))) for step in range(1, 9)} == {1}
    assert {choices.phase_of(step, (Phase(6), Phase(0))) for step in range(1, 9)} == {0}


def test_the_line_names_method_and_step() -> None:
    with pytest.raises(JobError, match=r"^the method 'mix', step 3: it returned None, not a Choice$"):
        choices.check("mix", None, 3, ONE)
    choices.check("mix", Choice({SFT: 1.0}), 3, ONE)
