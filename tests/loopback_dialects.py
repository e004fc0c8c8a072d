"""Loopback endpoints that refuse, ignore and reply as known families of OpenAI-compatible endpoints are documented to.

Each takes a chat completion request and answers by rules of its own; what it says of a refusal is in its own words, form and
status. The model behind all of them is the same obedient one: it prefers the answer that says "our", does what the prompt asks
for, and gives it in the form that the request asks for, where its endpoint knows that form. None of them knows who asks.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from loopback_judge import KEY

Body = dict[str, Any]
_JSON_WANTED = re.compile(r'\{"(\w+)": "1"\}')


@dataclass
class Answer:
    """What goes over the wire."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """End a request with an answer that is none."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        super().__init__(status)
        self.answer = Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


# ---- the model behind an endpoint -------------------------------------------------------------------------------------


@dataclass
class Asked:
    """A request as the model sees it."""

    body: Body

    @property
    def prompt(self) -> str:
        return "\n".join(_content(message) for message in self.body["messages"])

    @property
    def first_is_better(self) -> bool:
        """Whether ours comes first; of a prompt with neither, the first is."""
        ours, theirs = self.prompt.find("our answer"), self.prompt.find("their answer")
        return ours <= theirs

    @property
    def labels(self) -> tuple[str, str]:
        """What the prompt calls the answers."""
        return ("m", "M") if re.search(r"['\"`]m['\"`]", self.prompt) else ("1", "2")

    @property
    def better(self) -> str:
        return self.labels[0 if self.first_is_better else 1]

    def say(self) -> str:
        """Do what the prompt asks for: JSON where it shows some, else the name of the better answer."""
        wanted = _JSON_WANTED.search(self.prompt)
        return json.dumps({wanted[1]: self.better}) if wanted else self.better

    def fill(self, schema: Mapping[str, Any]) -> Any:
        """Fill a JSON schema: of an enumeration the better answer's place, of models their ranks."""
        if "enum" in schema:
            return schema["enum"][0 if self.first_is_better else 1]
        if schema.get("type") == "array":
            first, second = self.labels if self.first_is_better else self.labels[::-1]
            return [{"model": first, "rank": 1}, {"model": second, "rank": 2}]
        return {name: self.fill(inner) for name, inner in schema.get("properties", {}).items()}

    def logprobs(self, alternatives: int) -> Body:
        """Give the better answer's label 0.9 where it comes first and 0.6 where it comes second."""
        p = 0.9 if self.first_is_better else 0.6
        other = next(label for label in self.labels if label != self.better)
        top = [(self.better, p), (other, 0.99 - p), ("The", 0.006), ("\n", 0.003), ("I", 0.001)]
        each = [{"token": token, "logprob": math.log(share), "bytes": list(token.encode())} for token, share in top]
        return {"content": [{**each[0], "top_logprobs": each[:alternatives]}], "refusal": None}


