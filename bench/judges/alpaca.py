"""alpaca-eval's configurations and its pairwise annotator with its weak points replaced.

Its configurations, prompts, parsers and arithmetic are used as they are. Replaced are: the completion function (ours
keeps every reply), the filling of templates (there, `<|im_end|>` or `{output_1}` inside an answer changes the prompt),
and the cache (keyed there without model or prompt).
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from bench.errors import SuiteError, unknown_name
from bench.judges.configurations import SPACES, Complete, Completion, Unusable, refusal
from bench.judges.requests import Message, Part, Request
from bench.quiet import quiet

_FIELD = re.compile(r"{([^ \s]+?)}")  # alpaca-eval's own idea of a placeholder
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
# Keys for alpaca-eval's own completion function, not for the endpoint
_NOT_SENT = ("model_name", "num_procs", "batch_size", "is_chat", "requires_chatml", "price_per_token", "client_kwargs")
# What its completion function sends where a configuration is silent
_SENT_BY_DEFAULT = {"top_p": 1.0, "temperature": 0.7}
_SEED = 0
_NO_LOG = logging.getLogger("alpaca_eval.completion_parsers")
_NO_LOG.disabled = True


@dataclass(frozen=True)
class Configuration:
    """One of alpaca-eval's evaluator configurations that asks for one comparison per prompt."""

    name: str
    template: str
    settings: Mapping[str, Any]
    of_alpaca_eval: ClassVar[bool] = True

    @property
    def model(self) -> str:
        """The model it names, unless a suite names another."""
        return str(self.settings["completions_kwargs"]["model_name"])

    @property
    def parameters(self) -> dict[str, Any]:
        """What is sent to an endpoint beside model and messages."""
        own = self.settings["completions_kwargs"]
        return _SENT_BY_DEFAULT | {name: value for name, value in own.items() if name not in _NOT_SENT}

    @property
    def needed(self) -> tuple[str, ...]:
        """What a reply is read from."""
        return ("logprobs", "top_logprobs") if self.reads_logprobs else ()

    @property
    def reads_logprobs(self) -> bool:
        """Whether a reply is read from its log-probabilities instead of its text."""
        return self.settings.get("fn_completion_parser") == "logprob_parser"

    def labels(self) -> tuple[str, str]:
        """Return the labels of output_1 and output_2, whose log-probabilities the parser compares.

        Raises:
            SuiteError: this configuration reads another kind of reply.
        """
        if not self.reads_logprobs:
            raise SuiteError(
                f"evaluation.win_rate.judge.configuration = {self.name!r}: reads written replies, but this "
                "kind of judge gives log-probabilities of two labels; use weighted_alpaca_eval_gpt4_turbo"
            )
        reads = self.settings["completion_parser_kwargs"]
        (other,) = (token for token in reads["denominator_tokens"] if token != reads["numerator_token"])
        return reads["numerator_token"], other

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Both labels."""
        return self.labels() if self.reads_logprobs else ()

    def messages(self, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """Fill the template: turns are found before anything is filled in, and each placeholder is filled once."""
        turns = _TURN.findall(self.template)
        return tuple(Message(role, tuple(_fill(text.strip(), fields))) for role, text in turns)

    def reader(self) -> Callable[[Completion], Completion | None]:
        """Make what finds the form of a completion that the configuration's parser reads; None: it reads none of them."""
        with quiet(""):
            from alpaca_eval import completion_parsers
        # What cannot be read is told by `why_unusable`; its parsers would write it to the screen through the root logger
        completion_parsers.logging = _NO_LOG
        parse = getattr(completion_parsers, self.settings.get("fn_completion_parser", "regex_parser"))
        arguments = self.settings.get("completion_parser_kwargs") or {}
        whole = self.settings.get("completion_key") == "completions_all"

        def is_read(completion: Completion) -> bool:
            try:
                values = list(parse(completion if whole else completion["text"], **arguments))
                return len(values) == 1 and 1 <= float(values[0]) <= 2
            except Exception:  # a parser meets whatever a judge may say, and raises whatever comes of it
                return False

        def read(completion: Completion) -> Completion | None:
            forms = _with_bare_tokens(completion) if self.reads_logprobs else _with_a_name_as_ranking(completion)
            return next((form for form in chain([completion], forms) if is_read(form)), None)

        return read

    def why_unusable(self, completion: Completion) -> Unusable:
        """Say why a reply that came cannot be used, and what to change."""
        if refused := refusal(completion):
            return refused
        if not self.reads_logprobs:
            said = f"its text {str(completion.get('text', ''))[:60]!r} is no ranking as {self.name} asks for"
            return Unusable(
                "no ranking", f"{said}; choose judge.configuration: pairwise_json_schema or pairwise_number"
            )
        tokens = _tokens(completion)
        if not tokens:
            return Unusable(
                "no log-probabilities",
                f"it came without log-probabilities, which the configuration {self.name} reads; choose a judge.model that "
                "gives them, or judge.configuration: pairwise_json_schema, pairwise_function or pairwise_number",
            )
        seen = ", ".join(repr(one.get("token")) for one in tokens[0].get("top_logprobs") or tokens[:1])
        labels = " and ".join(map(repr, self.labels()))
        return Unusable("labels missing", f"its first token is one of {seen[:80]}, and not both labels {labels}")

    def annotate(self, comparisons: Sequence[Mapping[str, Any]], complete: Complete) -> list[float | None]:
        """Run alpaca-eval's pairwise annotator over comparisons, as `judges.configurations.Configuration` says."""
        if not comparisons:
            return []
        with quiet(""):
            annotator = _annotator(self, complete)
            rows = [{**row, "place": place} for place, row in enumerate(comparisons)]
            annotated = annotator.annotate_pairs(rows, chunksize=None)
        found: list[float | None] = [None] * len(comparisons)
        for row in annotated:
            value = row["preference"]
            found[row["place"]] = None if value is None or math.isnan(value) else float(value)
        return found


