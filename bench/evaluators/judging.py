"""Generated answers beside the chosen ones, compared by a judge: the key `evaluation.win_rate`. No torch at the top."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from bench.errors import InputError, JudgeError, NoRoom
from bench.evaluators import Evaluator, Outcome, Stage, StageContext
from bench.evaluators.options import WinRate
from bench.judges import JUDGES, JudgeSettings
from bench.settings import Data, Model


class Judging(Evaluator):
    """Generated answers against the chosen answers of held-out pairs, by a judge, which can change without new answers."""

    Options: ClassVar[type[BaseModel]] = WinRate
    options: WinRate

    def stages(self) -> tuple[Stage, ...]:
        from bench.evaluators.win_rate import judge_name

        judge, generation = self.options.judge, self.options.generation.identity()
        origin = JUDGES.origin(judge.kind)
        return (
            Stage(
                "generate",
                {"prompts": self.options.prompts, "generation": generation},
                name="answers",
                slug="answers",
                title="answers",
                data=("preference",),
            ),
            Stage(
                "judge",
                judge.identity(),
                slug="judged",
                title="judged answers",
                data=("preference",),
                policy=False,
                labels={"judge": judge_name(judge)},
                origins=(origin,) if origin else (),
            ),
        )

    def new_tokens(self) -> int:
        return int(self.options.generation.max_new_tokens)

    def run(self, kind: str, context: StageContext) -> Outcome:
        return self._generate(context) if kind == "generate" else self._judge(context)

    def _generate(self, context: StageContext) -> Outcome:
        from bench.evaluators import generation

        datasets = context.datasets(self.options.prompts)
        prompts = [row.prompt for row in datasets.judged]
        settings, limit = self.options.generation, context.max_prompt_tokens
        policy, stop, tell = context.policy(), datasets.stop, context.tell
        if settings.engine == "endpoint":
            from bench.evaluators import endpoint_answers

            rows, facts = endpoint_answers.answers_and_facts(
                policy, prompts, settings, stop, limit, tell, context.folder
            )
        else:
            rows, facts = generation.answers_and_facts(policy, prompts, settings, stop, limit, tell)
        return Outcome(rows, facts={"generation": facts})

    def _judge(self, context: StageContext) -> Outcome:
        from bench.evaluators import win_rate
        from bench.judges.requests import Pair

        judged = context.datasets(self.options.prompts).judged
        pairs = [
            Pair(id=row["id"], instruction=pair.prompt, ours=row["answer"], theirs=pair.chosen)
            for row, pair in zip(context.earlier["answers"], judged, strict=True)
        ]
        scores, rows = win_rate.judge(
            pairs,
            self.options.judge,
            context.folder,
            context.load,
            context.tell,
            others=lambda: context.results.glob(win_rate.JOURNALS),
            results=context.results,
        )
        ((name, score),) = scores.items()
        # Failed, not complete: the next run asks only for the pairs that are missing.
        missing = f"{name}: {score.get('reason')}; the same command asks again, only for the missing ones"
        error = JudgeError(missing) if score["value"] is None else None
        metric = win_rate.metric(self.options.judge, score["configuration"])
        return Outcome(rows, scores, (metric,), error=error)

    def warnings(self) -> list[str]:
        from bench.evaluators import endpoint
        from bench.judges import trial

        return [*endpoint.doubts(self.options.generation), *trial.warnings(self.options.judge)]

    def models(self) -> dict[str, Model]:
        judge = self.options.judge
        return {f"evaluation.win_rate.judge.{key}": model for key, model in judge.judge.models(judge.options).items()}

    def try_out(self, kinds: set[str], results: Path, mirror: Path | None) -> str | None:
        """Ask a paid judge one tiny question, and a server that makes the answers for one token."""
        from bench.evaluators import endpoint

        server = endpoint.try_out(self.options.generation) if "generate" in kinds else None
        return "; ".join(filter(None, [server, self._try_judge(kinds, results)])) or None

    def _try_judge(self, kinds: set[str], results: Path) -> str | None:
        from bench.evaluators.win_rate import JOURNALS
        from bench.judges import trial
        from bench.judges.cost import KEY

        if "judge" not in kinds:
            return None
        try:
            answered = trial.ask(self.options.judge, results, lambda: results.glob(JOURNALS))
        except NoRoom:
            raise
        except JudgeError as error:
            raise InputError(f"{KEY}: {error}") from None
        return answered.in_words if answered else None

    def price(self, to_do: Mapping[str, int], limits: Data) -> dict[str, Any] | None:
        from bench.judges import cost

        tokens = self.options.generation.max_new_tokens
        return cost.estimate(self.options.judge, limits, self.options.prompts, tokens, to_do.get("judge", 0))

    def smoke(self) -> WinRate:
        """Keep in which orders is asked; the rule judge knows the built-in world."""
        alone = {"max_new_tokens": 8, "engine": "transformers", "endpoint": None}
        generation = self.options.generation.model_copy(update=alone)
        judge = JudgeSettings(kind="rule", orders=self.options.judge.orders)
        return WinRate(prompts=4, generation=generation, judge=judge)
