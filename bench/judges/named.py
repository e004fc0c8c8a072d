"""Find a configuration by its name: ours, or alpaca-eval's."""

from __future__ import annotations

from bench.judges import alpaca, pairwise
from bench.judges.configurations import Configuration


def configuration(name: str, *, to_ask: bool = True) -> Configuration:
    """Return the configuration of a name, without importing alpaca-eval.

    Args:
        name: as suites give it.
        to_ask: whether prompts will be sent; stored replies can be read under more of alpaca-eval's.

    Raises:
        SuiteError: there is none of that name, or it cannot be used here.
    """
    ours = pairwise.CONFIGURATIONS
    return ours[name] if name in ours else alpaca.configuration(name, to_ask=to_ask, others=tuple(ours))
