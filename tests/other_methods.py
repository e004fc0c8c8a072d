"""Methods as another package brings them: with phases of their own, and offered to the table as by an entry point."""

from __future__ import annotations

from typing import Any

from bench.methods import Choice, Method, NoOptions, Objective, Phase, Probe, Setup


class MixThenDpo(Method):
    """Descend both objectives for a third of the steps, then DPO alone."""

    def __init__(self, setup: Setup, options: NoOptions) -> None:
        self._first = self.phases(setup, options)[0].steps
        self._observed = 0

    @staticmethod
    def phases(setup: Setup, options: NoOptions) -> tuple[Phase, ...]:
        first = setup.steps // 3
        return (Phase(first), Phase(setup.steps - first, Objective.DPO))

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: NoOptions) -> dict[Objective, float]:
        return {Objective.DPO: 1.0, Objective.SFT: 1.0}

    def choose(self, step: int, probe: Probe) -> Choice:
        if step <= self._first:
            return Choice({Objective.DPO: 0.5, Objective.SFT: 0.5}, phase=0)
        return Choice({Objective.DPO: 1.0}, phase=1)

    def observe(self, losses: Any) -> None:
        self._observed += 1

    def state(self) -> dict[str, Any]:
        return {"observed": self._observed}

    def restore(self, state: Any) -> None:
        self._observed = state["observed"]


class SftThenMix(MixThenDpo):
    """Descend SFT alone for two steps, then both: the first phase is the SFT optimum's."""

    @staticmethod
    def phases(setup: Setup, options: NoOptions) -> tuple[Phase, ...]:
        return (Phase(2, Objective.SFT), Phase(setup.steps - 2))

    def choose(self, step: int, probe: Probe) -> Choice:
        if step <= self._first:
            return Choice({Objective.SFT: 1.0}, phase=0)
        return Choice({Objective.DPO: 0.5, Objective.SFT: 0.5}, phase=1)


class TooShort(MixThenDpo):
    """Declare fewer steps than a run has."""

    @staticmethod
    def phases(setup: Setup, options: NoOptions) -> tuple[Phase, ...]:
        return (Phase(1), Phase(2))


class Mgda(Method):
    """Descend the shortest vector between both gradients (MGDA for two objectives, arXiv 1810.04650, Algorithm 1).

    Its weight of DPO is (|g_S|² − g_D·g_S) / (|g_D|² + |g_S|² − 2 g_D·g_S), cut to [0, 1].
    """

    @staticmethod
    def batches_per_step(lambda_dpo: float, options: NoOptions) -> dict[Objective, float]:
        return {Objective.DPO: 1.0, Objective.SFT: 1.0}

    def choose(self, step: int, probe: Probe) -> Choice:
        found = probe.gradients()
        dpo, sft = (found.norms[objective] ** 2 for objective in (Objective.DPO, Objective.SFT))
        weight = min(1.0, max(0.0, (sft - found.dot) / (dpo + sft - 2 * found.dot)))
        return Choice({Objective.DPO: weight, Objective.SFT: 1 - weight})


class SteepestFirst(Mgda):
    """Descend the objective with the longer gradient."""

    def choose(self, step: int, probe: Probe) -> Choice:
        norms = probe.gradients().norms
        return Choice({max(Objective, key=norms.__getitem__): 1.0})
