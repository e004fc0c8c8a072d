"""A server that makes answers: OpenAI's completions, and the calls by which vLLM and SGLang load LoRA adapters."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import InputError, JobError, one_line
from bench.evaluators.engine.requests import ATTEMPTS, Refused, Requests
from bench.evaluators.options import Endpoint, Generation
from bench.judges import faults
from bench.judges.faults import Fault

KEY = "evaluation.win_rate.generation.endpoint"
_TELL_EVERY_SECONDS = 10.0
# Of a list of models that is not there, or that the server cannot make, such as transformers' own without a hub's cache
_LISTS_NONE = (404, 405, 500, 501)
# Servers fill in what a request leaves open from the model's own settings or from their own: top_k 40 is llama.cpp's
NEUTRAL: Mapping[str, Any] = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
# What asks for an answer's token ids, vLLM by the first and llama.cpp by the second
WITH_IDS: Mapping[str, Any] = {"return_token_ids": True, "logprobs": 1}
_NOT_OPENAIS = (*NEUTRAL, "stop_token_ids", "return_token_ids")

Prompt = str | Sequence[int]


@dataclass(frozen=True)
class Said:
    """One answer as it came: its text, the tokens that the server counted, whether it ended by itself, and its token ids."""

    text: str
    tokens: int | None
    ended: bool
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Model:
    """What a server is asked for: a name, and where an adapter goes by a field of its own, that field."""

    name: str
    more: Mapping[str, Any]


class Server(Requests):
    """A server, asked through OpenAI's SDK; use it in a with statement.

    Args:
        settings: the suite's.
        tell: takes a line of progress.
        attempts: how often a request is tried that meets a passing fault.

    Raises:
        JobError: it needs a key that is not set.
    """

    def __init__(self, settings: Endpoint, tell: Callable[[str], None], attempts: int = ATTEMPTS) -> None:
        super().__init__(settings, attempts)
        self._tell, self.left_out = tell, list[str]()
        self._learning, self._lora = threading.Lock(), ""

    # ---- who it is ---------------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """Return what the server says that it is; null where it does not say, with the reason.

        Returns:
            server, version, its header Server, the names of the models that it serves beside adapters, and context_tokens,
            the tokens that prompt and answer may have.

        Raises:
            JobError: it does not answer, or is another one than the suite says.
        """
        rows, header = self._patiently(self._list, threading.Event())
        server, version = self._engine({str(row.get("owned_by")) for row in rows})
        models = [one_line(str(row["id"])) for row in rows if not row.get("parent")]
        found: dict[str, Any] = {"server": server, "version": version, "header": header, "models": models}
        if version is None:
            found["reason"] = "it says no version at /version, /props or /get_server_info"
        lengths = [row.get("max_model_len") or (row.get("meta") or {}).get("n_ctx") for row in rows]
        found["context_tokens"] = next((one for one in lengths if isinstance(one, int)), None)
        for name in ("server", "version"):
            declared = getattr(self.settings, name)
            if declared is not None and found[name] is not None and found[name] != declared:
                raise JobError(
                    f"{self.host} says that its {name} is {found[name]!r}, and {KEY}.{name} is {declared!r}; answers belong "
                    "to what made them: set the key to what runs there"
                )
        return found

    def _list(self) -> tuple[list[Mapping[str, Any]], str | None]:
        """Return what it says of its models, nothing where it lists none, and its header Server."""
        import openai

        try:
            raw = self._client.models.with_raw_response.list()
            body = json.loads(raw.text)
        except openai.APIError as error:
            fault = faults.of_error(error)
            if fault.status in _LISTS_NONE:
                return [], None
            raise fault from None
        except ValueError:
            return [], None
        rows = body.get("data") if isinstance(body, Mapping) else None
        known = [row for row in rows or [] if isinstance(row, Mapping) and isinstance(row.get("id"), str)]
        return known, one_line(raw.headers.get("server", ""), 100) or None

    def _engine(self, owners: set[str]) -> tuple[str | None, str | None]:
        """Return the server's name and version, as far as it tells."""
        for path, field, name in (
            ("/props", "build_info", "llama.cpp"),
            ("/get_server_info", "version", "sglang"),
            ("/version", "version", "vllm"),
        ):
            with suppress(Refused):
                said = self._call(self._root + path)
                if isinstance(said, Mapping) and isinstance(said.get(field), str):
                    # Others have a version, too; vLLM says whose its models are.
                    known = name if name != "vllm" or "vllm" in owners else None
                    return known, one_line(said[field], 100)
        return None, None

    def base(self, path: str | None, models: Sequence[str]) -> Model:
        """Return the base model's name: the suite's, else the model's path where it is served, else the one there is.

        Raises:
            JobError: several are served, and none is named.
        """
        name = self.settings.model or next((one for one in models if one == path), None)
        if name is None and len(models) == 1:
            name = models[0]
        if name is None:
            served = ", ".join(one_line(one, 60) for one in models[:5]) or "none by name"
            raise JobError(f"{KEY}.model: say which of the models at {self.host} is the base; it serves {served}")
        return Model(name, {})

    # ---- adapters ----------------------------------------------------------------------------------------------------

    def takes_adapters(self) -> bool:
        """Say whether it has the LoRA interface of vLLM or SGLang; an empty call asks, and loads nothing."""
        for path in ("/load_lora_adapter", f"{self._root}/load_lora_adapter"):
            try:
                self._call(path, {})
            except Refused as error:
                if error.status in (404, 405, 501):
                    continue
            self._lora = path.removesuffix("/load_lora_adapter")
            return True
        return False

    def load(self, name: str, folder: Path, base: Model) -> Model:
        """Load an adapter under a name.

        Raises:
            JobError: there is no interface for it, or it is refused; says what the server said.
        """
        if not self.takes_adapters():
            raise JobError(no_interface(self.host))
        try:
            said = self._call(f"{self._lora}/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        except Refused as error:
            raise JobError(self._not_loaded(folder, error.said)) from None
        if isinstance(said, Mapping) and said.get("success") is False:
            raise JobError(self._not_loaded(folder, str(said.get("error_message"))))
        # vLLM serves it as a model of that name; SGLang as its base with a field
        return Model(name, {}) if not self._lora else Model(base.name, {"lora_path": name})

    def _not_loaded(self, folder: Path, said: str) -> str:
        return (
            f"{self.host} does not load the adapter in {folder}: {self._clean(said)}; the server must see that folder and "
            "take its rank: bench serve-plan SUITE prints how to start it"
        )

    def unload(self, name: str) -> str | None:
        """Unload an adapter; return what went wrong, if anything: the answers are there."""
        try:
            self._call(f"{self._lora}/unload_lora_adapter", {"lora_name": name})
        except JobError as error:
            return f"the adapter {name} stays loaded at {self.host}: {error}"
        return None

    # ---- answers -----------------------------------------------------------------------------------------------------

    def answers(
        self,
        model: Model,
        prompts: Mapping[int, Prompt],
        fields: Callable[[int], Mapping[str, Any]],
        receive: Callable[[int, Said], None] = lambda place, said: None,
    ) -> dict[int, Said]:
        """Answer prompts, many at a time.

        Args:
            model: what is asked.
            prompts: by place.
            fields: gives the fields of the request for a place, beside model and prompt.
            receive: takes each answer as it comes, in this thread.

        Returns:
            The answers by place.

        Raises:
            JobError: one could not be had; what came before was handed over.
        """
        stop, found, told = threading.Event(), dict[int, Said](), time.monotonic()

        def work(place: int) -> tuple[int, Said]:
            try:
                return place, self._answer(model, prompts[place], fields(place), stop)
            except BaseException:
                stop.set()
                raise

        pool = ThreadPoolExecutor(max(1, min(self.settings.concurrency, len(prompts))), thread_name_prefix="endpoint")
        try:
            for future in as_completed([pool.submit(work, place) for place in prompts]):
                place, said = future.result()
                found[place] = said
                receive(place, said)
                if time.monotonic() - told > _TELL_EVERY_SECONDS:
                    told = time.monotonic()
                    self._tell(f"{len(found)} of {len(prompts)} prompts answered by {self.host}")
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        return found

    def _answer(self, model: Model, prompt: Prompt, fields: Mapping[str, Any], stop: threading.Event) -> Said:
        def attempt() -> Said:
            own = {name: value for name, value in fields.items() if name not in self.left_out}
            body = {"model": model.name, "prompt": prompt, **own, **model.more}
            try:
                return _said(self._post("/completions", body, self.settings.timeout_seconds))
            except Fault as fault:
                if self._leave_out(own, fault):
                    return attempt()
                raise

        said: Said = self._patiently(attempt, stop)
        return said

    def _leave_out(self, own: Mapping[str, Any], fault: Fault) -> bool:
        """Leave out fields beyond OpenAI's that the server refuses by their names; say whether that gave another request."""
        if fault.status not in (400, 422):
            return False
        named = [name for name in _NOT_OPENAIS if name in own and name in f"{fault.field} {fault.words}"]
        with self._learning:
            self.left_out += [name for name in named if name not in self.left_out]
        return bool(named)


def doubts(generation: Generation) -> list[str]:
    """Say what of the server the suite leaves open: answers that another version makes later would count as the same."""
    settings = generation.endpoint
    if generation.engine != "endpoint" or settings is None:
        return []
    missing = [name for name in ("server", "version") if getattr(settings, name) is None]
    if not missing:
        return []
    return [
        f"{KEY}: without {' and '.join(missing)} answers of another engine count as the same; give what the server says of "
        "itself, which bench run shows before it trains"
    ]


def try_out(generation: Generation) -> str | None:
    """Ask the server for one token, and whether it can load adapters, before anything is trained.

    Returns:
        What was found, in words; None where the answers are made here.

    Raises:
        InputError: says what to change.
    """
    settings = generation.endpoint
    if generation.engine != "endpoint" or settings is None:
        return None
    try:
        with Server(settings, lambda text: None, attempts=2) as server:
            about = server.about()
            if settings.adapters == "lora" and not server.takes_adapters():
                raise JobError(no_interface(server.host))
            name = settings.model or next(iter(about["models"]), "")
            server.answers(Model(name, {}), {0: "Hello"}, lambda place: {"max_tokens": 1, "temperature": 0.0})
    except JobError as error:
        raise InputError(str(error) if str(error).startswith(KEY) else f"{KEY}: {error}") from None
    who = " ".join(filter(None, [about["server"] or about["header"] or "a server", about["version"]]))
    return f"{server.host} makes the answers: {who}, serving {', '.join(about['models'][:3]) or name}"


def no_interface(host: str) -> str:
    """Say that a server loads no adapters, and what to do."""
    return (
        f"{host} has no interface to load adapters: start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora "
        f"(bench serve-plan SUITE prints the command), or set {KEY}.adapters to merged"
    )


def _said(body: Any) -> Said:
    """Read a completion.

    Raises:
        Fault: it is none; another may be one.
    """
    try:
        choice = body["choices"][0]
        text, reason = choice["text"], choice["finish_reason"]
    except (KeyError, IndexError, TypeError):
        raise Fault(None, f"no completion: {str(body)[:200]}") from None
    if not isinstance(text, str) or reason not in ("stop", "length"):
        raise Fault(None, f"no whole completion: it ended by {reason!r}")
    usage = body.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return Said(text, tokens if isinstance(tokens, int) else None, reason == "stop", _ids(choice))


def _ids(choice: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return an answer's token ids, as vLLM or llama.cpp gives them; None where they are not given."""
    found = choice.get("token_ids")
    content = (choice.get("logprobs") or {}).get("content")
    if not isinstance(found, list) and isinstance(content, list):
        found = [one.get("id") if isinstance(one, Mapping) else None for one in content]
    if not isinstance(found, list) or not all(type(one) is int for one in found):
        return None
    return tuple(found)