def _fill(text: str, fields: Mapping[str, str]) -> list[Part]:
    pieces = _FIELD.split(text)
    return [Part(fields[piece] if place % 2 else piece, bool(place % 2)) for place, piece in enumerate(pieces) if piece]


def configuration(name: str, *, to_ask: bool = True, others: tuple[str, ...] = ()) -> Configuration:
    """Read a configuration without importing alpaca-eval.

    Args:
        name: its folder's.
        to_ask: whether prompts will be sent; stored replies can be read under more configurations.
        others: names of configurations that are not alpaca-eval's, to be named beside its own where there is none.

    Raises:
        SuiteError: there is none of that name, or it cannot be used here.
    """
    import yaml

    folder = _configurations()
    file = folder / name / "configs.yaml"
    key = "evaluation.win_rate.judge.configuration"
    if not file.is_file():
        known = [*others, *(path.parent.name for path in folder.glob("*/configs.yaml"))]
        raise SuiteError(f"{key}: {unknown_name('configuration', name, known)}")
    ((_, settings), *others) = yaml.safe_load(file.read_text(encoding="utf-8")).items()
    template_file = folder / str(settings["prompt_template"])
    template = template_file.read_text(encoding="utf-8") if template_file.is_file() else ""
    sent = settings.get("completions_kwargs", {})
    unfit = {
        "it is a pool of several judges": bool(others),
        "it asks for several pairs in one prompt": settings.get("batch_size", 1) != 1,
    }
    unfit |= (
        {}
        if not to_ask
        else {
            "it is not made for an OpenAI-compatible endpoint": settings.get("fn_completions") != "openai_completions",
            "its template is not a chat": not _TURN.search(template),
            "its template has other fields than instruction, output_1 and output_2": set(_FIELD.findall(template))
            != {"instruction", "output_1", "output_2"},
            "it biases single tokens": bool({"tokens_to_favor", "tokens_to_avoid"} & set(sent)),
        }
    )
    for reason, applies in unfit.items():
        if applies:
            raise SuiteError(
                f"{key} = {name!r}: cannot be used, {reason}; leave it out, or use weighted_alpaca_eval_gpt4_turbo"
            )
    return Configuration(name, template, settings)


