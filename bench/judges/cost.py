"""What a judge costs: an estimate before, a ceiling while it is asked, the bill after.

A price that is not known is null with a reason and never 0.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bench.errors import OverCeiling
from bench.judges.dialects import for_model, longest_reply
from bench.judges.prices import KEY, Rate, rate

if TYPE_CHECKING:
    from bench.judges import JudgeSettings
    from bench.judges.requests import Request
    from bench.settings import Data

# Of English text; estimates only, the bill counts the endpoint's own tokens
CHARACTERS_PER_TOKEN = 4


def tokens_of(request: Request) -> int:
    """Estimate the tokens of a prompt from its characters."""
    return sum(len(message.content) for message in request.messages) // CHARACTERS_PER_TOKEN + 1


class Budget:
    """Keep what is spent below a ceiling: what is under way is set aside by estimate until its bill is known.

    Args:
        price: of a token; None without a ceiling, or where nothing can be counted.
        ceiling: US dollars, with what `spent_before` says; None for no ceiling.
        completion_tokens: returns the longest reply, which is what is set aside for one.
    """

    def __init__(self, price: Rate | None, ceiling: float | None, completion_tokens: Callable[[], int]) -> None:
        self._price, self._ceiling, self._completion_tokens = price, ceiling, completion_tokens
        self._counting = threading.Lock()
        self._spent = 0.0
        self._aside: dict[Request, list[float]] = {}  # of one request, as often as it is under way
        self.elsewhere: Callable[[], float] = lambda: 0.0

    def reserve(self, request: Request, batch: bool = False) -> None:
        """Set aside what a request may cost, by itself or in a batch.

        Raises:
            OverCeiling: it might pass the ceiling.
        """
        if self._price is None or self._ceiling is None:
            return
        with self._counting:
            spent = self._spent + self.elsewhere()
            cost = self._estimate(request, batch)
            if spent + sum(map(sum, self._aside.values())) + cost > self._ceiling:
                raise OverCeiling(
                    f"the next comparison may pass the ceiling: ${spent:.4f} of {KEY}.max_cost_usd = {self._ceiling:g} "
                    "are spent; raise it and run again: what was judged is kept"
                )
            self._aside.setdefault(request, []).append(cost)

    def settle(self, request: Request, cost: float | None) -> None:
        """Take what a request did cost for what was set aside; where that is not known, the estimate stands."""
        if self._price is None or self._ceiling is None:
            return
        with self._counting:
            under_way = self._aside.get(request)
            estimate = under_way.pop() if under_way else 0.0
            self._spent += estimate if cost is None else cost

    def spend(self, cost: float) -> None:
        """Count what was spent earlier."""
        self._spent += cost

    def resume(self, request: Request, batch: bool) -> None:
        """Set aside again what counts as spent: a request of an earlier process whose reply may still come."""
        if self._price is None or self._ceiling is None:
            return
        with self._counting:
            cost = self._estimate(request, batch)
            self._aside.setdefault(request, []).append(cost)
            self._spent -= cost

    def _estimate(self, request: Request, batch: bool) -> float:
        assert self._price is not None
        return self._price.of(tokens_of(request), self._completion_tokens(), batch)


class Account:
    """Follow what a journal notes: requests that were sent, what became of each, and what that costs.

    A request that timed out, was cut off or was under way when its process was killed may be paid for or not: it counts
    as unanswered, at the most that it can have cost. An earlier judging's replies are that one's to pay.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._counts: dict[str, Counter[str]] = {}  # by request
        self._latest: dict[str, str] = {}  # by comparison
        self._at_most: dict[str, float | None] = {}
        self._paid = 0.0
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one line of a journal."""
        if row.get("from"):
            return
        self._paid += row.get("cost_usd") or 0.0
        name = row.get("request")
        if name is None:  # a judge that costs nothing, or a journal from before requests were noted
            return
        self._counts.setdefault(name, Counter())[row["state"]] += 1
        if row["state"] == "sent":
            self._latest[row["key"]] = name
            self._at_most[name] = row.get("cost_usd_at_most")
        elif row["state"] == "answered":  # the next request to it asks for another answer
            self._latest.pop(row["key"], None)

    def unanswered_request(self, key: str) -> str | None:
        """Return the request to a comparison whose answer never came, or has not come yet."""
        name = self._latest.get(key)
        return name if name is not None and self._unanswered(name) else None

    @property
    def spent(self) -> float:
        """US dollars paid, and at most paid for requests without an answer; what has no known price counts as nothing."""
        return self._paid + sum(self._unanswered(name) * (self._at_most[name] or 0.0) for name in self._at_most)

    @property
    def unanswered(self) -> int:
        """How many requests may be paid for though no answer to them was seen."""
        return sum(map(self._unanswered, self._counts))

    @property
    def unanswered_usd_at_most(self) -> float | None:
        """What those can have cost; None where the price is not known."""
        costs = [(self._unanswered(name), cost) for name, cost in self._at_most.items() if self._unanswered(name)]
        return None if any(cost is None for _, cost in costs) else sum(count * (cost or 0.0) for count, cost in costs)

    @property
    def possibly_paid_twice(self) -> int:
        """How many requests may be paid for beyond the first one, as that one's answer never came."""
        return sum(max(0, self._unanswered(name) + counts["answered"] - 1) for name, counts in self._counts.items())

    def _unanswered(self, name: str) -> int:
        counts = self._counts[name]
        return max(0, counts["sent"] - counts["answered"] - counts["refused"])


