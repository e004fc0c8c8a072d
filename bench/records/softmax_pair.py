"""Both objectives of a toy problem, from what its records say of it: the run descends them and the report draws them.

In double precision, so that both sides compute the same to the last bit. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import mul

Parameters = tuple[float, ...]


def _minus(left: Sequence[float], right: Sequence[float]) -> Parameters:
    return tuple(a - b for a, b in zip(left, right, strict=True))


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the inner product."""
    return float(sum(map(mul, left, right)))


def _logistic_loss(margin: float) -> tuple[float, float]:
    """Return −log σ(m) and 1 − σ(m), without overflow on either side."""
    small = math.exp(-abs(margin))
    return max(-margin, 0.0) + math.log1p(small), (small if margin > 0 else 1.0) / (1.0 + small)


class SoftmaxPair:
    """Both objectives of softmax policies π_θ(y|x) ∝ exp(θ·φ_{y,x}) over two answers an input.

    Attributes:
        directions: φ_chosen − φ_rejected and φ_target − φ_other: each objective falls along its own.
        theta_ref: parameters of π_ref.
    """

    def __init__(self, features: Mapping[str, Sequence[float]], beta: float, theta_ref: Sequence[float]) -> None:
        self.directions = {
            "dpo": _minus(features["chosen"], features["rejected"]),
            "sft": _minus(features["target"], features["other"]),
        }
        self.theta_ref = tuple(theta_ref)
        # Eq. 22: h = β (θ − θ_ref)·Δφ; for SFT, log π(y)/π(y') = θ·Δφ. Both losses are −log σ of these margins.
        self._scale = {"dpo": beta, "sft": 1.0}
        self._offset = {
            "dpo": beta * dot(self.theta_ref, self.directions["dpo"]),
            "sft": 0.0,
        }

    def margin(self, objective: str, theta: Sequence[float]) -> float:
        """Return h_β (Eq. 22), or the log-odds of the target answer."""
        return self._scale[objective] * dot(theta, self.directions[objective]) - self._offset[objective]

    def value(self, objective: str, theta: Sequence[float]) -> float:
        """Return f_DPO (Eq. 1) or f_SFT (Eq. 4), in nats."""
        return _logistic_loss(self.margin(objective, theta))[0]

    def value_and_gradient(self, objective: str, theta: Sequence[float]) -> tuple[float, list[float]]:
        """Return an objective with its gradient: −β (1 − σ(h)) Δφ (Eq. 23), or −(φ_y − φ̄) = −(1 − π(y)) Δφ (Eq. 27)."""
        direction, scale = self.directions[objective], self._scale[objective]
        value, slope = _logistic_loss(scale * dot(theta, direction) - self._offset[objective])
        return value, [-scale * slope * entry for entry in direction]

    @property
    def inner_product(self) -> float:
        """The inner product of both directions; negative: descending one objective raises the other, anywhere."""
        return dot(self.directions["dpo"], self.directions["sft"])

    def mixture(self, lambda_dpo: float, theta: Sequence[float]) -> float:
        """Return λ f_DPO + (1 − λ) f_SFT."""
        return lambda_dpo * self.value("dpo", theta) + (1 - lambda_dpo) * self.value("sft", theta)

    def mixture_minimum(self, lambda_dpo: float, start: Sequence[float]) -> tuple[float, Parameters | None]:
        """Return min f_Mix,λ and the minimizer nearest to `start`.

        Unless both directions are opposite, some direction lowers both objectives for ever: the infimum is 0 and nothing
        attains it (None). Otherwise f_Mix is a convex function of the place along that one direction, and its derivative's
        only root is found by bisection to the last bit.
        """
        dpo, sft = self.directions["dpo"], self.directions["sft"]
        opposite = self.inner_product <= -(1 - 1e-12) * math.sqrt(dot(dpo, dpo) * dot(sft, sft))
        if not opposite or not 0 < lambda_dpo < 1:
            return 0.0, None

        def at(place: float) -> Parameters:
            return tuple(a + place * b for a, b in zip(start, sft, strict=True))

        def slope(place: float) -> float:
            parts = [self.value_and_gradient(objective, at(place))[1] for objective in ("dpo", "sft")]
            return dot([lambda_dpo * a + (1 - lambda_dpo) * b for a, b in zip(*parts, strict=True)], sft)

        low, high = -1.0, 1.0
        while slope(low) > 0:
            low *= 2
        while slope(high) < 0:
            high *= 2
        while low < (middle := (low + high) / 2) < high:
            low, high = (middle, high) if slope(middle) < 0 else (low, middle)
        return self.mixture(lambda_dpo, at(low)), at(low)
