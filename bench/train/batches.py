"""Which rows a run's steps are on: batches dealt out in order, probed ones descended, and what became of the rows."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.data.tokens import Datasets
from bench.methods import Objective
from bench.settings import PerObjective


class Batches:
    """Deal out each objective's batches. A batch that was probed is the one descended next, in the same step.

    Attributes:
        last: the rows that an objective's last probe or step was on.
    """

    def __init__(
        self, datasets: Datasets, batch_size: PerObjective, seed: int, *, group_by_length: bool = False
    ) -> None:
        self._cursors = {}
        for objective, split in datasets.train.items():
            lengths = [one.length for one in split.examples] if group_by_length else None
            size = getattr(batch_size, objective)
            self._cursors[objective] = Cursor(objective, len(split.examples), size, seed, lengths)
        self._probed: dict[Objective, list[int]] = {}
        self._probed_only = dict.fromkeys(Objective, 0)
        self._descended: dict[Objective, set[int]] = {objective: set() for objective in Objective}
        self.last: dict[Objective, list[int]] = {}

    def to_probe(self, objective: Objective) -> list[int]:
        """Draw the next batch for a probe; a second look in the same step is at the same batch."""
        rows = self._probed.get(objective) or self._cursors[objective].draw()
        self._probed[objective] = self.last[objective] = rows
        return rows

    def to_descend(self, objective: Objective) -> list[int]:
        """Return the batch that was probed in this step, or draw the next one."""
        rows = self._probed.pop(objective, None) or self._cursors[objective].draw()
        self._descended[objective].update(rows)
        self.last[objective] = rows
        return rows

    def end_step(self) -> None:
        """Drop the batches that were drawn for a probe only; they are counted."""
        for objective, rows in self._probed.items():
            self._probed_only[objective] += len(rows)
        self._probed.clear()

    def facts(self) -> dict[str, int]:
        """Count rows by name: drawn, repeats included; drawn for a probe alone; different ones that were descended."""
        counted = {f"rows_drawn/{objective}": cursor.rows_drawn for objective, cursor in self._cursors.items()}
        counted |= {f"rows_probed_only/{objective}": count for objective, count in self._probed_only.items()}
        return counted | {f"distinct_rows/{objective}": len(rows) for objective, rows in self._descended.items()}

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {
            str(objective): {
                "cursor": self._cursors[objective].state(),
                "probed_only": self._probed_only[objective],
                "descended": sorted(self._descended[objective]),
            }
            for objective in Objective
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        for objective in Objective:
            own = state[objective]
            self._cursors[objective].restore(own["cursor"])
            self._probed_only[objective] = own["probed_only"]
            self._descended[objective] = set(own["descended"])


POOL = 32  # batches whose rows are sorted by length together


class Cursor:
    """Deal out batches of row numbers, epoch by epoch, in an order fixed by seed and objective.

    It moves only when a batch is drawn. The rows that do not fill a batch sit an epoch out. Given the rows' `lengths`,
    rows of similar length share a batch, so that less is padded; the batches stand in no order of length.
    """

    def __init__(
        self, objective: Objective, rows: int, batch_size: int, seed: int, lengths: Sequence[int] | None = None
    ) -> None:
        self._key = f"{objective} {seed}"
        self._lengths = lengths
        self._rows, self._batch_size = rows, batch_size
        self._order: list[int] = []
        self._epoch, self._batch = 0, 0

    def draw(self) -> list[int]:
        """Draw the next batch of row numbers."""
        if (self._batch + 1) * self._batch_size > self._rows:
            self._epoch, self._batch, self._order = self._epoch + 1, 0, []
        if not self._order:
            self._order = self._deal()
        start = self._batch * self._batch_size
        self._batch += 1
        return self._order[start : start + self._batch_size]

    def _deal(self) -> list[int]:
        """Return the order of an epoch's rows; it depends on nothing but the epoch's number."""
        chance = random.Random(f"{self._key} {self._epoch}")
        order = list(range(self._rows))
        chance.shuffle(order)
        if self._lengths is None:
            return order
        # Sorted within pools, so that a row meets other rows in other epochs. Those left over are left over by chance.
        order = order[: self._rows // self._batch_size * self._batch_size]
        batches: list[Sequence[int]] = []
        for pool in in_parts(order, POOL * self._batch_size):
            batches += in_parts(sorted(pool, key=self._lengths.__getitem__), self._batch_size)
        chance.shuffle(batches)
        return [row for batch in batches for row in batch]

    @property
    def rows_drawn(self) -> int:
        """Rows dealt out so far, repeats counted."""
        return (self._epoch * (self._rows // self._batch_size) + self._batch) * self._batch_size

    def state(self) -> dict[str, int]:
        return {"epoch": self._epoch, "batch": self._batch}

    def restore(self, state: Mapping[str, int]) -> None:
        self._epoch, self._batch, self._order = state["epoch"], state["batch"], []


def in_parts(rows: Sequence[int], size: int) -> Iterable[Sequence[int]]:
    """Cut a batch into micro-batches."""
    return (rows[start : start + size] for start in range(0, len(rows), size))
