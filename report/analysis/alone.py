"""What runs cost, from the cost of each kind of work measured alone: times how often a run did it."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from bench.records import work
from bench.records.record import Job, measured, not_measured
from bench.records.work import Work

# Measured figure of a kind of work -> the run's figure that it adds up to, and over which kinds.
_SECONDS = {
    "training_seconds": frozenset(Work),
    "probe_seconds": frozenset(one for one in Work if one.is_probe),
    "gradient_seconds": frozenset({Work.GRADIENTS}),
}
_DECIDE_STEPS = ("model", "lora", "tuning", "data", "reduction")


class Alone:
    """Price a suite's runs by its cost job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._counts: dict[str, Counter[Work] | None] = {}

    def refusal(self, run: Job) -> str:
        """Say why a run cannot be priced; "" where it can."""
        if run.kind != "train":
            return f"{run.id} takes steps of its own, not those that were measured alone"
        settings, own = self.job.spec["settings"], run.spec["settings"]
        training = {name: value for name, value in own.get("training", {}).items() if name != "evaluate_every"}
        same = training == settings["training"] and all(own.get(name) == settings.get(name) for name in _DECIDE_STEPS)
        same = same and run.spec["data"] == self.job.spec["data"]
        if not same or {"sft_on_chosen", "sft_rows"} & own.keys():
            return f"{run.id} was trained with other settings than those measured alone"
        counts = self._count(run)
        if counts is None:
            return f"{run.id} does not tell what its steps were made of"
        absent = [str(one) for one in counts if f"step_seconds/{one}" not in self.job.measurements]
        return f"{run.id} took steps that were not measured alone: {', '.join(absent)}" if absent else ""

    def _count(self, run: Job) -> Counter[Work] | None:
        if run.id not in self._counts:
            self._counts[run.id] = work.count(run.rows("steps"))
        return self._counts[run.id]

    def measurement(self, run: Job, name: str) -> dict[str, Any] | None:
        """Return a run's cost as an entry of measurements.json; None for a figure that is none of the measured ones."""
        counts = self._count(run) if run.kind == "train" else None
        if counts is None or name not in run.measurements:
            return None
        kinds = _SECONDS.get(name, frozenset(Work))
        counted = {one: times for one, times in counts.items() if one in kinds}
        parts = {one: self.job.measurements.get(f"{_measured_as(name)}/{one}") for one in counted}
        known = [entry for entry in parts.values() if entry is not None]
        if len(known) < len(parts):
            return None
        if not known:
            return measured(0.0, "s") if name in _SECONDS else None
        unit = str(known[0]["unit"])
        missing = next((str(entry["reason"]) for entry in known if entry["value"] is None), None)
        if missing is not None:
            return not_measured(unit, missing)
        values = {one: float(entry["value"]) for one, entry in parts.items() if entry is not None}
        shared = {"shared_machine": True} if any(entry.get("shared_machine") for entry in known) else {}
        return measured(self._together(str(known[0]["together"]), values, counted), unit, **shared)

    @property
    def others(self) -> str:
        """Say that other programs were at work meanwhile, where they were; "" otherwise."""
        marked = any(entry.get("shared_machine") for entry in self.job.measurements.values())
        busy = self.job.measurements.get("other_cores_busy", {}).get("value")
        return f"Other programs kept {busy:.1f} cores busy meanwhile: compare with care." if marked and busy else ""

    def _together(self, how: str, values: dict[Work, float], counts: dict[Work, int]) -> float:
        """Put a run's figure together from those of its kinds of work, as the cost job says."""
        if how == "max":
            return max(values.values())
        weights: dict[Work, float] = dict(counts)
        if how == "mean":
            weights = {
                one: times * self.job.measurements[f"step_seconds/{one}"]["value"] for one, times in counts.items()
            }
        total = math.fsum(weights[one] * value for one, value in values.items())
        return total / math.fsum(weights.values()) if how == "mean" else total


def _measured_as(name: str) -> str:
    return "step_seconds" if name in _SECONDS else name
