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
    many steps, so it is an estimate: a run with a negative gap is better than it.

    Args:
        value: objective values in nats.
        optimum: f*, broadcast against `value`.
    """
    return _floats(value) - _floats(optimum)


def ideal_distance(gap_dpo: ArrayLike, gap_sft: ArrayLike) -> Floats:
    """Return the Euclidean distance to the ideal point (f*_DPO, f*_SFT), in nats.

    Section 6: sqrt((f_DPO(θ) − f*_DPO)² + (f_SFT(θ) − f*_SFT)²). f* is an estimate, and a run below it is better than the
    optimum: a negative gap adds nothing.
    """
    return cast(Floats, np.hypot(np.maximum(_floats(gap_dpo), 0.0), np.maximum(_floats(gap_sft), 0.0)))


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


# ---- in shares of the way to the optimum -----------------------------------------------------------------------------


def relative_gap(gap: ArrayLike, start: ArrayLike, optimum: ArrayLike) -> Floats:
    """Return a gap as a share of f(θ_1) − f*, what training on that objective alone gains: 1 is as good as untrained.

    Signed like the gap; NaN where the optimum is no gain.
    """
    g, gain = np.broadcast_arrays(_floats(gap), _floats(start) - _floats(optimum))
    return cast(Floats, np.divide(g, gain, out=np.full(g.shape, np.nan), where=gain > 0))


def value_at(tokens: ArrayLike, values: ArrayLike, at: float) -> float:
    """Return a trajectory's value after `at` tokens, on the straight line between its neighbours; NaN outside of it.

    Args:
        tokens: gradient tokens so far at each point, rising.
        values: the objective there, in nats; points without one (NaN) are left out.
    """
    x, y = _floats(tokens), _floats(values)
    known = ~np.isnan(y)
    x, y = x[known], y[known]
    if not x.size or not x[0] <= at <= x[-1]:
        return float("nan")
    return float(np.interp(at, x, y))


# ---- fronts ----------------------------------------------------------------------------------------------------------


def dominates(first: ArrayLike, second: ArrayLike) -> bool:
    """Say whether a point (f_DPO, f_SFT) is no worse than another in both objectives and better in one (lower is better)."""
    a, b = _floats(first), _floats(second)
    return bool((a <= b).all() and (a < b).any())


def pareto_front(points: ArrayLike) -> list[int]:
    """Return the places of the points that no other dominates, in their order; equal points stay together.

    Args:
        points: (n, 2), lower is better; a point with NaN is on no front.
    """
    every = _floats(points).reshape(-1, 2)
    known = [place for place, point in enumerate(every) if not np.isnan(point).any()]
    return [place for place in known if not any(dominates(every[other], every[place]) for other in known)]


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the exact area that points dominate below a reference point, in nats² (Zitzler and Thiele 1998); 0 for none.

    Only what lies below the reference in both objectives counts. The area grows when any point of the front moves down
    and is the same whatever dominated points there are.

    Args:
        points: (n, 2), lower is better; points with NaN are left out.
        reference: (2,), the same for every front that is compared.
    """
    right, top = (float(one) for one in _floats(reference))
    inside = [(float(x), float(y)) for x, y in _floats(points).reshape(-1, 2) if x < right and y < top]
    area, ceiling = 0.0, top
    for x, y in sorted(inside):
        if y < ceiling:
            area += (right - x) * (ceiling - y)
            ceiling = y
    return area


def spread(points: ArrayLike) -> float:
    """Return how far apart a method's ends are over λ: the diagonal of the box that holds them; NaN for fewer than two.

    Args:
        points: (n, 2), one a λ; points with NaN are left out.
    """
    every = _floats(points).reshape(-1, 2)
    every = every[~np.isnan(every).any(axis=1)]
    return float(np.hypot(*np.ptp(every, axis=0))) if len(every) > 1 else float("nan")
