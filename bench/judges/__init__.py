"""Who compares two answers. A configuration, alpaca-eval's or our own, makes the prompts and reads the replies.

To add one: a file beside this one and a line in `JUDGES`, or an entry point in the group `bench.judges` of another
package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bench.judges.named import configuration as configuration_of
from bench.judges.requests import Message, Part, Reply, Request
from bench.plugins import Contract, not_json
from bench.registry import NoOptions, Registry
from bench.settings import Frozen, Label, Model, PathText, Positive, Share

if TYPE_CHECKING:
    from bench.judges.annotation_files import Kept
    from bench.judges.configurations import Configuration
    from bench.models.policy import Policy


__all__ = [
    "JUDGES",
    "Judge",
    "JudgeSettings",
    "Message",
    "Part",
    "Price",
    "Reply",
    "Request",
    "Setup",
    "label_completion",
    "local_name",
]

CONNECTION_ATTEMPTS = 6
# Of those that read log-probabilities of two labels; the one that a judge here gets where none is named
DEFAULT_CONFIGURATION = "weighted_alpaca_eval_gpt4_turbo"
# What an endpoint is tried with, in this order, where none is named
AUTOMATIC = (
    DEFAULT_CONFIGURATION,
    "pairwise_json_schema",
    "pairwise_function",
    "pairwise_logprobs",
    "pairwise_number",
)
# OpenAI's cheapest that lives, as documented in November 2026
DEFAULT_MODEL = "gpt-6-luna"


@dataclass(frozen=True)
class Setup:
    """Give a judge what it may need.

    Args:
        settings: the suite's.
        configuration: makes the prompts and reads the replies.
        load_local: loads a model here.
        reserve: to be called before each request that costs money: notes it and sets its cost and the reply's place on the
            disk aside. Returns what the endpoint may know it by; the same for one whose answer never came. Raises
            JudgeStopped at the ceiling of cost, NoRoom on a full disk. Each is followed by a reply handed over.
        attempts: how often a request is tried that meets a passing fault.
    """

    settings: JudgeSettings
    configuration: Configuration
    load_local: Callable[[Model], Policy]
    reserve: Callable[[Request], str] = lambda request: ""
    attempts: int = CONNECTION_ATTEMPTS


Receive = Callable[[Request, Reply], bool]


class Judge(Protocol):
    """Compare answers. A subclass needs what stands without a value here, and `ask`.

    Attributes:
        Options: a pydantic model of the keys that it takes beside those of every judge.
        endpoint: the host that it pays to ask, unless `base_url` names another; "" where replies cost nothing. One that
            is paid is tried before anything is trained.
        batches: whether it can be asked in batches.
        asks: whether prompts are sent; stored replies can be read under more configurations.
        forms: the configurations that it is tried with where none is named; none: it gets the default one.
        model: what is asked, by name.
        host: where it is asked.
        parameters: everything else that decides a reply.
        sent: what of it an endpoint takes; the same, unless it refused a part.
        changes: what of it was changed for that, in words.
        journaled: whether replies are kept one by one; not so where they cost nothing to make again.
    """

    Options: ClassVar[type[BaseModel]] = NoOptions
    endpoint: ClassVar[str] = ""
    batches: ClassVar[bool] = False
    asks: ClassVar[bool] = True
    forms: ClassVar[tuple[str, ...]] = ()
    model: str
    host: str
    parameters: Mapping[str, Any]
    journaled: bool

    @property
    def sent(self) -> Mapping[str, Any]:
        return self.parameters

    @property
    def changes(self) -> Sequence[str]:
        return ()

    def __init__(self, setup: Setup) -> None: ...

    def shutdown(self) -> date | None:
        """Ask the endpoint when it stops serving the model; None where it does not say."""
        return None

    @staticmethod
    def name(settings: JudgeSettings, configuration: Configuration) -> str:
        """Name it as scores do, `win_rate/<name>`.

        Raises:
            InputError: the configuration does not suit it, or what it works with is not there.
        """
        return settings.kind

    @staticmethod
    def identity(options: Any) -> dict[str, Any]:
        """Return what of its own options decides replies; of files their content, never a path."""
        made: dict[str, Any] = options.model_dump(mode="json")
        return made

    @staticmethod
    def models(options: Any) -> dict[str, Model]:
        """Return the models that it loads, by the key that names each."""
        return {}

    @staticmethod
    def kept(settings: JudgeSettings, configuration: Configuration) -> Mapping[tuple[str, str, str], Kept]:
        """Return what it knows of pairs (instruction, ours, theirs) that were each judged in one order: which, and how."""
        return {}

    def ask(self, requests: Sequence[Request], receive: Receive) -> None:
        """Answer every request, handing over each reply as soon as it is there, from any thread.

        `receive` says whether the reply can be used; one that cannot may be asked for again.

        Raises:
            JudgeStopped: it must not be asked further; the replies handed over are kept and summed up.
            JudgeError: it cannot answer at all.
        """


Usd = Annotated[float, Field(ge=0)]


class Price(Frozen):
    """Give what an endpoint asks for a million tokens, in US dollars; what is left out is what is known of its model."""

    input_usd_per_million_tokens: Usd | None = None
    """US dollars a million tokens of prompts."""
    output_usd_per_million_tokens: Usd | None = None
    """US dollars a million tokens of replies, their reasoning among them."""
    cached_input_usd_per_million_tokens: Usd | None = None
    """Of prompts, for what the endpoint had in its cache, where it counts that; as any other token where this is not known."""
    cache_write_usd_per_million_tokens: Usd | None = None
    """Of prompts, for what it put there; as any other token where this is not known."""
    batch_factor: Share | None = None
    """What a batch costs of all that: 0.5 is half price. As single requests where this is not known."""
    read: date | None = None
    """The day on which you read the price; one of 90 days ago is warned of."""


class JudgeSettings(Frozen):
    """Say who compares two answers; further keys are the kind's own options."""

    model_config = ConfigDict(extra="allow")

    kind: str
    """`openai`: any OpenAI-compatible endpoint; `local`: a model on this machine that scores the two labels; `rule`:
    right and courteous, for the built-in world only; `replay`: the replies of an earlier judging; or another
    package's."""
    configuration: PathText | None = None
    """How is asked and read. alpaca-eval's: `weighted_alpaca_eval_gpt4_turbo` (needs log-probabilities) or
    `alpaca_eval_gpt4_turbo_fn` (a ranking by function call). Our own, with ties: `pairwise_json_schema`,
    `pairwise_function`, `pairwise_logprobs`, `pairwise_number` (plain text). `null`: of `openai`, the first that the endpoint
    answers to: alpaca-eval's log-probabilities, then our own; of the others, alpaca-eval's."""
    model: Label | None = None
    """`null`: the configuration's own, which for alpaca-eval's two is retired; without a configuration `gpt-6-luna`. Of
    `replay`: whose replies, where a journal holds those of several."""
    base_url: str | None = None
    """Another endpoint than OpenAI's; it must carry no key."""
    key_variable: Label = "OPENAI_API_KEY"
    """Environment variable that holds the key; the key itself never stands in a suite."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Fields of a request to add or change, beside those of the configuration; `null` takes one out, such as
    `{max_tokens: null, max_completion_tokens: 32}`. What is known of a model's family is done without."""
    orders: Literal["both", "single"] = "both"
    """`both`: each pair in both orders; `single`: in one, drawn at random."""
    batch: bool = False
    """Whether what is missing is asked for as a batch, at half the price at OpenAI's and within a day, where the endpoint has
    batches of OpenAI's form."""
    concurrency: Positive = 8
    """Requests in flight."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Seconds to wait for one request. One that is given up may be answered, and paid for, all the same."""
    first_pause_seconds: Annotated[float, Field(ge=0)] = 1.0
    """Seconds before a failed request is tried again; each further pause is about twice as long, unless the endpoint
    says how long."""
    max_unjudged_share: Share = 0.0
    """Share of pairs that may stay without a usable reply; beyond it the win rate is null. 0 allows none."""
    max_cost_usd: Annotated[float, Field(gt=0)] | None = None
    """Ceiling in US dollars for all judging of the suite by this judge: it stops before the ceiling may be passed and keeps what
    came; `null` for none."""
    price: Price | None = None
    """What the endpoint asks; `null`: what `bench/judges/prices.yaml` says of OpenAI's own, or litellm where it is installed."""

    @field_validator("base_url")
    @classmethod
    def _carries_no_secret(cls, value: str | None) -> str | None:
        return None if value is None else cls.without_secret(value)

    @staticmethod
    def without_secret(value: str) -> str:
        """Refuse what is no address, or carries a secret: records keep the URL.

        Raises:
            ValueError: says what it must be.
        """
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(value)
            secret = parts.username or parts.password or parts.query
        except ValueError:
            raise ValueError("must be an address such as https://api.example.org/v1") from None
        if secret:
            raise ValueError("must carry no user, password or query; the key is read from 'key_variable'")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address such as https://api.example.org/v1")
        return value

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in JUDGES:
            raise ValueError(JUDGES.unknown(value))
        return value

    @model_validator(mode="after")
    def _sends_requests(self) -> JudgeSettings:
        if self.parameters and not self.judge.endpoint:
            raise ValueError(f"parameters: a judge of kind {self.kind!r} sends no requests; leave it out")
        if self.batch and not self.judge.batches:
            raise ValueError(f"batch: a judge of kind {self.kind!r} is not asked in batches; leave it out")
        return self

    @model_validator(mode="before")
    @classmethod
    def _with_options(cls, given: Any) -> Any:
        """Check the kind's own keys, and fill in what they are where they are left out."""
        kind = _kind_of(given)
        if kind is None:
            return given
        own = {name: value for name, value in given.items() if name not in cls.model_fields}
        return {**given, **JUDGES.options(given["kind"], own)}

    @classmethod
    def more_keys(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys that the kind's own options are, with what each takes."""
        kind = _kind_of(given)
        return {name: field.annotation for name, field in kind.Options.model_fields.items()} if kind else {}

    @property
    def judge(self) -> type[Judge]:
        """The judge that is meant."""
        return JUDGES[self.kind]

    @property
    def options(self) -> Any:
        """The kind's own options."""
        return self.judge.Options.model_validate(self.model_extra)

    @property
    def configurations(self) -> tuple[str, ...]:
        """The configurations that come into question: the one that is named, or those that the judge is tried with."""
        return (self.configuration,) if self.configuration else self.judge.forms or (DEFAULT_CONFIGURATION,)

    @property
    def asked_model(self) -> str:
        """The model that is asked, by name."""
        own = (
            None
            if self.configuration is None and self.judge.forms
            else configuration_of(self.configurations[0], to_ask=False)
        )
        return self.model or (own.model if own else None) or DEFAULT_MODEL

    def identity(self) -> dict[str, Any]:
        """Return what decides the replies; how fast, how patiently and for how much money they come does not.

        Raises:
            InputError: what the judge works with is not there.
        """
        common = self.model_dump(mode="json", include={"kind", "configuration", "model", "base_url", "orders"})
        if self.configuration is None and not self.judge.forms:
            common["configuration"] = DEFAULT_CONFIGURATION
        common |= {"parameters": self.parameters} if self.parameters else {}
        return common | self.judge.identity(self.options)


def _kind_of(given: Any) -> type[Judge] | None:
    """Find the judge that keys not yet checked name."""
    kind = given.get("kind") if isinstance(given, Mapping) else None
    return JUDGES[kind] if isinstance(kind, str) and kind in JUDGES else None


def label_completion(logprobs: Mapping[str, float]) -> dict[str, Any]:
    """Put labels' log-probabilities into the completion that an OpenAI endpoint would give for one token."""
    best = max(logprobs, key=logprobs.__getitem__)
    top = [{"token": token, "logprob": logprob} for token, logprob in logprobs.items()]
    token = {"token": best, "logprob": logprobs[best], "top_logprobs": top}
    return {"text": best, "logprobs": {"content": [token]}}


def local_name(model: Model) -> str:
    """Name a local judge's model: the last part of its path or hub id, or its source."""
    return PurePath(model.path).name if model.path else model.source


def _no_name(made: Any) -> str | None:
    return None if isinstance(made, str) and made else f"{made!r:.100}, but it is the judge's name, as text"


def _no_identity(made: Any) -> str | None:
    problem = not_json(made) if isinstance(made, Mapping) else f"it is a {type(made).__name__}"
    return f"what is no mapping of JSON values ({problem})" if problem else None


JUDGES: Registry[type[Judge]] = Registry(
    "judge",
    "bench.judges",
    {
        "rule": "bench.judges.rule:RuleJudge",
        "local": "bench.judges.local:LocalJudge",
        "openai": "bench.judges.openai:OpenaiJudge",
        "replay": "bench.judges.replay:ReplayJudge",
    },
    Contract(Judge, parts=("ask",), returns={"name": _no_name, "identity": _no_identity}),
)
