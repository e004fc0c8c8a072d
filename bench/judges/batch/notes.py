"""What a journal says of batches: which were begun, what each asks, and how far it had come.

A batch has a key of ours. Its requests are noted under it, all at once, before anything is sent; then come lines of its own:

==========  ======================================================================================
`creating`  the endpoint is about to be told to make it: from here on it may be paid for
`created`   the endpoint has made it, under a name of its own
`ended`     every request in it is answered or refused; there is nothing more to be had from it
==========  ======================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# The kind of a line that says that nothing was sent: no reply was lost
NOT_SENT = "not sent"
Step = Literal["creating", "created", "ended"]


@dataclass
class Noted:
    """A batch that was begun.

    Attributes:
        key: ours.
        waiting: comparisons, as the journal knows them, whose replies have not come, by the request's name.
        step: its latest line of its own; None: the endpoint knows nothing of it.
        id: the endpoint's name for it; None where it is not known.
        parameters: the fields of its requests.
        system: whether they have system messages.
    """

    key: str
    waiting: dict[str, str] = field(default_factory=dict)
    step: Step | None = None
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    system: bool = True


def row(key: str, step: Step, **more: Any) -> dict[str, Any]:
    """Make a batch's own line; it is no reply, and costs nothing."""
    return {"key": key, "usable": False, "batch": key, "step": step, **more}


def under_way(rows: Iterable[Mapping[str, Any]]) -> list[Noted]:
    """Return the batches that have not ended, in the order in which they were begun."""
    found: dict[str, Noted] = {}
    for one in rows:
        if not one.get("batch") or one.get("from"):
            continue
        batch = found.setdefault(one["batch"], Noted(one["batch"]))
        if "step" in one:
            batch.step = one["step"]
            batch.id = one.get("batch_id") or batch.id
            batch.parameters = one.get("parameters", batch.parameters)
            batch.system = one.get("system", batch.system)
        elif one.get("state") == "sent":
            batch.waiting[one["request"]] = one["key"]
        else:
            batch.waiting.pop(one.get("request", ""), None)
    return [batch for batch in found.values() if batch.step != "ended" and batch.waiting]
