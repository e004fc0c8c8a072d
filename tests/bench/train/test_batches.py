"""Which rows a run's steps are on, counted by hand."""

from __future__ import annotations

import json

from bench.data.tokens import Datasets, Example, Split
from bench.methods import Objective
from bench.settings import PerObjective
from bench.train.batches import Batches

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