def estimate(
    settings: JudgeSettings, limits: Data, prompts: int, max_new_tokens: int, judgings: int
) -> dict[str, Any] | None:
    """Say what a suite's paid judge may be asked and cost at most, before there are answers.

    An answer of ours and a reference answer count at their length limits in the policy's tokens, the prompt's template
    at four characters a token.

    Args:
        settings: the judge's.
        limits: how long prompts and reference answers may be.
        prompts: pairs a policy.
        max_new_tokens: how long our answers may be.
        judgings: how many policies are to be judged.

    Returns:
        Comparisons, tokens and US dollars at most; the last null with a reason where the price is not known. None
        without a paid judge or anything to judge.
    """
    from bench.judges.named import configuration

    if not settings.judge.endpoint or not judgings:
        return None
    model = settings.asked_model
    forms = [configuration(name) for name in settings.configurations]
    comparisons = judgings * prompts * (2 if settings.orders == "both" else 1)
    answers = max_new_tokens + limits.max_answer_tokens
    template = max(len(form.template) for form in forms)
    prompt = template // CHARACTERS_PER_TOKEN + limits.max_prompt_tokens + answers
    longest = max(longest_reply(for_model(form.parameters, model, settings.parameters)) for form in forms)
    tokens = {"prompt": comparisons * prompt, "completion": comparisons * longest}
    price, reason = rate(settings, model)
    cost = price.of(tokens["prompt"], tokens["completion"], settings.batch) if price else None
    return {
        "judge": model,
        "comparisons": comparisons,
        "prompt_tokens_at_most": tokens["prompt"],
        "completion_tokens_at_most": tokens["completion"],
        "cost_usd_at_most": cost,
        "max_cost_usd": settings.max_cost_usd,
        **({"price": price.source} if price else {"cost_reason": reason}),
        **({"batch_factor": price.batch_factor if price else None} if settings.batch else {}),
    }


def estimate_in_words(found: Mapping[str, Any]) -> str:
    """Return an estimate as one line of text."""
    text = (
        f"judge {found['judge']}: {found['comparisons']:,} comparisons to do, about "
        f"{found['prompt_tokens_at_most']:,} tokens in and {found['completion_tokens_at_most']:,} out at most: "
    )
    if found["cost_usd_at_most"] is None:
        text += f"cost not known, {found['cost_reason']}"
    else:
        text += f"${found['cost_usd_at_most']:.2f} at {found['price']}"
        if "batch_factor" in found:
            factor = found["batch_factor"]
            text += (
                f", in batches at {factor:g} of it"
                if factor is not None
                else (f"; what a batch costs less is not known: give {KEY}.price.batch_factor")
            )
    return text + (f"; stops at ${found['max_cost_usd']:g}" if found["max_cost_usd"] is not None else "")


def bill(rows: Iterable[Mapping[str, Any]], price: Rate | None, reason: str) -> dict[str, Any]:
    """Add up what the replies in a journal cost, replies that could not be used included.

    Replies taken over from another journal are that one's to pay. Requests that were refused are not billed; whether those
    are that got no answer cannot be known, so they are counted beside the bill.

    Returns:
        `requests`, `prompt_tokens`, `completion_tokens`, `cost_usd`; the last null with `cost_reason` where it is
        not known. What is part of those tokens, null where the endpoint does not count it: `cached_tokens` and
        `cache_write_tokens` of prompts, `reasoning_tokens` of completions. `in_batches`: how many of the requests came by
        batch. `unanswered`: requests that may be paid for though no answer was seen; `unanswered_usd_at_most`: what
        those can have cost; `possibly_paid_twice`: how many requests may be paid for beyond the first to a comparison.
    """
    rows = list(rows)
    account = Account(rows)
    paid = [row for row in rows if row.get("reply") is not None and not row.get("from")]
    counted = [row for row in paid if row.get("tokens")]
    sums = {
        f"{name}_tokens": sum(row["tokens"].get(name, 0) for row in counted) if counted else None
        for name in ("prompt", "completion")
    } | {
        field: sum(known) if (known := [row["tokens"][name] for row in counted if name in row["tokens"]]) else None
        for field, name in _PARTS.items()
    }
    facts: dict[str, Any] = {
        "requests": len(paid),
        "in_batches": sum(bool(row.get("batch")) for row in paid),
        **sums,
        "unanswered": account.unanswered,
        "unanswered_usd_at_most": account.unanswered_usd_at_most,
        "possibly_paid_twice": account.possibly_paid_twice,
        "cost_usd": None,
    }
    if price is None:
        return facts | {"cost_reason": reason}
    if len(counted) < len(paid):
        return facts | {"cost_reason": f"the endpoint gave no token counts for {len(paid) - len(counted)} replies"}
    # what each reply cost when it came, which a newer price does not change
    return facts | {"cost_usd": sum(_cost(row, price) for row in paid), "price": price.source}


# On the bill, and in a journal's line
_PARTS = {"cached_tokens": "cached", "cache_write_tokens": "cache_written", "reasoning_tokens": "reasoning"}


def _cost(row: Mapping[str, Any], price: Rate) -> float:
    kept = row.get("cost_usd")
    return float(kept) if kept is not None else price.bill(row["tokens"], bool(row.get("batch")))
