"""How far a policy has moved from its base model, in nats a token: the key `evaluation.base_kl`. No torch at the top.

The forward divergence KL(base ‖ policy) on what the base model itself says goes along with what is forgotten (arXiv
2509.04259). The base answers the training prompts once, for all policies; each is then read at every token of these answers,
and of text that nothing was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from bench.errors import DataError
from bench.evaluators import Evaluator, Outcome, Rows, Stage, StageContext
from bench.evaluators.options import BaseKl, Generation, TextSource
from bench.records.metrics import Metric

if TYPE_CHECKING:
    from bench.data.tokens import Datasets, Example
    from bench.models.policy import Policy

ANSWERS, TEXT = "base_kl/answers", "base_kl/text"


def _metric(name: str, on: str, what: str) -> Metric:
    return Metric(
        name,
        f"KL from the base, {on}",
        "nats",
        "lower",
        "score",
        f"KL(base ‖ policy) a token, exact over the vocabulary, on {what}",
        low=0.0,
        item="answer" if name == ANSWERS else "text",
    )


class Divergence(Evaluator):
    """Forward divergence from the base model, on its own answers and on text."""

    Options: ClassVar[type[BaseModel]] = BaseKl
    options: BaseKl

    def stages(self) -> tuple[Stage, ...]:
        settings = self.options.model_dump(mode="json", exclude={"batch_size"})
        text = settings.pop("text")
        if text and text["source"] == "local":
            text["path"] = _content(Path(text["path"]).expanduser())
        data = ("preference", "instruction")
        answers = Stage(
            "base_answers",
            settings,
            name="answers",
            slug="base-answers",
            title="the base's answers",
            data=data,
            of_base=True,
            splits=True,
        )
        return (
            answers,
            Stage("base_kl", settings | {"text": text}, slug="kl", title="KL from the base", data=data, splits=True),
        )

    def new_tokens(self) -> int:
        return int(self.options.max_new_tokens)

    def run(self, kind: str, context: StageContext) -> Outcome:
        return self._answer(context) if kind == "base_answers" else self._measure(context)

    def _answer(self, context: StageContext) -> Outcome:
        """Let the base model answer the head of each objective's training prompts."""
        from bench.evaluators import generation

        settings = Generation(max_new_tokens=self.options.max_new_tokens, seed=self.options.seed)
        prompts = _prompts(context.datasets(0), self.options.prompts)
        policy = context.policy()
        answered, facts = generation.sample_ids(policy, [one for _, _, one in prompts], settings, (), context.tell)
        ends = set(policy.end_of_turn_ids())
        rows: Rows = [
            {"id": f"{objective}/{row}", "tokens": _until_end(ids, ends)}
            for (objective, row, _), ids in zip(prompts, answered, strict=True)
        ]
        return Outcome(rows, facts={"generation": facts})

    def _measure(self, context: StageContext) -> Outcome:
        from bench.data.tokens import Example
        from bench.models import divergence

        policy, datasets = context.policy(), context.datasets(0)
        said = {row["id"]: tuple(row["tokens"]) for row in context.earlier["answers"]}
        prompts = {f"{one}/{row}": ids for one, row, ids in _prompts(datasets, self.options.prompts)}
        asked = {
            ANSWERS: {one: Example(prompts[one], (ids,)) for one, ids in said.items() if ids},
            TEXT: self._text(policy, datasets, context),
        }
        rows: Rows = []
        scores: dict[str, dict[str, Any]] = {}
        for name, examples in asked.items():
            context.tell(f"divergence from the base on {len(examples)} {'answers' if name == ANSWERS else 'texts'}")
            found = divergence.from_base(policy, list(examples.values()), self.options.batch_size)
            rows += [{"id": one, "outcomes": {name: list(pair)}} for one, pair in zip(examples, found, strict=True)]
            scores[name] = _score(found)
        what = "text that nothing was trained on" if self.options.text else "answers of held-out instruction rows"
        answers = "answers that the base sampled for training prompts"
        metrics = (_metric(ANSWERS, "its own answers", answers), _metric(TEXT, "text", what))
        return Outcome(rows, scores, metrics)

    def _text(self, policy: Policy, datasets: Datasets, context: StageContext) -> dict[str, Example]:
        if self.options.text is None:
            examples = next(split.examples for name, split in datasets.held_out.items() if name == "sft")
            return {f"held_out/{row}": one for row, one in enumerate(examples)}
        return _texts(self.options.text, policy.tokenizer, context)

    def try_out(self, kinds: set[str], results: Path, mirror: Path | None) -> str | None:
        """Read the text that policies are to be measured on.

        Raises:
            DataError: it cannot be read, or holds no text.
        """
        if "base_kl" in kinds and self.options.text is not None:
            _read(self.options.text, mirror)
        return None

    def smoke(self) -> BaseKl:
        return BaseKl(prompts=2, max_new_tokens=4)


