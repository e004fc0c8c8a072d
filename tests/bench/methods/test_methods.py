"""The four methods, step by step and by hand, on losses that a test scripts: no model is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from bench.methods import METHODS, Choice, Need, Objective, Setup

DPO, SFT = Objective.DPO, Objective.SFT


def setup(lambda_dpo: float = 0.5, **given: Any) -> Setup:
    values: dict[str, Any] = {
        "steps": 12,
        "seed": 0,
        "phase_steps": {DPO: 5, SFT: 7},
        "order": (SFT, DPO),
        "optimum": {DPO: 0.0, SFT: 0.0},
    }
    return Setup(lambda_dpo, **{**values, **given})


def make(name: str, given: Setup, **options: Any) -> Any:
    method = METHODS[name]
    return method(given, method.Options.model_validate(options))


def no_probe(objective: Objective) -> float:
    raise AssertionError(f"{objective} was probed")


class Probe:
    """Answer with scripted losses and write down who was asked."""

    def __init__(self, dpo: float, sft: float) -> None:
        self.losses = {DPO: dpo, SFT: sft}
        self.asked: list[Objective] = []

    def __call__(self, objective: Objective) -> float:
        self.asked.append(objective)
        return self.losses[objective]


def chosen(choice: Choice) -> Objective:
    """Return the one objective that a choice descends with weight 1."""
    ((objective, weight),) = choice.weights.items()
    assert weight == 1
    return objective


def drawn(method: Any, steps: range) -> list[Objective]:
    return [chosen(method.choose(step, no_probe)) for step in steps]


# ---- MAXRIGHT -------------------------------------------------------------------------------------------------------


def test_maxright_descends_the_larger_weighted_gap() -> None:
    """λ = 0.25, f* = (0.2, 1.0). Gaps: 0.25 (0.6 − 0.2) = 0.1 and 0.75 (1.1 − 1.0) = 0.075 → DPO.

    With f_SFT = 1.2 the second is 0.15 → SFT, although f_SFT's own gap stays below f_DPO's: λ weighs the gaps.
    """
    method = make("maxright", setup(0.25, optimum={DPO: 0.2, SFT: 1.0}))
    assert chosen(method.choose(1, Probe(dpo=0.6, sft=1.1))) is DPO
    assert chosen(method.choose(2, Probe(dpo=0.6, sft=1.2))) is SFT


def test_maxright_gives_a_tie_to_dpo() -> None:
    """λ = 0.5, f* = 0: 0.5 · 0.75 = 0.5 · 0.75 exactly, and Algorithm 3 says ≥."""
    assert chosen(make("maxright", setup(0.5)).choose(1, Probe(dpo=0.75, sft=0.75))) is DPO


def test_maxright_compares_negative_gaps_as_they_are() -> None:
    """f* = (0.5, 0.5), λ = 0.5: gaps 0.5 (0.1 − 0.5) = −0.2 and 0.5 (0.3 − 0.5) = −0.1; the larger is SFT's."""
    method = make("maxright", setup(0.5, optimum={DPO: 0.5, SFT: 0.5}))
    assert chosen(method.choose(1, Probe(dpo=0.1, sft=0.3))) is SFT


def test_maxright_every_step_probes_both_at_every_step() -> None:
    """k = 1 is Algorithm 3: what was observed before never stands in for a probe."""
    method = make("maxright", setup(0.5))
    for step in range(1, 6):
        probe = Probe(dpo=1.0, sft=0.1)
        assert chosen(method.choose(step, probe)) is DPO
        assert sorted(probe.asked) == [DPO, SFT]
        method.observe({DPO: 0.0})  # Algorithm 4 would turn to SFT now


def test_maxright_takes_the_optimum_by_number() -> None:
    """λ = 0.5, f* = (0.2, 1.0) by number, whatever the optima say: 0.5 (0.6 − 0.2) = 0.2 against 0.5 (1.3 − 1) = 0.15."""
    method = make("maxright", setup(0.5, optimum={}), optimum={"dpo": 0.2, "sft": 1.0})
    choice = method.choose(1, Probe(dpo=0.6, sft=1.3))
    assert chosen(choice) is DPO
    assert choice.gaps == pytest.approx({DPO: 0.2, SFT: 0.15})


