"""Questions of the LM Evaluation Harness (lm-eval): the key `evaluation.lm_eval`. No torch at the top."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from bench.evaluators import Evaluator, Outcome, Stage, StageContext
from bench.evaluators.options import LmEval


class Harness(Evaluator):
    """Questions asked through lm-eval: its figures to the last digit, from fewer tokens."""

    Options: ClassVar[type[BaseModel]] = LmEval
    options: LmEval

    def stages(self) -> tuple[Stage, ...]:
        settings = {"lm_eval": self.options.model_dump(mode="json", exclude={"batch_size"})}
        return (Stage("lm_eval", settings, slug="questions", title="questions (lm-eval)", splits=True),)

    def run(self, kind: str, context: StageContext) -> Outcome:
        from bench.evaluators import lm_eval

        policy = context.policy()
        scores, rows, metrics = lm_eval.ask(policy, self.options, context.mirror, context.tell)
        return Outcome(rows, scores, metrics, lm_eval.facts(policy, self.options, context.mirror, rows))

    def items(self) -> dict[str, int | None]:
        from bench.evaluators import lm_eval_index

        return {name: lm_eval_index.count_of(name, self.options.limit) for name in self.options.tasks}

    def check(self, tell: Callable[[str], None]) -> None:
        """Refuse tasks that the installed lm-eval does not know.

        Raises:
            SuiteError: with the nearest names.
        """
        from bench.evaluators import lm_eval_index

        asked = [name for name in self.options.tasks if lm_eval_index.needs_index(name)]
        known = lm_eval_index.entries(tell) if asked else {}
        for name in asked:
            if name not in known:
                raise lm_eval_index.unknown(name, known)

    def try_out(self, kinds: set[str], results: Path, mirror: Path | None) -> str | None:
        """Load the tasks that may need more than lm-eval: their packages, their data. MMLU and the world need no more."""
        from bench.evaluators import lm_eval_index

        for name in self.options.tasks if "lm_eval" in kinds else ():
            if lm_eval_index.needs_index(name):
                from bench.evaluators import lm_eval_tasks

                lm_eval_tasks.check_needs(name, self.options.shots, mirror)
        return None

    def smoke(self) -> LmEval:
        """Ask the built-in world's questions."""
        update = {"tasks": ("world_questions",), "shots": 0, "limit": 4, "chat_template": False}
        return self.options.model_copy(update=update)
