"""Generated answers beside reference answers, compared by a judge: the key `evaluation.win_rate`. No torch at the top."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from bench.errors import DataError, InputError, JudgeError, NoRoom
from bench.evaluators import Evaluator, Outcome, Stage, StageContext, prompt_sets
from bench.evaluators.options import FoundSet, WinRate
from bench.evaluators.prompt_sets import Prompt, PromptSet
from bench.judges import JUDGES, JudgeSettings
from bench.settings import Data, Model


class Judging(Evaluator):
    """Generated answers against reference answers, by a judge, which can change without new answers.

    Prompts and references are those of held-out pairs, or of a prompt set.
    """

    Options: ClassVar[type[BaseModel]] = WinRate
    options: WinRate

    def stages(self) -> tuple[Stage, ...]:
        from bench.evaluators.win_rate import judge_name

        judge, generation = self.options.judge, self.options.generation.model_dump(mode="json")
        origin = JUDGES.origin(judge.kind)
        held_out, found = not self._has_set, self.options.found
        asked: dict[str, Any] = {"prompts": self.options.prompts, "generation": generation}
        judged = judge.identity()
        if not held_out:
            asked |= {"prompts_from": found and found.instructions_sha256}
            judged |= {"prompts_from": found and found.sha256}
        return (
            Stage(
                "generate",
                asked,
                name="answers",
                slug="answers",
                title="answers" if held_out else f"answers to {self._set_in_words}",
                data=("preference",) if held_out else (),
                form=not held_out,
            ),
            Stage(
                "judge",
                judged,
                slug="judged",
                title="judged answers",
                data=("preference",) if held_out else (),
                policy=False,
                labels={"judge": judge_name(judge)},
                origins=(origin,) if origin else (),
            ),
        )

    @property
    def _has_set(self) -> bool:
        """Whether prompts come from elsewhere than the held-out pairs."""
        return self.options.prompts_from != prompt_sets.HELD_OUT

    @property
    def _set_in_words(self) -> str:
        """Name the set and how many of its prompts are judged, as far as that is known."""
        name, count = self.options.prompts_from, self.options.prompts
        many = "the prompts" if count == "all" else f"{count} prompts"
        return f"{many} of {name if name == prompt_sets.ALPACA_EVAL else Path(name).name}"

    def settled(self, mirror: Path | None) -> WinRate:
        """Read the prompt set, if there is one."""
        if not self._has_set:
            return self.options
        read = self._set(mirror)
        return self.options.with_set(FoundSet(len(read.rows), read.instructions_sha256, read.sha256, read.lengths))

    def _set(self, mirror: Path | None) -> PromptSet:
        """Read the prompts that are judged.

        Raises:
            InputError: they cannot be read, or are not those that the plan was made with.
        """
        count = self.options.prompts
        read = prompt_sets.load(self.options.prompts_from, None if count == "all" else count, mirror)
        if self.options.found and self.options.found.sha256 != read.sha256:
            raise DataError(
                f"{prompt_sets.KEY} = {self.options.prompts_from!r}: the rows have changed since this run began; the same "
                "command plans with the new ones"
            )
        return read

    def check(self, tell: Callable[[str], None]) -> None:
        """Open a prompt file; a published set is looked for when the plan is made."""
        if self._has_set and self.options.prompts_from != prompt_sets.ALPACA_EVAL:
            self._set(None)

    def pairs_wanted(self) -> int:
        return 0 if self._has_set or self.options.prompts == "all" else self.options.prompts

    def own_prompts(self, data: Data, tokenizer: Callable[[], Any], mirror: Path | None) -> list[str]:
        return self._as_asked(self._set(mirror), data, tokenizer()) if self._has_set else []

    def _as_asked(self, read: PromptSet, data: Data, tokenizer: Any) -> list[str]:
        from bench.data import prompt_form

        return prompt_form.prompts([row.instruction for row in read.rows], data, tokenizer, self.options.prompts_from)

    def new_tokens(self) -> int:
        return int(self.options.generation.max_new_tokens)

    def run(self, kind: str, context: StageContext) -> Outcome:
        return self._generate(context) if kind == "generate" else self._judge(context)

    def _generate(self, context: StageContext) -> Outcome:
        from bench.data import prompt_form
        from bench.data.tokens import Tokenizing
        from bench.evaluators import generation

        settings, limit, tell = self.options.generation, context.max_prompt_tokens, context.tell
        if not self._has_set:
            datasets = context.datasets(self.pairs_wanted())
            prompts = [row.prompt for row in datasets.judged]
            policy, stop = context.policy(), datasets.stop
            rows, facts = generation.answers_and_facts(policy, prompts, settings, stop, limit, tell)
            return Outcome(rows, facts={"generation": facts})
        policy, read = context.policy(), self._set(context.mirror)
        prompts, stop = self._as_asked(read, context.data, policy.tokenizer), prompt_form.stops(context.data)
        rows, facts = generation.answers_and_facts(policy, prompts, settings, stop, limit, tell)
        tokenizing = Tokenizing(policy.tokenizer, limit, settings.max_new_tokens)
        for row, prompt in zip(rows, prompts, strict=True):
            before = tokenizing.cut_prompts
            tokenizing.prompt(prompt)
            row["prompt_cut"] = tokenizing.cut_prompts > before
        if tokenizing.cut_prompts:
            tell(
                f"{tokenizing.cut_prompts} of {len(prompts)} prompts are longer than {limit} tokens: their left end is cut"
            )
        about = {
            "from": read.name,
            "rows": len(prompts),
            "cut_prompts": tokenizing.cut_prompts,
            "sha256": read.instructions_sha256,
        }
        return Outcome(rows, facts={"generation": facts, "prompts": about})

    def _judge(self, context: StageContext) -> Outcome:
        from bench.evaluators import win_rate
        from bench.judges.requests import Pair

        read = self._set(context.mirror) if self._has_set else None
        asked = (
            [Prompt(pair.prompt, pair.chosen) for pair in context.datasets(self.pairs_wanted()).judged]
            if read is None
            else read.rows
        )
        answers = context.earlier["answers"]
        pairs = [
            Pair(id=row["id"], instruction=one.instruction, ours=row["answer"], theirs=one.reference)
            for row, one in zip(answers, asked, strict=True)
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
        if read is not None:
            cut = sum(bool(row.get("prompt_cut")) for row in answers)
            score |= prompt_sets.facts(read, self.options.judge, score["configuration"], cut)
        # Failed, not complete: the next run asks only for the pairs that are missing.
        missing = f"{name}: {score.get('reason')}; the same command asks again, only for the missing ones"
        error = JudgeError(missing) if score["value"] is None else None
        against = read.against if read else win_rate.CHOSEN
        metric = win_rate.metric(self.options.judge, score["configuration"], against)
        return Outcome(rows, scores, (metric,), error=error)

    def warnings(self) -> list[str]:
        from bench.judges import trial

        return trial.warnings(self.options.judge)

    def models(self) -> dict[str, Model]:
        judge = self.options.judge
        return {f"evaluation.win_rate.judge.{key}": model for key, model in judge.judge.models(judge.options).items()}

    def try_out(self, kinds: set[str], results: Path, mirror: Path | None) -> str | None:
        """Ask a paid judge one tiny question."""
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

        tokens, found = self.options.generation.max_new_tokens, self.options.found
        if found:  # the set's own lengths
            longest = [math.ceil(length / cost.CHARACTERS_PER_TOKEN) for length in found.characters]
            limits = limits.model_copy(update={"max_prompt_tokens": longest[0], "max_answer_tokens": longest[1]})
        count = self.options.prompts
        return (
            None if count == "all" else cost.estimate(self.options.judge, limits, count, tokens, to_do.get("judge", 0))
        )

    def smoke(self) -> WinRate:
        """Keep in which orders is asked; the rule judge knows the built-in world."""
        generation = self.options.generation.model_copy(update={"max_new_tokens": 8})
        judge = JudgeSettings(kind="rule", orders=self.options.judge.orders)
        return WinRate(prompts=4, generation=generation, judge=judge)