def test_maxright_paired_takes_a_batchs_difficulty_out_of_the_choice() -> None:
    """λ = 0.5, f* = (0.4, 1.0). A hard DPO batch: 0.9, of which the optimum itself has 0.8; SFT 1.2 against 1.0.

    Against f* the gaps are 0.25 and 0.1 → DPO. Against the same rows they are 0.05 and 0.1 → SFT. The descended batch's
    loss 1.2 leaves SFT's gap 0.1; an easier batch, loss 0.5 where the optimum has 0.6, would leave −0.05.
    """
    rows = {DPO: 0.8, SFT: 1.0}
    given = setup(0.5, optimum={DPO: 0.4, SFT: 1.0}, batch_optimum=lambda objective: rows[objective])
    assert chosen(make("maxright", given).choose(1, Probe(dpo=0.9, sft=1.2))) is DPO
    method = make("maxright", given, gaps="paired", max_eval_every=10)
    assert chosen(method.choose(1, Probe(dpo=0.9, sft=1.2))) is SFT
    method.observe({SFT: 1.2})
    assert method.choose(2, no_probe).gaps == pytest.approx({DPO: 0.05, SFT: 0.1})
    rows[SFT] = 0.6
    method.observe({SFT: 0.5})
    assert method.choose(3, no_probe).gaps == pytest.approx({DPO: 0.05, SFT: -0.05})


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({}, {Need.OPTIMUM}),
        ({"gaps": "paired"}, {Need.ROW_OPTIMUM}),
        ({"optimum": {"dpo": 0.1, "sft": 0.2}}, set()),
    ],
)
def test_what_maxright_needs_depends_on_its_gaps(options: dict[str, Any], needs: set[Need]) -> None:
    method = METHODS["maxright"]
    assert method.needs(method.Options.model_validate(options)) == needs


@pytest.mark.parametrize("resumed", [False, True])
def test_maxright_every_third_step_follows_algorithm_4(resumed: bool) -> None:
    """k = 3, λ = 0.5, f* = 0, so that gaps are half the losses.

    - t = 1 (first step: probe): gaps (0.5, 0.4) → DPO; its loss before the update, 1.0, leaves its gap at 0.5.
    - t = 2 (no probe): (0.5, 0.4) → DPO again, whose loss is now 0.6 → gap 0.3.
    - t = 3 (3 mod 3 = 0: probe): (0.1, 0.2) → SFT, loss 0.4 → 0.2.
    - t = 4: (0.1, 0.2) → SFT, loss 0.1 → 0.05.
    - t = 5: (0.1, 0.05) → DPO: its gap is the stale one of t = 3; its loss 0.02 → 0.01.
    - t = 6 (probe): (0.5, 0.0) → DPO.

    A run resumed after every step, its state carried through JSON, makes the same choices: stale gaps and all.
    """
    method = make("maxright", setup(0.5), max_eval_every=3)
    script = [
        (1, Probe(1.0, 0.8), DPO, 1.0),
        (2, no_probe, DPO, 0.6),
        (3, Probe(0.2, 0.4), SFT, 0.4),
        (4, no_probe, SFT, 0.1),
        (5, no_probe, DPO, 0.02),
        (6, Probe(1.0, 0.0), DPO, 1.0),
    ]
    for step, probe, expected, loss in script:
        assert chosen(method.choose(step, probe)) is expected, step
        method.observe({expected: loss})
        if resumed:
            state = json.loads(json.dumps(method.state()))
            method = make("maxright", setup(0.5), max_eval_every=3)
            method.restore(state)


@pytest.mark.parametrize(("lambda_dpo", "expected"), [(0.0, SFT), (1.0, DPO)])
@pytest.mark.parametrize("every", [1, 4])
def test_maxright_probes_nothing_at_the_ends_of_lambda(lambda_dpo: float, expected: Objective, every: int) -> None:
    """One weight is 0 there; as written, the rule would pick it on any batch below the other's optimum."""
    method = make("maxright", setup(lambda_dpo, optimum={DPO: 5.0, SFT: 5.0}), max_eval_every=every)
    assert drawn(method, range(1, 10)) == [expected] * 9


def test_maxright_goes_on_where_its_state_was_taken() -> None:
    """k = 10: after step 1 with gaps (0.5, 0.4) and an observed DPO loss of 0.2 → 0.1, step 2 takes SFT from the state."""
    method = make("maxright", setup(0.5), max_eval_every=10)
    method.choose(1, Probe(1.0, 0.8))
    method.observe({DPO: 0.2})
    resumed = make("maxright", setup(0.5), max_eval_every=10)
    resumed.restore(json.loads(json.dumps(method.state())))
    assert chosen(resumed.choose(2, no_probe)) is chosen(method.choose(2, no_probe)) is SFT


def test_maxright_refuses_an_interval_below_one() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        make("maxright", setup(), max_eval_every=0)


# ---- ALRIGHT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lambda_dpo", [0.25, 0.5, 0.75])
def test_alright_draws_dpo_with_probability_lambda(lambda_dpo: float) -> None:
    """20,000 draws of Bernoulli(λ): the share's standard deviation is at most 0.5 / √20000 = 0.0035; four of them 0.014."""
    draws = drawn(make("alright", setup(lambda_dpo)), range(1, 20_001))
    assert abs(draws.count(DPO) / len(draws) - lambda_dpo) < 0.0142


@pytest.mark.parametrize(("lambda_dpo", "expected"), [(0.0, SFT), (1.0, DPO)])
def test_alright_never_draws_a_weight_of_zero(lambda_dpo: float, expected: Objective) -> None:
    assert set(drawn(make("alright", setup(lambda_dpo)), range(1, 2001))) == {expected}


