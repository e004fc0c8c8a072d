"""The local judge: a Hugging Face model on this machine, asked for the log-probabilities of the two labels."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from bench.judges import (
    Judge,
    JudgeSettings,
    Message,
    Part,
    Receive,
    Reply,
    Request,
    Setup,
    label_completion,
    local_name,
)
from bench.models.files import model_settings
from bench.settings import Frozen, Model

if TYPE_CHECKING:
    from bench.judges.configurations import Configuration

# Private-use characters, which no template contains, mark where filled-in text goes
_MARK = "\ue000{}\ue001"
_MARKS = re.compile("\ue000(\\d+)\ue001")


class LocalOptions(Frozen):
    """Name the model."""

    local_model: Model
    """The model that scores both labels, by the keys of the suite's `model`."""


class LocalJudge(Judge):
    """Score both labels as the next words of the judge's turn, under the same template a paid judge gets."""

    Options: ClassVar[type[BaseModel]] = LocalOptions
    host = "local"
    journaled = True

    def __init__(self, setup: Setup) -> None:
        model = setup.settings.options.local_model
        self._labels = setup.configuration.labels()
        self._policy = setup.load_local(model)
        self.model = local_name(model)
        self.parameters: dict[str, Any] = {"model": model_settings(model), "labels": list(self._labels)}

    @staticmethod
    def name(settings: JudgeSettings, configuration: Configuration) -> str:
        configuration.labels()  # refuses a configuration that reads another kind of reply
        return f"local:{local_name(settings.options.local_model)}"

    @staticmethod
    def identity(options: LocalOptions) -> dict[str, Any]:
        return {"local_model": model_settings(options.local_model)}

    @staticmethod
    def models(options: LocalOptions) -> dict[str, Model]:
        return {"local_model": options.local_model}

    def ask(self, requests: Sequence[Request], receive: Receive) -> None:
        """Answer every request; one that does not fit the model's context has no reply."""
        from bench.data.tokens import Example
        from bench.models.held_out import answer_logps

        tokenizer = self._policy.tokenizer
        labels = tuple(tuple(tokenizer(label, add_special_tokens=False)["input_ids"]) for label in self._labels)
        room = getattr(self._policy.model.config, "max_position_embeddings", None)
        for request in requests:
            started = time.monotonic()
            prompt = prompt_ids(tokenizer, request.messages)
            if room is not None and len(prompt) + max(map(len, labels)) > room:
                said = f"a prompt of {len(prompt)} tokens exceeds the judge's context of {room}"
                receive(request, Reply(None, said, kind="prompt too long"))
                continue
            logps = answer_logps(self._policy, [Example(prompt, labels)], 1)[0].tolist()
            completion = label_completion(dict(zip(self._labels, logps, strict=True)))
            receive(request, Reply(completion, None, {"prompt": len(prompt)}, time.monotonic() - started))


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> tuple[int, ...]:
    """Tokenize a chat up to where the judge speaks.

    Only the templates' own text may yield special tokens: filled-in text is tokenized apart, with none recognised.
    """
    filled: list[str] = []

    def marked(part: Part) -> str:
        if not part.filled:
            return part.text
        filled.append(part.text)
        return _MARK.format(len(filled) - 1)

    turns = [{"role": message.role, "content": "".join(map(marked, message.parts))} for message in messages]
    if tokenizer.chat_template is None:
        text = "\n\n".join(turn["content"] for turn in turns) + "\n\n"
    else:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids: list[int] = []
    for place, piece in enumerate(_MARKS.split(text)):
        is_filled = place % 2 == 1
        piece = filled[int(piece)] if is_filled else piece
        ids += tokenizer(piece, add_special_tokens=False, split_special_tokens=is_filled)["input_ids"]
    return tuple(ids)
