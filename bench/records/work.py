"""What a step of training is made of, read from its row in steps.jsonl: what a cost measured alone is multiplied with.

Standard library only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any


class Work(StrEnum):
    """Name a piece of work whose cost is measured alone. A step is one of the first six, after any of the others."""

    DPO = "dpo"  # a step on f_DPO
    SFT = "sft"  # a step on f_SFT
    JOINT = "joint"  # a step on both, their graphs in memory at once
    ACCUMULATE = "accumulate"  # a step on both, one graph after the other
    DPO_WITH_CHOSEN = "dpo_with_chosen"  # a step on f_DPO and on f_SFT of the same pairs' chosen answers
    ON_GRADIENTS = "on_gradients"  # a step on gradients that were taken before it was chosen
    PROBE_DPO = "probe_dpo"  # f_DPO on a batch, without a graph
    PROBE_SFT = "probe_sft"
    GRADIENTS = "gradients"  # of both objectives, before a step is chosen

    @property
    def is_probe(self) -> bool:
        """Whether it is a forward pass made only to choose."""
        return self in (Work.PROBE_DPO, Work.PROBE_SFT)


def of_step(row: Mapping[str, Any]) -> list[Work] | None:
    """Return the work of one step; None where its row does not tell, or where it was work of no such kind."""
    looks = [Work(f"probe_{objective}") for objective in row.get("probes", {})]
    looks += [Work.GRADIENTS] if "gradients" in row else []
    step = _step(row)
    return None if step is None else [*looks, step]


def _step(row: Mapping[str, Any]) -> Work | None:
    objectives = set(row["weights"])
    if row.get("on_gradients"):
        return Work.ON_GRADIENTS
    if "chosen_sft" in row:
        return Work.DPO_WITH_CHOSEN if objectives == {"dpo"} else None
    if len(objectives) == 1:
        return Work(objectives.pop())
    joint = row.get("joint_backward")  # not on record before costs were measured alone
    return None if joint is None else Work.JOINT if joint else Work.ACCUMULATE


def count(rows: Iterable[Mapping[str, Any]]) -> Counter[Work] | None:
    """Count the work of a run's steps; None where one of them does not tell its own."""
    counted: Counter[Work] = Counter()
    for row in rows:
        work = of_step(row)
        if work is None:
            return None
        counted.update(work)
    return counted
