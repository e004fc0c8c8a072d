"""A base model's own dropout, which a comparison of losses has no use for: at θ = π_ref f_DPO is log 2 only without it."""

from __future__ import annotations

from typing import Any

import torch

_KINDS = (torch.nn.Dropout, torch.nn.Dropout1d, torch.nn.Dropout2d, torch.nn.Dropout3d, torch.nn.AlphaDropout)


def turn_off(model: Any) -> float:
    """Set every dropout of a model without adapter to 0: modules, and rates that attention or layers keep as numbers.

    Returns:
        The largest rate that was set; 0 where there was none.
    """
    rates = [0.0]
    for module in model.modules():
        if isinstance(module, _KINDS):
            rates.append(float(module.p))
            module.p = 0.0
            continue
        for name, value in vars(module).items():
            if ("dropout" in name or "pdrop" in name or name == "layerdrop") and isinstance(value, float) and value > 0:
                rates.append(value)
                setattr(module, name, 0.0)
    return max(rates)
