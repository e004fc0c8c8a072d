"""Which rows a run's steps are on, counted by hand."""

from __future__ import annotations

import json

import pytest

from bench.data.tokens import Datasets, Example, Split
from bench.methods import Objective
from bench.settings import PerObjective
from bench.train.batches import Batches, Cursor, in_parts

DPO, SFT = Objective.DPO, Objective.SFT
ROWS = Split([Example((1,), ((2,),))] * 4)


def batches() -> Batches:
    """Four rows of either objective, batches of 2 pairs and of 1 row."""
    return Batches(Datasets({DPO: ROWS, SFT: ROWS}, {}, [], ()), PerObjective(dpo=2, sft=1), 0)


def test_a_probed_batch_is_the_one_descended_and_another_is_dropped_and_counted() -> None:
    """Step 1 probes both and descends DPO's batch; step 2 draws SFT's next one, as the probed one is gone."""
    made = batches()
    pairs, row = made.to_probe(DPO), made.to_probe(SFT)
    assert made.to_descend(DPO) == pairs
    made.end_step()
    assert made.to_descend(SFT) != row
    assert made.last[SFT] != row
    made.end_step()
    assert made.facts() == {
        "rows_drawn/dpo": 2,
        "rows_drawn/sft": 2,
        "rows_probed_only/dpo": 0,
        "rows_probed_only/sft": 1,
        "distinct_rows/dpo": 2,
        "distinct_rows/sft": 1,
    }


def test_a_row_counts_once_however_often_it_is_descended() -> None:
    """Three epochs of 4 pairs: 12 are drawn, 4 of them different."""
    made = batches()
    for _ in range(6):
        made.to_descend(DPO)
    assert (made.facts()["rows_drawn/dpo"], made.facts()["distinct_rows/dpo"]) == (12, 4)


def test_batches_go_on_where_their_state_was_taken() -> None:
    made = batches()
    made.to_probe(SFT)
    made.to_descend(DPO)
    made.end_step()
    resumed = batches()
    resumed.restore(json.loads(json.dumps(made.state())))
    assert resumed.facts() == made.facts()
    for objective in (DPO, SFT, DPO, DPO):
        assert resumed.to_descend(objective) == made.to_descend(objective)
    assert resumed.facts() == made.facts()


# ---- the cursor -----------------------------------------------------------------------------------------------------


def draws(cursor: Cursor, count: int) -> list[list[int]]:
    return [cursor.draw() for _ in range(count)]


def test_an_epoch_deals_every_row_once_and_epochs_differ() -> None:
    """12 rows in batches of 4: three batches are an epoch."""
    cursor = Cursor(Objective.DPO, 12, 4, seed=0)
    epochs = [sum(draws(cursor, 3), []) for _ in range(4)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 4
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert cursor.rows_drawn == 48


def test_rows_that_do_not_fill_a_batch_sit_the_epoch_out() -> None:
    """11 rows in batches of 4: two batches, eight different rows, three left; other ones in other epochs."""
    cursor = Cursor(Objective.SFT, 11, 4, seed=0)
    epochs = [sum(draws(cursor, 2), []) for _ in range(6)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert set().union(*epochs) == set(range(11))


def test_the_order_depends_on_seed_and_objective() -> None:
    orders = [draws(Cursor(objective, 12, 4, seed), 6) for objective in Objective for seed in (0, 1)]
    assert len({str(order) for order in orders}) == 4
    assert draws(Cursor(Objective.DPO, 12, 4, 0), 6) == orders[0]


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 7])
def test_a_cursor_goes_on_where_its_state_was_taken(taken: int) -> None:
    """Batches of 4 of 11 rows, so that the states lie at an epoch's start, inside one and at its end."""
    whole = draws(Cursor(Objective.DPO, 11, 4, seed=5), 12)
    cursor = Cursor(Objective.DPO, 11, 4, seed=5)
    draws(cursor, taken)
    resumed = Cursor(Objective.DPO, 11, 4, seed=5)
    resumed.restore(json.loads(json.dumps(cursor.state())))
    assert resumed.rows_drawn == taken * 4
    assert draws(resumed, 12 - taken) == whole[taken:]


LENGTHS = [3, 50, 7, 41, 9, 33, 1, 28, 15, 22, 60]  # of 11 rows


def test_rows_of_similar_length_share_a_batch() -> None:
    """12 rows of lengths 0 to 11, shuffled, in batches of 4: whatever the epoch, the batches are the lengths 0 to 3, 4 to 7
    and 8 to 11, each row once; which batch comes first differs."""
    lengths = [5, 0, 11, 3, 8, 1, 7, 10, 2, 6, 9, 4]
    cursor = Cursor(Objective.SFT, 12, 4, seed=0, lengths=lengths)
    epochs = [[sorted(lengths[row] for row in batch) for batch in draws(cursor, 3)] for _ in range(8)]
    assert all(sorted(epoch) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]] for epoch in epochs)
    assert len({str(epoch) for epoch in epochs}) > 3
    assert cursor.rows_drawn == 96


def test_the_rows_that_sit_an_epoch_out_are_not_always_the_longest() -> None:
    """11 rows in batches of 4: eight different ones an epoch, and over some epochs all of them."""
    cursor = Cursor(Objective.DPO, 11, 4, seed=0, lengths=LENGTHS)
    epochs = [sum(draws(cursor, 2), []) for _ in range(8)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert set().union(*epochs) == set(range(11))


def test_a_row_meets_other_rows_in_other_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools of two batches of 2 out of 40 rows: sorted within a pool only, so the batches are not the same each time."""
    monkeypatch.setattr("bench.train.batches.POOL", 2)
    cursor = Cursor(Objective.DPO, 40, 2, seed=0, lengths=list(range(40)))
    first, second = ({frozenset(batch) for batch in draws(cursor, 20)} for _ in range(2))
    assert set().union(*first) == set().union(*second) == set(range(40))
    assert len(first & second) < 10


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 7])
def test_a_cursor_by_length_goes_on_where_its_state_was_taken(taken: int) -> None:
    def make() -> Cursor:
        return Cursor(Objective.DPO, 11, 4, seed=5, lengths=LENGTHS)

    whole, cursor, resumed = draws(make(), 12), make(), make()
    draws(cursor, taken)
    resumed.restore(json.loads(json.dumps(cursor.state())))
    assert draws(resumed, 12 - taken) == whole[taken:]


def test_a_batch_is_cut_into_micro_batches() -> None:
    assert [list(part) for part in in_parts([5, 3, 8, 1, 7], 2)] == [[5, 3], [8, 1], [7]]
