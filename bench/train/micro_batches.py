"""How many rows of a batch are in memory at once: as many as the suite says, or as memory has room for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from bench.methods import Objective
from bench.models import memory
from bench.settings import PerObjective


class MicroBatches:
    """Hold the rows of one forward pass, by objective.

    Where the suite gives none, a run begins with whole batches and takes fewer rows once memory has run out.

    Attributes:
        sizes: rows in one pass.
    """

    def __init__(self, given: PerObjective | None, batch_size: PerObjective) -> None:
        self._given, self._batch_size = given, batch_size
        self.sizes: dict[Objective, int] = {}
        self.reset()

    def reset(self) -> None:
        """Begin with what the suite gives, or whole batches."""
        self.sizes.update({objective: getattr(self._given or self._batch_size, objective) for objective in Objective})

    def shrink(self, objectives: Iterable[Objective]) -> bool:
        """Cut these objectives' batches into smaller parts; say whether any could be, which a suite's own sizes never are."""
        if self._given is not None:
            return False
        smaller = {one: memory.fewer(self.sizes[one]) for one in objectives if self.sizes[one] > 1}
        self.sizes.update(smaller)
        for objective, size in smaller.items():
            logging.getLogger("bench").warning("out of memory: going on with %d %s rows at once", size, objective)
        return bool(smaller)

    def state(self) -> dict[str, int]:
        return {str(objective): size for objective, size in self.sizes.items()}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on with the sizes that a run was cut off at, as far as the suite leaves them open."""
        if self._given is None:
            for objective in Objective:
                size = state.get(objective, 0)
                # A checkpoint of another job may be of batches that these sizes do not divide.
                if size and getattr(self._batch_size, objective) % size == 0:
                    self.sizes[objective] = size
