"""Which rows a run's steps are on: batches dealt out in order, probed ones descended, and what became of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.data import Cursor, Datasets
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
        """Draw the next batch for a probe."""
        rows = self._cursors[objective].draw()
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
