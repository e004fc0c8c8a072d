"""lm-eval's Hugging Face model, made cheaper for questions: what requests share is forwarded once.

Where every continuation is one token (MMLU's letters), what questions begin with is followed by all of them in one row,
hidden from each other. Otherwise a row is a context with all its continuations behind it, and rows that begin alike share one
key-value cache of their beginning. Logits are made only where an answer's token is predicted, in float32 also of a bfloat16
model: rounded to its 8 bits, the best two letters are often equal. Log-probabilities equal the stock model's to float
precision, those of a bfloat16 model to its rounding. What is not a question (generated answers, rolling likelihoods) stays stock.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from bench.evaluators.shared_rows import (
    PASS_TOKENS_CPU,
    PASS_TOKENS_GPU,
    Group,
    Reply,
    Request,
    Row,
    batches,
    in_one_row,
    make_rows,
    one_row_batches,
    share_beginnings,
    share_of,
)
from bench.models import bf16_matmul, lm_head, memory, packed_attention, probe, sharding

if TYPE_CHECKING:
    from bench.models.processes import Processes

Answer = tuple[float, bool]
Made = TypeVar("Made")
# Rows to begin with where as many are taken as fit: more would make a GPU's passes no cheaper.
MOST_ROWS = 512
# Of one pass over questions of several beginnings.
MOST_TOKENS = 1 << 15
# Of answers in words, which hold a key-value cache each until the last one has ended.
MOST_ANSWERS = 64
_SECONDS_BETWEEN_NEWS = 10.0
# One evaluation after another asks the same questions: tokens by tokenizer, then by (context, continuation).
_encoded: WeakKeyDictionary[Any, dict[tuple[str, str], tuple[list[int], list[int]]]] = WeakKeyDictionary()


class SharedContextLM(HFLM):  # type: ignore[misc]
    """Answer log-likelihood requests as HFLM does, from as few tokens as they need.

    The model is tried on a few tokens first, once: `packed` rows, else rows of their own for continuations of several
    tokens, else the stock way. What was chosen stays on the model as `bench_contexts`.

    With `halving`, passes that memory has no room for are made again with half as many rows at once, and so are later ones.

    With `processes`, these share the requests out, and each returns all answers: on a CPU whole batches, so that the
    answers are one process's to the last bit.
    """

    def __init__(
        self, *, tell: Callable[[str], None], halving: bool = False, processes: Processes | None = None, **stock: Any
    ) -> None:
        super().__init__(**stock)
        self._processes = processes
        self._tell, self._halving = tell, halving
        # On a GPU a pass over few tokens takes as long as one over many.
        self._gathers = self.device.type == "cuda"
        self._kept: tuple[tuple[int, ...], Any] = (), None  # of the last beginning: its tokens and its key-value cache

    def _fitting(self, attempt: Callable[[], Made]) -> Made:
        while True:
            try:
                return attempt()
            except torch.OutOfMemoryError:
                if not self._halving or self.batch_size == 1:
                    raise
            self.batch_size_per_gpu //= 2
            self._tell(f"out of memory: going on with {self.batch_size} rows at once")
            memory.release(self.device)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        known = _encoded.setdefault(self.tokenizer, {})
        if (context, continuation) not in known:
            known[context, continuation] = super()._encode_pair(context, continuation)
        return known[context, continuation]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answer in words as HFLM does; a task that wants longer answers than the model's window holds gets half of it."""
        room, asked = self.max_length // 2, 0
        for request in requests:
            context, settings = request.arguments
            wanted = settings.get("max_gen_toks", self.max_gen_toks)
            if wanted >= self.max_length:
                asked = wanted
                request.arguments = context, {**settings, "max_gen_toks": room}
        if asked:
            self._tell(f"answers end at {room} tokens, not {asked}: the model's window is {self.max_length}")
        if self._halving:
            self.batch_size_per_gpu = min(self.batch_size, MOST_ANSWERS)
        stock = super().generate_until

        def key(request: Any) -> tuple[Any, ...]:
            """Order requests as the stock model does."""
            context, settings = request.arguments
            return repr(settings), -len(self.tok_encode(context)), context

        return self._shared_out(lambda own: self._fitting(lambda: stock(own, disable_tqdm)), requests, key)

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        is_rolling = any(text is None for text, _, _ in requests)
        way = "stock" if is_rolling or not isinstance(self.batch_size, int) else self._way()
        if way == "stock":
            stock = super()._loglikelihood_tokens

            def key(request: Request) -> int:
                return -len(request[1]) - len(request[2])

            return self._shared_out(
                lambda own: self._fitting(lambda: stock(own, disable_tqdm, override_bs)), requests, key
            )
        pass_tokens = PASS_TOKENS_CPU if self.device.type == "cpu" else PASS_TOKENS_GPU
        packed = way == "packed" and self._within_window(requests)
        return self._answers(requests, packed, pass_tokens, self._processes)

    def _shared_out(
        self, ask: Callable[[list[Any]], list[Made]], requests: list[Any], key: Callable[[Any], Any]
    ) -> list[Made]:
        """Have each process ask its share of some requests; return all answers in their order."""
        if (processes := self._processes) is None:
            return ask(requests)
        order = sorted(range(len(requests)), key=lambda place: key(requests[place]))
        own = processes.own_batches(order, 1 if self._gathers else self.batch_size)
        with sharding.passes_of_each(_base(self.model), processes):
            answers = ask([requests[place] for place in own]) if own else []
        found = processes.joined(dict(zip(own, answers, strict=True)))
        return [found[place] for place in range(len(requests))]

    # ---- what this model can take -------------------------------------------------------------------------------------

    def _way(self) -> str:
        """Return packed, rows or stock: the first that gives the stock model's answers on a few tokens."""
        base = _base(self.model)
        if not hasattr(base, "bench_contexts"):
            base.bench_contexts = next((way for way in ("packed", "rows") if self._agrees(way == "packed")), "stock")
            if base.bench_contexts == "stock":
                self._tell("this model cannot share contexts between questions: asking each in full, as lm-eval does")
        return str(base.bench_contexts)

    @bf16_matmul.left_alone()
    def _agrees(self, packed: bool) -> bool:
        ids = probe.tokens(self.tokenizer, 12, self.model.config.get_text_config().vocab_size)
        requests: list[Request] = [
            (("", ""), context, continuation)
            for context in (ids[:3] + ids[4:6], ids[:4], ids[:7])
            for continuation in (ids[7:8], ids[7:10], ids[10:12])
        ]
        of_one_token = [request for request in requests if len(request[2]) == 1]
        expected = super()._loglikelihood_tokens([*requests, *of_one_token], disable_tqdm=True)
        try:
            got = [*self._answers(requests, packed, pass_tokens=0), *self._answers(of_one_token, packed, pass_tokens=0)]
        except Exception:  # whatever a model's own code raises for a cache or a mask it does not know
            return False
        mine, theirs = (torch.tensor([logp for logp, _ in answers]) for answers in (got, expected))
        return probe.agree(mine, theirs, self.model.dtype)

    def _within_window(self, requests: Sequence[Request]) -> bool:
        """Say whether no row reaches past the model's attention window, which the mask of a packed row would lift."""
        config = self.model.config.get_text_config()
        windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        longest = max(len(context) + len(continuation) for _, context, continuation in requests)
        return all(window is None or longest <= window for window in windows)

    # ---- forward passes -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    @bf16_matmul.forward_only()
    def _answers(
        self, requests: Sequence[Request], packed: bool, pass_tokens: int, processes: Processes | None = None
    ) -> list[Answer]:
        answers: dict[int, Answer] = {}
        told = time.monotonic()
        one_row = packed and packed_attention.installed(self.model)

        def score(groups: Sequence[Group]) -> int:
            """Score the first of some groups; return how many."""
            nonlocal told
            first = in_one_row(groups, self.batch_size, MOST_TOKENS) if one_row and self._gathers else groups[:1]
            for found in self._scores(first, one_row, pass_tokens):
                answers.update(found)
                if time.monotonic() - told > _SECONDS_BETWEEN_NEWS:
                    told = time.monotonic()
                    self._tell(f"{len(answers):,} of {own:,} answers scored")
            return len(first)

        groups = share_beginnings(make_rows(requests, self.max_length, packed), pass_tokens)
        if processes is not None:
            whole = None if self._gathers else lambda group: self._batches(group, one_row, pass_tokens)
            groups = share_of(groups, processes.rank, processes.count, whole)
        own = sum(len(row.replies) for group in groups for row in group.rows)
        with sharding.passes_of_each(_base(self.model), processes):
            while groups:
                groups = groups[self._fitting(partial(score, groups)) :]
        if processes is not None:
            answers = processes.joined(answers)
        return [answers[place] for place in range(len(requests))]

    def _scores(self, groups: Sequence[Group], one_row: bool, pass_tokens: int) -> Iterator[dict[int, Answer]]:
        """Score a group batch by batch, or several in one row: where attention can keep questions apart, else behind a cache."""
        group = groups[0]
        if len(groups) > 1:
            yield self._score_one_row([(one.shared, one.rows) for one in groups])
            return
        if one_row and not group.has_tails:
            for batch in self._batches(group, one_row, pass_tokens):
                yield self._score_one_row([(group.shared, batch)])
            return
        cache = self._cache(group.rows[0].context[: group.shared]) if group.shared else None
        for batch in self._batches(group, one_row, pass_tokens):
            yield self._score(batch, group.shared, cache)

    def _batches(self, group: Group, one_row: bool, pass_tokens: int) -> list[list[Row]]:
        if group.one_batch:
            return [group.rows]
        if one_row and not group.has_tails:
            return one_row_batches(group, self.batch_size)
        return batches(group, self.batch_size, pass_tokens)

    def _score_one_row(self, pieces: Sequence[tuple[int, Sequence[Row]]]) -> dict[int, Answer]:
        """Forward each beginning once with all its rows behind it, each of which sees the beginning and itself."""
        ids: list[int] = []
        parts: list[tuple[int, list[int]]] = []
        replies: list[tuple[Reply, list[int]]] = []
        for shared, rows in pieces:
            ids += rows[0].context[:shared]
            for row in rows:
                ids += row.context[shared:]
                replies += [(reply, [*range(len(ids) - reply.inside, len(ids))]) for reply in row.replies]
            own = [len(row.context) - shared for row in rows]
            parts += [(shared, own)] if shared else [(0, [length]) for length in own]
        arguments = {
            "input_ids": torch.tensor([ids], device=self.device),
            "use_cache": False,
            **packed_attention.arguments(parts, self.model.dtype, self.device),
        }
        return self._forward(arguments, replies)

    def _cache(self, tokens: Sequence[int]) -> Any:
        """Forward a beginning once; return its key-value cache of one row, which is kept until the next one's."""
        if self._kept[0] == tuple(tokens):
            return self._kept[1]
        ids = torch.tensor([tokens], device=self.device)
        with self._only(torch.tensor([len(tokens) - 1], device=self.device)):
            self._kept = tuple(tokens), self.model(input_ids=ids, use_cache=True).past_key_values
        return self._kept[1]

    def _score(self, rows: Sequence[Row], shared: int, cache: Any) -> dict[int, Answer]:
        """Forward the rows' own tokens behind the cache, and score every reply."""
        ids, mask, positions, replies = _lay_out(rows, shared, self.max_length)
        arguments: dict[str, Any] = {"input_ids": ids.to(self.device), "use_cache": cache is not None}
        if cache is not None:
            arguments["past_key_values"] = _repeated(cache, len(rows))
        if mask is not None:
            scores = packed_attention.added(mask, self.model.dtype).to(self.device)
            arguments |= {"attention_mask": scores, "position_ids": positions.to(self.device)}
        return self._forward(arguments, replies)

    def _forward(self, arguments: dict[str, Any], replies: Sequence[tuple[Reply, list[int]]]) -> dict[int, Answer]:
        """Forward a batch and score each reply from the flat places that predict its tokens."""
        predictors = torch.tensor(sorted({place for _, places in replies for place in places}))
        with self._only(predictors.to(self.device)):
            logits = self.model(**arguments).logits
        logps = torch.log_softmax(logits.flatten(0, 1), dim=-1, dtype=torch.float32)  # [predictors, vocabulary]
        greedy = logps.argmax(-1).cpu()
        at = {int(place): number for number, place in enumerate(predictors)}
        where = [[at[place] for place in places] for _, places in replies]
        targets = [token for reply, _ in replies for token in reply.continuation]
        flat = torch.tensor([number for numbers in where for number in numbers])
        chosen = logps[flat.to(self.device), torch.tensor(targets, device=self.device)].cpu()
        answers, start = {}, 0
        for (reply, _), numbers in zip(replies, where, strict=True):
            end = start + len(numbers)
            is_greedy = greedy[numbers].tolist() == list(reply.continuation)
            answers[reply.place] = (float(chosen[start:end].sum()), is_greedy)
            start = end
        return answers

    @contextmanager
    def _only(self, predictors: Tensor) -> Iterator[None]:
        """Let the vocabulary projection see some positions of the flattened batch; logits become [1, predictors, vocabulary].

        They are float32. What the model does to them afterwards (scaling, soft caps) stays its own.
        """
        head = _base(self.model).get_output_embeddings()

        def pick(_module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (inputs[0].flatten(0, 1).index_select(0, predictors).unsqueeze(0), *inputs[1:])

        def widen(_module: Any, inputs: tuple[Tensor, ...], _logits: Tensor) -> Tensor:
            return lm_head.float32_logits(head, inputs[0])

        handles = [head.register_forward_pre_hook(pick)]
        if type(head) is torch.nn.Linear and head.weight.dtype is not torch.float32:
            handles.append(head.register_forward_hook(widen))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _repeated(cache: Any, rows: int) -> Any:
    """Copy a cache of one row for a batch; the forward pass appends to what it is given."""
    made = copy.deepcopy(cache)
    made.batch_repeat_interleave(rows)
    return made


def _lay_out(
    rows: Sequence[Row], shared: int, max_length: int
) -> tuple[Tensor, Tensor | None, Tensor, list[tuple[Any, list[int]]]]:
    """Lay rows out without their shared beginning: each context, its tails behind it, padding on the right.

    Returns:
        Token ids [rows, width]; which keys a position may look at [rows, 1, width, shared + width], None where plain
        causal attention says the same; positions [rows, width]; each reply with the flat places that predict its tokens.
    """
    width = max(row.length for row in rows) - shared
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    positions = torch.arange(shared, shared + width).clamp_(max=max_length - 1).repeat(len(rows), 1)
    mask = None
    if any(row.length > len(row.context) for row in rows):
        mask = torch.ones(width, shared + width, dtype=torch.bool).tril(shared).repeat(len(rows), 1, 1, 1)
    replies: list[tuple[Any, list[int]]] = []
    for number, row in enumerate(rows):
        own = len(row.context) - shared
        ids[number, :own] = torch.tensor(row.context[shared:])
        base, start = number * width, own
        for reply in row.replies:
            end = start + len(reply.tail)
            if mask is not None and reply.tail:
                ids[number, start:end] = torch.tensor(reply.tail)
                positions[number, start:end] = torch.arange(len(row.context), len(row.context) + len(reply.tail))
                mask[number, 0, start:end, shared + own : shared + start] = False
            replies.append((reply, [*range(base + own - reply.inside, base + own), *range(base + start, base + end)]))
            start = end
    return ids, mask, positions, replies