def _content(path: Path) -> str:
    """Name a file or folder by what is in it.

    Raises:
        DataError: it is not there.
    """
    from bench.data import sources

    if not path.exists():
        raise DataError(f"evaluation.base_kl.text.path: {path} is not there")
    return sources.files_hash(path)


def _until_end(ids: Sequence[int], ends: set[int]) -> list[int]:
    """Leave out what fills a row after the end of its answer, which itself is said."""
    end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[: end + 1])


def _prompts(datasets: Datasets, count: int) -> list[tuple[str, int, tuple[int, ...]]]:
    """Return (objective, row, token ids) of the head of each objective's training prompts."""
    return [
        (str(objective), row, example.prompt)
        for objective, split in datasets.train.items()
        for row, example in enumerate(split.examples[:count])
    ]


def _texts(source: TextSource, tokenizer: Any, context: StageContext) -> dict[str, Example]:
    """Cut texts into rows; the first token of each stands for its prompt, as nothing predicts it."""
    from bench.data.tokens import Example

    found: dict[str, Example] = {}
    for number, text in enumerate(_read(source, context.mirror)):
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"][: context.max_prompt_tokens])
        if len(ids) > 1:
            found[f"text/{number}"] = Example(ids[:1], (ids[1:],))
    if not found:
        raise DataError(f"evaluation.base_kl.text: {source.path} holds no text of two tokens or more")
    return found


def _read(source: TextSource, mirror: Path | None) -> list[str]:
    """Read the head of a set of texts; empty ones do not count.

    Raises:
        DataError: it cannot be read, or a row has no text where it should stand.
    """
    from bench.data import sources
    from bench.settings import DataSource

    read = DataSource(source=source.source, path=source.path, revision=source.revision, rows=source.rows)
    split = source.split if source.source == "hub" else "train"
    found: list[str] = []
    for number, row in enumerate(sources.read_split(read, split, mirror), 1):
        text = row.get(source.column)
        if not isinstance(text, str):
            has = ", ".join(map(repr, row))
            where = f"evaluation.base_kl.text: row {number} of {source.path}"
            raise DataError(f"{where} has no text in {source.column!r}; it has {has}: name one as `column`")
        if text.strip():
            found.append(text)
        if len(found) == source.rows:
            break
    return found


def _score(found: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """Return the mean a token, a ratio of sums, with its standard error by rows."""
    count, tokens = len(found), sum(one for _, one in found)
    if not tokens:
        return {"value": None, "n": 0, "standard_error": None, "reason": "the base model answered nothing"}
    value = math.fsum(one for one, _ in found) / tokens
    if count < 2:
        return {"value": value, "n": count, "standard_error": None, "reason": "one row has no spread"}
    spread = math.fsum((one - value * size) ** 2 for one, size in found) / (count - 1)
    return {"value": value, "n": count, "standard_error": math.sqrt(spread / count) / (tokens / count)}
