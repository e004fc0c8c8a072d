"""How good a trade-off is and what it costs: the paper's measures (arXiv 2410.15483, Section 6 and Appendix D.4).

Pure functions, arrays or numbers in, numbers out. NaN in (not measured) is NaN out; nothing is clipped.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


def optimality_gap(value: ArrayLike, optimum: ArrayLike) -> Floats:
    """Return f(θ) − f*, signed.

    Section 6, "Evaluation Metrics"; Eq. 6 with λ = 0 or 1. f* is what a run on that objective alone reached in as
    many steps, so it is an estimate: a negative gap says that f* is not a minimum.

    Args:
        value: objective values in nats.
        optimum: f*, broadcast against `value`.
    """
    return _floats(value) - _floats(optimum)


def ideal_distance(gap_dpo: ArrayLike, gap_sft: ArrayLike) -> Floats:
    """Return the Euclidean distance to the ideal point (f*_DPO, f*_SFT), in nats.

    Section 6: sqrt((f_DPO(θ) − f*_DPO)² + (f_SFT(θ) − f*_SFT)²). A negative gap adds to it as a positive one does.
    """
    return cast(Floats, np.hypot(_floats(gap_dpo), _floats(gap_sft)))


def increase_percent(value: ArrayLike, baseline: ArrayLike) -> Floats:
    """Return (A − B) / B × 100 %.

    Eq. 57 for runtime, Eq. 58 for median utilization; B is the Sequential run with the matching phases. NaN where the
    baseline is 0.
    """
    a, b = np.broadcast_arrays(_floats(value), _floats(baseline))
    out = np.full(a.shape, np.nan)
    return cast(Floats, np.divide(a - b, b, out=out, where=b != 0) * 100.0)


def undone(start: ArrayLike, at_change: ArrayLike, end: ArrayLike) -> tuple[Floats, Floats]:
    """Return what a second phase undid of the first phase's objective.

    Args:
        start: the objective's value before training.
        at_change: its value at the change of phase.
        end: its value after the second phase.

    Returns:
        end − at_change in nats (positive: forgotten), and that as a share of what the first phase had won
        (start − at_change); NaN where the first phase had won nothing.
    """
    first, middle, last = np.broadcast_arrays(_floats(start), _floats(at_change), _floats(end))
    lost, won = last - middle, first - middle
    return lost, np.divide(lost, won, out=np.full(lost.shape, np.nan), where=won > 0)
