"""A win rate with the judges' love of long answers taken out, after the idea of AlpacaEval 2 (arXiv 2404.04475).

It is an estimate of our own, from our own pairs alone: AlpacaEval's needs the difficulty of its own 805 instructions, and
is another figure. It is shown as length-adjusted; records keep the name `length_controlled_win_rate` that they began with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ADJUSTED_BY = "our own regression on the difference in length"
RESAMPLES = 200
_SEED = 0
_FEWEST_PAIRS = 10
# Log-odds beyond which a preference is certain in any practical sense; pairs that a line separates have no finite fit
_LARGEST = 20.0


def length_controlled(preferences: Sequence[float], differences: Sequence[int]) -> dict[str, Any]:
    """Estimate the win rate, were each of our answers as long as the one it is compared with.

    Fit P(ours preferred) = σ(θ + φ · tanh(d / s)), where d is how much longer ours is and s the standard deviation of d,
    to the judge's preferences by cross-entropy (a fractional logit: a preference need not be 0 or 1). Without a
    difference σ(θ) is left.

    Args:
        preferences: of each judged pair, 0 (theirs) to 1 (ours).
        differences: length of ours minus length of theirs, in characters.

    Returns:
        `length_controlled_win_rate` and `length_controlled_standard_error` in percent, the latter from resampled pairs
        (bootstrap, seeded); null with `length_controlled_reason` where the pairs do not tell.
    """
    import numpy as np

    names = ("length_controlled_win_rate", "length_controlled_standard_error")
    ours, longer = np.asarray(preferences, dtype=float), np.asarray(differences, dtype=float)
    reason = None
    if len(ours) < _FEWEST_PAIRS:
        reason = f"{len(ours)} pairs are too few; {_FEWEST_PAIRS} are the least"
    elif not longer.std():
        reason = "all pairs differ in length by the same"
    if reason:
        return {**dict.fromkeys(names), "length_controlled_reason": reason}
    generator = np.random.default_rng(_SEED)
    drawn = (generator.integers(len(ours), size=len(ours)) for _ in range(RESAMPLES))
    again = [_rate(ours[rows], longer[rows]) for rows in drawn]
    return dict(zip(names, (_rate(ours, longer), float(np.std(again, ddof=1))), strict=True))


def _rate(preferences: Any, differences: Any) -> float:
    """Fit θ and φ by maximum likelihood and return σ(θ) in percent."""
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import expit

    spread = differences.std()
    feature = np.tanh(differences / spread) if spread else np.zeros_like(differences)

    def loss(parameters: Any) -> tuple[float, Any]:
        odds = parameters[0] + parameters[1] * feature
        error = expit(odds) - preferences
        value = np.logaddexp(0, odds) - preferences * odds
        return float(value.mean()), np.array([error.mean(), (error * feature).mean()])

    found = minimize(
        loss,
        np.zeros(2),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-_LARGEST, _LARGEST)] * 2,
        options={"ftol": 1e-14, "gtol": 1e-9},
    )
    return 100 * float(expit(found.x[0]))
