"""What an endpoint asks for a token: the suite's own price, the dated table beside this file, or litellm's if installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bench.judges import price_map

if TYPE_CHECKING:
    from bench.judges import JudgeSettings

KEY = "evaluation.win_rate.judge"
OLD_AFTER_DAYS = 90
_TABLE = Path(__file__).with_name("prices.yaml")
_MILLION = 1e6


@dataclass(frozen=True)
class Rate:
    """A price for a token in and a token out, in US dollars a million, and where it comes from.

    Attributes:
        input: a token of a prompt.
        output: a token of a reply, its reasoning among them.
        source: who says so.
        cached_input: a token of a prompt that the endpoint had in its cache; None: as any other.
        cache_write: one that it put there; None: as any other.
        batch_factor: what a batch costs of all that; None: not known, so that it counts as single requests.
        read: when the price was read; None where nobody says.
    """

    input: float
    output: float
    source: str
    cached_input: float | None = None
    cache_write: float | None = None
    batch_factor: float | None = None
    read: date | None = None

    def of(self, prompt_tokens: int, completion_tokens: int, batch: bool = False) -> float:
        """Return US dollars."""
        return self.bill({"prompt": prompt_tokens, "completion": completion_tokens}, batch)

    def bill(self, tokens: Mapping[str, int], batch: bool = False) -> float:
        """Return what a reply costs in US dollars, by the tokens that `usage.tokens` read."""
        cached, written = tokens.get("cached", 0), tokens.get("cache_written", 0)
        paid = max(0, tokens.get("prompt", 0) - cached - written) * self.input
        paid += cached * (self.input if self.cached_input is None else self.cached_input)
        paid += written * (self.input if self.cache_write is None else self.cache_write)
        paid += tokens.get("completion", 0) * self.output
        return paid * (self.batch_factor if batch and self.batch_factor is not None else 1.0) / _MILLION


@lru_cache
def _table() -> dict[str, Any]:
    import yaml

    table: dict[str, Any] = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    return table


def rate(settings: JudgeSettings, model: str) -> tuple[Rate | None, str]:
    """Find what a token costs: in the suite, in the dated table for the endpoint that table is of, or in litellm's.

    Returns:
        The rate, and an empty text; or None, and why it is not known.
    """
    if not settings.judge.endpoint:
        return None, f"a judge of kind {settings.kind} has no price"
    known, reason = _listed(settings, model)
    own = settings.price
    if own is None:
        return known, reason
    paid_in, paid_out = own.input_usd_per_million_tokens, own.output_usd_per_million_tokens
    if paid_in is not None and paid_out is not None:
        # cached tokens cost a part of a price that is not the suite's; what a batch costs less stays
        base = Rate(paid_in, paid_out, "the suite's own price", batch_factor=known.batch_factor if known else None)
    elif known is None:
        return None, f"{reason}: its input_usd_per_million_tokens and output_usd_per_million_tokens"
    else:
        base = replace(known, source=f"the suite's own price and {known.source}")
    given = {
        "input": paid_in,
        "output": paid_out,
        "cached_input": own.cached_input_usd_per_million_tokens,
        "cache_write": own.cache_write_usd_per_million_tokens,
        "batch_factor": own.batch_factor,
        "read": own.read,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(base, **changes), ""


def _listed(settings: JudgeSettings, model: str) -> tuple[Rate | None, str]:
    """Find a price that is not the suite's own."""
    table = _table()
    ours = _asks(settings, table["endpoint"])
    entry = table["usd_per_million_tokens"].get(model) if ours else None
    if entry is not None:
        source = f"prices of {entry['date']}, {table['source']}"
        listed = {name: value for name, value in entry.items() if name != "date"}
        return Rate(**listed, source=source, read=date.fromisoformat(f"{entry['date']}-01")), ""
    found = price_map.find(_host(settings), model)
    if found is not None:
        prices, source = found
        return Rate(source=source, **prices), ""
    return None, f"no price is known for {model if ours else 'this endpoint'}; give {KEY}.price"


def old_price(settings: JudgeSettings, model: str, today: date | None = None) -> str | None:
    """Say that a price was read long ago; `today` is the machine's own day where it is not given."""
    price, _ = rate(settings, model)
    days = ((today or datetime.now(UTC).date()) - price.read).days if price and price.read else 0
    if price is None or days <= OLD_AFTER_DAYS:
        return None
    return (
        f"the price of {model} is {days} days old ({price.source}): what it costs may have changed; see the endpoint's "
        f"price list, and give {KEY}.price"
    )


def shutdown(settings: JudgeSettings, model: str) -> date | None:
    """Return the day on which OpenAI's endpoint stops serving a model, as far as is known; None for another endpoint."""
    found: date | None = _table()["shutdown"].get(model) if _asks(settings, _table()["endpoint"]) else None
    return found


def _asks(settings: JudgeSettings, endpoint: str) -> bool:
    """Say whether a judge asks the endpoint that the table is of."""
    return bool(settings.judge.endpoint) and endpoint in (settings.base_url or settings.judge.endpoint)


def _host(settings: JudgeSettings) -> str:
    """Return where a paid judge is asked."""
    return (urlsplit(settings.base_url).hostname or "") if settings.base_url else settings.judge.endpoint
