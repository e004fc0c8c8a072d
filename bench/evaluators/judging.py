"""Generated answers beside reference answers, compared by judges: the key `evaluation.win_rate`. No torch at the top."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from bench.errors import DataError, InputError, JudgeError, NoRoom, SuiteError
from bench.evaluators import Evaluator, Outcome, Rows, Stage, StageContext, prompt_sets
from bench.evaluators.options import FoundSet, WinRate
from bench.evaluators.prompt_sets import Prompt, PromptSet
from bench.judges import JUDGES, JudgeSettings
from bench.judges.prices import KEY
from bench.settings import Data, Model

if TYPE_CHECKING:
    from bench.models.policy import Policy


class Judging(Evaluator):
    """Generated answers against reference answers, by judges, which can change without new answers.

    Prompts and references are those of held-out pairs, or of a prompt set. Every judge works from the same answers. Nothing of a
    judging depends on the others or on their order, so that one more judge, or another main one, makes no new job of what is
    judged already.
    """

    Options: ClassVar[type[BaseModel]] = WinRate
    options: WinRate

    def stages(self) -> tuple[Stage, ...]:
        asked: dict[str, Any] = {"prompts": self.options.prompts, "generation": self.options.generation.identity()}
        asked |= (
            {"prompts_from": self.options.found and self.options.found.instructions_sha256} if self._has_set else {}
        )
        answers = Stage(
            "generate",
            asked,
            name="answers",
            slug="answers",
            title=f"answers to {self._set_in_words}" if self._has_set else "answers",
            data=() if self._has_set else ("preference",),
            form=self._has_set,
            splits=self.options.generation.engine == "transformers",  # a server has batches and devices of its own
        )
        return answers, *map(self._judged, self._names)

    def _judged(self, name: str) -> Stage:
        judge = self._names[name]
        origin = JUDGES.origin(judge.kind)
        judged = judge.identity()
        judged |= {"prompts_from": self.options.found and self.options.found.sha256} if self._has_set else {}
        return Stage(
            "judge",
            judged,
            name=_stage(name),
            slug="judged",
            title=f"judged answers, {name}" if len(self._names) > 1 else "judged answers",
            data=() if self._has_set else ("preference",),
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
        count = self.options.prompts
        return {f"win_rate/{next(iter(self._names))}": None if count == "all" else count}

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

    def prompt_set(self, mirror: Path | None) -> PromptSet | None:
        """Read the prompt set; None where prompts are those of held-out pairs."""
        return self._set(mirror) if self._has_set else None

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

        if not self._has_set:
            datasets = context.datasets(self.pairs_wanted())
            prompts = [row.prompt for row in datasets.judged]
            policy, stop = context.policy(), datasets.stop
            rows, facts = self._answers(context, policy, prompts, stop)
            return Outcome(rows, facts={"generation": facts})
        policy, read = context.policy(), self._set(context.mirror)
        prompts, stop = self._as_asked(read, context.data, policy.tokenizer), prompt_form.stops(context.data)
        rows, facts = self._answers(context, policy, prompts, stop)
        limit = context.max_prompt_tokens
        tokenizing = Tokenizing(policy.tokenizer, limit, self.options.generation.max_new_tokens)
        for row, prompt in zip(rows, prompts, strict=True):
            before = tokenizing.cut_prompts
            tokenizing.prompt(prompt)
            row["prompt_cut"] = tokenizing.cut_prompts > before
        if tokenizing.cut_prompts:
            context.tell(
                f"{tokenizing.cut_prompts} of {len(prompts)} prompts are longer than {limit} tokens: their left end is cut"
            )
        about = {
            "from": read.name,
            "rows": len(prompts),
            "cut_prompts": tokenizing.cut_prompts,
            "sha256": read.instructions_sha256,
        }
        return Outcome(rows, facts={"generation": facts, "prompts": about})

    def _answers(
        self, context: StageContext, policy: Policy, prompts: Sequence[str], stop: tuple[str, ...]
    ) -> tuple[Rows, dict[str, Any]]:
        """Answer prompts here or at a server; return the rows, and how they were made."""
        from bench.evaluators import generation
        from bench.evaluators.engine import answers

        settings, limit, tell = self.options.generation, context.max_prompt_tokens, context.tell
        if settings.engine == "endpoint":
            return answers.answers_and_facts(policy, prompts, settings, stop, limit, tell, context.folder)
        return generation.answers_and_facts(policy, prompts, settings, stop, limit, tell)

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
                stopping=context.stopping,
            )
        ((name, score),) = scores.items()
        if read is not None:
            cut = sum(bool(row.get("prompt_cut")) for row in answers)
            score |= prompt_sets.facts(read, settings, score["configuration"], cut)
        # Failed, not complete: the next run asks only for the pairs that are missing.
        missing = f"{name}: {score.get('reason')}; the same command asks again, only for the missing ones"
        error = JudgeError(self._placed(missing, place)) if score["value"] is None else None
        against = read.against if read else win_rate.CHOSEN
        return Outcome(rows, scores, (win_rate.metric(settings, score["configuration"], against),), error=error)

    def warnings(self) -> list[str]:
        from bench.evaluators.engine import server as engine_server
        from bench.judges import trial

        judges = (line for judge in self.options.judges for line in trial.warnings(judge))
        return [*engine_server.doubts(self.options.generation), *judges]

    def models(self) -> dict[str, Model]:
        several = len(self.options.judges) > 1
        return {
            f"{KEY}{f'[{place}]' if several else ''}.{key}": model
            for place, judge in enumerate(self.options.judges)
            for key, model in judge.judge.models(judge.options).items()
        }

    def try_out(self, kinds: set[str], results: Path, mirror: Path | None) -> str | None:
        """Ask each paid judge that is still needed one tiny question, and a server that makes the answers for one token."""
        from bench.evaluators.engine import server as engine_server

        server = engine_server.try_out(self.options.generation) if "generate" in kinds else None
        return "\n".join(filter(None, [server, *self._try_judges(kinds, results)])) or None

    def _try_judges(self, kinds: set[str], results: Path) -> list[str]:
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
        return [one.in_words for one in answered if one]

    def price(self, to_do: Mapping[str, int], limits: Data) -> list[dict[str, Any]]:
        from bench.judges import cost

        tokens, found = self.options.generation.max_new_tokens, self.options.found
        if found:  # the set's own lengths
            longest = [math.ceil(length / cost.CHARACTERS_PER_TOKEN) for length in found.characters]
            limits = limits.model_copy(update={"max_prompt_tokens": longest[0], "max_answer_tokens": longest[1]})
        count = self.options.prompts
        if count == "all":
            return []
        priced = (
            cost.estimate(judge, limits, count, tokens, to_do.get(_stage(name), 0))
            for name, judge in self._names.items()
        )
        return [one for one in priced if one is not None]

    def goes_on(self, kind: str, folder: Path) -> str | None:
        from bench.judges import journal
        from bench.judges.batch import notes as batch_notes

        try:
            rows = journal.rows((folder / journal.JOURNAL).read_bytes()) if kind == "judge" else []
        except OSError:
            return None
        made = [one for one in batch_notes.under_way(rows) if one.step]
        return "the judge's batch goes on at its endpoint, and the same command takes its results" if made else None

    def smoke(self) -> WinRate:
        """Keep in which orders is asked, and whether by several; the rule judge knows the built-in world.

        Beside it stands a tiny untrained model as the second judge: two are enough to see all that several bring.
        """
        alone = {"max_new_tokens": 8, "engine": "transformers", "endpoint": None}
        generation = self.options.generation.model_copy(update=alone)
        first, *others = self.options.judges
        made: list[dict[str, Any]] = [{"kind": "rule", "orders": first.orders}]
        made += [{"kind": "local", "local_model": {"source": "random"}, "orders": one.orders} for one in others[:1]]
        return WinRate.model_validate({"prompts": 4, "generation": generation, "judge": made if others else made[0]})


def _stage(name: str) -> str:
    """Name the stage of a judge."""
    return f"judge:{name}"
