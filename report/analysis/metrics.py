"""What the figures are that are derived here from those on record. The records describe their own."""

from __future__ import annotations

from typing import Any

from bench.records.metrics import Metric

_GAP: dict[str, Any] = {"unit": "nats", "better": "lower", "kind": "objective"}
_SHARE_OF_GAP: dict[str, Any] = {"unit": "share", "better": "lower", "kind": "objective"}
_COST: dict[str, Any] = {"better": "lower", "kind": "cost", "low": 0.0}
_INCREASE: dict[str, Any] = {"unit": "%", "kind": "cost", "low": -100.0}
_COUNT: dict[str, Any] = {"better": None, "kind": "count", "low": 0.0}
_SHARE_OF_STEPS: dict[str, Any] = {**_COUNT, "unit": "share", "high": 1.0}

HYPERVOLUME = "hypervolume"

_METRICS = (
    Metric("gap_dpo", "DPO gap", meaning="f_DPO(θ) − f*_DPO on the evaluation split, signed", **_GAP),
    Metric("gap_sft", "SFT gap", meaning="f_SFT(θ) − f*_SFT on the evaluation split, signed", **_GAP),
    Metric(
        "ideal_distance",
        "Ideal distance",
        meaning="Euclidean distance to (f*_DPO, f*_SFT); 0 is ideal",
        low=0.0,
        gate=True,
        tolerance=0.05,
        relative=True,
        **_GAP,
    ),
    Metric(
        "held_out_ideal_distance",
        "Ideal distance, held-out",
        meaning="on held-out rows, of a suite that leads with training rows; recipes are ranked by it",
        low=0.0,
        **_GAP,
    ),
    Metric(
        HYPERVOLUME,
        "Hypervolume",
        "share",
        "higher",
        "objective",
        "area that a method's ends over λ dominate, as a share of the box between reference and ideal point",
        low=0.0,
        gate=True,
        tolerance=0.01,
    ),
    Metric(
        "best_seen_gap_dpo",
        "DPO gap to best seen",
        meaning="against the lowest f_DPO seen in any run of the seed",
        low=0.0,
        **_GAP,
    ),
    Metric(
        "best_seen_gap_sft",
        "SFT gap to best seen",
        meaning="against the lowest f_SFT seen in any run of the seed",
        low=0.0,
        **_GAP,
    ),
    Metric(
        "best_seen_ideal_distance",
        "Distance to best seen",
        meaning="Euclidean distance to the best values seen",
        low=0.0,
        **_GAP,
    ),
    Metric("relative_gap_dpo", "DPO gap", meaning="as a share of f_DPO(θ_1) − f*_DPO", **_SHARE_OF_GAP),
    Metric("relative_gap_sft", "SFT gap", meaning="as a share of f_SFT(θ_1) − f*_SFT", **_SHARE_OF_GAP),
    Metric(
        "relative_ideal_distance",
        "Ideal distance",
        meaning="each gap as a share of f(θ_1) − f*",
        low=0.0,
        **_SHARE_OF_GAP,
    ),
    Metric(
        "ideal_distance_at_equal_tokens",
        "Distance at equal tokens",
        meaning="after as many gradient tokens as every run of the suite reached",
        low=0.0,
        **_GAP,
    ),
    Metric(
        "all_in_seconds",
        "All-in",
        "s",
        meaning="with the training of π_ref, and of the two optima where the recipe uses them",
        tolerance=0.05,
        relative=True,
        **_COST,
    ),
    Metric("seconds_per_step", "Training per step", "s", meaning="training seconds by optimizer steps", **_COST),
    Metric("seconds_per_token", "Training per token", "s", meaning="training seconds by gradient tokens", **_COST),
    Metric("joules_per_token", "Energy per token", "J", meaning="joules by gradient tokens", **_COST),
    Metric(
        "matrix_rate_share",
        "Of the matrix rate",
        "share",
        None,
        "cost",
        "model FLOPs a second of training, as a share of the device's own matrix products",
        low=0.0,
    ),
    Metric(
        "runtime_increase_percent",
        "Runtime",
        better="lower",
        meaning="increase against the matching Sequential run (Eq. 57)",
        choose="runtime_increase",
        **_INCREASE,
    ),
    Metric(
        "utilization_increase_percent",
        "Utilization",
        better=None,
        meaning="increase against the matching Sequential run (Eq. 58)",
        choose="utilization_increase",
        **_INCREASE,
    ),
    Metric("dpo_step_share", "DPO steps", meaning="steps that descended DPO, of all", **_SHARE_OF_STEPS),
    Metric(
        "negative_gap_share_dpo",
        "Negative DPO gaps",
        meaning="of the gaps that steps were chosen on",
        **_SHARE_OF_STEPS,
    ),
    Metric(
        "negative_gap_share_sft",
        "Negative SFT gaps",
        meaning="of the gaps that steps were chosen on",
        **_SHARE_OF_STEPS,
    ),
    Metric(
        "distinct_rows_dpo",
        "Different pairs",
        "rows",
        meaning="preference pairs that took part in a gradient",
        **_COUNT,
    ),
    Metric(
        "distinct_rows_sft", "Different rows", "rows", meaning="instruction rows that took part in a gradient", **_COUNT
    ),
)

DERIVED = {one.name: one for one in _METRICS}

# Written with their sign: 0 is a place of its own.
SIGNED = frozenset(
    name for name in DERIVED if "gap_dpo" in name or "gap_sft" in name or name.endswith("_increase_percent")
)
# Costs of a step and of a token say nothing that the cost of the run does not, where two results are compared.
RATIOS = frozenset({"seconds_per_step", "seconds_per_token", "joules_per_token"})
