"""What `run` and `validate` check beyond the suite's own text, before any model is loaded. Imports nothing heavy."""

from __future__ import annotations

import sys

from bench.suite import Experiment, Suite


def check_tasks(suite: Experiment) -> None:
    """Refuse tasks that the installed lm-eval does not know.

    Raises:
        SuiteError: with the nearest names.
    """
    from bench.evaluators import lm_eval_index

    if not isinstance(suite, Suite) or suite.evaluation.lm_eval is None:
        return
    asked = [name for name in suite.evaluation.lm_eval.tasks if lm_eval_index.needs_index(name)]
    known = lm_eval_index.entries(lambda text: print(f"bench: {text}", file=sys.stderr)) if asked else {}
    for name in asked:
        if name not in known:
            raise lm_eval_index.unknown(name, known)
