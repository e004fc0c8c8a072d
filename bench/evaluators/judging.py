"""Generated answers beside the chosen ones, compared by judges: the key `evaluation.win_rate`. No torch at the top."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from bench.errors import InputError, JudgeError, NoRoom, SuiteError
from bench.evaluators import Evaluator, Outcome, Stage, StageContext
from bench.evaluators.options import WinRate
from bench.judges import JUDGES, JudgeSettings
from bench.judges.cost import KEY
from bench.settings import Data, Model


class Judging(Evaluator):
    """Generated answers against the chosen answers of held-out pairs, by judges, which can change without new answers.

    Every judge works from the same answers. Nothing of a judging depends on the others or on their order, so that one more
    judge, or another main one, makes no new job of what is judged already.
    """

    Options: ClassVar[type[BaseModel]] = WinRate
    options: WinRate

    def stages(self) -> tuple[Stage, ...]:
        generation = self.options.generation.model_dump(mode="json")
        answers = Stage(
            "generate",
            {"prompts": self.options.prompts, "generation": generation},
            name="answers",
            slug="answers",
            title="answers",
            data=("preference",),
        )
        return answers, *map(self._judged, self._names)

    def _judged(self, name: str) -> Stage:
        judge = self._names[name]
        origin = JUDGES.origin(judge.kind)
        return Stage(
            "judge",
            judge.identity(),
            name=_stage(name),
            slug="judged",
            title=f"judged answers, {name}" if len(self._names) > 1 else "judged answers",
            data=("preference",),
            policy=False,
            reads=("answers",),
            labels={"judge": name},
            origins=(origin,) if origin else (),
        )

    @cached_property
    def _names(self) -> dict[str, JudgeSettings]:
        """The judges by the names that their scores have, the main one first.

        Raises:
            InputError: one cannot be what it says, or two have one name.
        """
        from bench.evaluators.win_rate import judge_name

        found: dict[str, JudgeSettings] = {}
        for place, judge in enumerate(self.options.judges):
            with self._at(place):
                name = judge_name(judge)
            if name in found:
                first = list(found).index(name)
                raise SuiteError(
                    f"{KEY}[{place}]: its score would be win_rate/{name}, as that of {KEY}[{first}] is; judges have different "
                    "models, or leave one out"
                )
            found[name] = judge
        return found

    @contextmanager
    def _at(self, place: int) -> Iterator[None]:
        """Have an error that names the judge's key name the right one of several."""
        try:
            yield
        except (InputError, JudgeError) as error:
            error.args = (self._placed(str(error), place),)
            raise

    def _placed(self, text: str, place: int) -> str:
        """Have a text that names the judge's key name the right one of several."""
        several = len(self.options.judges) > 1 and f"{KEY}[" not in text
        return text.replace(KEY, f"{KEY}[{place}]") if several else text

    def items(self) -> dict[str, int | None]:
        return {f"win_rate/{next(iter(self._names))}": self.options.prompts}

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
        judge_name = context.stage.removeprefix(_stage(""))
        settings, place = self._names[judge_name], list(self._names).index(judge_name)
        with self._at(place):
            scores, rows = win_rate.judge(
                pairs,
                settings,
                context.folder,
                context.load,
                context.tell,
                others=lambda: win_rate.journals(context.results, judge_name),
                results=context.results,
            )
        ((name, score),) = scores.items()
        # Failed, not complete: the next run asks only for the pairs that are missing.
        missing = f"{name}: {score.get('reason')}; the same command asks again, only for the missing ones"
        error = JudgeError(self._placed(missing, place)) if score["value"] is None else None
        return Outcome(rows, scores, (win_rate.metric(settings, score["configuration"]),), error=error)

    def warnings(self) -> list[str]:
        from bench.judges import trial

        return [line for judge in self.options.judges for line in trial.warnings(judge)]

    def models(self) -> dict[str, Model]:
        several = len(self.options.judges) > 1
        return {
            f"{KEY}{f'[{place}]' if several else ''}.{key}": model
            for place, judge in enumerate(self.options.judges)
            for key, model in judge.judge.models(judge.options).items()
        }

    def try_out(self, kinds: set[str], results: Path, mirror: Path | None) -> str | None:
        """Ask each paid judge that is still needed one tiny question."""
        from functools import partial

        from bench.evaluators.win_rate import journals
        from bench.judges import trial

        answered = []
        named = any(one.startswith(_stage("")) for one in kinds)
        for place, (name, judge) in enumerate(self._names.items()):
            if _stage(name) not in kinds and (named or "judge" not in kinds):
                continue
            with self._at(place):
                try:
                    answered.append(trial.ask(judge, results, partial(journals, results, name)))
                except NoRoom:
                    raise
                except JudgeError as error:
                    raise InputError(f"{KEY}: {error}") from None
        return "\n".join(one.in_words for one in answered if one) or None

    def price(self, to_do: Mapping[str, int], limits: Data) -> list[dict[str, Any]]:
        from bench.judges import cost

        prompts, tokens = self.options.prompts, self.options.generation.max_new_tokens
        priced = (
            cost.estimate(judge, limits, prompts, tokens, to_do.get(_stage(name), 0))
            for name, judge in self._names.items()
        )
        return [one for one in priced if one is not None]

    def smoke(self) -> WinRate:
        """Keep in which orders is asked, and whether by several; the rule judge knows the built-in world.

        Beside it stands a tiny untrained model as the second judge: two are enough to see all that several bring.
        """
        generation = self.options.generation.model_copy(update={"max_new_tokens": 8})
        first, *others = self.options.judges
        made: list[dict[str, Any]] = [{"kind": "rule", "orders": first.orders}]
        made += [{"kind": "local", "local_model": {"source": "random"}, "orders": one.orders} for one in others[:1]]
        return WinRate.model_validate({"prompts": 4, "generation": generation, "judge": made if others else made[0]})


def _stage(name: str) -> str:
    """Name the stage of a judge."""
    return f"judge:{name}"