def _content(message: Mapping[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def completion(choice: Body, **usage: int) -> Body:
    counts = {"prompt_tokens": 300, "completion_tokens": 1, "total_tokens": 301} | usage
    whole = {"index": 0, "finish_reason": "stop", "logprobs": None} | choice
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "x",
        "choices": [whole],
        "usage": counts,
    }


def text(said: str, **more: Any) -> Body:
    return completion({"message": {"role": "assistant", "content": said}} | more)


def call(asked: Asked, *, as_text: bool = True) -> Body:
    """Call the one function of a request."""
    function = asked.body["tools"][0]["function"]
    made = asked.fill(function["parameters"])
    arguments = json.dumps(made) if as_text else made
    called = {"id": "call_1", "type": "function", "function": {"name": function["name"], "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [called]}
    return completion({"message": message, "finish_reason": "tool_calls"})


def structured(asked: Asked) -> str:
    """Reply as a schema wants it."""
    return json.dumps(asked.fill(asked.body["response_format"]["json_schema"]["schema"]))


def obey(asked: Asked, *, logprobs: bool = True, schema: bool = True, tools: bool = True) -> Body:
    """Reply in the form that was asked for, as far as the endpoint knows it."""
    if tools and asked.body.get("tools"):
        return call(asked)
    if schema and (asked.body.get("response_format") or {}).get("type") == "json_schema":
        return text(structured(asked))
    if logprobs and asked.body.get("logprobs"):
        more = asked.logprobs(int(asked.body.get("top_logprobs") or 0))
        return text(asked.better, logprobs=more, finish_reason="length")
    return text(asked.say())


# ---- OpenAI ------------------------------------------------------------------------------------------------------------


def openais(message: str, param: str | None, code: str | None, status: int = 400) -> Refusal:
    return Refusal(
        status, {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    )


def _refuse_max_tokens(body: Body) -> None:
    if "max_tokens" in body:
        raise openais(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        )


def _refuse_sampling(body: Body) -> None:
    if body.get("temperature", 1) != 1:
        raise openais(
            f"Unsupported value: 'temperature' does not support {body['temperature']} with this model. Only the default (1) "
            "value is supported.",
            "temperature",
            "unsupported_value",
        )
    if "top_p" in body:
        raise openais(
            "Unsupported parameter: 'top_p' is not supported with this model.", "top_p", "unsupported_parameter"
        )


def _refuse_effort(body: Body, known: tuple[str, ...]) -> None:
    effort = body.get("reasoning_effort")
    if effort is not None and effort not in known:
        listed = ", ".join(f"'{one}'" for one in known[:-1]) + f", and '{known[-1]}'"
        raise openais(
            f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model. Supported values are: "
            f"{listed}.",
            "reasoning_effort",
            "unsupported_value",
        )


def _reasoned(asked: Asked, needed: int) -> Body | None:
    """Return a reply that reasoning ate, where it may not be as long as reasoning needs."""
    longest = int(asked.body.get("max_completion_tokens") or asked.body.get("max_tokens") or 10**6)
    if longest >= needed:
        return None
    message = {"role": "assistant", "content": "", "refusal": None}
    return completion({"message": message, "finish_reason": "length"}, completion_tokens=longest)


def gpt_5(asked: Asked) -> Body:
    """Never without reasoning: no sampling, no log-probabilities, and short limits are eaten by it."""
    body = asked.body
    _refuse_max_tokens(body)
    _refuse_effort(body, ("minimal", "low", "medium", "high"))
    _refuse_sampling(body)
    if body.get("logprobs"):
        raise openais(
            "Unsupported parameter: 'logprobs' is not supported with this model.", "logprobs", "unsupported_parameter"
        )
    needed = {"minimal": 20, "low": 300}.get(body.get("reasoning_effort", "medium"), 900)
    return _reasoned(asked, needed) or obey(asked)


def gpt_5_forbidding(asked: Asked) -> Body:
    """As the same family says it elsewhere: log-probabilities are refused by 403."""
    if asked.body.get("logprobs"):
        raise openais("You are not allowed to request logprobs from this model.", None, None, 403)
    return gpt_5(asked)


def gpt_6(asked: Asked) -> Body:
    """Sampling and log-probabilities without reasoning, and functions only then; reasoning is the default."""
    body = asked.body
    _refuse_max_tokens(body)
    _refuse_effort(body, ("none", "low", "medium", "high", "xhigh", "max"))
    if body.get("reasoning_effort", "medium") != "none":
        _refuse_sampling(body)
        if body.get("logprobs"):
            raise openais("logprobs are not supported with reasoning models", "logprobs", "unsupported_parameter")
        if body.get("tools"):
            raise openais(
                f"Function tools with reasoning_effort are not supported for {body['model']} in /v1/chat/completions. To use "
                "function tools, use /v1/responses or set reasoning_effort to 'none'.",
                "reasoning_effort",
                None,
            )
        return _reasoned(asked, 500) or obey(asked)
    return obey(asked)


def azure(asked: Asked) -> Body:
    """A deployment of a name that says nothing of its model, which is of the fifth family; one prompt's filter speaks up."""
    if asked.body["model"] != "our-judge":
        raise Refusal(
            404,
            {
                "error": {
                    "code": "DeploymentNotFound",
                    "message": "The API deployment for this resource does not exist. If you created the deployment within the "
                    "last 5 minutes, please wait a moment and try again.",
                }
            },
        )
    made = gpt_5(asked)
    made["choices"][0]["content_filter_results"] = {"hate": {"filtered": False, "severity": "safe"}}
    return made | {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}


# ---- other providers ----------------------------------------------------------------------------------------------------


def anthropic(asked: Asked) -> Body:
    """Log-probabilities, formats and effort are ignored without a word; JSON comes in a fence."""
    if {"temperature", "top_p"} <= asked.body.keys():
        message = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
        error = {"code": "invalid_request_error", "message": message, "type": "invalid_request_error", "param": None}
        raise Refusal(400, {"error": error})
    if asked.body.get("tools"):
        return call(asked)
    said = asked.say()
    return text(f"```json\n{said}\n```" if said.startswith("{") else said)


def anthropic_without_temperature(asked: Asked) -> Body:
    """A later one, which takes no sampling at all."""
    if "temperature" in asked.body:
        message = "temperature is deprecated for this model."
        raise Refusal(
            400, {"error": {"code": None, "message": message, "type": "invalid_request_error", "param": None}}
        )
    return anthropic(asked)


def gemini(asked: Asked) -> Body:
    """Errors are a list; fields that it does not know are named in quotes; thinking eats short replies, without a content."""
    body = asked.body

    def invalid(message: str) -> Refusal:
        return Refusal(400, [{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}])

    if "additionalProperties" in json.dumps(body.get("tools", [])):
        raise invalid(
            'Invalid JSON payload received. Unknown name "additionalProperties" at '
            "'tools[0].function_declarations[0].parameters': Cannot find field."
        )
    if body.get("logprobs"):
        raise invalid(f"Logprobs is not enabled for models/{body['model']}")
    if body.get("max_tokens", 10**6) < 400 and body.get("reasoning_effort") != "none":
        return completion({"message": {"role": "assistant"}, "finish_reason": "length"}, completion_tokens=0)
    return obey(asked)


def mistral(asked: Asked) -> Body:
    """What it does not know is forbidden, all of it in one FastAPI list inside a message; a tool is chosen by a word."""
    known = {"model", "messages", "max_tokens", "temperature", "top_p", "response_format", "tools", "tool_choice"}
    extra = [name for name in asked.body if name not in known]
    details = [
        {
            "type": "extra_forbidden",
            "loc": ["body", name],
            "msg": "Extra inputs are not permitted",
            "input": asked.body[name],
        }
        for name in extra
    ]
    if asked.body.get("temperature") == 0 and asked.body.get("top_p", 1) != 1:
        message = "top_p must be 1 when using greedy sampling."
        raise Refusal(400, {"object": "error", "message": message, "type": "invalid_request_error", "code": "3054"})
    if details:
        body = {"object": "error", "message": {"detail": details}, "type": "invalid_request_error", "param": None}
        raise Refusal(422, body | {"code": None})
    return obey(asked)


@dataclass
class OpenRouter:
    """Every third request meets an error of a provider inside a choice or a body of status 200; tools have no endpoint."""

    asked: int = 0

    def __call__(self, asked: Asked) -> Body:
        self.asked += 1
        if asked.body.get("tools"):
            message = "No endpoints found that support tool use. To learn more about provider routing, visit: https://x.example"
            raise Refusal(404, {"error": {"message": message, "code": 404}})
        if self.asked % 3 == 1:
            error = {"code": 502, "message": "Provider returned error", "metadata": {"provider_name": "Somebody"}}
            choice = {"message": {"role": "assistant", "content": ""}, "finish_reason": "error", "error": error}
            return completion(choice)
        return obey(asked, logprobs=False)


@dataclass
class Overloaded:
    """A gateway that says 429 and 503 inside a 200, each in the place of every other reply."""

    asked: int = 0

    def __call__(self, asked: Asked) -> Body:
        self.asked += 1
        if self.asked % 4 == 1:
            return {
                "error": {"code": 429, "message": "Rate limit exceeded, try again in 0.01s", "type": "rate_limit_error"}
            }
        if self.asked % 4 == 3:
            return {
                "error": {
                    "message": "The engine is currently overloaded, please try again later",
                    "type": "server_error",
                }
            }
        return obey(asked)


# ---- servers of open weights ---------------------------------------------------------------------------------------------


def vllm(asked: Asked) -> Body:
    """Everything is there; labels of a tokenizer that keeps the space before a word."""
    made = obey(asked)
    for token in ((made["choices"][0]["logprobs"] or {}).get("content") or [])[:1]:
        for one in (token, *token["top_logprobs"]):
            one["token"] = f" {one['token']}"
    return made


def _vllms(message: str) -> Refusal:
    return Refusal(400, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}})


def vllm_with_few_logprobs(asked: Asked) -> Body:
    """Started with a smaller bound on log-probabilities, and with no parser for tools; errors in the older form."""
    number = asked.body.get("top_logprobs") or 0
    if number > 3:
        message = f"Requested sample logprobs of {number}, which is greater than max allowed: 3"
        raise Refusal(
            400, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}
        )
    return obey(asked)


def gemma_by_vllm(asked: Asked) -> Body:
    """A chat template that knows no system's turn."""
    if any(message["role"] == "system" for message in asked.body["messages"]):
        raise _vllms("System role not supported")
    return obey(asked)


def gemma_by_llama_cpp(asked: Asked) -> Body:
    """The same, as an error of the server's own."""
    if any(message["role"] == "system" for message in asked.body["messages"]):
        message = "\n------------\nWhile executing CallExpression at line 1\nError: Jinja Exception: System role not supported"
        raise Refusal(500, {"error": {"code": 500, "message": message, "type": "server_error"}})
    return obey(asked)


def ollama(asked: Asked) -> Body:
    """Log-probabilities are dropped without a word, a function's arguments come as an object, thinking beside the content."""
    if asked.body.get("tools"):
        return call(asked, as_text=False)
    made = obey(asked, logprobs=False)
    made["choices"][0]["message"]["reasoning"] = "They are both short."
    return made


def lm_studio(asked: Asked) -> Body:
    """Its errors are a text; it knows one format of replies, which a reasoning model behind it does not keep to."""
    kind = (asked.body.get("response_format") or {}).get("type")
    if kind not in (None, "json_schema", "text"):
        raise Refusal(400, {"error": "'response_format.type' must be 'json_schema' or 'text'"})
    return text(asked.better)


def transformers_serve(asked: Asked) -> Body:
    """Formats, tools and log-probabilities are ignored, and an obedient small model says one label."""
    return text(asked.better)


# ---- invented: refusals that no table can know ---------------------------------------------------------------------------


def harbour(asked: Asked) -> Body:
    """Its own name for the longest reply, with a least value; no system's turn; two samplings exclude each other.

    Plain text, with status 400.
    """
    body = asked.body
    for name in ("max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "reasoning_effort", "tools"):
        if name in body:
            hint = "; this model calls it reply_token_limit" if name.startswith("max_") else ""
            raise Refusal(400, f"Bad request. I do not know the setting {name}{hint}.")
    if any(message["role"] == "system" for message in body["messages"]):
        raise Refusal(400, "Bad request. Messages of the role system are not accepted, only user and assistant.")
    if {"temperature", "top_p"} <= body.keys():
        raise Refusal(400, "Bad request. Give only one of temperature and top_p.")
    if "reply_token_limit" not in body:
        raise Refusal(400, "Bad request. The setting reply_token_limit is required.")
    if body["reply_token_limit"] < 64:
        raise Refusal(400, "Bad request. reply_token_limit must be at least 64.")
    if (body.get("response_format") or {}).get("type", "text") != "text":
        raise Refusal(400, "Bad request. response_format can only be text.")
    return text(f"My verdict: {asked.better}.")


def lantern(asked: Asked) -> Body:
    """Numbers as texts, other names, all in FastAPI's list with status 422; and it thinks aloud before it answers.

    A short limit ends in the middle of thinking.
    """
    body = asked.body

    def wrong(name: str, message: str, kind: str = "value_error") -> Refusal:
        detail = {"type": kind, "loc": ["body", name], "msg": message, "input": body.get(name)}
        return Refusal(422, {"detail": [detail]})

    for name in ("logprobs", "top_logprobs", "reasoning_effort", "tools", "tool_choice", "response_format", "top_p"):
        if name in body:
            raise wrong(name, "Extra inputs are not permitted", "extra_forbidden")
    for name in ("max_tokens", "max_completion_tokens"):
        if name in body:
            raise wrong(name, "Value error, unknown parameter, did you mean 'maxOutputLength'?")
    if "temperature" in body and not isinstance(body["temperature"], str):
        raise wrong("temperature", "Input should be a valid string", "string_type")
    if int(body.get("maxOutputLength", 10**6)) < 200:
        return text("<think>The first answer says this, the second one says", finish_reason="length")
    return text(f"<think>One says 2 things, the other 1. I weigh {{both}}.</think>\n\n{asked.say()}")


def ember(asked: Asked) -> Body:
    """Says what it knows instead of what is wrong, refuses a role without naming it, and thinks aloud in brackets."""
    body = asked.body
    known = ("model", "messages", "out_limit", "randomness")
    for name in body:
        if name not in known:
            reason = f"unsupported argument {name}; supported arguments: {', '.join(known)}"
            raise Refusal(400, {"ok": False, "reason": reason})
    for place, message in enumerate(body["messages"]):
        if message["role"] not in ("user", "assistant"):
            wrong = {"type": "literal_error", "loc": ["body", "messages", place, "role"], "input": message["role"]}
            raise Refusal(422, {"detail": [wrong | {"msg": "Input should be 'user' or 'assistant'"}]})
    if body.get("out_limit", 100) < 500:
        return completion({"message": {"role": "assistant", "content": None}, "finish_reason": "length"})
    return text(f"[THINK]Answer 1 or answer 2? Both are short.[/THINK]{asked.say()}")


DIALECTS: dict[str, tuple[str, Callable[[], Callable[[Asked], Body]]]] = {
    "gpt_5": ("gpt-5-mini", lambda: gpt_5),
    "gpt_5_forbidding": ("gpt-5-nano", lambda: gpt_5_forbidding),
    "gpt_6": ("gpt-6-luna", lambda: gpt_6),
    "azure": ("our-judge", lambda: azure),
    "anthropic": ("claude-sonnet-4-6", lambda: anthropic),
    "anthropic_without_temperature": ("claude-opus-5", lambda: anthropic_without_temperature),
    "gemini": ("gemini-3-flash", lambda: gemini),
    "mistral": ("mistral-medium-3", lambda: mistral),
    "openrouter": ("somebody/some-model", OpenRouter),
    "overloaded": ("some-model", Overloaded),
    "vllm": ("org/Some-32B-Instruct", lambda: vllm),
    "vllm_with_few_logprobs": ("org/Some-32B-Instruct", lambda: vllm_with_few_logprobs),
    "gemma_by_vllm": ("google/gemma-2-9b-it", lambda: gemma_by_vllm),
    "gemma_by_llama_cpp": ("gemma-2-9b-it.gguf", lambda: gemma_by_llama_cpp),
    "ollama": ("llama3.2", lambda: ollama),
    "lm_studio": ("qwen3-8b", lambda: lm_studio),
    "transformers_serve": ("HuggingFaceTB/SmolLM2-135M-Instruct", lambda: transformers_serve),
    "harbour": ("quiet-harbour-2", lambda: harbour),
    "lantern": ("lantern-xl", lambda: lantern),
    "ember": ("ember-9", lambda: ember),
}


@dataclass
class Served:
    """A dialect behind an address, with what it was asked and what it answered."""

    url: str
    model: str
    asked: list[Body] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def dialect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Served]]:
    """Serve a dialect by its name; Azure's has another path than the others, and its key in a header of its own."""
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def serve(name: str) -> Served:
        model, make = DIALECTS[name]
        reply, lock = make(), threading.Lock()
        root = "/openai/v1" if name == "azure" else "/v1"

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                bearer = str(self.headers.get("Authorization")).removeprefix("Bearer ")
                keys = {self.headers.get("api-key")} if name == "azure" else {bearer}
                with lock:
                    made = self._answer(body, keys)
                    served.asked.append(body)
                    served.statuses.append(made.status)
                    served.paths.append(self.path)
                plain = isinstance(made.body, str)
                content = (made.body if plain else json.dumps(made.body)).encode()
                self.send_response(made.status)
                self.send_header("Content-Type", "text/plain" if plain else "application/json")
                self.send_header("Content-Length", str(len(content)))
                for header, value in made.headers.items():
                    self.send_header(header, value)
                self.end_headers()
                self.wfile.write(content)

            def _answer(self, body: Body, keys: set[str | None]) -> Answer:
                if self.path != f"{root}/chat/completions":
                    return Answer(404, {"error": {"code": "404", "message": "Resource not found"}})
                if KEY not in keys:
                    return Answer(401, {"error": {"code": "401", "message": "Access denied due to invalid key."}})
                try:
                    return Answer(200, reply(Asked(body)))
                except Refusal as refusal:
                    return refusal.answer

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        servers.append((server, thread))
        served = Served(f"http://127.0.0.1:{server.server_port}{root}", model)
        return served

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield serve
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()
