"""Answers of a policy by a server: its adapter is put there under a fresh name, seen to be there, and taken off again."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.data.tokens import Tokenizing
from bench.errors import JobError
from bench.evaluators.engine import check
from bench.evaluators.engine.requests import Refused
from bench.evaluators.engine.server import KEY, NEUTRAL, WITH_IDS, Model, Prompt, Said, Server
from bench.evaluators.options import Generation
from bench.models.merging import CannotMerge, write_merged
from bench.models.policy import ADAPTER, Policy
from bench.records import record
from bench.records.hashes import file_hash

KEPT, SERVED, MERGED = "answered.jsonl", "served", "merged"
# Seeds of two prompts differ; 2³² − 1 is llama.cpp's word for a random one
_SEEDS = 2**31
# How an adapter is there, and what to do where it has no effect
_LOADED, _WITHIN = "loaded by the server", "merged"
_ADVICE = {
    _LOADED: f"such adapters can be merged: set {KEY}.adapters to merged",
    _WITHIN: "is it the merged model that is served under its folder's path, and not the base under any name?",
}


def answers_and_facts(
    policy: Policy,
    prompts: Sequence[str],
    settings: Generation,
    stop: tuple[str, ...],
    max_prompt_tokens: int,
    tell: Callable[[str], None],
    folder: Path,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Answer every prompt by the server that the settings name.

    Args:
        policy: the model that is meant, here, with or without an adapter; it makes the prompts' tokens and checks the server.
        prompts: as text; over-long ones lose their left end, as in training.
        settings: how tokens are sampled; each prompt has a seed of its own.
        stop: strings that end an answer; they are cut off.
        max_prompt_tokens: the length limit of a prompt.
        tell: takes a line of progress.
        folder: the job's: answers are kept there as they come, and what is loaded lies there.

    Returns:
        The rows and facts, in the form of `generation.answers_and_facts`.

    Raises:
        JobError: the server cannot be used as it is; answers that came are kept for the next attempt.
    """
    assert settings.endpoint is not None
    tokenizing = Tokenizing(policy.tokenizer, max_prompt_tokens, settings.max_new_tokens)
    ids = [tokenizing.prompt(prompt) for prompt in prompts]
    with Server(settings.endpoint, tell) as server:
        about = server.about()
        _refuse_too_long(about, max(map(len, ids), default=0) + settings.max_new_tokens, server.host)
        base = server.base(policy.settings.path, about["models"])
        few = {place: ids[place] for place in check.tried(len(ids))}
        asking = _Asking(policy, server, settings, stop)
        of_base = asking.greedily(base, few)
        checked = check.base(policy, few, of_base, server.host)
        with _put(policy, server, base, folder, tell) as (model, adapter):
            if model is not base:
                tried = asking.greedily(model, few)
                checked |= check.adapter(policy, few, of_base, tried, server.host, _ADVICE[adapter["how"]])
            said = asking.all(model, ids, folder / KEPT, {"about": about, "adapter": adapter["sha256"]}, tell)
        rows = [_row(policy, place, said[place], stop) for place in range(len(ids))]
        facts = {
            "engine": "endpoint",
            "endpoint": {"host": server.host, "model": base.name, **about},
            "adapter": adapter["how"],
            "checked": checked,
            "left_out": server.left_out,
            "prompts_at_once": settings.endpoint.concurrency,
            "random_numbers": "of each prompt" if settings.temperature > 0 else "none",
        }
    (folder / KEPT).unlink(missing_ok=True)
    return rows, facts


def _refuse_too_long(about: Mapping[str, Any], needed: int, host: str) -> None:
    room = about["context_tokens"]
    if room is not None and needed > room:
        raise JobError(
            f"{host} has room for {room} tokens of prompt and answer, and {needed} are needed: start it with as many "
            f"(vLLM: --max-model-len {needed}; bench serve-plan SUITE prints the command)"
        )


class _Asking:
    """Word requests as the suite's settings have them."""

    def __init__(self, policy: Policy, server: Server, settings: Generation, stop: tuple[str, ...]) -> None:
        self._policy, self._server, self._settings = policy, server, settings
        self._stop: dict[str, Any] = {"stop": list(stop)} if stop else {}
        ends = policy.end_of_turn_ids()
        self._common: dict[str, Any] = {**NEUTRAL, **({"stop_token_ids": ends} if ends else {})}

    def greedily(self, model: Model, ids: Mapping[int, Sequence[int]]) -> dict[int, Said]:
        """Answer a few prompts for a check."""
        tokens = min(check.TRIED_TOKENS, self._settings.max_new_tokens)
        fields = {**self._common, **WITH_IDS, "max_tokens": tokens, "temperature": 0.0}
        return self._server.answers(
            model, {place: self._prompt(one) for place, one in ids.items()}, lambda place: fields
        )

    def all(
        self,
        model: Model,
        ids: Sequence[Sequence[int]],
        kept: Path,
        belongs_to: Mapping[str, Any],
        tell: Callable[[str], None],
    ) -> dict[int, Said]:
        """Answer all prompts, those apart whose answers an earlier attempt at the same has kept."""
        settings = self._settings
        most, temperature = settings.max_new_tokens, settings.temperature
        fields = {**self._common, **self._stop, "max_tokens": most, "temperature": temperature}
        if settings.temperature > 0:
            fields["top_p"] = settings.top_p
        whole = {**belongs_to, "fields": fields, "seed": settings.seed, "prompts": [list(one) for one in ids]}
        key = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        found = _kept(kept, key)
        missing = {place: self._prompt(one) for place, one in enumerate(ids) if place not in found}
        if missing:
            earlier = f", {len(found)} are there" if found else ""
            tell(f"{self._server.host} answers {len(missing)} prompts{earlier}")

        def receive(place: int, said: Said) -> None:
            record.append_jsonl(kept, [_line(key, place, said)])

        def fields_of(place: int) -> dict[str, Any]:
            seed = {"seed": (settings.seed * 1_000_003 + place) % _SEEDS} if settings.temperature > 0 else {}
            return fields | seed

        return found | self._server.answers(model, missing, fields_of, receive)

    def _prompt(self, ids: Sequence[int]) -> Prompt:
        assert self._settings.endpoint is not None
        if self._settings.endpoint.prompts == "token_ids":
            return list(ids)
        return str(self._policy.tokenizer.decode(ids))