def test_alright_draws_depend_on_the_seed_alone() -> None:
    first, same, other = (drawn(make("alright", setup(0.5, seed=seed)), range(1, 101)) for seed in (3, 3, 4))
    assert first == same
    assert first != other


def test_alright_goes_on_with_the_same_draws() -> None:
    """A state after 37 of 100 steps, carried through JSON, gives the 63 draws that the uninterrupted run makes."""
    whole = drawn(make("alright", setup(0.5)), range(1, 101))
    method = make("alright", setup(0.5))
    drawn(method, range(1, 38))
    resumed = make("alright", setup(0.5))
    resumed.restore(json.loads(json.dumps(method.state())))
    assert drawn(resumed, range(38, 101)) == whole[37:]


# ---- Mix and Sequential ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lambda_dpo", "weights"), [(0.25, {DPO: 0.25, SFT: 0.75}), (0.0, {SFT: 1.0}), (1.0, {DPO: 1.0})]
)
def test_mix_weighs_both_objectives_at_every_step(lambda_dpo: float, weights: Mapping[Objective, float]) -> None:
    """λ f_DPO + (1 − λ) f_SFT; an objective of weight 0 gets no forward pass."""
    method = make("mix", setup(lambda_dpo))
    assert [dict(method.choose(step, no_probe).weights) for step in (1, 2, 12)] == [weights] * 3


def test_mix_backward_is_joint_unless_told_to_accumulate() -> None:
    assert make("mix", setup()).choose(1, no_probe).joint_backward
    assert not make("mix", setup(), backward="accumulate").choose(1, no_probe).joint_backward


@pytest.mark.parametrize(("order", "first_steps"), [((SFT, DPO), 7), ((DPO, SFT), 5)])
def test_sequential_changes_phase_after_the_first_objectives_steps(
    order: tuple[Objective, Objective], first_steps: int
) -> None:
    """T_DPO = 5 and T_SFT = 7 of 12 steps: the first phase ends with step 7 or 5, and a new one means a new optimizer."""
    method = make("sequential", setup(order=order))
    choices = [method.choose(step, no_probe) for step in range(1, 13)]
    assert [chosen(choice) for choice in choices] == [order[0]] * first_steps + [order[1]] * (12 - first_steps)
    assert [choice.phase for choice in choices] == [0] * first_steps + [1] * (12 - first_steps)


def test_sequential_with_an_empty_phase_is_an_optimum() -> None:
    alone = make("sequential", setup(order=(DPO, SFT), phase_steps={DPO: 12, SFT: 0}))
    choices = [alone.choose(step, no_probe) for step in range(1, 13)]
    assert {chosen(choice) for choice in choices} == {DPO}
    assert {choice.phase for choice in choices} == {0}


@pytest.mark.parametrize("name", ["sequential", "mix"])
def test_fixed_methods_keep_no_state(name: str) -> None:
    method = make(name, setup())
    method.observe({DPO: 1.0})
    assert method.state() == {}
    resumed = make(name, setup())
    resumed.restore({})
    assert resumed.choose(8, no_probe) == method.choose(8, no_probe)


# ---- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_methods_refuse_options_that_are_not_theirs(name: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        METHODS[name].Options.model_validate({"max_eval_evry": 3})


def test_of_the_papers_methods_only_maxright_needs_the_optima() -> None:
    paper = ("sequential", "mix", "alright", "maxright")
    assert [name for name in paper if Need.OPTIMUM in METHODS[name].needs(METHODS[name].Options())] == ["maxright"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alright", {DPO: 0.25, SFT: 0.75}),
        ("dpo_with_sft", {DPO: 1.0, SFT: 0.0}),
        ("maxright", {DPO: 0.25, SFT: 0.75}),
        ("mix", {DPO: 1.0, SFT: 1.0}),
        ("sequential", {DPO: 0.25, SFT: 0.75}),
    ],
)
def test_batches_per_step_add_up_for_the_plan(name: str, expected: Mapping[Objective, float]) -> None:
    """Mix draws a batch of each at every step; the others one batch in all, DPO's with share λ."""
    method = METHODS[name]
    assert method.batches_per_step(0.25, method.Options()) == expected


def test_an_unknown_method_is_told_the_nearest_name() -> None:
    assert "maxrigth" not in METHODS
    known = ", ".join(sorted(METHODS))
    assert METHODS.unknown("maxrigth") == f"unknown method 'maxrigth'; did you mean 'maxright'? known: {known}"
    assert METHODS.unknown("zzz") == f"unknown method 'zzz'; known: {known}"


def test_methods_import_no_torch() -> None:
    """A fresh interpreter makes every method without torch: `bench plan` and the toy of Figure 2 rely on it."""
    code = "import sys; from bench.methods import METHODS; [METHODS[n] for n in METHODS]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