def _configurations() -> Path:
    spec = importlib.util.find_spec("alpaca_eval")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "evaluators_configs"


# What alpaca-eval's templates call the two answers
_NAMES = ("m", "M")


def _with_bare_tokens(completion: Completion) -> Iterator[Completion]:
    """Yield a completion whose tokens have no spaces around them, as some tokenizers put them there; of two, the likelier."""
    for token in _tokens(completion)[:1]:
        best: dict[str, dict[str, Any]] = {}
        for one in token.get("top_logprobs") or ():
            name = str(one["token"]).strip(SPACES)
            if name not in best or one["logprob"] > best[name]["logprob"]:
                best[name] = {**one, "token": name}
        bare = {**token, "token": str(token.get("token", "")).strip(SPACES), "top_logprobs": list(best.values())}
        yield {**completion, "logprobs": {"content": [bare]}}


def _with_a_name_as_ranking(completion: Completion) -> Iterator[Completion]:
    """Yield the ranking that a name alone is."""
    name = str(completion.get("text") or "").strip().strip("\"'`.*")
    if name in _NAMES:
        other = _NAMES[1 - _NAMES.index(name)]
        ranked = [{"model": name, "rank": 1}, {"model": other, "rank": 2}]
        yield {**completion, "text": json.dumps({"ordered_models": ranked})}


def _tokens(completion: Completion) -> list[dict[str, Any]]:
    """Return the tokens with their log-probabilities; none where there are none."""
    found = completion.get("logprobs")
    content = found.get("content") if isinstance(found, Mapping) else None
    if not isinstance(content, list) or not all(isinstance(one, Mapping) for one in content):
        return []
    return [dict(one) for one in content]


def _annotator(settings: Configuration, complete: Complete) -> Any:
    from alpaca_eval.annotators.pairwise_evaluator import PairwiseAnnotator, SinglePairwiseAnnotator

    class Single(SinglePairwiseAnnotator):  # type: ignore[misc, unused-ignore]
        """Make prompts that no answer can break out of, and let `complete` answer them."""

        def __init__(self, *args: Any, **given: Any) -> None:
            # in the place of the configuration's own way to ask, whose package need not be installed
            given["fn_completions"] = lambda prompts, **_: _as_alpaca_eval_has_it(complete(prompts))
            super().__init__(*args, **given)

        def _make_prompts(self, df_to_annotate: Any, *_: Any) -> tuple[list[Request], Any]:
            rows = df_to_annotate[["instruction", "output_1", "output_2"]].to_dict("records")
            made = [
                Request(row["instruction"], row["output_1"], row["output_2"], settings.messages(row)) for row in rows
            ]
            return made, df_to_annotate.copy()

    class Pairwise(PairwiseAnnotator):  # type: ignore[misc, unused-ignore]
        SingleAnnotator = Single

    return Pairwise(
        annotators_config=settings.name,
        seed=_SEED,
        caching_path=None,
        is_avoid_reannotations=False,
        # the order of each comparison is decided before it comes here
        is_randomize_output_order=False,
        packages_for_which_to_show_version=None,
    )


def _as_alpaca_eval_has_it(completions: Sequence[Mapping[str, Any] | None]) -> dict[str, list[Any]]:
    return {
        "completions": [completion and completion["text"] for completion in completions],
        "completions_all": list(completions),
    }


def random_order(instruction: str) -> str:
    """Return alpaca-eval's seeded random order of a pair whose output_1 is the reference's answer and output_2 ours."""
    with quiet(""):
        from alpaca_eval.utils import random_seeded_choice
    is_switched = random_seeded_choice(seed=f"is_switched_outputs{instruction}{_SEED}", choices=[False, True])
    return "ours_first" if is_switched else "theirs_first"


def win_rate(preferences: Sequence[float]) -> dict[str, float]:
    """Return alpaca-eval's figures over preferences from 0 (theirs) to 1 (ours); rates and errors in percent."""
    with quiet(""):
        from alpaca_eval.metrics import get_winrate

        figures = get_winrate([{"preference": preference + 1} for preference in preferences])
    return {name: value.item() if hasattr(value, "item") else value for name, value in figures.items()}
