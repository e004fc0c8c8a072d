"""Read a line of a batch's results as the same answer to a single request is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bench.judges import Reply, faults
from bench.judges.batch import notes as batch_notes
from bench.judges.faults import Fault

if TYPE_CHECKING:
    from bench.judges.openai import OpenaiJudge

# The kind of a reply that changed what is sent
ADAPTED = "adapted"


def read(judge: OpenaiJudge, noted: batch_notes.Noted, one: Mapping[str, Any]) -> tuple[Reply, Fault | None]:
    """Read a line of results: a reply, and the fault as a single request would have met it, if nothing was learned of it."""
    response = one.get("response")
    if not isinstance(response, Mapping):  # such as one that the batch did not come to in its time
        fault = fault_of(503, {"error": one.get("error")})
    elif response.get("status_code") == 200:
        try:
            reply = judge.read(json.dumps(response.get("body")))
            return replace(reply, batch=noted.key, sent=noted.parameters), None
        except Fault as inside:
            fault = inside
    else:
        status = response.get("status_code")
        fault = fault_of(status if isinstance(status, int) else 500, response.get("body"))
    words = judge.problem(fault)
    learned = judge.learn(noted.parameters, noted.system, fault)
    kind = ADAPTED if learned else fault.kind
    # a failed line is not billed
    reply = Reply(None, words, None, 0.0, "refused", kind, noted.key, noted.parameters)
    return reply, None if learned else fault


def fault_of(status: int, body: Any) -> Fault:
    """Read what stands in a file as the same answer to a single request is read."""
    answer: Any = SimpleNamespace(status_code=status, headers={}, text=json.dumps(body))
    made: Any = SimpleNamespace(response=answer, message="")
    return faults.of_error(made)