def _line(key: str, place: int, said: Said) -> dict[str, Any]:
    return {"key": key, "place": place, "text": said.text, "tokens": said.tokens, "ended": said.ended}


def _kept(path: Path, key: str) -> dict[int, Said]:
    """Return the answers that an earlier attempt kept; a line cut off at its end is none."""
    found: dict[int, Said] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except UnicodeDecodeError:
        lines = []
    for line in lines:
        try:
            row = json.loads(line)
            if row["key"] == key:
                found[int(row["place"])] = Said(str(row["text"]), row["tokens"], bool(row["ended"]))
        except (ValueError, KeyError, TypeError):
            continue
    if not found:
        path.unlink(missing_ok=True)
    else:  # whole lines only, so that the next one begins a line
        path.write_text("".join(f"{json.dumps(_line(key, *one))}\n" for one in found.items()), encoding="utf-8")
    return found


# ---- the adapter -----------------------------------------------------------------------------------------------------


@contextmanager
def _put(
    policy: Policy, server: Server, base: Model, folder: Path, tell: Callable[[str], None]
) -> Iterator[tuple[Model, dict[str, Any]]]:
    """Have the server answer as the policy for a while; yield what to ask, and how the adapter is there."""
    whole = not policy.has_adapter
    if whole and not policy.kept:
        yield base, {"how": "none", "sha256": None}
        return
    policy.save(folder / SERVED)
    saved = (folder / SERVED / ADAPTER).resolve()
    sha256 = _hash(folder / SERVED)
    try:
        if whole or server.settings.adapters == "merged" or _is_dora(policy):
            with _merged(policy, server, folder, tell) as model:
                yield model, {"how": _WITHIN, "sha256": sha256}
            return
        # A name that was used before may meet what a cache holds of it
        name = f"bench-{sha256[:10]}-{secrets.token_hex(3)}"
        tell(f"loading the adapter at {server.host} as {name}")
        model = server.load(name, saved, base)
        try:
            yield model, {"how": _LOADED, "sha256": sha256}
        finally:
            problem = server.unload(name)
            if problem:
                logging.getLogger("bench").warning(problem)
    finally:
        shutil.rmtree(folder / SERVED, ignore_errors=True)


@contextmanager
def _merged(policy: Policy, server: Server, folder: Path, tell: Callable[[str], None]) -> Iterator[Model]:
    """Write the merged model, and see whether the server serves it under its folder's path.

    Raises:
        JobError: it does not yet; says how to serve it. What was written stays.
    """
    made = (folder / MERGED).resolve()
    if not (made / "complete").exists():
        tell("writing the policy as a whole model")
        shutil.rmtree(made, ignore_errors=True)
        try:
            write_merged(policy.model, made)
        except CannotMerge as error:
            raise JobError(f"the adapter cannot be merged: {error}") from None
        policy.tokenizer.save_pretrained(made)
        (made / "complete").touch()
    model = Model(str(made), {})
    try:
        server.answers(model, {0: "Hello"}, lambda place: {"max_tokens": 1, "temperature": 0.0})
    except Refused as error:
        why = (
            "adapter is DoRA, which servers do not load"
            if _is_dora(policy)
            else f"adapter is to be merged ({KEY}.adapters)"
        )
        why = why if policy.has_adapter else "policy has weights of its own"
        raise JobError(
            f"the {why}: the whole model is in {made}, and {server.host} does not serve that ({error.said}); serve it under "
            f"this name, such as by: vllm serve {made} --dtype {policy.settings.dtype} --generation-config vllm, beside the "
            "base model behind one address, then run again"
        ) from None
    yield model
    shutil.rmtree(made, ignore_errors=True)  # only once its answers are there


def _is_dora(policy: Policy) -> bool:
    configs = policy.model.peft_config.values() if policy.has_adapter else ()
    return any(bool(getattr(one, "use_dora", False)) for one in configs)


def _hash(folder: Path) -> str:
    files = sorted(
        file for file in folder.rglob("*") if file.suffix == ".safetensors" or file.name == "adapter_config.json"
    )
    return hashlib.sha256("".join(f"{file.name} {file_hash(file)}\n" for file in files).encode()).hexdigest()


def _row(policy: Policy, place: int, said: Said, stop: tuple[str, ...]) -> dict[str, Any]:
    """Put an answer into the form of those that are generated here."""
    cuts = [said.text.index(string) for string in stop if string in said.text]
    text = said.text[: min(cuts)] if cuts else said.text
    tokens = said.tokens
    if tokens is None:
        tokens = len(policy.tokenizer(said.text, add_special_tokens=False)["input_ids"]) + said.ended
    return {"id": place, "answer": text.strip(), "tokens": tokens, "ended": said.ended or bool(cuts)}
